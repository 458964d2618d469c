"""ResNet-18 with the CIFAR stem on CIFAR-10.

Result: unverified (200 epochs; needs an accelerator)

Prepare the data once: uv run --extra prepare tfds build cifar10 --file_format=array_record
"""

from jaxgen.data.augment import Flip, PadCrop
from jaxgen.data.batches import Pipeline
from jaxgen.data.tfds import Tfds
from jaxgen.experiment import Experiment
from jaxgen.learner import Learner
from jaxgen.models.resnet import CIFAR, ResNet
from jaxgen.objectives.classification import Classification
from jaxgen.optim.optimizer import Optimizer, Sgd
from jaxgen.optim.schedules import Cosine


def config() -> Experiment:
    return Experiment(
        objective=Classification(
            net=Learner(
                module=ResNet(classes=10, depth=18, stem=CIFAR),
                optimizer=Optimizer(
                    learning_rate=Cosine(peak=0.1, warmup=0.025), method=Sgd(nesterov=True), weight_decay=5e-4
                ),
            ),
        ),
        train=Pipeline(source=Tfds("cifar10", split="train"), transforms=(PadCrop(32, 32, pad=4), Flip())),
        test=Pipeline(source=Tfds("cifar10", split="test")),
        steps=200 * 50_000 // 128,
        batch_size=128,
        test_batch_size=500,
        log_every=100,
        evaluate_every=10 * 390,
        preview_every=10 * 390,
        checkpoint_every=2000,
    )
