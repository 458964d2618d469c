"""What a metric of samples sees of a run, samples and real examples, and what such a metric is."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Float32, Int32

from jaxgen.errors import UserError
from jaxgen.pictures.pixels import levels

Split = Literal["train", "test"]
REAL = 50_000  # real examples that samples are compared with, at most


@dataclasses.dataclass(frozen=True)
class Samples:
    """Images or points, and the classes that they are of or were asked for."""

    image: Float32[np.ndarray, " n *s"]
    """Images f32[n h w c] in [-1, 1], or points f32[n d]."""
    label: Int32[np.ndarray, " n"] | None
    """Positions in the view's classes; None for samples of a net without classes, and for data without labels."""


@runtime_checkable
class View(Protocol):
    """One state of a run, to be measured."""

    classes: tuple[str, ...]
    protocol: dict[str, Any]
    """How the samples are made (sampler, evaluations of the net, guidance, seed), ready for JSON."""

    def samples(self, n: int, like: Split | None = None) -> Samples:
        """Return the first n samples of the run's generator.

        Where it has classes they are asked for in turn, or with `like` as often as in that split.
        """
        ...

    def rows(self, split: Split) -> Samples:
        """Return the real examples of a split, 50,000 of them where there are more."""
        ...

    def map(self, f: Callable[[jax.Array], jax.Array], images: np.ndarray) -> np.ndarray:
        """Return f(images), computed in batches on the device; f is pure and maps each row by itself."""
        ...

    def log_likelihood(
        self,
        images: np.ndarray,
        label: np.ndarray | None,
        *,
        steps: int,
        sigma_min: float | None,
        sigma_max: float | None,
        probes: int,
    ) -> np.ndarray:
        """Return ln p of each image in nats; see `diffusion.likelihood`. Raises UserError where the model has none."""
        ...


@runtime_checkable
class Metric(Protocol):
    """Something to know of a run's samples, as a frozen dataclass of numbers."""

    def measure(self, view: View) -> dict[str, Any]:
        """Return numbers by name, ready for JSON, and under `protocol` a dict that says how they were found."""
        ...


@runtime_checkable
class OfSamples(Protocol):
    """A metric whose number of samples is a field."""

    samples: int


def with_samples(metrics: tuple[Any, ...], samples: int) -> tuple[Any, ...]:
    """Return the metrics with this many samples.

    Raises UserError if none of them draws samples.
    """
    if not any(isinstance(metric, OfSamples) for metric in metrics):
        raise UserError("--samples: this run's config measures no samples")

    def changed(metric: Any) -> Any:
        if not isinstance(metric, OfSamples):
            return metric
        of_samples: Any = metric
        return dataclasses.replace(of_samples, samples=samples)

    return tuple(changed(metric) for metric in metrics)


def finite(samples: Samples) -> Samples:
    """Return the samples as they are.

    Raises UserError if one holds a NaN or an infinity: no distance to it means anything.
    """
    good = np.isfinite(samples.image.reshape(len(samples.image), -1)).all(1)
    if not good.all():
        raise UserError(
            f"{(~good).sum()} of {len(good)} samples hold NaN or infinity: training or sampling diverged; "
            "lower the learning rate or set the optimizer's `clip`"
        )
    return samples


def as_shown(image: Float32[np.ndarray, " n *s"]) -> Float32[np.ndarray, " n *s"]:
    """Round images to the 8 bits per channel that a file would hold; points stay as they are.

    Real and generated images are both rounded, so that finer steps on one side are not taken for a difference.
    """
    if image.ndim != 4:
        return image
    return levels(image) / np.float32(127.5) - np.float32(1)
