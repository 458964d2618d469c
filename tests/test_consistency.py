"""Consistency tuning against closed forms, and its samples and pictures."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from golden.weights import array
from small import consistency
from test_text_conditions import BATCH, LATENT, SPEC

from jaxgen import tree
from jaxgen.diffusion.consistency import Doubling, Multistep, distance, per_gap
from jaxgen.diffusion.noise_distributions import LogNormal, Uniform, middles
from jaxgen.diffusion.path import Edm, Flow
from jaxgen.diffusion.predictions import Direct, EdmPreconditioning
from jaxgen.diffusion.quantities import X0, Velocity
from jaxgen.diffusion.sampling_schedules import Given, Rho
from jaxgen.diffusion.solvers import sample
from jaxgen.errors import UserError
from jaxgen.learner import Learner
from jaxgen.noise import numbered
from jaxgen.objectives.consistency import ConsistencyTuning
from jaxgen.optim.optimizer import Optimizer, RAdam
from jaxgen.optim.schedules import Constant
from jaxgen.program import Program
from jaxgen.runs.folder import RunFolder
from jaxgen.runs.restore import restore
from jaxgen.weights.trained import FromRun

STORED = pathlib.Path(__file__).parent / "stored_run" / "run"
MEAN, STD, DATA = 0.3, 0.7, 0.5
TUNED = Optimizer(learning_rate=Constant(value=1e-2), method=RAdam())


def exact(x: Any, sigma: Any, mean: Any = MEAN, std: Any = STD) -> Any:
    """The consistency function of Gaussian data."""
    return mean + (x - mean) * std / jnp.sqrt(std**2 + sigma**2)


class Exact(nn.Module):
    """Its output makes EDM's preconditioning the consistency function of Gaussian data, of a mean and deviation."""

    mean: float = MEAN
    std: float = STD
    classes: int = 0

    @nn.compact
    def __call__(self, x, noise, condition, *, train: bool):
        del condition, train
        mean = self.param("mean", nn.initializers.constant(self.mean), ())
        std = self.param("std", nn.initializers.constant(self.std), ())
        sigma = jnp.exp(4 * noise).reshape(-1, *[1] * (x.ndim - 1))
        root = jnp.hypot(sigma, DATA)
        z = x * root
        return (exact(z, sigma, mean, std) - z * DATA**2 / root**2) * root / (sigma * DATA)


class Dropping(nn.Module):
    """A net that is little else than dropout."""

    classes: int = 0

    @nn.compact
    def __call__(self, x, noise, condition, *, train: bool):
        del condition
        w = self.param("w", nn.initializers.ones, x.shape[-1:])
        return nn.Dropout(0.5, deterministic=not train)(jnp.ones_like(x)) * w[None] * jnp.exp(-noise)[:, None]


def tuning(module: nn.Module, **fields: Any) -> ConsistencyTuning:
    fields = {"path": Edm(), "prediction": EdmPreconditioning(sigma_data=DATA)} | fields
    return ConsistencyTuning(net=Learner(module=module, optimizer=TUNED), **fields)


def points(n: int, d: int = 4) -> dict[str, Any]:
    x0 = MEAN + STD * array("points", (n, d), 1.0)
    return {"image": jnp.asarray(x0), "index": jnp.arange(n), "valid": jnp.ones(n, bool)}


def spec(d: int = 4) -> dict[str, Any]:
    return {"image": jax.ShapeDtypeStruct((2, d), jnp.float32)}


# --- pairs of levels --------------------------------------------------------------------------------------------------


