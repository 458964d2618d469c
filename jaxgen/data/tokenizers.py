"""Texts as token ids: words of a closed vocabulary, or the byte pairs of CLIP; and the transform that adds them."""

import collections
import dataclasses
import functools
import hashlib
import json
import re
import unicodedata
import zlib
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int32

from jaxgen.data import byte_pairs
from jaxgen.data.source import Source
from jaxgen.errors import UserError, check_field
from jaxgen.typing import Example

PADDING, START, END, UNKNOWN = range(4)  # ids of `Words` that are no words
WORD = re.compile(r"\w+(?:[-'’]\w+)*|[^\w\s.,:;!?()\"“”…\ufe0f\u200d]")  # punctuation says nothing of a picture


@runtime_checkable
class Tokenizer(Protocol):
    """A frozen dataclass that maps texts to token ids, always the same ones."""

    length: int
    """Ids of every text: those of its start and its end, and padding, among them."""

    def size(self) -> int:
        """Return how many ids there are: they lie in 0 … size-1. Raises UserError where the vocabulary is missing."""
        ...

    def encode(self, text: str) -> Int32[np.ndarray, " n"]:
        """Return the ids of a text, cut to `length` where it is longer; "" stands for no text."""
        ...

    def unknown(self, text: str) -> tuple[str, ...]:
        """Return the words of a text that are not in the vocabulary, each once; all of them share one id."""
        ...

    def cut(self, text: str) -> str:
        """Return the end of a text for which there is no room, from the first word that is not read whole; or ""."""
        ...


@runtime_checkable
class Replaceable(Protocol):
    """A tokenizer that can be replaced where its vocabulary is not here, for fake data."""

    def fake(self) -> Tokenizer:
        """Return a tokenizer without files whose ids have the same form, and lie among its own."""
        ...


@runtime_checkable
class Listed(Protocol):
    """A tokenizer whose words can be listed."""

    def words(self) -> tuple[str, ...]:
        """Return the words in the order of their ids."""
        ...


@runtime_checkable
class Spoken(Protocol):
    """A source that knows its captions without reading a picture."""

    def captions(self) -> tuple[str, ...]:
        """Return the caption of each example."""
        ...


@dataclasses.dataclass(frozen=True)
class Words:
    """The words of a training source's captions, in lower case: i32[length] of a start, words, an end, and padding.

    Ids are 0 = padding, 1 = start, 2 = end, 3 = unknown, and from 4 the words, the most frequent first. A word may hold
    a hyphen or an apostrophe; other punctuation is left out. Raises UserError where no example has a caption.
    """

    source: Source
    length: int = 16

    def __post_init__(self) -> None:
        check_field(self, "length", self.length >= 3, "3 or more: a start, a word and an end")

    def size(self) -> int:
        return UNKNOWN + 1 + len(_words_of(self.source))

    def encode(self, text: str) -> Int32[np.ndarray, " n"]:
        known = _words_of(self.source)
        ids = [known.get(word, UNKNOWN) for word in _words(text)]
        return _filled([START, *ids[: self.length - 2], END], PADDING, self.length)

    def unknown(self, text: str) -> tuple[str, ...]:
        known = _words_of(self.source)
        return tuple(dict.fromkeys(word for word in _words(text) if word not in known))

    def cut(self, text: str) -> str:
        return _beyond(text, self.length - 2)

    def fake(self) -> "FakeTokens":
        return FakeTokens(length=self.length, start=START, end=END, padding=PADDING)

    def words(self) -> tuple[str, ...]:
        """Return the words of the vocabulary, in the order of their ids, which begin at 4."""
        return tuple(_words_of(self.source))


@dataclasses.dataclass(frozen=True)
class Clip:
    """The byte pairs of CLIP (arXiv:2103.00020): i32[length] of a start 49406, byte pairs, an end 49407, and padding.

    `vocabulary` is a path, to `bpe_simple_vocab_16e6.txt` (also `.gz`) or to a folder with `vocab.json` and
    `merges.txt`. Texts are composed (Unicode NFC) and in lower case, with one space between words, as in Stable
    Diffusion; damaged text and HTML are not mended. Raises UserError where the files are missing or damaged.
    """

    vocabulary: str
    length: int = 77
    padding: int | None = None
    """The id that fills a text up; None: the end's, as in Stable Diffusion 1. OpenCLIP's encoders have 0."""

    def __post_init__(self) -> None:
        check_field(self, "length", self.length >= 3, "3 or more: a start, a byte pair and an end")

    def size(self) -> int:
        return len(byte_pairs.clip(self.vocabulary).ids)

    def encode(self, text: str) -> Int32[np.ndarray, " n"]:
        pairs = byte_pairs.clip(self.vocabulary)
        ids = pairs.encode(text)[: self.length - 2]
        padding = pairs.end if self.padding is None else self.padding
        return _filled([pairs.start, *ids, pairs.end], padding, self.length)

    def unknown(self, text: str) -> tuple[str, ...]:
        return ()  # every text is bytes

    def cut(self, text: str) -> str:
        pairs, taken = byte_pairs.clip(self.vocabulary), 0
        for match in re.finditer(r"\S+", text):  # no byte pair reaches over a space
            taken += len(pairs.encode(match[0]))
            if taken > self.length - 2:
                return text[match.start() :]
        return ""

    def fake(self) -> "FakeTokens":
        return FakeTokens(length=self.length, start=49_406, end=49_407, padding=49_407)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FakeTokens:
    """Ids without a vocabulary, for fake data: a start, one of four ids for each word, an end, and padding."""

    length: int
    start: int = START
    end: int = END
    padding: int = PADDING

    def size(self) -> int:
        return max(self.start, self.end, self.padding, UNKNOWN + 4) + 1

    def encode(self, text: str) -> Int32[np.ndarray, " n"]:
        ids = [UNKNOWN + 1 + zlib.crc32(word.encode()) % 4 for word in _words(text)]
        return _filled([self.start, *ids[: self.length - 2], self.end], self.padding, self.length)

    def unknown(self, text: str) -> tuple[str, ...]:
        return ()

    def cut(self, text: str) -> str:
        return _beyond(text, self.length - 2)


