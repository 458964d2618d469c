"""Digits on demand by a GAN: a generator told which digit to draw, and a discriminator that compares like with like.

Promise: unverified
"""

from configs.gan.digits_r3gan import digits, r3gan
from jaxgen.experiment import Experiment
from jaxgen.metrics.class_accuracy import ClassAccuracy


def config() -> Experiment:
    return digits(r3gan(classes=10), transforms=(), measures=(ClassAccuracy(),))
