"""The autoencoder, its discriminator, and how both learn."""

import dataclasses
import functools
import pathlib
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden.autoencoder_state import GROUPS, SETUPS, SIDES, WIDTHS, value
from golden.weights import array, image
from PIL import Image
from safetensors.numpy import save_file
from small import autoencoder

from jaxgen import tree
from jaxgen.adversarial.adaptive_weight import adaptive_weight
from jaxgen.adversarial.losses import Hinge
from jaxgen.data import render_emoji
from jaxgen.errors import UserError
from jaxgen.learner import Learner
from jaxgen.metrics.reconstruction import psnr
from jaxgen.models.autoencoder_kl import AUTOENCODER_KL, AutoencoderKl, Level
from jaxgen.models.patchgan import Batch, Instance, PatchGan
from jaxgen.nn.interfaces import Autoencoder, Discriminator, require
from jaxgen.objectives.autoencoder import Autoencoding
from jaxgen.objectives.moments import drawn, kl, measured
from jaxgen.objectives.perceptual import Perceptual
from jaxgen.parallel.rules import shardings
from jaxgen.weights.autoencoder_kl import SdAutoencoder
from jaxgen.weights.shipped import EMOJI_F4, EmojiF4, write_emoji_f4

# Emoji of "test" and "held_out", of which the shipped weights have seen none.
UNSEEN = ("🇧🇷", "🛁", "📁", "🦞", "🥷🏾", "🦜", "✊🏿", "🎅🏻", "👨🏿‍🎨", "🧘🏼‍♂️", "👴🏼", "👰🏿", "👩🏼‍🔬", "🧚🏼‍♀️")

GOLDEN = pathlib.Path(__file__).parent / "golden"


def relative(a, b) -> float:
    return float(np.abs(np.asarray(a) - b).max() / np.abs(b).max())


def small(channels: int = 2, *, mixed: bool = True) -> AutoencoderKl:
    return AutoencoderKl(
        channels=channels,
        encoder=tuple(Level(width, 2) for width in WIDTHS),
        decoder=tuple(Level(width, 3) for width in WIDTHS),
        groups=GROUPS,
        mixed=mixed,
    )


def shapes(net: nn.Module, side: int = 16):
    return jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.zeros((1, side, side, 3)), train=False))


# --- the nets, against their references -------------------------------------------------------------------------------


def compvis(name: str) -> str:
    """Return the name that an entry of diffusers' state_dict has in the file of a whole model."""
    top = len(WIDTHS) - 1
    half, *parts = name.split(".")
    match parts:
        case "down_blocks", i, "resnets", j, *rest:
            parts = ["down", i, "block", j, *rest]
        case "down_blocks", i, "downsamplers", "0", *rest:
            parts = ["down", i, "downsample", *rest]
        case "up_blocks", i, "resnets", j, *rest:
            parts = ["up", str(top - int(i)), "block", j, *rest]
        case "up_blocks", i, "upsamplers", "0", *rest:
            parts = ["up", str(top - int(i)), "upsample", *rest]
        case "mid_block", "resnets", i, *rest:
            parts = ["mid", f"block_{int(i) + 1}", *rest]
        case "mid_block", "attentions", "0", kind, *rest:
            new = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out": "proj_out"}
            parts = ["mid", "attn_1", new[kind], rest[-1]]
        case "conv_norm_out", *rest:
            parts = ["norm_out", *rest]
    parts = ["nin_shortcut" if part == "conv_shortcut" else part for part in parts]
    return "first_stage_model." + ".".join([half, *parts])


def older(name: str) -> str:
    new = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    return functools.reduce(lambda name, pair: name.replace(*pair), new.items(), name)


