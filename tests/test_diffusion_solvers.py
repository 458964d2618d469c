"""Solvers: measured orders, exact moments, laws that all obey, and agreement with k-diffusion and diffusers."""

import functools
import math
import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden.make_samplers import CHURN, MIXTURE, STEPS, noise, part, picture, points
from jax.experimental import io_callback

from jaxgen.diffusion import sampling_schedules, solvers
from jaxgen.diffusion.adaptive import Adaptive
from jaxgen.diffusion.apg import Apg
from jaxgen.diffusion.flow import FlowHeun, FlowMidpoint
from jaxgen.diffusion.gaussian import GaussianMixture
from jaxgen.diffusion.guidance import ClassifierFree, guide
from jaxgen.diffusion.multistep import Dpm2M, Dpm2MSde, Dpm3M, UniPc
from jaxgen.diffusion.path import (
    Cosine,
    CosineBetas,
    Edm,
    Flow,
    LinearBetas,
    Path,
    ScaledLinearBetas,
    ZeroTerminal,
    ratio,
    ratios,
)
from jaxgen.diffusion.sampling_schedules import (
    Exponential,
    Given,
    Leading,
    Linspace,
    Rho,
    SamplingSchedule,
    Trailing,
    UniformTime,
)
from jaxgen.diffusion.solvers import Euler, Heun, Linear, sample, start
from jaxgen.diffusion.stochastic import Ancestral, Ddim, EulerMaruyama
from jaxgen.errors import UserError
from jaxgen.typing import Condition

GOLDEN = np.load(pathlib.Path(__file__).parent / "golden" / "samplers.npz")
GAUSSIAN = GaussianMixture(means=((0.3, -0.2),), stds=(0.5,))
# Modes a little wider than those of a hard case: the closer they are to points, the more steps it takes until the
# error is its leading term, and with these 64 steps will do.
MODES = GaussianMixture(means=((-1.0, 0.0), (0.5, 0.8), (0.7, -0.9)), stds=(0.3, 0.4, 0.5), weights=(1.0, 2.0, 1.0))
ODE: dict[str, Linear] = {
    "euler": Euler(),
    "ddim": Ddim(),
    "heun": Heun(),
    "dpm2m": Dpm2M(),
    "dpm3m": Dpm3M(),
    "unipc2": UniPc(),
    "unipc3": UniPc(order=3),
    "flow_midpoint": FlowMidpoint(),
    "flow_heun": FlowHeun(),
}
SDE: dict[str, Linear] = {
    "ddim_half": Ddim(eta=0.5),
    "ddim_one": Ddim(eta=1.0),
    "ancestral_small": Ancestral(),
    "ancestral_middle": Ancestral(spread=0.3),
    "ancestral_large": Ancestral(spread=1.0),
    "euler_maruyama_half": EulerMaruyama(amount=0.5),
    "euler_maruyama": EulerMaruyama(),
    "dpm2m_sde_half": Dpm2MSde(eta=0.5),
    "dpm2m_sde": Dpm2MSde(),
    "heun_churn": Heun(churn=40.0, churn_min=0.05, churn_max=50.0, noise=1.0),
}
LINEAR = ODE | SDE
ode = pytest.mark.parametrize("solver", ODE.values(), ids=ODE)
linear = pytest.mark.parametrize("solver", LINEAR.values(), ids=LINEAR)
PATHS = {
    "edm": Edm(),
    "flow": Flow(),
    "cosine": Cosine(),
    "linear": LinearBetas(),
    "scaled_linear": ScaledLinearBetas(),
    "cosine_betas": CosineBetas(),
    "zero_terminal": ZeroTerminal(),
}
SIGMAS = Rho(steps=6).sigmas(Edm())


def keys(n: int, seed: int = 0) -> jax.Array:
    return jax.random.split(jax.random.key(seed), n)


# --- orders -----------------------------------------------------------------------------------------------------------


