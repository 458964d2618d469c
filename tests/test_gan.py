"""GANs as an objective: what each side sees and learns, what is remembered, and what samples depend on."""

import dataclasses
import functools
import json
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from processes import call
from small import gan

from jaxgen import tree
from jaxgen.adversarial import diagnostics, game
from jaxgen.adversarial.augmentation import Adaptive, Probability
from jaxgen.adversarial.diffaugment import DiffAugment
from jaxgen.adversarial.losses import (
    AdversarialLoss,
    NonSaturating,
    RelativisticAverage,
    RelativisticPairing,
    Wasserstein,
)
from jaxgen.adversarial.path_length import PathLength
from jaxgen.adversarial.penalties import R1, R2, GradientPenalty
from jaxgen.data.batches import DataSpec
from jaxgen.data.mixture import Ring
from jaxgen.errors import UserError
from jaxgen.learner import Learner
from jaxgen.metrics import fidelity
from jaxgen.models.dcgan import BatchNorm, DcganDiscriminator, DcganGenerator
from jaxgen.models.mlp import MlpDiscriminator, MlpGenerator
from jaxgen.models.stylegan2_discriminator import StyleGan2Discriminator
from jaxgen.nn.norm import batch_norm
from jaxgen.objective import Diagnosing, Generative, Objective
from jaxgen.objectives.gan import Gan
from jaxgen.optim.ema import HalfLifeEma
from jaxgen.optim.optimizer import Adam, Optimizer, Sgd
from jaxgen.optim.schedules import Constant, CosineRamp
from jaxgen.parallel.mesh import MeshShape, put_batch
from jaxgen.pictures.previews import COLUMNS, ROWS
from jaxgen.program import Program
from jaxgen.runs.checkpoints import Checkpoints
from jaxgen.sampling import draw
from jaxgen.state import State

# Programs that run a few times only: on a CPU, optimizing them takes longer than running them.
quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
compared = jax.jit(diagnostics.compared)


def sgd(rate: float) -> Optimizer:
    return Optimizer(learning_rate=Constant(value=rate), method=Sgd(momentum=0.0))


# --- nets whose every step is known -----------------------------------------------------------------------------------


def count(net: nn.Module, train: bool) -> None:
    """Count the calls in training, as batch norm moves its statistics."""
    calls = net.variable("moving", "calls", jnp.zeros, ())
    if train and not net.is_initializing():
        calls.value += 1


class Point(nn.Module):
    """The generator of the Dirac-GAN: theta, whatever z is."""

    theta: float = 1.0
    latent: int = 1
    classes: int = 0

    @nn.compact
    def __call__(self, z, condition, noise, *, train, truncation=1.0):
        count(self, train)
        return jnp.broadcast_to(self.param("theta", lambda _: jnp.float32(self.theta)), (len(z), 1))


class Line(nn.Module):
    """Its discriminator: psi x + bias."""

    psi: float = 0.5
    bias: float = 0.0
    classes: int = 0

    @nn.compact
    def __call__(self, image, condition, *, train):
        count(self, train)
        return self.param("psi", lambda _: jnp.float32(self.psi)) * image[:, 0] + self.bias


REAL, RATE, STEPS = 0.25, 0.3, 5


def dirac(
    generator: nn.Module = Point(),  # noqa: B008
    discriminator: nn.Module = Line(),  # noqa: B008
    rates: tuple[float, float] = (RATE / 2, RATE),
    ema: tuple = (),
    **fields: Any,
) -> Gan:
    return Gan(
        generator=Learner(module=generator, optimizer=sgd(rates[0]), ema=ema),
        discriminator=Learner(module=discriminator, optimizer=sgd(rates[1])),
        **{"penalties": (), "total_steps": STEPS, **fields},
    )


def played(objective: Gan, steps: int, batch: dict[str, jax.Array], classes: tuple[str, ...] = ()) -> State:
    spec = jax.eval_shape(lambda: batch)
    objective.check(spec, classes)
    state = quick(functools.partial(objective.init, spec=spec))(jax.random.key(0))
    step = quick(objective.step)
    for i in range(steps):
        state, _ = step(state, batch, jax.random.key(i))
    return state


