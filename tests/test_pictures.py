"""Pictures for people: class colours, and samples laid out on a sheet."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib import font_manager
from PIL import Image, ImageDraw, features

from jaxgen.errors import UserError
from jaxgen.metrics.view import as_shown
from jaxgen.pictures import previews, sheet, text
from jaxgen.pictures.colours import palette, tint
from jaxgen.pictures.panels import Curves, Panels
from jaxgen.pictures.pixels import to_float
from jaxgen.typing import IGNORE

MASK = np.array([[[0, 1, 2], [3, 200, IGNORE]]], np.uint8)  # of three classes: two ids of none, and one ignored


def test_class_colours_by_hand():
    image = np.random.default_rng(0).uniform(-1, 1, (1, 2, 3, 3)).astype(np.float32)
    out = tint(image, MASK, 3)
    assert isinstance(out, np.ndarray)
    assert out.dtype == np.float32
    colours = palette(3) / 127.5 - 1
    for place, k in (((0, 0, 1), 1), ((0, 0, 2), 2)):
        assert out[place] == pytest.approx(0.2 * image[place].mean() + 0.8 * colours[k], abs=1e-6)
    for place in ((0, 0, 0), (0, 1, 0), (0, 1, 1)):  # in [0, 1]: half as bright
        assert out[place] + 1 == pytest.approx(0.5 * (image[place] + 1), abs=1e-6)
    assert (out[0, 1, 2] == 1).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_numpy_and_jax_colour_alike(dtype):
    image = np.random.default_rng(0).uniform(-1, 1, (1, 2, 3, 3)).astype(np.float32)
    on_device = jax.jit(lambda x, mask: tint(x, mask, 3))(jnp.asarray(image), jnp.asarray(MASK.astype(dtype)))
    assert isinstance(on_device, jax.Array)
    assert np.asarray(on_device) == pytest.approx(tint(image, MASK.astype(dtype), 3), abs=1e-6)


def test_an_overlay_is_the_tint_in_bytes():
    image = np.random.default_rng(0).integers(0, 256, (2, 3, 3), np.uint8)
    out = sheet.overlay(image, MASK[0], 3)
    assert out.dtype == np.uint8
    assert out[0, 1].astype(float) == pytest.approx(0.2 * image[0, 1].mean() + 0.8 * palette(3)[1], abs=0.51)
    assert out[0, 0].astype(float) == pytest.approx(0.5 * image[0, 0], abs=0.51)
    assert (out[1, 2] == 255).all()


@pytest.mark.parametrize(("count", "columns", "rows"), [(9, None, 3), (7, None, 3), (7, 7, 1)])
def test_samples_lie_in_rows(count, columns, rows):
    page = sheet.samples(np.full((count, 8, 8, 1), -1, np.float32), None, (), columns)
    side, gap = 96, sheet.GAP  # of an image that is enlarged
    assert page.shape == (gap + rows * (side + gap), gap + (columns or 3) * (side + gap), 3)
    black = (page == 0).all(-1).sum()
    assert black == count * side * side  # the rest of the last row is blank
    named = sheet.samples(np.ones((3, 8, 8, 3), np.float32), np.array([0, 1, 1]), ("cat", "dog"))
    assert named.shape == (gap + side + 18 + gap, gap + 3 * (side + gap), 3)


def test_points_are_drawn_where_they_lie_in_a_frame_with_its_scale():
    points = np.array([[1.0, 1.0], [1.0, 1.0], [-1.0, -1.0], [np.nan, 5.0]], np.float32)
    page = sheet.samples(points, None, ())
    inside = page[1 : sheet.PLANE + 1, 1 : sheet.PLANE + 1]
    dark = inside.sum(-1) < 700
    assert dark[:30, -30:].any()  # y goes up
    assert dark[-30:, :30].any()
    assert not dark[100:-100].any()
    assert (page[0] == sheet.INK).all()
    assert (page[sheet.PLANE + 4 :] < 128).any()  # words


@pytest.mark.parametrize(("numbers", "column"), [(1, 0), (3, 2)])
def test_points_of_other_dimensions_are_drawn_by_their_first_numbers(numbers, column):
    points = np.full((4, numbers), 1.0, np.float32)
    points[:, column] = 0.5
    page = sheet.points(points)
    dark = np.argwhere(page[1 : sheet.PLANE + 1, 1 : sheet.PLANE + 1].sum(-1) < 700)
    middle = [sheet.PLANE // 2, int(sheet.PLANE * 0.99)] if numbers == 1 else [4, int(sheet.PLANE * 0.99)]
    assert np.abs(dark - middle).max() <= 3


def test_pictures_of_points_have_titles_a_frame_and_a_scale():
    cloud = jnp.array([[1.0, 0.0], [0.0, -2.0]])
    panels = previews.on_plane([cloud, 10 * cloud], ("near", "far"))
    assert np.allclose(panels.reach, [[2.04, 20.4]])
    page = sheet.draw(panels, ())
    bare = sheet.draw(panels.replace(columns=(), reach=None), ())
    assert page.shape[0] == bare.shape[0] + 20 + sheet.LINE + 2  # titles above, the scale below
    size = panels.images.shape[2]
    frame = page[sheet.GAP + 20 - 1, sheet.GAP - 1 : sheet.GAP + size + 1]
    assert (frame == sheet.INK).all()


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
def test_samples_of_any_channels_are_drawn(channels):
    images = np.zeros((1, 96, 96, channels), np.float32)
    images[..., 0] = 1.0
    page = sheet.samples(images, None, ())
    assert page[50, 50].tolist() == ([255] * 3 if channels < 3 else [255, 128, 128])


def test_alpha_is_laid_on_white_paper():
    pixels = np.array([[[200, 0, 100, 255], [200, 0, 100, 0], [200, 0, 100, 51]]], np.uint8)
    assert sheet.on_white(pixels)[0].tolist() == [[200, 0, 100], [255, 255, 255], [244, 204, 224]]
    assert sheet.on_white(np.array([[[10, 0], [10, 255]]], np.uint8))[0].tolist() == [[255], [10]]


def test_a_picture_is_saved_as_it_is_measured():
    ties = (np.arange(255, dtype=np.float32) + np.float32(0.5)) / np.float32(127.5) - 1
    values = np.concatenate([ties, np.linspace(-1.1, 1.1, 10_001, dtype=np.float32)]).reshape(1, -1, 1, 1)
    saved = sheet.to_bytes(values)
    assert np.array_equal(saved / np.float32(127.5) - 1, as_shown(values))
    every = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    assert np.array_equal(sheet.to_bytes(np.asarray(to_float(jnp.asarray(every)))), every)


def test_pixels_that_are_not_finite_are_red():
    images = np.zeros((2, 96, 96, 3), np.float32)
    images[1, :, :, 2] = np.inf
    page = sheet.samples(images, None, ())
    assert page[50, 50].tolist() == [128] * 3
    assert page[50, 50 + 102].tolist() == list(sheet.WRONG)


def test_an_oblong_image_is_not_enlarged_beyond_measure():
    assert sheet.samples(np.ones((1, 1, 1000, 1), np.float32), None, ()).shape == (13, 1012, 3)
    assert sheet.samples(np.ones((1, 8, 48, 1), np.float32), None, ()).shape == (6 + 64 + 6, 6 + 384 + 6, 3)


def test_a_sheet_shows_as_many_as_memory_allows():
    assert sheet.most(10_000, 32, 32) == sheet.SHOWN
    assert sheet.most(64, 256, 256) == 64
    assert sheet.most(64, 2048, 2048) == 11


def test_a_chart_of_no_positive_x_is_drawn_too():
    for x in ([0.1, 1.0], [0.0, 0.0]):
        curves = Curves(x=np.array(x), y=np.array([[1.0, np.nan]]), labels=("test",), axes=("x", "y"))
        assert (sheet.chart(curves) < 128).any()


@pytest.mark.parametrize("channels", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("suffix", sheet.FORMATS)
def test_a_picture_is_saved_as_its_suffix_says(channels, suffix, tmp_path):
    pixels = np.full((9, 7, channels or 1), 200, np.uint8)
    pixels[..., -1] = 255 if channels in (2, 4) else 200
    sheet.save(tmp_path / f"a{suffix}", pixels if channels else pixels[..., 0])
    with Image.open(tmp_path / f"a{suffix}") as saved:
        assert saved.format == sheet.FORMATS[suffix]
        assert saved.size == (7, 9)
        assert np.asarray(saved.convert("RGBA"))[4, 3].tolist() == [200, 200, 200, 255]


@pytest.mark.parametrize(("name", "limit"), [("a.jpg", 65_500), ("a.webp", 16_383), ("a.gif", 65_535)])
def test_a_picture_that_is_too_large_for_its_format_is_refused(name, limit, tmp_path):
    with pytest.raises(UserError, match=rf"{name}: 1×{limit + 1} pixels are more than {limit}; name it .png"):
        sheet.save(tmp_path / name, np.zeros((limit + 1, 1, 3), np.uint8))


# --- words ------------------------------------------------------------------------------------------------------------


def ink(letters: str) -> np.ndarray:
    page = Image.new("L", (60, 30), 255)
    ImageDraw.Draw(page).text((2, 2), letters, 0, text.font(letters, 14))
    return np.asarray(page)


def test_letters_beyond_ascii_are_drawn_by_a_font_that_has_them():
    dejavu = text.font("é", 14)
    assert "DejaVu" in dejavu.getname()[0]
    assert "DejaVu" not in text.font("e…", 14).getname()[0]  # plain letters stay as they are drawn everywhere
    for letter in "éñßЖΩ":
        assert text.drawable(letter)
        missing = np.asarray(ink_of(dejavu, "\uffff"))
        assert (np.asarray(ink_of(dejavu, letter)) != missing).any()
        assert (ink(letter) < 128).any()
    assert (ink("é") != ink("e")).any()


def ink_of(font, letter: str) -> Image.Image:
    page = Image.new("L", (40, 30), 255)
    ImageDraw.Draw(page).text((2, 2), letter, 0, font)
    return page


def test_names_that_no_font_has_are_written_otherwise_and_said_once(monkeypatch, capsys):
    for cached in (text.shown, text._found, text._of_system):
        cached.cache_clear()
    monkeypatch.setattr(text, "_of_system", tuple)
    assert [text.shown("猫", 4) for _ in range(3)] == ["class 4"] * 3
    assert text.shown("\ufb01sh", 1) == "\ufb01sh" or text.shown("\ufb01sh", 1) == "fish"
    assert text.shown("cafe\u0301  au\nlait", 2) == "café au lait"
    said = capsys.readouterr().err.splitlines()
    assert said == ["note: no font here has the letters of '猫'; pictures show 'class 4'"]
    for cached in (text.shown, text._found):
        cached.cache_clear()


def test_names_lose_their_accents_where_no_font_has_them(monkeypatch, capsys):
    monkeypatch.setattr(text, "_fonts", lambda: iter(()))
    for cached in (text.shown, text._found):
        cached.cache_clear()
    assert text.shown("café", 0) == "cafe"
    assert "no font here has the letters of 'café'; pictures show 'cafe'" in capsys.readouterr().err
    for cached in (text.shown, text._found):
        cached.cache_clear()


def test_a_font_of_the_system_is_found_by_its_letters(monkeypatch, tmp_path):
    text._found.cache_clear()
    broken = tmp_path / "Broken.ttf"
    broken.write_bytes(b"no font")
    monkeypatch.setattr(text, "_of_system", lambda: (broken, pathlib.Path(other)))
    other = font_manager.findfont("STIXGeneral")  # comes with matplotlib too, and has letters that DejaVu has not
    only = min(text._letters(pathlib.Path(other)) - text._letters(pathlib.Path(font_manager.findfont("DejaVu Sans"))))
    assert text.font(chr(only), 14).getname()[0] == "STIXGeneral"
    text._found.cache_clear()


def test_text_that_has_to_be_laid_out_needs_what_lays_it_out(monkeypatch):
    text._laid_out.cache_clear()
    assert text.drawable("قطة") is (features.check("raqm") and features.check("fribidi"))
    monkeypatch.setattr(text, "_laid_out", lambda: False)
    assert not text.drawable("قطة")
    assert text.drawable("кот")


def test_long_names_keep_to_their_image():
    name = "a very long name of a class that runs on"
    short = text.shortened(name, 13, 96)
    assert short.endswith("…")
    assert name.startswith(short[:-1])
    assert text.length(short, 13) <= 96 < text.length(f"{name[: len(short) + 1]}…", 13)
    assert text.shortened("cat", 13, 96) == "cat"
    # On the sheet, nothing is written right of a name's image.
    named = sheet.samples(np.ones((2, 96, 96, 3), np.float32), np.array([1, 0]), ("x" * 100, "y" * 100))
    foot = named[6 + 96 : 6 + 96 + 18]
    assert (foot[:, 6:102] < 128).any()
    assert (foot[:, 102:106] == 255).all()


@pytest.mark.parametrize(("name", "lines"), [("cat", 1), ("golden retriever", 2)])
def test_what_was_guessed_and_what_is_true_are_both_below_the_image(name, lines):
    panels = Panels(np.ones((1, 2, 96, 96, 3)), guess=np.array([[0, 1]]), truth=np.array([[1, 1]]))
    page = sheet.sheet(panels, (name, "dog"))
    assert page.shape == (6 + 96 + 2 + 16 * lines + 6, 6 + 2 * 102, 3)
    for line in range(2):
        wrong, right = (page[103 + 16 * line :][:16, at:][:, :96] for at in (6, 108))
        assert (wrong < 128).any() == (line < lines)
        assert (right < 128).any() == (line == 0)
        assert wrong.min((0, 1))[0] == 255 or wrong[..., 0].astype(int).mean() > wrong[..., 1].mean()  # red
