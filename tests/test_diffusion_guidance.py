"""Guidance against closed forms, its cost, its laws, and the value that ties it to a solver and a schedule."""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import io_callback

from jaxgen.diffusion.adaptive import Adaptive
from jaxgen.diffusion.apg import Apg
from jaxgen.diffusion.cads import Cads
from jaxgen.diffusion.flow import FlowHeun
from jaxgen.diffusion.gaussian import GaussianMixture
from jaxgen.diffusion.guidance import Autoguidance, ClassifierFree, Guidance, Guided, Unguided, guide
from jaxgen.diffusion.multistep import Dpm2M, UniPc
from jaxgen.diffusion.path import Edm, Flow, LinearBetas, ScaledLinearBetas
from jaxgen.diffusion.sampling import Sampling
from jaxgen.diffusion.sampling_schedules import Leading, Rho, Trailing, UniformTime
from jaxgen.diffusion.solvers import Heun, sample, start
from jaxgen.diffusion.stochastic import Ancestral
from jaxgen.errors import UserError
from jaxgen.noise import normal
from jaxgen.typing import Condition

MEANS = np.asarray([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0], [0.2, 0.1]])  # of three classes and of null
STD = 0.5
MODES = GaussianMixture(means=((-1.0, 0.0), (0.5, 0.8), (0.7, -0.9)), stds=(0.3, 0.4, 0.5), weights=(1.0, 2.0, 1.0))
SIGMAS = Rho(steps=8).sigmas(Edm())
LABEL = jnp.eye(4)[jnp.asarray([0, 1, 2, 0])]
GUIDANCE: dict[str, Guidance] = {
    "unguided": Unguided(),
    "classifier_free": ClassifierFree(scale=3.0),
    "interval": ClassifierFree(scale=3.0, low=0.1, high=10.0),
    "rescaled": ClassifierFree(scale=3.0, rescale=0.7),
    "autoguidance": Autoguidance(scale=2.0, low=0.1, high=10.0),
    "apg": Apg(scale=3.0, threshold=2.0),
    "apg_momentum": Apg(scale=3.0, parallel=0.5, momentum=-0.5),
    "cads": Cads(inner=ClassifierFree(scale=3.0), noise=0.2, mixing=0.5),
    "cads_apg": Cads(inner=Apg(scale=3.0, momentum=-0.5)),
}
every = pytest.mark.parametrize("guidance", GUIDANCE.values(), ids=GUIDANCE)


def gaussians(x: jax.Array, sigma: jax.Array, condition: Condition) -> jax.Array:
    """Every class is a Gaussian, and null is another: guided estimates are those of a Gaussian again."""
    mean = (condition["label"][:, :, None] * jnp.asarray(MEANS, x.dtype)[None]).sum(1)
    return mean + (x - mean) / (1 + (sigma / STD) ** 2)


def worse(x: jax.Array, sigma: jax.Array, condition: Condition) -> jax.Array:
    return gaussians(x, sigma, {"label": 0.5 * condition["label"] + 0.5 * jnp.eye(4)[3][None]})


def keys(n: int, seed: int = 0) -> jax.Array:
    return jax.random.split(jax.random.key(seed), n)


def bound(guidance: Guidance, net: Callable = MODES.denoise_labelled, label: jax.Array = LABEL) -> Guided:
    return guide(guidance, net, {"label": label}, keys(len(label)), guide_net=worse)


@jax.jit
def estimate(guided: Guided, x: jax.Array, sigma: float) -> jax.Array:
    return guided.step(x, jnp.asarray(sigma), guided.memory(x))[0]


@jax.jit
def two(x: jax.Array, sigma: float) -> tuple[jax.Array, jax.Array]:
    """The estimates for LABEL and for null."""
    return bound(Unguided()).with_and_without(x, jnp.asarray(sigma))


def points(n: int = 4) -> jax.Array:
    return jax.random.normal(jax.random.key(5), (n, 2))


