"""How near the samples' distribution is to the data's, and what real data of the same number score."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float32

from jaxgen.errors import UserError
from jaxgen.features.net import Features
from jaxgen.metrics import fidelity
from jaxgen.metrics.outlook import Outlook, check_net
from jaxgen.metrics.view import REAL, Split, View, as_shown, finite


@dataclasses.dataclass(frozen=True, kw_only=True)
class Distribution:
    """Fréchet distance, KID, precision, recall, density and coverage of the samples against real examples.

    A generator of classes is asked for each as often as the reference has it, so that shares make no distance.

    Each number comes with a baseline, `…_floor`: what the other split scores in the samples' place, with as many rows
    as there are samples (fewer where the split is smaller). With the default reference a generator that repeats its
    training data scores the baseline and no better. The Fréchet distance is named after its features, `fd_NAME`, and
    "fid" for Inception's alone.
    """

    features: Features
    samples: int
    """Number of samples; a Fréchet distance falls with it, so compare at equal numbers only."""
    neighbours: int = 5
    """k of the balls of precision, recall, density and coverage."""
    reference: Split = "test"
    """The split to be near to."""
    kid_subsets: int = 100
    kid_size: int = 1000
    """Rows of each of KID's random subsets; sets that are no larger are taken whole."""

    def __post_init__(self) -> None:
        for name, least in dict(samples=2, neighbours=1, kid_subsets=1, kid_size=2).items():
            if getattr(self, name) < least:
                raise UserError(f"Distribution.{name} is {getattr(self, name)}; it must be at least {least}")

    def check(self, outlook: Outlook) -> Collection[str]:
        """Return the names of the numbers.

        Raises UserError for too few rows, and for features of pictures of another size.
        """
        other = "train" if self.reference == "test" else "test"
        real = {name: min(rows, REAL) for name, rows in outlook.rows.items()}
        rows = {self.reference: real[self.reference], "generated": self.samples, other: min(real[other], self.samples)}
        self._check_rows(rows)
        check_net(self.features.extractor(), outlook, f"Distribution of {self.features.name}")
        return [self.features.metric, f"kid_{self.features.name}", "precision", "recall", "density", "coverage"]

    def _check_rows(self, rows: Mapping[str, int]) -> None:
        for name, count in rows.items():
            if count <= max(self.neighbours, 1):
                raise UserError(
                    f"Distribution: {count} {name} examples have no neighbour number {self.neighbours} each; "
                    "take more of them or fewer neighbours"
                )

    def measure(self, view: View) -> dict[str, Any]:
        """Return the numbers by name.

        Raises UserError for too few rows and for samples that are not finite.
        """
        extract = self.features.extractor()
        other: Split = "train" if self.reference == "test" else "test"
        real = view.rows(other).image
        # Data may be sorted by class, so the baseline's rows are drawn.
        chosen = np.random.default_rng(0).permutation(len(real))[: self.samples]
        there, made = view.rows(self.reference), finite(view.samples(self.samples, like=self.reference))
        images = there.image, made.image, real[np.sort(chosen)]
        self._check_rows(dict(zip((self.reference, "generated", other), map(len, images), strict=True)))
        reference, fake, baseline = (view.map(extract, as_shown(rows)) for rows in images)
        scores, baselines = self._scores(reference, fake), self._scores(reference, baseline)
        size = min(len(fake), len(reference))
        protocol = {
            "features": self.features.name,
            "samples": len(fake),
            "labels": None if made.label is None else "in turn" if there.label is None else f"as in {self.reference}",
            "reference": self.reference,
            "reference_samples": len(reference),
            "floor_samples": len(baseline),
            "rounded_to_bits": 8 if images[0].ndim == 4 else None,
            "neighbours": self.neighbours,
            "kid": f"{self.kid_subsets} subsets of {self.kid_size}" if self.kid_size < size else "whole sets",
        }
        found: dict[str, Any] = {}
        for name, value in scores.items():
            found |= {name: value, f"{name}_floor": baselines[name]}
        return found | {"protocol": view.protocol | {self.features.metric: protocol}}

    def _scores(
        self, real: Float32[np.ndarray, "n d"], fake: Float32[np.ndarray, "m d"]
    ) -> dict[str, float]:  # fmt: skip
        precision, recall = fidelity.precision_recall(real, fake, self.neighbours)
        density, coverage = fidelity.density_coverage(real, fake, self.neighbours)
        return {
            self.features.metric: fidelity.frechet_distance(real, fake),
            f"kid_{self.features.name}": fidelity.kid(real, fake, subsets=self.kid_subsets, size=self.kid_size),
            "precision": precision,
            "recall": recall,
            "density": density,
            "coverage": coverage,
        }
