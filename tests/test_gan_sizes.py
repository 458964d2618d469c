"""GANs of images that are no squares of 4·2^n pixels: nets, game and samples, and what is refused."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import gan

from jaxgen.adversarial.ada import Ada
from jaxgen.adversarial.augmentation import NoAugmentation
from jaxgen.adversarial.diffaugment import DiffAugment
from jaxgen.adversarial.generator import output_shape
from jaxgen.errors import UserError
from jaxgen.learner import Learner
from jaxgen.models.dcgan import DcganDiscriminator, DcganGenerator, NoNorm
from jaxgen.models.mlp import MlpDiscriminator, MlpGenerator
from jaxgen.models.r3gan import R3ganDiscriminator, R3ganGenerator
from jaxgen.models.sngan import SnganDiscriminator, SnganGenerator
from jaxgen.models.stylegan2 import StyleGan2Generator
from jaxgen.models.stylegan2_discriminator import StyleGan2Discriminator
from jaxgen.nn.lowest import lowest_map

STYLE = {"base": 64, "widest": 8, "mapping_layers": 1}
R3 = {"widths": (8, 8), "blocks": 1, "group_width": 4, "embedding": 4}
# Generator and discriminator of images of 12×8 pixels, and the generator of 8×8.
NETS = {
    "dcgan": (
        DcganGenerator(latent=4, channels=1, widths=(8,), lowest=(6, 4)),
        DcganDiscriminator(widths=(8,), norm=NoNorm()),
    ),
    "r3gan": (R3ganGenerator(latent=4, channels=1, lowest=(6, 4), **R3), R3ganDiscriminator(**R3)),
    "sngan": (
        SnganGenerator(latent=4, channels=1, width=4, stages=1, lowest=(6, 4)),
        SnganDiscriminator(width=4, blocks=2, halvings=1),
    ),
    "stylegan2": (
        StyleGan2Generator(latent=4, channels=1, side=12, image_width=8, style_size=8, **STYLE),
        StyleGan2Discriminator(**STYLE),
    ),
}


def game(generator, discriminator, augmentation=NoAugmentation()):  # noqa: B008
    made = gan().objective
    return dataclasses.replace(
        made,
        generator=dataclasses.replace(made.generator, module=generator),
        discriminator=Learner(module=discriminator, optimizer=made.discriminator.optimizer),
        penalties=(),
        augmentation=augmentation,
    )


def spec(*shape):
    return {"image": jax.ShapeDtypeStruct((8, *shape), jnp.uint8)}


@pytest.mark.parametrize("name", NETS)
def test_generators_make_oblong_images_and_discriminators_judge_them(name):
    generator, discriminator = NETS[name]
    assert output_shape(generator) == (12, 8, 1)
    objective = game(generator, discriminator)
    objective.check(spec(12, 8, 1), ())
    for refused in ((8, 12, 1), (12, 16, 1)):
        with pytest.raises(UserError, match="×".join(map(str, refused[:2]))):
            objective.check(spec(*refused), ())


@pytest.mark.parametrize("augmentation", [DiffAugment(), Ada(hue=0.0)], ids=["diffaugment", "ada"])
def test_a_game_of_oblong_images_is_played(augmentation):
    objective = game(*NETS["dcgan"], augmentation)
    objective.check(spec(12, 8, 1), ())
    state = jax.eval_shape(functools.partial(objective.init, spec=spec(12, 8, 1)), jax.random.key(0))
    moved, scalars = jax.eval_shape(objective.step, state, spec(12, 8, 1), jax.random.key(2))
    assert jax.tree.map(jnp.shape, moved) == jax.tree.map(jnp.shape, state)
    assert scalars["loss"].shape == ()


@pytest.mark.parametrize("name", ["dcgan", pytest.param("stylegan2", marks=pytest.mark.slow)])
def test_both_sides_of_an_oblong_image_come_from_the_net(name):
    # Each row and each column differs from its neighbours: nothing is repeated or left empty.
    generator, _ = NETS[name]
    keys = jax.random.split(jax.random.key(3), 2)
    z = jax.random.normal(jax.random.key(1), (2, 4))
    made, _ = jax.jit(lambda: generator.init_with_output(jax.random.key(0), z, {}, keys, train=False))()
    made = np.asarray(made)
    assert made.shape == (2, 12, 8, 1)
    assert np.isfinite(made).all()
    assert (made.std((1, 3)) > 0).all()
    assert (made.std((2, 3)) > 0).all()


def test_how_far_an_image_is_halved():
    assert lowest_map(64, 64, "net") == (4, (4, 4))
    assert lowest_map(28, 28, "net") == (2, (7, 7))
    assert lowest_map(96, 64, "net") == (4, (6, 4))
    assert lowest_map(5, 7, "net") == (0, (5, 7))
    with pytest.raises(UserError, match=r"net: images of 100×75 cannot be halved.* to 96×80 for example"):
        lowest_map(100, 75, "net")
    with pytest.raises(UserError, match="to 4×4 for example"):
        lowest_map(2, 1, "net")


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((28, 28, 1), r"images of 12×8×1, but the data is images of 28×28×1; .*\(lowest=\(7, 7\) and \+1 doublings\)"),
        ((12, 16, 1), r"change its fields \(lowest=\(6, 8\)\), or"),
    ],
)
def test_the_field_that_fits_the_data_is_named(shape, said):
    widths = (8,) * lowest_map(*shape[:2], "net")[0]
    with pytest.raises(UserError, match=said):
        game(NETS["dcgan"][0], DcganDiscriminator(widths=widths, norm=NoNorm())).check(spec(*shape), ())


@pytest.mark.parametrize(("numbers", "panels"), [(1, 1), (2, 3), (3, 1)])
def test_points_of_any_dimension_are_shown(numbers, panels):
    # The discriminator's opinion is drawn over the plane, where there is one.
    objective = game(MlpGenerator(latent=2, shape=(numbers,), width=4), MlpDiscriminator(width=4))
    points = {"image": jax.ShapeDtypeStruct((8, numbers), jnp.float32)}
    state = jax.eval_shape(functools.partial(objective.init, spec=points), jax.random.key(0))
    rows = points | {"index": jax.ShapeDtypeStruct((8,), jnp.int32)}
    shown = jax.eval_shape(objective.preview, state, rows, jax.random.key(1))
    assert shown["samples"].images.shape == (1, panels, 192, 192, 3)
