"""Metrics against torchmetrics, against a loop over the pixels, and the laws of sums."""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from golden.make_losses import CLASSES, SIZES, case

from jaxgen.errors import UserError
from jaxgen.metrics.accumulators import (
    Confusion,
    Mean,
    class_logits,
    merge,
    predicted,
    results,
    table,
    topk_correct,
    widen,
)
from jaxgen.typing import IGNORE

GOLDEN = np.load(pathlib.Path(__file__).parent / "golden" / "losses.npz")
of = jax.jit(Confusion.of, static_argnums=3)


def names(n: int) -> tuple[str, ...]:
    return tuple(f"class {i}" for i in range(n))


def count(prediction: np.ndarray, mask: np.ndarray, classes: int, valid: np.ndarray | None = None) -> Confusion:
    keep = np.ones(len(mask), bool) if valid is None else valid
    return of(jnp.asarray(prediction), jnp.asarray(mask), jnp.asarray(keep), classes)


def random_maps(seed: int, b: int = 4, n: int = 19) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    mask = rng.integers(0, n, (b, 10, 12)).astype(np.uint8)
    mask[:, 3] = IGNORE
    return np.where(rng.random(mask.shape) < 0.5, mask % n, rng.integers(0, n, mask.shape)).astype(np.int32), mask


@pytest.mark.parametrize(("h", "w"), SIZES)
def test_results_are_those_of_torchmetrics(h: int, w: int) -> None:
    logits, mask = case(h, w)
    confusion = count(logits.argmax(-1), mask, CLASSES)
    np.testing.assert_array_equal(confusion.counts, GOLDEN[f"metric confusion {h}x{w}"])
    found = confusion.result(names(CLASSES))
    for ours, theirs in (("miou", "miou"), ("fwiou", "fwiou"), ("aacc", "aacc")):
        assert found[ours] == pytest.approx(float(GOLDEN[f"metric {theirs} {h}x{w}"]), rel=1e-6)
    for key in ("iou", "dice", "acc"):  # where ours is None, undefined, theirs is 0
        ours = [row[key] or 0.0 for row in found["per_class"].values()]
        np.testing.assert_allclose(ours, GOLDEN[f"metric {key} {h}x{w}"], rtol=1e-6)
    assert found["absent"] == ["class 7", "class 8"]
    counted = mask.reshape(-1) != IGNORE
    top2 = topk_correct(jnp.asarray(logits.reshape(-1, CLASSES)[counted]), jnp.asarray(mask.reshape(-1)[counted]), 2)
    assert float(top2.mean()) == pytest.approx(float(GOLDEN[f"metric top2 {h}x{w}"]), rel=1e-6)


def test_counts_are_those_of_a_loop_over_the_pixels() -> None:
    prediction, mask = random_maps(0)
    expected = np.zeros((19, 19), int)
    for found, true in zip(prediction.reshape(-1), mask.reshape(-1), strict=True):
        if true != IGNORE:
            expected[true, found] += 1
    confusion = count(prediction, mask, 19)
    np.testing.assert_array_equal(confusion.counts, expected)
    assert confusion.counts.dtype == jnp.int32
    assert int(confusion.foreign) == 0
    np.testing.assert_array_equal(count(mask % 19, prediction.astype(np.uint8), 19).counts.sum(), mask.size)
    flat = count(prediction.reshape(-1), mask.reshape(-1), 19)  # labels i32[b] as well as maps
    np.testing.assert_array_equal(flat.counts, expected)


def test_results_do_not_depend_on_batches_padding_or_devices() -> None:
    prediction, mask = random_maps(1, b=6)
    whole = widen({"confusion": count(prediction, mask, 19), "loss": mean_of(mask)})
    for size in (1, 2, 4):
        parts = []
        for i in range(0, 6, size):
            p, m = prediction[i : i + size], mask[i : i + size]
            valid = np.arange(4) < len(p)  # each part padded to four rows of rubbish
            p, m = (np.concatenate([x, np.full((4 - len(x), *x.shape[1:]), 77, x.dtype)]) for x in (p, m))
            parts.append({"confusion": count(p, m, 19, valid), "loss": mean_of(m, valid)})
        merged = functools.reduce(merge, map(widen, parts))
        np.testing.assert_array_equal(merged["confusion"].counts, whole["confusion"].counts)
        found, expected = (results(x, names(19)) for x in (merged, whole))
        assert found.pop("loss") == pytest.approx(expected["loss"], rel=1e-6)
        assert found == {k: v for k, v in expected.items() if k != "loss"}

    mesh = jax.make_mesh((4,), ("data",), (jax.sharding.AxisType.Auto,))
    data = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    prediction, mask = random_maps(2, b=8)
    spread = of(*(jax.device_put(x, data) for x in (prediction, mask, np.ones(8, bool))), 19)
    np.testing.assert_array_equal(spread.counts, count(prediction, mask, 19).counts)