def test_labelled_mixture() -> None:
    x, net = points(), jax.jit(MODES.denoise_labelled)
    for i in range(3):
        alone = GaussianMixture(means=(MODES.means[i],), stds=(MODES.stds[i],))
        label = jnp.broadcast_to(jnp.eye(4)[i], (4, 4))
        np.testing.assert_allclose(net(x, 0.7, {"label": label}), jax.jit(alone.denoise)(x, 0.7), rtol=1e-5, atol=1e-6)
    null = jnp.broadcast_to(jnp.eye(4)[3], (4, 4))
    np.testing.assert_allclose(net(x, 0.7, {"label": null}), jax.jit(MODES.denoise)(x, 0.7), rtol=1e-5, atol=1e-6)


def test_mixture_is_consistent() -> None:
    """D is x + sigma² times the gradient of the log-density (Tweedie), and the density adds up to 1."""
    edge = np.linspace(-6, 6, 241)
    with jax.enable_x64(True):
        x = np.random.RandomState(0).standard_normal((5, 2))
        score = jax.jit(jax.grad(lambda x, sigma: MODES.log_density(x, sigma).sum()))
        net = jax.jit(MODES.denoise)
        for sigma in (0.1, 1.0, 30.0):
            np.testing.assert_allclose(net(x, sigma), x + sigma**2 * score(x, sigma), atol=1e-9)
        plane = np.stack(np.meshgrid(edge, edge), -1).reshape(-1, 2)
        total = np.asarray(jax.jit(MODES.density)(plane, 0.3)).sum()
        blank = np.asarray(net(x, math.inf))
    assert abs(total * (edge[1] - edge[0]) ** 2 - 1) < 1e-6
    shares, means = np.asarray(MODES.weights) / 4, np.asarray(MODES.means)
    np.testing.assert_allclose(blank, [shares @ means] * 5)
    drawn = np.asarray(MODES.sample(jax.random.key(0), 20_000))
    np.testing.assert_allclose(drawn.mean(0), shares @ means, atol=0.03)  # 4 / sqrt(20000)
    np.testing.assert_allclose(
        (drawn**2).mean(0), shares @ (means**2 + np.asarray(MODES.stds)[:, None] ** 2), atol=0.05
    )


@pytest.mark.parametrize(
    ("guidance", "mean"),
    [
        (ClassifierFree(scale=2.5), MEANS[3] + 2.5 * (MEANS[0] - MEANS[3])),
        (Apg(scale=2.5, parallel=1.0), MEANS[3] + 2.5 * (MEANS[0] - MEANS[3])),
        (Autoguidance(scale=2.5), (1 - 2.5) * (MEANS[0] + MEANS[3]) / 2 + 2.5 * MEANS[0]),
    ],
    ids=["classifier_free", "apg", "autoguidance"],
)
def test_guided_gaussians_are_a_gaussian(guidance: Guidance, mean: np.ndarray) -> None:
    """D = mean + k (x - mean) for both estimates, with one k: so also for the guided one, with the guided mean."""
    sigmas = Rho(steps=192, to_zero=False).sigmas(Edm())
    with jax.enable_x64(True):
        noise = jnp.asarray(np.random.RandomState(0).standard_normal((8, 2)))
        label = jnp.broadcast_to(jnp.eye(4)[0], (8, 4))
        guided = guide(guidance, gaussians, {"label": label}, keys(8), guide_net=worse)
        x = start(noise, sigmas)
        found = sample(UniPc(order=3), guided, sigmas, x, keys(8))
        deviation = math.sqrt((STD**2 + 0.002**2) / (STD**2 + 80.0**2))
    np.testing.assert_allclose(found, mean + (np.asarray(x) - mean) * deviation, rtol=0, atol=1e-5)


