"""Folders of pictures and of masks, and what is said when something in them is wrong."""

import pathlib

import numpy as np
import pytest
from PIL import Image

from jaxgen.data.decode import read_ids, read_image
from jaxgen.data.folder import Folder, SegmentationFolder
from jaxgen.errors import UserError


def picture(file: pathlib.Path, height: int = 6, width: int = 9, mode: str = "RGB") -> np.ndarray:
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(file.name)).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(file)
    return pixels


def ids(file: pathlib.Path, *values: int, height: int = 6, width: int = 9, palette: bool = False) -> np.ndarray:
    file.parent.mkdir(parents=True, exist_ok=True)
    mask = np.resize(np.array(values, np.uint8), (height, width))
    image = Image.fromarray(mask)
    if palette:
        image = image.convert("P")
        image.putpalette(np.random.default_rng(0).integers(0, 256, 768, np.uint8).tobytes())
        image.putdata(mask.ravel().tolist())
    image.save(file)
    return mask


def test_a_folder_for_each_class(tmp_path: pathlib.Path) -> None:
    cat, dog = picture(tmp_path / "cat" / "a.png"), picture(tmp_path / "dog" / "deep" / "bc.PNG")
    picture(tmp_path / "dog" / "z.jpg", mode="L")
    (tmp_path / "dog" / "notes.txt").write_text("not a picture")
    examples = Folder(str(tmp_path)).open()
    assert examples.classes == ("cat", "dog")
    assert [int(examples[i]["label"]) for i in range(len(examples))] == [0, 1, 1]
    assert np.array_equal(examples[0]["image"], cat)
    assert np.array_equal(examples[1]["image"], dog)
    assert examples[2]["image"].shape == (6, 9, 3)  # grey, shown in colour
    assert Folder(str(tmp_path), channels=1).open()[0]["image"].shape == (6, 9, 1)
    reordered = Folder(str(tmp_path), classes=("dog", "cat")).open()
    assert [int(reordered[i]["label"]) for i in range(3)] == [0, 0, 1]


@pytest.mark.parametrize("palette", [False, True])
def test_pictures_and_masks_of_the_same_name(tmp_path: pathlib.Path, palette: bool) -> None:
    images = [picture(tmp_path / "images" / name) for name in ("a.jpg", "b.png", "sub/a.png")]
    masks = [ids(tmp_path / "masks" / name, 0, 1, 2, 255, palette=palette) for name in ("a.png", "b.png", "sub/a.png")]
    examples = SegmentationFolder(f"{tmp_path}/images", f"{tmp_path}/masks", ("x", "y", "z")).open()
    assert len(examples) == 3
    for i in (1, 2):  # the first is a JPEG
        assert np.array_equal(examples[i]["image"], images[i])
    for i in range(3):
        assert np.array_equal(examples[i]["mask"], masks[i])


def test_suffixes_and_lists_choose_the_pairs(tmp_path: pathlib.Path) -> None:
    for name in ("u", "v", "w"):
        picture(tmp_path / "left" / "town" / f"{name}_left.png")
    mask = ids(tmp_path / "gt" / "town" / "v_ids.png", 7, 8)
    ids(tmp_path / "gt" / "town" / "v_colour.png", 99)
    (tmp_path / "val.txt").write_text("town/v 1\n\n")
    folder = SegmentationFolder(
        f"{tmp_path}/left", f"{tmp_path}/gt", ("road", "walk"),
        ids=f"{tmp_path}/val.txt", lookup=(255,) * 7 + (0, 1), image_suffix="_left", mask_suffix="_ids",
    )  # fmt: skip
    examples = folder.open()
    assert len(examples) == 1
    assert np.array_equal(examples[0]["mask"], mask - 7)


def test_binary_masks_of_0_and_255_say_what_to_do(tmp_path: pathlib.Path) -> None:
    picture(tmp_path / "images" / "a.png")
    ids(tmp_path / "masks" / "a.png", 0, 255)
    with pytest.raises(UserError, match=r"If 255 is 'vessel', pass lookup=remap\(\{255: 1\}\)"):
        SegmentationFolder(f"{tmp_path}/images", f"{tmp_path}/masks", ("none", "vessel")).open()


