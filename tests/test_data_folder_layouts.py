"""How folders are laid out: a test for each row of the table in docs/data.md, and for what is odd in a layout."""

import os
import pathlib
import unicodedata

import numpy as np
import pytest
from PIL import Image
from test_data_folder import ids, picture
from test_data_forms import encoded, npy, rows

from jaxgen.data import about
from jaxgen.data.augment import Resize
from jaxgen.data.batches import DataSpec, rows_at, train_batches
from jaxgen.data.digits import Digits
from jaxgen.data.folder import Folder, Images, SegmentationFolder
from jaxgen.data.source import Examples, described
from jaxgen.errors import UserError


def notes(examples: Examples) -> str:
    return "\n".join(described(examples)[1])


def classes_a_folder(root: pathlib.Path) -> None:
    for name in ("dog/1.png", "cat/2.png", "cat/deep/3.JPG"):
        picture(root / name)
    examples = Folder(str(root)).open()
    assert examples.classes == ("cat", "dog")
    assert [int(examples[i]["label"]) for i in range(3)] == [0, 0, 1]
    assert notes(examples) == ""


def splits_as_folders(root: pathlib.Path) -> None:
    for name in ("train/cat/1.png", "train/dog/2.png", "val/cat/3.png", "val/dog/4.png"):
        picture(root / name)
    assert Folder(f"{root}/train").open().classes == ("cat", "dog")
    wrong = Folder(str(root)).open()
    assert wrong.classes == ("train", "val")
    assert "are train, val, which look like splits" in notes(wrong)
    assert f"set the path to {root}/train" in notes(wrong)


def images_alone(root: pathlib.Path) -> None:
    for name in ("b.png", "a.jpg"):
        picture(root / name)
    examples = Images(str(root)).open()
    assert (len(examples), examples.classes) == (2, ())
    assert list(examples[0]) == ["image"]
    said = rf"no images in class folders, but 2 images beside them: .*Images\('{root}'\)"
    with pytest.raises(UserError, match=said):
        Folder(str(root)).open()


def images_and_masks(root: pathlib.Path) -> None:
    for name in ("a", "deep/b"):
        picture(root / "i" / f"{name}.jpg")
        ids(root / "m" / f"{name}.png", 0, 1)
    examples = SegmentationFolder(f"{root}/i", f"{root}/m", ("x", "y")).open()
    assert [examples[i]["mask"].max() for i in range(2)] == [1, 1]


def sides(root: pathlib.Path) -> None:
    for i in range(40):
        picture(root / ("cat" if i % 2 else "dog") / f"{i:02d}.png")
        picture(root / "i" / f"{i:02d}.png")
        ids(root / "m" / f"{i:02d}.png", 0, 1)
    made = {
        "folder": lambda **k: Folder(str(root), classes=("cat", "dog"), **k),
        "images": lambda **k: Images(f"{root}/i", **k),
        "pairs": lambda **k: SegmentationFolder(f"{root}/i", f"{root}/m", ("x", "y"), **k),
    }
    for make in made.values():
        both = [names(make(split=split, share=0.75).open()) for split in ("train", "test")]
        assert not set(both[0]) & set(both[1])
        assert sorted(both[0] + both[1]) == sorted(names(make().open()))
        assert 20 <= len(both[0]) <= 38


def names(examples: Examples) -> list[str]:
    return [examples.name(i) for i in range(len(examples))]


