"""Metrics as sums: computed on the device, added on the host in int64 and float64, divided once at the end.

So a result does not depend on how examples were batched, padded (`valid`) or spread over devices.
"""

import unicodedata
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Integer

from jaxgen.errors import UserError
from jaxgen.typing import IGNORE, Tree


@struct.dataclass
class Mean:
    """An average over examples."""

    total: Any  # f32[] on the device, f64[] once merged
    count: Any  # i32[] on the device, i64[] once merged

    @classmethod
    def of(cls, values: Float[Array, " b"], valid: Bool[Array, " b"]) -> "Mean":
        """Sum the values of the valid examples."""
        return cls(total=jnp.where(valid, values, 0.0).sum(), count=valid.sum(dtype=jnp.int32))

    def result(self) -> float | None:
        """Return the average, None where no example was counted."""
        return float(self.total) / int(self.count) if int(self.count) else None


@struct.dataclass
class Confusion:
    """How often class i (row, truth) was predicted as class j (column), in exact integers."""

    counts: Any  # i32[c c] on the device, i64[c c] once merged
    foreign: Any  # i32[], i64[]: pixels whose truth or prediction is no class; no cell counts them

    @classmethod
    def of(
        cls, prediction: Integer[Array, " b *p"], mask: Integer[Array, " b *p"], valid: Bool[Array, " b"], classes: int
    ) -> "Confusion":
        """Count the pixels (or, for labels i32[b], the examples) of the valid examples; id 255 is counted nowhere.

        Raises ValueError unless `prediction` has the shape of `mask`: class ids, not scores.
        """
        if prediction.shape != mask.shape:
            raise ValueError(f"prediction {prediction.shape} and mask {mask.shape} must be class ids of one shape")
        truth, guess = mask.astype(jnp.int32), prediction.astype(jnp.int32)
        counted = (truth != IGNORE) & valid.reshape(-1, *[1] * (mask.ndim - 1))
        known = (truth >= 0) & (truth < classes) & (guess >= 0) & (guess < classes)
        # One cell for each pair, then one for foreign ids and one for pixels that do not count.
        foreign = classes * classes
        cell = jnp.where(counted, jnp.where(known, truth * classes + guess, foreign), foreign + 1)
        cells = jnp.zeros(foreign + 2, jnp.int32).at[cell.reshape(-1)].add(1)
        return cls(counts=cells[:foreign].reshape(classes, classes), foreign=cells[foreign])

    def check(self) -> None:
        """Raise UserError if a pixel had an id that is no class: the results would be wrong."""
        if int(self.foreign):
            last = self.counts.shape[0] - 1
            raise UserError(
                f"{int(self.foreign)} pixels have ids outside 0..{last} (and are not {IGNORE}, ignore): "
                f"check the masks' ids, and that the model has as many classes as the data"
            )

    def result(self, classes: tuple[str, ...]) -> dict[str, Any]:
        """Return shares, ready for JSON: `miou`, `macc`, `aacc`, `fwiou`, `dice`, `per_class` and `absent`.

        A class that is neither in the truth nor predicted is absent: None, named, and left out of every mean. One that
        is predicted but never true has an IoU and a dice of 0, which count in their means (as in torchmetrics' macro
        average and mmseg), and no accuracy. `fwiou` weighs each IoU by the class's share of the true pixels.

        Raises UserError for foreign ids, or unless `classes` has one different name for each class.
        """
        self.check()
        counts = np.asarray(self.counts, np.int64)
        if len(set(classes)) != len(counts):
            raise UserError(f"{len(counts)} classes need as many different names; got {', '.join(classes)}")
        hits, true, guessed = counts.diagonal(), counts.sum(1), counts.sum(0)
        iou, acc, dice = _share(hits, true + guessed - hits), _share(hits, true), _share(2 * hits, true + guessed)
        rows = zip(classes, iou, acc, dice, true, strict=True)
        return {
            "miou": _mean(iou),
            "macc": _mean(acc),
            "aacc": _number(_share(hits.sum(), true.sum())),
            "fwiou": _number(_share((np.nan_to_num(iou) * true).sum(), true.sum())),
            "dice": _mean(dice),
            "per_class": {
                name: {"iou": _number(i), "acc": _number(a), "dice": _number(d), "pixels": int(t)}
                for name, i, a, d, t in rows
            },
            "absent": [name for name, i in zip(classes, iou, strict=True) if np.isnan(i)],
        }


Accumulator = Mean | Confusion


