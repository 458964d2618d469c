"""The steps since the last line of metrics: mean scalars, speed, and whether all are finite."""

import contextlib
import math
import time
from collections.abc import Iterator

import numpy as np

from jaxgen.runs.divergence import Diverged


class Meter:
    """Mean scalars, images/s, and the share of time spent waiting for data, since the last line of metrics."""

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self.reset()

    def reset(self) -> None:
        """Begin anew."""
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
    def waiting(self) -> Iterator[None]:
        """Count the time inside as spent waiting for data."""
        begin = time.perf_counter()
        yield
        self._waited += time.perf_counter() - begin

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time inside out of the training's speed."""
        begin = time.perf_counter()
        yield
        self._away += time.perf_counter() - begin