def three(x: jax.Array, sigma: jax.Array) -> jax.Array:
    """A Gaussian, a mixture, and the mixture guided to its modes: a third of the rows each, so as to compile once."""
    a, b, c = jnp.split(x, 3)
    condition = {"label": jax.nn.one_hot(jnp.arange(len(c)) % 3, 4, dtype=x.dtype)}
    guided = guide(ClassifierFree(scale=2.0), MODES.denoise_labelled, condition, keys(len(c)))
    return jnp.concatenate([GAUSSIAN.denoise(a, sigma), MODES.denoise(b, sigma), guided.step(c, sigma, ())[0]])


def schedule(solver: Linear, steps: int) -> np.ndarray:
    """A solver in time goes from pure noise to 0, where its last step, of order 1, is but one of n even ones.

    In sigma the last step to 0 does not shrink as others do, so there the schedule ends above 0.
    """
    flow = isinstance(solver, FlowMidpoint | FlowHeun)
    return UniformTime(steps=steps).sigmas(Flow()) if flow else Rho(steps=steps, to_zero=False).sigmas(Edm())


@functools.cache
def solved(solver: Linear, steps: int) -> np.ndarray:
    """Return the errors' three thirds, in float64."""
    with jax.enable_x64(True):
        x = start(jnp.asarray(np.random.RandomState(0).standard_normal((96, 2))), schedule(solver, steps))
        return np.asarray(jax.jit(lambda x: sample(solver, three, schedule(solver, steps), x, keys(96)))(x))


@ode
def test_error_falls_with_the_stated_order(solver: Linear) -> None:
    fine = FlowMidpoint() if isinstance(solver, FlowMidpoint | FlowHeun) else UniPc(order=3)
    exact = solved(fine, 1500 if isinstance(fine, FlowMidpoint) else 600).copy()
    first, *_, last = schedule(solver, 2)  # the Gaussian's flow is known: x - mean scales as the standard deviation
    deviation = math.sqrt(0.5**2 + last**2) / (1 if math.isinf(first) else math.sqrt(0.5**2 + first**2))
    mean = np.asarray(GAUSSIAN.means)
    x = np.random.RandomState(0).standard_normal((96, 2))[:32]
    exact[:32] = mean + deviation * (x if math.isinf(first) else first * x - mean)
    errors = [
        [np.sqrt((part**2).mean()) for part in np.split(solved(solver, n) - exact, 3)] for n in (96, 192)
    ]  # fmt: skip
    slopes = -np.diff(np.log2(errors), axis=0)[0]
    # UniPc promises its order at least; its corrector adds up to one, which guided modes come near from above.
    most = solver.order + (1.3 if isinstance(solver, UniPc) else 0.15)
    assert ((slopes > solver.order - 0.15) & (slopes < most)).all(), slopes


def moments(solver: Linear, sigmas: np.ndarray, mean: float, std: float) -> tuple[float, float]:
    """Follow mean and variance of x through a solver's table, exactly: on Gaussian data the net is linear."""
    calls = solver.calls(sigmas)
    slots = len(calls[0].slots)
    centre, cover = np.zeros(slots), np.zeros((slots, slots))
    infinite = math.isinf(sigmas[0])
    centre[0], cover[0, 0] = (0.0, 1.0) if infinite else (mean, std**2 + sigmas[0] ** 2)
    for call in calls:
        cover[0, 0] += call.before**2
        kept = 1 / (1 + (call.level / std) ** 2)
        net = np.eye(slots + 1, slots)
        net[-1, 0] = kept
        mix = np.asarray(call.slots)
        centre = mix @ (net @ centre + np.eye(slots + 1)[-1] * (1 - kept) * mean)
        cover = mix @ net @ cover @ net.T @ mix.T
        cover[0, 0] += call.after**2
    return centre[0], cover[0, 0]


def starts_at_noise(solver: Linear) -> bool:
    try:
        solver.levels(np.asarray([math.inf, 1.0]))
    except UserError:
        return False
    return True


FROM_NOISE = {name: solver for name, solver in LINEAR.items() if starts_at_noise(solver)}