def mean_of(mask: np.ndarray, valid: np.ndarray | None = None) -> Mean:
    values = jnp.asarray(mask.mean((1, 2)), jnp.float32)
    return Mean.of(values, jnp.ones(len(mask), bool) if valid is None else jnp.asarray(valid))


def test_sums_stay_exact_beyond_32_bits() -> None:
    most = np.iinfo(np.int32).max
    batch = Confusion(counts=jnp.full((2, 2), most, jnp.int32), foreign=jnp.int32(0))
    total = functools.reduce(merge, [batch] * 9)
    assert total.counts.dtype == np.int64
    assert (total.counts == 9 * most).all()
    assert total.result(("a", "b"))["miou"] == 1 / 3
    assert total.result(("a", "b"))["per_class"]["a"]["pixels"] == 18 * most
    # 2^24 + 1 has no float32.
    ones = functools.reduce(merge, [Mean(total=jnp.float32(2**24), count=jnp.int32(most)), *[Mean(1.0, 1)] * 3])
    assert float(ones.total) == 2**24 + 3
    assert int(ones.count) == most + 3


def test_a_mean_is_over_the_valid_examples() -> None:
    values, valid = jnp.asarray([1.0, 2.0, jnp.nan, 6.0]), jnp.asarray([True, True, False, True])
    assert Mean.of(values, valid).result() == 3
    assert widen(Mean.of(values, valid)).result() == 3
    assert Mean.of(values, jnp.zeros(4, bool)).result() is None


def test_classes_that_are_absent_or_never_true() -> None:
    # Truth 0 0 1 1, prediction 0 0 1 2: class 2 is predicted and never true, class 3 neither.
    found = count(np.array([[0, 0, 1, 2]]), np.array([[0, 0, 1, 1]]), 4).result(("a", "b", "c", "d"))
    assert found["absent"] == ["d"]
    assert found["per_class"] == {
        "a": {"iou": 1.0, "acc": 1.0, "dice": 1.0, "pixels": 2},
        "b": {"iou": 0.5, "acc": 0.5, "dice": 2 / 3, "pixels": 2},
        "c": {"iou": 0.0, "acc": None, "dice": 0.0, "pixels": 0},
        "d": {"iou": None, "acc": None, "dice": None, "pixels": 0},
    }
    assert found["miou"] == pytest.approx((1 + 0.5 + 0) / 3)
    assert found["macc"] == pytest.approx((1 + 0.5) / 2)
    assert found["dice"] == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert found["aacc"] == 0.75
    assert found["fwiou"] == 0.75


def test_nothing_counted_is_no_number() -> None:
    found = count(np.zeros((2, 3, 3), int), np.full((2, 3, 3), IGNORE), 2).result(("a", "b"))
    assert found["absent"] == ["a", "b"]
    assert all(found[name] is None for name in ("miou", "macc", "aacc", "fwiou", "dice"))


@pytest.mark.parametrize("foreign", [-1, 19, 254, 1000])
@pytest.mark.parametrize("where", ["mask", "prediction"])
def test_foreign_ids_are_counted_apart_and_refused(foreign: int, where: str) -> None:
    prediction, mask = random_maps(3)
    arrays = {"prediction": prediction, "mask": mask.astype(np.int32)}
    arrays[where][0, 0, :2] = foreign
    confusion = count(**arrays, classes=19)
    assert int(confusion.foreign) == 2
    assert int(confusion.counts.sum()) == (mask != IGNORE).sum() - 2
    good = count(*random_maps(3), 19)
    for refuse in (
        lambda: confusion.result(names(19)),
        lambda: widen({"confusion": confusion}),
        lambda: merge({"confusion": good}, {"confusion": confusion}),
    ):
        with pytest.raises(UserError, match=r"2 pixels have ids outside 0\.\.18"):
            refuse()
    without = np.arange(4) > 0
    assert int(count(**arrays, classes=19, valid=without).foreign) == 0


def test_a_prediction_under_ignored_pixels_counts_nowhere() -> None:
    prediction, mask = random_maps(4)
    other = np.where(mask == IGNORE, 1000, prediction)
    np.testing.assert_array_equal(count(other, mask, 19).counts, count(prediction, mask, 19).counts)
    assert int(count(other, mask, 19).foreign) == 0