def by_hand(loss: AdversarialLoss, turns: int, damping: list[float]) -> tuple[float, float, float]:
    """Return psi, theta and the EMA of theta after a few steps; each net has seen the other's newest step."""

    def of(side: str, psi: jax.Array, theta: jax.Array) -> jax.Array:
        return getattr(loss, side)(jnp.full(2, psi * REAL), jnp.full(2, psi * theta)).mean()

    gradient_psi = jax.jit(jax.grad(functools.partial(of, "discriminator")))
    gradient_theta = jax.jit(jax.grad(functools.partial(of, "generator"), 1))
    psi, theta, ema = 0.5, 1.0, 1.0
    for gamma in damping:
        for _ in range(turns):
            psi -= RATE * (float(gradient_psi(psi, theta)) + gamma * psi)
        theta -= RATE / 2 * float(gradient_theta(psi, theta))
        ema = theta + 0.5 ** (1 / 3) * (ema - theta)
    return psi, theta, ema


@pytest.mark.parametrize(
    ("fields", "turns", "damping"),
    [
        # R1 and R2 add up; a lazy penalty comes each third step, three times as strong.
        (
            {"penalties": (R1(gamma=Constant(value=0.2)), R2(gamma=Constant(value=0.4), every=3))},
            1,
            [1.4, 0.2, 0.2, 1.4],
        ),
        (
            {"loss": Wasserstein(), "discriminator_steps": 3, "penalties": (R1(gamma=Constant(value=1.0)),)},
            3,
            [1.0] * 4,
        ),
        ({"loss": NonSaturating(), "microbatches": 2}, 1, [0.0] * 4),
    ],
    ids=["pairs, lazily penalised", "three updates of D", "microbatches"],
)
def test_the_dirac_gan_moves_as_by_hand(fields, turns, damping):
    objective = dirac(ema=(HalfLifeEma(steps=3.0, ramp=0.0),), **fields)
    state = played(objective, len(damping), {"image": jnp.full((6 * 2, 1), REAL)})
    psi, theta, ema = by_hand(objective.loss, turns, damping)
    generator, discriminator = state.nets["generator"], state.nets["discriminator"]
    np.testing.assert_allclose(discriminator.params["psi"], psi, rtol=1e-5)
    np.testing.assert_allclose(generator.params["theta"], theta, rtol=1e-5)
    np.testing.assert_allclose(generator.ema[0]["theta"], ema, rtol=1e-5)
    # A net's stats move in its own updates only: of G once, of D for real and for fake images.
    n = len(damping) * objective.microbatches
    assert float(generator.stats["moving"]["calls"]) == n
    assert float(discriminator.stats["moving"]["calls"]) == 2 * turns * n


@pytest.mark.parametrize("period", [1, 4])
def test_a_lazy_term_is_as_strong_in_the_mean_over_steps(period):
    of = jax.jit(jax.vmap(jax.value_and_grad(lambda w, step: game.lazily(lambda: w**2, step, period)), (None, 0)))
    value, gradient = of(3.0, jnp.arange(8))
    due = np.arange(8) % period == 0
    np.testing.assert_allclose(value, np.where(due, 9.0 * period, 0.0))
    np.testing.assert_allclose(gradient, np.where(due, 6.0 * period, 0.0))


# --- who sees what ----------------------------------------------------------------------------------------------------

HEARD: list[tuple[str, np.ndarray, np.ndarray]] = []


def hear(side: str, real: jax.Array, fake: jax.Array) -> None:
    jax.debug.callback(lambda real, fake: HEARD.append((side, real, fake)), real, fake)


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeardPairs(RelativisticPairing):
    """RpGAN, whose outputs can be read afterwards."""

    def discriminator(self, real, fake):
        hear("discriminator", real, fake)
        return super().discriminator(real, fake)

    def generator(self, real, fake):
        hear("generator", real, fake)
        return super().generator(real, fake)


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeardWasserstein(Wasserstein):
    """The same of a loss whose generator looks at no real images."""

    def discriminator(self, real, fake):
        hear("discriminator", real, fake)
        return super().discriminator(real, fake)

    def generator(self, real, fake):
        hear("generator", real, fake)
        return super().generator(real, fake)


