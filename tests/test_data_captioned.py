"""Pictures with captions: text files beside them, a table, TFDS, and scenes without some pairs."""

import json
import pathlib
from collections.abc import Iterator

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core.dataset_metadata import DatasetMetadata

from jaxgen.data import builders, scenes, tokenizers
from jaxgen.data import tfds as ours
from jaxgen.data.captioned import Captioned
from jaxgen.data.scenes import PAIRS, Scenes
from jaxgen.data.tokenizers import Words, captions_of
from jaxgen.errors import DataNotFound, UserError


def pictures(folder: pathlib.Path, *names: str) -> None:
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 4), (i, 2 * i, 3 * i)).save(folder / name)


def table(folder: pathlib.Path, *rows: object) -> None:
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", "utf-8")


def test_text_files_beside_the_pictures(tmp_path: pathlib.Path) -> None:
    pictures(tmp_path, "b.png", "sub/a.jpg", "한글.png")
    (tmp_path / "b.txt").write_text("\ufeffa  red\n cat\n", "utf-8")
    (tmp_path / "sub" / "a.txt").write_text("two dogs")
    (tmp_path / "한글.txt").write_text("왼쪽의 개", "utf-8")
    source = Captioned(str(tmp_path))
    examples = source.open()
    assert [str(examples[i]["caption"]) for i in range(3)] == ["a red cat", "two dogs", "왼쪽의 개"]
    assert examples[0]["image"].shape == (4, 6, 3)
    assert source.captions() == captions_of(source) == ("a red cat", "two dogs", "왼쪽의 개")
    assert Words(source, 6).unknown("a blue cat") == ("blue",)
    assert set(source.fake((8, 8, 3), 0, 4).open()[0]) == {"image", "caption"}


def test_a_table_for_all_pictures(tmp_path: pathlib.Path) -> None:
    pictures(tmp_path, "a.png", "sub/b.png", "c.png")
    table(tmp_path, {"file_name": "sub/b.png", "text": "bee", "more": 1}, "", {"file_name": "a.png", "text": " é "})
    examples = Captioned(str(tmp_path)).open()
    assert [str(examples[i]["caption"]) for i in range(len(examples))] == ["é", "bee"]
    assert any("1 image not in" in note and "c.png" in note for note in examples.notes)  # type: ignore[attr-defined]
    table(tmp_path, *({"file_name": name, "caption": name} for name in ("a.png", "sub/b.png", "c.png")))
    assert Captioned(str(tmp_path), text="caption").captions() == ("a.png", "c.png", "sub/b.png")


def test_the_sides_of_one_folder_share_nothing(tmp_path: pathlib.Path) -> None:
    pictures(tmp_path, *(f"{i}.png" for i in range(20)))
    table(tmp_path, *({"file_name": f"{i}.png", "text": f"number {i}"} for i in range(20)))
    train, test = (Captioned(str(tmp_path), split=side, share=0.7).captions() for side in ("train", "test"))
    assert len(train) + len(test) == 20
    assert set(train).isdisjoint(test)


def test_an_empty_caption_is_said(tmp_path: pathlib.Path) -> None:
    pictures(tmp_path, "a.png", "b.png")
    (tmp_path / "a.txt").write_text(" \n")
    (tmp_path / "b.txt").write_text("b")
    notes = Captioned(str(tmp_path)).open().notes  # type: ignore[attr-defined]
    assert any("1 caption of" in note and "a.png" in note for note in notes)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (["{"], "metadata.jsonl, line 1: no JSON"),
        ([{"file_name": "a.png"}], "line 1: no text 'text'; it has file_name"),
        ([{"text": "a"}], "line 1: no text 'file_name'; it has text"),
        ([["a.png", "a"]], "line 1: no text 'file_name'"),
        ([{"file_name": "a.png", "text": "a"}, {"file_name": "z.png", "text": "z"}], "line 2: no image .*z.png"),
        ([{"file_name": "a.png", "text": "a"}] * 2, "line 2: a.png is named a second time"),
        ([""], "names no image"),
    ],
)
def test_what_is_wrong_in_a_table_is_said_with_its_line(tmp_path: pathlib.Path, rows: list, words: str) -> None:
    pictures(tmp_path, "a.png")
    table(tmp_path, *rows)
    with pytest.raises(UserError, match=words) as caught:
        Captioned(str(tmp_path)).open()
    assert "\n" not in str(caught.value)