def test_these_start_at_pure_noise_and_the_others_say_no() -> None:
    assert {type(s) for s in FROM_NOISE.values()} == {Euler, Ddim, Ancestral, Dpm2M, Dpm2MSde, FlowMidpoint, FlowHeun}
    for name in LINEAR.keys() - FROM_NOISE.keys():
        with pytest.raises(UserError, match="cannot start at an infinite noise level: use"):
            sample(LINEAR[name], MODES.denoise, np.asarray([math.inf, 1.0, 0.0]), jnp.ones((1, 2)), keys(1))


@linear
def test_the_data_s_moments_are_met_with_the_stated_order(solver: Linear) -> None:
    sigmas = [Rho(steps=n, to_zero=False).sigmas(Edm()) for n in (128, 256)]
    found = [moments(solver, levels, 0.4, 0.5) for levels in sigmas]
    assert np.allclose([mean for mean, _ in found], 0.4, rtol=0, atol=1e-12)
    coarse, fine = (abs(variance - 0.5**2 - 0.002**2) for _, variance in found)
    assert fine < 0.05 * 0.5**2
    assert math.log2(coarse / fine) > solver.order - 0.15


@pytest.mark.parametrize("solver", FROM_NOISE.values(), ids=FROM_NOISE)
def test_the_data_s_moments_are_met_from_pure_noise(solver: Linear) -> None:
    found = [moments(solver, UniformTime(steps=n).sigmas(Flow()), 0.4, 0.5) for n in (128, 256)]
    assert np.allclose([mean for mean, _ in found], 0.4, rtol=0, atol=1e-12)
    coarse, fine = (abs(variance - 0.5**2) for _, variance in found)
    # Evenly spaced times are steps of any size in ln sigma: there multistep solvers come near their order slowly.
    assert math.log2(coarse / fine) > solver.order - 0.25
    assert fine < 0.03 * 0.5**2


@pytest.mark.parametrize("name", ["ddim_half", "ancestral_large", "euler_maruyama", "dpm2m_sde", "heun_churn"])
def test_draws_have_the_moments_of_the_table(name: str) -> None:
    solver = SDE[name]
    data = GaussianMixture(means=((0.4,),), stds=(0.5,))
    n, sigmas = 20_000, Rho(steps=12, sigma_min=0.05, to_zero=False).sigmas(Edm())
    first = 0.4 + math.sqrt(0.5**2 + sigmas[0] ** 2) * jax.random.normal(jax.random.key(1), (n, 1))
    x = np.asarray(jax.jit(lambda x: sample(solver, data.denoise, sigmas, x, keys(n)))(first))
    mean, variance = moments(solver, sigmas, 0.4, 0.5)
    # Four standard errors of a normal sample's mean and variance.
    assert abs(x.mean() - mean) < 4 * math.sqrt(variance / n)
    assert abs(x.var() / variance - 1) < 4 * math.sqrt(2 / n)


# --- laws -------------------------------------------------------------------------------------------------------------


# One of each class, as compiling takes most of the time.
LAWS = {
    name: LINEAR[name]
    for name in (
        "euler", "ddim_half", "ancestral_middle", "euler_maruyama", "heun_churn", "dpm2m", "dpm2m_sde", "dpm3m",
        "unipc3", "flow_midpoint", "flow_heun",
    )
}  # fmt: skip
law = pytest.mark.parametrize("solver", LAWS.values(), ids=LAWS)


def first(n: int) -> jax.Array:
    return start(jax.random.normal(jax.random.key(7), (n, 2)), SIGMAS)


class Traced:
    """A solver, compiled once with its steps and with a note of each call that is really made."""

    def __init__(self, solver: Linear, sigmas: np.ndarray):
        self.levels: list[float] = []

        def counted(x: jax.Array, sigma: jax.Array) -> jax.Array:
            io_callback(lambda level: self.levels.append(float(level)), None, sigma, ordered=True)
            return MODES.denoise(x, sigma)

        self.program = jax.jit(lambda x, rows: sample(solver, counted, sigmas, x, rows, trace=True))

    def __call__(self, x: jax.Array, rows: jax.Array) -> tuple[np.ndarray, solvers.Trajectory]:
        self.levels.clear()
        found, steps = jax.block_until_ready(self.program(x, rows))
        jax.effects_barrier()
        return np.asarray(found), steps


