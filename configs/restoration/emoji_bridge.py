"""Restoration by a Schrödinger bridge: from the damaged emoji itself, not from noise, to what it may have been.

Result: unverified
"""

from configs.restoration.emoji_palette import palette
from jaxgen.diffusion.bridge import Bridge
from jaxgen.experiment import Experiment


def config() -> Experiment:
    return palette(Bridge(steps=35, time_scale=10.0))