def ids(condition):
    """The class ids, from weights over the classes and the null class."""
    return condition["label"] @ jnp.arange(condition["label"].shape[1], dtype=jnp.float32)


class Labeller(nn.Module):
    """A generator whose example is its label."""

    latent: int = 1
    classes: int = 4

    @nn.compact
    def __call__(self, z, condition, noise, *, train, truncation=1.0):
        return self.param("one", lambda _: jnp.ones(())) * ids(condition)[:, None]


class Reader(nn.Module):
    """A discriminator that says what it saw, and 100 times the label that came with it."""

    classes: int = 4

    @nn.compact
    def __call__(self, image, condition, *, train):
        return self.param("one", lambda _: jnp.ones(())) * image[:, 0] + 100.0 * ids(condition)


@pytest.mark.parametrize(("loss", "turns", "parts"), [(HeardPairs(), 1, 2), (HeardWasserstein(), 3, 3)])
def test_each_update_has_rows_of_its_own_and_pairs_share_their_label(loss, turns, parts):
    objective = dirac(
        generator=Labeller(), discriminator=Reader(), rates=(0.0, 0.0), loss=loss, discriminator_steps=turns
    )
    assert objective.batch_parts == parts
    label = np.array([3, 1, 2, 0, 0, 2, 1, 3, 2, 1, 0, 3])
    batch = {"image": jnp.arange(12.0)[:, None] + 10, "label": jnp.array(label)}
    state = objective.init(jax.random.key(0), jax.eval_shape(lambda: batch))
    HEARD.clear()
    jax.block_until_ready(quick(objective.step)(state, batch, jax.random.key(0)))
    jax.effects_barrier()
    by_d, by_g = ([heard[1:] for heard in HEARD if heard[0] == side] for side in ("discriminator", "generator"))
    # Each the rows j, j + parts, …: the places of D's updates, and of G's if its loss looks at real images.
    places = [np.round(real % 100 - 10).astype(int) for real, _ in by_d]
    assert sorted(map(list, places)) == [list(range(j, 12, parts)) for j in range(turns)]
    assert len(by_g) == 1
    if objective.loss.paired():
        places.append(np.round(by_g[0][0] % 100 - 10).astype(int))
        assert list(places[-1]) == list(range(1, 12, 2))
        by_d = by_d + by_g
    for where, (real, fake) in zip(places, by_d, strict=True):
        np.testing.assert_array_equal(real, where + 10 + 100 * label[where])
        np.testing.assert_array_equal(fake, 101 * label[where])  # made of the label, and seen with it


@dataclasses.dataclass(frozen=True, kw_only=True)
class Untouched:
    """An augmentation that adapts and does nothing."""

    p: Probability

    def __call__(self, images, key, p):
        return images

    def check(self, shape):
        pass


@pytest.mark.parametrize(("loss", "sure"), [(RelativisticPairing(), 1.0), (NonSaturating(), 0.0)])
def test_augmentation_adapts_to_the_sign_that_the_loss_gives_a_meaning(loss, sure):
    # Real images get -9, fakes -10: of a pair, D is sure which is real; of an image by itself, it is not.
    objective = dirac(
        loss=loss, generator=Point(theta=0.0), discriminator=Line(psi=1.0, bias=-10.0),
        augmentation=Untouched(p=Adaptive(images=40.0, every=1)),
    )  # fmt: skip
    state = played(objective, 2, {"image": jnp.ones((8, 1))})
    rows = 8 // objective.batch_parts
    np.testing.assert_allclose(state.extra["augmentation"]["p"], sure * 2 * rows / 40, rtol=1e-6)


