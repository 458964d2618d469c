"""ResNet-50 on ImageNet, by the recipe of Goyal et al. (arXiv:1706.02677) with a cosine and label smoothing.

Result: unverified (90 epochs; needs several accelerators)

Prepare the data once: uv run --extra prepare tfds build imagenet2012 --file_format=array_record
"""

from jaxgen.data.augment import CenterCrop, Flip, RandomResizedCrop, ResizeShort
from jaxgen.data.batches import Pipeline
from jaxgen.data.tfds import Tfds
from jaxgen.experiment import Experiment
from jaxgen.learner import Learner
from jaxgen.models.resnet import ResNet
from jaxgen.objectives.classification import Classification
from jaxgen.optim.optimizer import Optimizer, Sgd
from jaxgen.optim.schedules import Cosine


def config() -> Experiment:
    batch_size = 1024
    return Experiment(
        objective=Classification(
            net=Learner(
                module=ResNet(classes=1000, depth=50, dtype="bfloat16"),
                # 0.1 for each 256 examples, and five epochs of warm-up: sections 2.1 and 2.2 of the paper.
                optimizer=Optimizer(
                    learning_rate=Cosine(peak=0.1 * batch_size / 256, warmup=5 / 90),
                    method=Sgd(nesterov=True),
                    weight_decay=1e-4,
                ),
            ),
            smoothing=0.1,
        ),
        train=Pipeline(
            source=Tfds("imagenet2012", split="train"), transforms=(RandomResizedCrop(224, 224), Flip()), workers=8
        ),
        test=Pipeline(
            source=Tfds("imagenet2012", split="validation"),
            transforms=(ResizeShort(256), CenterCrop(224, 224)),
            workers=8,
        ),
        steps=90 * 1_281_167 // batch_size,
        batch_size=batch_size,
        test_batch_size=1000,
        log_every=100,
        evaluate_every=5000,
        preview_every=5000,
        checkpoint_every=1000,
    )
