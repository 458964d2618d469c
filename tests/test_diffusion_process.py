"""Paths, quantities, prediction types, noise distributions, weightings: each law once; and parity with diffusers."""

import itertools
import math
import pathlib
from collections.abc import Callable
from statistics import NormalDist
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden.make_schedules import GAMMA, TIMES, case
from golden.weights import array
from jax.sharding import NamedSharding, PartitionSpec

from jaxgen.diffusion import path as paths
from jaxgen.diffusion import weighting as weightings
from jaxgen.diffusion.denoiser import denoiser
from jaxgen.diffusion.noise_distributions import (
    HALF_STEP,
    LogitNormal,
    LogNormal,
    LowDiscrepancy,
    NoiseDistribution,
    Uniform,
    log_snr_slope,
)
from jaxgen.diffusion.path import Cosine, CosineBetas, Edm, Flow, LinearBetas, Path, ScaledLinearBetas, ZeroTerminal
from jaxgen.diffusion.predictions import Direct, EdmPreconditioning, Prediction
from jaxgen.diffusion.quantities import X0, Eps, Quantity, Score, V, Velocity, convert
from jaxgen.errors import UserError

GOLDEN = np.load(pathlib.Path(__file__).parent / "golden" / "schedules.npz")

PATHS = [
    Edm(), Flow(), Cosine(), LinearBetas(), ScaledLinearBetas(), CosineBetas(),
    ZeroTerminal(), ZeroTerminal(path=LinearBetas(steps=10)),
]  # fmt: skip
QUANTITIES = [X0(), Eps(), V(), Velocity(), Score()]
PREDICTIONS = [*(Direct(quantity=q) for q in QUANTITIES), EdmPreconditioning()]
DISTRIBUTIONS = [Uniform(), Uniform(shift=3.0), LogNormal(), LogitNormal(mean=-0.4, shift=2.0), LowDiscrepancy()]
every_path = pytest.mark.parametrize("path", PATHS, ids=repr)
every_distribution = pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=repr)

N = 64  # one size for nearly all: each new one compiles each operation anew
EVEN = jnp.asarray((np.arange(N) + 0.5) / N, jnp.float32)
INF = jnp.float32(jnp.inf)


def inside(path: Path) -> jax.Array:
    """N times strictly inside a path's span, no two steps of a table alike, and both of its neighbourhoods."""
    first, last = path.span()
    share = np.concatenate([[1e-4, 1 - 1e-4], np.linspace(0.001, 0.999, N - 2)])
    return jnp.asarray(first + (last - first) * share, jnp.float32)


def allowed(prediction: Prediction, path: Path) -> bool:
    try:
        prediction.check(path)
    except UserError:
        return False
    return True


PAIRS = [(q, p) for q, p in itertools.product(PREDICTIONS, PATHS) if allowed(q, p)]
every_pair = pytest.mark.parametrize(("prediction", "path"), PAIRS, ids=repr)


def data(rows: int = N) -> tuple[jax.Array, jax.Array]:
    return jnp.asarray(array("process x0", (rows, 3), 0.5)), jnp.asarray(array("process eps", (rows, 3), 1.0))


def noised(path: Path, t: jax.Array) -> tuple[Any, ...]:
    x0, eps = data(len(t))
    alpha, sigma = path.alpha(t), path.sigma(t)
    return x0, eps, alpha, sigma, alpha[:, None] * x0 + sigma[:, None] * eps


# Paths.


@every_path
def test_time_is_the_inverse_of_the_ratio(path: Path) -> None:
    first, last = path.span()
    t = jnp.asarray(np.linspace(first, last, N), jnp.float32)
    alpha, sigma = path.alpha(t), path.sigma(t)
    assert isinstance(path, Path)
    assert np.abs(path.time(sigma / alpha) - t).max() < 3e-7 * (last - first)
    ratio = np.asarray(sigma / alpha)
    assert (np.diff(ratio) > 0).all()
    least, greatest = paths.ratios(path)
    np.testing.assert_allclose(ratio[[0, -1]], [least, greatest], rtol=1e-6)
    if math.isinf(greatest):
        assert path.time(INF) == last