# --- a small one, after a few steps -----------------------------------------------------------------------------------

SHAPE, NAMES = (8, 8, 1), ("class 0", "class 1", "class 2")
# r_t is never below this target: p rises at every step.
P = Adaptive(target=-2.0, images=200.0, every=1)
OBJECTIVE = dataclasses.replace(gan().objective, augmentation=DiffAugment(p=P))


@pytest.fixture(scope="module")
def trained() -> State:
    """The state after three steps."""
    source = gan().train.source.open()
    rows = [source[i] for i in range(16)]
    batch = {name: jnp.stack([row[name] for row in rows]) for name in ("image", "label")}
    return played(OBJECTIVE, 3, batch, NAMES)


def test_what_both_sides_remember_is_kept(trained, tmp_path):
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), trained)
    with Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save(3, trained)
    with Checkpoints(tmp_path / "c") as checkpoints:
        found = checkpoints.restore(3, shapes)
    assert tree.digest(found) == tree.digest(trained)
    of = lambda name: {path: x for path, x in tree.leaves(found.nets[name].opt) if "hyperparams" not in path}  # noqa: E731
    held = {
        "p": found.extra["augmentation"]["p"],
        "lecam": found.extra["penalties"][2]["mass"],
        "generator": of("generator"),
        "discriminator": of("discriminator"),
        "batch norm": found.nets["generator"].stats["batch_stats"],
        "spectral norm": found.nets["discriminator"].stats["spectral"],
    }
    still = [name for name, part in held.items() if not all(np.any(x) for x in jax.tree.leaves(part))]
    assert still == []
    assert found.nets["discriminator"].ema == ()


def drawn(state, numbers, labels, objective=OBJECTIVE, *, devices=1, batch=8, towards=None):
    experiment = dataclasses.replace(gan(), objective=objective, test_batch_size=batch)
    data = DataSpec(NAMES, {"image": (SHAPE, np.dtype(np.uint8)), "label": ((), np.dtype(np.int32))})
    program = Program.laid_out(experiment, data, jax.devices()[:devices])
    condition = {"label": np.array(labels, np.int32)}
    return draw(program, jax.device_get(state), np.array(numbers, np.int32), condition=condition, towards=towards)


def test_a_sample_depends_on_its_seed_number_and_label_only(trained):
    numbers, labels = np.arange(8), np.arange(8) % 3
    eight = drawn(trained, numbers, labels)
    assert np.abs(eight).max() <= 1
    assert len(np.unique(eight.round(4).reshape(8, -1), axis=0)) == 8
    np.testing.assert_allclose(drawn(trained, [5], [2]), eight[5:6], atol=1e-5)  # alone
    np.testing.assert_allclose(drawn(trained, numbers, labels, batch=3), eight, atol=1e-5)  # in other company
    np.testing.assert_allclose(drawn(trained, numbers, labels, devices=4), eight, atol=1e-5)
    np.testing.assert_allclose(drawn(trained, numbers[::-1], labels[::-1]), eight[::-1], atol=1e-5)
    assert np.abs(drawn(trained, numbers, (labels + 1) % 3) - eight).max() > 1e-3
    # Nor on D, or on weights that are not the EMA's.
    other = jax.tree.map(jnp.zeros_like, trained.nets["discriminator"])
    generator = trained.nets["generator"].replace(params=trained.nets["generator"].ema[0])
    nets = {"generator": generator, "discriminator": other}
    np.testing.assert_array_equal(drawn(trained.replace(nets=nets), numbers, labels), eight)


def test_truncated_to_nothing_all_samples_of_a_class_are_one(trained):
    objective = OBJECTIVE.with_options({"truncation": 0.0})
    none = drawn(trained, np.arange(8), [0] * 4 + [1] * 4, objective)
    np.testing.assert_array_equal(none, np.repeat(none[[0, 4]], 4, axis=0))
    assert np.abs(none[0] - none[4]).max() > 1e-3
    assert objective.protocol() == {"generator": "DcganGenerator", "truncation": 0.0, "nfe": 1}
    assert OBJECTIVE.with_options({}) == OBJECTIVE
    with pytest.raises(UserError, match="a GAN has no solver to choose"):
        OBJECTIVE.with_options({"solver": None})


