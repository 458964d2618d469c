"""Stable Diffusion 1's structure: a U-Net of 860 million parameters that reads CLIP's text encoder, at 512×512.

Result: unverified (the published training took about 600,000 steps of 2,048; needs a pod)

Wants a folder of pictures with captions, data/captioned, and data/sd15 with what does not learn: the vocabulary of
CLIP, its text encoder and the autoencoder, as files of diffusers or of CompVis. `weights=SdUnet(PATH)` starts the U-Net
from published weights.
"""

from jaxgen.data.augment import CenterCrop, ResizeShort
from jaxgen.data.batches import Pipeline
from jaxgen.data.captioned import Captioned
from jaxgen.data.tokenizers import Clip, KeepCaption, Tokenize
from jaxgen.diffusion.guidance import ClassifierFree
from jaxgen.diffusion.noise_distributions import Uniform
from jaxgen.diffusion.path import ScaledLinearBetas
from jaxgen.diffusion.predictions import Direct
from jaxgen.diffusion.quantities import Eps
from jaxgen.diffusion.sampling import Sampling
from jaxgen.diffusion.sampling_schedules import Trailing
from jaxgen.diffusion.stochastic import Ddim
from jaxgen.experiment import Experiment
from jaxgen.learner import Learner
from jaxgen.models.autoencoder_kl import AutoencoderKl
from jaxgen.models.text_transformer import CLIP_L, TextTransformer
from jaxgen.models.text_unet import SD1, TextUNet
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

FILES = "data/sd15"
TRANSFORMS = (
    ResizeShort(512),
    KeepCaption(CenterCrop(512, 512)),
    Tokenize(tokenizer=Clip(vocabulary=f"{FILES}/bpe_simple_vocab_16e6.txt.gz")),
)


def config() -> Experiment:
    reader = Learner(
        module=TextTransformer(**CLIP_L, dtype="bfloat16"), weights=ClipText(f"{FILES}/text_encoder.safetensors")
    )
    autoencoder = Learner(module=AutoencoderKl(dtype="bfloat16"), weights=SdAutoencoder(f"{FILES}/vae.safetensors"))
    return Experiment(
        objective=Diffusion(
            net=Learner(
                module=TextUNet(**SD1, remat=True, dtype="bfloat16"),
                optimizer=Optimizer(learning_rate=Constant(value=1e-4), weight_decay=1e-2, clip=1.0),
                ema=(ConstantEma(decay=0.9999),),
            ),
            text=(Text(encoder=reader, empty=(49_406, 49_407), padding=49_407),),  # CLIP's start and end
            latent=LatentSpace(autoencoder=autoencoder),
            path=ScaledLinearBetas(),
            prediction=Direct(quantity=Eps()),
            noise_distribution=Uniform(),
            sampling=Sampling(solver=Ddim(), schedule=Trailing(steps=50), guidance=ClassifierFree(scale=7.5)),
            condition_dropout=0.1,
            side=4,
        ),
        train=Pipeline(source=Captioned("data/captioned", split="train"), transforms=TRANSFORMS, workers=8),
        test=Pipeline(source=Captioned("data/captioned", split="test"), transforms=TRANSFORMS, workers=8),
        steps=600_000,
        batch_size=2048,
        test_batch_size=256,
        log_every=100,
        preview_every=10_000,
        checkpoint_every=2000,
        mesh=MeshShape(replica=1, fsdp=-1),
        rule=Fsdp(),
    )
