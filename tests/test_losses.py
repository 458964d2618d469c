"""Laws that every loss obeys, cases computed by hand, and agreement with torch and segmentation_models_pytorch."""

import dataclasses
import functools
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tyro
from golden.make_losses import CLASSES, KEEP, PRESENT, SIZES, SMOOTHING, WEIGHTS, case

from jaxgen.errors import UserError
from jaxgen.supervised.losses import (
    CrossEntropy,
    Dice,
    Focal,
    Jaccard,
    Loss,
    Lovasz,
    Sum,
    Tversky,
    classification_loss,
    per_image,
)
from jaxgen.typing import IGNORE

N = 5
LOSSES = {
    "cross_entropy": CrossEntropy(),
    "weighted": CrossEntropy(class_weights=(0.5, 1.0, 2.0, 0.0, 3.0), smoothing=0.1),
    "hardest": CrossEntropy(keep=1 / 3),
    "focal": Focal(),
    "focal_root": Focal(gamma=0.5, class_weights=(0.5, 1.0, 2.0, 1.0, 3.0)),
    "tversky": Tversky(),
    "dice": Dice(),
    "jaccard": Jaccard(),
    "lovasz": Lovasz(),
    "sum": Sum(terms=((0.5, CrossEntropy()), (2.0, Dice()))),
}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
GOLDEN = np.load(pathlib.Path(__file__).parent / "golden" / "losses.npz")
with_goldens = pytest.mark.parametrize(("h", "w"), SIZES)