@functools.cache
def traced(solver: Linear) -> Traced:
    return Traced(solver, SIGMAS)


@law
def test_sampling_is_a_function(solver: Linear) -> None:
    once, _ = traced(solver)(first(8), keys(8))
    assert np.isfinite(once).all()
    np.testing.assert_array_equal(once, traced(solver)(first(8), keys(8))[0])


@law
def test_a_sample_depends_neither_on_its_batch_nor_on_compilation(solver: Linear) -> None:
    together, _ = traced(solver)(first(8), keys(8))
    alone = sample(solver, MODES.denoise, SIGMAS, first(8)[3:4], keys(8)[3:4])
    np.testing.assert_allclose(together[3:4], alone, rtol=1e-6, atol=1e-6)


@law
def test_noise_is_a_sample_s_own(solver: Linear) -> None:
    x = jnp.broadcast_to(first(1), (8, 2))
    found, _ = traced(solver)(x, keys(8))
    if solver in SDE.values():
        assert len(np.unique(found, axis=0)) == 8
        assert (found != traced(solver)(x, keys(8, seed=1))[0]).all()
    else:
        assert np.ptp(found, axis=0).max() < 1e-5


@law
def test_the_steps_on_the_way(solver: Linear) -> None:
    x = first(8)
    found, steps = traced(solver)(x, keys(8))
    assert steps.x.shape == (len(SIGMAS), 8, 2)
    assert steps.x0.shape == (len(SIGMAS) - 1, 8, 2)
    np.testing.assert_array_equal(steps.x[0], x)
    # The last step to 0 returns exactly what the net said.
    np.testing.assert_array_equal(steps.x[-1], found)
    np.testing.assert_array_equal(steps.x0[-1], found)


@pytest.mark.parametrize("name", ["heun_churn", "dpm2m_sde", "unipc3", "flow_midpoint"])
def test_a_schedule_that_ends_sooner_has_the_same_steps_until_there(name: str) -> None:
    solver, x = LAWS[name], first(8)
    _, steps = traced(solver)(x, keys(8))
    short, before = Traced(solver, SIGMAS[:4])(x, keys(8))
    for late, early in ((steps.x[3], short), (steps.x[:4], before.x), (steps.x0[:3], before.x0)):
        np.testing.assert_allclose(late, early, rtol=1e-5, atol=1e-5)


@law
def test_a_net_is_called_at_the_levels_said_before(solver: Linear) -> None:
    note = traced(solver)
    note(first(8), keys(8))
    np.testing.assert_allclose(note.levels, solver.levels(SIGMAS), rtol=1e-6)


@linear
@pytest.mark.parametrize("steps", [1, 2, 3, 18])
def test_number_of_calls(solver: Linear, steps: int) -> None:
    two = isinstance(solver, Heun | FlowHeun | FlowMidpoint)
    for to_zero in (True, False):
        calls = solver.calls(Rho(steps=steps, to_zero=to_zero).sigmas(Edm()))
        assert all(np.isfinite([*call.slots]).all() and call.level > 0 for call in calls)
        # A third-order start costs one call more, where there is a step before the one to 0.
        more = isinstance(solver, Dpm3M) and (steps > 1 or not to_zero)
        assert len(calls) == (2 * steps - to_zero if two else steps + more)
        assert sum(call.ends for call in calls) == steps


