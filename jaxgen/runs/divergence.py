"""What happens when a loss or a gradient is not finite any more."""

import dataclasses
from collections.abc import Callable
from typing import Any, NoReturn, Protocol, runtime_checkable

from jaxgen.errors import UserError
from jaxgen.state import State

Step = Callable[..., tuple[State, dict[str, Any]]]  # (state, batch) -> (state, scalars), pure


class Diverged(UserError):
    """A loss or a gradient is not finite any more."""


@runtime_checkable
class Divergence(Protocol):
    """A policy: it may change the compiled step, and it decides what follows a step that was not finite."""

    def guard(self, step: Step) -> Step:
        """Return the pure step to compile: this one, or one that keeps the old state where the new is not finite."""
        ...

    def react(self, error: Diverged, restore: Callable[[], tuple[int, State]]) -> tuple[int, State]:
        """Return the step and state to go on from, such as those of `restore`, the newest checkpoint; or raise."""
        ...


@dataclasses.dataclass(frozen=True)
class Stop:
    """Stop the run with an error; the checkpoints before it are kept."""

    def guard(self, step: Step) -> Step:
        return step

    def react(self, error: Diverged, restore: Callable[[], tuple[int, State]]) -> NoReturn:
        raise error
