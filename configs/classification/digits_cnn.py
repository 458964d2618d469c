"""A small CNN on digits: one 1x10 vector for each image.

Promise: test accuracy 99.4 % (0.9944 for each of the seeds 0, 1, 2) after 55 s on 2 CPU cores (uv run train.py
configs/classification/digits_cnn.py)
"""

from jaxgen.data.augment import Affine
from jaxgen.data.batches import Pipeline
from jaxgen.data.digits import Digits
from jaxgen.experiment import Experiment
from jaxgen.models.cnn import Cnn
from jaxgen.objectives.classification import Classification
from jaxgen.optim import Cosine, Optimizer


def config() -> Experiment:
    return Experiment(
        objective=Classification(
            net=Cnn(classes=10),
            optimizer=Optimizer(rate=Cosine(rate=2e-3), weight_decay=5e-2),
            smoothing=0.1,
            ema_decay=0.99,
        ),
        train=Pipeline(source=Digits(split="train"), transforms=(Affine(fill=0),)),
        test=Pipeline(source=Digits(split="test")),
        steps=1500,
        batch_size=128,
        test_batch_size=180,
        preview_every=500,
        checkpoint_every=500,
    )