@pytest.mark.parametrize("solver", [Heun(), Dpm2MSde()], ids=["heun", "dpm2m_sde"])
def test_the_state_is_float32_whatever_the_net_computes_in(solver: Linear) -> None:
    def half(x: jax.Array, sigma: jax.Array) -> jax.Array:
        return MODES.denoise(x, sigma).astype(jnp.bfloat16)

    found = sample(solver, half, SIGMAS, first(4).astype(jnp.bfloat16), keys(4))
    assert found.dtype == jnp.float32
    assert np.isfinite(found).all()


def test_near_twins_agree() -> None:
    for one, other in (
        (Ddim(), Euler()),
        (EulerMaruyama(amount=0.0), Euler()),
        (Dpm2MSde(eta=0.0), Dpm2M()),
        (Ancestral(), Ddim(eta=1.0)),
    ):
        for mine, its in zip(one.calls(SIGMAS), other.calls(SIGMAS), strict=True):
            np.testing.assert_allclose(mine.slots, its.slots, rtol=1e-12, atol=1e-15)
            assert mine.level == its.level
            assert math.isclose(mine.after, its.after)


# --- adaptive: each of these compiles for seconds, so all is asked of few runs --------------------------------------


def test_adaptive_keeps_its_tolerance_and_each_sample_its_own_steps_and_label() -> None:
    sigmas, means = np.asarray([math.inf, 3.0, 1.0, 0.002, 0.0]), np.asarray([[1.0, 0.0], [0.0, 1.0], [0.3, 0.2]])

    def gaussians(x: jax.Array, sigma: jax.Array, condition: Condition) -> jax.Array:
        mean = (condition["label"][:, :, None] * jnp.asarray(means, x.dtype)[None]).sum(1)
        return mean + (x - mean) / (1 + (sigma / 0.5) ** 2)

    @jax.jit
    def go(x: jax.Array) -> tuple:
        condition = {"label": jnp.eye(3)[jnp.arange(8) % 2]}
        guided = guide(ClassifierFree(scale=1.5), gaussians, condition, keys(8))
        return sample(Adaptive(rtol=1e-4, atol=1e-4), guided, sigmas, x, keys(8), trace=True)

    x = jax.random.normal(jax.random.key(3), (8, 2))
    found, steps = go(x)
    mean = means[2] + 1.5 * (means[np.arange(8) % 2] - means[2])
    assert np.abs(found - (mean + 0.5 * np.asarray(x))).max() < 1e-3
    assert np.abs(steps.x[2] - (mean + math.sqrt(0.5**2 + 1) * np.asarray(x))).max() < 1e-3
    assert steps.x.shape == (5, 8, 2)
    assert steps.x0.shape == (4, 8, 2)
    np.testing.assert_array_equal(steps.x[0], x)
    np.testing.assert_array_equal(steps.x[-1], found)
    np.testing.assert_array_equal(steps.x0[-1], found)
    # Neighbours of another size would change a step size that were shared.
    np.testing.assert_array_equal(found[0], go(x.at[1:].multiply(5.0))[0][0])


def test_adaptive_refuses_what_it_cannot_do() -> None:
    guided = guide(Apg(momentum=-0.5), MODES.denoise_labelled, {"label": jnp.eye(4)[:2]}, keys(2))
    with pytest.raises(UserError, match="momentum"):
        sample(Adaptive(), guided, SIGMAS, first(2), keys(2))
    with pytest.raises(UserError, match="at least 2 steps"):
        sample(Adaptive(), MODES.denoise, np.asarray([1.0, 0.0]), first(2), keys(2))
    assert Adaptive().levels(SIGMAS) is None


# --- goldens ----------------------------------------------------------------------------------------------------------

K_DIFFUSION = {
    "euler": Euler(),
    "heun": Heun(),
    "heun churn": Heun(churn=CHURN, churn_min=0.05, churn_max=50.0, noise=1.003),
    "dpm2m": Dpm2M(),
    "dpm2m above": Dpm2M(),
    "dpm2m_sde 0.0": Dpm2MSde(eta=0.0),
    "dpm2m_sde 1.0": Dpm2MSde(),
    "ancestral 0.5": Ddim(eta=0.5),
    "ancestral 1.0": Ancestral(),
}


