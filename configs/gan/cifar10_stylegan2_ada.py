"""StyleGAN2 with adaptive discriminator augmentation on CIFAR-10, unconditional: the "cifar" recipe of its code.

Result: unverified (arXiv:2006.06676, table 3: FID 2.92 after 100 million images; here without its authors' change of
Adam for lazy regularisation, which this R1 does not need)

Prepare the data once: uv run --extra prepare tfds build cifar10 --file_format=array_record
"""

from jaxgen.adversarial.ada import Ada
from jaxgen.adversarial.losses import NonSaturating
from jaxgen.adversarial.penalties import R1
from jaxgen.data.batches import Pipeline
from jaxgen.data.tfds import Tfds
from jaxgen.experiment import Experiment
from jaxgen.learner import Learner
from jaxgen.models.stylegan2 import StyleGan2Generator
from jaxgen.models.stylegan2_discriminator import PlainStyleGan2Discriminator
from jaxgen.objectives.gan import Gan
from jaxgen.optim.ema import HalfLifeEma
from jaxgen.optim.optimizer import Adam, Optimizer
from jaxgen.optim.schedules import Constant


def config() -> Experiment:
    batch_size = 64
    optimizer = Optimizer(learning_rate=Constant(value=0.0025), method=Adam(b1=0.0, b2=0.99))
    return Experiment(
        objective=Gan(
            generator=Learner(
                module=StyleGan2Generator(side=32, mapping_layers=2, mixing=0.0, dtype="bfloat16"),
                optimizer=optimizer,
                ema=(HalfLifeEma(steps=500_000 / batch_size, ramp=0.05),),
            ),
            discriminator=Learner(module=PlainStyleGan2Discriminator(group=32, dtype="bfloat16"), optimizer=optimizer),
            loss=NonSaturating(),
            penalties=(R1(gamma=Constant(value=0.01), every=16),),
            augmentation=Ada(),
        ),
        train=Pipeline(source=Tfds("cifar10", split="train", label=None)),
        test=Pipeline(source=Tfds("cifar10", split="test", label=None)),
        steps=100_000_000 // batch_size,
        batch_size=batch_size,
        test_batch_size=1000,
        log_every=200,
        preview_every=20_000,
        checkpoint_every=10_000,
    )
