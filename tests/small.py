"""Small experiments on fake data, one for each objective: what the laws are stated over."""

import dataclasses

from jaxgen.data.augment import Flip
from jaxgen.data.batches import Pipeline
from jaxgen.data.fake import FakeLabels, FakeMasks
from jaxgen.experiment import Experiment
from jaxgen.models.cnn import Cnn, SmallBackbone
from jaxgen.models.fcn import Fcn
from jaxgen.objectives.classification import Classification
from jaxgen.objectives.segmentation import Segmentation
from jaxgen.optim import Cosine, Optimizer


def classification() -> Experiment:
    source = FakeLabels(height=8, width=8, channels=1, classes=4, size=48)
    return Experiment(
        objective=Classification(
            net=Cnn(classes=4, widths=(8, 16), depths=(1, 1), hidden=(16,), dropout=0.2),
            optimizer=Optimizer(rate=Cosine(rate=1e-2), weight_decay=1e-3, clip=1.0),
            smoothing=0.1,
            ema_decay=0.9,
        ),
        train=Pipeline(source=source, transforms=(Flip(),)),
        test=Pipeline(source=dataclasses.replace(source, size=21)),
        steps=12,
        batch_size=16,
        test_batch_size=8,
        log_every=2,
        preview_every=6,
        checkpoint_every=3,
    )


def segmentation() -> Experiment:
    source = FakeMasks(height=32, width=32, classes=3, size=40)
    return Experiment(
        objective=Segmentation(
            net=Fcn(
                classes=3,
                backbone=SmallBackbone(widths=(4, 8, 8, 8, 8), depths=(1, 1, 1, 1, 1)),
                hidden=(8,),
                window=3,
                skip_scale=(1.0, 1.0),
            ),
            optimizer=Optimizer(rate=Cosine(rate=1e-2)),
        ),
        train=Pipeline(source=source, transforms=(Flip(),)),
        test=Pipeline(source=dataclasses.replace(source, size=13)),
        steps=12,
        batch_size=8,
        test_batch_size=8,
        log_every=2,
        preview_every=6,
        checkpoint_every=3,
    )


EXPERIMENTS = {"classification": classification, "segmentation": segmentation}