@every
def test_scale_1_is_the_conditional_net_itself(guidance: Guidance) -> None:
    if isinstance(guidance, Cads):  # at this level it leaves labels alone
        guidance = dataclasses.replace(guidance, inner=dataclasses.replace(guidance.inner, scale=1.0))
    elif not isinstance(guidance, Unguided):
        guidance = dataclasses.replace(guidance, scale=1.0)
    plain = estimate(bound(Unguided()), points(), 1.0)
    np.testing.assert_array_equal(estimate(bound(guidance), points(), 1.0), plain)
    assert {guidance.evaluations(sigma) for sigma in SIGMAS[:-1]} == {1}
    assert not jax.tree.leaves(guidance.memory(points()))


def test_two_estimates_of_one_batch_are_those_of_two_calls() -> None:
    x, net = points(), jax.jit(MODES.denoise_labelled)
    label, free = two(x, 0.8)
    np.testing.assert_allclose(label, net(x, 0.8, {"label": LABEL}), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(
        free, net(x, 0.8, {"label": jnp.broadcast_to(jnp.eye(4)[3], (4, 4))}), rtol=1e-6, atol=1e-7
    )
    found = estimate(bound(ClassifierFree(scale=3.0)), x, 0.8)
    np.testing.assert_allclose(found, free + 3.0 * (label - free), rtol=1e-6)


def test_null_may_be_given() -> None:
    other = jnp.broadcast_to(jnp.eye(4)[1], LABEL.shape)
    guided = guide(ClassifierFree(scale=2.0), gaussians, {"label": LABEL}, keys(4), null={"label": other})
    x = points()
    conditional, null = (gaussians(x, jnp.float32(1.0), {"label": label}) for label in (LABEL, other))
    np.testing.assert_allclose(estimate(guided, x, 1.0), 2 * conditional - null, rtol=1e-5, atol=1e-6)


def test_conditions_of_any_name_are_guided_with_the_null_that_is_given_for_them() -> None:
    def net(x: jax.Array, sigma: jax.Array, condition: Condition) -> jax.Array:
        return x + condition["label"][:, :2] + condition["text"].sum((1, 2))[:, None]

    x, text = points(), jnp.arange(24.0).reshape(4, 3, 2)
    condition = {"label": LABEL, "text": text}
    guided = guide(ClassifierFree(scale=3.0), net, condition, keys(4), null={"text": jnp.ones_like(text)})
    conditional, null = x + LABEL[:, :2] + text.sum((1, 2))[:, None], x + 6.0
    np.testing.assert_allclose(estimate(guided, x, 1.0), null + 3 * (conditional - null), rtol=1e-5)
    np.testing.assert_array_equal(
        estimate(guide(Unguided(), net, condition, keys(4)), x, 1.0), jax.jit(net)(x, 1.0, condition)
    )
    noised = guide(
        Cads(inner=Unguided()), lambda x, sigma, condition: condition["text"].sum(2)[:, :2], condition, keys(4)
    )
    np.testing.assert_array_equal(estimate(noised, x, 80.0), text.sum(2)[:, :2])  # only labels get noise


def test_a_condition_without_null_is_named() -> None:
    text = {"text": jnp.ones((4, 3))}
    guided = guide(ClassifierFree(scale=2.0), lambda x, sigma, condition: x, text, keys(4))
    with pytest.raises(UserError, match="stands for no text: give a null") as caught:
        estimate(guided, points(), 1.0)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="null for text"):
        guide(ClassifierFree(), gaussians, {"label": LABEL}, keys(4), null=text)
    with pytest.raises(UserError, match="the condition has none"):
        estimate(guide(Cads(), lambda x, sigma, condition: x, text, keys(4)), points(), 1.0)