def test_the_way_to_another_sample_begins_and_ends_at_samples(trained):
    numbers, labels = np.arange(8, dtype=np.int32), np.ones(8, np.int32)
    plain, others = drawn(trained, numbers, labels), (numbers + 1) % 8
    at = lambda share: drawn(trained, numbers, labels, towards=(others, np.full(8, share, np.float32)))  # noqa: E731
    np.testing.assert_allclose(at(0.0), plain, atol=1e-5)
    np.testing.assert_allclose(at(1.0), plain[others], atol=1e-5)
    between = np.abs(at(0.5) - plain).max((1, 2, 3)), np.abs(at(0.5) - plain[others]).max((1, 2, 3))
    assert np.min(between) > 1e-4


def test_previews_go_from_sample_to_sample_and_from_the_mean_to_the_sample(trained):
    objective, key = dataclasses.replace(OBJECTIVE, side=3), jax.random.key(7)
    batch = {"image": jax.random.bits(key, (2, *SHAPE), jnp.uint8), "label": jnp.arange(2), "index": jnp.arange(2)}
    shown = quick(lambda state: objective.preview(state, batch, key))(trained)
    pictures = {name: np.asarray(panels.images) for name, panels in shown.items()}
    assert all(np.abs(images).max() <= 1 + 1e-6 for images in pictures.values())
    samples, between, sweep = (pictures[name] for name in ("samples", "interpolation", "truncation"))
    samples = samples.reshape(9, *samples.shape[2:])[:ROWS]
    assert between.shape[:2] == sweep.shape[:2] == (ROWS, COLUMNS)
    np.testing.assert_allclose(between[:, 0], samples, atol=1e-5)
    # The last of a row has the z of the next sample, and the first one's class.
    assert np.abs(between[:, -1] - between[:, 0]).max((1, 2, 3)).min() > 1e-4
    np.testing.assert_allclose(sweep[:, -1], samples, atol=1e-5)
    np.testing.assert_allclose(sweep[0, 0], sweep[3, 0], atol=1e-6)  # of one class, both at the mean
    assert np.abs(sweep[0, 0] - sweep[1, 0]).max() > 1e-4
    assert shown["discriminator"].titles == ("real", "generated")
    assert pictures["discriminator"].shape[:2] == (2, 2)


# --- learning ---------------------------------------------------------------------------------------------------------

RING = Ring(modes=4, std=0.1, size=1000)


@pytest.fixture(scope="module")
def games() -> tuple[Gan, State, np.ndarray, dict[str, np.ndarray]]:
    """Three games of a second in the plane: a state of each, 1,000 samples, and the scalars of each step."""
    optimizer = Optimizer(learning_rate=CosineRamp(first=3e-3, last=1e-4), method=Adam(b1=0.0, b2=0.99))
    gamma = Constant(value=0.3)
    objective = Gan(
        generator=Learner(module=MlpGenerator(width=32, depth=2), optimizer=optimizer),
        discriminator=Learner(module=MlpDiscriminator(width=32, depth=2), optimizer=optimizer),
        penalties=(R1(gamma=gamma), R2(gamma=gamma)),
        total_steps=800,
    )
    centres = jnp.array(RING.centres(), jnp.float32)
    spec = {"image": jax.ShapeDtypeStruct((128, 2), jnp.float32)}
    objective.check(spec, ())

    def play(key):
        def step(state, key):
            k_mode, k_noise, k_step = jax.random.split(key, 3)
            noise = RING.std * jax.random.normal(k_noise, (128, 2))
            image = centres[jax.random.randint(k_mode, (128,), 0, len(centres))] + noise
            return objective.step(state, {"image": image}, k_step)

        state, scalars = jax.lax.scan(step, objective.init(key, spec), jax.random.split(key, objective.total_steps))
        keys = jax.random.split(key, 1000)
        return state, objective.generate(state, objective.noise(keys, (2,)), keys, {}), scalars

    state, samples, scalars = quick(jax.vmap(play))(jax.random.split(jax.random.key(0), 3))
    return objective, state, np.asarray(samples), jax.device_get(scalars)


