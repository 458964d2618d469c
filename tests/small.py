"""Small experiments on fake data, one for each objective: what the laws are stated over."""

import dataclasses
import re
from collections.abc import Callable, Iterable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import pytest

from jaxgen.adversarial.augmentation import Adaptive
from jaxgen.adversarial.diffaugment import DiffAugment
from jaxgen.adversarial.losses import NonSaturating
from jaxgen.adversarial.penalties import R1, R2, LeCam
from jaxgen.adversarial.pool import Pool
from jaxgen.data.augment import Flip, Unlabelled
from jaxgen.data.batches import Pipeline
from jaxgen.data.damage import Shrink
from jaxgen.data.fake import FakeCaptions, FakeLabels, FakeMasks
from jaxgen.data.palette import EraseBox
from jaxgen.data.unpaired import FakeDomains, Unpaired
from jaxgen.diffusion.bridge import Bridge
from jaxgen.diffusion.consistency import Doubling
from jaxgen.diffusion.flow import FlowHeun
from jaxgen.diffusion.guidance import ClassifierFree
from jaxgen.diffusion.noise_distributions import LogitNormal, LogNormal
from jaxgen.diffusion.path import Edm, Flow
from jaxgen.diffusion.predictions import Direct, EdmPreconditioning
from jaxgen.diffusion.quantities import Velocity
from jaxgen.diffusion.sampling import Sampling
from jaxgen.diffusion.sampling_schedules import Rho, UniformTime
from jaxgen.diffusion.solvers import Heun
from jaxgen.diffusion.weighting import Uncertainty, Unweighted
from jaxgen.experiment import Experiment
from jaxgen.learner import Learner
from jaxgen.models.autoencoder_kl import AutoencoderKl, Level
from jaxgen.models.cnn import Cnn
from jaxgen.models.dcgan import DcganDiscriminator, DcganGenerator, SpectralNorm
from jaxgen.models.dit import DiT
from jaxgen.models.fcn import Fcn
from jaxgen.models.mmdit import MMDiT
from jaxgen.models.patch_heads import PatchHeads
from jaxgen.models.patchgan import Group, PatchGan
from jaxgen.models.resnet_generator import Antialiased, ResnetGenerator
from jaxgen.models.super_resolution import Rrdb
from jaxgen.models.text_transformer import TextTransformer
from jaxgen.nn.backbones import SmallBackbone
from jaxgen.objective import Objective
from jaxgen.objectives.autoencoder import Autoencoding
from jaxgen.objectives.classification import Classification
from jaxgen.objectives.consistency import ConsistencyTuning
from jaxgen.objectives.contrastive_translation import ContrastiveTranslation
from jaxgen.objectives.diffusion import Diffusion
from jaxgen.objectives.gan import Gan
from jaxgen.objectives.latent_space import LatentSpace
from jaxgen.objectives.paired_diffusion import PairedDiffusion
from jaxgen.objectives.restoration import Restoration
from jaxgen.objectives.segmentation import Segmentation
from jaxgen.objectives.text import Text
from jaxgen.objectives.unpaired_translation import UnpairedTranslation
from jaxgen.optim.ema import HalfLifeEma, PowerEma, WarmupEma
from jaxgen.optim.optimizer import Optimizer, RAdam, RampedAdam, Sgd
from jaxgen.optim.schedules import Constant, Cosine


class Linear(nn.Module):
    """The smallest classifier: compiled in a moment, for tests of what surrounds a net."""

    classes: int = 4

    @nn.compact
    def __call__(self, image, *, train: bool):
        return nn.Dense(self.classes)(image.reshape(len(image), -1))


def linear() -> Experiment:
    made = classification()
    net = Learner(module=Linear(), optimizer=made.objective.net.optimizer, ema=made.objective.net.ema)
    return dataclasses.replace(made, objective=Classification(net=net))


