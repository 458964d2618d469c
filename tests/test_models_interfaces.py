"""What objectives ask of nets: which kind each net is, and what is said of one that is not."""

from typing import Any

import flax.linen as nn
import pytest

from jaxgen.errors import UserError
from jaxgen.models.cnn import Cnn
from jaxgen.models.dcgan import DcganDiscriminator, DcganGenerator
from jaxgen.models.deeplab import DeepLabV3Plus
from jaxgen.models.dit import DiT
from jaxgen.models.edm2 import Edm2UNet
from jaxgen.models.fcn import Fcn
from jaxgen.models.fcn_resnet import FcnResnet
from jaxgen.models.mlp import MlpDenoiser, MlpDiscriminator, MlpGenerator
from jaxgen.models.musegan import RollDiscriminator, RollGenerator
from jaxgen.models.r3gan import R3ganDiscriminator, R3ganGenerator
from jaxgen.models.resnet import ResNet
from jaxgen.models.sngan import SnganDiscriminator, SnganGenerator
from jaxgen.models.songunet import SongUNet
from jaxgen.models.stylegan2 import StyleGan2Generator
from jaxgen.models.stylegan2_discriminator import PlainStyleGan2Discriminator, StyleGan2Discriminator
from jaxgen.models.unet import Unet
from jaxgen.models.vgg import Vgg
from jaxgen.nn.interfaces import (
    Classifier,
    Denoiser,
    Discriminator,
    Generator,
    Segmenter,
    StyleGenerator,
    require,
)

KINDS: dict[Any, tuple[nn.Module, ...]] = {
    Classifier: (Cnn(), ResNet(), Vgg()),
    Segmenter: (DeepLabV3Plus(), Fcn(), FcnResnet(), Unet()),
    Denoiser: (DiT(), Edm2UNet(), MlpDenoiser(), SongUNet()),
    Generator: (
        DcganGenerator(),
        MlpGenerator(),
        R3ganGenerator(),
        RollGenerator(),
        SnganGenerator(),
        StyleGan2Generator(),
    ),
    StyleGenerator: (StyleGan2Generator(),),
    Discriminator: (
        DcganDiscriminator(),
        MlpDiscriminator(),
        PlainStyleGan2Discriminator(),
        R3ganDiscriminator(),
        RollDiscriminator(),
        SnganDiscriminator(),
        StyleGan2Discriminator(),
    ),
}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_net_is_of_its_kind(kind: Any) -> None:
    for net in KINDS[kind]:
        assert isinstance(net, kind), net
        require(net, kind, "net")


class NoTrain(nn.Module):
    """A denoiser but for one argument."""

    classes: int = 0

    def __call__(self, x: Any, noise: Any, condition: Any) -> Any:
        return x


@pytest.mark.parametrize(
    ("net", "kind", "cause"),
    [
        (nn.Dense(3), Classifier, r"Dense is no Classifier: .*it has no `classes`"),
        (MlpDenoiser(), Generator, r"it has no `latent`"),
        (MlpGenerator(), StyleGenerator, r"it has no `styles`; it has no `synthesize`"),
        (MlpDenoiser(), Discriminator, r"`__call__` does not take \(image, condition, train\)"),
        (MlpDiscriminator(), Denoiser, r"`__call__` does not take \(x, noise, condition, train\)"),
        (Cnn(), Denoiser, r"`__call__` does not take"),
        (Unet(), Discriminator, r"`__call__` does not take"),
        (NoTrain(), Denoiser, r"NoTrain is no Denoiser: `__call__` does not take \(x, noise, condition, train\)"),
    ],
)
def test_a_net_of_another_kind_is_refused_in_a_line(net: nn.Module, kind: Any, cause: str) -> None:
    with pytest.raises(UserError, match=cause) as error:
        require(net, kind, "generator")
    assert str(error.value).startswith("objective.generator.module: ")
    assert "\n" not in str(error.value)
