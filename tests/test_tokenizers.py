"""Texts as token ids: CLIP's against transformers', words by their laws, and what becomes of captions that move."""

import dataclasses
import gzip
import json
import pathlib

import numpy as np
import pytest

from jaxgen.data import byte_pairs
from jaxgen.data.augment import CenterCrop, Flip, Photometric, Resize
from jaxgen.data.fake import FakeCaptions, FakeLabels
from jaxgen.data.geometry import mirrored_caption
from jaxgen.data.source import Examples
from jaxgen.data.tokenizers import Clip, KeepCaption, Tokenize, Tokenizer, Words, captions_of
from jaxgen.errors import UserError
from jaxgen.typing import Example

GOLDEN = np.load(pathlib.Path(__file__).parent / "golden" / "clip_tokens.npz")
TEXTS: list[str] = json.loads(GOLDEN["texts"].item())


@dataclasses.dataclass(frozen=True)
class Said:
    """Captions alone, in a source."""

    said: tuple[str, ...]

    def open(self) -> Examples:
        return _Said(self.said)


class _Said:
    classes: tuple[str, ...] = ()

    def __init__(self, said: tuple[str, ...]):
        self.said = said

    def __len__(self) -> int:
        return len(self.said)

    def __getitem__(self, index: int) -> Example:
        return {"image": np.zeros((2, 2, 3), np.uint8), "caption": np.array(self.said[index])}


WORDS = Words(Said(("a red 3", "A red-hot 7, which is above it!", "the café's cat", "빨간 고양이")), length=8)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    folder = tmp_path_factory.mktemp("clip")
    (folder / "vocab.json").write_text(GOLDEN["vocab"].item())
    (folder / "merges.txt").write_text(GOLDEN["merges"].item())
    return Clip(str(folder))


@pytest.mark.parametrize("number", range(len(TEXTS)), ids=lambda i: ascii(TEXTS[i])[:30])
def test_clip_is_transformers(clip: Clip, number: int) -> None:
    assert np.array_equal(clip.encode(TEXTS[number]), GOLDEN["tokens"][number])


def test_the_two_forms_of_the_vocabulary_agree(tmp_path: pathlib.Path) -> None:
    lines = GOLDEN["merges"].item().splitlines()
    text = "\n".join(['"bpe_simple_vocab_16e6.txt#version: 0.2', *lines[1:]]) + "\n"
    (tmp_path / "words.txt").write_text(text)
    (tmp_path / "words.txt.gz").write_bytes(gzip.compress(text.encode()))
    plain, packed = Clip(str(tmp_path / "words.txt")), Clip(str(tmp_path / "words.txt.gz"))
    assert plain.size() == packed.size() == 512 + len(lines) - 1 + 2
    pairs = byte_pairs.clip(plain.vocabulary)
    assert (pairs.ids["!"], pairs.ids["a</w>"]) == (0, 320)  # as in CLIP's: single bytes do not depend on the merges
    of_folder = json.loads(GOLDEN["vocab"].item())
    real = {i: of_folder[name] for name, i in pairs.ids.items()}
    for text, wanted in zip(TEXTS, GOLDEN["tokens"], strict=True):
        assert [real[i] for i in plain.encode(text).tolist()] == wanted.tolist()
        assert np.array_equal(plain.encode(text), packed.encode(text))


def test_clip_knows_every_text(clip: Clip) -> None:
    assert clip.unknown("zorb 여자 😀") == ()
    assert clip.length == 77
    assert clip.encode("").tolist() == [49406] + [49407] * 76
    zeros = dataclasses.replace(clip, padding=0).encode("")
    assert zeros.tolist() == [49406, 49407] + [0] * 75


