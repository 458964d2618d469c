"""Diffusion between pairs: the processes against closed forms, what the net is shown, and Palette's damage."""

import dataclasses
import io

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
from PIL import Image

from jaxgen.data.palette import CompressJpeg, EraseBox, OneOf, ToGrey
from jaxgen.diffusion.bridge import Bridge
from jaxgen.diffusion.paired import FromNoise, Process
from jaxgen.diffusion.sampling import Sampling
from jaxgen.diffusion.sampling_schedules import Given, Rho
from jaxgen.diffusion.solvers import Euler
from jaxgen.diffusion.stochastic import Ddim
from jaxgen.errors import UserError
from jaxgen.learner import Learner
from jaxgen.models.songunet import SongUNet
from jaxgen.objectives.paired_diffusion import PairedDiffusion

# Data of which everything is known: x1 is what it is, and x0 given x1 is normal with this mean and deviation.
GAIN, SHIFT, STD = 0.6, 0.2, 0.5


def betas(steps: int, beta_max: float) -> np.ndarray:
    """Return the published table: a root that rises linearly, its first half and then that half reversed."""
    rising = np.linspace(1e-2, np.sqrt(beta_max / steps), steps) ** 2
    return np.concatenate([rising[: steps // 2], rising[: steps // 2][::-1]])


@pytest.mark.parametrize("beta_max", [0.3, 1.0])
def test_the_bridge_has_the_variance_of_the_published_table(beta_max):
    published = np.cumsum(betas(1000, beta_max))
    t = (np.arange(1000) + 1) / 1000
    np.testing.assert_allclose(Bridge(beta_max=beta_max).variance(jnp.asarray(t)), published, rtol=2e-3, atol=1e-5)


def test_what_the_net_is_to_predict_leads_back_to_x0():
    bridge = Bridge()
    x0, x1, eps = (jax.random.normal(jax.random.key(k), (4, 5)) for k in range(3))
    t = jnp.asarray([0.01, 0.3, 0.7, 1.0])
    variance, whole = bridge.variance(t), bridge.variance(jnp.float32(1))
    share = (variance / whole)[:, None]
    x = (1 - share) * x0 + share * x1 + jnp.sqrt(share * (1 - share) * whole) * eps

    def net(z: jax.Array, level: jax.Array) -> tuple[jax.Array, None]:
        np.testing.assert_allclose(z, x, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(level, 1000 * t)
        return (z - x0) / jnp.sqrt(variance)[:, None], None

    assert bridge.error(net, x0, x1, eps, t)[0].max() < 1e-9


def exact_bridge(bridge: Bridge, x1: jax.Array):
    """Return the net that predicts from E[x0 | x, x1]: x0 has a prior given x1, and x is x0 measured with noise."""
    prior = GAIN * x1 + SHIFT

    def net(x: jax.Array, level: jax.Array) -> jax.Array:
        t = level / bridge.time_scale
        variance, whole = bridge.variance(t)[:, None], bridge.variance(jnp.float32(1))
        share = variance / whole
        precision = jnp.where(share < 1, (1 - share) / (share * bridge.noise**2 * whole), 0.0)
        seen = (x - share * x1) / jnp.where(share < 1, 1 - share, 1.0)
        mean = (prior / STD**2 + precision * seen) / (1 / STD**2 + precision)
        return (x - mean) / jnp.sqrt(variance)

    return net


def exact_denoiser(x1: jax.Array):
    """Return the net that is EDM's preconditioning of E[x0 | x, x1]."""

    def net(z: jax.Array, level: jax.Array) -> jax.Array:
        sigma, data = jnp.exp(4 * level)[:, None], 0.5
        root = jnp.hypot(sigma, data)
        x = z * root
        mean = ((GAIN * x1 + SHIFT) / STD**2 + x / sigma**2) / (1 / STD**2 + 1 / sigma**2)
        return (mean - data**2 / root**2 * x) * root / (sigma * data)

    return net


BRIDGES = Bridge(beta_max=1.0, steps=400)
NOISE = FromNoise(sampling=Sampling(solver=Ddim(eta=1.0), schedule=Rho(steps=400)))


@pytest.mark.parametrize("process", [BRIDGES, NOISE], ids=["bridge", "from noise"])
def test_samples_are_those_of_the_posterior(process: Process):
    x1 = jnp.repeat(jnp.linspace(-1, 1, 5), 4000)[:, None]  # 4,000 samples have a mean within 0.03, four deviations
    net = exact_bridge(process, x1) if isinstance(process, Bridge) else exact_denoiser(x1)
    samples = process.sample(net, x1, jax.random.split(jax.random.key(0), len(x1)))
    found = np.asarray(samples).reshape(5, 4000)
    np.testing.assert_allclose(found.mean(1), GAIN * np.linspace(-1, 1, 5) + SHIFT, atol=0.03)
    assert found.var(1).mean() / STD**2 == pytest.approx(1.0, abs=0.05)


def test_a_bridge_without_noise_comes_to_the_mean():
    quiet = Bridge(noise=0.0, steps=3)
    x1 = jnp.asarray([[-1.0], [0.5]])

    def net(x: jax.Array, level: jax.Array) -> jax.Array:
        variance = quiet.variance(level / quiet.time_scale)[:, None]
        return (x - (GAIN * x1 + SHIFT)) / jnp.sqrt(variance)

    np.testing.assert_allclose(
        quiet.sample(net, x1, jax.random.split(jax.random.key(0), 2)), GAIN * x1 + SHIFT, atol=1e-6
    )


class Echo(nn.Module):
    """Returns the last channels of what it sees, times a weight that starts at 1."""

    classes: int = 0

    @nn.compact
    def __call__(self, x, noise, condition, *, train: bool):
        return x[..., x.shape[-1] // 2 :] * self.param("by", nn.initializers.ones, ())


def test_the_net_sees_the_damaged_image_unscaled():
    once = FromNoise(sampling=Sampling(solver=Euler(), schedule=Given(levels=(20.0, 0.0))))
    made = PairedDiffusion(net=dataclasses.replace(objective().net, module=Echo()), process=once)
    image = jax.random.uniform(jax.random.key(1), (3, 8, 8, 3), minval=-0.5, maxval=0.5)
    shape = jax.ShapeDtypeStruct((3, 8, 8, 3), np.uint8)
    state = made.init(jax.random.key(0), {"image": shape, "target": shape})
    found = made.forward(state, image)
    np.testing.assert_array_equal(found, made.forward(state, image))
    # EDM's estimate: c_skip x + c_out F, and F is the image.
    noise = (found - 20 * 0.5 / np.hypot(20, 0.5) * image) * (20**2 + 0.5**2) / (0.5**2 * 20)
    assert float(noise.std()) == pytest.approx(1.0, abs=0.1)
    assert abs(np.corrcoef(np.asarray(noise).ravel(), np.asarray(image).ravel())[0, 1]) < 0.1


def objective() -> PairedDiffusion:
    made = small.paired_diffusion().objective
    assert isinstance(made, PairedDiffusion)
    return made


def spec(image: int, target: int) -> dict[str, jax.ShapeDtypeStruct]:
    sides = {"image": image, "target": target}
    return {name: jax.ShapeDtypeStruct((8, side, side, 3), np.uint8) for name, side in sides.items()}


def unet(**fields) -> Learner:
    module = SongUNet(model_channels=8, multipliers=(1, 1), blocks=1, attention=(), **fields)
    return dataclasses.replace(objective().net, module=module)


@pytest.mark.parametrize(
    ("change", "data", "words"),
    [
        ({}, {"image": spec(8, 8)["image"]}, "the data has image without a `target`"),
        ({"net": unet()}, spec(8, 8), "returns 6 channels, and the target has 3: set .*channels to 3"),
        ({"net": unet(channels=3, classes=2)}, spec(8, 8), "asks its net for no class"),
        ({"net": unet(channels=3), "factor": 3}, spec(8, 8), "a factor of 3 does not divide targets of 8×8×3"),
        ({"net": unet(channels=3), "scale": 2}, spec(8, 8), "of images of 8×8×3 the net makes images of 16×16×3"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(change, data, words):
    with pytest.raises(UserError, match=words):
        dataclasses.replace(objective(), **change).check(data, ())


@pytest.mark.parametrize("fields", [{"beta_min": 0.0}, {"beta_max": 0.05}, {"steps": 0}, {"noise": -1.0}])
def test_bridges_that_are_none_are_refused(fields):
    with pytest.raises(UserError, match=next(iter(fields))):
        Bridge(**fields)


def test_pictures_of_any_size_come_back():
    net = dataclasses.replace(objective().net, module=Echo())
    made = dataclasses.replace(objective(), net=net, factor=2, scale=2, process=Bridge(steps=2))
    state = made.init(jax.random.key(0), spec(8, 16))
    image = np.zeros((1, 5, 7, 3), np.float32)
    found = made.predict(lambda x: made.forward(state, jnp.asarray(x)), image).pixels
    assert found.shape == (1, 10, 14, 3)
    assert np.isfinite(found).all()


def picture(channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (24, 32, channels), np.uint8)


def test_the_damage_of_palette_is_what_it_says():
    image = picture()
    grey = ToGrey()(np.random.default_rng(0), {"image": image})
    np.testing.assert_array_equal(grey["target"], image)
    luma = image @ np.array([0.299, 0.587, 0.114])
    assert np.abs(grey["image"] - luma[:, :, None]).max() <= 1

    torn = EraseBox(sides=(0.5, 0.5))(np.random.default_rng(0), {"image": image})["image"]
    hole = (torn == 127).all(2)
    assert hole.sum() == 12 * 16
    np.testing.assert_array_equal(torn[~hole], image[~hole])

    for channels in (1, 3):
        rough = CompressJpeg(quality=(20, 20))(np.random.default_rng(0), {"image": picture(channels)})["image"]
        file = io.BytesIO()
        Image.fromarray(picture(channels).squeeze()).save(file, "JPEG", quality=20)
        np.testing.assert_array_equal(rough.squeeze(), np.asarray(Image.open(file)))

    ways = OneOf((ToGrey(), EraseBox()))
    drawn = [ways(np.random.default_rng(k), {"image": image})["image"] for k in range(40)]
    greys = sum(bool((x[..., 0] == x[..., 1]).all()) for x in drawn)
    assert 10 < greys < 30


@pytest.mark.parametrize(
    ("damage", "words"), [(ToGrey(), "ToGrey takes colours away"), (CompressJpeg(), "a JPEG has one channel or three")]
)
def test_pictures_that_cannot_be_damaged_are_refused(damage, words):
    with pytest.raises(UserError, match=words):
        damage(np.random.default_rng(0), {"image": picture(2)})
