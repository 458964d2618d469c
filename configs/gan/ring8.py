"""Eight narrow Gaussians on a circle: the classic trap for generators that collapse.

Promise: unverified
"""

from configs.gan.grid25 import plane
from jaxgen.data.mixture import Ring
from jaxgen.experiment import Experiment


def config() -> Experiment:
    return plane(Ring(), Ring(seed=1, size=2500), scale=0.5)