@every_path
def test_float32_keeps_the_relative_precision_of_alpha_and_sigma(path: Path) -> None:
    """Also where one of them is small: sqrt(1 - alpha²) would lose four digits there."""
    t = inside(path)
    alpha, sigma = paths.at(path, np.asarray(t, np.float64))
    assert alpha.dtype == sigma.dtype == np.float64
    np.testing.assert_allclose(path.alpha(t), alpha, rtol=5e-7)
    np.testing.assert_allclose(path.sigma(t), sigma, rtol=5e-7)


@pytest.mark.parametrize("path", PATHS[2:], ids=repr)
def test_variance_is_preserved(path: Path) -> None:
    alpha, sigma = paths.at(path, np.asarray(inside(path), np.float64))
    np.testing.assert_allclose(alpha**2 + sigma**2, 1, rtol=1e-14)


def test_ratios_are_float64_also_while_a_program_is_traced() -> None:
    assert paths.ratios(Edm()) == (0.002, 80.0)
    assert paths.ratios(Flow()) == paths.ratios(Cosine()) == (0.0, math.inf)
    assert paths.ratios(ZeroTerminal())[1] == math.inf
    signal = LinearBetas().alphas_cumprod()
    np.testing.assert_allclose(paths.ratios(LinearBetas()), np.sqrt(1 / signal[[0, -1]] - 1), rtol=1e-12)
    found = []
    jax.make_jaxpr(lambda x: found.append(paths.ratios(LinearBetas())) or x)(1.0)
    assert found == [paths.ratios(LinearBetas())]


@pytest.mark.parametrize(("ratio", "t"), [(1e-6, 0.0), (1e6, 999.0), (math.inf, 999.0)])
def test_beyond_a_table_its_end_stands(ratio: float, t: float) -> None:
    assert LinearBetas().time(jnp.float32(ratio)) == t


def test_between_two_entries_the_angle_is_the_mean() -> None:
    t = np.array([417.0, 417.5, 418.0])
    angle = np.arctan(paths.ratio(CosineBetas(), t))
    np.testing.assert_allclose(angle[1], (angle[0] + angle[2]) / 2, rtol=1e-14)


TABLES = {"linear": LinearBetas(), "scaled_linear": ScaledLinearBetas(), "cosine": CosineBetas()}
TABLES |= {f"{name}_zero": ZeroTerminal(path=path) for name, path in TABLES.items()}
every_table = pytest.mark.parametrize("name", TABLES)


@every_table
def test_tables_equal_diffusers(name: str) -> None:
    path, signal = TABLES[name], GOLDEN[f"{name}_alphas_cumprod"]
    alpha, sigma = paths.at(path, np.asarray(TIMES, np.float64))
    # Of 1 - 0.999, the cosine's last step, a float32 beta keeps 5 digits: hence the absolute part.
    for ours in (path.alphas_cumprod()[TIMES], alpha**2):
        np.testing.assert_allclose(ours, signal, rtol=1e-6, atol=1e-13)
    np.testing.assert_allclose(sigma**2, 1 - signal, rtol=1e-7)


@every_table
def test_noised_data_and_v_equal_diffusers(name: str) -> None:
    path, t = TABLES[name], jnp.asarray(TIMES, jnp.float32)
    x0, eps = (jnp.asarray(a) for a in case())
    alpha, sigma = path.alpha(t), path.sigma(t)
    z = alpha[:, None] * x0 + sigma[:, None] * eps
    np.testing.assert_allclose(z, GOLDEN[f"{name}_noised"], atol=1e-6)
    np.testing.assert_allclose(V().of(x0, eps, alpha, sigma), GOLDEN[f"{name}_v"], atol=1e-6)


# Quantities.