def test_a_generator_finds_all_modes(games):
    objective, _, samples, scalars = games
    for i, points in enumerate(samples):
        found = fidelity.modes(points, RING.centres(), RING.std)
        assert found.covered == 4
        assert found.high_quality > 0.5
        assert found.std_ratio is not None
        assert 0.5 < found.std_ratio < 1.5
        assert found.counts.min() > 150  # of 1,000
        late = {name: float(x[i, -100:].mean()) for name, x in scalars.items()}
        assert 0.9 < late["diversity"] < 1.1
        assert late["neighbour_coverage"] > 0.2
        assert late["paired_accuracy"] < 0.8
        assert objective.diagnose(late, 1.0) == {}


def test_a_preview_of_points_shows_where_they_lie(games):
    objective, state, _, _ = games
    image = jnp.array(np.stack([RING.open()[i]["image"] for i in range(64)]))
    one = jax.tree.map(lambda x: x[0], state)
    shown = quick(lambda state: objective.preview(state, {"image": image}, jax.random.key(0)))(one)
    assert shown.keys() == {"samples"}
    real, fake, land = np.asarray(shown["samples"].images)[0]
    assert max(np.abs(picture).max() for picture in (real, fake, land)) <= 1
    assert real.std() > 0
    assert fake.std() > 0
    # The corners are far from all data: D finds them less likely than the whole plane is in the mean.
    assert land[[0, 0, -1, -1], [0, -1, 0, -1]].mean() < land.mean()


def test_a_generator_that_collapses_is_reported(games):
    objective, _, samples, _ = games
    real = jnp.array(np.stack([RING.open()[i]["image"] for i in range(200)]))
    near = jnp.array(RING.centres(), jnp.float32)[:1] + 1e-3 * jax.random.normal(jax.random.key(0), (200, 2))
    half = jnp.where((jnp.arange(200) % 2 == 0)[:, None], near, -near)  # two of the modes, and too narrow
    said = {}
    for name, fake in (("one", near), ("two", half), ("all", jnp.array(samples[0][:200]))):
        values = {key: float(x) for key, x in compared(real, fake).items()} | {"paired_accuracy": 0.5}
        said[name] = set(objective.diagnose(values, 0.5))
        assert objective.diagnose(values, 0.05) == {}  # too early
    assert said == {"one": {"collapse"}, "two": {"coverage"}, "all": set()}
    strong = {"diversity": 1.0, "neighbour_coverage": 0.5, "paired_accuracy": 0.99}
    assert set(objective.diagnose(strong, 0.5)) == {"discriminator"}
    assert isinstance(objective, Diagnosing)


@pytest.mark.parametrize("shape", [(2,), (16, 12, 3)])
def test_neighbour_coverage_is_a_half_for_one_distribution_and_0_for_two_far_apart(shape):
    real, fake = jax.random.normal(jax.random.key(0), (2, 500, *shape))
    same = compared(real, fake)
    np.testing.assert_allclose(same["neighbour_coverage"], 0.5, atol=0.08)
    np.testing.assert_allclose(same["diversity"], 1.0, atol=0.08)
    far = compared(real, fake + 100.0)
    assert float(far["neighbour_coverage"]) == 0
    one = compared(real, jnp.repeat(fake[:1], 500, axis=0))
    assert float(one["neighbour_coverage"]) < 0.02
    assert float(one["diversity"]) < 1e-4