def test_what_is_missing_is_said(tmp_path: pathlib.Path) -> None:
    with pytest.raises(DataNotFound, match="no folder"):
        Captioned(str(tmp_path / "nowhere")).open()
    with pytest.raises(UserError, match="holds no images"):
        Captioned(str(tmp_path)).open()
    pictures(tmp_path, "a.png", "b.png")
    with pytest.raises(UserError, match="holds no captions"):
        Captioned(str(tmp_path)).open()
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(UserError, match=r"1 of 2 images have no .txt .*b\.png"):
        Captioned(str(tmp_path)).open()
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"cannot read .*b\.txt"):
        Captioned(str(tmp_path)).open()


# --- TFDS -------------------------------------------------------------------------------------------------------------


class Described(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Two pictures with a text."""

    name = "described"
    VERSION = tfds.core.Version("1.0.0")
    url_infos = None

    @classmethod
    def get_metadata(cls) -> DatasetMetadata:
        return DatasetMetadata(description="", citation="", tags=[])

    def _info(self) -> tfds.core.DatasetInfo:
        image = tfds.features.Image(shape=(4, 6, 3), encoding_format="png")
        features = {"image": image, "words": tfds.features.Text(), "number": tfds.features.Scalar(np.int32)}
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features), disable_shuffling=True)

    def _split_generators(self, dl_manager: object) -> dict:
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for i, words in enumerate(("a cat", "고양이")):
            yield i, {"image": builders.png(Image.new("RGB", (6, 4), (i, i, i))), "words": words, "number": i}


def test_a_text_feature_of_tfds(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tfds.disable_progress_bar()
    Described(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    monkeypatch.setattr(
        ours, "_builder", lambda name, data_dir: Described(data_dir=tmp_path, file_format="array_record")
    )
    source = ours.Tfds("described", label=None, caption="words")
    examples = source.open()
    assert [str(examples[i]["caption"]) for i in range(2)] == ["a cat", "고양이"]
    assert set(examples[0]) == {"image", "caption"}
    assert examples.classes == ()
    assert "caption" in source.fake((8, 8, 3), 0, 2).open()[0]
    with pytest.raises(UserError, match="no feature 'number' that is one text; it has words"):
        ours.Tfds("described", label=None, caption="number").open()


# --- scenes without some pairs ----------------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> Iterator[None]:
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(builders, "SIZES", {"train": 16, "test": 14})
    tokenizers._words_of.cache_clear()  # a vocabulary is remembered by its source
    yield
    tokenizers._words_of.cache_clear()


def test_scenes_are_told_apart_by_their_captions() -> None:
    captions = (
        "a red 3 left of a blue 8",
        "a red 4 above a blue 7",
        "a red 4 left of a blue 3",
        "a pink 7 above a red 3",
    )
    pairs = (("red", 3), ("blue", 7))
    assert Scenes(without=pairs)._chosen(captions) == [2]
    assert Scenes("held_out", pairs)._chosen(captions) == [0, 1, 3]


@pytest.mark.slow
def test_held_out_pairs_are_in_no_other_split(small: None) -> None:
    everything = captions_of(Scenes())
    kept = captions_of(Scenes(without=PAIRS))
    train, test, held = (Scenes(split, PAIRS).open() for split in ("train", "test", "held_out"))
    shows = lambda caption: any(f"{colour} {digit}" in caption for colour, digit in PAIRS)  # noqa: E731
    assert kept == tuple(caption for caption in everything if not shows(caption))
    assert [str(train[i]["caption"]) for i in range(len(train))] == list(kept)
    assert 0 < len(kept) < len(everything) == 16
    assert len(test) + len(held) == 14
    assert all(shows(str(held[i]["caption"])) for i in range(len(held)))
    assert not any(shows(str(test[i]["caption"])) for i in range(len(test)))
    assert train.classes == Scenes().open().classes
    for i in range(len(held)):
        assert Words(Scenes(), 40).unknown(str(held[i]["caption"])) == ()


def test_pairs_cover_the_colours_once() -> None:
    assert sorted(colour for colour, _ in PAIRS) == sorted(scenes.COLOURS)
    assert len({digit for _, digit in PAIRS}) == 8
    from jaxgen.data import render

    assert tuple(render.COLOURS) == scenes.COLOURS


def test_pairs_that_are_none_are_refused() -> None:
    with pytest.raises(UserError, match=r"without has \('black', 3\)"):
        Scenes(without=(("black", 3),))
    with pytest.raises(UserError, match="a digit 0"):
        Scenes(without=(("red", 10),))
    with pytest.raises(UserError, match="needs the pairs"):
        Scenes("held_out")


def test_fake_scenes_have_captions() -> None:
    assert set(Scenes().fake((16, 16, 3), 3, 2).open()[0]) == {"image", "mask", "caption"}
