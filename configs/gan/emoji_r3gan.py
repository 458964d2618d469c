"""R3GAN's game on emoji, played for latents: what a frozen autoencoder makes of the pictures.

Result: precision 0.877, coverage 0.343 and fd_emoji_f4 67.4 of 2,000 samples to the 3,724 training pictures, after
11.4 min on 2 CPU cores, of which it had one, beside another job, with latents prepared as docs/gan.md says (uv run
train.py configs/gan/emoji_r3gan.py): portraits, couples, faces and flags can be recognised, rarer things are blots

The nets are dense, as those of digits_r3gan, and a step of theirs takes a third of what the autoencoder does:
docs/gan.md says how to run that once, before.
"""

from jaxgen.adversarial.penalties import R1, R2
from jaxgen.data.batches import Pipeline
from jaxgen.data.emoji import Emoji
from jaxgen.experiment import Experiment
from jaxgen.features.emoji_f4 import EmojiLatents
from jaxgen.learner import Learner
from jaxgen.metrics.distribution import Distribution
from jaxgen.models.mlp import MlpDiscriminator, MlpGenerator
from jaxgen.objectives.gan import Gan
from jaxgen.objectives.latent_space import LatentSpace
from jaxgen.optim.ema import HalfLifeEma
from jaxgen.optim.optimizer import Optimizer, RampedAdam
from jaxgen.optim.schedules import Constant, CosineRamp
from jaxgen.weights.shipped import EMOJI_F4, EmojiF4


def config() -> Experiment:
    optimizer = Optimizer(learning_rate=CosineRamp(first=1e-3, last=1e-4), method=RampedAdam())
    gamma = Constant(value=5.0)  # held, and large: there are 3,724 pictures
    objective = Gan(
        generator=Learner(
            module=MlpGenerator(latent=64, shape=(8, 8, 8), width=384, depth=3),
            optimizer=optimizer,
            ema=(HalfLifeEma(steps=200.0),),
        ),
        discriminator=Learner(module=MlpDiscriminator(width=384, depth=3), optimizer=optimizer),
        penalties=(R1(gamma=gamma), R2(gamma=gamma)),
        latent=LatentSpace(autoencoder=Learner(module=EMOJI_F4, weights=EmojiF4())),
    )
    return Experiment(
        objective=objective,
        train=Pipeline(source=Emoji(split="train")),
        test=Pipeline(source=Emoji(split="test")),
        metrics=(Distribution(features=EmojiLatents(), samples=2000, reference="train"),),
        steps=5000,
        batch_size=64 * objective.batch_parts,
        test_batch_size=82,
        log_every=200,
        preview_every=2500,
        checkpoint_every=1000,
    )