def test_rescaling_restores_the_spread() -> None:
    x = jax.random.normal(jax.random.key(0), (4, 2))
    label = np.asarray(two(x, 1.0)[0])
    plain = estimate(bound(ClassifierFree(scale=5.0)), x, 1.0)
    full = estimate(bound(ClassifierFree(scale=5.0, rescale=1.0)), x, 1.0)
    half = estimate(bound(ClassifierFree(scale=5.0, rescale=0.5)), x, 1.0)
    np.testing.assert_allclose(full.std(1), label.std(1), rtol=1e-4)
    np.testing.assert_allclose(half, (full + plain) / 2, rtol=1e-4, atol=1e-6)
    assert np.abs(plain.std(1) / label.std(1) - 1).max() > 0.1


def test_projection_momentum_and_threshold() -> None:
    x, sigma = points(), jnp.float32(1.0)
    label, null = (np.asarray(a) for a in two(x, 1.0))
    difference = label - null
    added = estimate(bound(Apg(scale=2.0)), x, 1.0) - label
    np.testing.assert_allclose((added * label).sum(1), 0, atol=1e-5)  # only what is across the estimate is left
    assert np.abs(added).max() > 0.01
    parallel = estimate(bound(Apg(scale=2.0, parallel=1.0)), x, 1.0) - label
    np.testing.assert_allclose(parallel, difference, rtol=1e-4, atol=1e-6)
    least = float(np.linalg.norm(difference, axis=1).min())
    limited = estimate(bound(Apg(scale=2.0, parallel=1.0, threshold=least)), x, 1.0) - label
    np.testing.assert_allclose(np.linalg.norm(limited, axis=1), least, rtol=1e-4)

    guided = bound(Apg(scale=2.0, parallel=1.0, momentum=-0.5))
    memory = guided.memory(x)
    for factor in (1.0, 1.0 - 0.5, 1.0 - 0.5 * 0.5):  # the same difference, three times
        found, memory = guided.step(x, sigma, memory)
        np.testing.assert_allclose(found - label, factor * difference, rtol=1e-4, atol=1e-5)


def test_cads_anneals_the_noise_on_labels() -> None:
    seen: list[jax.Array] = []

    def net(x: jax.Array, sigma: jax.Array, condition: Condition) -> jax.Array:
        seen.append(condition["label"])
        return x

    def labels(value: Cads, sigma: float, rows: jax.Array) -> np.ndarray:
        seen.clear()
        guide(value, net, {"label": LABEL[: len(rows)]}, rows).step(points(len(rows)), jnp.float32(sigma), ())
        return np.asarray(seen[0])

    def level(t: float) -> float:
        return t / (1 - t)

    value = Cads(inner=Unguided(), noise=0.3, tau1=0.5, tau2=0.9, mixing=0.0)
    np.testing.assert_array_equal(labels(value, level(0.5) * 0.999, keys(4)), LABEL)
    noisy = labels(value, level(0.7), keys(4))
    np.testing.assert_array_equal(noisy[:, 3], LABEL[:, 3])
    np.testing.assert_array_equal(noisy, labels(value, level(0.7), keys(4)))  # the same at every visit of a level
    np.testing.assert_allclose(noisy[:1], labels(value, level(0.7), keys(4)[:1]), rtol=1e-5)
    assert (noisy[:, :3] != labels(value, level(0.71), keys(4))[:, :3]).all()
    # gamma = 1/2 here; and at pure noise nothing is left of the label.
    size = 4000
    many = jnp.broadcast_to(LABEL[:1], (size, 4))
    seen.clear()
    guide(value, net, {"label": many}, keys(size)).step(points(size), jnp.float32(level(0.7)), ())
    drawn = np.asarray(seen[0])[:, :3]
    np.testing.assert_allclose(
        drawn.mean(0), math.sqrt(0.5) * np.asarray(LABEL[0, :3]), atol=4 * 0.3 / math.sqrt(2 * size)
    )
    np.testing.assert_allclose(drawn.std(0), 0.3 * math.sqrt(0.5), rtol=4 / math.sqrt(2 * size))
    assert np.abs(labels(value, math.inf, keys(4))[:, :3]).max() < 0.3 * 5
    restored = labels(dataclasses.replace(value, mixing=1.0), level(0.7), keys(4))[:, :3]
    np.testing.assert_allclose(restored.mean(1), 1 / 3, rtol=1e-5)
    np.testing.assert_allclose(restored.std(1), np.asarray(LABEL[:, :3]).std(1), rtol=1e-5)


