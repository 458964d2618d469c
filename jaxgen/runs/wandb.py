"""Weights & Biases as a logger; the package is imported when a run opens it."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from jaxgen.errors import UserError
from jaxgen.runs.logs import Log, RunInfo


@dataclasses.dataclass(frozen=True, kw_only=True)
class WandB:
    """Metrics, previews and settings of a run at Weights & Biases: loggers=(…, WandB(project="digits"))."""

    project: str
    entity: str | None = None
    mode: Literal["online", "offline", "disabled"] = "online"
    """Offline runs are kept in the run folder, for `wandb sync`."""

    def open(self, run: RunInfo) -> Log:
        """Open a run of the folder's name, or go on with it.

        Raises UserError if the package is missing, or refuses.
        """
        try:
            import wandb  # pyrefly: ignore[missing-import]
        except ImportError as error:
            raise UserError("WandB needs the package wandb: uv pip install wandb, or drop it from `loggers`") from error
        try:
            opened = wandb.init(
                project=self.project, entity=self.entity, mode=self.mode, dir=str(run.folder), id=run.folder.name,
                name=run.folder.name, config=dict(run.settings), resume="allow",
            )  # fmt: skip
        except wandb.errors.Error as error:
            raise UserError(f"WandB: {error}; check the login, or set mode='offline'") from error
        return _WandB(opened, wandb.Image)


class _WandB:
    def __init__(self, run: Any, image: Any) -> None:
        self._run, self._image = run, image

    def write(self, step: int, split: str, values: Mapping[str, Any]) -> None:
        numbers = {f"{split}/{name}": value for name, value in values.items() if isinstance(value, int | float)}
        self._run.log(numbers, step=step)

    def image(self, step: int, name: str, pixels: np.ndarray) -> None:
        self._run.log({name: self._image(pixels)}, step=step)

    def say(self, text: str) -> None:
        pass

    def advance(self, step: int) -> None:
        pass

    def close(self) -> None:
        self._run.finish()
