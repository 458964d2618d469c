"""Folders of images: one for each class, images alone, or images and their masks."""

import dataclasses
from pathlib import Path

import numpy as np

from jaxgen.data import layout
from jaxgen.data.decode import Colour, read_ids, read_image, turned
from jaxgen.data.fake import FakeLabels, FakeMasks
from jaxgen.data.files import SUFFIXES, below, directory, pictures
from jaxgen.data.source import Examples, Shape, Source, check_names, checked
from jaxgen.data.split import Side, check_classes, on_side
from jaxgen.errors import UserError
from jaxgen.typing import IGNORE, Example


@dataclasses.dataclass(frozen=True)
class Folder:
    """A folder for each class, with its images anywhere below it: `image` u8[h w c] and `label`.

    Raises UserError when opened if a folder is missing or holds no image, when read if an image is unreadable.
    """

    path: str
    classes: tuple[str, ...] = ()
    """Names of the folders, in the order of the ids; empty to take all, sorted."""
    channels: int = 3
    split: Side | None = None
    """A side of this one folder, "train" or "test", which each file's name decides; None for all of it."""
    share: float = 0.9
    """Share of the files on the training side, about."""
    seed: int = 0
    """Another seed splits otherwise; both sides need the same."""

    def __post_init__(self) -> None:
        check_names(self.classes)

    def open(self) -> Examples:
        root = directory(self.path)
        folders = layout.class_folders(root, self.classes)
        classes = tuple(folders)
        everything = [(file, label) for label, folder in enumerate(folders.values()) for file in sorted(below(folder))]
        found = [(file, label) for file, label in everything if file.suffix.lower() in SUFFIXES]
        if not found:
            raise layout.no_images(root, [file for file, _ in everything], classes=True)
        labels = [label for _, label in found]
        kept = on_side([_relative(file, root) for file, _ in found], self.split, self.share, self.seed)
        check_classes(labels, kept, self.split, classes)
        files, labels_kept = [found[i][0] for i in kept], [labels[i] for i in kept]
        notes = layout.class_notes(root, classes, self.classes, labels)
        notes += layout.unread(root, [file for file, _ in everything])
        examples = _Files(files, labels_kept, classes, self.channels, _origin(root, self.split), notes)
        return checked(examples, where=lambda i: str(files[i]))

    def shape(self) -> Shape | None:
        return None

    def fake(self, shape: Shape, classes: int, count: int) -> Source:
        return FakeLabels.of(shape, classes, count)


@dataclasses.dataclass(frozen=True)
class Images:
    """Images without classes, anywhere below a folder: `image` u8[h w c] alone, for generators.

    Raises UserError when opened if the folder is missing or holds no image, when read if an image is unreadable.
    """

    path: str
    channels: int = 3
    split: Side | None = None
    """A side of this one folder, "train" or "test", which each file's name decides; None for all of it."""
    share: float = 0.9
    """Share of the files on the training side, about."""
    seed: int = 0
    """Another seed splits otherwise; both sides need the same."""

    def open(self) -> Examples:
        root = directory(self.path)
        everything = sorted(below(root))
        found = [file for file in everything if file.suffix.lower() in SUFFIXES]
        if not found:
            raise layout.no_images(root, everything, classes=False)
        kept = on_side([_relative(file, root) for file in found], self.split, self.share, self.seed)
        files = [found[i] for i in kept]
        examples = _Files(files, None, (), self.channels, _origin(root, self.split), layout.unread(root, everything))
        return checked(examples, where=lambda i: str(files[i]))

    def shape(self) -> Shape | None:
        return None

    def fake(self, shape: Shape, classes: int, count: int) -> Source:
        return FakeLabels.of(shape, 0, count)