@pytest.mark.parametrize("text", ["the " * 100, "a cat " * 10 + "supercalifragilisticexpialidocious " * 9, "1" * 100])
def test_what_clip_cuts_is_the_end(clip: Clip, text: str) -> None:
    cut = clip.cut(text)
    assert cut
    assert text.endswith(cut)
    kept = text[: len(text) - len(cut)]
    assert clip.cut(kept) == ""
    whole = clip.encode(kept)
    shown = (whole != 49407).sum()
    assert np.array_equal(whole[:shown], clip.encode(text)[:shown])
    assert clip.encode(text)[-1] == 49407


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("missing.txt", None, "no vocabulary of CLIP at .*missing.txt"),
        ("damaged.gz", b"\x1f\x8b123", "cannot read the vocabulary"),
        ("latin.txt", b"#\n\xff\xfe x\n", "cannot read the vocabulary"),
        ("other.txt", b"#\na b\na b c\n", "line 3: expected two parts"),
    ],
)
def test_a_missing_vocabulary_is_said(tmp_path: pathlib.Path, name: str, content: bytes | None, words: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=words) as caught:
        Clip(str(tmp_path / name)).encode("a cat")
    assert "\n" not in str(caught.value)


def test_a_folder_without_its_vocabulary_is_said(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match=r"no vocabulary of CLIP at .*merges\.txt"):
        Clip(str(tmp_path)).size()
    (tmp_path / "merges.txt").write_text("#\n")
    (tmp_path / "vocab.json").write_text('{"a": 0}')
    with pytest.raises(UserError, match=r"cannot read .*startoftext"):
        Clip(str(tmp_path)).size()


def test_words_are_those_of_the_captions() -> None:
    assert WORDS.words()[0] == "a"  # twice
    assert list(WORDS.words()[1:]) == sorted(WORDS.words()[1:])
    assert set(WORDS.words()) == {
        "a", "red", "3", "red-hot", "7", "which", "is", "above", "it", "the", "café's", "cat", "빨간", "고양이"
    }  # fmt: skip
    assert WORDS.size() == 4 + len(WORDS.words())
    assert WORDS.encode("a Red 3.").tolist()[:5] == [1, 4, *(4 + WORDS.words().index(word) for word in ("red", "3")), 2]
    assert WORDS.encode("cafe\u0301's")[1] == WORDS.encode("café's")[1] > 3


def test_words_keep_their_shape() -> None:
    assert isinstance(WORDS, Tokenizer)
    for text in ("", "a", "a b c d e f g h i j", "…!"):
        ids = WORDS.encode(text)
        assert (ids.shape, ids.dtype) == ((8,), np.int32)
        assert ids[0] == 1
        assert (ids == 2).sum() == 1
        assert not ids[int(np.argmax(ids == 2)) + 1 :].any()
    assert WORDS.encode("").tolist() == [1, 2] + [0] * 6
    ids = np.stack([WORDS.encode(word) for word in WORDS.words()])
    assert sorted(ids[:, 1].tolist()) == list(range(4, WORDS.size()))


def test_unknown_words_are_named() -> None:
    assert WORDS.unknown("a zorb 3 Zorb frobs") == ("zorb", "frobs")
    assert WORDS.encode("zorb")[1] == 3
    assert WORDS.unknown("a red 3") == ()


def test_what_words_cut_is_the_end() -> None:
    assert WORDS.cut("a red 3 above the cat") == ""
    assert WORDS.cut("a red 3 above the cat, which is it") == "which is it"
    assert np.array_equal(WORDS.encode("a red 3 above the cat, which is it"), WORDS.encode("a red 3 above the cat"))


def test_words_need_captions() -> None:
    with pytest.raises(UserError, match="FakeLabels has no caption"):
        Words(FakeLabels(height=4, width=4, size=2)).size()
    with pytest.raises(UserError, match="no word in any caption"):
        Words(Said(("…", ""))).size()
    with pytest.raises(UserError, match="3 or more"):
        Words(Said(("a",)), length=2)


def test_tokens_join_the_example() -> None:
    source = FakeCaptions(height=4, width=4, size=6)
    words = Words(source, length=6)
    out = Tokenize(words)(np.random.default_rng(0), source.open()[0])
    assert out["tokens"].dtype == np.int32
    assert words.unknown(str(out["caption"])) == ()
    assert captions_of(source)[0] == out["caption"]
    assert "tokens_2" in Tokenize(words, "tokens_2")(np.random.default_rng(0), source.open()[0])
    with pytest.raises(UserError, match="needs a caption"):
        Tokenize(words)(np.random.default_rng(0), {"image": np.zeros((2, 2, 3), np.uint8)})
    with pytest.raises(UserError, match="Tokenizer, such as"):
        Tokenize("words")
    with pytest.raises(UserError, match='"tokens", or'):
        Tokenize(words, "image")


