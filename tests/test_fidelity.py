"""Distances between sets of features: closed forms, plain loops, and torchmetrics and torch-fidelity."""

import math
import pathlib

import numpy as np
import pytest
from golden.make_fidelity import CASES, NEIGHBOURS, case

from jaxgen.data.mixture import GridOfGaussians, Mixture, Ring
from jaxgen.metrics import fidelity
from jaxgen.metrics.fidelity import Moments, density_coverage, frechet_distance, kid, precision_recall

GOLDEN = np.load(pathlib.Path(__file__).parent / "golden" / "fidelity.npz")


def gaussian(n: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d))


def spd(d: int, seed: int) -> np.ndarray:
    a = gaussian(d, d, seed)
    return a @ a.T + 0.1 * np.eye(d)


@pytest.mark.parametrize("name", CASES)
def test_equals_torch(name: str) -> None:
    real, fake = case(name)
    np.testing.assert_allclose(frechet_distance(real, fake), GOLDEN[f"{name} frechet"], rtol=1e-6)
    least = min(len(real), len(fake))
    for reference in ("kid", "mmd2"):
        np.testing.assert_allclose(kid(real[:least], fake[:least]), GOLDEN[f"{name} {reference}"], rtol=1e-6)
    for k in NEIGHBOURS:
        np.testing.assert_allclose(precision_recall(real, fake, k), GOLDEN[f"{name} precision recall {k}"], rtol=1e-6)


# Fréchet distance.


@pytest.mark.parametrize(
    "features",
    [
        gaussian(200, 20),
        gaussian(10, 50),  # fewer rows than features
        gaussian(100, 8) @ gaussian(8, 60, 1),  # singular
        np.maximum(gaussian(400, 64) @ gaussian(64, 64, 2) - 8, 0),  # as after a ReLU: some features never fire
        gaussian(50, 10) + 1e4,
        np.ones((5, 3)),
        gaussian(100, 16).astype(np.float32),
    ],
)
def test_no_distance_from_a_set_to_itself(features: np.ndarray) -> None:
    assert abs(frechet_distance(features, features)) < 1e-6
    assert abs(frechet_distance(features, features[::-1])) < 1e-6
    assert abs(frechet_distance(features, fidelity.moments(features))) < 1e-6


@pytest.mark.parametrize(("n", "d"), [(200, 16), (20, 64)])
def test_symmetric_and_a_shift_adds_its_square(n: int, d: int) -> None:
    a, b, shift = gaussian(n, d), 0.5 * gaussian(n + 7, d, 1), gaussian(1, d, 3)[0]
    np.testing.assert_allclose(frechet_distance(a, b), frechet_distance(b, a), rtol=1e-9)
    np.testing.assert_allclose(frechet_distance(a, a + shift), shift @ shift, rtol=1e-6)
    np.testing.assert_allclose(
        frechet_distance(a - a.mean(0), b - b.mean(0) + shift) - frechet_distance(a - a.mean(0), b - b.mean(0)),
        shift @ shift,
        rtol=1e-6,
    )


def test_diagonal_covariances_have_a_closed_form() -> None:
    s1, s2, m1, m2 = np.abs(gaussian(4, 12))
    found = frechet_distance(Moments(m1, np.diag(s1**2)), Moments(m2, np.diag(s2**2)))
    np.testing.assert_allclose(found, ((m1 - m2) ** 2).sum() + ((s1 - s2) ** 2).sum(), rtol=1e-12)


def test_a_positive_map_is_the_shortest_way() -> None:
    """x -> A x with A symmetric and positive transports optimally: the distance is E|x - A x|², whatever commutes."""
    covariance, a = spd(10, 1), spd(10, 2)
    found = frechet_distance(Moments(np.zeros(10), covariance), Moments(np.zeros(10), a @ covariance @ a))
    np.testing.assert_allclose(found, np.trace((np.eye(10) - a) @ covariance @ (np.eye(10) - a)), rtol=1e-9)


