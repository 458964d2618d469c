"""Arrays that were computed once: they join the examples that they were made from, and no others."""

import json
import pathlib

import numpy as np
import pytest

from jaxgen.data import prepared
from jaxgen.data.fake import FakeCaptions, FakeLabels
from jaxgen.data.prepared import Prepared, write
from jaxgen.data.source import name_of
from jaxgen.errors import DataNotFound, UserError

SOURCE = FakeCaptions(height=4, width=4, size=7)


def rows(count: int = 7, sizes: tuple[int, ...] = (3, 4)) -> list[dict[str, np.ndarray]]:
    latent = np.arange(count * 8, dtype=np.float32).reshape(count, 2, 2, 2) / 8
    tokens = np.arange(count * 3, dtype=np.int32).reshape(count, 3)
    cuts = np.cumsum(sizes)[:-1]
    return [
        {"latent": a, "tokens": b} for a, b in zip(np.split(latent, cuts), np.split(tokens, cuts), strict=True)
    ]  # fmt: skip


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    write(SOURCE.open(), tmp_path / "arrays", rows())
    return tmp_path / "arrays"


def test_each_example_has_its_row(folder: pathlib.Path) -> None:
    examples, plain = Prepared(SOURCE, str(folder)).open(), SOURCE.open()
    whole = rows(sizes=(7,))[0]
    assert len(examples) == 7
    assert examples.classes == plain.classes
    for i in range(7):
        assert np.array_equal(examples[i]["image"], plain[i]["image"])
        assert np.array_equal(examples[i]["latent"], whole["latent"][i])
        assert np.array_equal(examples[i]["tokens"], whole["tokens"][i])
    assert examples[0]["latent"].dtype == np.float32
    assert examples[0]["tokens"].dtype == np.int32
    assert name_of(examples, 3) == "example 3"
    assert np.load(folder / "latent.npy").dtype == np.float16


def test_shapes_and_fake_data_are_the_sources(folder: pathlib.Path) -> None:
    source = Prepared(SOURCE, str(folder))
    assert source.shape() == (4, 4, 3)
    assert set(source.fake((8, 8, 3), 0, 2).open()[0]) == {"image", "caption"}


def test_arrays_of_other_examples_are_refused(folder: pathlib.Path) -> None:
    with pytest.raises(UserError, match="prepared from 7 examples, but the source has 6"):
        Prepared(FakeCaptions(height=4, width=4, size=6), str(folder)).open()
    with pytest.raises(UserError, match="prepared from other examples"):
        Prepared(FakeCaptions(height=4, width=4, size=7, seed=1), str(folder)).open()
    with pytest.raises(UserError, match="prepared from other examples"):
        Prepared(FakeLabels(height=4, width=4, size=7), str(folder)).open()


def test_what_was_not_finished_is_not_there(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with pytest.raises(DataNotFound, match="not prepared, or not to the end"):
        Prepared(SOURCE, str(tmp_path / "nowhere")).open()
    with pytest.raises(UserError, match="3 rows for the 7 examples"):
        write(SOURCE.open(), folder, rows()[:1])
    with pytest.raises(DataNotFound):
        Prepared(SOURCE, str(folder)).open()  # the earlier arrays were written over


def test_damaged_files_are_named(folder: pathlib.Path) -> None:
    index = (folder / "prepared.json").read_text()
    (folder / "prepared.json").write_text("{}")
    with pytest.raises(UserError, match=r"cannot read .*prepared\.json"):
        Prepared(SOURCE, str(folder)).open()
    (folder / "prepared.json").write_text(index)
    np.save(folder / "latent.npy", np.zeros((6, 2), np.float16))
    with pytest.raises(UserError, match=r"latent.npy holds \(6, 2\), but there are 7"):
        Prepared(SOURCE, str(folder)).open()
    (folder / "latent.npy").unlink()
    with pytest.raises(UserError, match=r"cannot read .*latent\.npy"):
        Prepared(SOURCE, str(folder)).open()
    assert json.loads(index)["arrays"] == ["latent", "tokens"]


@pytest.mark.parametrize(
    ("blocks", "words"),
    [
        ([*rows(), {"latent": np.zeros((1, 2, 2, 2)), "tokens": np.zeros((1, 3), int)}], "more rows than the 7"),
        ([rows()[0], {"latent": np.zeros((4, 2, 2, 2))}], "from 3 on have other names or shapes"),
        ([{"latent": np.zeros((2, 1)), "tokens": np.zeros((3, 1))}], "from 0 on have other names or shapes"),
        ([{"latent": np.full((7, 1), 1e6)}], "float16 cannot hold"),
        ([{"latent": np.full((7, 1), np.nan)}], "float16 cannot hold"),
        ([{"../latent": np.zeros((7, 1))}], "no name of an array"),
        ([], "0 rows for the 7"),
    ],
)
def test_rows_that_do_not_fit_are_refused(tmp_path: pathlib.Path, blocks: list, words: str) -> None:
    with pytest.raises(UserError, match=words):
        write(SOURCE.open(), tmp_path, blocks)
    assert not (tmp_path / prepared.INDEX).exists()
