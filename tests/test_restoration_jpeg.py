"""JPEG as linear damage and as a differentiable round trip, held against Pillow's files."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, JpegImagePlugin
from skimage import data

from jaxgen.errors import UserError
from jaxgen.restoration.damage import Damage, quantised
from jaxgen.restoration.jpeg import Jpeg
from jaxgen.restoration.methods import Ddnm, Tweedie
from jaxgen.restoration.operators import matrix_of

CAT = data.chelsea()[50:114, 100:164]
STEP = 12**0.5  # of a coefficient, in units of its deviation
qualities = pytest.mark.parametrize("quality", [10, 30, 75, 95])


def saved(picture: np.ndarray, quality: int, subsampling: str) -> JpegImagePlugin.JpegImageFile:
    """The picture u8[h w c] as Pillow writes and reads it."""
    file = io.BytesIO()
    if picture.shape[2] == 1:
        Image.fromarray(picture[..., 0]).save(file, "JPEG", quality=quality)
    else:
        Image.fromarray(picture).save(file, "JPEG", quality=quality, subsampling=subsampling)
    image = Image.open(file)
    assert isinstance(image, JpegImagePlugin.JpegImageFile)
    return image


def unit(picture: np.ndarray) -> jax.Array:
    return jnp.asarray(picture[None] / 127.5 - 1, jnp.float32)


def decoded(image: Image.Image, channels: int) -> np.ndarray:
    return np.asarray(image).reshape(*image.size[::-1], channels)


@qualities
def test_tables_are_those_of_pillow(quality):
    image = saved(CAT, quality, "4:2:0")
    ours = Jpeg.of_quality(quality, 3, (64, 64))
    assert ours.subsampling == {0: "4:4:4", 2: "4:2:0"}[JpegImagePlugin.get_sampling(image)]
    for table, steps in zip((ours.luma, ours.chroma), image.quantization.values(), strict=True):
        np.testing.assert_array_equal(table.ravel(), steps)
    assert Jpeg.of_quality(quality, 1, (64, 64)).chroma is None


@pytest.mark.parametrize("size", [(8, 16), (13, 21)])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
@pytest.mark.parametrize("channels", [1, 3])
def test_it_is_an_operator(channels, subsampling, size):
    operator = Jpeg.of_quality(50, channels, size, subsampling)
    x = jax.random.normal(jax.random.key(0), (2, *size, channels))
    there = operator.forward(x)
    assert there.shape[1:] == operator.measures(x.shape[1:])
    y = jax.random.normal(jax.random.key(1), there.shape)
    np.testing.assert_allclose((there * y).sum(), (x * operator.adjoint(y)).sum(), rtol=1e-4)
    if size == (8, 16) and subsampling == "4:4:4":  # whole blocks: orthonormal but for the steps, and JFIF's colours
        assert np.linalg.matrix_rank(matrix_of(operator, x.shape[1:])) == x[0].size
        coefficients = np.asarray(operator.forward(jnp.ones_like(x)))
        assert np.abs(coefficients[0]).max() == pytest.approx(8 * STEP * 127.5 / 16, rel=1e-4)


@qualities
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
def test_what_is_measured_of_a_decoded_file_lies_on_the_grid(subsampling, quality):
    """Pixels of 8 bits, and clipping, move coefficients by about a third of a level."""
    operator = Jpeg.of_quality(quality, 3, (64, 64), subsampling)
    # The file's grid is about level 128, half a level above 0 in [-1, 1].
    y = np.asarray(operator.measured(unit(decoded(saved(CAT, quality, subsampling), 3)) - 1 / 255))[0]
    steps = np.concatenate([np.tile(operator.luma, (8, 8)).ravel()] + [
        np.tile(operator.chroma, (side, side)).ravel() for side in [8 if subsampling == "4:4:4" else 4] * 2
    ])  # fmt: skip
    off = np.abs(y / STEP - np.round(y / STEP)) * steps
    assert np.sqrt(np.square(off).mean()) < (0.8 if subsampling == "4:4:4" else 1.0)  # levels
    # And the picture that was encoded is as far from there as rounding takes it.
    away = np.asarray(operator.forward(unit(CAT) - 1 / 255))[0] - y
    assert np.abs(away).max() < STEP / 2 + STEP * 3 / steps.min()
    assert 0.1 < np.sqrt(np.square(away).mean()) < 1.3


@pytest.mark.parametrize("quality", [10, 30, 75])
def test_the_round_trip_is_that_of_a_file(quality):
    """But where a coefficient is so near the middle between two steps that libjpeg's whole numbers go the other way."""
    grey = CAT[..., 1:2]
    operator = Jpeg.of_quality(quality, 1, (64, 64))
    made = (np.asarray(operator.encoded(unit(grey)))[0] + 1) * 127.5
    there = decoded(saved(grey, quality, "4:4:4"), 1)
    share = np.asarray(operator.forward(unit(grey) - 1 / 255)).reshape(64, 64) / STEP
    steps = np.tile(operator.luma, (8, 8))
    unsure = (np.abs(share % 1 - 0.5) * steps < 0.3).reshape(8, 8, 8, 8).any((1, 3))
    off = np.abs(np.round(made) - there)[..., 0].reshape(8, 8, 8, 8).max((1, 3))
    assert (~unsure).sum() >= 3
    assert off[~unsure].max() <= 1
    assert np.abs(made - there).mean() < 1


