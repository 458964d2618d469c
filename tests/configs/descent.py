"""A run whose every number must be the same however it is spread over processes and devices."""

import dataclasses

from small import by_descent, segmentation

from jaxgen.experiment import Experiment


def config() -> Experiment:
    made = by_descent(segmentation())
    return dataclasses.replace(made, steps=12, log_every=1, checkpoint_every=4, preview_every=12, keep=9)
