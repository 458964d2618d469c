"""Zero-shot restoration, on data whose exact posterior is known: operators, methods, calibration."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import diffusion, gan, text_to_image

from jaxgen.data.batches import DataSpec
from jaxgen.diffusion.adaptive import Adaptive
from jaxgen.diffusion.apg import Apg
from jaxgen.diffusion.editing import edit
from jaxgen.diffusion.flow import FlowHeun
from jaxgen.diffusion.gaussian import GaussianMixture
from jaxgen.diffusion.guidance import ClassifierFree, Unguided, guide
from jaxgen.diffusion.multistep import Dpm2MSde
from jaxgen.diffusion.path import Edm, Flow
from jaxgen.diffusion.sampling import Sampling
from jaxgen.diffusion.sampling_schedules import Rho, UniformTime
from jaxgen.diffusion.solvers import Heun
from jaxgen.errors import UserError
from jaxgen.program import Program
from jaxgen.restoration.damage import Damage, old_photograph
from jaxgen.restoration.gaussian import Gaussian, mixture_posterior
from jaxgen.restoration.guidance import Restoring
from jaxgen.restoration.jpeg import Jpeg
from jaxgen.restoration.methods import Ddnm, DiffPir, PiGdm, Tweedie
from jaxgen.restoration.motion import Motion
from jaxgen.restoration.operators import Composed, Dense, Grey, Invertible, Mask, Scale, count, matrix_of
from jaxgen.restoration.separable import AverageDown, BicubicDown, Blur
from jaxgen.restoring import restorer

# --- operators --------------------------------------------------------------------------------------------------------

PICTURE = (8, 12, 3)
HOLES = np.ones((1, *PICTURE), np.float32)
HOLES[:, 2:5, 3:9] = 0
OPERATORS = {
    "mask": Mask(keep=HOLES),
    "average": AverageDown(factor=2),
    "bicubic": BicubicDown(factor=4),
    "blur": Blur(sigma=0.8),
    "blur, mirrored": Blur(sigma=0.6, border="mirror"),
    "motion, mirrored": Motion(length=5.0, angle=30.0, border="mirror"),
    "jpeg": Jpeg.of_quality(30, 3, PICTURE[:2]),
    "grey": Grey(),
    "fading": Scale(by=0.6),
    "blur, half, grey": Composed(parts=(Blur(sigma=0.7), AverageDown(factor=2), Grey())),
    "old": old_photograph(jnp.asarray(HOLES), gain=0.6, lift=0.2, blur=0.7).operator,
}


@pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)
def test_an_operator_has_an_adjoint_and_a_pseudo_inverse(operator):
    x = jax.random.normal(jax.random.key(0), (2, *PICTURE))
    there = operator.forward(x)
    assert there.shape[1:] == operator.measures(PICTURE)
    y = jax.random.normal(jax.random.key(1), there.shape)
    np.testing.assert_allclose((there * y).sum(), (x * operator.adjoint(y)).sum(), rtol=1e-4)
    np.testing.assert_allclose(operator.seen(there), there)
    if isinstance(operator, Invertible):
        np.testing.assert_allclose(operator.forward(operator.pseudo_inverse(there)), there, atol=2e-4)
    else:
        with pytest.raises(UserError, match="pseudo-inverse"):
            Ddnm().check(Damage(operator=operator))


def test_operators_are_what_their_names_say():
    x = jax.random.normal(jax.random.key(0), (1, 32, 32, 1))
    np.testing.assert_allclose(AverageDown(factor=2).forward(x), x.reshape(1, 16, 2, 16, 2, 1).mean((2, 4)), atol=1e-6)
    # JAX's bicubic differs near the border, where it has no pixels to mirror.
    small = jax.image.resize(x, (1, 16, 16, 1), "cubic")
    np.testing.assert_allclose(BicubicDown(factor=2).forward(x)[:, 2:-2, 2:-2], small[:, 2:-2, 2:-2], atol=1e-5)
    for operator in (BicubicDown(factor=2), Blur(sigma=3.0)):
        np.testing.assert_allclose(operator.forward(jnp.ones_like(x)), 1.0, atol=1e-5)
    # Two blurs after each other are one whose variances are added; what leaves to the left comes in from the right.
    np.testing.assert_allclose(
        Blur(sigma=3.0).forward(Blur(sigma=4.0).forward(x)), Blur(sigma=5.0).forward(x), atol=1e-4
    )
    moved = jnp.roll(Blur(sigma=2.0).forward(x), 5, axis=2)
    np.testing.assert_allclose(Blur(sigma=2.0).forward(jnp.roll(x, 5, axis=2)), moved, atol=1e-5)
    assert count(OPERATORS["mask"], PICTURE) == int(HOLES.sum())
    assert matrix_of(AverageDown(factor=2), (4, 4, 1)).sum(1).tolist() == [1] * 4


def test_fading_is_in_the_units_of_0_to_1():
    damage = old_photograph(jnp.asarray(HOLES), gain=0.6, lift=0.3, noise=0.01)
    u = jax.random.uniform(jax.random.key(0), (1, *PICTURE))
    y = damage.apply(2 * u - 1, jax.random.split(jax.random.key(1), 1))
    np.testing.assert_allclose(np.where(HOLES > 0, (y + 1) / 2 - (0.6 * u + 0.3), 0).std(), 0.01, rtol=0.2)
    np.testing.assert_allclose(damage.mismatch(2 * u - 1, y), damage.noise, rtol=0.2)


@pytest.mark.parametrize(
    ("operator", "shape", "says"),
    [
        (Mask(keep=HOLES), (8, 8, 3), "mask is 8×12×3"),
        (AverageDown(factor=3), PICTURE, "factor of 3 does not divide a side of 8"),
        (BicubicDown(factor=1), PICTURE, "factor of 1"),
        (Blur(sigma=0.0), PICTURE, "above 0"),
        (Blur(sigma=9.0), PICTURE, "leaves nothing"),
        (Grey(), (8, 8, 1), "three colours"),
        (Blur(sigma=1.0), (4,), "acts on pictures"),
        (Dense(matrix=np.eye(3)), (4,), "vectors of 3"),
    ],
)
def test_an_operator_says_what_it_cannot_damage(operator, shape, says):
    with pytest.raises(UserError, match=says):
        operator.measures(shape)


# --- posteriors -------------------------------------------------------------------------------------------------------

TURN = np.linalg.qr(np.random.RandomState(0).standard_normal((4, 4)))[0]
MEAN = np.array([0.3, -0.2, 0.1, 0.0])
ROUND = Gaussian(MEAN, np.eye(4))
THIN = Gaussian(MEAN, TURN @ np.diag([2.0, 0.7, 0.2, 0.05]) @ TURN.T)
A = np.array([[1.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.5, 0.5]])
Y = A @ np.array([0.8, -0.5, 0.6, 0.2])
ODE = Sampling(solver=Heun(), schedule=Rho(steps=50))
N = 10_000
EDM = Edm()


def damage_of(matrix: np.ndarray, noise: float) -> Damage:
    return Damage(operator=Dense(matrix=jnp.asarray(matrix, jnp.float32)), noise=noise)


def drawn(data, method, damage: Damage, measured: np.ndarray, n: int, how: Sampling = ODE, path=EDM) -> np.ndarray:
    held = Restoring(damage=damage, measured=jnp.asarray(measured, jnp.float32), method=method, inner=how.guidance)
    how = dataclasses.replace(how, guidance=held)
    noise, keys = jax.random.normal(jax.random.key(0), (n, len(MEAN))), jax.random.split(jax.random.key(1), n)
    net = lambda x, sigma, condition: data.denoise(x, sigma)  # noqa: E731
    return np.asarray(jax.jit(lambda z: how.run(net, path, z, keys, condition={})[0])(noise), np.float64)


def off(data: Gaussian, method, noise: float) -> tuple[float, float]:
    """Return how far the samples' mean is from the posterior's, in its deviations, and the ratio of the variances."""
    samples = drawn(data, method, damage_of(A, noise), Y[None], N)
    means, covariance = data.posterior(A, Y[None], noise)
    total = np.trace(covariance)
    return float(np.linalg.norm(samples.mean(0) - means[0]) / math.sqrt(total)), np.trace(np.cov(samples.T)) / total


@pytest.mark.parametrize(
    ("data", "method", "noise"),
    [
        pytest.param(ROUND, Tweedie(iterations=2), 0.5, marks=pytest.mark.slow),
        (THIN, Tweedie(iterations=2), 0.05),
        pytest.param(THIN, Tweedie(iterations=2), 0.5, marks=pytest.mark.by_hand),
        pytest.param(ROUND, PiGdm(), 0.5, marks=pytest.mark.slow),
        (ROUND, DiffPir(), 0.05),
        (ROUND, Ddnm(), 0.01),
    ],
)
def test_where_a_method_is_exact_it_draws_from_the_posterior(data, method, noise):
    mean, variance = off(data, method, noise)
    assert mean < 0.02
    assert variance == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    ("data", "method", "noise"),
    [
        (THIN, PiGdm(), 0.05),
        pytest.param(THIN, DiffPir(), 0.05, marks=pytest.mark.by_hand),
        pytest.param(THIN, Ddnm(), 0.05, marks=pytest.mark.slow),
        (ROUND, Ddnm(), 0.5),
    ],
)
def test_where_a_method_is_not_exact_the_same_test_sees_it(data, method, noise):
    mean, variance = off(data, method, noise)
    assert mean > 0.03
    assert abs(variance - 1) > 0.05


def test_ranks_are_uniform_and_a_sample_has_twice_the_error_of_the_mean():
    """Simulation-based calibration: data, measurements of them, and samples given these."""
    many, k, noise = 2000, 9, 0.3
    truth = np.asarray(THIN.sample(jax.random.key(3), many), np.float64)
    y = truth @ A.T + noise * np.random.RandomState(4).standard_normal((many, 2))
    samples = drawn(THIN, Tweedie(iterations=2), damage_of(A, noise), np.repeat(y, k, 0), many * k)
    samples = samples.reshape(many, k, 4)
    for scalar in (lambda x: x[..., 0], lambda x: x[..., 3], lambda x: np.square(x).sum(-1)):
        ranks = (scalar(samples) < scalar(truth)[:, None]).sum(1)
        counts = np.bincount(ranks, minlength=k + 1)
        assert np.square(counts - many / (k + 1)).sum() / (many / (k + 1)) < 27.9  # a thousandth of chi²(9)
    best = np.trace(THIN.posterior(A, y, noise)[1])
    error = lambda x: np.square(x - truth).sum(1).mean() / best  # noqa: E731
    assert error(samples[:, 0]) == pytest.approx(2, rel=0.06)
    assert error(samples.mean(1)) == pytest.approx(1 + 1 / k, rel=0.06)


MODES = GaussianMixture(means=((-1.0, 0.0), (0.8, 0.9), (0.9, -0.9)), stds=(0.35, 0.3, 0.4), weights=(1.0, 2.0, 1.0))


def test_a_noisy_picture_in_the_middle_of_the_schedule_is_exact_for_a_mixture():
    noise, y, n = 0.8, np.array([0.3, 0.1]), 8000
    weights, parts = mixture_posterior(MODES, np.eye(2), y, noise)
    how = Sampling(solver=Dpm2MSde(), schedule=Rho(steps=60))
    net = lambda x, sigma, condition: MODES.denoise(x, sigma)  # noqa: E731
    start = jnp.broadcast_to(jnp.asarray(y, jnp.float32), (n, 2))
    keys = jax.random.split(jax.random.key(1), n)
    made = jax.jit(
        lambda x: edit(how, net, Edm(), x, jnp.zeros_like(x), keys, sigma=noise, condition={})
    )(start)  # fmt: skip
    mean = sum(w * m for w, (m, _) in zip(weights, parts, strict=True))
    np.testing.assert_allclose(made.mean(0), mean, atol=0.02)
    np.testing.assert_allclose(np.asarray(MODES.denoise(start[:1], jnp.float32(noise)))[0], mean, atol=1e-5)
    spread = sum(w * (np.trace(c) + m @ m) for w, (m, c) in zip(weights, parts, strict=True)) - mean @ mean
    np.testing.assert_allclose(np.trace(np.cov(np.asarray(made).T)), spread, rtol=0.05)


# --- identities -------------------------------------------------------------------------------------------------------

METHODS = (Tweedie(iterations=4), PiGdm(), DiffPir(), Ddnm())
methods = pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
FEW = Sampling(solver=Heun(), schedule=Rho(steps=12))


@functools.cache
def plain() -> np.ndarray:
    noise, keys = jax.random.normal(jax.random.key(0), (6, 4)), jax.random.split(jax.random.key(1), 6)
    net = lambda x, sigma, condition: THIN.denoise(x, sigma)  # noqa: E731
    return np.asarray(jax.jit(lambda z: FEW.run(net, Edm(), z, keys, condition={})[0])(noise))


@methods
def test_nothing_measured_leaves_plain_samples_bit_for_bit(method):
    nothing = Damage(operator=Mask(keep=jnp.zeros((1, 4))), noise=0.1)
    unknown = Damage(operator=Mask(keep=jnp.ones((1, 4))), noise=math.inf)
    for damage in (nothing, unknown):
        np.testing.assert_array_equal(drawn(THIN, method, damage, np.ones((1, 4)), 6, FEW), plain())


@methods
def test_all_measured_without_noise_is_returned(method):
    y = np.array([[0.8, -0.5, 0.6, 0.2]])
    whole = Damage(operator=Mask(keep=jnp.ones((1, 4))))
    tolerance = 0.2 if isinstance(method, PiGdm) else 2e-3  # which is not exact for these data
    np.testing.assert_allclose(drawn(THIN, method, whole, y, 6, FEW), np.repeat(y, 6, 0), atol=tolerance)


def test_without_noise_every_estimate_agrees_with_the_measurement():
    made = drawn(THIN, Ddnm(), damage_of(A, 0.0), Y[None], 6, FEW)
    np.testing.assert_allclose(made @ A.T, np.repeat(Y[None], 6, 0), atol=1e-5)


def test_two_noisy_views_of_all_are_one_less_noisy():
    """The estimate given x at level sigma and y at level s is that at the combined level."""
    s = 0.3
    eps = jax.random.normal(jax.random.key(0), (5, 4))
    y = jax.random.normal(jax.random.key(1), (5, 4))
    held = Restoring(
        damage=Damage(operator=Mask(keep=jnp.ones((1, 4))), noise=s), measured=y, method=Tweedie(iterations=4)
    )
    net = guide(held, lambda x, sigma, _: THIN.denoise(x, sigma), {}, jax.random.split(jax.random.key(2), 5))
    step = jax.jit(lambda x, sigma: net.step(x, sigma, ())[0])
    for sigma in (0.01, 0.4, 5.0, 80.0):
        x, level = sigma * eps, 1 / math.sqrt(1 / sigma**2 + 1 / s**2)
        combined = (x / sigma**2 + y / s**2) * level**2
        wanted = THIN.denoise(combined, jnp.float32(level))
        np.testing.assert_allclose(step(x, jnp.float32(sigma)), wanted, atol=2e-3)


@methods
def test_a_batch_never_couples_its_rows(method):
    y = np.random.RandomState(0).standard_normal((6, 2))
    together = drawn(THIN, method, damage_of(A, 0.1), y, 6, FEW)
    wild = drawn(THIN, method, damage_of(A, 0.1), y * np.array([[1], [1e3], [1], [1], [-1e3], [1]]), 6, FEW)
    np.testing.assert_allclose(wild[[0, 2, 3, 5]], together[[0, 2, 3, 5]], atol=1e-5)


# --- with any solver, path and guidance -------------------------------------------------------------------------------


@pytest.mark.slow
def test_pure_noise_and_steps_of_each_sample_are_no_hindrance():
    means, covariance = THIN.posterior(A, Y[None], 0.3)
    flow = Sampling(solver=FlowHeun(), schedule=UniformTime(steps=40))
    free = Sampling(solver=Adaptive(rtol=1e-3, atol=1e-3), schedule=Rho(steps=2, sigma_min=2e-3, to_zero=False))
    for how, path, n in ((flow, Flow(), 4000), (free, Edm(), 500)):
        made = drawn(THIN, Tweedie(iterations=2), damage_of(A, 0.3), Y[None], n, how, path)
        assert np.linalg.norm(made.mean(0) - means[0]) / math.sqrt(np.trace(covariance)) < 3 / math.sqrt(n) + 0.02
    with pytest.raises(UserError, match="measurements for 1 samples"):
        drawn(THIN, Tweedie(), damage_of(A, 0.3), np.repeat(Y[None], 3, 0), 3, free)


@pytest.mark.parametrize("inner", [ClassifierFree(scale=1.5), Apg(scale=2.0, momentum=-0.5)])
def test_guidance_stays_and_is_counted(inner):
    method = Tweedie(iterations=3)
    held = Restoring(
        damage=damage_of(np.array([[1.0, 0.0]]), 0.1), measured=jnp.full((1, 1), 0.8), method=method, inner=inner
    )
    how = dataclasses.replace(FEW, guidance=held)
    assert how.nfe(Edm()) == 4 * dataclasses.replace(FEW, guidance=inner).nfe(Edm())
    label = jnp.eye(4)[jnp.array([1, 2, 1, 2])]
    keys = jax.random.split(jax.random.key(1), 4)
    noise = jax.random.normal(jax.random.key(0), (4, 2))
    made, _ = jax.jit(lambda z: how.run(MODES.denoise_labelled, Edm(), z, keys, condition={"label": label}))(noise)
    np.testing.assert_allclose(made[:, 0], 0.8, atol=0.4)
    assert (jnp.sign(made[:, 1]) == jnp.array([1, -1, 1, -1])).all()


# --- objectives -------------------------------------------------------------------------------------------------------


def program_of(experiment, shape) -> Program:
    element = {"image": (shape, np.dtype(np.uint8)), "label": ((), np.dtype(np.int32))}
    if "tokens" in experiment.objective.conditions():
        element["tokens"] = ((6,), np.dtype(np.int32))
    return Program.laid_out(experiment, DataSpec(element=element, classes=("a", "b", "c")))


def test_objectives_without_a_denoiser_of_pixels_are_refused():
    with pytest.raises(UserError, match="denoises latents of 4×4×4"):
        restorer(program_of(text_to_image(), (8, 8, 3)))
    with pytest.raises(UserError, match="Gan has no denoiser"):
        restorer(program_of(gan(), (8, 8, 1)))
    restorer(program_of(diffusion(), (8, 8, 1)), inner=Unguided())


def test_a_field_out_of_range_is_named():
    for make in (
        lambda: Tweedie(iterations=0),
        lambda: Tweedie(ridge=-1.0),
        lambda: PiGdm(data_std=0.0),
        lambda: DiffPir(weight=-1.0),
    ):
        with pytest.raises(UserError, match="must be"):
            make()