@dataclasses.dataclass(frozen=True)
class Tokenize:
    """Add the ids of the caption, `tokens` i32[length]: the last transform, for others change captions or drop them.

    Raises UserError for an example without a caption.
    """

    tokenizer: Any  # a Tokenizer; Any lets the command line reach into it
    name: str = "tokens"
    """Of the array; another for a second tokenizer: "tokens_2"."""

    def __post_init__(self) -> None:
        check_field(self, "tokenizer", isinstance(self.tokenizer, Tokenizer), "a Tokenizer, such as Words or Clip")
        check_field(self, "name", self.name.startswith("tokens"), '"tokens", or that and more')

    def __call__(self, rng: np.random.Generator, example: Example) -> Example:
        if "caption" not in example:
            raise UserError(
                "Tokenize needs a caption with each image; the data has none, or a transform before it dropped it "
                "because it may no longer be true: wrap that in KeepCaption(…) if it is"
            )
        return example | {self.name: self.tokenizer.encode(example["caption"].item())}

    def fake(self) -> "Tokenize":
        """Return the transform for fake data, which needs no vocabulary."""
        fake = self.tokenizer.fake() if isinstance(self.tokenizer, Replaceable) else self.tokenizer
        return dataclasses.replace(self, tokenizer=fake)


def digest_of_words(transforms: Sequence[Any]) -> str:
    """Return what tells two vocabularies of the transforms' tokenizers apart, or "" where their words are not listed.

    Words that come from captions change with them: ids would mean something else to a net that learned the old ones.
    """
    kept = [
        each.tokenizer.words()
        for each in transforms
        if isinstance(each, Tokenize) and isinstance(each.tokenizer, Listed)
    ]
    return hashlib.sha256(json.dumps(kept).encode()).hexdigest()[:16] if kept else ""


@dataclasses.dataclass(frozen=True)
class KeepCaption:
    """Do what another transform does, but keep the caption that it drops: you say that it is still true enough.

    A crop of the middle, or a slight change of colours, seldom makes a caption false.
    """

    transform: Any  # a Transform; Any lets the command line reach into it

    def __call__(self, rng: np.random.Generator, example: Example) -> Example:
        out = self.transform(rng, example)
        return {"caption": example["caption"]} | out if "caption" in example else out


def captions_of(source: Source) -> tuple[str, ...]:
    """Return the caption of each example of a source. Raises UserError where an example has none."""
    if isinstance(source, Spoken):
        return source.captions()
    examples = source.open()
    found = [examples[i].get("caption") for i in range(len(examples))]
    if any(caption is None for caption in found):
        raise UserError(f"{type(source).__name__} has no caption with each image, and so no words; name another source")
    return tuple(caption.item() for caption in found if caption is not None)


def _beyond(text: str, room: int) -> str:
    """The text from the first word on for which there is no room."""
    text = unicodedata.normalize("NFC", text)
    places = [match.start() for match in WORD.finditer(text)]
    return text[places[room] :] if len(places) > room else ""


def _words(text: str) -> list[str]:
    return WORD.findall(unicodedata.normalize("NFC", text).lower())


@functools.lru_cache(maxsize=8)
def _words_of(source: Source) -> dict[str, int]:
    """The ids of the words of a source's captions."""
    counts = collections.Counter(word for caption in captions_of(source) for word in _words(caption))
    if not counts:
        raise UserError(f"{type(source).__name__} has no word in any caption; name another source")
    ordered = sorted(counts, key=lambda word: (-counts[word], word))
    return {word: UNKNOWN + 1 + i for i, word in enumerate(ordered)}


def _filled(ids: list[int], padding: int, length: int) -> Int32[np.ndarray, " n"]:
    return np.array(ids + [padding] * (length - len(ids)), np.int32)
