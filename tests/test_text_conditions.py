"""Texts as conditions, and latents in place of pixels: what an objective makes of them, with the smallest nets."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.diffusion.guidance import Autoguidance, ClassifierFree, Unguided
from jaxgen.diffusion.noise_distributions import LogNormal
from jaxgen.diffusion.path import Edm
from jaxgen.diffusion.predictions import EdmPreconditioning
from jaxgen.diffusion.sampling import Sampling
from jaxgen.diffusion.sampling_schedules import Rho
from jaxgen.diffusion.solvers import Euler
from jaxgen.errors import UserError
from jaxgen.learner import Learner
from jaxgen.nn.interfaces import Encoded
from jaxgen.objectives import text as texts
from jaxgen.objectives.diffusion import Diffusion
from jaxgen.objectives.latent_space import LatentSpace
from jaxgen.objectives.text import Text
from jaxgen.optim.optimizer import Optimizer
from jaxgen.optim.schedules import Constant

OPTIMIZER = Optimizer(learning_rate=Constant(value=1e-2))


class Words(nn.Module):
    """A text encoder: an embedding of each token, and their mean."""

    vocabulary: int = 10
    width: int = 3

    @nn.compact
    def __call__(self, tokens, *, train: bool):
        text = nn.Embed(self.vocabulary, self.width)(tokens)
        return Encoded(text=text, pooled=text.mean(1), mask=tokens > 0)


class Reader(nn.Module):
    """A denoiser that adds what a text says to each pixel."""

    classes: int = 0

    @nn.compact
    def __call__(self, x, noise, condition, *, train: bool):
        seen = nn.Dense(x.shape[-1])(condition["pooled"])
        level = nn.Dense(x.shape[-1])(noise[:, None])
        return x + (seen + level)[:, None, None]


class Halves(nn.Module):
    """An autoencoder that takes the mean of 2×2 pixels, and repeats it."""

    channels: int = 3
    factor: int = 2

    def setup(self):
        self.scale = self.param("scale", nn.initializers.ones, ())
        self.mean = self.variable("latent", "mean", lambda: jnp.full((3,), 0.25))
        self.std = self.variable("latent", "std", lambda: jnp.full((3,), 0.5))

    def encode(self, image, *, train: bool):
        mean = nn.avg_pool(image, (2, 2), (2, 2)) * self.scale
        return jnp.concatenate([mean, jnp.full_like(mean, -2.0)], -1)

    def decode(self, latent, *, train: bool):
        return latent.repeat(2, 1).repeat(2, 2) / self.scale

    def __call__(self, image, *, train: bool):
        return self.decode(self.encode(image, train=train)[..., :3], train=train)


SPEC = {
    "image": jax.ShapeDtypeStruct((6, 8, 8, 3), np.uint8),
    "tokens": jax.ShapeDtypeStruct((6, 4), np.int32),
}
TOKENS = jnp.array([[1, 5, 2, 0], [1, 6, 7, 2], [1, 2, 0, 0], [1, 8, 2, 0], [1, 9, 2, 0], [1, 4, 2, 0]], jnp.int32)
IMAGES = jnp.array(np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3)), jnp.uint8)
BATCH = {"image": IMAGES, "tokens": TOKENS}
PLAIN = Diffusion(
    net=Learner(module=Reader(), optimizer=OPTIMIZER),
    path=Edm(),
    prediction=EdmPreconditioning(sigma_data=0.5),
    noise_distribution=LogNormal(),
    sampling=Sampling(solver=Euler(), schedule=Rho(steps=3)),
    text=(Text(encoder=Learner(module=Words(), optimizer=OPTIMIZER)),),
    condition_dropout=0.5,
    side=2,
)
LATENT = dataclasses.replace(PLAIN, latent=LatentSpace(autoencoder=Learner(module=Halves())))
FROZEN = dataclasses.replace(PLAIN, text=(Text(encoder=Learner(module=Words())),))


def started(objective: Diffusion):
    objective.check(SPEC, ())
    return objective.init(jax.random.key(0), SPEC)


def drawn(objective: Diffusion, state, asked, guide=None):
    keys = jax.random.split(jax.random.key(1), len(asked["tokens"]))
    return objective.generate(state, objective.noise(keys, (8, 8, 3)), keys, asked, guide)


def test_texts_are_dropped_whole_and_by_one_probability():
    text = Text(encoder=Learner(module=Words()))
    drop = jnp.array([True, False] * 3)
    rows = texts.dropped((text,), BATCH, drop, jax.random.key(0))["tokens"]
    assert rows.tolist() == [[1, 2, 0, 0] if i % 2 == 0 else TOKENS[i].tolist() for i in range(6)]
    clip = Text(encoder=Learner(module=Words()), empty=(8, 9), padding=9, dropout=1.0)
    assert texts.dropped((clip,), BATCH, ~drop, jax.random.key(0))["tokens"].tolist() == [[8, 9, 9, 9]] * 6


def test_encoders_drop_texts_independently():
    pair = tuple(Text(encoder=Learner(module=Words()), tokens=name, dropout=0.5) for name in ("tokens", "others"))
    many = jnp.tile(TOKENS[1:2], (4000, 1))
    batch = {"tokens": many, "others": many}
    rows = texts.dropped(pair, batch, jnp.zeros(4000, bool), jax.random.key(0))
    one, other = ((rows[name][:, 1] == 2) for name in ("tokens", "others"))
    shares = [float(x.mean()) for x in (one, other, one & other)]
    np.testing.assert_allclose(shares, [0.5, 0.5, 0.25], atol=0.03)


def test_the_null_is_no_text_or_the_negative_one():
    state = started(PLAIN)
    wanted, null = texts.encode(PLAIN.text, state.nets, {"tokens": TOKENS})
    np.testing.assert_array_equal(null["text"][0], wanted["text"][2])  # row 2 asks for nothing
    negative = {"tokens": TOKENS, "negative_tokens": TOKENS[::-1]}
    np.testing.assert_array_equal(texts.encode(PLAIN.text, state.nets, negative)[1]["text"], wanted["text"][::-1])


def test_a_share_lies_between_two_texts():
    state = started(PLAIN)
    share = jnp.array([0.0, 1.0, 0.5, 0.0, 0.0, 0.0])
    asked = {"tokens": TOKENS, "tokens_to": TOKENS[::-1], "share": share}
    between = texts.encode(PLAIN.text, state.nets, asked)[0]["pooled"]
    ends = texts.encode(PLAIN.text, state.nets, {"tokens": TOKENS})[0]["pooled"]
    np.testing.assert_array_equal(between[0], ends[0])
    np.testing.assert_array_equal(between[1], ends[4])
    np.testing.assert_allclose(between[2], (ends[2] + ends[3]) / 2, rtol=1e-6)


@pytest.mark.parametrize(("joins", "shape"), [("tokens", (6, 8, 5)), ("channels", (6, 4, 8))])
def test_two_encoders_join(joins, shape):
    pair = (
        Text(encoder=Learner(module=Words())),
        Text(encoder=Learner(module=Words(width=5)), joins=joins),
    )
    objective = dataclasses.replace(PLAIN, text=pair)
    state = started(objective)
    assert set(state.nets) == {"net", "text_1", "text_2"}
    made, _ = texts.encode(pair, state.nets, {"tokens": TOKENS})
    assert (made["text"].shape, made["pooled"].shape) == (shape, (6, 8))
    assert made["text_mask"].shape == shape[:2]
    np.testing.assert_array_equal(made["text"][:, :4, 3:5] != 0, joins == "channels")


@pytest.mark.parametrize("objective", [PLAIN, LATENT], ids=["pixels", "latents"])
def test_permuted_captions_permute_samples(objective):
    state = started(objective)
    order = jnp.array([1, 0, 3, 2, 5, 4])
    samples = jax.vmap(lambda n, k, t: objective.generate(state, n[None], k[None], {"tokens": t[None]})[0])
    keys = jnp.broadcast_to(jax.random.split(jax.random.key(1), 1), (6,))
    noise = objective.noise(keys, (8, 8, 3))
    straight, permuted = samples(noise, keys, TOKENS), samples(noise, keys, TOKENS[order])
    assert straight.shape == (6, 8, 8, 3)
    np.testing.assert_array_equal(permuted, straight[order])
    assert np.abs(straight[0] - straight[1]).max() > 1e-4


def test_guidance_of_one_is_the_condition_alone():
    state = started(PLAIN)
    plain = drawn(PLAIN, state, {"tokens": TOKENS})
    guided = {scale: PLAIN.with_options({"guidance": ClassifierFree(scale=scale)}) for scale in (1.0, 3.0)}
    np.testing.assert_array_equal(drawn(guided[1.0], state, {"tokens": TOKENS}), plain)
    away = np.abs(drawn(guided[3.0], state, {"tokens": TOKENS}) - plain).max((1, 2, 3))
    assert away[2] < 1e-6  # it asks for no text, so that both estimates are one
    assert away[0] > 1e-4


def test_a_guiding_model_reads_with_its_own_encoder():
    state, other = started(PLAIN), PLAIN.init(jax.random.key(7), SPEC)
    objective = PLAIN.with_options({"guidance": Autoguidance(scale=0.0)})
    alone = PLAIN.with_options({"guidance": Unguided()})
    np.testing.assert_allclose(
        drawn(objective, state, {"tokens": TOKENS}, other), drawn(alone, other, {"tokens": TOKENS}), atol=1e-6
    )


def test_all_that_learns_learns_and_the_autoencoder_stands_still():
    state = started(LATENT)
    after, _ = jax.jit(LATENT.step)(state, BATCH, jax.random.key(3))
    moved = {
        name: any(map(lambda a, b: (a != b).any(), *map(jax.tree.leaves, (net.params, after.nets[name].params))))
        for name, net in state.nets.items()
    }
    assert moved == {"net": True, "text": True, "autoencoder": False}
    np.testing.assert_array_equal(after.nets["autoencoder"].stats["latent"]["std"], 0.5)


def test_latents_are_scaled_once_and_back():
    state = started(LATENT)
    means = LATENT.means(state, BATCH)
    pooled = nn.avg_pool(IMAGES / 127.5 - 1, (2, 2), (2, 2))
    np.testing.assert_allclose(means, (pooled - 0.25) / 0.5, atol=1e-6)
    np.testing.assert_allclose(LATENT.seen(state, means), pooled.repeat(2, 1).repeat(2, 2), atol=1e-6)
    # Drawn latents have the variance that the autoencoder says, as the denoiser sees it.
    many = {"image": jnp.tile(IMAGES[:1], (2000, 1, 1, 1)), "tokens": jnp.tile(TOKENS[:1], (2000, 1))}
    rows = LATENT.rows(many, jax.random.key(0), jax.random.key(1))
    params, stats = ({n: getattr(net, part) for n, net in state.nets.items()} for part in ("params", "stats"))
    clean = LATENT.clean(params, stats, rows)
    np.testing.assert_allclose(clean.mean(0), means[0], atol=0.1)
    np.testing.assert_allclose(clean.std(0), np.exp(-1) / 0.5, rtol=0.1)


def test_what_was_prepared_gives_the_same_step():
    objective = dataclasses.replace(FROZEN, latent=LATENT.latent)
    state = started(objective)
    made = objective.prepare(state, BATCH)
    assert set(made) == {"latent", "text", "pooled", "text_mask"}
    assert made["latent"].shape == (6, 4, 4, 6)
    plain, ready = (jax.jit(objective.step)(state, b, jax.random.key(3)) for b in (BATCH, {**BATCH, **made}))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), plain, ready)
    keyed = {"valid": jnp.ones(6, bool), "index": jnp.arange(6)}
    plain, ready = (objective.evaluate(state, {**b, **keyed}, jax.random.key(0)) for b in (BATCH, {**BATCH, **made}))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), plain, ready)


def test_previews_show_pixels():
    state = started(LATENT)
    batch = {**BATCH, "index": jnp.arange(6), "valid": jnp.ones(6, bool)}
    shown = LATENT.preview(state, batch, jax.random.key(0))
    assert shown["samples"].images.shape == (2, 2, 8, 8, 3)
    assert shown["forward"].images.shape[2:] == (8, 8, 3)


@pytest.mark.parametrize(
    ("objective", "spec", "said"),
    [
        (PLAIN, {"image": SPEC["image"]}, "reads 'tokens', which the data does not have"),
        (dataclasses.replace(PLAIN, text=(), condition_dropout=0.0), SPEC, "reads no text"),
        (LATENT, SPEC | {"image": jax.ShapeDtypeStruct((6, 7, 8, 3), np.uint8)}, "does not divide images of 7×8×3"),
        (LATENT, SPEC | {"latent": jax.ShapeDtypeStruct((6, 4, 4, 8), np.float16)}, "latents are 4×4×8 and this"),
        (
            PLAIN,
            SPEC | {"text": jax.ShapeDtypeStruct((6, 4, 3), np.float16)},
            "encoded before, but an encoder learns",
        ),
    ],
)
def test_what_does_not_fit_is_refused(objective, spec, said):
    with pytest.raises(UserError, match=said):
        objective.check(spec, ())


def test_an_autoencoder_that_learns_is_refused():
    with pytest.raises(UserError, match="stand still"):
        LatentSpace(autoencoder=Learner(module=Halves(), optimizer=OPTIMIZER))
