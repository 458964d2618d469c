"""How far generated samples are from real ones, in the space of some features: numpy, float64, on the host.

Features are [n d], one row a sample. No function here holds more than a block of a table of n x n distances.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int, Shaped

Rows = Shaped[np.ndarray, "_ d"]
BLOCK = 1 << 24  # entries of a table that are held at once: 128 MB
ROUNDING = 1e-13  # of the squared norms: squared distances that differ by less are equal, as those of copies of a row


@dataclasses.dataclass(frozen=True)
class Moments:
    """Mean f64[d] and unbiased covariance f64[d d] of features: all that a Fréchet distance needs of them."""

    mean: Float[np.ndarray, " d"]
    covariance: Float[np.ndarray, "d d"]


@dataclasses.dataclass(frozen=True)
class Coverage:
    """What `modes` returns."""

    covered: int
    """Modes with at least one sample of high quality."""
    high_quality: float
    """Share of the samples that are of high quality."""
    std_ratio: float | None
    """Standard deviation inside the modes over what it should be; None where no mode has two samples."""
    counts: Int[np.ndarray, " k"]
    """Samples whose nearest centre is this mode's, near or far."""


def moments(features: Rows) -> Moments:
    """Return mean and covariance with 1 / (n - 1).

    Raises ValueError for fewer than two rows.
    """
    n, d = features.shape
    if n < 2:
        raise ValueError(f"a covariance needs at least 2 rows, not {n}")
    mean = features.mean(0, dtype=np.float64)
    covariance = np.zeros((d, d))
    rows = max(1, BLOCK // d)
    for start in range(0, n, rows):
        centred = features[start : start + rows] - mean
        covariance += centred.T @ centred
    return Moments(mean, covariance / (n - 1))


def frechet_distance(a: Moments | Rows, b: Moments | Rows) -> float:
    """Return the squared Fréchet distance of two Gaussians, |m1 - m2|² + tr(S1 + S2 - 2 (S1 S2)^½).

    It is the "FID" where the features are Inception's (arXiv:1706.08500, eq. 6). Defined for singular covariances too,
    as of fewer rows than features; but then, as for any finite n, its expectation for equal distributions is above 0.
    """
    a, b = (x if isinstance(x, Moments) else moments(x) for x in (a, b))
    # tr (S1^½ S2 S1^½)^½ is the sum of the singular values of S2^½ S1^½. Computed like this it keeps the digits that
    # roots of the product's eigenvalues lose: of an eigenvalue that should be 0 and is 1e-15, the root is 3e-8.
    overlap = np.linalg.svd(_root(b.covariance).T @ _root(a.covariance), compute_uv=False).sum()
    shift = np.sum((a.mean - b.mean) ** 2)
    return float(shift + np.trace(a.covariance) + np.trace(b.covariance) - 2 * overlap)


def kid(a: Rows, b: Rows, *, subsets: int = 100, size: int = 1000, seed: int = 0) -> float:
    """Return the mean over random subsets of the unbiased squared MMD with the kernel (x·y / d + 1)³.

    It is the "KID" where the features are Inception's (arXiv:1801.01401, section 4). Where a set has no more than
    `size` rows, the one value for the whole sets. Unbiased, and so at times below 0. Raises ValueError for fewer than
    two rows.
    """
    if min(len(a), len(b), size) < 2:
        raise ValueError(f"an unbiased MMD needs at least 2 rows, not {min(len(a), len(b), size)}")
    if size >= min(len(a), len(b)):
        return _mmd(a, b)
    rng = np.random.default_rng(seed)
    draw = lambda x: x[rng.choice(len(x), size, replace=False)]  # noqa: E731
    return float(np.mean([_mmd(draw(a), draw(b)) for _ in range(subsets)]))


def precision_recall(real: Rows, fake: Rows, k: int = 3) -> tuple[float, float]:
    """Return (share of fakes inside the real manifold, share of reals inside the fake one).

    A manifold is the union of balls that reach from each row to its k-th neighbour (arXiv:1904.06991, eq. 1 and 2).
    Raises ValueError unless both have more than k rows.
    """
    real, fake = _centred(real, fake)
    return _inside(fake, real, _reach(real, k)), _inside(real, fake, _reach(fake, k))


def density_coverage(real: Rows, fake: Rows, k: int = 5) -> tuple[float, float]:
    """Return (density, coverage) of fakes among reals (arXiv:2002.09797, eq. 4 and 6): 1 and nearly 1 for equal sets.

    Density is the mean number of real balls around a fake over k, coverage the share of real balls that hold a fake.
    Raises ValueError unless there are more than k real rows.
    """
    real, fake = _centred(real, fake)
    reach, inside = _reach(real, k), 0
    covered = np.zeros(len(real), bool)
    for _, squared in _squared_distances(fake, real, ROUNDING):
        held = squared < reach  # open balls, as in the authors' code: else density would be 1 + 1 / k for equal sets
        inside += int(held.sum())
        covered |= held.any(0)
    return inside / (k * len(fake)), float(covered.mean())


def modes(points: Rows, centres: Shaped[np.ndarray, "k d"], std: float, radius: float = 3.0) -> Coverage:
    """Count samples of a mixture of equal round Gaussians by mode and quality (PacGAN, arXiv:1712.04086, section 4.1).

    A sample is of high quality within `radius` standard deviations of its nearest centre: in two dimensions and for
    three, 98.89 % of a perfect generator's are, and more means that the modes are too narrow. `std_ratio` shows it: the
    spread of these samples around their own mean in each mode, over that of a Gaussian cut off at the same radius.
    """
    n, d = points.shape
    nearest, distance = np.zeros(n, np.int64), np.zeros(n)
    rows = max(1, BLOCK // centres.size)
    for start in range(0, n, rows):
        part = slice(start, start + rows)
        away = np.sqrt(((points[part, None].astype(np.float64) - centres[None]) ** 2).sum(-1))
        nearest[part], distance[part] = away.argmin(1), away.min(1)
    good = distance <= radius * std
    spread, freedom = 0.0, 0
    for mode in np.unique(nearest[good]):
        inside = points[good & (nearest == mode)].astype(np.float64)
        spread += float(((inside - inside.mean(0)) ** 2).sum())
        freedom += d * (len(inside) - 1)
    expected = std * _cut_std(d, radius)
    return Coverage(
        covered=len(np.unique(nearest[good])),
        high_quality=float(good.mean()),
        std_ratio=float(np.sqrt(spread / freedom)) / expected if freedom else None,
        counts=np.bincount(nearest, minlength=len(centres)),
    )


def kl_to_uniform(counts: Int[np.ndarray, " k"]) -> float:
    """Return KL(shares of the counts || uniform) in nats.

    Raises ValueError where nothing was counted.
    """
    if counts.sum() == 0:
        raise ValueError("no sample was counted")
    share = counts[counts > 0] / counts.sum()
    return float((share * np.log(share * len(counts))).sum())


def kl_baseline(counts: Int[np.ndarray, " k"]) -> float:
    """Return about the expected `kl_to_uniform` of n samples of k equal modes, (k - 1) / 2n: the best possible."""
    return (len(counts) - 1) / (2 * float(counts.sum()))


def _root(covariance: Float[np.ndarray, "d d"]) -> Float[np.ndarray, "d d"]:
    """Return a matrix R with R R' = covariance; eigenvalues that differ from 0 by rounding alone are 0."""
    values, vectors = np.linalg.eigh(covariance)
    least = max(values[-1], 0.0) * len(values) * np.finfo(np.float64).eps
    return vectors * np.sqrt(np.where(values > least, values, 0.0))


def _mmd(a: Rows, b: Rows) -> float:
    """Return the unbiased squared MMD: pairs of a row with itself are left out within a set, and kept across."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    m, n = len(a), len(b)
    within_a = (_kernel_sum(a, a) - _kernel_trace(a)) / (m * (m - 1))
    within_b = (_kernel_sum(b, b) - _kernel_trace(b)) / (n * (n - 1))
    return within_a + within_b - 2 * _kernel_sum(a, b) / (m * n)


def _kernel_sum(a: Float[np.ndarray, "m d"], b: Float[np.ndarray, "n d"]) -> float:
    rows = max(1, BLOCK // len(b))
    blocks = range(0, len(a), rows)
    return float(sum(((a[start : start + rows] @ b.T / a.shape[1] + 1) ** 3).sum() for start in blocks))


def _kernel_trace(a: Float[np.ndarray, "m d"]) -> float:
    return float((((a**2).sum(1) / a.shape[1] + 1) ** 3).sum())


def _centred(real: Rows, fake: Rows) -> tuple[Float[np.ndarray, "m d"], Float[np.ndarray, "n d"]]:
    """Move both so that the reals' mean is 0: distances stay the same, and lose fewer digits."""
    mean = real.mean(0, dtype=np.float64)
    return real - mean, fake - mean


def _squared_distances(
    a: Float[np.ndarray, "m d"], b: Float[np.ndarray, "n d"], slack: float = 0.0
) -> Iterator[tuple[int, Float[np.ndarray, "block n"]]]:
    """Yield (first row, squared distances of a block of a's rows to all of b), each longer by slack·(|a|² + |b|²)."""
    square_a, square_b = (a**2).sum(1), (b**2).sum(1)
    rows = max(1, BLOCK // len(b))
    for start in range(0, len(a), rows):
        part = slice(start, start + rows)
        yield start, (square_a[part, None] + square_b[None]) * (1 + slack) - 2 * (a[part] @ b.T)


def _reach(x: Float[np.ndarray, "n d"], k: int) -> Float[np.ndarray, " n"]:
    """Return the squared distance of each row to its k-th neighbour; a row is not its own neighbour."""
    if not 0 < k < len(x):
        raise ValueError(f"the {k}-th neighbour among {len(x)} rows: k must be at least 1 and below their number")
    reach = np.zeros(len(x))
    for start, squared in _squared_distances(x, x):
        rows = np.arange(len(squared))
        squared[rows, start + rows] = np.inf
        reach[start + rows] = np.partition(squared, k - 1, axis=1)[:, k - 1]
    return reach


def _inside(x: Float[np.ndarray, "m d"], y: Float[np.ndarray, "n d"], reach: Float[np.ndarray, " n"]) -> float:
    """Return the share of the rows of x that lie in a closed ball around a row of y."""
    return sum(int((squared <= reach).any(1).sum()) for _, squared in _squared_distances(x, y, -ROUNDING)) / len(x)


def _cut_std(d: int, radius: float) -> float:
    """Return the standard deviation of a coordinate of a unit Gaussian in d dimensions inside a radius."""
    r = np.linspace(0, radius, 20_001)[1:]
    log_density = (d - 1) * np.log(r) - r**2 / 2
    density = np.exp(log_density - log_density.max())
    return float(np.sqrt((density * r**2).sum() / density.sum() / d))
