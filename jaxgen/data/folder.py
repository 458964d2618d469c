"""Folders of images: one for each class, or images and their masks."""

import dataclasses
from pathlib import Path

import numpy as np

from jaxgen.data.decode import read_ids, read_image
from jaxgen.data.fake import FakeLabels, FakeMasks
from jaxgen.data.source import Examples, Shape, Source, checked
from jaxgen.errors import DataNotFound, UserError
from jaxgen.typing import Example

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"})


@dataclasses.dataclass(frozen=True)
class Folder:
    """A folder for each class, with its images anywhere below it: `image` u8[h w c] and `label`.

    Raises UserError when opened if a folder is missing or holds no image, when read if an image is unreadable.
    """

    path: str
    classes: tuple[str, ...] = ()
    """Names of the folders, in the order of the ids; empty to take all, sorted."""
    channels: int = 3

    def open(self) -> Examples:
        root = _directory(self.path)
        classes = self.classes or tuple(sorted(child.name for child in root.iterdir() if child.is_dir()))
        for name in classes:
            if not (root / name).is_dir():
                raise UserError(f"no folder {root / name}")
        files = [(file, label) for label, name in enumerate(classes) for file in _images(root / name)]
        if not files:
            raise UserError(f"{root} holds no images; expected {root}/<class>/*.png")
        return checked(_Labelled(files, classes, self.channels), where=lambda i: str(files[i][0]))

    def shape(self) -> Shape | None:
        return None

    def fake(self, shape: Shape, classes: int, count: int) -> Source:
        return FakeLabels.of(shape, classes, count)


@dataclasses.dataclass(frozen=True)
class SegmentationFolder:
    """Images and masks in two folders, matched by name: `image` u8[h w c] and `mask` u8[h w].

    A mask is a PNG of ids, with a palette or grey. Raises UserError when opened if a folder, a mask or every pair is
    missing, when read if a file is unreadable, if the sizes of a pair differ or if a mask holds an id of no class.
    """

    images: str
    masks: str
    classes: tuple[str, ...]
    ids: str | None = None
    """File of names, one a line (as VOC's ImageSets): only these are read. None for all images."""
    lookup: tuple[int, ...] = ()
    """Position = raw mask id, entry = id; ids beyond its end stay as they are."""
    image_suffix: str = ""
    """What follows the name in an image's stem: "_leftImg8bit"."""
    mask_suffix: str = ""
    """What follows the name in a mask's stem: "_gtFine_labelIds"."""
    channels: int = 3

    def open(self) -> Examples:
        images = _by_name(_directory(self.images), self.image_suffix)
        masks = _by_name(_directory(self.masks), self.mask_suffix)
        names = sorted(images) if self.ids is None else _listed(Path(self.ids))
        if not set(images) & set(masks):
            raise UserError(f"no image in {self.images} has a mask of the same name in {self.masks}")
        for kind, files, place in (("image", images, self.images), ("mask", masks, self.masks)):
            missing = [name for name in names if name not in files]
            if missing:
                shown = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
                raise UserError(
                    f"{len(missing)} of {len(names)} names have no {kind} in {place}: {shown}. "
                    "Add what is missing, or list the names to read in a file and pass ids=FILE."
                )
        pairs = [(images[name], masks[name]) for name in names]
        examples = _Pairs(pairs, self.classes, self.channels)
        return checked(examples, self.lookup, where=lambda i: str(pairs[i][1]))

    def shape(self) -> Shape | None:
        return None

    def fake(self, shape: Shape, classes: int, count: int) -> Source:
        return FakeMasks.of(shape, classes, count)


class _Labelled:
    def __init__(self, files: list[tuple[Path, int]], classes: tuple[str, ...], channels: int):
        self.classes = classes
        self._files, self._channels = files, channels

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Example:
        file, label = self._files[index]
        return {"image": read_image(file, self._channels, str(file)), "label": np.array(label, np.int32)}


class _Pairs:
    def __init__(self, pairs: list[tuple[Path, Path]], classes: tuple[str, ...], channels: int):
        self.classes = classes
        self._pairs, self._channels = pairs, channels

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> Example:
        image_file, mask_file = self._pairs[index]
        image = read_image(image_file, self._channels, str(image_file))
        mask = read_ids(mask_file, str(mask_file))
        if image.shape[:2] != mask.shape:
            raise UserError(f"{image_file} is {_size(image)}, but its mask {mask_file} is {_size(mask)}")
        return {"image": image, "mask": mask}


def _size(array: np.ndarray) -> str:
    return f"{array.shape[0]}x{array.shape[1]} (height x width)"


def _directory(path: str | Path) -> Path:
    path = Path(path).expanduser()
    if not path.is_dir():
        raise DataNotFound(f"no folder {path}")
    return path


def _images(root: Path) -> list[Path]:
    return sorted(file for file in root.rglob("*") if file.suffix.lower() in SUFFIXES)


def _by_name(root: Path, suffix: str) -> dict[str, Path]:
    """Map "folder/stem", less the suffix, to the file."""
    files = {file.relative_to(root).with_suffix("").as_posix(): file for file in _images(root)}
    return {stem.removesuffix(suffix): file for stem, file in files.items() if stem.endswith(suffix)}


def _listed(file: Path) -> list[str]:
    try:
        return [line.split()[0] for line in file.expanduser().read_text().splitlines() if line.strip()]
    except OSError as error:
        raise UserError(f"cannot read the list of names {file} ({error})") from error