def test_gaps_are_those_of_the_paper_and_shrink_from_stage_to_stage() -> None:
    sigma, gaps = jnp.array([0.05, 0.5, 5.0, 80.0]), Doubling()
    for stage in range(8):
        found = gaps.lower(sigma, jnp.float32((stage + 0.5) / 8))
        n = 1 + 8 / (1 + np.exp(np.asarray(sigma, np.float64)))
        np.testing.assert_allclose(found, np.maximum(0, sigma * (1 - n / 2 ** (stage + 1))), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(gaps.lower(sigma, jnp.float32(1.0)), gaps.lower(sigma, jnp.float32(0.99)))
    short = Doubling(q=256.0, stages=1)
    np.testing.assert_allclose(short.lower(sigma, jnp.float32(0.0)), gaps.lower(sigma, jnp.float32(0.9)), rtol=1e-6)
    np.testing.assert_array_equal(Doubling().lower(sigma, jnp.float32(0.0))[:2], 0.0)  # a denoiser's targets


def test_the_distance_is_a_length_with_a_finite_gradient() -> None:
    a, b = (jnp.asarray(array(name, (3, 2, 5), 1.0)) for name in "ab")
    np.testing.assert_allclose(distance(a, b, 1e-6), jnp.linalg.norm((a - b).reshape(3, -1), axis=1), rtol=1e-5)
    length = jnp.linalg.norm((a - b).reshape(3, -1), axis=1)
    np.testing.assert_allclose(distance(a, b, 0.3), jnp.sqrt(length**2 + 0.09) - 0.3, rtol=1e-5)
    np.testing.assert_array_equal(distance(a, a, 1e-3), 0.0)
    sigma = jnp.ones(3)
    gradient = jax.grad(lambda x: per_gap(distance(x, a, 1e-3), sigma, sigma).sum())(a)
    np.testing.assert_array_equal(gradient, 0.0)


# --- f ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "prediction"),
    [(Edm(), EdmPreconditioning(sigma_data=DATA)), (Flow(), Direct(quantity=Velocity()))],
    ids=["edm", "flow"],
)
def test_without_noise_f_is_the_identity_and_with_little_noise_nearly_so(path: Any, prediction: Any) -> None:
    objective = tuning(Dropping(), path=path, prediction=prediction)
    net = objective.fixed_net(objective.init(jax.random.key(0), spec()), {})
    x = points(6)["image"]
    sigma = jnp.array([0.0, 0.0, 1e-4, 1e-3, 0.5, 2.0])
    end, _ = objective._jump(net, x, sigma)
    np.testing.assert_array_equal(end[:2], x[:2])
    assert np.abs(end[2:4] - x[2:4]).max() < 2e-2
    assert np.abs(end[4:] - x[4:]).min() > 1e-3
    moved = jax.grad(lambda x: objective._jump(net, x, sigma)[0].sum())(x)
    assert np.isfinite(moved).all()


def test_where_both_levels_are_one_loss_and_gradient_are_0() -> None:
    @dataclasses.dataclass(frozen=True)
    class None_:
        def lower(self, sigma, progress):
            return sigma

    objective = tuning(Dropping(), gaps=None_())
    state = objective.init(jax.random.key(0), spec())
    after, scalars = jax.jit(objective.step)(state, points(8), jax.random.key(1))
    assert scalars["loss"] == 0
    assert scalars["gradient_norm"] == 0
    np.testing.assert_array_equal(after.nets["net"].params["w"], state.nets["net"].params["w"])


def test_both_points_of_a_pair_see_the_same_dropout() -> None:
    """With masks of their own the net's outputs would differ by about 1 where the levels nearly agree."""
    objective = tuning(
        Dropping(), gaps=Doubling(q=1e5, stages=1, k=0.0), noise_distribution=LogNormal(mean=0.0, std=0.1)
    )
    state = objective.init(jax.random.key(0), spec())
    _, scalars = jax.jit(objective.step)(state, points(64), jax.random.key(1))
    assert 0 < scalars["apart"] < 1e-3


def loss_of(gap: float, n: int) -> Callable[[Any], jax.Array]:
    """The tuning's loss of a function with this mean and deviation, against a copy that is held fixed."""
    x0, eps = (jnp.asarray(array(name, (n, 1), 1.0)) for name in ("x0", "eps"))
    x0 = MEAN + STD * x0
    sigma = jnp.exp(jnp.asarray(array("sigma", (n,), 0.5)))
    r = sigma * (1 - gap)

    def loss(theta: Any) -> jax.Array:
        held = jax.lax.stop_gradient(theta)
        far = exact(x0 + sigma[:, None] * eps, sigma[:, None], *theta)
        near = exact(x0 + r[:, None] * eps, r[:, None], *held)
        return per_gap(distance(far, near, 1e-3), sigma, r).mean()

    return loss


def test_the_exact_function_of_gaussian_data_stays_where_it_is() -> None:
    """The nearer the points, the less of the gradient that another function has is left of its own."""
    truth, other = (jnp.float32(MEAN), jnp.float32(STD)), (jnp.float32(MEAN), jnp.float32(1.3 * STD))

    def share(gap: float) -> float:
        gradient = jax.jit(jax.grad(loss_of(gap, 100_000)))
        return float(np.linalg.norm(gradient(truth)) / np.linalg.norm(gradient(other)))

    assert share(0.02) < 0.2 * share(0.2) < 0.15 * share(0.8)
    assert share(0.02) < 0.03


