"""ResNet-10 at 64×64 on pictures of your own: a folder for each class in `pictures/`.

Result: unverified (it depends on your pictures; docs/first_day.md)

uv run train.py configs/classification/pictures_resnet10.py --train.source.path DIR --test.source.path DIR
--objective.net.module.classes N: about a quarter of the pictures, which their names decide, is kept for the test.
"""

from jaxgen.data.augment import Flip, Photometric, RandomResizedCrop, Resize
from jaxgen.data.batches import Pipeline
from jaxgen.data.folder import Folder
from jaxgen.experiment import Experiment
from jaxgen.learner import Learner
from jaxgen.models.resnet import ResNet
from jaxgen.objectives.classification import Classification
from jaxgen.optim.ema import WarmupEma
from jaxgen.optim.optimizer import Optimizer
from jaxgen.optim.schedules import Cosine


def config() -> Experiment:
    return Experiment(
        objective=Classification(
            net=Learner(
                module=ResNet(classes=2, depth=10, width=32),
                optimizer=Optimizer(learning_rate=Cosine(peak=1e-3), weight_decay=1e-2, clip=1.0),
                ema=(WarmupEma(decay=0.99),),
            ),
        ),
        train=Pipeline(
            source=Folder("pictures", split="train", share=0.75),
            transforms=(RandomResizedCrop(64, 64, scale=(0.5, 1.0)), Flip(), Photometric()),
        ),
        test=Pipeline(source=Folder("pictures", split="test", share=0.75), transforms=(Resize(64, 64),)),
        steps=500,
        batch_size=16,
    )
