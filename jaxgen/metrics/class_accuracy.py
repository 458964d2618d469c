"""Class accuracy: whether a classifier reads the digits that a generator was asked for."""

import dataclasses
from collections.abc import Collection
from typing import Any

import numpy as np

from jaxgen.errors import UserError
from jaxgen.features.digits_cnn import DigitsCnn
from jaxgen.metrics.outlook import Outlook, check_net
from jaxgen.metrics.view import Samples, View, as_shown, finite

DIGITS = tuple(str(digit) for digit in range(10))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassAccuracy:
    """Share of a class-conditional generator's digits that the classifier of `DigitsCnn` reads as asked for.

    `readback_real` is what it reads right of the test split: above that, samples are easier to read than real digits.
    """

    samples: int = 1000

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise UserError(f"ClassAccuracy.samples is {self.samples}; it must be at least 1")

    def check(self, outlook: Outlook) -> Collection[str]:
        """Return the names of the numbers.

        Raises UserError unless the classes are the digits, in pictures of their size, and the samples have labels.
        """
        self._check_classes(outlook.classes, labelled=outlook.asked_for_class)
        check_net(DigitsCnn().classifier(), outlook, "ClassAccuracy")
        return ["readback_accuracy"]

    def _check_classes(self, classes: tuple[str, ...], *, labelled: bool) -> None:
        if classes != DIGITS:
            raise UserError(f"ClassAccuracy reads the digits 0..9, not {', '.join(classes[:4])}…; remove it")
        if not labelled:
            raise UserError(
                "ClassAccuracy needs a generator that is asked for a class; remove it, or give the net classes"
            )

    def measure(self, view: View) -> dict[str, Any]:
        """Return the shares by name.

        Raises UserError unless the classes are the digits and the samples have labels and are finite.
        """
        samples = finite(view.samples(self.samples))
        asked = samples.label
        self._check_classes(view.classes, labelled=asked is not None)
        assert asked is not None  # as was just checked
        right = _right(view, samples)
        per_class = {
            name: float(right[asked == k].mean()) if (asked == k).any() else None for k, name in enumerate(view.classes)
        }
        test = view.rows("test")
        return {
            "readback_accuracy": float(right.mean()),
            "readback_real": float(_right(view, test).mean()) if test.label is not None else None,
            "readback_per_class": per_class,
            "protocol": view.protocol | {"readback": {"samples": len(right), "classifier": DigitsCnn().name}},
        }


def _right(view: View, samples: Samples) -> np.ndarray:
    return view.map(DigitsCnn().classifier(), as_shown(samples.image)).argmax(-1) == samples.label