def test_the_losss_slope_leads_to_the_exact_function() -> None:
    """Followed from elsewhere, it finds the mean and the deviation of the data."""
    theta, tx = (jnp.float32(-0.4), jnp.float32(1.5)), optax.adam(0.03)
    held, gradient = tx.init(theta), jax.jit(jax.grad(loss_of(0.05, 20_000)))
    for _ in range(200):
        updates, held = tx.update(gradient(theta), held)
        theta = optax.apply_updates(theta, updates)
    np.testing.assert_allclose(theta, (MEAN, STD), atol=0.06)


def test_a_step_and_its_scalars_are_the_formula() -> None:
    objective = tuning(Exact(), gaps=Doubling(q=4.0, stages=1), noise_distribution=Uniform())
    state, batch, key = objective.init(jax.random.key(0), spec()), points(16), jax.random.key(3)
    after, scalars = jax.jit(objective.step)(state, batch, key)
    k_level, k_noise, *_ = jax.random.split(key, 4)
    sigma = np.asarray(Uniform().draw(k_level, 16, Edm())[0], np.float64)[:, None]
    r = np.maximum(0, sigma * (1 - (1 + 8 / (1 + np.exp(sigma))) / 4))
    x0, eps = np.asarray(batch["image"], np.float64), np.asarray(jax.random.normal(k_noise, (16, 4)), np.float64)
    ends = [exact(x0 + s * eps, s) for s in (sigma, r)]
    apart = np.sqrt(np.square(ends[0] - ends[1]).sum(1) + 1e-6) - 1e-3
    np.testing.assert_allclose(scalars["apart"], apart.mean(), rtol=1e-3)
    np.testing.assert_allclose(scalars["loss"], (apart / (sigma - r)[:, 0]).mean(), rtol=1e-3)
    np.testing.assert_allclose(scalars["error"], np.square(ends[0] - x0).mean(), rtol=1e-3)
    assert int(after.step) == 1


# --- samples ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [(80.0, 0.0), (80.0, 0.821, 0.0), (80.0, 5.0, 0.8, 0.1, 0.0)])
def test_samples_of_the_exact_function_have_the_datas_mean_and_deviation(levels: tuple[float, ...]) -> None:
    n = 20_000
    objective = tuning(Exact(), schedule=Given(levels=levels))
    state = objective.init(jax.random.key(0), spec(1))
    keys = numbered(jax.random.key(1), jnp.arange(n))
    x = jax.jit(objective.generate)(state, objective.noise(keys, (1,)), keys, {})
    assert objective.protocol()["nfe"] == len(levels) - 1
    np.testing.assert_allclose((x.mean(), x.std()), (MEAN, STD), atol=5 / np.sqrt(n))


def test_multistep_is_jump_and_noise() -> None:
    keys = numbered(jax.random.key(0), jnp.arange(3))
    x = jnp.asarray(array("x", (3, 2), 80.0))
    found = sample(Multistep(), lambda x, sigma: exact(x, sigma), np.array([80.0, 2.0, 0.0]), x, keys)
    noise = jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, 0), (2,)))(keys)
    np.testing.assert_allclose(found, exact(exact(x, 80.0) + 2.0 * noise, 2.0), rtol=1e-5)
    with pytest.raises(UserError, match=r"jumps to noise level 0, where its schedule must end; this ends at 1\.0"):
        sample(Multistep(), lambda x, sigma: x, np.array([80.0, 1.0]), x, keys)


def test_a_schedule_can_be_chosen_and_nothing_else() -> None:
    objective = consistency().objective
    assert objective.with_options({"schedule": Rho(steps=3)}).protocol()["nfe"] == 3
    with pytest.raises(UserError, match="has no guidance to choose; it has a schedule"):
        objective.with_options({"guidance": None})
    with pytest.raises(UserError, match="takes no guiding model"):
        objective.check_sampling(guide=True)


def test_tuning_starts_from_what_a_run_has_learned() -> None:
    run = restore(RunFolder(STORED), None, print)
    trained: Any = run.experiment.objective
    made = consistency()
    learner = dataclasses.replace(made.objective.net, module=trained.net.module, weights=FromRun(str(STORED)))
    objective = dataclasses.replace(made.objective, net=learner, prediction=trained.prediction)
    state = Program.of(dataclasses.replace(made, objective=objective), devices=jax.devices()[:1]).init()
    wanted = run.state.nets["net"].best_params
    for (path, a), (_, b) in zip(tree.leaves(wanted), tree.leaves(state.nets["net"].params), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=path)


