"""A watchdog hears that a run is alive, and may act when it does not."""

from typing import Protocol, runtime_checkable

from jaxgen.runs.logs import RunInfo


@runtime_checkable
class Watch(Protocol):
    """The watch over one run."""

    def beat(self, step: int, doing: str) -> None:
        """Hear what the run does now: "step", "checkpoint", "preview" or "evaluation"."""
        ...

    def close(self) -> None:
        """End the watch."""
        ...


@runtime_checkable
class Watchdog(Protocol):
    """A frozen dataclass that opens a watch over a run."""

    def open(self, run: RunInfo) -> Watch: ...
