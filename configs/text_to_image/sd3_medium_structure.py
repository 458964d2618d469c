"""Stable Diffusion 3 medium's structure: an MMDiT of 2 billion parameters and two of its text encoders, at 512×512.

Result: unverified (the paper's 8 billion score 0.68 on GenEval at 512×512, arXiv:2403.03206, table 5; needs a pod)

Wants a folder of pictures with captions, data/captioned, and data/sd3 with what does not learn: the vocabulary of CLIP,
its two text encoders and the autoencoder, as files of diffusers or of OpenCLIP. T5, the third encoder, is left out, as
its users often do; so each of the two is dropped with the square root of a tenth. `weights=Sd3Mmdit(PATH)` starts the
MMDiT from published weights.
"""

import dataclasses
import functools

from jaxgen.data.augment import CenterCrop, ResizeShort
from jaxgen.data.batches import Pipeline
from jaxgen.data.captioned import Captioned
from jaxgen.data.tokenizers import Clip, KeepCaption, Tokenize
from jaxgen.diffusion.guidance import ClassifierFree
from jaxgen.diffusion.noise_distributions import LogitNormal
from jaxgen.diffusion.path import Flow
from jaxgen.diffusion.predictions import Direct
from jaxgen.diffusion.quantities import Velocity
from jaxgen.diffusion.sampling import Sampling
from jaxgen.diffusion.sampling_schedules import UniformTime
from jaxgen.diffusion.solvers import Euler
from jaxgen.experiment import Experiment
from jaxgen.learner import Learner
from jaxgen.models.autoencoder_kl import AutoencoderKl
from jaxgen.models.mmdit import MEDIUM, MMDiT
from jaxgen.models.text_transformer import CLIP_L, OPENCLIP_BIGG, TextTransformer
from jaxgen.nn.positions import CentredSinCos
from jaxgen.objectives.diffusion import Diffusion
from jaxgen.objectives.latent_space import LatentSpace
from jaxgen.objectives.text import Text
from jaxgen.optim.ema import ConstantEma
from jaxgen.optim.optimizer import Optimizer
from jaxgen.optim.schedules import Constant
from jaxgen.parallel.mesh import MeshShape
from jaxgen.parallel.rules import Fsdp
from jaxgen.weights.autoencoder_kl import SdAutoencoder
from jaxgen.weights.clip_text import ClipText

FILES = "data/sd3"
VOCABULARY = f"{FILES}/bpe_simple_vocab_16e6.txt.gz"
EMPTY = (49_406, 49_407)  # CLIP's start and end
TRANSFORMS = (
    ResizeShort(512),
    KeepCaption(CenterCrop(512, 512)),
    Tokenize(tokenizer=Clip(vocabulary=VOCABULARY)),  # the end fills texts up, but 0 does for OpenCLIP's encoder
    Tokenize(tokenizer=Clip(vocabulary=VOCABULARY, padding=0), name="tokens_2"),
)


def reader(encoder: TextTransformer, file: str) -> Text:
    learner = Learner(module=encoder, weights=ClipText(f"{FILES}/{file}"))
    return Text(encoder=learner, empty=EMPTY, padding=49_407, dropout=0.1**0.5)


def config() -> Experiment:
    penultimate = functools.partial(TextTransformer, skipped=1, normalized=False, dtype="bfloat16")
    autoencoder = AutoencoderKl(channels=16, mixed=False, dtype="bfloat16")
    return Experiment(
        objective=Diffusion(
            net=Learner(
                module=MMDiT(
                    **MEDIUM,
                    patch=2,
                    qk_norm=None,
                    position=CentredSinCos(),
                    text_width=4096,
                    remat=True,
                    dtype="bfloat16",
                ),
                optimizer=Optimizer(learning_rate=Constant(value=1e-4), clip=1.0),
                ema=(ConstantEma(decay=0.9999),),
            ),
            text=(
                reader(penultimate(**CLIP_L, projection=768), "clip_l.safetensors"),
                dataclasses.replace(
                    reader(penultimate(**OPENCLIP_BIGG, projection=1280), "clip_g.safetensors"),
                    tokens="tokens_2",
                    padding=0,
                    joins="channels",
                ),
            ),
            latent=LatentSpace(
                autoencoder=Learner(
                    module=autoencoder,
                    weights=SdAutoencoder(f"{FILES}/vae.safetensors", scale=1.5305, shift=0.0609),
                )
            ),
            path=Flow(),
            prediction=Direct(quantity=Velocity(), time_scale=1000.0),
            noise_distribution=LogitNormal(),
            sampling=Sampling(
                solver=Euler(), schedule=UniformTime(steps=28, shift=3.0), guidance=ClassifierFree(scale=5.0)
            ),
            side=4,
        ),
        train=Pipeline(source=Captioned("data/captioned", split="train"), transforms=TRANSFORMS, workers=8),
        test=Pipeline(source=Captioned("data/captioned", split="test"), transforms=TRANSFORMS, workers=8),
        steps=500_000,
        batch_size=1024,
        test_batch_size=256,
        log_every=100,
        preview_every=10_000,
        checkpoint_every=2000,
        mesh=MeshShape(replica=1, fsdp=-1),
        rule=Fsdp(),
    )
