"""The data set `emoji`: whole pictures, captions by one rule, and splits that keep what they say from training."""

import collections
import pathlib
import re
from collections.abc import Iterator

import numpy as np
import pytest

from jaxgen.data import render_emoji, tokenizers
from jaxgen.data.emoji import LANGUAGES, MAN, MIXED, NOBODY, PERSON, WOMAN, Emoji
from jaxgen.data.render_emoji import Meaning, caption, draw, known, meaning, splits
from jaxgen.data.tokenizers import Words
from jaxgen.errors import UserError

# Three people in three genders and six tones, of whom some are held out; a hand; a thing that is in "test"; and more.
FEW = ("🧑‍🚒", "🧑‍🚀", "🧑‍🎨", "👋", "🐛", "🛁", "🇰🇷", "🧻")


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> Iterator[list[str]]:
    """An empty data folder, and emoji few enough to prepare in a test."""
    chosen = [text for text in known() if meaning(text).subject in FEW]
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(render_emoji, "known", lambda: chosen)
    tokenizers._words_of.cache_clear()  # a vocabulary is remembered by its source
    yield chosen
    tokenizers._words_of.cache_clear()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("👩🏽‍🚒", "woman firefighter, medium skin tone"),
        ("👨🏿‍🦰", "man, dark skin tone, red hair"),
        ("👩🏻‍🤝‍👨🏿", "woman and man holding hands, light skin tone, dark skin tone"),
        ("🇰🇷", "South Korea"),
        ("👋🏾", "waving hand, medium-dark skin tone"),
        ("🧑‍🚀", "astronaut"),
    ],
)
def test_captions_are_words_with_tones_between_commas(text: str, said: str) -> None:
    assert caption(text, "en") == said


def test_captions_speak_korean() -> None:
    assert caption("👩🏽‍🚒", "ko") == "여자 소방관, 갈색 피부"
    assert caption("👋🏼", "ko") == "흔드는 손, 연한 갈색 피부"


def test_captions_are_whole_in_every_language() -> None:
    for language in LANGUAGES:
        for text in known()[::97]:
            said = caption(text, language)
            assert said
            assert not re.search(r"[:_]|,\s*,|^,|,$|  ", said), said


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("👩🏽‍🚒", Meaning("🧑‍🚒", 3, WOMAN)),
        ("🧑‍🚒", Meaning("🧑‍🚒", 0, PERSON)),
        ("🧎🏻‍♂️‍➡️", Meaning("🧎", 1, MAN)),
        ("🧎🏻", Meaning("🧎", 1, PERSON)),
        ("👴🏿", Meaning("🧓", 5, MAN)),
        ("🤶", Meaning("🧑‍🎄", 0, WOMAN)),
        ("👩🏻‍🤝‍👨🏿", Meaning("🧑‍🤝‍🧑", MIXED, NOBODY)),
        ("👩🏻‍❤️‍👨🏻", Meaning("💑", 1, NOBODY)),
        ("👨‍👩‍👧", Meaning("👪", 0, NOBODY)),
        ("🫱🏻‍🫲🏿", Meaning("🤝", MIXED, NOBODY)),
        ("🤛🏽", Meaning("🤜", 3, NOBODY)),
        ("🐛", Meaning("🐛", 0, NOBODY)),
        ("🇰🇷", Meaning("🇰🇷", 0, NOBODY)),
    ],
)
def test_code_points_say_who_is_shown(text: str, meant: Meaning) -> None:
    assert meaning(text) == meant


def test_glyphs_are_whole_and_lie_in_their_square() -> None:
    for text in ("👩🏽‍🚒", "🇰🇷", "😀", "👨‍👩‍👧", "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"):
        image = draw(text, 48)
        assert image is not None
        alpha = np.asarray(image)[..., 3]
        assert (alpha > 0).mean() > 0.2
    face = np.argwhere(np.asarray(draw("😀", 64))[..., 3] > 127)
    assert np.abs((face.min(0) + face.max(0)) / 2 - 31.5).max() <= 1  # a round face lies in the middle


def test_what_is_no_single_glyph_is_not_drawn() -> None:
    assert draw("😀😀", 32) is None
    assert draw("\U000e0001", 32) is None
    assert draw("🧻", 32) is None  # reaches out of its square


def test_a_smaller_picture_is_the_mean_of_the_larger() -> None:
    red = render_emoji.reduced(draw("🟥", 64), 16)  # type: ignore[arg-type]
    inside = np.asarray(red)[8, 8]
    edge = np.asarray(red).reshape(-1, 4)
    assert inside[3] == 255
    partly = edge[(edge[:, 3] > 8) & (edge[:, 3] < 64)]
    assert (partly[:, 1:3] <= partly[:, :1] + 1).all()  # what is transparent lends no colour