@pytest.fixture
def shared_noise(monkeypatch: pytest.MonkeyPatch) -> Callable[[tuple[int, ...]], None]:
    """Let the solver draw, in call k, what the reference drew there."""

    def use(full: tuple[int, ...]) -> None:
        def drawn(keys: jax.Array, k: jax.Array, x: jax.Array) -> jax.Array:
            made = np.stack([noise(call, full) for call in range(2 * STEPS)])
            return jnp.asarray(np.stack([part(a) for a in made]) if len(full) == 4 else made, x.dtype)[k]

        monkeypatch.setattr(solvers, "_noise", drawn)

    return use


@pytest.mark.parametrize("name", K_DIFFUSION)
def test_k_diffusion(name: str, shared_noise: Callable) -> None:
    shared_noise((8, 2))
    data = GaussianMixture(means=MIXTURE[0], stds=MIXTURE[1], weights=MIXTURE[2])
    sigmas = Rho(steps=STEPS).sigmas(Edm())
    np.testing.assert_allclose(sigmas, GOLDEN["kd sigmas"], rtol=1e-12)
    with jax.enable_x64(True):
        sigmas = sigmas[:-1] if name.endswith("above") else sigmas
        x = start(jnp.asarray(points()), sigmas)
        found = sample(K_DIFFUSION[name], data.denoise, sigmas, x, keys(8))
    np.testing.assert_allclose(found, GOLDEN[f"kd {name}"], rtol=1e-9, atol=1e-9)


LINEAR_BETAS = LinearBetas()
DIFFUSERS: dict[str, tuple[Linear, SamplingSchedule | None]] = {
    "ddim leading": (Ddim(), Leading(steps=STEPS)),
    "ddim trailing": (Ddim(), Trailing(steps=STEPS)),
    "ddim v": (Ddim(), Leading(steps=STEPS)),
    "ddim eta": (Ddim(eta=0.5), Leading(steps=STEPS)),
    "ddpm small": (Ancestral(), Leading(steps=STEPS)),
    "ddpm large": (Ancestral(spread=1.0), Leading(steps=STEPS)),
    "dpm2m": (Dpm2M(), Linspace(steps=STEPS, omit=1)),
    "dpm2m v": (Dpm2M(), Linspace(steps=STEPS, omit=1)),
    "dpm2m karras": (Dpm2M(), Rho(steps=STEPS, sigma_min=None, sigma_max=None)),
    "dpm2m_sde": (Dpm2MSde(), Linspace(steps=STEPS, omit=1)),
    "unipc": (UniPc(), Linspace(steps=STEPS, omit=1)),
    "unipc3": (UniPc(order=3), None),  # ends at the table's least level
    "euler": (Euler(), Linspace(steps=STEPS)),
    "euler leading": (Euler(), Leading(steps=STEPS)),
    "euler karras": (Euler(), Rho(steps=STEPS, sigma_min=None, sigma_max=None)),
    "euler exponential": (Euler(), Exponential(steps=STEPS, sigma_min=None, sigma_max=None)),
    "heun": (Heun(), Linspace(steps=STEPS)),
    "ancestral": (Ancestral(), Linspace(steps=STEPS)),
    "edm euler": (Euler(), Rho(steps=STEPS)),
    "edm dpm2m": (Dpm2M(), Rho(steps=STEPS)),
}


def dummy(name: str) -> Callable:
    """The net of diffusers' scheduler tests, z t / (t + 1), as a denoiser; t is read off the scheduler's own list."""
    levels, at = np.unique(GOLDEN[f"{name} sigmas"][:-1], return_index=True)
    times = GOLDEN[f"{name} t"][np.minimum(at, len(GOLDEN[f"{name} t"]) - 1)]

    def denoise(x: jax.Array, sigma: jax.Array) -> jax.Array:
        t = jnp.interp(sigma, jnp.asarray(levels, x.dtype), jnp.asarray(times, x.dtype))
        if name.startswith("edm"):
            scale = jnp.sqrt(sigma**2 + 0.5**2)
            return 0.5**2 / scale**2 * x + sigma * 0.5 / scale * (x / scale * t / (t + 1))
        alpha = 1 / jnp.sqrt(1 + sigma**2)
        output = alpha * x * t / (t + 1)
        return alpha**2 * x - alpha * sigma * output if name.endswith(" v") else x - sigma * output

    return denoise


