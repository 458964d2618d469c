"""A run of a few seconds, for tests that start processes."""

import dataclasses

from small import segmentation

from jaxgen.experiment import Experiment


def config() -> Experiment:
    return dataclasses.replace(segmentation(), steps=60, checkpoint_every=5, preview_every=20, evaluate_every=25)