def check_splits(found: dict[str, list[str]], pictures: dict[str, bytes]) -> None:
    """What the splits promise."""
    of = {text: split for split, texts in found.items() for text in texts}
    assert sum(map(len, found.values())) == len(of)
    train = {meaning(text) for text in found["train"]}
    for text in found["held_out"]:
        m = meaning(text)
        assert m not in train
        assert {Meaning(m.subject, tone, m.gender) for tone in range(6)} - {m} <= train  # the person in other tones
    assert len({meaning(text).tone for text in found["held_out"]}) == 5
    assert {meaning(text).gender for text in found["held_out"]} == {PERSON, MAN, WOMAN}
    subjects = {split: {meaning(text).subject for text in texts} for split, texts in found.items()}
    assert subjects["test"].isdisjoint(subjects["train"] | subjects["held_out"])
    for other in ("test", "held_out"):
        shown = {pictures[text] for text in found[other]}
        assert shown.isdisjoint(pictures[text] for text in found["train"])
    heard = {word for text in found["train"] for word in caption(text, "en").replace(",", "").split()}
    assert all(set(caption(text, "en").replace(",", "").split()) <= heard for text in found["held_out"])
    combinations = [m for m in train | {meaning(t) for t in found["held_out"]} if m.subject in subjects["held_out"]]
    assert 0.07 < len(found["held_out"]) / len([m for m in combinations if m.tone]) < 0.13
    assert 0.03 < len(subjects["test"]) / sum(map(len, subjects.values())) < 0.07


def test_splits_keep_what_they_promise() -> None:
    pictures = {text: text.encode() for text in known()}
    found = splits(pictures)
    check_splits(found, pictures)
    assert found == splits(dict(reversed(pictures.items()))) or all(
        set(found[split]) == set(splits(dict(reversed(pictures.items())))[split]) for split in found
    )


def test_what_is_drawn_alike_goes_to_one_side() -> None:
    flags = [text for text in known() if len(text) == 2 and 0x1F1E6 <= ord(text[0]) <= 0x1F1FF]
    pictures = {text: text.encode() for text in flags}
    alone = splits(pictures)["test"]
    assert alone
    twin = next(text for text in flags if text not in alone)
    for text in alone:
        found = splits(pictures | {text: twin.encode()})
        assert any({text, twin} <= set(side) for side in found.values())


def test_a_tone_that_is_not_drawn_is_left_out() -> None:
    tones = [text for text in known() if meaning(text).subject == "👋"]
    found = splits(dict.fromkeys(tones, b"the same"))
    assert [text for side in found.values() for text in side] == ["👋"]


def test_the_data_prepare_themselves(few: list[str]) -> None:
    shown = collections.Counter(a.subject for split in ("train", "test", "held_out") for a in Emoji(split).attributes())
    assert shown == {"🧑‍🚒": 18, "🧑‍🚀": 18, "🧑‍🎨": 18, "👋": 6, "🐛": 1, "🛁": 1, "🇰🇷": 1}
    held = Emoji("held_out")
    examples, attributes = held.open(), held.attributes()
    assert len(examples) == len(attributes) > 0
    assert examples.classes == ()
    for i, shows in enumerate(attributes):
        example = examples[i]
        assert {key: (value.shape, value.dtype.kind) for key, value in example.items()} == {
            "image": ((32, 32, 3), "u"), "caption": ((), "U"), "tone": ((), "i"), "gender": ((), "i")
        }  # fmt: skip
        assert (example["tone"], example["gender"]) == (shows.tone, shows.gender)
        assert example["caption"] == caption(shows.emoji, "en")
    assert held.captions() == tuple(str(examples[i]["caption"]) for i in range(len(examples)))
    assert Words(Emoji(), 16).unknown(held.captions()[0]) == ()
    assert str(Emoji("held_out", language="ko").open()[0]["caption"]) == caption(attributes[0].emoji, "ko")


def test_any_size_on_any_ground(few: list[str]) -> None:
    on_white, on_black = Emoji(size=24).open()[0]["image"], Emoji(size=24, background=(0, 0, 0)).open()[0]["image"]
    clear = Emoji(size=24, background=None).open()[0]["image"]
    assert clear.shape == (24, 24, 4) == Emoji(size=24, background=None).shape()
    alpha = clear[..., 3:] / 255
    for ground, image in ((255, on_white), (0, on_black)):
        assert np.abs(clear[..., :3] * alpha + ground * (1 - alpha) - image).max() <= 1.01
    assert (on_white[0, 0] == 255).all()
    assert (on_black[0, 0] == 0).all()
    large = Emoji(size=160).open()[0]["image"]
    small = Emoji(size=128).open()[0]["image"]
    assert large.shape == (160, 160, 3)
    assert abs(float(large.mean()) - float(small.mean())) < 1.5  # the same drawing


def test_fake_data_have_captions() -> None:
    fake = Emoji().fake((16, 16, 3), 0, 4).open()
    assert set(fake[0]) == {"image", "caption"}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"size": 4}, "from 8 to 1,024"),
        ({"background": (0, 0, 256)}, "three levels"),
        ({"size": 2000}, "from 8 to 1,024"),
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        Emoji(**wrong)  # type: ignore[arg-type]


@pytest.mark.slow
def test_splits_keep_what_they_promise_of_the_drawings() -> None:
    drawn = {text: draw(text, 64) for text in known()}
    pictures = {text: image.tobytes() for text, image in drawn.items() if image is not None}
    found = splits(pictures)
    check_splits(found, pictures)
    assert len(pictures) > 3900
    assert sum(map(len, found.values())) > 3850