class TestErrors:
    """Each names the file and the mend."""

    @pytest.fixture
    def root(self, tmp_path: pathlib.Path) -> pathlib.Path:
        for name in ("a", "b"):
            picture(tmp_path / "images" / f"{name}.png")
            ids(tmp_path / "masks" / f"{name}.png", 0, 1)
        return tmp_path

    def source(self, root: pathlib.Path, **fields: str) -> SegmentationFolder:
        return SegmentationFolder(
            **{"images": f"{root}/images", "masks": f"{root}/masks", "classes": ("x", "y")} | fields
        )

    def test_good(self, root: pathlib.Path) -> None:
        assert len(self.source(root).open()) == 2

    def test_missing_folder(self, root: pathlib.Path) -> None:
        for source in (self.source(root, masks=f"{root}/gone"), Folder(f"{root}/gone"), Folder(str(root), ("gone",))):
            with pytest.raises(UserError, match=f"no folder {root}/gone"):
                source.open()

    def test_no_pictures(self, root: pathlib.Path) -> None:
        (root / "empty" / "class").mkdir(parents=True)
        with pytest.raises(UserError, match="holds no images"):
            Folder(f"{root}/empty").open()

    def test_no_pairs(self, root: pathlib.Path) -> None:
        with pytest.raises(UserError, match=r"no image in .*images has a mask of the same name in .*masks"):
            self.source(root, mask_suffix="_mask").open()

    def test_missing_mask(self, root: pathlib.Path) -> None:
        (root / "masks" / "b.png").unlink()
        with pytest.raises(UserError, match=r"1 of 2 names have no mask in .*masks: b\. .*ids=FILE"):
            self.source(root).open()

    def test_unknown_name_in_the_list(self, root: pathlib.Path) -> None:
        (root / "list").write_text("a\nq\n")
        with pytest.raises(UserError, match=r"1 of 2 names have no image in .*images: q"):
            self.source(root, ids=f"{root}/list").open()
        with pytest.raises(UserError, match=r"cannot read the list of names .*gone"):
            self.source(root, ids=f"{root}/gone").open()

    def test_sizes_differ(self, root: pathlib.Path) -> None:
        ids(root / "masks" / "b.png", 0, 1, height=5, width=9)
        with pytest.raises(UserError, match=r"images/b.png is 6x9 .*masks/b.png is 5x9"):
            self.source(root).open()

    def test_foreign_ids(self, root: pathlib.Path) -> None:
        ids(root / "masks" / "b.png", 0, 7)
        with pytest.raises(UserError, match=r"masks/b.png: found ids \{0, 7\}; expected 0..1 or 255"):
            self.source(root).open()

    def test_unreadable(self, root: pathlib.Path) -> None:
        for content in (b"", b"not a picture", (root / "images" / "a.png").read_bytes()[:60]):
            (root / "images" / "b.png").write_bytes(content)
            with pytest.raises(UserError, match=r"images/b.png: unreadable image"):
                self.source(root).open()

    def test_coloured_mask(self, root: pathlib.Path) -> None:
        picture(root / "masks" / "b.png")
        with pytest.raises(UserError, match=r"masks/b.png: a mask in RGB"):
            self.source(root).open()

    def test_jpeg_mask(self, root: pathlib.Path) -> None:
        (root / "masks" / "b.png").unlink()
        ids(root / "masks" / "b.jpg", 0, 1)
        with pytest.raises(UserError, match=r"masks/b.jpg: a JPEG does not keep ids"):
            self.source(root).open()


def test_modes(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "x.png"
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        picture(file, mode=mode)
        for channels in (1, 3, 4):
            assert read_image(file, channels, "x").shape == (6, 9, channels)
    deep = np.array([[0, 1], [255, 3]], np.uint16)
    Image.fromarray(deep).save(file)
    assert np.array_equal(read_ids(file, "x"), deep)  # ids in 16 bits are ids
    assert read_image(file, 1, "x")[..., 0].tolist() == [[0, 0], [1, 0]]  # levels in 16 bits are scaled
    Image.fromarray(np.array([[True, False]])).save(file)
    assert read_ids(file, "x").tolist() == [[1, 0]]