def test_few_rows_lose_no_digits() -> None:
    """Where n < d the overlap is the sum of singular values of X Y', of n numbers, with no covariance at all."""
    x, y = gaussian(30, 200), gaussian(40, 200, 1) @ (np.eye(200) + 0.05 * gaussian(200, 200, 2))
    cx, cy = ((z - z.mean(0)) / math.sqrt(len(z) - 1) for z in (x, y))
    overlap = np.linalg.svd(cx @ cy.T, compute_uv=False).sum()
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + (cx**2).sum() + (cy**2).sum() - 2 * overlap
    np.testing.assert_allclose(frechet_distance(x, y), expected, rtol=1e-9)


def test_moments_are_numpys() -> None:
    x = gaussian(33, 7).astype(np.float32)
    found = fidelity.moments(x)
    np.testing.assert_allclose(found.mean, x.mean(0, dtype=np.float64), atol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(x.T.astype(np.float64)), atol=1e-12)


# KID.


def test_kid_is_the_mean_over_pairs() -> None:
    a, b = gaussian(7, 3), gaussian(5, 3, 1) + 0.5
    kernel = lambda x, y: (x @ y / 3 + 1) ** 3  # noqa: E731
    within = [np.mean([kernel(x[i], x[j]) for i in range(len(x)) for j in range(len(x)) if i != j]) for x in (a, b)]
    across = np.mean([kernel(x, y) for x in a for y in b])
    np.testing.assert_allclose(kid(a, b), within[0] + within[1] - 2 * across, rtol=1e-12)


def test_kid_is_unbiased_and_so_at_times_negative() -> None:
    values = np.array([kid(gaussian(40, 4, 2 * seed), gaussian(40, 4, 2 * seed + 1)) for seed in range(200)])
    assert (values < 0).any()
    assert abs(values.mean()) < 4 * values.std() / math.sqrt(len(values))


def test_kid_of_subsets_goes_by_its_seed_and_size() -> None:
    a, b = gaussian(60, 4), gaussian(50, 4, 1) + 0.3
    assert kid(a, b, subsets=5, size=20, seed=1) == kid(a, b, subsets=5, size=20, seed=1)
    assert kid(a, b, subsets=5, size=20, seed=1) != kid(a, b, subsets=5, size=20, seed=2)
    assert kid(a, b, size=50) == kid(a, b, size=1000)
    np.testing.assert_allclose(kid(a, b, subsets=2000, size=20), kid(a, b), rtol=0.1)


# Manifolds.


def test_manifolds_of_equal_sets_cover_each_other() -> None:
    x = gaussian(60, 5)
    assert precision_recall(x, x[::-1], 3) == (1, 1)
    density, coverage = density_coverage(x, x[::-1], 3)
    np.testing.assert_allclose((density, coverage), (1, 1))


def test_manifolds_of_distant_sets_do_not_meet() -> None:
    x = gaussian(60, 5)
    assert precision_recall(x, x + 100, 3) == (0, 0)
    assert density_coverage(x, x + 100, 3) == (0, 0)


def test_copies_of_one_row_are_precise_and_recall_nothing() -> None:
    x = gaussian(60, 5) + 10
    assert precision_recall(x, np.repeat(x[7:8], 40, axis=0), 3) == (1, 1 / 60)
    density, coverage = density_coverage(x, np.repeat(x[7:8], 40, axis=0), 3)
    assert coverage < 0.3
    assert density > 0