@pytest.mark.parametrize("name", DIFFUSERS)
def test_diffusers(name: str, shared_noise: Callable) -> None:
    shared_noise((4, 3, 8, 8))
    solver, own = DIFFUSERS[name]
    theirs = GOLDEN[f"{name} sigmas"]
    if isinstance(solver, Heun):
        theirs = np.append(np.unique(theirs)[::-1][:-1], 0.0)  # each level but the first is listed twice
    # Their tables are float32, in which 1 - alpha² has lost digits where there is little noise.
    sigmas = theirs if own is None else own.sigmas(Edm() if name.startswith("edm") else LINEAR_BETAS)
    interpolated = name == "euler" or name in ("heun", "ancestral")
    if interpolated:
        # Between whole times they interpolate sigma in t, and do not round: the ends agree, the rest need not.
        np.testing.assert_allclose(sigmas[[0, -2]], theirs[[0, -2]], rtol=2e-4)
        np.testing.assert_allclose(sigmas, theirs, rtol=0.05)
        sigmas = theirs
    np.testing.assert_allclose(sigmas, theirs, rtol=2e-4, atol=1e-9)
    # Samplers that hold alpha x begin with the test's picture as that; the others scale it, by more than sigma.
    scale = float(GOLDEN[f"{name} scale"])
    x = jnp.asarray(part(picture()) * (math.sqrt(1 + sigmas[0] ** 2) if scale == 1 else scale), jnp.float32)
    found = sample(solver, dummy(name), sigmas, x, keys(4))
    expected = GOLDEN[name] * math.sqrt(1 + sigmas[-1] ** 2)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("schedule", [Leading, Trailing, Linspace])
@pytest.mark.parametrize("steps", [1, 2, 6, 50])
def test_diffusers_times(schedule: type, steps: int) -> None:
    name = f"times {schedule.__name__.lower()} {steps}"
    times = GOLDEN[name] if name in GOLDEN else np.asarray([999])  # one step of theirs has the time of least noise
    expected = np.append(ratio(LINEAR_BETAS, times), 0.0)
    np.testing.assert_allclose(schedule(steps=steps).sigmas(LINEAR_BETAS), expected, rtol=1e-12)


# --- schedules --------------------------------------------------------------------------------------------------------


def schedules_for(path: Path, steps: int) -> list[SamplingSchedule]:
    least, greatest = ratios(path)
    ends = {"sigma_min": None if least else 0.002, "sigma_max": 80.0 if math.isinf(greatest) else None}
    common: list[SamplingSchedule] = [
        Rho(steps=steps, **ends),
        Exponential(steps=steps, **ends),
        UniformTime(steps=steps),
    ]
    if not hasattr(path, "alphas_cumprod"):
        return common
    return [*common, Leading(steps=steps), Trailing(steps=steps), Linspace(steps=steps)]


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_schedules_have_as_many_levels_as_they_say_and_none_twice(path: Path) -> None:
    least, greatest = ratios(path)
    for steps in (1, 2, 61, 1000):
        for schedule in schedules_for(path, steps):
            sigmas = schedule.sigmas(path)
            assert sigmas.dtype == np.float64
            assert len(sigmas) == steps + 1, schedule
            assert (np.diff(sigmas) < 0).all(), schedule
            assert (np.diff(sigmas.astype(np.float32)) < 0).all(), schedule  # on the device too
            assert sigmas[-1] == 0
            assert sigmas[0] <= greatest * (1 + 1e-9)
            assert sigmas[-2] >= least * (1 - 1e-9)