@pytest.mark.parametrize("name", ["unguided", "interval", "autoguidance", "apg_momentum", "cads"])
def test_cost_batch_and_purity_in_a_sampler(name: str) -> None:
    """Evaluations are as many as said before, a sample does not depend on its batch, and nothing is left behind."""
    guidance, rows = GUIDANCE[name], []

    def counted(x: jax.Array, sigma: jax.Array, condition: Condition) -> jax.Array:
        io_callback(lambda _: rows.append(len(x)), None, sigma, ordered=True)
        return MODES.denoise_labelled(x, sigma, condition)

    @jax.jit
    def run(x: jax.Array, label: jax.Array, own: jax.Array) -> jax.Array:
        guided = guide(guidance, counted, {"label": label}, own, guide_net=counted)
        return sample(Heun(), guided, SIGMAS, x, own)

    x, label = 80 * points(8), jnp.eye(4)[jnp.arange(8) % 3]
    together = np.asarray(run(x, label, keys(8)))
    jax.effects_barrier()
    nfe = Sampling(solver=Heun(), schedule=Rho(steps=8), guidance=guidance).nfe(Edm())
    assert sum(rows) == 8 * nfe
    if isinstance(guidance, Unguided):
        assert nfe == 15
    elif getattr(guidance, "low", 0.0):
        assert 15 < nfe < 30
    else:
        assert nfe == 30
    assert np.isfinite(together).all()
    np.testing.assert_array_equal(together, run(x, label, keys(8)))
    np.testing.assert_allclose(together[5:6], run(x[5:6], label[5:6], keys(8)[5:6]), rtol=1e-5, atol=1e-5)


def test_the_interval_s_ends() -> None:
    guidance = ClassifierFree(scale=3.0, low=0.5, high=2.0)
    assert [guidance.evaluations(sigma) for sigma in (0.4, 0.5, 0.51, 2.0, 2.01, math.inf)] == [1, 1, 2, 2, 1, 1]
    guided, always, plain = bound(guidance), bound(ClassifierFree(scale=3.0)), bound(Unguided())
    x = points()
    for sigma, other in ((0.5, plain), (0.51, always), (2.0, always), (2.01, plain)):
        np.testing.assert_allclose(estimate(guided, x, sigma), estimate(other, x, sigma), rtol=1e-5, atol=1e-6)


# --- Sampling ---------------------------------------------------------------------------------------------------------


def test_nfe_is_known_before() -> None:
    assert Sampling(solver=Heun(), schedule=Rho(steps=18)).nfe(Edm()) == 35
    assert Sampling(solver=Dpm2M(), schedule=Leading(steps=20)).nfe(LinearBetas()) == 20
    assert Sampling(solver=Heun(), schedule=Rho(steps=32), guidance=Autoguidance(scale=2.0)).nfe(Edm()) == 126
    assert Sampling(solver=Adaptive()).nfe(Edm()) is None