def test_fake_tokens_lie_in_their_vocabulary() -> None:
    example = FakeCaptions(height=4, width=4, length=7, vocabulary=11).open()[3]
    assert example["tokens"].shape == (7,)
    assert example["tokens"].max() < 11
    assert example["tokens"].dtype == np.int32


def test_fake_data_need_no_vocabulary() -> None:
    for real in (Clip("/nowhere", length=9), Words(Said(()), length=9)):
        fake = Tokenize(real).fake().tokenizer
        assert isinstance(fake, Tokenizer)
        ids = fake.encode("a red cat above a dog")
        assert (ids.shape, ids.dtype) == ((9,), np.int32)
        assert ids.max() < fake.size()
        assert np.array_equal(fake.encode("")[:2], [fake.start, fake.end])  # type: ignore[attr-defined]
        assert fake.cut("one two three four five six seven eight") == "eight"
        assert fake.unknown("zorb") == ()
    assert Clip("/nowhere").fake().size() == 49408
    fake = Tokenize(Words(Said(()))).fake()
    assert fake.fake() == fake


# --- captions that move -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("caption", "mirrored"),
    [
        ("a 3 left of a 7, which is right of a 1", "a 3 right of a 7, which is left of a 1"),
        ("Left arrow", "Right arrow"),
        ("LEFT", "RIGHT"),
        ("leftwards hand, right-facing fist", "rightwards hand, left-facing fist"),
        ("a bright copyright in a cleft, upright", "a bright copyright in a cleft, upright"),
        ("오른쪽을 향한 무릎을 꿇은 여자", "왼쪽을 향한 무릎을 꿇은 여자"),
        ("왼손과 오른손", "오른손과 왼손"),
        ("떠오른 태양", "떠오른 태양"),
        ("a cat", "a cat"),
    ],
)  # fmt: skip
def test_a_mirror_exchanges_left_and_right(caption: str, mirrored: str) -> None:
    assert mirrored_caption(caption) == mirrored
    assert mirrored_caption(mirrored) == caption


def example(**more: np.ndarray) -> Example:
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    return {"image": image, "caption": np.array("a 3 left of a 7")} | more


def test_flips_and_crops_keep_captions_true() -> None:
    rng = np.random.default_rng(0)
    assert Flip(1.0)(rng, example())["caption"] == "a 3 right of a 7"
    assert Flip(0.0)(rng, example())["caption"] == "a 3 left of a 7"
    assert "caption" not in CenterCrop(2, 2)(rng, example())
    assert "caption" in Resize(2, 2)(rng, example())
    for transform in (CenterCrop(2, 2), Photometric()):
        kept = KeepCaption(transform)(np.random.default_rng(0), example())
        assert kept["caption"] == "a 3 left of a 7"
        assert np.array_equal(kept["image"], transform(np.random.default_rng(0), example())["image"])
    assert KeepCaption(Flip(1.0))(rng, example())["caption"] == "a 3 right of a 7"
    assert "caption" not in KeepCaption(Flip(1.0))(rng, {"image": example()["image"]})


@pytest.mark.parametrize("transform", [Flip(1.0), CenterCrop(2, 2), Photometric()])
def test_tokens_are_made_after_the_moves(transform: Flip | CenterCrop | Photometric) -> None:
    with pytest.raises(UserError, match="put Tokenize after"):
        transform(np.random.default_rng(0), example(tokens=np.zeros(3, np.int32)))


def test_prepared_latents_are_not_moved() -> None:
    with pytest.raises(UserError, match="latent: transforms do not know how to move"):
        Flip(1.0)(np.random.default_rng(0), example(latent=np.zeros((2, 2, 8), np.float32)))
