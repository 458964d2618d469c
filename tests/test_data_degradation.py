"""Real-ESRGAN's degradation: kernels, resizing and noise by their formulas, and how often each is drawn."""

import dataclasses
import math

import numpy as np
import pytest
from scipy import special

from jaxgen.data.degradation import FIRST, SECOND, Pass, RealDegradation, poisson_noise
from jaxgen.data.interpolation import MODES, interpolating, resized
from jaxgen.data.jpeg import through_jpeg
from jaxgen.data.kernels import KINDS, SHARES, SIDES, Kernels, bell, filtered, final_sinc, plateau, sinc
from jaxgen.errors import UserError


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def picture(height: int, width: int, channels: int = 3) -> np.ndarray:
    """A smooth picture with an edge, in 0..1."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    planes = [0.5 + 0.4 * np.sin(7 * x + 5 * y * (c + 1)) * (x > 0.3) for c in range(channels)]
    return np.stack(planes, -1).astype(np.float32)


def as_image(x: np.ndarray) -> np.ndarray:
    return np.round(255 * x).astype(np.uint8)


# --- kernels ----------------------------------------------------------------------------------------------------------


def test_kernels_are_their_formulas():
    gauss = bell(21, 1.5, 1.5, 0.0)
    away = np.arange(21) - 10
    line = np.exp(-0.5 * (away / 1.5) ** 2)
    np.testing.assert_allclose(gauss, np.outer(line, line) / line.sum() ** 2, atol=1e-12)
    np.testing.assert_allclose(bell(11, 2.0, 0.5, math.pi / 2), bell(11, 0.5, 2.0, 0.0), atol=1e-12)
    variance = (bell(21, 2.0, 0.5, 0.0).sum(0) * away**2).sum()  # the first deviation is along the columns' axis
    assert variance == pytest.approx(4.0, rel=0.01)
    np.testing.assert_allclose(bell(9, 1.0, 2.0, 0.3, beta=1.0), bell(9, 1.0, 2.0, 0.3))
    flat = plateau(7, 1.0, 1.0, 0.0, beta=1.5)
    np.testing.assert_allclose(flat[3, 5] / flat[3, 3], 1 / (1 + 4**1.5))
    ringing, cutoff = sinc(13, 2.0), 2.0
    expected = cutoff * special.j1(cutoff * 3) / (2 * math.pi * 3) / (cutoff**2 / (4 * math.pi))
    np.testing.assert_allclose(ringing[6, 9] / ringing[6, 6], expected)
    near = cutoff * special.j1(cutoff * 1e-4) / (2 * math.pi * 1e-4)
    assert near == pytest.approx(cutoff**2 / (4 * math.pi), rel=1e-6)  # the centre is the limit


def test_kernels_of_every_kind_sum_to_one_and_round_ones_are_symmetric():
    seen = set()
    for seed in range(200):
        kernel = Kernels().draw(rng(seed))
        assert kernel.sum() == pytest.approx(1)
        assert len(kernel) in SIDES
        seen.add((kernel < -1e-9).any())
    assert seen == {True, False}  # cut-offs ring, and nothing else does
    for kind, at in (("round", bell), ("plateau round", plateau)):
        assert kind in KINDS
        kernel = at(15, 1.3, 1.3, 0.0, beta=1.7)
        for other in (kernel.T, kernel[::-1], np.rot90(kernel)):
            np.testing.assert_allclose(kernel, other, atol=1e-15)
    assert sum(SHARES) == pytest.approx(1)
    assert final_sinc(rng()).sum() == pytest.approx(1)


def test_filtering_is_a_correlation_with_mirrored_borders():
    image, kernel = picture(24, 31), bell(7, 0.8, 2.0, 0.4)
    made = filtered(image, kernel)
    padded = np.pad(image, ((3, 3), (3, 3), (0, 0)), mode="reflect")
    for i, j in ((0, 0), (23, 30), (11, 5)):
        np.testing.assert_allclose(
            made[i, j], (padded[i : i + 7, j : j + 7] * kernel[..., None]).sum((0, 1)), atol=1e-5
        )
    np.testing.assert_allclose(filtered(np.full((9, 40, 1), 0.7, np.float32), sinc(9, 2.0)), 0.7, atol=1e-5)


# --- sizes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_resizing_keeps_constants_and_ramps(mode):
    for n, m in ((12, 12), (30, 11), (11, 30), (20, 5)):
        matrix = interpolating(n, m, mode)
        np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-6)
        if n == m:
            np.testing.assert_allclose(matrix, np.eye(n), atol=1e-6)
        if mode == "bilinear":
            inside = (centre := (np.arange(m) + 0.5) * n / m - 0.5, (centre >= 1) & (centre < n - 2))[1]
            np.testing.assert_allclose((matrix @ np.arange(n))[inside], centre[inside], atol=1e-4)
    x = picture(12, 18)
    np.testing.assert_allclose(resized(x, (4, 6), "area"), x.reshape(4, 3, 6, 3, 3).mean((1, 3)), atol=1e-6)
    # Half-way between pixels of 0, 0, 1, 1 stands a half; a cubic with a = -3/4 is -3/32, 19/32, 19/32, -3/32 there.
    np.testing.assert_allclose(interpolating(4, 2, "bicubic")[0], [0.5, 19 / 32, -3 / 32, 0], atol=1e-6)


# --- noise ------------------------------------------------------------------------------------------------------------


def test_poissons_noise_has_the_variance_that_the_number_of_levels_says():
    levels = np.repeat(np.linspace(0.2, 0.8, 5), 40_000).reshape(200, 1000, 1).astype(np.float32)
    levels = as_image(levels) / 255  # five levels: v = 8
    noise = poisson_noise(rng(), levels.astype(np.float32))
    for level in np.unique(levels):
        assert noise[levels == level].var() == pytest.approx(level / 8, rel=0.05)
        assert abs(noise[levels == level].mean()) < 4 * math.sqrt(level / 8 / 40_000)


def test_jpeg_of_little_loss_loses_little_and_grey_stays_grey():
    x = as_image(picture(32, 40)).astype(float)
    lost = {q: np.abs(through_jpeg(x.astype(np.uint8), q) - x).mean() for q in (95, 5)}
    assert 3 * lost[95] < lost[5]
    assert through_jpeg(x[..., :1].astype(np.uint8), 50).shape == (32, 40, 1)


# --- the whole --------------------------------------------------------------------------------------------------------


def test_each_kind_is_drawn_as_often_as_it_should():
    """Of 2,000 drawings each share lies within four standard errors."""
    n, draw = 2000, rng(1)
    image = np.full((8, 8, 3), 0.5, np.float32)
    sizes, greys, rings = [], 0, 0
    for _ in range(n):
        sizes.append(FIRST.resize(draw, image, (100, 100)).shape[0])
        noise = dataclasses.replace(FIRST, gaussian=1.0).noise(draw, image) - image
        greys += np.ptp(noise, axis=-1).max() < 1e-6
        rings += (Kernels().draw(draw) < -1e-9).any()
    sides = np.array(sizes)
    found = {"larger": (sides > 100).mean(), "smaller": (sides < 100).mean(), "grey": greys / n, "rings": rings / n}
    for name, share in (("larger", 0.2), ("smaller", 0.7), ("grey", 0.4), ("rings", 0.1)):
        # A factor in 1..1.01 leaves 100 as it is: a fiftieth of those that become larger.
        slack = 0.2 * 0.02 if name == "larger" else 0
        assert abs(found[name] - share) < 4 * math.sqrt(share * (1 - share) / n) + slack, name
    assert sides.min() >= 15
    assert sides.max() <= 150


@pytest.mark.parametrize(("size", "channels"), [(None, 3), (32, 3), (32, 1)])
def test_pairs_are_of_the_right_sizes_and_functions_of_the_seed(size, channels):
    transform = RealDegradation(factor=4, size=size)
    example = {"image": as_image(picture(64, 48, channels)), "label": 3}
    made = [transform(rng(5), example) for _ in range(2)]
    np.testing.assert_array_equal(made[0]["image"], made[1]["image"])
    other = transform(rng(6), example)
    assert (other["image"] != made[0]["image"]).any()
    height, width = (size, size) if size else (64, 48)
    for one in (*made, other):
        assert one["image"].dtype == np.uint8
        assert one["image"].shape == (height // 4, width // 4, channels)
        assert one["target"].shape == (height, width, channels)
        assert one["label"] == 3


def test_what_is_kept_of_image_and_target_is_the_same_place():
    """With nothing done but shrinking, the image is the target's own shrinking."""
    idle = Pass(blurred=0.0, enlarged=0.0, shrunk=0.0, sigma=(0.0, 0.0), gaussian=1.0, quality=(100.0, 100.0))
    transform = RealDegradation(factor=2, first=idle, second=idle, sinc=0.0, size=24)
    whole = as_image(picture(64, 64, 1))
    for seed in range(5):
        made = transform(rng(seed), {"image": whole})
        near = made["target"].reshape(12, 2, 12, 2, 1).mean((1, 3))
        assert np.abs(near - made["image"]).mean() < 4


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: RealDegradation(size=30), "multiple of the factor, 4"),
        (lambda: RealDegradation(sinc=1.5), "a share"),
        (lambda: Pass(enlarged=0.5, shrunk=0.6), "leaves of 1"),
        (lambda: Pass(scale=(1.1, 1.5)), "with 1 in it"),
        (lambda: Pass(quality=(0.0, 50.0)), r"1\.\.100"),
        (lambda: Kernels(sigma=(0.0, 1.0)), "above 0"),
        (lambda: Kernels(beta=(2.0, 3.0)), "with 1 in it"),
        (lambda: RealDegradation()(rng(), {"image": np.zeros((10, 8, 3), np.uint8)}), "10x8 does not divide by 4"),
        (lambda: RealDegradation()(rng(), {"image": np.zeros((8, 8, 4), np.uint8)}), "4 channels"),
        (lambda: RealDegradation(size=16)(rng(), {"image": np.zeros((8, 8, 3), np.uint8)}), "no square of 16"),
    ],
)
def test_what_cannot_be_is_refused(make, words):
    with pytest.raises(UserError, match=words):
        make()


def test_the_second_pass_is_the_milder_one():
    assert SECOND.blurred == 0.8
    assert SECOND.kernels.sigma == (0.2, 1.5)
    assert (SECOND.enlarged, SECOND.shrunk, SECOND.scale) == (0.3, 0.4, (0.3, 1.2))
