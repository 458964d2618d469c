"""Words in pictures: a font that has their letters, and lines that keep to the width they are given."""

import functools
import importlib.util
import pathlib
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

from PIL import ImageDraw, ImageFont, features

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
DEJAVU = "mpl-data/fonts/ttf/DejaVuSans.ttf"  # below matplotlib: Latin, Greek, Cyrillic, Arabic, Hebrew, signs
FEW = 10  # letters without a font that are named
LESS_LIKELY = ("bold", "italic", "oblique", "black", "light", "thin", "mono", "serif")  # in the names of font files


def write(
    draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, colour: tuple[int, int, int], size: int
) -> None:
    """Write a line in a font that has its letters."""
    draw.text(place, text, colour, font(text, size))


def length(text: str, size: int) -> int:
    """Return how many pixels wide a line is."""
    return int(-(-font(text, size).getlength(text) // 1))


def shortened(text: str, size: int, width: int) -> str:
    """Return the text, or as many of its first letters as fit into `width` pixels, with … after them."""
    if length(text, size) <= width:
        return text
    kept = text
    while kept and length(f"{kept.rstrip()}…", size) > width:
        kept = kept[:-1]
    return f"{kept.rstrip()}…"


def wrapped(text: str, size: int, width: int, most: int) -> list[str]:
    """Return a text as lines of at most `width` pixels, and no more than `most`; … ends the last where more is left.

    Lines break between words, and inside a word where that is wider than a line.
    """
    lines, line = [], ""
    words = text.split()
    while words:
        longer = f"{line} {words[0]}".lstrip()
        if length(longer, size) <= width:
            line = longer
            del words[0]
        elif line:
            lines, line = [*lines, line], ""
        else:
            fits = next((k for k in range(len(words[0]) - 1, 1, -1) if length(words[0][:k], size) <= width), 1)
            lines, words[0] = [*lines, words[0][:fits]], words[0][fits:]
            if not words[0]:
                del words[0]
    lines += [line] if line else []
    if len(lines) > most:
        lines[most - 1 :] = [shortened(f"{lines[most - 1]} {lines[most]}", size, width)]
    return lines


def legible(texts: Sequence[str]) -> list[str]:
    """Return texts as they can be drawn, with ? for each letter that no font here has beside the others; says so once.

    Letters with accents that no font has are drawn without them.
    """
    drawn = {text: _legible(" ".join(unicodedata.normalize("NFC", text).split())) for text in dict.fromkeys(texts)}
    if missing := dict.fromkeys(letter for _, letters in drawn.values() for letter in letters):
        few = "".join(list(missing)[:FEW]) + ("…" if len(missing) > FEW else "")
        _say(f"note: no font here has {few} beside the other letters; the picture shows ?: install one, as Noto CJK")
    return [drawn[text][0] for text in texts]


def _legible(text: str) -> tuple[str, tuple[str, ...]]:
    """Return a text as it can be drawn, and the letters that cannot."""
    if drawable(text):
        return text, ()
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    if drawable(plain):
        return plain, ()
    kept, missing = "", []
    for letter in dict.fromkeys(text):  # one font draws a text: what it lacks of one with several scripts is missing
        if drawable(kept + letter):
            kept += letter
        else:
            missing.append(letter)
    return "".join(letter if letter in kept else "?" for letter in text), tuple(missing)


@functools.cache
def shown(name: str, number: int) -> str:
    """Return a class's name as it can be drawn: as it is, in other letters, or by its number where no font has them.

    What is not drawn as it is, is said once on standard error.
    """
    # A folder's name may hold é as two characters (macOS writes it so), and line breaks.
    name = unicodedata.normalize("NFC", " ".join(name.split()))
    if drawable(name):
        return name
    plain = "".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c))
    other = plain if plain.strip() and drawable(plain) else f"class {number}"
    _say(f"note: no font here has the letters of {name!r}; pictures show {other!r}")
    return other


def drawable(text: str) -> bool:
    """Say whether some font of this machine has all letters, and they can be laid out."""
    return _found(frozenset(text)) is not None and (_laid_out() or not any(map(_needs_layout, text)))


def font(text: str, size: int) -> Font:
    """Return the font that draws a text: Pillow's own for plain letters, another that has them all otherwise."""
    path = _found(frozenset(text))
    return ImageFont.load_default(size) if not path else _opened(path, size)


@functools.cache
def _opened(path: pathlib.Path, size: int) -> Font:
    return ImageFont.truetype(str(path), size)


@functools.cache
def _found(letters: frozenset[str]) -> pathlib.Path | str | None:
    """Return the first font that has all letters, "" for Pillow's own, None if there is none."""
    wanted = {ord(c) for c in letters if not c.isspace()}
    if all(code < 128 for code in wanted) or (wanted - {ord("…")}) == {c for c in wanted if c < 128}:
        return ""
    return next((path for path in _fonts() if wanted <= _letters(path)), None)


def _fonts() -> Iterator[pathlib.Path]:
    """Yield DejaVu, which comes with matplotlib, and then the fonts of the system, plain ones first."""
    package = importlib.util.find_spec("matplotlib")
    places = None if package is None else package.submodule_search_locations
    for folder in places or ():
        yield pathlib.Path(folder) / DEJAVU
    yield from _of_system()


@functools.cache
def _of_system() -> tuple[pathlib.Path, ...]:
    from matplotlib import font_manager  # takes a second, and most names are plain

    paths = [pathlib.Path(path) for path in font_manager.findSystemFonts()]
    return tuple(sorted(paths, key=lambda path: (any(word in path.name.lower() for word in LESS_LIKELY), path.name)))


@functools.cache
def _letters(path: pathlib.Path) -> frozenset[int]:
    """Return the code points that a font has outlines for; none for a file that is no font, or one of bitmaps."""
    from matplotlib import ft2font

    try:
        opened: Any = ft2font.FT2Font(str(path))
        return frozenset(opened.get_charmap()) if opened.scalable else frozenset()
    except (RuntimeError, OSError):  # FreeType cannot read it
        return frozenset()


def _needs_layout(letter: str) -> bool:
    """Say whether a letter runs from right to left, joins its neighbours or sits on them."""
    return unicodedata.bidirectional(letter) in ("R", "AL", "AN") or unicodedata.category(letter) in ("Mn", "Mc")


@functools.cache
def _laid_out() -> bool:
    return bool(features.check("raqm") and features.check("fribidi"))


def _say(line: str) -> None:
    print(line, file=sys.stderr)