@pytest.mark.parametrize("k", [1, 4])
def test_manifolds_by_plain_loops(k: int) -> None:
    real, fake = gaussian(25, 3), 0.7 * gaussian(18, 3, 1) + 0.4

    def reach(x: np.ndarray) -> np.ndarray:
        return np.array([sorted(np.linalg.norm(x - row, axis=1))[k] for row in x])  # the first is the row itself

    away = np.linalg.norm(fake[:, None] - real[None], axis=-1)
    expected = (away <= reach(real)).any(1).mean(), (away <= reach(fake)[:, None]).any(0).mean()
    assert precision_recall(real, fake, k) == expected
    within = away < reach(real)
    np.testing.assert_allclose(density_coverage(real, fake, k), (within.sum() / (k * 18), within.any(0).mean()))


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = gaussian(53, 6), 0.8 * gaussian(47, 6, 1)
    points = Ring(size=300).open()
    points = np.stack([points[i]["image"] for i in range(300)])

    def everything() -> list[float]:
        found = fidelity.modes(points, Ring().centres(), 0.01)
        numbers = [frechet_distance(a, b), kid(a, b), *precision_recall(a, b, 3), *density_coverage(a, b, 3)]
        return [*numbers, found.high_quality, found.std_ratio, *found.counts.tolist()]

    whole = everything()
    monkeypatch.setattr(fidelity, "BLOCK", 200)
    np.testing.assert_allclose(everything(), whole, rtol=1e-9)


@pytest.mark.parametrize(
    "call",
    [
        lambda: frechet_distance(gaussian(1, 3), gaussian(5, 3)),
        lambda: kid(gaussian(1, 3), gaussian(5, 3)),
        lambda: precision_recall(gaussian(3, 3), gaussian(5, 3), 3),
        lambda: density_coverage(gaussian(3, 3), gaussian(5, 3), 3),
        lambda: fidelity.kl_to_uniform(np.zeros(4, int)),
    ],
)
def test_too_few_rows_are_refused(call) -> None:
    with pytest.raises(ValueError, match=r"at least|no sample"):
        call()


# Modes.


def drawn(mixture: Mixture) -> np.ndarray:
    examples = mixture.open()
    return np.stack([examples[i]["image"] for i in range(len(examples))])


@pytest.mark.parametrize("mixture", [Ring(size=20_000), GridOfGaussians(size=20_000)])
def test_the_data_themselves_score_what_they_should(mixture: Mixture) -> None:
    points, centres = drawn(mixture), mixture.centres()
    found = fidelity.modes(points, centres, mixture.std)
    assert found.covered == len(centres)
    assert abs(found.high_quality - (1 - math.exp(-4.5))) < 4 * math.sqrt(0.0111 / 20_000)
    assert abs(found.std_ratio - 1) < 0.02


def test_std_ratio_tells_narrow_modes_also_where_they_are_off_their_centres() -> None:
    ring = Ring()
    points = ring.centres()[np.arange(8000) % 8] + 0.3 * ring.std * gaussian(8000, 2) + 0.5 * ring.std
    found = fidelity.modes(points, ring.centres(), ring.std)
    assert found.high_quality > 0.999
    assert abs(found.std_ratio - 0.3 / math.sqrt((1 - 5.5 * math.exp(-4.5)) / (1 - math.exp(-4.5)))) < 0.01


def test_a_sample_counts_for_its_nearest_mode_and_is_good_within_three_standard_deviations() -> None:
    centres = np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]])
    points = np.array([[0.029, 0.0], [0.0, -0.031], [0.96, 0.0], [1.04, 0.0], [2.0, 0.0]])
    found = fidelity.modes(points, centres, 0.01)
    assert (found.covered, found.high_quality) == (2, 0.4)
    assert found.counts.tolist() == [2, 2, 1]
    assert found.std_ratio is None  # no mode has two good samples


def test_kl_to_uniform() -> None:
    assert fidelity.kl_to_uniform(np.array([5, 5, 5, 5])) == 0
    np.testing.assert_allclose(fidelity.kl_to_uniform(np.array([0, 7, 0, 0])), math.log(4))
    np.testing.assert_allclose(
        fidelity.kl_to_uniform(np.array([1, 3])), math.log(2) + 0.25 * math.log(0.25) + 0.75 * math.log(0.75)
    )
    drawn = np.random.default_rng(0).multinomial(2500, np.full(25, 1 / 25), size=400)
    np.testing.assert_allclose(np.mean([fidelity.kl_to_uniform(row) for row in drawn]), 0.0048, rtol=0.05)
    assert fidelity.kl_baseline(drawn[0]) == 0.0048