def test_thumbnails_are_means_of_squares():
    x = jnp.arange(2 * 17 * 32.0).reshape(2, 17, 32, 1)
    small = diagnostics.thumbnails(x)
    assert small.shape == (2, 8 * 8)
    np.testing.assert_allclose(small[0, 0], x[0, :2, :4].mean())
    np.testing.assert_allclose(small[1, -1], x[1, 14:16, 28:].mean())
    np.testing.assert_array_equal(diagnostics.thumbnails(x[:, :3, :3]), x[:, :3, :3].reshape(2, 9))  # small enough
    np.testing.assert_array_equal(diagnostics.thumbnails(x[:, 0, :2, 0]), x[:, 0, :2, 0])  # points


# --- devices ----------------------------------------------------------------------------------------------------------


class Normed(nn.Module):
    """A generator of 4×4 images with batch norm."""

    latent: int = 4
    classes: int = 0

    @nn.compact
    def __call__(self, z, condition, noise, *, train, truncation=1.0):
        x = nn.Dense(4 * 4 * 2)(z).reshape(-1, 4, 4, 2)
        return nn.Dense(1)(nn.relu(batch_norm(x, train)))


def one_step(devices: int) -> dict[str, Any]:
    """What one step of nets that look at the whole batch gives, on so many devices."""
    minibatch_std = StyleGan2Discriminator(widest=8, group=4)
    objective = Gan(
        generator=Learner(module=Normed(), optimizer=sgd(0.1), ema=(HalfLifeEma(steps=2.0, ramp=0.0),)),
        discriminator=Learner(module=minibatch_std, optimizer=sgd(0.1)),
        loss=RelativisticAverage(),
        penalties=(R1(gamma=Constant(value=1.0)),),
    )
    mesh = MeshShape().build(jax.devices()[:devices])
    batch = {"image": np.random.default_rng(0).integers(0, 256, (32, 4, 4, 1), np.uint8)}
    with jax.set_mesh(mesh):
        placed = put_batch(mesh, batch)
        spec = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), placed)
        objective.check(spec, ())
        state = quick(lambda: objective.init(jax.random.key(0), spec))()
        state, scalars = quick(objective.step)(state, placed, jax.random.key(1))
    nets = {name: [net.params, net.stats, net.ema] for name, net in state.nets.items()}
    return jax.device_get({"nets": nets, "scalars": scalars})


def apart(a: Any, b: Any) -> float:
    """The largest difference in any array, in units of the largest number in it, or of a thousandth."""
    differ = jax.tree.map(lambda x, y: np.abs(x - y).max() / max(np.abs(x).max(), 1e-3), a, b)
    return max(map(float, jax.tree.leaves(differ)))


@pytest.mark.slow
def test_eight_devices_do_what_one_does(tmp_path):
    code = (
        "import json, jax; jax.config.update('jax_num_cpu_devices', 8); import test_gan as t; "
        "one, eight = t.one_step(1), t.one_step(8); "
        "print(json.dumps([jax.device_count(), t.apart(one, eight), float(one['scalars']['loss'])]))"
    )
    done = call("-c", code, cache=tmp_path)
    assert done.returncode == 0, done.stderr
    devices, difference, loss = json.loads(done.stdout)
    assert devices == 8
    assert difference < 1e-4
    assert math.isfinite(loss)


# --- refusals ---------------------------------------------------------------------------------------------------------


def spec_of(*shape: int, label: bool = True, devices: int = 1) -> dict[str, jax.ShapeDtypeStruct]:
    placed = NamedSharding(MeshShape().build(jax.devices()[:devices]), PartitionSpec(("replica", "fsdp")))
    image = jax.ShapeDtypeStruct(shape, jnp.uint8 if len(shape) == 4 else jnp.float32, sharding=placed)
    return {"image": image, **({"label": jax.ShapeDtypeStruct(shape[:1], jnp.int32, sharding=placed)} if label else {})}


def changed(**fields: Any) -> Gan:
    """The small objective with other fields; a module replaces the learner's."""
    for name in ("generator", "discriminator"):
        if isinstance(fields.get(name), nn.Module):
            fields[name] = dataclasses.replace(getattr(OBJECTIVE, name), module=fields[name])
    return dataclasses.replace(OBJECTIVE, **fields)


