"""Translation without pairs: what its parts are, against what is known of them, and how it is used."""

import dataclasses
import json
import pathlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden.weights import array
from PIL import Image
from small import contrastive_translation, unpaired_translation

from jaxgen import cli, sampling
from jaxgen.adversarial.losses import LeastSquares
from jaxgen.adversarial.pool import Pool
from jaxgen.data.batches import DataSpec, Pipeline
from jaxgen.data.fake import FakeLabels
from jaxgen.errors import UserError
from jaxgen.evaluation import evaluate
from jaxgen.learner import Learner
from jaxgen.models.patch_heads import PatchHeads
from jaxgen.models.patchgan import Group, PatchGan
from jaxgen.models.resnet_generator import ResnetGenerator
from jaxgen.objectives.contrastive_translation import ContrastiveTranslation
from jaxgen.objectives.unpaired_translation import UnpairedTranslation
from jaxgen.optim.optimizer import Optimizer, Sgd
from jaxgen.optim.schedules import Constant, Held
from jaxgen.program import Program
from jaxgen.supervised.contrastive import at_places, patch_nce

GOLDEN = pathlib.Path(__file__).parent / "golden"
OPTIMIZER = Optimizer(learning_rate=Constant(value=0.1), method=Sgd())


class Same(nn.Module):
    """A generator that returns its images: all that is to be kept is kept."""

    factor: int = 2
    classes: int = 0
    dtype: Any = "float32"

    @nn.compact
    def __call__(self, image, *, train):
        return image + 0.0 * self.param("nothing", nn.initializers.zeros, ()) * image

    def features(self, image, *, train):
        return {"image": image}


# --- the pool ---------------------------------------------------------------------------------------------------------


