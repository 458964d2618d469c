"""What happens to photographs on their way through cameras and networks, drawn at random (Real-ESRGAN)."""

import dataclasses
import math

import numpy as np
from jaxtyping import Float

from jaxgen.data.damage import GREY, Damage, Range, as_bytes, levels
from jaxgen.data.interpolation import MODES, Mode, resized
from jaxgen.data.jpeg import through_jpeg
from jaxgen.data.kernels import Kernels, filtered, final_sinc
from jaxgen.errors import UserError, check_field
from jaxgen.typing import Example

Picture = Float[np.ndarray, "h w c"]  # in 0..1
Other = Float[np.ndarray, "i j c"]  # the same, of another size
Size = tuple[int, int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pass:
    """One way through the world: blur, another size, noise, JPEG."""

    blurred: float = 1.0
    """Share of pictures that are blurred."""
    kernels: Kernels = Kernels()
    enlarged: float = 0.2
    """Share of pictures that become larger."""
    shrunk: float = 0.7
    """Share of pictures that become smaller; what is left of 1 keeps its size."""
    scale: Range = (0.15, 1.5)
    """Least and largest factor."""
    gaussian: float = 0.5
    """Share of pictures with Gaussian noise; the others have Poisson's."""
    sigma: Range = (1.0, 30.0)
    """Standard deviation of Gaussian noise, in levels of 255."""
    poisson: Range = (0.05, 3.0)
    """Factor of Poisson's noise."""
    grey: float = 0.4
    """Share of pictures whose noise is the same in all channels."""
    quality: Range = (30.0, 95.0)
    """JPEG's."""

    def __post_init__(self) -> None:
        for name in ("blurred", "enlarged", "shrunk", "gaussian", "grey"):
            check_field(self, name, 0 <= getattr(self, name) <= 1, "a share")
        check_field(self, "shrunk", self.enlarged + self.shrunk <= 1, "at most what `enlarged` leaves of 1")
        check_field(self, "scale", 0 < self.scale[0] <= 1 <= self.scale[1], "a range above 0 with 1 in it")
        for name in ("sigma", "poisson"):
            low, high = getattr(self, name)
            check_field(self, name, 0 <= low <= high, "a range from 0 on")
        check_field(self, "quality", 1 <= self.quality[0] <= self.quality[1] <= 100, "a range in 1..100")

    def damaged(self, rng: np.random.Generator, image: Picture, of: Size) -> Other:
        """Return the picture blurred, at a factor times the size `of`, and noisy; JPEG comes next."""
        blurred = filtered(image, self.kernels.draw(rng)) if rng.random() < self.blurred else image
        return self.noise(rng, self.resize(rng, blurred, of))

    def resize(self, rng: np.random.Generator, image: Picture, of: Size) -> Other:
        """Return the picture at a factor times the size `of`."""
        kind = rng.random()
        low, high = self.scale
        factor = 1.0
        if kind < self.enlarged:
            factor = rng.uniform(1, high)
        elif kind < self.enlarged + self.shrunk:
            factor = rng.uniform(low, 1)
        return resized(image, (max(1, int(of[0] * factor)), max(1, int(of[1] * factor))), _mode(rng))

    def noise(self, rng: np.random.Generator, image: Picture) -> Picture:
        by_gauss, grey = rng.random() < self.gaussian, rng.random() < self.grey
        if by_gauss:
            shape = (*image.shape[:2], 1) if grey else image.shape
            eps = rng.standard_normal(shape, np.float32) * np.float32(rng.uniform(*self.sigma) / 255)
        else:
            eps = poisson_noise(rng, _grey(image) if grey else image) * np.float32(rng.uniform(*self.poisson))
        return np.clip(image + eps, 0, 1)

    def jpeg(self, rng: np.random.Generator, image: Picture) -> Picture:
        decoded = through_jpeg(levels(255 * image), round(rng.uniform(*self.quality)))
        return decoded.astype(np.float32) / 255


FIRST = Pass()
SECOND = Pass(
    blurred=0.8, kernels=Kernels(sigma=(0.2, 1.5)), enlarged=0.3, shrunk=0.4, scale=(0.3, 1.2), sigma=(1.0, 25.0),
    poisson=(0.05, 2.5),
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class RealDegradation(Damage):
    """Blur, resize, add noise and compress twice, then bring the picture to its sides over `factor`.

    Real-ESRGAN's model of second order (arXiv:2107.10833, section 3 and appendix), each number drawn for each picture.
    A batch there shares its resizing, and a pool mixes batches; here every picture has its own. At the end come a sinc
    filter and JPEG, in either order. `target` is the image as it was, or a square of it.
    """

    factor: int = 4
    """How many times smaller the sides become."""
    first: Pass = FIRST
    second: Pass = SECOND
    sinc: float = 0.8
    """Share of pictures that the last sinc filter acts on."""
    size: int | None = None
    """Side of a square, anywhere, that is kept of the target, and its part of the image; None keeps all. So borders,
    where filters saw mirrored pixels, are mostly left out; the paper's is 256 of 400."""

    def __post_init__(self) -> None:
        check_field(self, "factor", self.factor >= 1, "at least 1")
        check_field(self, "sinc", 0 <= self.sinc <= 1, "a share")
        fits = self.size is None or (self.size >= self.factor and self.size % self.factor == 0)
        check_field(self, "size", fits, f"a multiple of the factor, {self.factor}, or None")

    def __call__(self, rng: np.random.Generator, example: Example) -> Example:
        target = as_bytes(self, example)
        height, width, channels = target.shape
        if channels not in (1, 3):
            raise UserError(f"RealDegradation: an image of {channels} channels is no JPEG; read it in 1 or 3")
        if height % self.factor or width % self.factor:
            raise UserError(
                f"RealDegradation: {height}x{width} does not divide by {self.factor}; crop the image before"
            )
        if self.size and self.size > min(height, width):
            raise UserError(f"RealDegradation: an image of {height}x{width} has no square of {self.size}; set `size`")
        image = levels(255 * self._degraded(rng, target.astype(np.float32) / 255))
        if self.size:
            small = self.size // self.factor
            i, j = (int(rng.integers(side - small + 1)) for side in image.shape[:2])
            image = image[i : i + small, j : j + small]
            i, j = i * self.factor, j * self.factor
            target = target[i : i + self.size, j : j + self.size]
        return example | {"image": image, "target": target}

    def _degraded(self, rng: np.random.Generator, image: Picture) -> Other:
        small = image.shape[0] // self.factor, image.shape[1] // self.factor
        image = self.first.jpeg(rng, self.first.damaged(rng, image, (image.shape[0], image.shape[1])))
        image = self.second.damaged(rng, image, small)
        if rng.random() < 0.5:
            return self.second.jpeg(rng, self._final(rng, image, small))
        return self._final(rng, self.second.jpeg(rng, image), small)

    def _final(self, rng: np.random.Generator, image: Picture, size: Size) -> Other:
        image = resized(image, size, _mode(rng))
        return filtered(image, final_sinc(rng)) if rng.random() < self.sinc else image


def poisson_noise(rng: np.random.Generator, image: Picture) -> Picture:
    """Return noise of variance x / v, v being the next power of two from the number of levels that the picture has."""
    x = levels(255 * image)
    v = 2.0 ** math.ceil(math.log2(np.count_nonzero(np.bincount(x.ravel()))))
    share = x / 255
    return (rng.poisson(share * v) / v - share).astype(np.float32)


def _grey(image: Picture) -> Float[np.ndarray, "h w 1"]:
    return (image @ GREY)[..., None] if image.shape[2] == 3 else image


def _mode(rng: np.random.Generator) -> Mode:
    return MODES[int(rng.integers(len(MODES)))]