@pytest.mark.parametrize(("source", "target"), list(itertools.product(QUANTITIES, repeat=2)), ids=repr)
@pytest.mark.parametrize("path", [Edm(), Flow(), CosineBetas()], ids=repr)
def test_quantities_convert_and_come_back(path: Path, source: Quantity, target: Quantity) -> None:
    ratio = np.exp(np.random.RandomState(0).uniform(-2.3, 2.3, N))  # from 0.1 to 10: all five are well conditioned
    x0, eps, alpha, sigma, z = noised(path, path.time(jnp.asarray(ratio, jnp.float32)))
    value = source.of(x0, eps, alpha, sigma)
    there = convert(value, z, alpha, sigma, source, target)
    np.testing.assert_allclose(there, target.of(x0, eps, alpha, sigma), atol=1e-4)
    np.testing.assert_allclose(convert(there, z, alpha, sigma, target, source), value, atol=1e-4)
    for got, true in zip(source.pair(value, z, alpha, sigma), (x0, eps), strict=True):
        np.testing.assert_allclose(got, true, atol=3e-5)


@pytest.mark.parametrize("quantity", QUANTITIES, ids=repr)
@pytest.mark.parametrize("path", [Flow(), Cosine(), ZeroTerminal()], ids=repr)
def test_the_ends_are_exact_or_refused_with_the_reason(path: Path, quantity: Quantity) -> None:
    first, last = path.span()
    x0, eps, alpha, sigma, z = noised(path, jnp.full(N, last))
    if isinstance(quantity, Eps | Score):
        value = quantity.of(x0, eps, alpha, sigma)
        np.testing.assert_allclose(quantity.eps(value, z, alpha, sigma), eps, rtol=1e-6)
        with pytest.raises(ValueError, match=r"x0 from .* divides by alpha, which is 0"):
            quantity.x0(value, z, alpha, sigma)
    else:
        for got, true in zip(
            quantity.pair(quantity.of(x0, eps, alpha, sigma), z, alpha, sigma), (x0, eps), strict=True
        ):
            np.testing.assert_allclose(got, true, atol=1e-6)

    x0, eps, alpha, sigma, z = noised(path, jnp.full(N, first))
    if (sigma > 0).all():
        return
    if isinstance(quantity, Score):
        with pytest.raises(ValueError, match="the score divides by sigma"):
            quantity.of(x0, eps, alpha, sigma)
        return
    value = quantity.of(x0, eps, alpha, sigma)
    np.testing.assert_allclose(quantity.x0(value, z, alpha, sigma), x0, atol=1e-6)
    if isinstance(quantity, X0):
        with pytest.raises(ValueError, match="eps from x0 divides by sigma"):
            quantity.eps(value, z, alpha, sigma)
    else:
        np.testing.assert_allclose(quantity.eps(value, z, alpha, sigma), eps, atol=1e-6)


# Prediction types.


@every_pair
def test_the_denoised_target_is_the_data(prediction: Prediction, path: Path) -> None:
    t = inside(path)
    x0, eps, alpha, sigma, z = noised(path, t)
    assert isinstance(prediction, Prediction)
    target = prediction.target(x0, eps, alpha, sigma)
    error = np.abs(prediction.denoised(target, z, alpha, sigma) - x0).max(1)
    # What remains is the rounding of z and of the target, as far as x0 depends on them.
    unit = 3e-7 * (1 + np.asarray(prediction.out(alpha, sigma)) * np.abs(target).max(1))
    conditioned = unit / np.minimum(alpha, 1) if isinstance(prediction, Direct) else unit
    assert (error <= 3 * conditioned).all()


@every_pair
def test_out_is_the_slope_of_the_denoised(prediction: Prediction, path: Path) -> None:
    x0, eps, alpha, sigma, z = noised(path, inside(path))
    output = prediction.target(x0, eps, alpha, sigma)
    total = lambda f: prediction.denoised(f, z, alpha, sigma).sum()  # noqa: E731
    slopes = np.abs(jax.grad(total)(output))
    np.testing.assert_allclose(slopes, np.broadcast_to(prediction.out(alpha, sigma)[:, None], slopes.shape), rtol=1e-5)


@every_pair
def test_one_level_for_all_rows_is_that_level_in_each_row(prediction: Prediction, path: Path) -> None:
    t = inside(path)[5]
    x0, eps, alpha, sigma, z = noised(path, jnp.full(N, t))
    one = path.alpha(t), path.sigma(t)
    target = prediction.target(x0, eps, alpha, sigma)
    np.testing.assert_allclose(prediction.target(x0, eps, *one), target, rtol=1e-6)
    whole = prediction.denoised(target, z, alpha, sigma)
    np.testing.assert_allclose(prediction.denoised(target, z, *one), whole, rtol=1e-6)
    assert prediction.out(*one).shape == prediction.scale(*one).shape == prediction.noise(*one, t).shape == ()