IMAGES, POINTS = spec_of(16, *SHAPE), spec_of(16, 2, label=False)
PLANE = dirac(generator=MlpGenerator(width=8), discriminator=MlpDiscriminator(width=8))


@pytest.mark.parametrize(
    ("objective", "spec", "said"),
    [
        (
            changed(generator=OBJECTIVE.generator.module.clone(classes=0)),
            IMAGES,
            "the generator is unconditional.*Unlabel",
        ),
        (
            changed(discriminator=OBJECTIVE.discriminator.module.clone(classes=0)),
            IMAGES,
            "discriminator.module.classes 3",
        ),
        (OBJECTIVE, spec_of(16, *SHAPE, label=False), "has 3 classes, but the data has no labels"),
        (OBJECTIVE, spec_of(16, 16, 16, 1), "makes images of 8×8×1, but the data is images of 16×16×1.*Resize"),
        (OBJECTIVE, spec_of(16, 8, 8, 3), "makes images of 8×8×1, but the data is images of 8×8×3"),
        (PLANE, spec_of(16, 8, 8, 1, label=False), "makes points of 2 numbers, but the data is images"),
        (
            changed(penalties=(R1(),)),
            IMAGES,
            r"R1 has no gamma; for 8×8×1 and 8 rows try gamma=Constant\(value=0.0016\)",
        ),
        (
            changed(
                generator=DcganGenerator(latent=8, classes=3, channels=1, widths=(8, 8)),
                discriminator=DcganDiscriminator(classes=3, widths=(8, 8), norm=BatchNorm()),
            ),
            spec_of(16, 16, 16, 1),
            "R1 takes each example's own gradient, which batch normalisation",
        ),
        (changed(path_length=PathLength()), IMAGES, "DcganGenerator is no StyleGenerator: it has no `styles`"),
        (changed(generator=Line()), IMAGES, "generator.module: Line is no Generator: .*it has no `latent`"),
        (changed(discriminator=Point()), IMAGES, "discriminator.module: Point is no Discriminator: `__call__`"),
        (
            changed(discriminator=Learner(module=OBJECTIVE.discriminator.module)),
            IMAGES,
            "discriminator.optimizer is None, but both nets of a GAN learn",
        ),
        (changed(discriminator_steps=0), IMAGES, "discriminator-steps is 0; it must be at least 1"),
        (changed(truncation=2.0), IMAGES, "--truncation is 2.0; it lies in 0..1"),
        (
            dataclasses.replace(PLANE, augmentation=DiffAugment()),
            POINTS,
            "DiffAugment augments images.*NoAugmentation",
        ),
        (PLANE, POINTS, None),
        (changed(penalties=(GradientPenalty(),), loss=Wasserstein(), discriminator_steps=2), IMAGES, None),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_does_not_fit_is_refused(objective, spec, said):
    names = NAMES if "label" in spec else ()
    if said is None:
        objective.check(spec, names)
        return
    with pytest.raises(UserError, match=said) as caught:
        objective.check(spec, names)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("changes", "fields", "devices", "said"),
    [
        ({"batch_size": 18}, {}, 4, "18 does not divide over 4 device.*try --batch-size 16"),
        ({}, {"microbatches": 3}, 1, "16 does not divide"),
        ({}, {"discriminator_steps": 2}, 1, "16 does not divide"),
    ],
)
def test_a_batch_that_does_not_divide_over_updates_is_refused(changes, fields, devices, said):
    experiment = dataclasses.replace(gan(), objective=changed(**fields), **changes)
    with pytest.raises(UserError, match=said):
        Program.of(experiment, devices=jax.devices()[:devices])


def test_a_guiding_model_is_refused():
    with pytest.raises(UserError, match="--guide is for Autoguidance"):
        OBJECTIVE.check_sampling(guide=True)
    assert OBJECTIVE.conditions() == ("label",)
    assert PLANE.conditions() == ()
    assert isinstance(OBJECTIVE, Objective)
    assert isinstance(OBJECTIVE, Generative)