LAYOUTS = {
    "`D/cat/*.jpg`, `D/dog/*.png`": classes_a_folder,
    "`D/train/cat/…`, `D/val/cat/…`": splits_as_folders,
    "`D/*.jpg`": images_alone,
    "`I/a.jpg`, `M/a.png`": images_and_masks,
    "any of these": sides,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_folder_means_what_the_table_says(tmp_path, layout):
    LAYOUTS[layout](tmp_path)


def test_each_row_of_the_table_of_layouts_has_a_test():
    assert rows("layout") == list(LAYOUTS)


# --- what is no data --------------------------------------------------------------------------------------------------


def test_hidden_files_and_folders_are_neither_images_nor_classes(tmp_path):
    for name in (
        "cat/1.png", "dog/2.png", "cat/.ipynb_checkpoints/1-checkpoint.png", "cat/._1.png", ".ipynb_checkpoints/x.png",
        "__MACOSX/cat/._1.png", "dog/__MACOSX/2.png", ".cache/3.png",
    ):  # fmt: skip
        picture(tmp_path / name)
    for name in ("cat/.DS_Store", "Thumbs.db", "cat/Thumbs.db", "dog/desktop.ini"):
        (tmp_path / name).write_bytes(b"x")
    examples = Folder(str(tmp_path)).open()
    assert examples.classes == ("cat", "dog")
    assert names(examples) == [f"{tmp_path}/cat/1.png", f"{tmp_path}/dog/2.png"]
    assert names(Images(str(tmp_path)).open()) == names(examples)
    assert notes(examples) == ""


def test_a_hidden_folder_above_the_data_hides_nothing(tmp_path):
    picture(tmp_path / ".cache" / "cat" / "1.png")
    assert len(Folder(f"{tmp_path}/.cache").open()) == 1


def test_hidden_masks_and_images_are_no_pairs(tmp_path):
    for name in ("a.png", "._a.png", ".ipynb_checkpoints/a-checkpoint.png"):
        picture(tmp_path / "i" / name)
        ids(tmp_path / "m" / name, 0, 1)
    assert len(SegmentationFolder(f"{tmp_path}/i", f"{tmp_path}/m", ("x", "y")).open()) == 1


def test_links_are_followed_once_and_a_link_to_nothing_is_named(tmp_path):
    picture(tmp_path / "store" / "a.png")
    (tmp_path / "data" / "cat").mkdir(parents=True)
    (tmp_path / "data" / "cat" / "linked").symlink_to(tmp_path / "store")
    (tmp_path / "data" / "cat" / "again").symlink_to(tmp_path / "data" / "cat")
    (tmp_path / "data" / "dog").symlink_to(tmp_path / "store")
    examples = Folder(f"{tmp_path}/data").open()
    assert (len(examples), examples.classes) == (2, ("cat", "dog"))
    (tmp_path / "data" / "cat" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(UserError, match=r"cat/gone.png: unreadable image .*No such file"):
        Folder(f"{tmp_path}/data").open()


def test_files_of_other_forms_are_said(tmp_path):
    for name in ("cat/1.heic", "cat/2.HEIC", "cat/3.txt", "cat/4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(UserError, match=r"found only 2 \.heic, .*1 \.txt.*: what is read ends in .*\.png"):
        Folder(str(tmp_path)).open()
    with pytest.raises(UserError, match=r"found only 2 \.heic, .*1 without suffix"):
        Images(str(tmp_path)).open()
    picture(tmp_path / "cat" / "5.png")
    assert f"left out of {tmp_path}: 2 .heic; convert them to PNG or JPEG" in notes(Folder(str(tmp_path)).open())


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path):
    picture(tmp_path / "x.png")
    for path, said in (
        (f"{tmp_path}/x.png", r"x.png is a file; a folder is needed"),
        ("https://somewhere/data", "'https://somewhere/data' is no folder on this machine; download"),
        ("", "'' is no folder on this machine"),
        ("nowhere/data", f"no folder nowhere/data, looked for in {pathlib.Path.cwd()}"),
    ):
        with pytest.raises(UserError, match=said):
            Folder(path).open()


def test_a_class_that_is_named_twice_is_refused(tmp_path):
    picture(tmp_path / "a" / "1.png")
    with pytest.raises(UserError, match="classes names 'a' twice"):
        Folder(str(tmp_path), classes=("a", "a")).open()


# --- ambiguity --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["image", "mask"])
def test_two_files_of_one_name_are_both_named(tmp_path, kind):
    picture(tmp_path / "images" / "a.jpg")
    ids(tmp_path / "masks" / "a.png", 0, 1)
    ids(tmp_path / f"{kind}s" / ("a.png" if kind == "image" else "a.tif"), 0, 1)
    with pytest.raises(UserError, match=rf"two {kind}s: .*{kind}s/a\.\w+ and .*{kind}s/a\.\w+; keep one"):
        SegmentationFolder(f"{tmp_path}/images", f"{tmp_path}/masks", ("x", "y")).open()


def test_names_match_however_unicode_writes_an_accent(tmp_path):
    apart, one = unicodedata.normalize("NFD", "é"), "é"
    picture(tmp_path / "i" / f"{apart}.png")
    ids(tmp_path / "m" / f"{one}.png", 0, 1)
    assert len(SegmentationFolder(f"{tmp_path}/i", f"{tmp_path}/m", ("x", "y")).open()) == 1
    (tmp_path / "list").write_text(f"{one}\n", "utf-8-sig")
    assert len(SegmentationFolder(f"{tmp_path}/i", f"{tmp_path}/m", ("x", "y"), ids=f"{tmp_path}/list").open()) == 1
    picture(tmp_path / "c" / f"caf{apart}" / "1.png")
    assert Folder(f"{tmp_path}/c").open().classes == (f"caf{one}",)
    assert len(Folder(f"{tmp_path}/c", classes=(f"caf{one}",)).open()) == 1
    picture(tmp_path / "c" / f"caf{one}" / "1.png")
    with pytest.raises(UserError, match="two folders named 'café', which differ in how Unicode writes it"):
        Folder(f"{tmp_path}/c").open()


def test_class_folders_that_differ_in_case_are_refused_unless_they_are_named(tmp_path):
    for name in ("Cat", "cat", "dog"):
        picture(tmp_path / name / "1.png")
    with pytest.raises(UserError, match=r"class folders Cat, cat in .* differ only in case"):
        Folder(str(tmp_path)).open()
    assert Folder(str(tmp_path), classes=("cat", "Cat")).open().classes == ("cat", "Cat")


def test_names_with_spaces_are_read_from_a_list(tmp_path):
    for name in ("my picture 1", "b"):
        picture(tmp_path / "i" / f"{name}.png")
        ids(tmp_path / "m" / f"{name}.png", 0, 1)
    (tmp_path / "list").write_text("my picture 1\r\nb 1\n")
    source = SegmentationFolder(f"{tmp_path}/i", f"{tmp_path}/m", ("x", "y"), ids=f"{tmp_path}/list")
    assert len(source.open()) == 2
    for content, said in ((b"\xff\xfe\x00", "cannot read the list"), (b"\n", "is empty")):
        (tmp_path / "list").write_bytes(content)
        with pytest.raises(UserError, match=said):
            source.open()


# --- what is said -----------------------------------------------------------------------------------------------------


def test_odd_layouts_are_said(tmp_path):
    for name in ("1/a.png", "2/a.png", "10/a.png", "loose.png"):
        picture(tmp_path / name)
    (tmp_path / "3").mkdir()
    text = notes(Folder(str(tmp_path)).open())
    assert "sorted as text: 1, 10, 2, …; classes=(…) gives another order" in text
    assert f"1 class of {tmp_path} without an image: 3" in text
    assert f"1 image beside the class folders of {tmp_path}, left out: loose.png" in text
    assert f"2 folders of {tmp_path} not among `classes`, left out: 10, 3" in notes(
        Folder(str(tmp_path), classes=("1", "2")).open()
    )


def test_images_and_masks_taken_for_classes_are_said(tmp_path):
    for name in ("images/a.png", "masks/a.png"):
        picture(tmp_path / name)
    assert "take SegmentationFolder" in notes(Folder(str(tmp_path)).open())


def test_masks_without_an_image_are_said(tmp_path):
    picture(tmp_path / "i" / "a.png")
    for name in ("a", "b"):
        ids(tmp_path / "m" / f"{name}.png", 0, 1)
    examples = SegmentationFolder(f"{tmp_path}/i", f"{tmp_path}/m", ("x", "y")).open()
    assert f"1 mask in {tmp_path}/m without an image: b" in notes(examples)


def test_a_run_says_in_one_line_what_it_read(tmp_path):
    for name in ("a/1.png", "a/2.png", "b/3.png"):
        picture(tmp_path / name)
    train = Folder(str(tmp_path)).open()
    test = Folder(str(tmp_path), classes=("a", "b")).open()
    said = about.lines(train, test, DataSpec.of(train, (Resize(4, 5),)).element)
    assert said[0] == f"data: 3 training and 3 test examples of 2 classes (a, b), 4x5x3, from {tmp_path}"
    files = f"{tmp_path}/a/1.png, {tmp_path}/a/2.png, …"
    assert said[1:] == [f"note: 3 of 3 test examples are training examples too ({files}): {about.MEND}"]
    for i in range(20):
        picture(tmp_path / "a" / f"more{i}.png")
    sides = [Images(str(tmp_path), split=split, share=0.5).open() for split in ("train", "test")]
    assert about.lines(*sides, DataSpec.of(train, (Resize(4, 5),)).element)[1:] == []


# --- sizes ------------------------------------------------------------------------------------------------------------


def test_images_of_several_sizes_are_named_before_training(tmp_path):
    for height in (6, 6, 6, 7):
        picture(tmp_path / f"{len(list(tmp_path.iterdir()))}.png", height)
    examples = Images(str(tmp_path)).open()
    with pytest.raises(UserError) as error:
        DataSpec.of(examples, ())
    assert str(error.value).startswith(
        f"image: the sizes in a batch differ (6x9x3, 7x9x3): {tmp_path}/0.png is 6x9x3 and {tmp_path}/3.png is 7x9x3; "
    )
    assert "Resize(HEIGHT, WIDTH)" in str(error.value)
    assert DataSpec.of(examples, (Resize(8, 8),)).element["image"][0] == (8, 8, 3)


def test_an_exif_turn_is_named_where_a_mask_lies_on_the_picture_as_stored(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "i").mkdir()
    Image.new("RGB", (96, 64)).save(tmp_path / "i" / "a.jpg", exif=exif)
    source = SegmentationFolder(f"{tmp_path}/i", f"{tmp_path}/m", ("x", "y"))
    ids(tmp_path / "m" / "a.png", 0, 1, height=64, width=96)
    said = r"a.jpg is 96x64 .*a.png is 64x96 .*: EXIF turns a.jpg upright, and a.png was made of it as it is stored"
    with pytest.raises(UserError, match=said):
        source.open()
    ids(tmp_path / "m" / "a.png", 0, 1, height=96, width=64)
    assert source.open()[0]["image"].shape == (96, 64, 3)
    ids(tmp_path / "m" / "a.png", 0, 1, height=96, width=63)
    with pytest.raises(UserError, match=r"is 96x63 \(height x width\)$"):
        source.open()


# --- masks of colours, arrays -----------------------------------------------------------------------------------------


def test_masks_of_colours_have_the_ids_of_their_colours(tmp_path):
    picture(tmp_path / "i" / "a.png", 2, 3)
    (tmp_path / "m").mkdir()
    colours = ((0, 0, 0), (255, 0, 0), (9, 9, 9))
    Image.fromarray(np.array(colours, np.uint8)[[[0, 1, 2], [1, 1, 0]]]).save(tmp_path / "m" / "a.png")
    source = SegmentationFolder(f"{tmp_path}/i", f"{tmp_path}/m", ("x", "y"), colours=colours)
    assert source.open()[0]["mask"].tolist() == [[0, 1, 255], [1, 1, 0]]
    for wrong, said in (
        (((0, 0, 0),), "1 colours for 2 classes"),
        (((0, 0, 0), (0, 0, 0)), "two classes have the same colour"),
        (((0, 0, 0), (0, 0, 256)), r"\(0, 0, 256\) is no"),
    ):
        with pytest.raises(UserError, match=said):
            SegmentationFolder(f"{tmp_path}/i", f"{tmp_path}/m", ("x", "y"), colours=wrong).open()


def test_arrays_of_five_channels_go_through_folders_transforms_and_batches(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a/1", "a/2", "b/3"):
        (tmp_path / "c" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "c" / f"{name}.npy").write_bytes(npy(rng.integers(0, 256, (6, 9, 5), np.uint8)))
    examples = Folder(f"{tmp_path}/c", channels=5).open()
    (batch,) = train_batches(examples, (Resize(4, 4),), seed=0, batch_size=3, start=0, stop=1)
    assert batch["image"].shape == (3, 4, 4, 5)
    ids(tmp_path / "m" / "1.png", 0, 1)
    pairs = SegmentationFolder(f"{tmp_path}/c/a", f"{tmp_path}/m", ("x", "y"), ids=f"{tmp_path}/list", channels=5)
    (tmp_path / "list").write_text("1")
    assert np.array_equal(rows_at(pairs.open(), (), [0])["image"][0], np.load(tmp_path / "c" / "a" / "1.npy"))


# --- splits -----------------------------------------------------------------------------------------------------------


def fill(root: pathlib.Path, count: int) -> None:
    root.mkdir(exist_ok=True)
    for i in range(count):
        (root / f"{i:03d}.png").write_bytes(encoded(Image.new("L", (1, 1), i % 256)))


def test_a_file_stays_on_its_side_when_others_are_added(tmp_path):
    fill(tmp_path, 60)
    before = names(Images(str(tmp_path), split="train", share=0.8).open())
    fill(tmp_path, 200)
    after = names(Images(str(tmp_path), split="train", share=0.8).open())
    assert [name for name in after if name in before] == before
    assert set(after) & set(names(Images(str(tmp_path), split="test", share=0.8).open())) == set()
    old = {f"{tmp_path}/{i:03d}.png" for i in range(60)}
    assert set(after) & old == set(before)
    assert 140 <= len(after) <= 180


def test_a_larger_share_takes_files_from_the_other_side_only_and_a_seed_deals_anew(tmp_path):
    fill(tmp_path, 100)
    sides = [set(names(Images(str(tmp_path), split="train", share=share).open())) for share in (0.5, 0.7, 0.9)]
    assert sides[0] < sides[1] < sides[2]
    assert sides[0] != set(names(Images(str(tmp_path), split="train", share=0.5, seed=1).open()))


def test_the_side_is_a_function_of_the_name_below_the_folder(tmp_path):
    fill(tmp_path / "here", 30)
    os.rename(tmp_path / "here", tmp_path / "there")
    fill(tmp_path / "here", 30)
    one, other = (names(Images(f"{tmp_path}/{place}", split="test", share=0.5).open()) for place in ("here", "there"))
    assert [name.replace("/there/", "/here/") for name in other] == one


def test_a_split_that_leaves_a_side_or_a_class_empty_is_refused(tmp_path):
    fill(tmp_path / "a", 30)
    fill(tmp_path / "b", 1)
    with pytest.raises(UserError, match=r"of 1 examples, share=0.9 and seed=0 leave none for (test|train)"):
        Images(f"{tmp_path}/b", split="train").open()
    for share in (0.0, 1.0, 90.0):
        with pytest.raises(UserError, match=rf"share is {share}; it must be above 0 and below 1"):
            Images(f"{tmp_path}/a", split="train", share=share).open()
    outcomes = [opens(Folder(str(tmp_path), split=split, share=0.5, seed=seed)) for seed in range(8) for split in SIDES]
    assert outcomes[::2] == outcomes[1::2]  # both sides refuse alike
    assert set(outcomes) == {"", "class 'b' has 1 example, none of them on the training side"}


SIDES = ("train", "test")


def opens(source: Folder) -> str:
    """What opening a source is refused with, up to the first " of the split", or "" where it opens."""
    try:
        source.open()
    except UserError as error:
        return str(error).split(" of the split")[0]
    return ""


def test_examples_without_files_are_not_taken_for_each_other():
    train, test = Digits(split="train").open(), Digits(split="test").open()
    said = about.lines(train, test, DataSpec.of(train, ()).element)
    assert said == [
        "data: 1,437 training and 360 test examples of 10 classes (0, 1, 2, 3, …), 8x8x1, "
        "from digits (train) and digits (test)"
    ]