def test_edm_preconditioning_keeps_input_and_target_at_unit_variance() -> None:
    """The invariants by which EDM derives its table 1, with moments in place of samples."""
    edm, sigma = EdmPreconditioning(sigma_data=0.7), jnp.asarray([0.002, 0.05, 0.7, 3.0, 80.0])
    one, zero, alpha = jnp.ones((5, 1)), jnp.zeros((5, 1)), jnp.ones(5)
    of_x0 = edm.target(one, zero, alpha, sigma)[:, 0]
    of_eps = edm.target(zero, one, alpha, sigma)[:, 0]
    np.testing.assert_allclose((0.7 * of_x0) ** 2 + of_eps**2, 1, rtol=1e-6)
    np.testing.assert_allclose(edm.scale(alpha, sigma) ** 2 * (0.7**2 + sigma**2), 1, rtol=1e-6)
    # Least error amplification: an output of 0 leaves the best linear denoiser of such data.
    skip = edm.denoised(zero, one, alpha, sigma)[:, 0]
    np.testing.assert_allclose(skip, 0.7**2 / (0.7**2 + sigma**2), rtol=1e-6)
    np.testing.assert_allclose(edm.noise(alpha, sigma, sigma), np.log(sigma) / 4, rtol=1e-6)


def test_direct_gives_the_net_the_time() -> None:
    t = jnp.asarray([0.25, 0.5])
    np.testing.assert_array_equal(Direct(quantity=Velocity(), time_scale=1000.0).noise(1 - t, t, t), 1000 * t)
    t = jnp.asarray([417.25, 998.5])  # a table's times need not be whole
    np.testing.assert_array_equal(Direct().noise(LinearBetas().alpha(t), LinearBetas().sigma(t), t), t)


@pytest.mark.parametrize(
    ("prediction", "path", "cause"),
    [
        (Direct(quantity=Eps()), ZeroTerminal(), "Eps says nothing about x0 where the path ends in pure noise"),
        (Direct(quantity=Eps()), Flow(), "predict V, Velocity or X0"),
        (Direct(quantity=Score()), Cosine(), "Score says nothing"),
        (EdmPreconditioning(), LinearBetas(), r"as Edm\(\) does; LinearBetas"),
        (EdmPreconditioning(), Flow(), "leaves x0 unscaled"),
        (EdmPreconditioning(sigma_data=0.0), Edm(), "above 0"),
    ],
    ids=repr,
)
def test_prediction_types_that_cannot_be_learned_are_refused(prediction: Prediction, path: Path, cause: str) -> None:
    with pytest.raises(UserError, match=cause):
        denoiser(lambda z, noise: z, path, prediction)


# The denoiser.


def exact(path: Path, prediction: Prediction, x0: jax.Array, eps: jax.Array, ratio: Any) -> tuple[Any, Any, Any]:
    """Denoise with a net that returns its target for x0 and for the eps that it finds in its input by the noise level.

    Return the denoised data, the eps that the net found, and the noise level as the net got it.
    """
    found: list[Any] = []

    def net(scaled: jax.Array, noise: jax.Array) -> jax.Array:
        t = jnp.exp(4 * noise) if isinstance(prediction, EdmPreconditioning) else noise
        alpha, sigma = path.alpha(t), path.sigma(t)
        z = scaled / prediction.scale(alpha, sigma)[:, None]
        found.extend([(z - alpha[:, None] * x0) / sigma[:, None], noise])
        return prediction.target(x0, found[0], alpha, sigma)

    x = eps if np.isinf(ratio) else x0 + ratio * eps
    return denoiser(net, path, prediction)(x, jnp.float32(ratio)), *found


