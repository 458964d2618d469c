"""Blur kernels of photographs as Real-ESRGAN draws them (arXiv:2107.10833, section 3.2 and appendix)."""

import dataclasses
import math

import numpy as np
from jaxtyping import Float
from scipy import fft, special

from jaxgen.errors import check_field

Range = tuple[float, float]
Kernel = Float[np.ndarray, "k k"]

SIDES = tuple(range(7, 22, 2))
# Of a Gaussian, a generalised one and a plateau, each round or not.
KINDS = ("round", "uneven", "generalised round", "generalised uneven", "plateau round", "plateau uneven")
SHARES = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kernels:
    """Random kernels of odd sides from 7 to 21, of sum 1."""

    sigma: Range = (0.2, 3.0)
    """Standard deviation along either axis, in pixels."""
    sinc: float = 0.1
    """Share of kernels that cut frequencies off instead, and so ring."""
    beta: Range = (0.5, 4.0)
    """Shape of generalised Gaussians; 1 is a Gaussian."""
    plateau: Range = (1.0, 2.0)
    """Shape of plateaus."""

    def __post_init__(self) -> None:
        check_field(self, "sigma", 0 < self.sigma[0] <= self.sigma[1], "a range above 0")
        check_field(self, "sinc", 0 <= self.sinc <= 1, "a share")
        for name in ("beta", "plateau"):
            low, high = getattr(self, name)
            check_field(self, name, 0 < low <= 1 <= high, "a range above 0 with 1 in it")

    def draw(self, rng: np.random.Generator) -> Kernel:
        side = int(rng.choice(SIDES))
        if rng.random() < self.sinc:
            return sinc(side, float(rng.uniform(math.pi / 3 if side < 13 else math.pi / 5, math.pi)))
        kind = str(rng.choice(KINDS, p=SHARES))
        across = float(rng.uniform(*self.sigma))
        along, angle = across, 0.0
        if kind.endswith("uneven"):
            along, angle = float(rng.uniform(*self.sigma)), float(rng.uniform(-math.pi, math.pi))
        if kind.startswith("generalised"):
            return bell(side, across, along, angle, beta=_around_one(rng, self.beta))
        if kind.startswith("plateau"):
            return plateau(side, across, along, angle, beta=_around_one(rng, self.plateau))
        return bell(side, across, along, angle)


def final_sinc(rng: np.random.Generator) -> Kernel:
    """Return a random kernel of the last step, whose cut-off lies in π/3 to π."""
    return sinc(int(rng.choice(SIDES)), float(rng.uniform(math.pi / 3, math.pi)))


def bell(side: int, across: float, along: float, angle: float, beta: float = 1.0) -> Kernel:
    """Return exp(-½ (xᵀ Σ⁻¹ x)^beta), divided by its sum; Σ has these deviations, turned by an angle in radians."""
    return _shared(np.exp(-0.5 * _distance(side, across, along, angle) ** beta))


def plateau(side: int, across: float, along: float, angle: float, beta: float) -> Kernel:
    """Return 1 / (1 + (xᵀ Σ⁻¹ x)^beta), divided by its sum."""
    return _shared(1 / (1 + _distance(side, across, along, angle) ** beta))


def sinc(side: int, cutoff: float) -> Kernel:
    """Return ω J₁(ω r) / (2 π r), divided by its sum: what passes frequencies below ω = `cutoff` in radians a pixel."""
    away = np.arange(side) - side // 2
    r = np.hypot(away[:, None], away[None, :])
    middle = cutoff**2 / (4 * math.pi)
    r[side // 2, side // 2] = 1.0
    kernel = cutoff * special.j1(cutoff * r) / (2 * math.pi * r)
    kernel[side // 2, side // 2] = middle
    return _shared(kernel)


def filtered(image: Float[np.ndarray, "h w c"], kernel: Kernel) -> Float[np.ndarray, "h w c"]:
    """Return the correlation of a picture with a kernel, pixels beyond the border mirrored about the outermost one."""
    reach = len(kernel) // 2
    padded = np.pad(image, ((reach, reach), (reach, reach), (0, 0)), mode="reflect")
    sides = [fft.next_fast_len(n, real=True) for n in padded.shape[:2]]
    turned = np.conj(fft.rfft2(kernel.astype(np.float32), sides))[:, :, None]
    whole = fft.irfft2(fft.rfft2(padded, sides, axes=(0, 1)) * turned, sides, axes=(0, 1))
    return whole[: image.shape[0], : image.shape[1]].astype(np.float32)


def _distance(side: int, across: float, along: float, angle: float) -> Kernel:
    """Return xᵀ Σ⁻¹ x of each pixel."""
    away = np.arange(side, dtype=np.float64) - side // 2
    x, y = away[None, :], away[:, None]
    u, v = math.cos(angle) * x + math.sin(angle) * y, -math.sin(angle) * x + math.cos(angle) * y
    return (u / across) ** 2 + (v / along) ** 2


def _shared(kernel: Kernel) -> Kernel:
    return kernel / kernel.sum()


def _around_one(rng: np.random.Generator, limits: Range) -> float:
    """Draw from below 1 and from above it equally often."""
    return float(rng.uniform(limits[0], 1) if rng.random() < 0.5 else rng.uniform(1, limits[1]))
