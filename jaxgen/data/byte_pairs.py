"""Byte pairs: a text as parts of words, of CLIP's vocabulary."""

import functools
import gzip
import itertools
import json
import re
import unicodedata
import zlib
from pathlib import Path

from jaxgen.errors import UserError

MERGES = 49_152 - 256 - 2  # lines of CLIP's vocabulary file that are used
_SPECIAL = "<|startoftext|>", "<|endoftext|>"
_FIRST = re.compile("|".join(map(re.escape, (*_SPECIAL, "'s", "'t", "'re", "'ve", "'m", "'ll", "'d"))))
_RUN = re.compile("L+|N|o+")  # letters, one digit, or neither
_CACHED = 20_000  # words whose byte pairs are remembered


class BytePairs:
    """A vocabulary of byte pairs and the order in which they are joined (arXiv:1508.07909)."""

    def __init__(self, ids: dict[str, int], merges: list[tuple[str, str]]):
        self.ids = ids
        self.start, self.end = (ids[name] for name in _SPECIAL)
        self._ranks = {pair: rank for rank, pair in enumerate(merges)}
        self._of_word = functools.lru_cache(maxsize=_CACHED)(self._joined)

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without start and end."""
        text = unicodedata.normalize("NFC", text).lower()
        kinds = "".join(_kind(c) for c in text)
        found, at = [], 0
        while at < len(text):
            if kinds[at] == " ":
                at += 1
            elif match := _FIRST.match(text, at) or _RUN.match(kinds, at):
                found += self._of_word(text[at : match.end()])
                at = match.end()
        return found

    def _joined(self, word: str) -> tuple[int, ...]:
        if word in _SPECIAL:
            return (self.ids[word],)
        letters = [_LETTERS[byte] for byte in word.encode()]
        parts = [*letters[:-1], letters[-1] + "</w>"]
        while len(parts) > 1:
            pairs = list(itertools.pairwise(parts))
            best = min(pairs, key=lambda pair: self._ranks.get(pair, len(self._ranks)))
            if best not in self._ranks:
                break
            parts = _replaced(parts, best)
        return tuple(self.ids[part] for part in parts)


def _replaced(parts: list[str], pair: tuple[str, str]) -> list[str]:
    """Join each occurrence of a pair, from the left."""
    out: list[str] = []
    at = 0
    while at < len(parts):
        joined = tuple(parts[at : at + 2]) == pair
        out.append("".join(pair) if joined else parts[at])
        at += 2 if joined else 1
    return out


def _kind(character: str) -> str:
    if character.isspace():
        return " "
    kind = unicodedata.category(character)[0]
    return kind if kind in "LN" else "o"


def _byte_letters() -> tuple[str, ...]:
    """A printable character for each byte: its own where Latin-1 prints it, else one from 256 on."""
    printed = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return tuple(chr(byte if byte in printed else next(others)) for byte in range(256))


_LETTERS = _byte_letters()


@functools.lru_cache(maxsize=4)
def clip(vocabulary: str) -> BytePairs:
    """Read CLIP's vocabulary. Raises UserError where its files are missing or damaged."""
    path = Path(vocabulary).expanduser()
    try:
        if path.is_dir():
            merges = _pairs((path / "merges.txt").read_text("utf-8").splitlines()[1:], path / "merges.txt")
            return BytePairs(json.loads((path / "vocab.json").read_text("utf-8")), merges)
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(
            f"no vocabulary of CLIP at {error.filename}; Clip(vocabulary=…) is the path to "
            "bpe_simple_vocab_16e6.txt.gz, or to a folder with vocab.json and merges.txt"
        ) from error
    except (OSError, EOFError, ValueError, KeyError, zlib.error) as error:
        raise UserError(f"cannot read the vocabulary of CLIP at {path}: {str(error).splitlines()[0]}") from error
    pairs = _pairs(text.splitlines()[1 : MERGES + 1], path)
    letters = sorted(_LETTERS, key=lambda letter: (ord(letter) > 255, ord(letter)))  # the printable ones come first
    names = [*letters, *(letter + "</w>" for letter in letters), *map("".join, pairs), *_SPECIAL]
    return BytePairs({name: i for i, name in enumerate(names)}, pairs)


def _pairs(lines: list[str], path: Path) -> list[tuple[str, str]]:
    found = [tuple(line.split()) for line in lines if line.strip()]
    if wrong := [i for i, pair in enumerate(found) if len(pair) != 2]:
        raise UserError(f"{path}, line {wrong[0] + 2}: expected two parts of a word; is it CLIP's vocabulary?")
    return [(pair[0], pair[1]) for pair in found if len(pair) == 2]