@pytest.mark.parametrize(
    ("sampling", "path"),
    [
        (Sampling(guidance=ClassifierFree(scale=1.5)), Edm()),
        (Sampling(solver=FlowHeun(), schedule=UniformTime(steps=6), guidance=Apg(scale=2.0, momentum=-0.5)), Flow()),
        (Sampling(solver=Ancestral(), schedule=Trailing(steps=10), guidance=Cads()), LinearBetas()),
    ],
    ids=["heun", "flow", "ddpm"],
)
def test_run(sampling: Sampling, path: Edm | Flow | LinearBetas) -> None:
    rows, label = keys(8), jnp.eye(4)[jnp.arange(8) % 3]

    @jax.jit
    def run(rows: jax.Array, label: jax.Array) -> tuple:
        noise = normal(rows, 0, (2,))
        return sampling.run(MODES.denoise_labelled, path, noise, rows, condition={"label": label}, trace=True)

    found, steps = run(rows, label)
    assert found.shape == (8, 2)
    assert found.dtype == np.float32
    assert len(np.unique(found, axis=0)) == 8
    if isinstance(path, LinearBetas):  # the one with noise in the solver and in the labels
        np.testing.assert_allclose(found[2:3], run(rows[2:3], label[2:3])[0], rtol=1e-5, atol=1e-5)
    sigmas = sampling.schedule.sigmas(path)
    assert steps.x.shape == (len(sigmas), 8, 2)
    noise = jnp.stack([jax.random.normal(jax.random.fold_in(key, 0), (2,)) for key in rows])
    np.testing.assert_allclose(steps.x[0], start(noise, sigmas), rtol=1e-6)


def test_run_without_a_condition_and_of_images() -> None:
    def net(x: jax.Array, sigma: jax.Array, condition: Condition) -> jax.Array:
        assert condition == {}
        return x / (1 + sigma**2)

    noise = normal(keys(2), 0, (4, 4, 3))
    found, steps = Sampling().run(net, Edm(), noise, keys(2), condition={})
    assert steps is None
    assert found.shape == (2, 4, 4, 3)
    labelled = Sampling(guidance=ClassifierFree(rescale=0.5)).run(
        lambda x, sigma, condition: x / (1 + sigma**2) * condition["label"][:, :1, None, None],
        Edm(),
        noise,
        keys(2),
        condition={"label": LABEL[:2]},
    )[0]
    assert labelled.shape == (2, 4, 4, 3)


FULL = {"conditional": True, "droppable": True, "guide": True}


@pytest.mark.parametrize(
    ("sampling", "path", "has", "words"),
    [
        (Sampling(guidance=ClassifierFree()), Edm(), FULL | {"conditional": False}, "takes none"),
        (Sampling(guidance=Apg()), Edm(), FULL | {"conditional": False}, "takes none"),
        (Sampling(guidance=Cads(inner=Unguided())), Edm(), FULL | {"conditional": False}, "takes none"),
        (Sampling(guidance=ClassifierFree()), Edm(), FULL | {"droppable": False}, "labels dropped"),
        (Sampling(guidance=Cads()), Edm(), FULL | {"droppable": False}, "labels dropped"),
        (Sampling(guidance=Autoguidance()), Edm(), FULL | {"guide": False}, "guiding model"),
        (Sampling(solver=Heun(), schedule=UniformTime(steps=4)), Flow(), FULL, "use FlowHeun"),
        (Sampling(), ScaledLinearBetas(), FULL, "within"),
    ],
)
def test_what_does_not_go_together_is_refused(sampling: Sampling, path: Edm, has: dict[str, bool], words: str) -> None:
    with pytest.raises(UserError, match=words):
        sampling.check(path, **has)


@every
def test_what_goes_together_is_not_refused(guidance: Guidance) -> None:
    Sampling(guidance=guidance).check(Edm(), **FULL)
    Sampling(guidance=ClassifierFree(scale=1.0)).check(Edm(), **(FULL | {"droppable": False}))


@pytest.mark.parametrize(
    "make",
    [
        lambda: ClassifierFree(low=2.0, high=1.0),
        lambda: ClassifierFree(low=-1.0),
        lambda: ClassifierFree(rescale=1.5),
        lambda: Autoguidance(low=1.0, high=1.0),
        lambda: Apg(threshold=0.0),
        lambda: Cads(tau1=0.9, tau2=0.5),
    ],
)
def test_values_out_of_range_are_refused(make: Callable) -> None:
    with pytest.raises(UserError):
        make()
