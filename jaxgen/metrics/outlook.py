"""What is known of samples and data before the training: a metric that cannot be measured is refused by it."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from jaxgen.errors import UserError


@dataclasses.dataclass(frozen=True)
class Outlook:
    """What a `View` will show."""

    classes: tuple[str, ...]
    shape: tuple[int, ...]
    """Shape of one sample, and of one real example: (h, w, c), or (d,) of points."""
    rows: Mapping[str, int]
    """Number of real examples of the splits "train" and "test"."""
    asked_for_class: bool
    """Whether samples have labels."""
    has_density: bool
    """Whether the model gives examples a likelihood."""
    model: str
    """The objective's name."""


@runtime_checkable
class Foreseeing(Protocol):
    """A metric that can tell before the training whether it can be measured."""

    def check(self, outlook: Outlook) -> Collection[str]:
        """Return the names of its numbers.

        Raises UserError where they could not be measured.
        """
        ...


def check(metrics: Collection[Any], outlook: Outlook) -> None:
    """Raise UserError where one of the metrics could not be measured, or two give the same number."""
    seen: set[str] = set()
    for metric in metrics:
        if not callable(getattr(metric, "measure", None)):
            raise UserError(f"metrics: {type(metric).__name__} is no metric: it has no `measure`")
        if isinstance(metric, Foreseeing):
            names = set(metric.check(outlook))
            if twice := seen & names:
                raise UserError(f"two metrics give {', '.join(sorted(twice))}; keep one of them")
            seen |= names


def check_net(net: Any, outlook: Outlook, owner: str) -> None:
    """Raise UserError unless a feature net, a pure function of a batch, reads pictures of the samples' shape."""
    try:
        jax.eval_shape(net, jax.ShapeDtypeStruct((1, *outlook.shape), jnp.float32))
    except UserError as error:
        raise UserError(f"{owner}: {error}; remove it, or give the data that size") from error
    except (TypeError, ValueError) as error:
        shape = "x".join(map(str, outlook.shape))
        raise UserError(f"{owner}: the feature net does not read samples of {shape}: {error!s:.120}") from error