@pytest.mark.parametrize("size", [(64, 64), (37, 51)])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
def test_the_round_trip_of_colours_is_that_of_a_file(subsampling, size):
    picture = CAT[: size[0], : size[1]]
    for quality in (30, 75):
        made = Jpeg.of_quality(quality, 3, size, subsampling).encoded(unit(picture))
        there = decoded(saved(picture, quality, subsampling), 3).astype(float)
        lost = np.square(picture - there).mean()
        assert np.square((np.asarray(made)[0] + 1) * 127.5 - there).mean() < 0.05 * lost


def test_the_round_trip_is_a_projection_with_gradients():
    x = 0.5 * unit(CAT)  # where nothing is clipped
    coarse = Jpeg.of_quality(30, 1, (64, 64))
    once = coarse.encoded(x[..., :1])
    np.testing.assert_allclose(coarse.encoded(once), once, atol=1e-5)
    assert np.abs(coarse.encoded(x[..., :1]) - x[..., :1]).max() > 0.05
    fine = Jpeg.of_quality(100, 3, (64, 64), "4:4:4")
    assert np.sqrt(np.square(fine.encoded(x) - x).mean()) < 0.9 * 2 / 255
    # Rounding lets gradients pass, and what is left is an orthonormal transform there and back.
    moved = jax.jvp(lambda x: coarse.encoded(x), (x[..., :1],), (jnp.ones_like(x[..., :1]),))[1]
    np.testing.assert_allclose(moved, 1.0, atol=1e-4)


def test_few_levels_are_noise_of_a_step_over_the_root_of_twelve():
    damage = quantised(5)
    x = jax.random.uniform(jax.random.key(0), (1, 10_000), minval=-1, maxval=1)
    y = jnp.round((x + 1) * 2) / 2 - 1
    np.testing.assert_allclose(damage.mismatch(x, y)[0], damage.noise, rtol=0.02)
    with pytest.raises(UserError, match="2 or more"):
        quantised(1)


def test_what_jpeg_cannot_be_is_said():
    with pytest.raises(UserError, match=r"quality is 0"):
        Jpeg.of_quality(0, 3, (8, 8))
    with pytest.raises(UserError, match="1 or 3 channels, not of 4"):
        Jpeg.of_quality(50, 4, (8, 8))
    with pytest.raises(UserError, match=r"8×8×3, and the picture is 8×8×1"):
        Jpeg.of_quality(50, 3, (8, 8)).measures((8, 8, 1))
    damage = Damage(operator=Jpeg.of_quality(50, 1, (8, 8)), noise=1.0)
    Tweedie().check(damage)
    with pytest.raises(UserError, match="pseudo-inverse"):
        Ddnm().check(damage)
