"""Weights of a net that another run has trained."""

import dataclasses
import pathlib

import jax
import numpy as np

from jaxgen import tree
from jaxgen.errors import UserError
from jaxgen.runs.folder import RunFolder
from jaxgen.runs.restore import restore
from jaxgen.typing import Tree
from jaxgen.weights.files import fitted


@dataclasses.dataclass(frozen=True)
class FromRun:
    """One net of a run folder, with its first EMA where it keeps one."""

    path: str
    net: str = "net"
    """The learner's name there."""
    step: int | None = None
    """Which checkpoint; None: the newest."""

    def read(self, variables: Tree) -> Tree:
        """Return the net's arrays.

        Raises UserError if there is no such run, step or net, or it has other paths and shapes than `variables`.
        """
        run = restore(RunFolder(pathlib.Path(self.path)), self.step, print)
        if self.net not in run.state.nets:
            raise UserError(f"{self.path} has no net {self.net!r}; it has {', '.join(run.state.nets)}")
        net = run.state.nets[self.net]
        stored = jax.device_get({"params": net.best_params, **net.stats})
        arrays = {path: np.asarray(leaf) for path, leaf in tree.leaves(stored)}
        return fitted(arrays, variables, f"net {self.net!r} of {self.path}")
