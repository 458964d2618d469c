"""Digits in one or two evaluations: consistency tuning of what digits_edm has learned.

Result: fd_digits_cnn 1.584 in two evaluations, 2.877 in one and 1.506 in four (digits_edm itself: 72 in one or two,
12.1 in four, 0.870 in 35 by Heun), after 8.2 min on 2 CPU cores that had other work too
(uv run train.py configs/diffusion/digits_ect.py); uv run benchmarks/few_steps.py runs/digits_edm runs/digits_ect

It needs that run, so there are two commands: uv run train.py configs/diffusion/digits_edm.py, then
uv run train.py configs/diffusion/digits_ect.py
"""

import dataclasses
from typing import Any

from configs.diffusion import digits_edm
from jaxgen.diffusion.consistency import Doubling
from jaxgen.diffusion.noise_distributions import LogNormal, LowDiscrepancy
from jaxgen.diffusion.sampling_schedules import Given
from jaxgen.experiment import Experiment
from jaxgen.learner import Learner
from jaxgen.objectives.consistency import ConsistencyTuning
from jaxgen.optim.ema import HalfLifeEma
from jaxgen.optim.optimizer import Optimizer, RAdam
from jaxgen.optim.schedules import Cosine
from jaxgen.weights.trained import FromRun


def config() -> Experiment:
    trained: Any = digits_edm.config().objective
    tuned = digits_edm.digits(
        ConsistencyTuning(
            net=Learner(
                module=trained.net.module,
                optimizer=Optimizer(learning_rate=Cosine(peak=1e-3, warmup=0.0), method=RAdam(), clip=1.0),
                ema=(HalfLifeEma(steps=100.0),),
                weights=FromRun("runs/digits_edm"),
            ),
            path=trained.path,
            prediction=trained.prediction,
            noise_distribution=LowDiscrepancy(distribution=LogNormal(mean=-0.4, std=1.6)),
            gaps=Doubling(stages=6),
            schedule=Given(levels=(40.0, 0.8, 0.0)),
        )
    )
    return dataclasses.replace(tuned, steps=1200)