def test_latents_are_tuned_for_texts_and_samples_are_pixels() -> None:
    learned = {name: getattr(LATENT, name) for name in ("net", "text", "latent", "path", "prediction", "side")}
    objective = ConsistencyTuning(**learned, condition_dropout=0.5)
    objective.check(SPEC, ())
    state = jax.jit(lambda key: objective.init(key, SPEC))(jax.random.key(0))
    after, scalars = jax.jit(objective.step)(state, BATCH, jax.random.key(1))
    assert np.isfinite(scalars["loss"])
    for name, moves in (("net", True), ("text", True), ("autoencoder", False)):
        pairs = zip(jax.tree.leaves(state.nets[name].params), jax.tree.leaves(after.nets[name].params), strict=True)
        assert any(not np.array_equal(a, b) for a, b in pairs) == moves, name
    keys = numbered(jax.random.key(2), jnp.arange(6))
    noise = objective.noise(keys, (8, 8, 3))
    assert noise.shape == (6, 4, 4, 3)
    samples = jax.jit(objective.generate)(after, noise, keys, {"tokens": BATCH["tokens"]})
    assert samples.shape == (6, 8, 8, 3)
    assert np.isfinite(samples).all()
    batch = BATCH | {"index": jnp.arange(6), "valid": jnp.ones(6, bool)}
    assert "loss" in jax.eval_shape(objective.evaluate, after, batch, jax.random.key(3))
    shown = jax.eval_shape(objective.preview, after, batch, jax.random.key(3))
    assert {name: picture.images.shape for name, picture in shown.items()} == {
        "samples": (2, 2, 8, 8, 3),
        "one_evaluation": (2, 2, 8, 8, 3),
        "ends": (4, 8, 8, 8, 3),
    }


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"prediction": Direct(quantity=X0())}, "leaves the net free to change images without noise"),
        ({"schedule": Given(levels=(80.0, 1.0))}, "must end; this ends at 1.0"),
        ({"schedule": Given(levels=(99.0, 0.0))}, "Given visits levels 99 to 99"),
        ({"path": Flow()}, "EdmPreconditioning needs a path that leaves x0 unscaled"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], cause: str) -> None:
    objective = tuning(Exact(), **change)
    with pytest.raises(UserError, match=cause) as caught:
        objective.check(spec(), ())
    assert "\n" not in str(caught.value)


def test_values_out_of_range_are_refused() -> None:
    for make, cause in (
        (lambda: Doubling(q=1.0), "Doubling.q is 1.0; it must be above 1"),
        (lambda: Doubling(stages=0), "Doubling.stages is 0"),
        (lambda: tuning(Exact(), flat=0.0), "flat is 0.0; it must be above 0"),
    ):
        with pytest.raises(UserError, match=cause):
            make()


def test_errors_are_measured_where_the_training_looks() -> None:
    objective = tuning(Exact(), noise_distribution=LogNormal(mean=0.0, std=1.0))
    state = objective.init(jax.random.key(0), spec())
    found = objective.evaluate(state, points(8), jax.random.key(0))
    levels = middles(objective.noise_distribution, Edm(), 8)
    assert levels == sorted(levels)
    assert set(found) == {"loss", *[f"error_at_{level:.3g}" for level in levels]}
    errors = [float(found[f"error_at_{level:.3g}"].total) for level in levels]
    assert errors[0] < errors[-1]


# --- the optimizer ----------------------------------------------------------------------------------------------------


def test_rectified_adam_steps_by_momentum_first_and_then_as_adam_does() -> None:
    """Until the second moment has seen 5 gradients' worth it is momentum alone, and then rectified."""
    tx, b1, b2 = Optimizer(learning_rate=Constant(value=0.1), method=RAdam(b2=0.9)).transform(20), 0.9, 0.9
    grads = np.asarray(array("grads", (12, 3), 1.0), np.float64)
    held, m, v, most = tx.init(jnp.zeros(3)), np.zeros(3), np.zeros(3), 2 / (1 - b2) - 1
    for t, g in enumerate(grads, 1):
        found, held = tx.update(jnp.asarray(g, jnp.float32), held, jnp.zeros(3))
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        seen = most - 2 * t * b2**t / (1 - b2**t)
        wanted = m / (1 - b1**t)
        if seen >= 5:
            share = np.sqrt((seen - 4) * (seen - 2) * most / ((most - 4) * (most - 2) * seen))
            wanted = share * wanted / (np.sqrt(v / (1 - b2**t)) + 1e-8)
        np.testing.assert_allclose(found, -0.1 * wanted, rtol=1e-4)