def widen(metrics: Tree) -> Tree:
    """Bring a metric, or a tree of them, to the host: integers as int64, floats as float64.

    Raises UserError for foreign ids in a Confusion.
    """
    wide = jax.tree.map(_wide, metrics)
    for metric in jax.tree.leaves(wide, is_leaf=lambda leaf: isinstance(leaf, Confusion)):
        if isinstance(metric, Confusion):
            metric.check()
    return wide


def merge(a: Tree, b: Tree) -> Tree:
    """Add two metrics, or two trees of them, as `widen` brings them to the host."""
    return jax.tree.map(np.add, widen(a), widen(b))


def results(metrics: Mapping[str, Accumulator], classes: tuple[str, ...]) -> dict[str, Any]:
    """Turn sums into numbers ready for JSON: a Mean under its own name, a Confusion as the entries of its result."""
    report: dict[str, Any] = {}
    for name, metric in metrics.items():
        new = {name: metric.result()} if isinstance(metric, Mean) else metric.result(classes)
        if twice := report.keys() & new.keys():
            raise ValueError(f"two metrics report {', '.join(sorted(twice))}")
        report |= new
    return report


def table(result: Mapping[str, Any]) -> list[str]:
    """Write `results` as lines for a person: a Confusion's classes as a table, and each other number on its own."""
    lines = []
    if "per_class" in result:
        rows = [(name, row["iou"], row["acc"], row["dice"], row["pixels"]) for name, row in result["per_class"].items()]
        mean = ("mean", result["miou"], result["macc"], result["dice"], sum(row[-1] for row in rows))
        wide = max(_cells(row[0]) for row in [*rows, mean])
        lines.append(f"{'':<{wide}}{'IoU':>9}{'accuracy':>9}{'dice':>9}{'pixels':>13}")
        for name, iou, acc, dice, pixels in [*rows, mean]:
            lines.append(
                f"{name}{' ' * (wide - _cells(name))}{_text(iou):>9}{_text(acc):>9}{_text(dice):>9}{pixels:>13}"
            )
        if result["absent"]:
            lines.append(f"in no mean, as absent from truth and predictions: {', '.join(result['absent'])}")
    tabled = {"per_class", "absent", "macc", "dice"} if lines else set()
    numbers = {name: value for name, value in result.items() if name not in tabled and not isinstance(value, dict)}
    return lines + [f"{name} {_text(value)}" for name, value in numbers.items()]


def predicted[A: (Array, np.ndarray)](logits: A) -> A:
    """Return the most likely class i32[*b] of logits f32[*b n], JAX's or numpy's; one logit x is the two logits (0, x)
    of classes 0 and 1."""
    likeliest: Any = (logits[..., 0] > 0).astype(jnp.int32) if logits.shape[-1] == 1 else logits.argmax(-1)
    return likeliest


def class_logits(logits: Float[Array, "*b n"]) -> Float[Array, "*b m"]:
    """Return one f32 logit for each class, two at least: one logit x is the two logits (0, x) of classes 0 and 1."""
    logits = logits.astype(jnp.float32)
    return jnp.concatenate([jnp.zeros_like(logits), logits], -1) if logits.shape[-1] == 1 else logits


def topk_correct(logits: Float[Array, "b n"], labels: Integer[Array, " b"], k: int) -> Float[Array, " b"]:
    """Return 1 where the label's logit is among the k highest, else 0.

    Of equal logits the first is the higher, as in `predicted`; a NaN is higher than all. Where k >= n all are right.
    """
    n = logits.shape[-1]
    own = jnp.where(jax.nn.one_hot(labels, n, dtype=bool), logits, -jnp.inf).max(-1, keepdims=True)
    later = jnp.arange(n)[None] > labels[:, None]
    not_below = n - ((logits < own) | ((logits == own) & later)).sum(-1)  # the label itself, and what is above it
    return (not_below <= k).astype(jnp.float32)


def _cells(text: str) -> int:
    """How many cells of a terminal a line takes: two for letters as wide as 猫, none for accents that stand alone."""
    widths = [0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text]
    return sum(widths)


def _wide(x: Any) -> Any:
    array = np.asarray(x)
    return array.astype(np.int64 if np.issubdtype(array.dtype, np.integer) else np.float64)


def _share(part: Any, whole: Any) -> Any:
    """part / whole, NaN where the whole is empty."""
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)


def _mean(shares: np.ndarray) -> float | None:
    """Average what is not NaN; None where all is."""
    return None if np.isnan(shares).all() else float(np.nanmean(shares))


def _number(x: Any) -> float | None:
    return None if np.isnan(x) else float(x)


def _text(x: float | None) -> str:
    return "-" if x is None else f"{x:.4f}"
