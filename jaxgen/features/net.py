"""What a feature net is to those who measure with it."""

import abc
from collections.abc import Callable

from jaxtyping import Array, Float


class Features(abc.ABC):
    """A feature net: a frozen dataclass whose extractor is a pure function of a batch in [-1, 1]."""

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """What the features are called."""

    @property
    def metric(self) -> str:
        """What the Fréchet distance between them is called."""
        return f"fd_{self.name}"

    @abc.abstractmethod
    def extractor(self) -> Callable[[Float[Array, " b *s"]], Float[Array, "b d"]]:
        """Return the pure function; jit is the caller's."""
