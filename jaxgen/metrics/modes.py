"""Which of a mixture's modes the samples reach, how evenly, and how well they fill them."""

import dataclasses
from collections.abc import Collection
from typing import Any

import numpy as np

from jaxgen.data.mixture import Mixture
from jaxgen.errors import UserError
from jaxgen.metrics import fidelity
from jaxgen.metrics.outlook import Outlook
from jaxgen.metrics.view import View, finite


@dataclasses.dataclass(frozen=True, kw_only=True)
class Modes:
    """Mode coverage by PacGAN's protocol (arXiv:1712.04086, section 4.1), and how well each mode is filled.

    `modes` covered; `high_quality`, the share of samples near a centre; `std_ratio`, less than it should be for a
    generator that collapses inside the modes; `kl` of the modes' shares to the uniform distribution in nats. For data
    whose modes lie apart the second is 0.9889 and the third is 1; `…_floor` is the baseline: what as many
    points of the source score, and for `kl` its expectation.
    """

    source: Mixture
    samples: int = 2500
    radius: float = 3.0
    """Standard deviations from the nearest centre within which a sample is of high quality."""

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise UserError(f"Modes.samples is {self.samples}; it must be at least 1")

    def check(self, outlook: Outlook) -> Collection[str]:
        """Return the names of the numbers.

        Raises UserError for samples that are no points of the mixture's plane.
        """
        self._check_shape(outlook.shape)
        return ["modes", "high_quality", "std_ratio", "kl"]

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        if shape != self.source.centres().shape[1:]:
            raise UserError(
                f"Modes: samples have the shape {shape}, not that of points in the plane of "
                f"{type(self.source).__name__}; measure pictures with Distribution"
            )

    def measure(self, view: View) -> dict[str, Any]:
        """Return the numbers by name.

        Raises UserError for samples that are no points of the mixture's plane, or not finite.
        """
        centres = self.source.centres()
        points = finite(view.samples(self.samples)).image
        self._check_shape(points.shape[1:])
        found = fidelity.modes(points, centres, self.source.std, self.radius)
        source = dataclasses.replace(self.source, size=self.samples).open()
        data = np.stack([source[i]["image"] for i in range(self.samples)])
        baseline = fidelity.modes(data, centres, self.source.std, self.radius)
        return {
            "modes": found.covered,
            "high_quality": found.high_quality,
            "high_quality_floor": baseline.high_quality,
            "std_ratio": found.std_ratio,
            "std_ratio_floor": baseline.std_ratio,
            "kl": fidelity.kl_to_uniform(found.counts),
            "kl_floor": fidelity.kl_baseline(found.counts),
            "protocol": view.protocol
            | {"modes": {"samples": len(points), "of": len(centres), "radius_in_std": self.radius}},
        }
