"""Super-resolution of pictures from the wild: RRDBNet four times as large, of photographs damaged at random, by a GAN.

Result: unverified

Real-ESRGAN's last stage (arXiv:2107.10833, section 4.1) on a folder of photographs such as DIV2K's: crops of 400 pixels
are damaged and cut to 256, 48 a batch. Its stage before, by distance alone, is div2k_rrdb_x4 with this data:
--objective.net.weights.path says where it lies. The paper adds a perceptual distance in VGG-19's maps, which are not
here: give `perceptual` a net of your own.
"""

from jaxgen.adversarial.losses import NonSaturating
from jaxgen.data.augment import CenterCrop, Flip, PadCrop
from jaxgen.data.batches import Pipeline
from jaxgen.data.degradation import RealDegradation
from jaxgen.data.folder import Images
from jaxgen.experiment import Experiment
from jaxgen.learner import Learner
from jaxgen.models.super_resolution import Rrdb, UNetDiscriminator
from jaxgen.objectives.restoration import Restoration
from jaxgen.optim.ema import HalfLifeEma
from jaxgen.optim.optimizer import Adam, Optimizer
from jaxgen.optim.schedules import Constant
from jaxgen.weights.trained import FromRun

ADAM = Optimizer(learning_rate=Constant(value=1e-4), method=Adam(b1=0.9, b2=0.99))


def config() -> Experiment:
    return Experiment(
        objective=Restoration(
            net=Learner(
                module=Rrdb(scale=4, remat=True),
                optimizer=ADAM,
                ema=(HalfLifeEma(steps=693.0),),
                weights=FromRun("runs/div2k_rrdb_x4"),
            ),
            discriminator=Learner(module=UNetDiscriminator(width=64), optimizer=ADAM),
            adversarial_loss=NonSaturating(),
            adversarial_weight=0.1,
        ),
        train=Pipeline(
            source=Images("data/DIV2K/train"),
            transforms=(PadCrop(height=400, width=400, pad=0), Flip(), RealDegradation(factor=4, size=256)),
            workers=8,
        ),
        test=Pipeline(source=Images("data/DIV2K/valid"), transforms=(CenterCrop(480, 480), RealDegradation(factor=4))),
        steps=400_000,
        batch_size=48,
        test_batch_size=4,
        log_every=500,
        evaluate_every=20_000,
        preview_every=20_000,
        checkpoint_every=5_000,
    )
