"""What the laws do not say of single objectives: mixing, auxiliary heads, one logit, and data that do not fit."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import classification, segmentation, with_learners

from jaxgen.errors import UserError
from jaxgen.learner import Learner
from jaxgen.metrics.accumulators import results
from jaxgen.objectives.segmentation import Segmentation
from jaxgen.optim.optimizer import Optimizer, Sgd
from jaxgen.optim.schedules import Constant
from jaxgen.supervised.losses import CrossEntropy
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
