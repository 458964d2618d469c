"""Text to image: emoji from their names, by a U-Net whose cells attend to the words, on latents.

Result: unverified
"""

from configs.text_to_image.emoji_mmdit import denoiser, emoji
from jaxgen.experiment import Experiment
from jaxgen.models.text_unet import AXES, TextUNet


def config() -> Experiment:
    return emoji(denoiser(TextUNet(model_channels=48, multipliers=(1, 2), groups=16), AXES))