def classification() -> Experiment:
    source = FakeLabels(height=8, width=8, channels=1, classes=4, size=48)
    return Experiment(
        objective=Classification(
            net=Learner(
                module=Cnn(classes=4, widths=(8, 16), depths=(1, 1), hidden=(16,), dropout=0.2),
                optimizer=Optimizer(learning_rate=Cosine(peak=1e-2), weight_decay=1e-3, clip=1.0),
                ema=(WarmupEma(decay=0.9),),
            ),
            smoothing=0.1,
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
            net=Learner(
                module=Fcn(
                    classes=3,
                    backbone=SmallBackbone(widths=(4, 8, 8, 8, 8), depths=(1, 1, 1, 1, 1)),
                    hidden=(8,),
                    window=3,
                    skip_scale=(1.0, 1.0),
                ),
                optimizer=Optimizer(learning_rate=Cosine(peak=1e-2)),
            ),
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


def diffusion() -> Experiment:
    source = FakeLabels(height=8, width=8, channels=1, classes=3, size=48)
    return Experiment(
        objective=Diffusion(
            net=Learner(
                module=DiT(classes=3, width=32, depth=2, heads=2, patch=2),
                optimizer=Optimizer(learning_rate=Cosine(peak=1e-2), clip=1.0),
                ema=(PowerEma(width=0.05), PowerEma(width=0.1)),
            ),
            path=Edm(),
            prediction=EdmPreconditioning(sigma_data=0.5),
            noise_distribution=LogNormal(),
            weighting=Uncertainty(base=Unweighted(), channels=8),
            sampling=Sampling(solver=Heun(), schedule=Rho(steps=3), guidance=ClassifierFree(scale=1.5)),
            condition_dropout=0.2,
            side=2,
        ),
        train=Pipeline(source=source, transforms=(Flip(),)),
        test=Pipeline(source=dataclasses.replace(source, size=13)),
        steps=12,
        batch_size=16,
        test_batch_size=8,
        log_every=2,
        preview_every=6,
        checkpoint_every=3,
    )


def consistency() -> Experiment:
    made = diffusion()
    module = DiT(classes=3, width=32, depth=1, heads=2, patch=2)
    objective = ConsistencyTuning(
        net=Learner(
            module=module,
            optimizer=Optimizer(learning_rate=Cosine(peak=1e-2), method=RAdam()),
            ema=(HalfLifeEma(steps=2.0),),
        ),
        path=Edm(),
        prediction=EdmPreconditioning(sigma_data=0.5),
        noise_distribution=LogNormal(mean=-0.5, std=0.5),
        gaps=Doubling(stages=2),
        condition_dropout=0.2,
        side=2,
    )
    return dataclasses.replace(made, objective=objective)


def text_to_image() -> Experiment:
    """The whole chain: a frozen autoencoder, a text encoder that learns, and a denoiser of latents."""
    source = FakeCaptions(height=8, width=8, size=48, length=6, vocabulary=12)
    optimizer = Optimizer(learning_rate=Cosine(peak=1e-2), clip=1.0)
    level = (Level(8, 0), Level(8, 0))
    autoencoder = AutoencoderKl(channels=4, encoder=level, decoder=level, attention=False, groups=2)
    reader = TextTransformer(vocabulary=12, length=6, width=16, depth=2, heads=2)
    objective = Diffusion(
        net=Learner(module=MMDiT(width=16, depth=2, heads=2), optimizer=optimizer, ema=(HalfLifeEma(steps=2.0),)),
        text=(Text(encoder=Learner(module=reader, optimizer=optimizer, ema=(HalfLifeEma(steps=2.0),))),),
        latent=LatentSpace(autoencoder=Learner(module=autoencoder)),
        path=Flow(),
        prediction=Direct(quantity=Velocity(), time_scale=10.0),
        noise_distribution=LogitNormal(),
        sampling=Sampling(solver=FlowHeun(), schedule=UniformTime(steps=2), guidance=ClassifierFree(scale=1.5)),
        condition_dropout=0.2,
        side=2,
    )
    return dataclasses.replace(
        diffusion(),
        objective=objective,
        train=Pipeline(source=source),
        test=Pipeline(source=dataclasses.replace(source, size=13)),
    )


def gan() -> Experiment:
    source = FakeLabels(height=8, width=8, channels=1, classes=3, size=48)
    optimizer = Optimizer(learning_rate=Cosine(peak=1e-2), method=RampedAdam())
    return Experiment(
        objective=Gan(
            generator=Learner(
                module=DcganGenerator(latent=8, classes=3, channels=1, widths=(8,)),
                optimizer=optimizer,
                ema=(HalfLifeEma(steps=2.0),),
            ),
            discriminator=Learner(
                module=DcganDiscriminator(classes=3, widths=(8,), norm=SpectralNorm()), optimizer=optimizer
            ),
            penalties=(
                R1(gamma=Constant(value=0.1)),
                R2(gamma=Constant(value=0.1), every=2),
                LeCam(strength=Constant(value=0.1)),
            ),
            augmentation=DiffAugment(p=Adaptive(images=200.0, every=1)),
            side=2,
        ),
        train=Pipeline(source=source, transforms=(Flip(),)),
        test=Pipeline(source=dataclasses.replace(source, size=13)),
        steps=12,
        batch_size=16,
        test_batch_size=8,
        log_every=2,
        preview_every=6,
        checkpoint_every=3,
    )


def autoencoder() -> Experiment:
    source = FakeLabels(height=8, width=8, channels=1, classes=3, size=48)
    optimizer = Optimizer(learning_rate=Cosine(peak=1e-2))
    return Experiment(
        objective=Autoencoding(
            net=Learner(
                module=AutoencoderKl(
                    channels=8,
                    image_channels=1,
                    encoder=(Level(8, 0), Level(8, 0)),
                    decoder=(Level(8, 0), Level(8, 0)),
                    attention=False,
                    groups=2,
                ),
                optimizer=optimizer,
                ema=(HalfLifeEma(steps=2.0),),
            ),
            discriminator=Learner(module=PatchGan(width=4, halvings=1, norm=Group(2)), optimizer=optimizer),
            adversarial_loss=NonSaturating(),  # the hinge loss moves no bias of the last layer at first
            adversarial_weight=0.02,
            start=2,
        ),
        train=Pipeline(source=source, transforms=(Unlabelled(), Flip())),
        test=Pipeline(source=dataclasses.replace(source, size=13), transforms=(Unlabelled(),)),
        steps=12,
        batch_size=16,
        test_batch_size=8,
        log_every=2,
        preview_every=6,
        checkpoint_every=3,
    )


def restoration() -> Experiment:
    """Twice as large by a small net, and a discriminator that judges."""
    # At half of this side the partitioner would split maps into single rows, where it computes something else.
    source = FakeLabels(height=16, width=16, channels=3, classes=2, size=48)
    optimizer = Optimizer(learning_rate=Cosine(peak=1e-2))
    damaged = (Unlabelled(), Flip(), Shrink(factor=2))
    return Experiment(
        objective=Restoration(
            net=Learner(
                module=Rrdb(scale=2, features=8, growth=4, blocks=1), optimizer=optimizer, ema=(HalfLifeEma(steps=2.0),)
            ),
            discriminator=Learner(module=PatchGan(width=4, halvings=1, norm=Group(2)), optimizer=optimizer),
            adversarial_loss=NonSaturating(),
        ),
        train=Pipeline(source=source, transforms=damaged),
        test=Pipeline(source=dataclasses.replace(source, size=13), transforms=(Unlabelled(), Shrink(factor=2))),
        steps=12,
        batch_size=16,
        test_batch_size=8,
        log_every=2,
        preview_every=6,
        checkpoint_every=3,
    )


class Shown(nn.Module):
    """The smallest denoiser that is shown a damaged image: compiled in a moment."""

    classes: int = 0
    channels: int = 3

    @nn.compact
    def __call__(self, x, noise, condition, *, train: bool):
        level = nn.Dense(8)(jnp.stack([noise, jnp.sin(noise)], -1))
        x = nn.silu(nn.Conv(8, (3, 3))(x) + level[:, None, None])
        return nn.Conv(self.channels, (3, 3))(x)


def paired_diffusion() -> Experiment:
    """A denoiser that is shown the damaged image."""
    source = FakeLabels(height=16, width=16, channels=3, classes=2, size=48)
    optimizer = Optimizer(learning_rate=Cosine(peak=1e-2), clip=1.0)
    damaged = (Unlabelled(), EraseBox())
    return Experiment(
        objective=PairedDiffusion(
            net=Learner(module=Shown(), optimizer=optimizer, ema=(HalfLifeEma(steps=2.0),)),
            process=Bridge(steps=2),
        ),
        train=Pipeline(source=source, transforms=damaged),
        test=Pipeline(source=dataclasses.replace(source, size=13), transforms=damaged),
        steps=12,
        batch_size=16,
        test_batch_size=8,
        log_every=2,
        preview_every=6,
        checkpoint_every=3,
    )


def unpaired_translation() -> Experiment:
    """Two generators and two discriminators."""
    # Kernels of 4×4 have channels enough that FSDP does not split them in space, and maps have more than one row on
    # each of two devices: the partitioner computes something else there.
    side = FakeLabels(height=16, width=16, channels=1, classes=3, size=48)
    optimizer = Optimizer(learning_rate=Cosine(peak=1e-2))
    generator = Learner(
        module=ResnetGenerator(channels=1, width=8, halvings=1, blocks=1),
        optimizer=optimizer,
        ema=(HalfLifeEma(steps=2.0),),
    )
    # A bias before an instance norm does nothing: its gradient is rounding.
    discriminator = Learner(module=PatchGan(width=16, halvings=1, norm=Group(2)), optimizer=optimizer)
    return Experiment(
        objective=UnpairedTranslation(
            to_a=generator,
            to_b=generator,
            discriminator_a=discriminator,
            discriminator_b=discriminator,
            cycle=1.0,  # ten times as much, and plain descent makes rounding larger at each step
            pool=Pool(size=10),
            penalties=(R1(gamma=Constant(value=0.01)),),
        ),
        train=Pipeline(
            source=Unpaired(
                a=Pipeline(source=side, transforms=(Flip(),)),
                b=Pipeline(source=dataclasses.replace(side, size=31, seed=1)),
            ),
        ),
        test=Pipeline(source=FakeDomains(height=16, width=16, channels=1, size=13, matched=True)),
        steps=12,
        batch_size=8,
        test_batch_size=8,
        log_every=2,
        preview_every=6,
        checkpoint_every=3,
    )


def contrastive_translation() -> Experiment:
    """One generator, one discriminator, and the heads that make patches comparable."""
    made = unpaired_translation()
    cycles: Any = made.objective
    module = ResnetGenerator(channels=1, width=8, halvings=1, blocks=1, resampling=Antialiased())
    objective = ContrastiveTranslation(
        to_b=dataclasses.replace(cycles.to_b, module=module),
        discriminator=cycles.discriminator_b,
        heads=Learner(module=PatchHeads(features=16), optimizer=cycles.to_b.optimizer),
        layers=("image", "halving0", "block0"),
        places=12,
        temperature=0.5,
        mirrored=0.5,
    )
    return dataclasses.replace(made, objective=objective)


def with_learners(objective: Objective, change: Callable[[Learner], Learner]) -> Objective:
    """Return the objective with each of its learners changed."""
    fields = {f.name: getattr(objective, f.name) for f in dataclasses.fields(objective)}
    changed: dict[str, Any] = {k: change(v) for k, v in fields.items() if isinstance(v, Learner)}
    if texts := fields.get("text"):
        changed["text"] = tuple(dataclasses.replace(text, encoder=change(text.encoder)) for text in texts)
    return dataclasses.replace(objective, **changed)


def with_nets(objective: Objective, change: Callable[[nn.Module], nn.Module]) -> Objective:
    """Return the objective with each of its nets changed."""
    return with_learners(objective, lambda learner: dataclasses.replace(learner, module=change(learner.module)))


def by_descent(experiment: Experiment, rate: float = 1e-2) -> Experiment:
    """The same with plain gradient descent: Adam divides by the gradient's size, and so amplifies rounding."""
    plain = Optimizer(learning_rate=Constant(value=rate), method=Sgd())
    objective = with_learners(experiment.objective, lambda learner: dataclasses.replace(learner, optimizer=plain))
    return dataclasses.replace(experiment, objective=objective)


# Configs whose nets another config has too: what takes minutes to compile is compiled once for each net. (pictures_:
# test_first_day.py trains them; of text to image and autoencoders the emoji configs have the same nets, smaller. EDM2,
# StyleGAN2 and DeepLab have tests of their own, smaller.)
KIN = re.compile(
    "scenes_fcn16s|scenes_fcn32s|scenes_text|scenes_f8|digits_ect|"
    "digits_flow|digits_ddpm|digits_dcgan|diffusion/digits_conditional|gan/digits_conditional|ring8|"
    "kl_f8|sd15|sd3|div2k_rrdb|photos_x2_gan|emoji_bridge|emoji_painted_edm|monet2photo|horse2zebra|"
    "sit_xl2|imagenet64_edm2_s|cifar10_stylegan2_ada|ade20k_deeplabv3plus|emoji_palette|cifar10_r3gan|"
    "stacked_digits|cifar10_edm|ffhq256_r3gan|imagenet_resnet50|pets_unet|voc_fcn8s|pictures_"
)
NONE = re.compile("(?!)")  # finds nothing


def marked(names: Iterable[str], slow: re.Pattern[str], by_hand: re.Pattern[str] = NONE) -> list[Any]:
    """Names of configs as parameters of a test: those that `by_hand` finds by hand, others that `slow` finds slow."""

    def marks(name: str) -> tuple[pytest.MarkDecorator, ...]:
        if by_hand.search(name):
            return (pytest.mark.by_hand,)
        return (pytest.mark.slow,) if slow.search(name) else ()

    return [pytest.param(name, marks=marks(name)) for name in names]


EXPERIMENTS = {
    "classification": classification,
    "segmentation": segmentation,
    "diffusion": diffusion,
    "consistency": consistency,
    "text_to_image": text_to_image,
    "gan": gan,
    "autoencoder": autoencoder,
    "restoration": restoration,
    "paired_diffusion": paired_diffusion,
    "unpaired_translation": unpaired_translation,
    "contrastive_translation": contrastive_translation,
}