def test_a_table_s_times_for_any_number_of_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    times = []
    monkeypatch.setattr(sampling_schedules, "ratio", lambda path, t: times.append(t) or np.asarray(t, np.float64))
    for steps in range(1, 1001):
        for schedule in (Leading(steps=steps), Trailing(steps=steps), Linspace(steps=steps)):
            schedule.sigmas(LINEAR_BETAS)
            t = times.pop()
            assert len(t) == steps, schedule
            assert (np.diff(t) <= -1).all(), schedule
            assert (t == np.round(t)).all(), schedule
            assert t[-1] >= 0, schedule
            assert t[0] == 999 or isinstance(schedule, Leading), schedule


def test_schedules_by_hand() -> None:
    np.testing.assert_allclose(Exponential(steps=3, sigma_min=0.01, sigma_max=1.0).sigmas(Edm()), [1, 0.1, 0.01, 0])
    np.testing.assert_allclose(
        Exponential(steps=2, sigma_min=0.01, sigma_max=1.0, to_zero=False).sigmas(Edm()), [1, 0.1, 0.01]
    )
    np.testing.assert_allclose(Rho(steps=3, sigma_min=1.0, sigma_max=9.0, rho=2.0).sigmas(Edm()), [9, 4, 1, 0])
    np.testing.assert_allclose(UniformTime(steps=4).sigmas(Flow()), [math.inf, 3, 1, 1 / 3, 0])
    np.testing.assert_allclose(UniformTime(steps=4, shift=3.0).sigmas(Flow()), [math.inf, 9, 3, 1, 0])
    levels = Given(levels=(math.inf, 2.0, 0.0)).sigmas(Flow())
    assert levels.tolist() == [math.inf, 2.0, 0.0]
    made = Rho(steps=6).sigmas(Edm())
    np.testing.assert_array_equal(Given(levels=tuple(made.tolist())).sigmas(Edm()), made)
    np.testing.assert_array_equal(
        Leading(steps=6, offset=1).sigmas(LINEAR_BETAS)[:1], ratio(LINEAR_BETAS, np.array([831]))
    )


@pytest.mark.parametrize(
    ("make", "path", "words"),
    [
        (lambda: Rho(steps=0), Edm(), "1 or more"),
        (lambda: Rho(), ScaledLinearBetas(), "within"),
        (lambda: Rho(sigma_min=1e-4), Edm(), "within"),
        (lambda: Rho(sigma_min=None), Flow(), "sigma_min"),
        (lambda: Rho(sigma_max=None), Flow(), "sigma_max"),
        (lambda: Rho(sigma_min=2.0, sigma_max=1.0), Edm(), "sigma_min < sigma_max"),
        (lambda: Leading(), Flow(), "table"),
        (lambda: Leading(steps=1000, offset=1), LINEAR_BETAS, "offset"),
        (lambda: Trailing(steps=1001), LINEAR_BETAS, "fewer"),
        (lambda: Linspace(steps=1000, omit=1), LINEAR_BETAS, "fewer"),
        (lambda: UniformTime(shift=3.0), LINEAR_BETAS, "shift"),
        (lambda: Given(levels=(1.0, 1.0, 0.0)), Edm(), "followed by"),
        (lambda: Given(levels=(1.0, 2.0)), Edm(), "followed by"),
        (lambda: Given(levels=(1.0, -1.0)), Edm(), "0 or above"),
        (lambda: Given(levels=(1.0,)), Edm(), "at least 2"),
        (lambda: Given(levels=(81.0, 1.0, 0.0)), Edm(), "within"),
        (lambda: Given(levels=(math.inf, 1.0, 0.0)), Edm(), "within"),
        (lambda: Given(levels=(1.0, math.nan, 0.0)), Edm(), "followed by"),
    ],
)
def test_a_schedule_that_does_not_fit_is_refused_in_a_line(
    make: Callable[[], SamplingSchedule], path: Path, words: str
) -> None:
    with pytest.raises(UserError, match=words) as caught:
        make().sigmas(path)
    assert "\n" not in str(caught.value)