@dataclasses.dataclass(frozen=True)
class SegmentationFolder:
    """Images and masks in two folders, matched by name: `image` u8[h w c] and `mask` u8[h w].

    A mask is a PNG of ids, with a palette or grey, or of colours that `colours` names. Raises UserError when opened if
    a folder, a mask or every pair is missing, or a name has two files; when read if a file is unreadable, if the sizes
    of a pair differ or if a mask holds an id or a colour of no class.
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
    colours: tuple[Colour, ...] = ()
    """The (red, green, blue) of each class, where masks hold colours; those after the classes' mean 255 = ignore."""
    split: Side | None = None
    """A side of these two folders, "train" or "test", which each name decides; None for all."""
    share: float = 0.9
    """Share of the names on the training side, about."""
    seed: int = 0
    """Another seed splits otherwise; both sides need the same."""

    def __post_init__(self) -> None:
        check_names(self.classes)

    def open(self) -> Examples:
        self._check_colours()
        image_root, mask_root = directory(self.images), directory(self.masks)
        everything = sorted(below(image_root))
        found = [file for file in everything if file.suffix.lower() in SUFFIXES]
        if not found:
            raise layout.no_images(image_root, everything, classes=False)
        images = layout.by_name(found, image_root, self.image_suffix)
        masks = layout.by_name(pictures(mask_root), mask_root, self.mask_suffix)
        if not set(images) & set(masks):
            raise UserError(f"no image in {self.images} has a mask of the same name in {self.masks}")
        names = sorted(images) if self.ids is None else layout.listed(Path(self.ids), images.keys() | masks.keys())
        layout.check_names("image", names, images, self.images)
        layout.check_names("mask", names, masks, self.masks)
        kept = on_side(names, self.split, self.share, self.seed)
        pairs = [(images[names[i]][0], masks[names[i]][0]) for i in kept]
        notes = layout.unread(image_root, everything)
        if self.ids is None and (alone := sorted(set(masks) - set(images))):
            notes += (f"{layout.counted(len(alone), 'mask')} in {mask_root} without an image: {layout.few(alone)}",)
        examples = _Pairs(pairs, self, _origin(image_root, self.split), notes)
        return checked(examples, self.lookup, where=lambda i: str(pairs[i][1]))

    def _check_colours(self) -> None:
        if not self.colours:
            return
        if not len(self.classes) <= len(self.colours) <= IGNORE:
            raise UserError(f"{len(self.colours)} colours for {len(self.classes)} classes; name one for each")
        if wrong := [colour for colour in self.colours if not all(0 <= part <= 255 for part in colour)]:
            raise UserError(f"colours: {wrong[0]} is no (red, green, blue) of 0..255")
        if len(set(self.colours)) < len(self.colours):
            raise UserError("colours: two classes have the same colour")

    def shape(self) -> Shape | None:
        return None

    def fake(self, shape: Shape, classes: int, count: int) -> Source:
        return FakeMasks.of(shape, classes, count)


class _Files:
    """Images from files, each with its class or without one."""

    def __init__(
        self, files: list[Path], labels: list[int] | None, classes: tuple[str, ...], channels: int, origin: str,
        notes: tuple[str, ...],
    ):  # fmt: skip
        self.classes, self.origin, self.notes = classes, origin, notes
        self._files, self._labels, self._channels = files, labels, channels

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Example:
        file = self._files[index]
        image = read_image(file, self._channels, str(file))
        if self._labels is None:
            return {"image": image}
        return {"image": image, "label": np.array(self._labels[index], np.int32)}


class _Pairs:
    def __init__(self, pairs: list[tuple[Path, Path]], source: SegmentationFolder, origin: str, notes: tuple[str, ...]):
        self.classes, self.origin, self.notes = source.classes, origin, notes
        self._pairs, self._channels, self._colours = pairs, source.channels, source.colours

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> Example:
        image_file, mask_file = self._pairs[index]
        image = read_image(image_file, self._channels, str(image_file))
        mask = read_ids(mask_file, str(mask_file), self._colours)
        if self._colours:
            mask = np.where(mask < len(self.classes), mask, np.uint8(IGNORE))
        if image.shape[:2] != mask.shape:
            raise UserError(_unfit(image, image_file, mask, mask_file))
        return {"image": image, "mask": mask}


def _unfit(image: np.ndarray, image_file: Path, mask: np.ndarray, mask_file: Path) -> str:
    text = f"{image_file} is {_size(image)}, but its mask {mask_file} is {_size(mask)}"
    if image.shape[:2] != mask.shape[::-1]:
        return text
    for file, other in ((image_file, mask_file), (mask_file, image_file)):
        if turned(file, str(file)):
            return f"{text}: EXIF turns {file.name} upright, and {other.name} was made of it as it is stored; turn that"
    return f"{text}: one of them is turned"


def _relative(file: Path, root: Path) -> str:
    return file.relative_to(root).as_posix()


def _size(array: np.ndarray) -> str:
    return f"{array.shape[0]}x{array.shape[1]} (height x width)"


def _origin(root: Path, side: Side | None) -> str:
    return f"{root} ({side} split)" if side else str(root)
