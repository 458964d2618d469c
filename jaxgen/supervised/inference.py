"""Dense prediction for an image of any size: logits of the same size, from a net that may need another.

Each way to do it is a value. `apply` is pure and traceable, for use inside a jitted function; `on_host` takes and
returns numpy arrays and calls a jitted `predict` with few shapes, for large images or images of many sizes.
"""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int

from jaxgen.errors import UserError
from jaxgen.metrics.accumulators import class_logits
from jaxgen.nn.resize import bilinear

Predict = Callable[[Any], Any]  # f32[b h w c] -> logits f32[b h w n]
Fill = tuple[tuple[int, int], tuple[int, int], tuple[int, int], tuple[int, int]]  # what to add before, after each axis


@runtime_checkable
class Inference(Protocol):
    """Make logits f32[b h w n] for an image f32[b h w c] of any size, from logits at sizes that the net takes."""

    def apply(self, predict: Predict, image: Float[Array, "b h w c"]) -> Float[Array, "b h w n"]: ...

    def on_host(self, predict: Predict, image: Float32[np.ndarray, "b h w c"]) -> Float32[np.ndarray, "b h w n"]: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Whole:
    """The whole image at once."""

    multiple: int = 1
    """Height and width are padded to a multiple of it by repeating the last row and column, and cropped again."""

    def __post_init__(self) -> None:
        if self.multiple < 1:
            raise UserError(f"Whole.multiple must be at least 1; got {self.multiple}")

    def apply(self, predict: Predict, image: Float[Array, "b h w c"]) -> Float[Array, "b h w n"]:
        h, w = image.shape[1:3]
        return _logits(predict, jnp.pad(image, self._fill(h, w), mode="edge"))[:, :h, :w]

    def on_host(self, predict: Predict, image: Float32[np.ndarray, "b h w c"]) -> Float32[np.ndarray, "b h w n"]:
        """Do the same, compiled once for each padded size."""
        h, w = image.shape[1:3]
        return np.asarray(_logits(predict, np.pad(image, self._fill(h, w), mode="edge")))[:, :h, :w]

    def _fill(self, h: int, w: int) -> Fill:
        return (0, 0), (0, -h % self.multiple), (0, -w % self.multiple), (0, 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sliding:
    """A window of fixed size that moves over the image; where windows overlap, their logits are averaged.

    The last window of a row or column is moved back to end with the image. An image smaller than the window is padded
    by repeating its last row and column.
    """

    height: int
    width: int
    stride: tuple[int, int]
    """(down, right): pixels from one window to the next, at most the window's size."""
    batch: int = 4
    """Windows (of each image) in one call of the net; the last is repeated to make their number a multiple."""

    def __post_init__(self) -> None:
        if not (0 < self.stride[0] <= self.height and 0 < self.stride[1] <= self.width):
            raise UserError(
                f"Sliding.stride must be from 1 to the window's {self.height} x {self.width}; got {self.stride}"
            )
        if self.batch < 1:
            raise UserError(f"Sliding.batch must be at least 1; got {self.batch}")

    def apply(self, predict: Predict, image: Float[Array, "b h w c"]) -> Float[Array, "b h w n"]:
        b, h, w, c = image.shape
        k, size = self.batch, (self.height, self.width)
        image = jnp.pad(image, self._fill(h, w), mode="edge")
        corners, counts, cover = self._plan(*image.shape[1:3])
        n = jax.eval_shape(predict, jax.ShapeDtypeStruct((b * k, *size, c), image.dtype)).shape[-1]

        def add(total: Array, xs: tuple[Array, Array]) -> tuple[Array, None]:
            corner, count = xs
            windows = [jax.lax.dynamic_slice(image, (0, *corner[i], 0), (b, *size, c)) for i in range(k)]
            logits = _logits(predict, jnp.stack(windows, 1).reshape(b * k, *size, c)).reshape(b, k, *size, n)
            for i in range(k):
                place = (0, *corner[i], 0)
                so_far = jax.lax.dynamic_slice(total, place, (b, *size, n))
                total = jax.lax.dynamic_update_slice(total, so_far + count[i] * logits[:, i], place)
            return total, None

        total, _ = jax.lax.scan(add, jnp.zeros((*image.shape[:3], n)), (jnp.asarray(corners), jnp.asarray(counts)))
        return (total / jnp.asarray(cover)[None, :, :, None])[:, :h, :w]

    def on_host(self, predict: Predict, image: Float32[np.ndarray, "b h w c"]) -> Float32[np.ndarray, "b h w n"]:
        """Do the same, compiled once for all sizes; the device holds one group of windows, the host the sums."""
        b, h, w, c = image.shape
        k, size = self.batch, (self.height, self.width)
        image = np.pad(image, self._fill(h, w), mode="edge")
        corners, counts, cover = self._plan(*image.shape[1:3])
        n = jax.eval_shape(predict, jax.ShapeDtypeStruct((b * k, *size, c), image.dtype)).shape[-1]
        total = np.zeros((*image.shape[:3], n), np.float32)
        for corner, count in zip(corners, counts, strict=True):
            places = [np.s_[:, y : y + self.height, x : x + self.width] for y, x in corner]
            windows = np.stack([image[place] for place in places], 1).reshape(b * k, *size, c)
            logits = np.asarray(_logits(predict, windows)).reshape(b, k, *size, n)
            for i, place in enumerate(places):
                total[place] += count[i] * logits[:, i]
        return (total / cover[None, :, :, None])[:, :h, :w]

    def _fill(self, h: int, w: int) -> Fill:
        return (0, 0), (0, max(self.height - h, 0)), (0, max(self.width - w, 0)), (0, 0)

    def _plan(
        self, h: int, w: int
    ) -> tuple[Int[np.ndarray, "g k 2"], Float32[np.ndarray, "g k"], Float32[np.ndarray, "h w"]]:
        """Return the windows' corners in groups of k, their weights (0 for a repeat, else 1), and windows per pixel."""
        ys, xs = _starts(h, self.height, self.stride[0]), _starts(w, self.width, self.stride[1])
        corners = list(itertools.product(ys, xs))
        repeats = -len(corners) % self.batch
        counts = np.array([1.0] * len(corners) + [0.0] * repeats, np.float32)
        grouped = np.array(corners + corners[-1:] * repeats, np.int32).reshape(-1, self.batch, 2)
        cover = np.outer(_cover(h, ys, self.height), _cover(w, xs, self.width))
        return grouped, counts.reshape(-1, self.batch), cover


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tta:
    """Test-time augmentation: the mean of the class probabilities over resized and mirrored views of the image.

    The results are logits: their softmax (their sigmoid, for one logit) is that mean.
    """

    scales: tuple[float, ...] = (1.0,)
    """Factors of height and width; 0.5 0.75 1 1.25 1.5 1.75 are usual in semantic segmentation."""
    mirrors: tuple[bool, ...] = (False, True)
    """Each size is used as it is (False), mirrored left to right (True), or both."""
    inference: Inference = Whole()
    """How the logits of each view are made."""

    def __post_init__(self) -> None:
        if not self.scales or min(self.scales) <= 0:
            raise UserError(f"Tta.scales needs one or more factors above 0; got {self.scales}")
        if not self.mirrors:
            raise UserError("Tta.mirrors needs False, True or both; got nothing")

    def apply(self, predict: Predict, image: Float[Array, "b h w c"]) -> Float[Array, "b h w n"]:
        return self._average(lambda view: self.inference.apply(predict, view), image)

    def on_host(self, predict: Predict, image: Float32[np.ndarray, "b h w c"]) -> Float32[np.ndarray, "b h w n"]:
        """Do the same, compiled as `inference` is, and the resizing for each size."""
        logits = lambda view: jnp.asarray(self.inference.on_host(predict, np.asarray(view)))  # noqa: E731
        return np.asarray(self._average(logits, jnp.asarray(image)))

    def _average(self, predict: Predict, image: Float[Array, "b h w c"]) -> Float[Array, "b h w n"]:
        b, h, w, c = image.shape
        total: Any = -jnp.inf
        n = 0
        for scale, mirror in itertools.product(self.scales, self.mirrors):
            turn = (lambda x: x[:, :, ::-1]) if mirror else (lambda x: x)
            # An image that shrinks is smoothed; logits that are resized back are not.
            view = jax.image.resize(image, (b, max(round(h * scale), 1), max(round(w * scale), 1), c), "bilinear")
            logits = bilinear(turn(predict(turn(view))), h, w)
            n = logits.shape[-1]
            total = jnp.logaddexp(total, jax.nn.log_softmax(class_logits(logits)))
        if n == 1:
            return total[..., 1:] - total[..., :1]
        return total - np.log(len(self.scales) * len(self.mirrors))


def _logits(predict: Predict, image: Any) -> Any:
    logits = predict(image)
    if logits.shape[:3] != image.shape[:3]:
        raise ValueError(f"predict returned {logits.shape} for an image {image.shape}: logits need the image's size")
    return logits


def _starts(size: int, window: int, stride: int) -> list[int]:
    """Return where the windows begin: every `stride` pixels, the last one moved back to end with the image."""
    steps = -(-(size - window) // stride)
    return [min(i * stride, size - window) for i in range(steps + 1)]


def _cover(size: int, starts: list[int], window: int) -> Float32[np.ndarray, " size"]:
    cover = np.zeros(size, np.float32)
    for start in starts:
        cover[start : start + window] += 1
    return cover