def test_scores_in_place_of_ids_are_refused() -> None:
    one_hot = jnp.zeros((2, 4, 4, 3), jnp.int32)
    with pytest.raises((ValueError, jaxtyping.TypeCheckError)):
        Confusion.of(one_hot, jnp.zeros((2, 4, 4), jnp.int32), jnp.ones(2, bool), 3)
    with pytest.raises((TypeError, jaxtyping.TypeCheckError)):
        Confusion.of(jnp.zeros((2, 4, 4)), jnp.zeros((2, 4, 4), jnp.int32), jnp.ones(2, bool), 3)


def test_names_must_match_the_classes() -> None:
    confusion = count(*random_maps(5), 19)
    for wrong in (names(18), names(20), ("same",) * 19):
        with pytest.raises(UserError, match="19 classes need as many different names"):
            confusion.result(wrong)


def test_results_are_json_and_print_as_a_table() -> None:
    sums = {"confusion": count(np.array([[0, 0, 1, 2]]), np.array([[0, 0, 1, 1]]), 4), "loss": Mean(2.0, 4)}
    found = results(sums, ("background", "b", "c", "d"))
    assert json.loads(json.dumps(found)) == found
    assert found["loss"] == 0.5
    lines = table(found)
    assert lines[1].split() == ["background", "1.0000", "1.0000", "1.0000", "2"]
    assert lines[4].split() == ["d", "-", "-", "-", "0"]
    assert lines[5].split() == ["mean", "0.5000", "0.7500", "0.5556", "4"]
    assert len({len(line) for line in lines[:6]}) == 1
    assert lines[6].endswith(": d")
    assert "loss 0.5000" in lines
    assert "aacc 0.7500" in lines
    assert table({"accuracy": 0.25, "top5": None}) == ["accuracy 0.2500", "top5 -"]
    with pytest.raises(ValueError, match="miou"):
        results({"one": sums["confusion"], "miou": Mean(1.0, 1)}, ("background", "b", "c", "d"))


def test_the_table_of_wide_names_keeps_its_columns() -> None:
    names = ("sky", "猫と犬", "cafe\u0301")  # 3, 6 and 4 cells of a terminal, 3, 3 and 5 characters
    lines = table(count(np.array([[0, 1, 2]]), np.array([[0, 1, 2]]), 3).result(names))
    assert [line.removeprefix(name) for name, line in zip(names, lines[1:4], strict=True)] == [
        " " * blank + "   1.0000   1.0000   1.0000            1" for blank in (3, 0, 2)
    ]


def test_top_k() -> None:
    logits = jnp.asarray([[3.0, 2.0, 1.0, 0.0]] * 4 + [[1.0, 1.0, 1.0, 1.0]])
    labels = jnp.asarray([0, 1, 2, 3, 0])
    for k, expected in ((1, [1, 0, 0, 0, 1]), (2, [1, 1, 0, 0, 1]), (3, [1, 1, 1, 0, 1]), (4, [1] * 5), (9, [1] * 5)):
        np.testing.assert_array_equal(topk_correct(logits, labels, k), expected)
    nothing = jnp.full((1, 4), jnp.nan)
    assert float(topk_correct(nothing, jnp.asarray([0]), 3)[0]) == 0
    assert float(topk_correct(logits[:1], jnp.asarray([255]), 3)[0]) == 0


def test_equal_logits_are_ranked_as_they_are_predicted() -> None:
    rng = np.random.default_rng(7)
    logits = jnp.asarray(rng.integers(0, 3, (200, 6)), jnp.float32)  # ties everywhere
    labels = jnp.asarray(rng.integers(0, 6, 200))
    np.testing.assert_array_equal(topk_correct(logits, labels, 1), predicted(logits) == labels)
    for k in (2, 5):
        likeliest = jax.lax.top_k(logits, k)[1]  # the first of equals comes first
        np.testing.assert_array_equal(topk_correct(logits, labels, k), (likeliest == labels[:, None]).any(1))


def test_one_logit_is_two() -> None:
    one = jnp.asarray([[-1.5], [0.25]], jnp.bfloat16)
    assert class_logits(one).tolist() == [[0.0, -1.5], [0.0, 0.25]]
    assert class_logits(one).dtype == jnp.float32
    assert class_logits(jnp.asarray([[1.0, 2.0, 3.0]])).tolist() == [[1.0, 2.0, 3.0]]


def test_the_predicted_class() -> None:
    logits = jnp.asarray(np.random.default_rng(6).normal(size=(2, 3, 4, 5)), jnp.float32)
    np.testing.assert_array_equal(predicted(logits), np.asarray(logits).argmax(-1))
    one = logits[..., :1]
    np.testing.assert_array_equal(predicted(one), predicted(jnp.concatenate([jnp.zeros_like(one), one], -1)))
    assert set(np.unique(predicted(one))) == {0, 1}