@every_pair
def test_denoiser_is_exact_with_an_exact_net(prediction: Prediction, path: Path) -> None:
    x0, eps = data()
    least, greatest = paths.ratios(path)
    for ratio in np.geomspace(max(least, 0.02), min(greatest, 50.0), 4).astype(np.float32):
        denoised, eps_found, level = exact(path, prediction, x0, eps, ratio)
        np.testing.assert_allclose(denoised, x0, atol=1e-5 * max(ratio, 1))
        np.testing.assert_allclose(eps_found, eps, atol=1e-5 / min(ratio, 1))
        assert level.shape == (N,)


@pytest.mark.parametrize("path", [Flow(), Cosine(), ZeroTerminal()], ids=repr)
@pytest.mark.parametrize("quantity", [X0(), V(), Velocity()], ids=repr)
def test_denoiser_is_exact_at_pure_noise(path: Path, quantity: Quantity) -> None:
    x0, eps = data()
    denoised, eps_found, level = exact(path, Direct(quantity=quantity), x0, eps, math.inf)
    np.testing.assert_allclose(denoised, x0, atol=2e-6)
    np.testing.assert_allclose(eps_found, eps, rtol=1e-6)
    assert (level == path.span()[1]).all()


def test_denoiser_gives_each_net_its_own_coordinates() -> None:
    seen: list[Any] = []
    net = lambda z, noise: seen.append((z, noise)) or z  # noqa: E731
    x = data()[0]
    denoiser(net, Flow(), Direct(quantity=Velocity(), time_scale=1000.0))(x, jnp.float32(3.0))
    np.testing.assert_allclose(seen[-1][0], x / 4, rtol=1e-6)
    np.testing.assert_allclose(seen[-1][1], np.full(N, 750.0), rtol=1e-6)
    # Of t = 1 - 1e-4, as a float32, 1 - t would be off by 3e-4.
    denoiser(net, Flow(), Direct(quantity=Velocity()))(x, jnp.float32(9999.0))
    np.testing.assert_allclose(seen[-1][0], x / 10_000, rtol=1e-6)
    denoiser(net, Edm(), EdmPreconditioning())(x, jnp.float32(3.0))
    np.testing.assert_allclose(seen[-1][0], x / math.hypot(3.0, 0.5), rtol=1e-6)
    np.testing.assert_allclose(seen[-1][1], np.full(N, math.log(3.0) / 4), rtol=1e-6)


# Noise distributions.