@functools.partial(jax.jit, static_argnums=0)
def compiled(loss: Loss, logits: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    each, pull = jax.vjp(lambda x: loss(x, mask), logits)
    return each, pull(jnp.full_like(each, 1 / len(each)))[0]


def value_and_grad(loss: Loss, logits: np.ndarray, mask: np.ndarray) -> tuple[float, np.ndarray]:
    each, grad = compiled(loss, jnp.asarray(logits, jnp.float32), jnp.asarray(mask))
    return float(each.mean()), np.asarray(grad)


def value(loss: Loss, logits: np.ndarray, mask: np.ndarray) -> float:
    return value_and_grad(loss, logits, mask)[0]


classify = jax.jit(classification_loss, static_argnames=("class_weights", "smoothing"))


def random_case(seed: int, b: int = 3, h: int = 7, w: int = 6, n: int = N) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    mask = rng.integers(0, n, (b, h, w)).astype(np.int32)
    return rng.normal(0, 2, (b, h, w, n)).astype(np.float32), np.where(rng.random(mask.shape) < 0.2, IGNORE, mask)


@every_loss
def test_a_loss_is_one_number_for_each_image(loss: Loss) -> None:
    logits, mask = random_case(0)
    found, _ = compiled(loss, jnp.asarray(logits), jnp.asarray(mask))
    assert found.shape == (3,)
    assert found.dtype == jnp.float32
    assert (found > 0).all()


@every_loss
def test_a_batch_of_ignored_pixels_costs_nothing_and_teaches_nothing(loss: Loss) -> None:
    logits, mask = random_case(1)
    cost, grad = value_and_grad(loss, logits, np.full_like(mask, IGNORE))
    assert cost == 0
    assert (grad == 0).all()


@every_loss
def test_what_is_predicted_at_an_ignored_pixel_does_not_matter(loss: Loss) -> None:
    logits, mask = random_case(2)
    other = np.where((mask == IGNORE)[..., None], random_case(3)[0] * 30, logits)
    cost, grad = value_and_grad(loss, logits, mask)
    cost_other, grad_other = value_and_grad(loss, other, mask)
    assert cost == pytest.approx(cost_other, rel=1e-6)
    np.testing.assert_allclose(grad, grad_other, atol=1e-7)
    assert (grad[mask == IGNORE] == 0).all()
    assert (grad[mask != IGNORE] != 0).any()


@every_loss
def test_the_loss_of_a_partly_ignored_map_is_that_of_the_rest(loss: Loss) -> None:
    logits, mask = (x[:, :, :3] for x in random_case(4))
    mask = np.where(mask == IGNORE, 0, mask)
    half_ignored = np.concatenate([logits, -logits], 2), np.concatenate([mask, np.full_like(mask, IGNORE)], 2)
    twice = np.concatenate([logits, logits], 2), np.concatenate([mask, mask], 2)  # each pixel twice changes no mean
    assert value(loss, *half_ignored) == pytest.approx(value(loss, *twice), rel=1e-5)


@every_loss
def test_images_without_a_counted_pixel_change_nothing(loss: Loss) -> None:
    logits, mask = random_case(5)
    alone = np.where(np.arange(3).reshape(3, 1, 1) == 1, mask, IGNORE)
    thrice = np.stack([logits[1]] * 3), np.stack([mask[1]] * 3)
    assert value(loss, logits, alone) == pytest.approx(value(loss, *thrice), rel=1e-5)


@every_loss
def test_the_order_of_pixels_and_of_images_does_not_matter(loss: Loss) -> None:
    logits, mask = random_case(6)
    p = np.random.default_rng(0).permutation(42)
    moved = logits.reshape(3, 42, N)[::-1, p].reshape(logits.shape), mask.reshape(3, 42)[::-1, p].reshape(mask.shape)
    found, found_moved = (np.asarray(compiled(loss, *map(jnp.asarray, x))[0]) for x in ((logits, mask), moved))
    np.testing.assert_allclose(found, found_moved[::-1], rtol=1e-5)


@every_loss
def test_a_foreign_id_makes_the_loss_nan(loss: Loss) -> None:
    for foreign in (-1, N, 254):
        logits, mask = random_case(7)
        mask[1] = IGNORE
        mask[1, 2, 3] = foreign
        each, _ = compiled(loss, jnp.asarray(logits), jnp.asarray(mask))
        np.testing.assert_array_equal(np.isnan(each), [False, True, False])


@pytest.mark.parametrize("loss", [CrossEntropy(), Dice()])
def test_byte_masks_and_half_precision_logits_are_taken_as_they_come(loss: Loss) -> None:
    logits, mask = random_case(8)
    half = jnp.asarray(logits, jnp.bfloat16)
    found, grad = compiled(loss, half, jnp.asarray(mask, jnp.uint8))
    assert found.dtype == jnp.float32
    assert grad.dtype == jnp.bfloat16
    np.testing.assert_allclose(found, compiled(loss, half.astype(jnp.float32), jnp.asarray(mask))[0], rtol=1e-6)


@every_loss
def test_gradients_are_those_of_finite_differences(loss: Loss) -> None:
    logits, mask = random_case(9)
    _, grad = value_and_grad(loss, logits, mask)
    # Along the gradient, where the slope is steepest, and along noise.
    noise = np.random.default_rng(1).normal(size=logits.shape)
    for direction in (grad / np.linalg.norm(grad), noise / np.linalg.norm(noise)):
        step = 3e-3 * direction.astype(np.float32)
        slope = (value(loss, logits + step, mask) - value(loss, logits - step, mask)) / 6e-3
        assert slope == pytest.approx(float((grad * direction).sum()), rel=1e-2, abs=1e-4)


@pytest.mark.parametrize("name", ["weighted", "hardest", "dice"])
def test_an_image_alone_has_its_loss_in_any_batch(name: str) -> None:
    logits, mask = random_case(10)
    found = per_image(LOSSES[name], jnp.asarray(logits), jnp.asarray(mask))
    for i in range(3):
        others_ignored = np.where(np.arange(3).reshape(3, 1, 1) == i, mask, IGNORE)
        assert float(found[i]) == pytest.approx(value(LOSSES[name], logits, others_ignored), rel=1e-5)


def test_four_devices_find_what_one_finds() -> None:
    logits, mask = random_case(11, b=8)
    mesh = jax.make_mesh((4,), ("data",), (jax.sharding.AxisType.Auto,))
    devices = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    mean = jax.jit(lambda x, y: [loss(x, y).mean() for loss in (CrossEntropy(), Dice(), CrossEntropy(keep=0.3))])
    spread = mean(jax.device_put(logits, devices), jax.device_put(mask, devices))
    np.testing.assert_allclose(spread, mean(jnp.asarray(logits), jnp.asarray(mask)), rtol=1e-5)


@every_loss
def test_the_mean_over_equal_parts_is_the_loss_of_the_batch(loss: Loss) -> None:
    logits, mask = map(jnp.asarray, random_case(21, b=4))
    # From none to all of a mask is ignored, so that no two parts have the same mass.
    mask = jnp.where(jnp.arange(42).reshape(1, 7, 6) < jnp.array([0, 9, 30, 42]).reshape(4, 1, 1), IGNORE, mask)

    def mean(logits: jax.Array) -> jax.Array:
        each = zip(jnp.split(logits, 2), jnp.split(mask, 2), strict=True)
        return jnp.stack([loss(x, y, mask).mean() for x, y in each]).mean()

    found, grad = jax.value_and_grad(mean)(logits)
    cost, slope = value_and_grad(loss, logits, mask)
    assert float(found) == pytest.approx(cost, rel=1e-5)
    np.testing.assert_allclose(grad, slope, rtol=1e-4, atol=1e-7)


@with_goldens
@pytest.mark.parametrize(
    ("name", "loss"),
    [
        ("cross_entropy", CrossEntropy()),
        ("weighted", CrossEntropy(class_weights=WEIGHTS)),
        ("smoothed", CrossEntropy(smoothing=SMOOTHING)),
        ("both", CrossEntropy(class_weights=WEIGHTS, smoothing=SMOOTHING)),
        ("hardest", CrossEntropy(keep=KEEP)),
        ("focal", Focal()),
        ("dice", Dice()),
        ("jaccard", Jaccard()),
        ("tversky", Tversky(alpha=0.3, beta=0.7)),
        ("lovasz", Lovasz()),
    ],
)
def test_losses_and_gradients_are_those_of_torch(name: str, loss: Loss, h: int, w: int) -> None:
    logits, mask = map(jnp.asarray, case(h, w))
    theirs, slopes = GOLDEN[f"{name} {h}x{w}"], GOLDEN[f"{name} {h}x{w} gradient"]
    # smp gives an absent class the loss 0 and still divides by all classes; we divide by those that are present.
    scale = CLASSES / PRESENT if name in ("dice", "jaccard", "tversky") else 1.0
    each, grad = compiled(loss, logits, mask)
    np.testing.assert_allclose(each if theirs.ndim else each.mean(), scale * theirs, rtol=1e-5)
    np.testing.assert_allclose(grad[:, ::8, ::8], scale * slopes, rtol=1e-3, atol=1e-4 * np.abs(slopes).max())


@with_goldens
@pytest.mark.parametrize(("name", "loss"), [("binary", CrossEntropy()), ("binary_focal", Focal())])
def test_one_logit_is_a_sigmoid(name: str, loss: Loss, h: int, w: int) -> None:
    assert value(loss, *case(h, w, 1)) == pytest.approx(float(GOLDEN[f"{name} {h}x{w}"]), rel=1e-5)


def pixels(*rows: tuple[float, ...]) -> np.ndarray:
    """An image of one row of pixels, out of their logits."""
    return np.array([[rows]], np.float32)


def sure(ids: tuple[int, ...], n: int) -> np.ndarray:
    """Logits of one row of pixels whose probabilities are exactly 0 and 1."""
    return pixels(*[tuple(200.0 * (i == j) - 100.0 for j in range(n)) for i in ids])


def row(*ids: int) -> np.ndarray:
    return np.array([[ids]], np.int32)


def test_huge_logits_are_exact() -> None:
    assert value(CrossEntropy(), pixels((100, -100)), row(1)) == 200
    assert value(CrossEntropy(), pixels((100, -100)), row(0)) == 0
    assert value(CrossEntropy(), pixels((100,)), row(0)) == 100
    assert value(CrossEntropy(), pixels((-100,)), row(1)) == 100
    both = pixels((100, -100), (100, -100))
    assert value(CrossEntropy(class_weights=(0.8, 0.2)), both, row(0, 1)) == pytest.approx(40, rel=1e-6)
    for loss in LOSSES.values():
        logits = 1e4 * random_case(12)[0]
        cost, grad = value_and_grad(loss, logits, random_case(12)[1])
        assert np.isfinite(cost)
        assert np.isfinite(grad).all()


def test_smoothing_spreads_its_share_over_all_classes() -> None:
    logits = sure((0, 1, 2, 3), 4) * 0.09  # ±9
    # Three of four classes get 0.1 / 4 each, at a cost of 18; a fourth pixel is ignored and not divided by.
    assert value(CrossEntropy(smoothing=0.1), logits, row(0, IGNORE, 2, 3)) == pytest.approx(1.35, rel=1e-5)


@pytest.mark.parametrize(("keep", "kept"), [(0.1, 2), (0.25, 4), (0.5, 8), (0.01, 1), (0.9, 14)])
def test_exactly_the_hardest_share_of_the_counted_pixels_is_kept(keep: float, kept: int) -> None:
    rng = np.random.default_rng(13)
    mask = np.full(20, 1)
    mask[rng.permutation(20)[:4]] = IGNORE  # 16 count
    logits = np.stack([rng.normal(0, 3, 20), np.zeros(20)], -1)
    logits[mask == IGNORE] = (50, 0)  # would be the hardest
    for case_logits in (logits, np.zeros_like(logits)):  # distinct costs, and nothing but ties
        image, ids = case_logits.reshape(1, 4, 5, 2).astype(np.float32), mask.reshape(1, 4, 5).astype(np.int32)
        cost, grad = value_and_grad(CrossEntropy(keep=keep), image, ids)
        each = np.sort(np.log1p(np.exp(case_logits[mask == 1, 0])))[::-1]
        assert cost == pytest.approx(each[:kept].mean(), rel=1e-5)
        assert (grad != 0).any(-1).sum() == kept


REGIONS = (Dice(), Jaccard(), Tversky(), Lovasz())


@pytest.mark.parametrize("loss", REGIONS, ids=lambda loss: type(loss).__name__)
def test_region_losses_run_from_0_to_1(loss: Loss) -> None:
    truth = row(0, 0, 1, 2)
    assert value(loss, sure((0, 0, 1, 2), 3), truth) == 0
    assert value(loss, sure((1, 2, 0, 1), 3), truth) == 1


@pytest.mark.parametrize("loss", REGIONS, ids=lambda loss: type(loss).__name__)
def test_an_empty_mask_costs_what_is_predicted_in_it(loss: Loss) -> None:
    empty, full = row(0, 0, 0, 0), row(1, 1, 1, 1)
    background, object_ = pixels(*[(-100,)] * 4), pixels(*[(100,)] * 4)
    assert value(loss, background, empty) == 0
    assert value(loss, object_, empty) == 1
    assert value(loss, object_, full) == 0
    assert value(loss, background, full) == 1
    _, grad = value_and_grad(loss, pixels(*[(1,)] * 4), empty)
    assert (grad > 0).all()  # a false alarm in an empty mask is unlearned


def test_overlap_computed_by_hand() -> None:
    truth, found = row(0, 0, 1, 1), sure((0, 1, 0, 1), 3)  # each class: 1 hit, 1 false alarm, 1 miss; class 2 absent
    assert value(Jaccard(), found, truth) == pytest.approx(1 - 1 / 3)
    assert value(Dice(), found, truth) == pytest.approx(1 - 1 / 2)
    assert value(Lovasz(), found, truth) == pytest.approx(1 - 1 / 3)
    found = sure((0, 0, 0, 1), 2)  # class 0: 2 hits, 1 false alarm; class 1: 1 hit, 1 miss
    for alpha, beta in ((0.3, 0.7), (1.0, 0.0)):
        score = (2 / (2 + alpha) + 1 / (1 + beta)) / 2
        assert value(Tversky(alpha=alpha, beta=beta), found, truth) == pytest.approx(1 - score)


def test_dice_and_jaccard_are_their_formulas_and_tverskys() -> None:
    logits, mask = random_case(14)
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    dice, jaccard = [], []
    for i, c in np.ndindex(3, N):  # every class is in every image
        a, b = p[i, mask[i] != IGNORE, c], mask[i, mask[i] != IGNORE] == c
        dice.append(1 - 2 * (a * b).sum() / (a.sum() + b.sum()))
        jaccard.append(1 - (a * b).sum() / (a.sum() + b.sum() - (a * b).sum()))
    for loss, alpha, each in ((Dice(), 0.5, dice), (Jaccard(), 1.0, jaccard)):
        assert value(loss, logits, mask) == pytest.approx(np.mean(each), rel=1e-5)
        assert value(Tversky(alpha=alpha, beta=alpha), logits, mask) == value(loss, logits, mask)


def test_lovasz_keeps_its_digits_on_a_large_image() -> None:
    rng = np.random.default_rng(15)
    logits, mask = rng.normal(0, 2, (1, 512, 512, 2)).astype(np.float32), rng.integers(0, 2, (1, 512, 512))
    p = 1 / (1 + np.exp(logits[..., :1].astype(np.float64) - logits[..., 1:]))
    terms = []
    for c, q in ((0, 1 - p), (1, p)):
        inside = (mask == c).reshape(-1)
        error = np.abs(inside - q.reshape(-1))
        order = np.argsort(-error)
        inside = inside[order].astype(np.float64)
        loss = 1 - (inside.sum() - inside.cumsum()) / (inside.sum() + (1 - inside).cumsum())
        terms.append((error[order] * np.diff(loss, prepend=0.0)).sum())
    assert value(Lovasz(), logits, mask.astype(np.int32)) == pytest.approx(np.mean(terms), rel=2e-6)


def test_focal_without_focus_is_cross_entropy() -> None:
    logits, mask = random_case(16)
    weights = (0.5, 1.0, 2.0, 1.0, 3.0)
    plain, focal = CrossEntropy(class_weights=weights), Focal(gamma=0.0, class_weights=weights)
    assert value(focal, logits, mask) == pytest.approx(value(plain, logits, mask), rel=1e-6)
    assert value(Focal(), logits, mask) < value(CrossEntropy(), logits, mask)


def test_a_sum_weighs_its_terms() -> None:
    logits, mask = random_case(17)
    terms = ((0.5, CrossEntropy()), (2.0, Dice()), (1.0, Lovasz()))
    expected = sum(weight * value(loss, logits, mask) for weight, loss in terms)
    assert value(Sum(terms=terms), logits, mask) == pytest.approx(expected, rel=1e-6)


def test_a_classifier_is_a_map_of_one_pixel() -> None:
    rng = np.random.default_rng(18)
    logits, label = rng.normal(0, 2, (8, N)).astype(np.float32), rng.integers(0, N, 8).astype(np.int32)
    targets = jnp.asarray(np.eye(N, dtype=np.float32)[label])
    for options in ({}, {"class_weights": (0.5, 1.0, 2.0, 1.0, 3.0), "smoothing": 0.1}):
        as_map, _ = compiled(CrossEntropy(**options), *(jnp.asarray(x)[:, None, None] for x in (logits, label)))
        np.testing.assert_allclose(classify(jnp.asarray(logits), targets, **options), as_map, rtol=1e-6)


def test_a_classifier_learns_from_soft_labels() -> None:
    rng = np.random.default_rng(19)
    logits = jnp.asarray(rng.normal(0, 2, (6, N)), jnp.float32)
    a, b = (jnp.asarray(np.eye(N, dtype=np.float32)[rng.integers(0, N, 6)]) for _ in range(2))
    mixed = classify(logits, 0.3 * a + 0.7 * b)
    separate = 0.3 * classify(logits, a) + 0.7 * classify(logits, b)
    np.testing.assert_allclose(mixed, separate, rtol=1e-5)
    # A row of zeros leaves its example out; a batch of them costs nothing.
    half = jnp.concatenate([a, jnp.zeros_like(a)])
    found = classify(jnp.concatenate([logits, logits]), half)
    assert float(found.mean()) == pytest.approx(float(classify(logits, a).mean()), rel=1e-6)
    grad = jax.grad(lambda x: classify(x, jnp.zeros_like(a)).mean())(logits)
    assert (grad == 0).all()


def test_mistakes_are_named() -> None:
    logits, mask = random_case(20)
    with pytest.raises(UserError, match="2 entries, but there are 5 classes"):
        value(CrossEntropy(class_weights=(1.0, 2.0)), logits, mask)
    for make in (
        lambda: CrossEntropy(keep=0.0),
        lambda: CrossEntropy(keep=1.5),
        lambda: CrossEntropy(smoothing=1.0),
        lambda: Focal(gamma=-1.0),
        lambda: Tversky(alpha=-0.1),
        lambda: Sum(terms=()),
        lambda: Sum(terms=((-1.0, Dice()),)),
    ):
        with pytest.raises(UserError):
            make()


@pytest.mark.parametrize("weights", [(1.0, -1.0), (0.0, 0.0), (1.0, float("nan")), (1.0, float("inf"))], ids=str)
@pytest.mark.parametrize("kind", [CrossEntropy, Focal])
def test_class_weights_are_numbers_of_which_some_count(kind, weights) -> None:
    with pytest.raises(UserError, match=r"class_weights is .*; it must be one number for each class, each 0 or more"):
        kind(class_weights=weights)


def test_the_hardest_pixels_are_divided_by_their_share_of_all_weights() -> None:
    logits = pixels((0, 4), (0, 2), (0, 1), (3, 0))
    ce = [math.log1p(math.exp(x)) for x in (4, 2, 1, -3)]  # of class 0
    # Two of four pixels are kept, the hardest ones; the weights are 3 for class 0.
    hard = CrossEntropy(keep=0.5, class_weights=(3.0, 1.0))
    assert value(hard, logits, row(0, 0, 0, 0)) == pytest.approx((ce[0] + ce[1]) / 2, rel=1e-5)
    # The second is class 1, and its cost ln(1 + exp(-2)): the first and third are kept, of weights 3 + 1 + 3 + 3.
    assert value(hard, logits, row(0, 1, 0, 0)) == pytest.approx(3 * (ce[0] + ce[2]) / (0.5 * 10), rel=1e-5)


@dataclasses.dataclass(frozen=True)
class Config:
    loss: Loss = Sum(terms=((1.0, CrossEntropy()), (1.0, Dice())))


def test_a_loss_takes_overrides_from_the_command_line() -> None:
    given = ["--loss.terms.1.0", "3", "--loss.terms.0.1.keep", "0.5", "--loss.terms.0.1.class-weights", "1", "2"]
    expected = Sum(terms=((1.0, CrossEntropy(keep=0.5, class_weights=(1.0, 2.0))), (3.0, Dice())))
    assert tyro.cli(Config, args=given).loss == expected
