"""The steps since the last line of metrics, and where the time of the whole process went."""

import contextlib
import math
import time
from collections.abc import Iterator
from typing import Literal

import numpy as np

from jaxgen.runs.divergence import Diverged

Part = Literal["compile", "data_wait", "step_seconds", "preview", "evaluation", "checkpoint"]

PARTS: tuple[Part, ...] = ("compile", "data_wait", "step_seconds", "preview", "evaluation", "checkpoint")
AWAY = ("compile", "preview", "evaluation")  # what is no part of the training's speed


class Meter:
    """Mean scalars, images/s and the share of time spent waiting for data, since the last line of metrics.

    And the seconds that this process has spent on each part of the run, in which it waited for that and nothing else.
    """

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._seconds = dict.fromkeys(PARTS, 0.0)
        self.reset()

    def reset(self) -> None:
        """Begin anew; the seconds of the whole process go on."""
        self._rows: list[dict[str, float]] = []
        self._begin = time.perf_counter()
        self._waited = self._away = 0.0

    def add(self, step: int, scalars: dict[str, np.ndarray]) -> None:
        """Take one step's scalars.

        Raises Diverged if one of them is not finite.
        """
        row = {name: float(value) for name, value in scalars.items()}
        if wild := [name for name, value in row.items() if not math.isfinite(value)]:
            raise Diverged(
                f"{wild[-1]} is {row[wild[-1]]} at step {step}; the checkpoints before it are kept\n"
                "try a lower learning rate, a longer warm-up or an optimizer with clip=1.0, in a new run folder"
            )
        self._rows.append(row)

    def values(self) -> dict[str, float]:
        """Return the means since the last call, and begin anew."""
        spent = time.perf_counter() - self._begin - self._away
        means = {name: sum(row[name] for row in self._rows) / len(self._rows) for name in self._rows[0]}
        rates = {
            "images_per_second": len(self._rows) * self._batch_size / spent,
            "data_wait": self._waited / spent,
        }
        self.reset()
        return means | rates

    @contextlib.contextmanager
    def spending(self, part: Part) -> Iterator[None]:
        """Count the time inside as spent on a part of the run."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.count(part, time.perf_counter() - begin)

    def count(self, part: Part, seconds: float) -> None:
        """Count seconds as spent on a part of the run."""
        self._seconds[part] += seconds
        self._waited += seconds * (part == "data_wait")
        self._away += seconds * (part in AWAY)

    def seconds(self) -> dict[str, float]:
        """Return the seconds that this process has spent on each part so far."""
        return {part: round(seconds, 3) for part, seconds in self._seconds.items()}
