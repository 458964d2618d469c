"""Muon: momentum with its singular values brought to 1, for the matrices of a net."""

import dataclasses
import math
import re

import optax
from jaxtyping import Array

from jaxgen import tree
from jaxgen.errors import UserError, check_field
from jaxgen.optim.optimizer import SHARE, Adam
from jaxgen.optim.transforms import check_found
from jaxgen.typing import Tree

OURS, OTHERS = "muon", "adam"  # the two parts of the state
Axes = tuple[tuple[str, str], ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Muon:
    """Orthogonalised momentum for matrices and convolutions, Adam for all else; weight decay is decoupled.

    Jordan et al., 2024 (https://kellerjordan.github.io/posts/muon). A convolution's kernel [h w in out] is the matrix
    [h·w·in out]. A step is scaled to a root mean square of `rms`, as large as Adam's steps are in training, so that
    both take one learning rate, and Adam's serves (Moonlight, arXiv:2502.16982, section 2.2).
    """

    matrices: str = r"kernel$"
    """Regular expression: Muon moves the parameters of two or more axes whose path it finds."""
    left_to_adam: str = ""
    """Regular expression: of these, what Adam moves all the same, such as a first and a last layer; empty: nothing."""
    axes: Axes = ()
    """(regular expression, letters) pairs for other kernels than [in out] and [h w in out], a letter an axis: "i" for
    inputs, "o" for outputs, "n" where each entry is a matrix of its own. The first that finds a path and has as many
    letters as that parameter has axes; a stack of layers [depth in out] is "nio". `AXES` of models/dit.py are DiT's."""
    momentum: float = 0.95
    """Of Nesterov's form, at least 0 and below 1."""
    iterations: int = 5
    """Of Newton-Schulz, a polynomial of degree 5 each."""
    rms: float = 0.2
    """Root mean square of a step of full rank, in units of the learning rate."""
    adam: Adam = Adam()
    """What moves the other parameters."""

    def __post_init__(self) -> None:
        check_field(self, "momentum", 0 <= self.momentum < 1, SHARE)
        check_field(self, "iterations", self.iterations >= 1, "at least 1")
        check_field(self, "rms", 0 < self.rms < math.inf, "above 0")
        for pattern in (self.matrices, self.left_to_adam, *(pattern for pattern, _ in self.axes)):
            try:
                re.compile(pattern)
            except re.error as error:
                raise UserError(f"Muon: {pattern!r} is no regular expression: {error}") from error
        for _, letters in self.axes:
            fit = set(letters) <= set("ino") and "i" in letters and "o" in letters
            check_field(self, "axes", fit, 'pairs of an expression and letters of "i", "o" and "n", such as "nio"')

    def direction(self, decay: optax.GradientTransformation, steps: int) -> optax.GradientTransformation:
        """Return the two rules, each for its part of the parameters.

        Raises UserError at init if an expression finds no parameter, or a parameter's axes are not known.
        """
        ours = optax.chain(
            optax.contrib.scale_by_muon(
                beta=self.momentum, ns_steps=self.iterations, weight_dimension_numbers=self._dimensions
            ),
            optax.stateless(lambda updates, _: tree.map_with_path(self._scaled, updates)),
        )
        others = self.adam.direction(optax.identity(), steps)
        return optax.chain(optax.partition({OURS: ours, OTHERS: others}, self._parts), decay)

    def _parts(self, params: Tree) -> Tree:
        for field in ("matrices", "left_to_adam"):
            check_found(f"method.{field}", getattr(self, field), params)
        for pattern, _ in self.axes:
            check_found("method.axes", pattern, params)
        return tree.map_with_path(self._part, params)

    def _part(self, path: str, x: Array) -> str:
        left = self.left_to_adam and re.search(self.left_to_adam, path)
        if x.ndim < 2 or left or not re.search(self.matrices, path):
            return OTHERS
        self._letters(path, x)  # while there is an error to be raised, before anything is compiled
        return OURS

    def _letters(self, path: str, x: Array) -> str:
        for pattern, letters in self.axes:
            if len(letters) == x.ndim and re.search(pattern, path):
                return letters
        if x.ndim == 2 or x.ndim == 4:
            return "i" * (x.ndim - 1) + "o"
        raise UserError(
            f"Muon does not know which axes of {path} {tuple(x.shape)} are inputs and which are outputs; say so, as\n"
            f"axes=(({path + '$'!r}, {'n' * (x.ndim - 2) + 'io'!r}),), or leave it to Adam: left_to_adam={path + '$'!r}"
        )

    def _dimensions(self, matrices: Tree) -> Tree:
        def one(path: str, x: Array) -> optax.contrib.MuonDimensionNumbers:
            letters = self._letters(path, x)
            inputs, outputs = ([k for k, letter in enumerate(letters) if letter == kind] for kind in "io")
            return optax.contrib.MuonDimensionNumbers(tuple(inputs), tuple(outputs))

        return tree.map_with_path(one, matrices)

    def _scaled(self, path: str, x: Array) -> Array:
        letters = self._letters(path, x)
        sides = [math.prod(n for n, letter in zip(x.shape, letters, strict=True) if letter == kind) for kind in "io"]
        return x * (self.rms * math.sqrt(max(sides)))