@every_distribution
@pytest.mark.parametrize("path", [Flow(), ZeroTerminal()], ids=repr)
def test_t_rises_with_u_and_draws_are_its_values(distribution: NoiseDistribution, path: Path) -> None:
    assert isinstance(distribution, NoiseDistribution)
    t = np.asarray(distribution.at(EVEN, path))
    assert (np.diff(t) >= 0).all()
    assert t[-1] > t[0]
    t, u = distribution.draw(jax.random.key(3), N, path)
    assert t.shape == u.shape == (N,)
    np.testing.assert_array_equal(t, distribution.at(u, path))
    ends = distribution.at(jnp.asarray([HALF_STEP, 1 - HALF_STEP] * (N // 2)), path)
    assert np.isfinite(ends).all()
    assert ((u > 0) & (u < 1)).all()


@pytest.mark.parametrize("distribution", [Uniform(), LogNormal(), LowDiscrepancy()], ids=repr)
def test_draws_do_not_depend_on_devices(distribution: NoiseDistribution) -> None:
    mesh = jax.make_mesh((4,), ("data",))
    draw = lambda key: distribution.draw(key, N, Flow())  # noqa: E731
    one = jax.jit(draw)(jax.random.key(0))
    four = jax.jit(draw, out_shardings=NamedSharding(mesh, PartitionSpec("data")))(jax.random.key(0))
    assert len(four[0].sharding.device_set) == 4
    for a, b in zip(one, four, strict=True):
        np.testing.assert_array_equal(a, b)


def test_low_discrepancy_puts_one_point_in_each_stratum() -> None:
    distribution = LowDiscrepancy(distribution=Uniform())
    first = []
    for seed in range(20):
        _, u = distribution.draw(jax.random.key(seed), N, Flow())
        assert sorted(np.floor(np.asarray(u) * N)) == list(range(N))
        first.append(u[0])
    assert np.ptp(first) > 0.5  # each row by itself is uniform over (0, 1), not over a stratum of its own


def test_u_is_uniform() -> None:
    _, u = Uniform().draw(jax.random.key(0), 4096, Flow())
    assert abs(np.mean(u) - 1 / 2) < 4 / math.sqrt(12 * 4096)
    assert abs(np.var(u) - 1 / 12) < 4 / math.sqrt(180 * 4096)


@pytest.mark.parametrize("path", [Edm(), Flow()], ids=repr)
def test_lognormal_has_its_moments(path: Path) -> None:
    """Of the ratio, whatever the path."""
    t = LogNormal(mean=-0.4, std=1.0).at(EVEN, path)
    log = np.log(np.asarray(path.sigma(t) / path.alpha(t), np.float64))
    assert abs(log.mean() + 0.4) < 1e-5
    assert abs(log.std() - 1.0) < 0.02  # 64 quantiles have a little less
    wanted = [NormalDist(-0.4, 1.0).inv_cdf(u) for u in EVEN.tolist()]
    np.testing.assert_allclose(log, wanted, atol=2e-6)


def test_logitnormal_has_its_moments() -> None:
    t = np.asarray(LogitNormal(mean=-0.4, std=1.5).at(EVEN, Flow()), np.float64)
    logit = np.log(t / (1 - t))
    assert abs(logit.mean() + 0.4) < 1e-5
    assert abs(logit.std() - 1.5) < 0.03
    # The place in the span, whatever the span.
    np.testing.assert_allclose(LogitNormal(mean=-0.4, std=1.5).at(EVEN, LinearBetas()), 999 * t, rtol=1e-6)


@pytest.mark.parametrize("kind", [Uniform, LogitNormal])
@pytest.mark.parametrize("path", [Edm(sigma_min=0.01, sigma_max=10.0), Flow(), ScaledLinearBetas()], ids=repr)
def test_shift_moves_the_ratio(kind: Any, path: Path) -> None:
    u = 0.6 * EVEN  # of a table of 1000, three times the rest of the ratios lies beyond the end
    ratio = lambda t: path.sigma(t) / path.alpha(t)  # noqa: E731
    shifted, plain = kind(shift=3.0).at(u, path), kind().at(u, path)
    np.testing.assert_allclose(ratio(shifted), 3 * ratio(plain), rtol=2e-5)
    if isinstance(path, Flow):
        np.testing.assert_allclose(shifted, 3 * plain / (1 + 2 * plain), rtol=1e-6)  # arXiv:2403.03206, equation 23


def test_slope_is_the_derivative_of_the_log_snr() -> None:
    u = EVEN
    t = np.asarray(u, np.float64)
    uniform = Uniform()
    np.testing.assert_allclose(log_snr_slope(uniform, u, Flow()), 2 / (t * (1 - t)), rtol=1e-5)
    np.testing.assert_allclose(log_snr_slope(uniform, u, Cosine()), 2 * np.pi / np.sin(np.pi * t), rtol=1e-5)
    density = np.exp(-(np.asarray(jax.scipy.special.ndtri(u)) ** 2) / 2) / math.sqrt(2 * math.pi)
    np.testing.assert_allclose(log_snr_slope(LogNormal(std=1.2), u, Edm()), 2 * 1.2 / density, rtol=1e-4)


@pytest.mark.parametrize("distribution", [Uniform(shift=3.0), LogNormal()], ids=repr)
@every_path
def test_slope_equals_the_difference_quotient(path: Path, distribution: NoiseDistribution) -> None:
    with jax.enable_x64(True):

        def log_snr(u: np.ndarray) -> np.ndarray:
            t = distribution.at(jnp.asarray(u, jnp.float64), path)
            return np.asarray(2 * (jnp.log(path.alpha(t)) - jnp.log(path.sigma(t))))

        u64, h = np.asarray(EVEN, np.float64), 1e-7  # so small that between two entries of a table no third lies
        quotient = (log_snr(u64 - h) - log_snr(u64 + h)) / (2 * h)
    np.testing.assert_allclose(log_snr_slope(distribution, EVEN, path), quotient, rtol=2e-3)


# Weightings.

WEIGHTINGS = [
    weightings.Unweighted(), weightings.EdmWeight(), weightings.MinSnr(), weightings.Sigmoid(bias=-1.0),
    weightings.Uncertainty(base=weightings.MinSnr()),
]  # fmt: skip


def initial(weighting: Any) -> Any:
    """The parameters that a weighting begins with."""
    module, one = weighting.module(), jnp.ones(1)
    return {} if module is None else module.init(jax.random.key(0), one, one, train=False)["params"]


def weigh(weighting: Any, prediction: Prediction, path: Path, t: jax.Array, slope: Any = 1.0) -> np.ndarray:
    """The weight of an error of the net's output at each t."""
    alpha, sigma, one = path.alpha(t), path.sigma(t), jnp.ones_like(t)
    params = initial(weighting)
    return np.asarray(weighting.loss(params, one, prediction.out(alpha, sigma), alpha, sigma, slope * one))


@pytest.mark.parametrize("weighting", WEIGHTINGS[1:], ids=repr)
@pytest.mark.parametrize(
    ("prediction", "path"),
    [
        (Direct(quantity=V()), ScaledLinearBetas()),
        (Direct(quantity=Eps()), CosineBetas()),
        (Direct(quantity=Velocity()), Flow()),
        (EdmPreconditioning(), Edm()),
    ],
    ids=repr,
)
def test_a_weight_is_on_the_error_of_x0(weighting: Any, prediction: Prediction, path: Path) -> None:
    """Whatever is predicted, two nets with the same error of x0 have the same loss."""
    assert isinstance(weighting, weightings.Weighting)
    t = inside(path)
    of_output = weigh(weighting, prediction, path, t)
    of_x0 = weigh(weighting, Direct(quantity=X0()), path, t)
    np.testing.assert_allclose(of_output / np.square(prediction.out(path.alpha(t), path.sigma(t))), of_x0, rtol=1e-4)


def test_unweighted_is_the_error_of_the_output() -> None:
    np.testing.assert_array_equal(weigh(weightings.Unweighted(), EdmPreconditioning(), Edm(), inside(Edm())), 1)


def test_edm_weight_cancels_the_preconditioning() -> None:
    edm, path = EdmPreconditioning(sigma_data=0.7), Edm()
    weights = weigh(weightings.EdmWeight(sigma_data=0.7), edm, path, inside(path))
    np.testing.assert_allclose(weights, 1, rtol=1e-6)


@every_table
@pytest.mark.parametrize("quantity", [Eps(), V()], ids=["eps", "v"])
def test_min_snr_equals_diffusers(name: str, quantity: Quantity) -> None:
    wanted = GOLDEN[f"{name}_min_snr_{type(quantity).__name__.lower()}"]
    finite = np.isfinite(wanted)
    assert finite.sum() == len(TIMES) - (name.endswith("zero") and quantity == Eps())
    t = jnp.asarray(np.asarray(TIMES)[finite], jnp.float32)
    weights = weigh(weightings.MinSnr(gamma=GAMMA), Direct(quantity=quantity), TABLES[name], t)
    np.testing.assert_allclose(weights, wanted[finite], rtol=2e-5 if name == "cosine" else 2e-6)


@pytest.mark.parametrize("path", [Flow(), Cosine(), ZeroTerminal()], ids=repr)
@pytest.mark.parametrize(
    ("weighting", "quantity"),
    # Without noise an error of x0 has infinite weight in EDM, by definition.
    [(w, q) for w in WEIGHTINGS for q in (V(), Velocity(), X0()) if (w, q) != (weightings.EdmWeight(), X0())],
    ids=repr,
)
def test_weights_are_finite_at_both_ends(weighting: Any, path: Path, quantity: Quantity) -> None:
    u = jnp.asarray([0.0, HALF_STEP, 1 - HALF_STEP, 1.0] * (N // 4))
    slope = log_snr_slope(Uniform(), u, path)
    assert np.isfinite(slope).all()
    assert (slope > 0).all()
    t = Uniform().at(u, path)
    weights = weigh(weighting, Direct(quantity=quantity), path, t, slope)
    assert np.isfinite(weights).all()
    if isinstance(weighting, weightings.MinSnr | weightings.Sigmoid):
        assert weights[-1] == 0  # there an error says nothing: the SNR is 0


def test_sigmoid_is_a_sigmoid_of_the_error_of_eps() -> None:
    """And does not depend on the noise distribution: the density of λ cancels against the slope."""
    path, bias = Cosine(), -1.5
    alpha, sigma, t = path.alpha(inside(path)), path.sigma(inside(path)), inside(path)
    weights = weigh(weightings.Sigmoid(bias=bias), Direct(quantity=Eps()), path, t, slope=2.0)
    np.testing.assert_allclose(weights, 1 / (1 + np.exp(2 * np.log(alpha / sigma) - bias)), rtol=1e-4)


@pytest.mark.parametrize("distribution", [Uniform(shift=3.0), LogitNormal(std=2.0)], ids=repr)
def test_the_mean_of_sigmoid_does_not_depend_on_the_distribution(distribution: NoiseDistribution) -> None:
    t = distribution.at(EVEN, Flow())
    slope = log_snr_slope(distribution, EVEN, Flow())
    weights = weigh(weightings.Sigmoid(bias=0.0), Direct(quantity=X0()), Flow(), t, slope)
    # The integral over λ of 1/2 e^b sigmoid(λ - b) times exp(-λ²/8), an error that vanishes at both ends.
    snr = 2 * np.log((1 - t) / t)
    lam = np.linspace(-30, 30, 100_001)
    wanted = (0.5 / (1 + np.exp(-lam)) * np.exp(-(lam**2) / 8)).sum() * (lam[1] - lam[0])
    assert abs((weights * np.exp(-np.square(snr) / 8)).mean() / wanted - 1) < 5e-3


def test_uncertainty_learns_the_loss_of_each_level() -> None:
    weighting = weightings.Uncertainty(base=weightings.Unweighted(), channels=32)
    sigma = jnp.asarray(np.geomspace(0.01, 50.0, N), jnp.float32)
    one = jnp.ones(N)
    losses = 0.3 + sigma**2 / (1 + sigma**2)

    def loss(params: Any) -> jax.Array:
        return weighting.loss(params, losses, one, one, sigma, one).mean()

    params = initial(weighting)
    np.testing.assert_allclose(loss(params), losses.mean(), rtol=1e-6)  # it begins as the base

    def newton(params: Any, _: Any) -> tuple[Any, None]:
        slope, curvature = jax.grad(loss)(params)["kernel"], jax.hessian(loss)(params)["kernel"]["kernel"]
        step = jnp.linalg.solve(curvature + 1e-5 * jnp.eye(32), slope)
        return {"kernel": params["kernel"] - step}, None

    params, _ = jax.jit(lambda p: jax.lax.scan(newton, p, None, 20))(params)
    np.testing.assert_allclose(np.exp(weighting.log_loss(params, one, sigma)), losses, rtol=0.02)
    np.testing.assert_allclose(loss(params), (1 + np.log(losses)).mean(), atol=1e-3)  # the least there is


@pytest.mark.parametrize(
    ("make", "cause"),
    [
        (lambda: Edm(sigma_min=1.0, sigma_max=0.5), "0 < sigma_min < sigma_max"),
        (lambda: LinearBetas(start=0.1, end=0.02), "0 < start <= end < 1"),
        (lambda: CosineBetas(steps=1), "at least 2 steps"),
        (lambda: Uniform(shift=0.0), "Uniform.shift is above 0"),
        (lambda: LogNormal(std=-1.0), "LogNormal.std is above 0"),
        (lambda: weightings.EdmWeight(sigma_data=0.0), "EdmWeight.sigma_data"),
        (lambda: weightings.MinSnr(gamma=0.0), "MinSnr.gamma"),
        (lambda: weightings.Uncertainty(base=WEIGHTINGS[-1]), "learns nothing itself"),
    ],
)
def test_mistakes_are_named(make: Callable[[], Any], cause: str) -> None:
    with pytest.raises(UserError, match=cause):
        make()