@pytest.mark.parametrize(
    ("setup", "form"), [("sd1", "diffusers"), ("sd1", "older"), ("sd1", "compvis"), ("sd3", "diffusers")]
)
def test_published_weights_give_what_diffusers_gives(setup, form, tmp_path):
    golden, net = np.load(GOLDEN / "autoencoder_kl.npz"), small(**SETUPS[setup])
    stored = {}
    for entry in golden[f"{setup}_names"]:
        name, *shape = entry.split(" ")
        array_ = value(name, tuple(map(int, shape)))
        if form == "compvis" and ".attentions." in name and array_.ndim == 2:
            array_ = array_[..., None, None]  # 1×1 convolutions there
        stored[{"diffusers": str, "older": older, "compvis": compvis}[form](name)] = array_
    if form == "compvis":
        stored["model.diffusion_model.out.2.bias"] = np.zeros(4, np.float32)
    save_file(stored, tmp_path / "vae.safetensors")
    variables = SdAutoencoder(str(tmp_path / "vae.safetensors"), scale=0.5, shift=0.25).read(shapes(net))
    np.testing.assert_array_equal(variables["latent"]["mean"], np.full(net.channels, 0.25))
    np.testing.assert_array_equal(variables["latent"]["std"], np.full(net.channels, 2.0))
    if form == "older":
        return  # the same arrays under other names
    moments = jax.jit(lambda v, x: net.apply(v, x, train=False, method="encode"))(variables, image(*SIDES))
    latent = array("latent", (2, SIDES[0] // 4, SIDES[1] // 4, net.channels), 1.0)
    made = jax.jit(lambda v, x: net.apply(v, x, train=False, method="decode"))(variables, latent)
    assert relative(moments, golden[f"{setup}_moments"]) < 1e-5
    assert relative(made, golden[f"{setup}_image"]) < 1e-5


def test_a_file_without_the_weights_is_refused(tmp_path):
    net = small()
    with pytest.raises(UserError, match="there are no weights"):
        SdAutoencoder(str(tmp_path / "none.safetensors")).read(shapes(net))
    save_file({"encoder.conv_in.weight": np.zeros((8, 3, 3, 3), np.float32)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=r"has no decoder.mid_block.attentions.0.group_norm.bias, which is the net"):
        SdAutoencoder(str(tmp_path / "other.safetensors")).read(shapes(net))


def test_stable_diffusions_autoencoder_has_as_many_parameters_as_published():
    one, three = shapes(AutoencoderKl(), 32), shapes(AutoencoderKl(channels=16, mixed=False), 32)
    assert tree.count(one["params"]) == 83_653_863  # of the published file
    assert tree.count(three["params"]) == 83_819_683


@pytest.mark.parametrize("norm", [Batch(), Instance()], ids=["batch", "instance"])
def test_patchgan_gives_what_the_reference_gives(norm):
    golden = np.load(GOLDEN / "patchgan.npz")["batch" if norm == Batch() else "instance"]
    net = PatchGan(width=4, norm=norm)
    x = jnp.asarray(image(40, 32))
    variables = jax.eval_shape(lambda: net.init(jax.random.key(0), x, {}, train=False))
    names = {"kernel": "weight", "scale": "weight", "bias": "bias"}

    def filled(path: str, like):
        module, leaf = path.split("/")
        module = "conv4" if module == "score" else module
        shape = like.shape if len(like.shape) == 1 else tuple(like.shape[i] for i in (3, 2, 0, 1))
        made = value(f"{module}.{names[leaf]}", shape)
        return made if made.ndim == 1 else made.transpose(2, 3, 1, 0)

    params = tree.map_with_path(filled, variables["params"])
    stats = {k: jax.tree.map(lambda s: jnp.zeros(s.shape), v) for k, v in variables.items() if k == "batch_stats"}
    logits, _ = net.apply({"params": params, **stats}, x, {}, train=True, mutable=["batch_stats"])
    assert relative(logits, golden) < 1e-4


def test_a_patch_of_three_halvings_is_70_pixels_wide():
    net = PatchGan(width=1, norm=Nothing())  # a norm would let each cell see all others
    x = jnp.zeros((1, 128, 24, 1))
    like = jax.eval_shape(lambda: net.init(jax.random.key(0), x, {}, train=False))
    ones = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), like)
    slope = jax.jit(jax.grad(lambda x: net.apply(ones, x, {}, train=False)[0, 7, 0]))(x)
    assert int((slope[0, :, 12, 0] != 0).sum()) == 70


@dataclasses.dataclass(frozen=True)
class Nothing:
    def biased(self) -> bool:
        return False

    def __call__(self, x, *, train, dtype, name):
        return x


def test_an_image_too_small_for_a_patch_is_refused():
    with pytest.raises(UserError, match="3 halvings need images of 24×24 at least, not 16×24"):
        PatchGan().init(jax.random.key(0), jnp.zeros((1, 16, 24, 3)), {}, train=False)


def test_nets_are_what_the_interfaces_ask_for():
    require(small(), Autoencoder, "net")
    require(PatchGan(), Discriminator, "discriminator")
    assert AutoencoderKl().factor == 8
    assert AutoencoderKl(patch=2).factor == 16


def test_patches_are_squares_of_neighbouring_pixels():
    levels = (Level(48, 0),)
    net = AutoencoderKl(channels=2, encoder=levels, decoder=levels, patch=4, attention=False, groups=1)
    x = jnp.asarray(image(8, 12))
    variables = jax.tree.map(lambda like: jnp.zeros(like.shape), shapes(net))
    encoder, decoder = variables["params"]["encoder"], variables["params"]["decoder"]
    encoder["in"]["kernel"] = encoder["in"]["kernel"].at[1, 1].set(jnp.eye(48))
    decoder["out"]["bias"] = jnp.arange(48.0)

    def first(module: nn.Module, method: str) -> bool:
        return module.name == "in" and module.path[0] == "encoder"

    made, kept = net.apply(variables, x, train=False, capture_intermediates=first, mutable=["intermediates"])
    (cells,) = jax.tree.leaves(kept)
    np.testing.assert_array_equal(cells[1, 1, 2], x[1, 4:, 8:].ravel())
    np.testing.assert_array_equal(made[1, 4:, 8:].ravel(), jnp.arange(48.0))


def test_sides_that_the_factor_does_not_divide_and_unequal_levels_are_refused():
    with pytest.raises(UserError, match="18×16 does not divide into the 4×4 pixels"):
        jax.eval_shape(lambda: small().init(jax.random.key(0), jnp.zeros((1, 18, 16, 3)), train=False))
    with pytest.raises(UserError, match="the encoder has 3 levels and the decoder 1"):
        jax.eval_shape(
            lambda: small().clone(decoder=(Level(8),)).init(jax.random.key(0), jnp.zeros((1, 16, 16, 3)), train=False)
        )


def test_devices_can_share_the_residual_blocks():
    mesh = jax.make_mesh((2,), ("tensor",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:2])
    split = dict(tree.leaves(shardings(AUTOENCODER_KL, shapes(small())["params"], mesh)))
    assert split["encoder/down1_0/conv0/kernel"].spec == jax.sharding.PartitionSpec(None, None, None, "tensor")
    assert split["decoder/middle0/conv1/kernel"].spec == jax.sharding.PartitionSpec(None, None, "tensor", None)
    assert split["encoder/down1/kernel"].spec == jax.sharding.PartitionSpec()


# --- moments ----------------------------------------------------------------------------------------------------------


def test_the_divergence_of_a_standard_normal_is_0_and_else_its_closed_form():
    assert float(kl(jnp.zeros((1, 2, 3, 4)))[0]) == 0.0
    mean, variance = 0.7, 0.3
    moments = jnp.stack([jnp.full((1, 2, 3), mean), jnp.full((1, 2, 3), np.log(variance))], -1)
    expected = 6 * 0.5 * (mean**2 + variance - 1 - np.log(variance))
    np.testing.assert_allclose(kl(moments), expected, rtol=1e-6)


def test_drawn_latents_have_their_moments():
    moments = jnp.concatenate([jnp.full((1, 64, 64, 1), 2.0), jnp.full((1, 64, 64, 1), np.log(0.25))], -1)
    latent = drawn(moments, jax.random.normal(jax.random.key(0), (*moments.shape[:-1], moments.shape[-1] // 2)))
    assert abs(float(latent.mean()) - 2.0) < 0.03
    assert abs(float(latent.std()) - 0.5) < 0.02


def test_the_running_mean_and_deviation_are_those_of_all_batches():
    rng = np.random.default_rng(0)
    means = [rng.normal(i, 1 + i, (4, 5, 6, 2)).astype(np.float32) for i in range(3)]
    latent = {"mean": jnp.zeros(2), "std": jnp.ones(2)}
    for i, mean in enumerate(means):
        moments = jnp.concatenate([mean, np.full_like(mean, np.log(0.09))], -1)
        latent = measured(latent, moments, jnp.int32(i))
    every = np.concatenate(means)
    np.testing.assert_allclose(latent["mean"], every.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(latent["std"], np.sqrt(every.var((0, 1, 2)) + 0.09), rtol=1e-5)


# --- the objective ----------------------------------------------------------------------------------------------------


def objective(**changes) -> Autoencoding:
    return dataclasses.replace(autoencoder().objective, total_steps=12, **changes)


def first(made: Autoencoding, side: int = 8):
    spec = {"image": jax.ShapeDtypeStruct((4, side, side, 1), jnp.uint8)}
    return made.init(jax.random.key(0), spec), {"image": jnp.asarray(127.5 * (1 + image(side, side, 1, 4)), jnp.uint8)}


@pytest.mark.slow
def test_the_discriminator_begins_at_its_step_and_then_learns():
    made = objective(start=2, adversarial_loss=Hinge())
    state, batch = first(made)
    step = jax.jit(made.step)
    for i in range(4):
        after, scalars = step(state, batch, jax.random.key(i))
        moved = [
            path
            for (path, a), (_, b) in zip(
                *(tree.leaves(s.nets["discriminator"].params) for s in (state, after)), strict=True
            )
            if not np.array_equal(a, b)
        ]
        assert bool(moved) == (i >= 2)
        assert (float(scalars["adaptive_weight"]) > 0) == (i >= 2)
        assert (float(scalars["discriminator_loss"]) > 0) == (i >= 2)
        counts = [int(x) for path, x in tree.leaves(after.nets["discriminator"].opt) if path.endswith("count")]
        assert set(counts) == {max(0, i - 1)}  # one step of the optimizer for one step of the training
        state = after


@functools.cache
def stepped():
    """Return an objective without a discriminator, its first state, a batch, the state after it, and scalars."""
    made = objective(discriminator=None, l1=0.5, l2=2.0, kl=0.01)
    state, batch = first(made)
    return made, state, batch, *jax.jit(made.step)(state, batch, jax.random.key(0))


def test_without_a_discriminator_the_other_terms_make_the_loss():
    _, state, _, _, scalars = stepped()
    expected = 0.5 * scalars["l1"] + 2.0 * scalars["l2"] + 0.01 * scalars["kl"] / 64
    np.testing.assert_allclose(scalars["loss"], expected, rtol=1e-6)
    assert "adaptive_weight" not in scalars
    assert set(state.nets) == {"net"}


def test_ten_times_the_verdict_gets_a_tenth_of_the_weight():
    kernel = jnp.asarray(array("k", (3, 2), 1.0))
    x = jnp.asarray(array("x", (4, 3), 1.0))

    def weight(factor: float) -> float:
        return float(
            adaptive_weight(
                lambda k: x @ k, kernel, lambda y: jnp.abs(y - 1).mean(), lambda y: -factor * jnp.sin(y).mean()
            )
        )

    assert weight(10.0) == pytest.approx(weight(1.0) / 10, rel=1e-2)
    assert weight(0.0) <= 1e4


def test_the_weight_is_the_ratio_of_norms_and_passes_no_gradient():
    x, kernel = jnp.ones((1, 1)), jnp.array([[3.0]])
    call = functools.partial(adaptive_weight, lambda k: x @ k)
    assert float(call(kernel, lambda y: (y**2).mean(), lambda y: 2 * y.mean())) == pytest.approx(3.0, rel=1e-3)
    slope = jax.grad(lambda k: call(k, lambda y: (y**2).mean(), lambda y: 2 * y.mean()))(kernel)
    np.testing.assert_array_equal(slope, np.zeros((1, 1)))


def test_the_latents_statistics_are_measured_in_training_and_stay_with_the_net():
    made, state, batch, after, _ = stepped()
    net = state.nets["net"]
    encode = jax.jit(lambda v, x: made.net.module.apply(v, x, train=False, method="encode"))
    moments = encode({"params": net.params, **net.stats}, batch["image"] / 127.5 - 1)
    mean, log_variance = np.split(np.asarray(moments), 2, -1)
    found = after.nets["net"].stats["latent"]
    np.testing.assert_allclose(found["mean"], mean.mean((0, 1, 2)), rtol=1e-4, atol=1e-5)
    std = np.sqrt(mean.var((0, 1, 2)) + np.exp(log_variance).mean((0, 1, 2)))
    np.testing.assert_allclose(found["std"], std, rtol=1e-4)


def test_predictions_have_the_size_of_their_image():
    made, state, *_ = stepped()
    x = image(9, 12, 1, 1)
    seen = []

    def forward(image):
        seen.append(image.shape)
        return made.forward(state, jnp.asarray(image))

    assert made.any_size()
    found = made.predict(forward, x)
    assert seen == [(1, 10, 12, 1)]
    assert found.pixels.shape == x.shape
    assert np.abs(found.pixels).max() <= 1


def test_evaluation_names_psnr_ssim_and_the_errors():
    made = objective(discriminator=None)
    state, batch = first(made, side=12)
    sums = jax.jit(made.evaluate)(state, batch | {"valid": jnp.array([True, True, True, False])}, jax.random.key(0))
    assert set(sums) == {"psnr", "ssim", "l1", "kl"}
    assert int(sums["psnr"].count) == 3


class Eye(nn.Module):
    @nn.compact
    def __call__(self, image, *, train: bool):
        x = nn.relu(nn.Conv(4, (3, 3), name="conv0")(image))
        return nn.Conv(4, (3, 3), name="conv1")(x)


EYE = Perceptual(net=Learner(module=Eye()), layers="conv")


def test_a_net_compares_images_by_its_maps():
    x = jnp.asarray(image(8, 8, 1, 2))
    variables = Eye().init(jax.random.key(0), x, train=False)
    distance = jax.jit(EYE.distance)
    np.testing.assert_allclose(distance(variables, x, x), 0.0, atol=1e-12)
    np.testing.assert_allclose(distance(variables, x, -x), distance(variables, -x, x), rtol=1e-5)
    assert (distance(variables, x, -x) > 0).all()
    # By hand, in the maps of the first layer alone: cells of unit length.
    first = dataclasses.replace(EYE, layers="conv0$")
    kernel, bias = variables["params"]["conv0"]["kernel"], variables["params"]["conv0"]["bias"]
    maps = [np.asarray(nn.Conv(4, (3, 3)).apply({"params": {"kernel": kernel, "bias": bias}}, y)) for y in (x, -x)]
    unit = [m / np.linalg.norm(m, axis=-1, keepdims=True) for m in maps]
    expected = ((unit[0] - unit[1]) ** 2).sum(-1).mean((1, 2))
    np.testing.assert_allclose(first.distance(variables, x, -x), expected, rtol=1e-4)


@pytest.mark.slow
def test_a_net_that_compares_is_frozen_and_counts_in_the_loss():
    made = objective(discriminator=None, perceptual=EYE, l1=0.0)
    state, batch = first(made)
    made.check({"image": jax.ShapeDtypeStruct((4, 8, 8, 1), jnp.uint8)}, ())
    after, scalars = jax.jit(made.step)(state, batch, jax.random.key(0))
    assert tree.digest(after.nets["perceptual"]) == tree.digest(state.nets["perceptual"])
    np.testing.assert_allclose(scalars["loss"], scalars["perceptual"] + 1e-6 * scalars["kl"] / 64, rtol=1e-5)
    sums = made.evaluate(state, batch | {"valid": jnp.ones(4, bool)}, jax.random.key(0))
    assert "perceptual" in sums


REFUSED = [
    ({}, (9, 8, 1), "maps 2×2 pixels to one place of a latent, which does not divide images of 9×8×1"),
    ({}, (8, 8, 3), "makes images of 8×8×1, but the data has 8×8×3; set --objective.net.module.image-channels 3"),
    ({"start": 12}, (8, 8, 1), "start is 12, but the training has 12 steps"),
    ({"last_kernel": "nowhere"}, (8, 8, 1), "last-kernel 'nowhere' finds 0 parameters"),
    ({"net": Learner(module=Eye())}, (8, 8, 1), "Eye is no Autoencoder"),
    ({"discriminator": Learner(module=PatchGan())}, (8, 8, 1), "discriminator.optimizer is None"),
    ({"perceptual": Perceptual(net=Learner(module=Eye()), layers="nowhere")}, (8, 8, 1), "'nowhere' finds no map"),
]


@pytest.mark.parametrize(("changes", "shape", "message"), REFUSED, ids=[message[:24] for *_, message in REFUSED])
def test_what_does_not_fit_is_refused(changes, shape, message):
    with pytest.raises(UserError, match=re.escape(message)):
        objective(**changes).check({"image": jax.ShapeDtypeStruct((4, *shape), jnp.uint8)}, ())


def test_numbers_out_of_range_and_a_learning_eye_are_refused():
    with pytest.raises(UserError, match=r"Autoencoding.kl is -1.0; it must be 0 or more"):
        objective(kl=-1.0)
    with pytest.raises(UserError, match="above 0 where neither"):
        objective(l1=0.0)
    with pytest.raises(UserError, match="must stand still"):
        Perceptual(net=Learner(module=Eye(), optimizer=autoencoder().objective.net.optimizer), layers="conv")


# --- the weights that are shipped -------------------------------------------------------------------------------------


def pictures(*texts: str) -> np.ndarray:
    """Draw emoji of 32×32 on white, as `Emoji` does; f32 in [-1, 1]."""
    drawn = []
    for text in texts:
        picture = render_emoji.draw(text, render_emoji.SIDE)
        assert picture is not None
        paper = Image.new("RGBA", (32, 32), "white")
        paper.alpha_composite(render_emoji.reduced(picture, 32))
        drawn.append(np.asarray(paper.convert("RGB")))
    return np.stack(drawn).astype(np.float32) / 127.5 - 1


def test_emoji_come_back_and_their_latents_are_of_unit_size():
    variables = EmojiF4().read(shapes(EMOJI_F4))

    @jax.jit
    def both(variables, x):
        moments = EMOJI_F4.apply(variables, x, train=False, method="encode")
        noise = jax.random.normal(jax.random.key(0), (*moments.shape[:-1], moments.shape[-1] // 2))
        return drawn(moments, noise), EMOJI_F4.apply(variables, x, train=False)

    x = jnp.asarray(pictures(*UNSEEN))
    latent, back = both(variables, x)
    assert float(psnr(x, back).mean()) > 28
    assert latent.shape == (len(UNSEEN), 8, 8, 8)
    scaled = (np.asarray(latent) - variables["latent"]["mean"]) / variables["latent"]["std"]
    assert np.abs(scaled.mean()) < 0.2
    assert 0.8 < scaled.std() < 1.2


def test_the_weights_are_of_one_net_alone(tmp_path):
    with pytest.raises(UserError, match="does not fit the net"):
        EmojiF4().read(shapes(small()))
    with pytest.raises(UserError, match="not the variables of the net of configs/autoencoder/emoji_f4"):
        write_emoji_f4(jax.tree.map(lambda like: np.zeros(like.shape), shapes(small())), tmp_path / "w.safetensors")


def test_what_is_written_is_what_is_read(tmp_path, monkeypatch):
    variables = EmojiF4().read(shapes(EMOJI_F4))
    write_emoji_f4(variables, tmp_path / "w.safetensors")
    assert (tmp_path / "w.safetensors").stat().st_size <= 2e6
    monkeypatch.setattr("jaxgen.weights.shipped.WEIGHTS", tmp_path / "w.safetensors")
    assert tree.digest(EmojiF4().read(shapes(EMOJI_F4))) == tree.digest(variables)