def queried(pool: Pool, n: int, batch: int = 1, start=None):
    """Pass the numbers 0 … n-1 through a pool; return what came back, and the pool."""
    memory = pool.init((1,)) if start is None else start
    back = []
    query = jax.jit(pool.query)
    for step in range(n // batch):
        images = jnp.arange(step * batch, (step + 1) * batch, dtype=jnp.float32)[:, None]
        passed, memory = query(memory, images, jax.random.fold_in(jax.random.key(1), step))
        back += passed[:, 0].tolist()
    return np.array(back), memory


def test_the_pool_passes_on_what_it_stores_until_it_is_full_and_then_an_old_one_half_the_time():
    back, memory = queried(Pool(size=10), 400, batch=4)
    assert back[:10].tolist() == list(range(10))
    later = np.arange(10, 400)
    old = back[10:] != later
    assert 0.4 < old.mean() < 0.6  # 195 ± 10
    assert (back[10:][old] < later[old]).all()
    stored = memory["images"][:, 0]
    # What came back is gone; what is stored was queried, once, and did not come back: a swap keeps no copy.
    assert len(set(stored.tolist())) == 10
    assert not set(back[10:].tolist()) & set(stored.tolist())
    assert sorted([*back[10:], *stored]) == sorted(range(400))


def test_a_pool_of_none_passes_everything_on_and_a_negative_one_is_refused():
    images = jnp.ones((3, 2))
    passed, memory = Pool(size=0).query({}, images, jax.random.key(0))
    assert passed is images
    assert memory == {}
    with pytest.raises(UserError, match=r"Pool.size is -1; it must be 0 or more"):
        Pool(size=-1)


# --- the contrast -----------------------------------------------------------------------------------------------------


def unit(x):
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def test_patch_nce_is_torchs_cross_entropy():
    golden = np.load(GOLDEN / "patch_nce.npz")
    query, key = (jnp.asarray(array(name, (2, 7, 5), 1.0)) for name in ("query", "key"))
    rows = patch_nce(unit(query), unit(key), 0.07)
    np.testing.assert_allclose(rows, golden["loss"], rtol=1e-5, atol=1e-5)
    of_query, of_key = jax.grad(lambda q, k: patch_nce(unit(q), unit(k), 0.07).mean(), (0, 1))(query, key)
    np.testing.assert_allclose(of_query, golden["gradient"], rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(of_key, jnp.zeros_like(key))


def test_patch_nce_of_what_is_known():
    n = 6
    apart = jnp.eye(n)[None]
    np.testing.assert_allclose(patch_nce(apart, apart, 0.5), np.log(1 + (n - 1) * np.exp(-2.0)), rtol=1e-6)
    alike = jnp.ones((1, n, 4)) / 2
    np.testing.assert_allclose(patch_nce(alike, alike, 0.07), np.log(n), rtol=1e-6)
    query, key = (unit(jnp.asarray(array(name, (1, n, 3), 1.0))) for name in ("query", "key"))
    order = jnp.array([3, 0, 5, 1, 4, 2])
    moved = patch_nce(query[:, order], key[:, order], 0.07)
    np.testing.assert_allclose(moved, patch_nce(query, key, 0.07)[:, order], rtol=1e-5)


def test_places_are_the_same_in_every_image_and_none_comes_twice():
    maps = jnp.broadcast_to(jnp.arange(12.0).reshape(1, 3, 4, 1), (2, 3, 4, 1))
    chosen = at_places(maps, 7, jax.random.key(0))[..., 0]
    assert chosen.shape == (2, 7)
    np.testing.assert_array_equal(chosen[0], chosen[1])
    assert len(set(chosen[0].tolist())) == 7
    assert sorted(at_places(maps, 256, jax.random.key(1))[0, :, 0].tolist()) == list(range(12))


# --- the losses -------------------------------------------------------------------------------------------------------


def identities(**fields) -> Any:
    """Both generators return their images, and nothing learns fast enough to matter."""
    made = unpaired_translation()
    generator = Learner(module=Same(), optimizer=OPTIMIZER)
    objective: Any = made.objective
    judge = dataclasses.replace(objective.discriminator_a, optimizer=OPTIMIZER)
    changed = dataclasses.replace(
        objective, to_a=generator, to_b=generator, discriminator_a=judge, discriminator_b=judge, **fields
    )
    return dataclasses.replace(made, objective=changed)


def one_step(experiment) -> tuple[Any, Any, dict[str, float], Any]:
    program = Program.of(experiment, devices=jax.devices()[:1])
    before = program.init()
    kept = jax.device_get(before)
    (batch,) = program.batches(0, 1)
    after, scalars = program.step(before, batch)
    return kept, after, {name: float(value) for name, value in scalars.items()}, jax.device_get(batch)


def test_generators_that_change_nothing_lose_nothing_but_the_verdicts():
    before, after, scalars, batch = one_step(identities())
    for side in "ab":
        assert scalars[f"cycle_{side}"] == scalars[f"identity_{side}"] == 0.0
    # The verdicts are half of (D - 1)², of discriminators as they were before the step, and count twice.
    expected = 0.0
    judge = unpaired_translation().objective.learners["discriminator_b"].module
    for side, other in (("a", "image"), ("b", "source")):
        params = jax.tree.map(jnp.asarray, before.nets[f"discriminator_{side}"].params)
        fake = jnp.asarray(batch[other]).astype(jnp.float32) / 127.5 - 1
        logits = judge.apply({"params": params}, fake, {}, train=True)
        expected += float(jnp.square(logits - 1).mean())
    assert scalars["loss"] == pytest.approx(expected, rel=1e-5)
    # The fakes of the step lie in the pools, in order, as the pools were empty.
    np.testing.assert_allclose(after.extra["b"]["pool"]["images"][:8], batch["source"] / 127.5 - 1, atol=1e-6)
    assert int(after.extra["a"]["pool"]["count"]) == 8


@pytest.mark.by_hand
def test_each_term_has_its_weight():
    made = unpaired_translation()
    objective = dataclasses.replace(made.objective, penalties=(), cycle=7.0, identity=0.3, adversarial=1.5)
    _, _, told, _ = one_step(dataclasses.replace(made, objective=objective))
    verdicts, cycles, kept = (sum(told[f"{n}_{s}"] for s in "ab") for n in ("adversarial", "cycle", "identity"))
    assert told["loss"] == pytest.approx(1.5 * verdicts + 7 * cycles + 2.1 * kept, rel=1e-5)
    assert min(verdicts, cycles, kept) > 0.1


def test_least_squares_at_their_best_leave_a_quarter_to_each_side():
    half = jnp.full(4, 0.5)  # what is best where both distributions are equal
    loss = LeastSquares()
    assert float(loss.discriminator(half, half).mean()) == 0.25
    assert float(2 * loss.generator(half, half).mean()) == 0.25
    real, fake = 0.8, 0.3  # shares of a patch among the real and the generated ones
    grid = jnp.linspace(0, 1, 1001)
    cost = real * jnp.square(grid - 1) + fake * jnp.square(grid)
    assert float(grid[cost.argmin()]) == pytest.approx(real / (real + fake), abs=1e-3)


def test_a_generator_that_changes_nothing_keeps_every_patch():
    """CUT on the images themselves: queries are keys, and the loss is what equal ones leave."""
    made = contrastive_translation()
    objective: Any = made.objective
    same = dataclasses.replace(
        objective, to_b=Learner(module=Same(), optimizer=OPTIMIZER), layers=("image",), mirrored=1.0
    )
    _, _, scalars, _ = one_step(dataclasses.replace(made, objective=same))
    assert scalars["loss"] == pytest.approx(
        2 * scalars["adversarial"] + (scalars["contrast"] + scalars["identity"]) / 2, rel=1e-5
    )
    # Mirrored and mirrored back, each query is its own key: no place is more similar than that.
    assert 0.0 < scalars["contrast"] < np.log(12)


# --- what is refused --------------------------------------------------------------------------------------------------


def checked(made, **fields) -> None:
    experiment = dataclasses.replace(made, objective=dataclasses.replace(made.objective, **fields))
    Program.of(experiment, devices=jax.devices()[:1])


def test_what_does_not_fit_is_refused_before_anything_is_compiled():
    made = unpaired_translation()
    frozen = dataclasses.replace(made.objective.to_a, optimizer=None)
    with pytest.raises(UserError, match=r"--objective.to-a.optimizer is None, but it is to learn"):
        checked(made, to_a=frozen)
    deep = Learner(module=ResnetGenerator(channels=1, width=4, halvings=4), optimizer=OPTIMIZER)
    with pytest.raises(UserError, match="an image of 16×16 cannot be halved 4 times"):
        checked(made, to_b=deep)
    deep = Learner(module=Same(factor=32), optimizer=OPTIMIZER)
    with pytest.raises(UserError, match="sees 32×32 pixels as one place, which does not divide images of 16×16×1"):
        checked(made, to_b=deep)
    coloured = Learner(module=ResnetGenerator(width=4, halvings=1, blocks=1), optimizer=OPTIMIZER)
    with pytest.raises(UserError, match=r"set --objective.to-b.module.channels 1"):
        checked(made, to_b=coloured)
    program = Program.of(made, devices=jax.devices()[:1])
    with pytest.raises(UserError, match=r"module: PatchGan is no Translator"):
        dataclasses.replace(made.objective, to_b=made.objective.discriminator_b).check(program.spec, ())
    with pytest.raises(UserError, match=r"cycle is -1.0"):
        dataclasses.replace(made.objective, cycle=-1.0)
    labelled = Pipeline(source=FakeLabels(height=16, width=16, channels=1))
    with pytest.raises(UserError, match=r"`source` and `image`, and the data has image, label; use Unpaired"):
        Program.of(dataclasses.replace(made, train=labelled), devices=jax.devices()[:1])
    data = DataSpec((), {"image": ((16, 16, 1), np.dtype("uint8")), "source": ((16, 12, 1), np.dtype("uint8"))})
    with pytest.raises(UserError, match="the two domains have pictures of 16×12×1 and 16×16×1"):
        Program.of(made, data, jax.devices()[:1])
    cut = contrastive_translation()
    with pytest.raises(UserError, match=r"--objective.layers names 'block7', but the net's maps are block0, halving0"):
        checked(cut, layers=("image", "block7"))
    with pytest.raises(UserError, match="places is 1; it must be at least 2"):
        dataclasses.replace(cut.objective, places=1)


# --- use --------------------------------------------------------------------------------------------------------------


def program_of(objective) -> Program:
    made = dataclasses.replace(unpaired_translation(), objective=objective)
    return Program.of(made, devices=jax.devices()[:1])


@pytest.mark.parametrize("size", [(8, 8), (1, 2), (13, 6)])
def test_pictures_of_any_size_are_translated(size):
    generator = Learner(module=Same(factor=4), optimizer=OPTIMIZER)
    judge = Learner(module=PatchGan(width=4, halvings=1, norm=Group(2)), optimizer=OPTIMIZER)
    objective = UnpairedTranslation(to_a=generator, to_b=generator, discriminator_a=judge, discriminator_b=judge)
    program = program_of(objective)
    image = np.random.default_rng(0).uniform(-1, 1, (1, *size, 1)).astype(np.float32)
    found: Any = program.predict(program.init(), image)
    np.testing.assert_allclose(found.pixels, image)  # what was padded is cut off where it was added


def test_evaluation_knows_the_truth_where_it_is_given():
    made = identities(cycle=10.0)
    program = Program.of(made, devices=jax.devices()[:1])
    found = evaluate(program, program.init())
    assert found["cycle_a"] == found["cycle_b"] == 0.0
    pairs = made.test.source.open()
    truth = np.mean(
        [np.abs(p["source"] / 127.5 - p["target"] / 127.5).mean() for p in map(pairs.__getitem__, range(13))]
    )
    assert found["l1_there"] == pytest.approx(truth, rel=1e-5)
    assert found["l1_back"] == pytest.approx(truth, rel=1e-5)
    unmatched = dataclasses.replace(made, test=Pipeline(source=dataclasses.replace(made.test.source, matched=False)))
    other = Program.of(unmatched, devices=jax.devices()[:1])
    assert set(evaluate(other, other.init())) == {"cycle_a", "cycle_b"}


def test_samples_are_translations_of_the_test_pictures():
    made = identities()
    program = Program.of(made, devices=jax.devices()[:1])
    state = program.init()
    drawn = sampling.draw(program, state, range(3))
    pairs = made.test.source.open()
    expected = np.stack([pairs[i]["source"] for i in range(3)]) / 127.5 - 1
    np.testing.assert_allclose(drawn, expected, atol=1e-6)
    back = dataclasses.replace(
        program, experiment=dataclasses.replace(made, objective=made.objective.with_options({"to": "a"}))
    )
    np.testing.assert_allclose(
        sampling.draw(back, state, range(2)), np.stack([pairs[i]["image"] for i in range(2)]) / 127.5 - 1, atol=1e-6
    )
    with pytest.raises(UserError, match="--to is 'c'; the domains are a and b"):
        made.objective.with_options({"to": "c"})
    with pytest.raises(UserError, match="a translation has no truncation to choose"):
        made.objective.with_options({"truncation": 0.5})
    with pytest.raises(UserError, match="CUT has no net that leads back"):
        contrastive_translation().objective.with_options({"to": "a"})
    with pytest.raises(UserError, match="--guide is for Autoguidance"):
        made.objective.check_sampling(guide=True)


@pytest.mark.by_hand
def test_predict_translates_both_ways(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("config.py").write_text("from small import unpaired_translation as config\n")
    run = ["--steps", "2", "--preview-every", "2", "--run-dir", "run"]
    assert cli.main(["train", "config.py", *run]) == 0
    pixels = np.random.default_rng(0).integers(0, 255, (9, 6), np.uint8)
    Image.fromarray(pixels).save("picture.png")
    made = []
    for to in ([], ["--to", "b"], ["--to", "a"]):
        assert cli.main(["predict", "run", "picture.png", "--out", f"out{len(made)}", "--json", *to]) == 0
        row = json.loads(capsys.readouterr().out.strip().splitlines()[-1])["images"][0]
        made.append(np.asarray(Image.open(row["out"])))
    assert made[0].shape[:2] == (9, 6)
    np.testing.assert_array_equal(made[0], made[1])
    assert not np.array_equal(made[0], made[2])
    assert cli.main(["predict", "run", "picture.png", "--out", "out", "--to", "zebra"]) == 2
    assert "--to is 'zebra'; the domains are a and b" in capsys.readouterr().err
    assert (tmp_path / "run" / "previews").is_dir()


def test_learning_rates_are_held_and_then_fall_in_a_line():
    rate = Held(peak=2.0, hold=0.5).over(100)
    np.testing.assert_allclose([float(rate(step)) for step in (0, 50, 75, 100, 120)], [2.0, 2.0, 1.0, 0.0, 0.0])
    assert float(Held(peak=2.0, hold=0.0).over(10)(5)) == 1.0
    with pytest.raises(UserError, match="a share of the training"):
        Held(peak=1.0, hold=3.0)


def test_heads_are_the_layers_own():
    heads = PatchHeads(features=4)
    vectors = {"image": jnp.ones((2, 5, 3)), "block0": jnp.ones((2, 5, 8))}
    made, variables = heads.init_with_output(jax.random.key(0), vectors, train=False)
    assert sorted(variables["params"]) == ["block0_0", "block0_1", "image_0", "image_1"]
    np.testing.assert_allclose(jnp.linalg.norm(made["image"], axis=-1), 1.0, rtol=1e-5)
    assert isinstance(contrastive_translation().objective, ContrastiveTranslation)
