"""The autoencoder of Stable Diffusion 1 on ImageNet 256×256: 32×32 places of 4 numbers (arXiv:2112.10752, f8).

Result: unverified (the paper's, on OpenImages, with LPIPS besides: PSNR 24.2 and FID 0.90; needs a pod)

The published net also learned from LPIPS, whose weights jaxgen does not ship: `perceptual=Perceptual(...)` takes any
net that you have. `SdAutoencoder(PATH)` starts it from published weights.
"""

from jaxgen.adversarial.losses import Hinge
from jaxgen.data.augment import CenterCrop, Flip, RandomResizedCrop, ResizeShort, Unlabelled
from jaxgen.data.batches import Pipeline
from jaxgen.data.tfds import Tfds
from jaxgen.experiment import Experiment
from jaxgen.learner import Learner
from jaxgen.models.autoencoder_kl import AutoencoderKl
from jaxgen.models.patchgan import PatchGan
from jaxgen.objectives.autoencoder import Autoencoding
from jaxgen.optim.optimizer import Adam, Optimizer
from jaxgen.optim.schedules import Constant
from jaxgen.parallel.mesh import MeshShape
from jaxgen.parallel.rules import Fsdp

BATCH = 128


def config() -> Experiment:
    # The learning rate is that of the paper's code: 4.5e-6 for each image of the batch.
    optimizer = Optimizer(learning_rate=Constant(value=4.5e-6 * BATCH), method=Adam(b1=0.5, b2=0.9))
    return Experiment(
        objective=Autoencoding(
            net=Learner(module=AutoencoderKl(dtype="bfloat16", remat=True), optimizer=optimizer),
            discriminator=Learner(module=PatchGan(dtype="bfloat16"), optimizer=optimizer),
            adversarial_loss=Hinge(),
            start=50_000,
        ),
        train=Pipeline(
            source=Tfds("imagenet2012", split="train"),
            transforms=(Unlabelled(), RandomResizedCrop(256, 256, scale=(0.5, 1.0)), Flip()),
            workers=8,
        ),
        test=Pipeline(
            source=Tfds("imagenet2012", split="validation"),
            transforms=(Unlabelled(), ResizeShort(256), CenterCrop(256, 256)),
            workers=8,
        ),
        steps=250_000,
        batch_size=BATCH,
        test_batch_size=128,
        log_every=100,
        preview_every=5000,
        checkpoint_every=2000,
        mesh=MeshShape(replica=1, fsdp=-1),
        rule=Fsdp(),
    )
