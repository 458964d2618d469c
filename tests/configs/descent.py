"""A run whose every number must be the same however it is spread over processes and devices."""

import dataclasses

from small import by_descent, segmentation

from jaxgen.experiment import Experiment
from jaxgen.parallel.rules import Fsdp


def config() -> Experiment:
    made = by_descent(segmentation())
    made = dataclasses.replace(made, steps=12, log_every=1, checkpoint_every=4, preview_every=12, keep=9)
    return dataclasses.replace(made, rule=Fsdp(smallest=1))  # which splits nothing where the mesh has no fsdp
