"""What metrics need of a feature net."""

import abc
from collections.abc import Callable

from jaxtyping import Array, Float


class Features(abc.ABC):
    """A feature net: a frozen dataclass whose extractor is a pure function of a batch in [-1, 1]."""

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """The features' name."""

    @property
    def metric(self) -> str:
        """The name of the Fréchet distance between them."""
        return f"fd_{self.name}"

    @abc.abstractmethod
    def extractor(self) -> Callable[[Float[Array, " b *s"]], Float[Array, "b d"]]:
        """Return the pure function; the caller compiles it."""
