"""What the laws do not say of single objectives: mixing, auxiliary heads, one logit, and data that do not fit."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import classification, diffusion, gan, segmentation, with_learners

from jaxgen.errors import UserError
from jaxgen.learner import Learner
from jaxgen.metrics.accumulators import results
from jaxgen.objectives.classification import Classification
from jaxgen.objectives.segmentation import Segmentation
from jaxgen.optim.optimizer import Optimizer, Sgd
from jaxgen.optim.schedules import Constant
from jaxgen.supervised.losses import CrossEntropy, Dice, Focal, Sum
from jaxgen.supervised.mixing import CutMix, Mixup, NoMixing
from jaxgen.typing import IGNORE

SPEC = {
    "image": jax.ShapeDtypeStruct((4, 8, 8, 3), jnp.uint8),
    "mask": jax.ShapeDtypeStruct((4, 8, 8), jnp.uint8),
    "label": jax.ShapeDtypeStruct((4,), jnp.int32),
}


def ramp(b: int = 6, side: int = 16):
    """Image i is i everywhere: what it is made of after mixing can be read off."""
    return jnp.broadcast_to(jnp.arange(b, dtype=jnp.float32)[:, None, None, None], (b, side, side, 1))


def test_mixup_keeps_the_share_it_says(key):
    image = ramp()
    mixed, share = Mixup(alpha=0.4).mix(key, image)
    assert 0 < share < 1
    np.testing.assert_allclose(
        mixed[:, 0, 0, 0], share * jnp.arange(6.0) + (1 - share) * jnp.arange(5.0, -1, -1), rtol=1e-5
    )


@pytest.mark.parametrize("seed", range(8))
def test_cutmix_replaces_one_rectangle_of_the_share_it_says(seed):
    image = ramp()
    mixed, share = CutMix().mix(jax.random.key(seed), image)
    kept = np.asarray(mixed[0, :, :, 0]) == 0
    np.testing.assert_allclose(kept.mean(), share, atol=1e-6)
    rows, columns = np.flatnonzero((~kept).any(1)), np.flatnonzero((~kept).any(0))
    assert (~kept).sum() == len(rows) * len(columns)  # a rectangle, without holes
    assert set(np.unique(mixed[0])) <= {0, 5}


def test_cutmix_keeps_half_on_average():
    # λ ~ Beta(1, 1) is uniform; the border cuts some rectangles short, which raises the share a little.
    shares = jax.vmap(lambda k: CutMix().mix(k, ramp(2))[1])(jax.random.split(jax.random.key(0), 500))
    assert 0.5 < shares.mean() < 0.7


def test_without_mixing_an_image_is_itself(key):
    mixed, share = NoMixing().mix(key, ramp())
    assert share == 1
    np.testing.assert_array_equal(mixed, ramp())


@pytest.mark.parametrize("mixing", [Mixup(), CutMix()], ids=lambda m: type(m).__name__)
def test_a_classifier_learns_from_mixed_images(mixing, key):
    objective = dataclasses.replace(classification().objective, mixing=mixing, total_steps=3)
    spec = {"image": jax.ShapeDtypeStruct((4, 8, 8, 1), jnp.uint8), "label": SPEC["label"]}
    state = objective.init(key, spec)
    batch = {"image": jnp.zeros((4, 8, 8, 1), jnp.uint8), "label": jnp.arange(4)}
    _, scalars = jax.jit(objective.step)(state, batch, key)
    assert jnp.isfinite(scalars["loss"])


class OneWeight(nn.Module):
    """Logits that are the first channel times a weight, and an auxiliary output of twice that."""

    classes: int = 1

    @nn.compact
    def __call__(self, image, *, train: bool):
        weight = self.param("kernel", nn.initializers.ones, ())
        x = weight * image[..., :1]
        self.sow("aux", "logits", 2 * x)
        return x


def one_weight(**more) -> Segmentation:
    optimizer = Optimizer(learning_rate=Constant(value=0.0), method=Sgd())
    return Segmentation(
        net=Learner(module=OneWeight(), optimizer=optimizer),
        **more,
    )


def test_auxiliary_outputs_join_the_loss_by_their_weight(key):
    image = jax.random.uniform(key, (4, 8, 8, 3), minval=-1.0)
    batch = {"image": image, "mask": (image[..., 0] > 0).astype(jnp.uint8)}
    for weight in (0.0, 0.4):
        objective = one_weight(aux_weight=weight)
        _, scalars = objective.step(objective.init(key, SPEC), batch, key)
        x = image[..., :1]
        expected = CrossEntropy()(x, batch["mask"]).mean() + weight * CrossEntropy()(2 * x, batch["mask"]).mean()
        np.testing.assert_allclose(scalars["loss"], expected, rtol=1e-5)


def test_one_logit_serves_two_classes(key):
    objective = one_weight()
    objective.check(SPEC, ("background", "foreground"))
    image = jax.random.uniform(key, (4, 8, 8, 3), minval=-1.0)
    batch = {"image": image, "mask": (image[..., 0] > 0).astype(jnp.uint8), "valid": jnp.ones(4, bool)}
    found = results(objective.evaluate(objective.init(key, SPEC), batch, key), ("background", "foreground"))
    assert found["miou"] == 1
    assert objective.preview(objective.init(key, SPEC), batch, key)["masks"].images.shape == (3, 4, 8, 8, 3)


class Column(nn.Module):
    """Logits that are dense features of the image; with two outputs, the first is held at 0."""

    classes: int = 1
    dtype: str = "float32"

    @nn.compact
    def __call__(self, image, *, train: bool):
        x = nn.Dense(1, dtype=self.dtype)(image.reshape(len(image), -1))
        return x if self.classes == 1 else jnp.concatenate([jnp.zeros_like(x), x], -1)


def classifier(module: nn.Module, **more) -> Classification:
    optimizer = Optimizer(learning_rate=Constant(value=1.0), method=Sgd(momentum=0.0))
    return Classification(net=Learner(module=module, optimizer=optimizer), **more)


@pytest.mark.parametrize("fields", [{}, {"smoothing": 0.1, "class_weights": (1.0, 3.0)}, {"mixing": Mixup()}], ids=str)
def test_a_classifier_with_one_output_is_the_one_with_the_outputs_0_and_x(key, fields):
    rng = np.random.default_rng(0)
    image, label = rng.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8), np.array([0, 1, 1, 0], np.int32)
    batch = {"image": jnp.asarray(image), "label": jnp.asarray(label), "valid": jnp.ones(4, bool)}
    found = []
    for outputs in (1, 2):
        objective = classifier(Column(classes=outputs), **fields)
        objective.check(SPEC, ("cat", "dog"))
        state = objective.init(key, SPEC)
        after, scalars = objective.step(state, batch, key)
        shown = objective.preview(state, batch, key)["classes"].guess
        p = objective.forward(state, batch["image"] / 127.5 - 1)
        found.append((scalars, after.nets["net"].params, results(objective.evaluate(state, batch, key), ()), shown, p))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), *found)
    scalars, _, measured, shown, p = found[0]
    assert p.shape == (4, 2)
    assert scalars["gradient_norm"] > 0
    assert measured["accuracy"] == scalars["accuracy"] == (np.asarray(p).argmax(-1) == label).mean()
    assert measured["loss"] == pytest.approx(-np.log(np.asarray(p)[np.arange(4), label]).mean(), rel=1e-5)
    np.testing.assert_array_equal(shown[0], np.asarray(p).argmax(-1))


def test_logits_of_half_precision_are_measured_as_they_predict(key):
    class Coarse(nn.Module):
        classes: int = 4

        @nn.compact
        def __call__(self, image, *, train: bool):  # bfloat16 has steps of a quarter near 50: ties everywhere
            return nn.Dense(4, dtype="bfloat16")(image.reshape(len(image), -1)) + jnp.asarray(50, "bfloat16")

    rng = np.random.default_rng(1)
    image, label = rng.integers(0, 256, (200, 8, 8, 3), dtype=np.uint8), rng.integers(0, 4, 200).astype(np.int32)
    batch = {"image": jnp.asarray(image), "label": jnp.asarray(label), "valid": jnp.ones(200, bool)}
    objective = classifier(Coarse())
    state = objective.init(key, SPEC)
    x = batch["image"] / 127.5 - 1
    p = np.asarray(objective.forward(state, x))
    logits = np.asarray(objective.net.infer(state.nets["net"], x), np.float32)
    assert (np.sort(logits)[:, -1] == np.sort(logits)[:, -2]).any()
    np.testing.assert_allclose(p.sum(-1), 1, atol=1e-6)
    found = results(objective.evaluate(state, batch, key), ())
    assert found["accuracy"] == pytest.approx((p.argmax(-1) == label).mean())
    assert found["loss"] == pytest.approx(-np.log(p[np.arange(200), label]).mean(), rel=1e-5)


@pytest.mark.parametrize("weights", [(), (1.0, 5.0, 20.0)], ids=["alike", "weighted"])
def test_microbatches_make_the_step_of_the_whole_batch_where_much_is_ignored(key, weights):
    class Pixelwise(nn.Module):
        classes: int = 3

        @nn.compact
        def __call__(self, image, *, train: bool):
            return nn.Conv(3, (1, 1))(image)

    rng = np.random.default_rng(0)
    mask = rng.integers(0, 3, (4, 8, 8))
    mask[rng.random(mask.shape) < np.array([0.0, 0.1, 0.5, 0.95]).reshape(4, 1, 1)] = IGNORE
    batch = {
        "image": jnp.asarray(rng.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)),
        "mask": jnp.asarray(mask, "uint8"),
    }
    optimizer = Optimizer(learning_rate=Constant(value=1.0), method=Sgd(momentum=0.0))
    found = []
    for parts in (1, 4):
        net = Learner(module=Pixelwise(), optimizer=optimizer)
        loss = Sum(terms=((1.0, CrossEntropy(class_weights=weights)), (0.5, Dice())))
        objective = Segmentation(net=net, loss=loss, microbatches=parts)
        after, scalars = jax.jit(objective.step)(objective.init(key, SPEC), batch, key)
        found.append((scalars, after.nets["net"].params))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6), *found)


@pytest.mark.parametrize("mixing", [NoMixing(), Mixup()], ids=lambda m: type(m).__name__)
def test_microbatches_weigh_classes_as_the_whole_batch_does(key, mixing):
    label = np.array([0, 1, 0, 0], np.int32)  # rows 0 and 2 are one part, 1 and 3 the other
    rng = np.random.default_rng(0)
    batch = {"image": jnp.asarray(rng.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)), "label": jnp.asarray(label)}
    flat = classifier(Column(classes=2), class_weights=(1.0, 9.0), microbatches=2, mixing=mixing)
    state = flat.init(key, SPEC)
    zero = jax.tree.map(jnp.zeros_like, state)  # all logits are 0: every row costs its weight times ln 2
    _, scalars = flat.step(zero, batch, key)
    assert float(scalars["loss"]) == pytest.approx(np.log(2), rel=1e-5)
    if mixing == NoMixing():
        once, twice = (dataclasses.replace(flat, microbatches=n).step(state, batch, key)[0] for n in (1, 2))
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6), once.nets, twice.nets)


def test_images_that_are_ignored_as_a_whole_have_no_part_in_the_test_loss(key):
    objective = one_weight()
    state = objective.init(key, SPEC)
    image = jax.random.uniform(key, (4, 8, 8, 3), minval=-1.0)
    mask = (image[..., 0] > 0.3).astype(jnp.uint8)
    half = {"image": image, "mask": mask.at[2:].set(IGNORE), "valid": jnp.ones(4, bool)}
    found = results(objective.evaluate(state, half, key), ("a", "b"))["loss"]
    two = {"image": image, "mask": mask, "valid": jnp.arange(4) < 2}
    assert found == pytest.approx(results(objective.evaluate(state, two, key), ("a", "b"))["loss"], rel=1e-6)
    none = {**half, "mask": jnp.full_like(mask, IGNORE)}
    assert results(objective.evaluate(state, none, key), ("a", "b"))["loss"] is None


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda: classifier(Column(), smoothing=1.5),
            "Classification.smoothing is 1.5; it must be at least 0 and below",
        ),
        (lambda: classifier(Column(), class_weights=(1.0, -1.0)), r"Classification.class_weights is \(1.0, -1.0\)"),
        (lambda: one_weight(aux_weight=-1.0), "Segmentation.aux_weight is -1.0; it must be 0 or more"),
        (
            lambda: dataclasses.replace(diffusion().objective, condition_dropout=10.0),
            "condition_dropout is 10.0; .* to 1",
        ),
        (lambda: dataclasses.replace(diffusion().objective, side=0), "Diffusion.side is 0; it must be at least 1"),
        (lambda: Mixup(alpha=0.0), "Mixup.alpha is 0.0; it must be above 0; NoMixing"),
        (lambda: CutMix(alpha=-1.0), "CutMix.alpha is -1.0; it must be above 0; NoMixing"),
    ],
)
def test_values_out_of_range_are_refused_when_they_are_made(make, said):
    with pytest.raises(UserError, match=said):
        make()


@pytest.mark.parametrize("microbatches", [0, -2])
@pytest.mark.parametrize("made", [classification, diffusion, gan])
def test_there_is_at_least_one_microbatch(made, microbatches):
    made = made()
    with pytest.raises(UserError, match=f"--objective.microbatches is {microbatches}; it must be at least 1"):
        dataclasses.replace(made, objective=dataclasses.replace(made.objective, microbatches=microbatches))


def test_there_are_as_many_class_weights_as_classes():
    weights = (1.0, 2.0, 3.0)
    for objective in (
        classifier(Column(), class_weights=weights),
        one_weight(loss=CrossEntropy(class_weights=weights)),
        one_weight(loss=Sum(terms=((1.0, Dice()), (1.0, Focal(class_weights=weights))))),
    ):
        with pytest.raises(UserError, match="class_weights has 3 entries, but there are 2 classes: give one for each"):
            objective.check(SPEC, ("a", "b"))


def test_weight_decay_for_the_denoisers_names_alone_spares_the_weighting(key):
    made = diffusion().objective
    spec = {"image": jax.ShapeDtypeStruct((4, 8, 8, 1), jnp.uint8), "label": SPEC["label"]}
    for mask, decay in ((r"kernel$", 0.5), (r"block.*kernel$", 0.0)):
        decayed = dataclasses.replace(made.net.optimizer, weight_decay=0.5, weight_decay_mask=mask)
        objective = dataclasses.replace(made, net=dataclasses.replace(made.net, optimizer=decayed))
        jax.eval_shape(lambda k, objective=objective: objective.init(k, spec), key)
        assert objective.learners["weighting"].optimizer.weight_decay == decay


def test_an_ignored_batch_changes_no_parameter(key):
    made = dataclasses.replace(segmentation().objective, total_steps=3)
    plain = Optimizer(learning_rate=Constant(value=1.0), method=Sgd())
    objective = with_learners(made, lambda net: dataclasses.replace(net, optimizer=plain))
    spec = {"image": jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.uint8)}
    state = objective.init(key, spec)
    batch = {"image": jnp.zeros((2, 32, 32, 3), jnp.uint8), "mask": jnp.full((2, 32, 32), IGNORE, jnp.uint8)}
    after, scalars = jax.jit(objective.step)(state, batch, key)
    assert scalars["loss"] == 0
    assert scalars["gradient_norm"] == 0
    same = jax.tree.map(np.array_equal, state.nets["net"].params, after.nets["net"].params)
    assert all(jax.tree.leaves(same))


def test_evaluation_uses_the_average_where_one_is_kept(key):
    objective = classification().objective
    spec = {"image": jax.ShapeDtypeStruct((4, 8, 8, 1), jnp.uint8), "label": SPEC["label"]}
    state = objective.init(key, spec)
    net = state.nets["net"]
    batch = {"image": jnp.zeros((4, 8, 8, 1), jnp.uint8), "label": jnp.arange(4), "valid": jnp.ones(4, bool)}
    zero = jax.tree.map(jnp.zeros_like, net.params)
    averaged = state.replace(nets={"net": net.replace(ema=(zero,))})
    found = objective.evaluate(averaged, batch, key)["loss"]
    np.testing.assert_allclose(found.total / found.count, np.log(4), rtol=1e-5)  # zero weights: an even guess


@pytest.mark.parametrize(
    ("objective", "missing", "said"),
    [
        (classification().objective, "label", "classification needs a label"),
        (segmentation().objective, "mask", "segmentation needs a mask"),
    ],
    ids=["classification", "segmentation"],
)
def test_data_without_the_truth_is_refused(objective, missing, said):
    with pytest.raises(UserError, match=said):
        objective.check({k: v for k, v in SPEC.items() if k != missing}, ("a", "b"))
