"""Digits on demand by a GAN: the generator takes a class, and the discriminator compares images of one class.

Result: unverified
"""

from configs.gan.digits_r3gan import digits, r3gan
from jaxgen.experiment import Experiment
from jaxgen.metrics.class_accuracy import ClassAccuracy


def config() -> Experiment:
    return digits(r3gan(classes=10), steps=12_000, transforms=(), metrics=(ClassAccuracy(),))
