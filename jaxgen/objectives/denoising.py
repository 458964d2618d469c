"""What every objective with a denoiser has: its net, what it is asked for, and what it denoises, pixels or latents."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, PRNGKeyArray

from jaxgen.diffusion.denoiser import Denoise, NetWithMore, denoiser
from jaxgen.diffusion.guidance import Conditioned
from jaxgen.diffusion.noise_distributions import NoiseDistribution, middles
from jaxgen.diffusion.path import Path
from jaxgen.diffusion.predictions import Prediction
from jaxgen.errors import UserError, check_field
from jaxgen.learner import Learner, first_state
from jaxgen.metrics.accumulators import Mean
from jaxgen.nn.conditioning import one_hot
from jaxgen.nn.interfaces import Denoiser, require
from jaxgen.noise import normal, numbered
from jaxgen.objective import Metrics, TotalSteps
from jaxgen.objectives import latent_space
from jaxgen.objectives import text as texts
from jaxgen.objectives.checks import check_labels
from jaxgen.objectives.latent_space import LatentSpace
from jaxgen.objectives.text import Text
from jaxgen.pictures.pixels import to_float
from jaxgen.state import Net, State
from jaxgen.typing import Batch, Condition, Spec, Tree

MEASURED = 8  # noise levels at which the test error is measured

# noise f32[b *s], share of the draws f32[b] -> the error, and the loss, of each row
AtLevel = Callable[[Array, Array], tuple[Float[Array, " b"], Float[Array, " b"]]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Denoising:
    """A denoiser of images or of their latents, for classes, for texts, or for nothing.

    A batch has `image`, bytes or f32[b *s], `label` if the net has classes, and the token ids that text encoders read.
    """

    net: Learner
    path: Path
    """How much signal and noise there is at each time: Edm, Flow, Cosine, LinearBetas, ScaledLinearBetas, …"""
    prediction: Prediction
    """The prediction type, what the net's output means: EdmPreconditioning, or Direct with Eps, X0, V or Velocity."""
    text: tuple[Text, ...] = ()
    """The encoders of the text that images are made for; () for none."""
    latent: LatentSpace | None = None
    """The autoencoder whose latents are denoised; None: pixels are."""
    condition_dropout: float = 0.0
    """Share of the images that are learned without label and text; classifier-free guidance needs some, such as 0.1."""
    microbatches: int = 1
    """Equal parts of the batch whose gradients are accumulated one after the other."""
    side: int = 8
    """Previews show side × side samples."""
    total_steps: TotalSteps = 1

    def __post_init__(self) -> None:
        check_field(self, "condition_dropout", 0 <= self.condition_dropout <= 1, "a share of the images, 0 to 1")
        check_field(self, "side", self.side >= 1, "at least 1")

    @property
    def learners(self) -> Mapping[str, Learner]:
        """The denoiser, text encoders and the autoencoder."""
        frozen = {} if self.latent is None else {"autoencoder": self.latent.autoencoder}
        return {"net": self.net, **texts.learners(self.text), **frozen}

    @property
    def batch_parts(self) -> int:
        return 1

    @property
    def classes(self) -> int:
        module: Any = self.net.module
        return module.classes

    @property
    def droppable(self) -> bool:
        """Whether the net has learned what there is without a condition."""
        return self.condition_dropout > 0 or (bool(self.text) and all(text.dropout > 0 for text in self.text))

    def conditions(self) -> tuple[str, ...]:
        """Return "label" where the net has classes, and the names of the token ids that text encoders read."""
        return (*(("label",) if self.classes else ()), *dict.fromkeys(text.tokens for text in self.text))

    def noise(self, keys: Key[Array, " b"], shape: tuple[int, ...]) -> Float[Array, "b *z"]:
        """Return the standard normal noise that the samples of these keys start from; of latents, in their shape."""
        return normal(keys, 0, self.shape(shape))

    def check_data(self, spec: Spec, classes: tuple[str, ...]) -> None:
        """Raise UserError where data, net, text encoders, autoencoder, path and prediction type do not fit."""
        require(self.net.module, Denoiser, "net")
        check_labels("net", self.classes, spec, classes)
        if self.condition_dropout and not self.conditions():
            raise UserError("--objective.condition-dropout needs a net with classes, or text; set it to 0")
        self._check_conditions(spec)
        self.prediction.check(self.path)

    def _check_conditions(self, spec: Spec) -> None:
        texts.check(self.text, spec)
        if self.latent is not None:
            self.latent.check(spec)

    def first_nets(self, key: PRNGKeyArray, own: PRNGKeyArray, spec: Spec) -> dict[str, Net]:
        """Make the nets; the denoiser's weights are drawn from the key `own`."""
        self._check_conditions(spec)
        nets = texts.init(self.text, jax.random.fold_in(key, 2), spec, self.total_steps)
        if self.latent is not None:
            nets["autoencoder"] = self.latent.init(jax.random.fold_in(key, 3), spec, self.total_steps)
        asked = {text.tokens: jnp.zeros((1, *spec[text.tokens].shape[1:]), jnp.int32) for text in self.text}
        asked |= {"label": jnp.zeros(1, jnp.int32)}
        one = jax.eval_shape(lambda: self.asked(first_state(nets), asked)[0])
        condition = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), one)
        blank = jnp.zeros((1, *self.shape(spec["image"].shape[1:])))
        return nets | {"net": self.net.init(own, blank, jnp.zeros(1), condition, total_steps=self.total_steps)}

    def prepare(self, state: State, batch: Batch) -> dict[str, Array]:
        """Return the moments of a batch's latents, and its texts where all their encoders are frozen."""
        made = latent_space.moments(self.latent, state, batch)
        if self.text and texts.frozen(self.text):
            made |= texts.encode(self.text, state.nets, batch)[0]
        return made

    # --- in a step ----------------------------------------------------------------------------------------------------

    def rows(self, batch: Batch, k_noise: PRNGKeyArray, k_drop: PRNGKeyArray) -> dict[str, Any]:
        """Return what a step takes of a batch, drawn for all of it: `eps` f32[b *s], labels and texts, some dropped.

        Drawn before it is split, so that accumulation over microbatches sees the same.
        """
        image = to_float(batch["image"])
        eps = jax.random.normal(k_noise, (len(image), *self.shape(image.shape[1:])))
        rows: dict[str, Any] = {"image": image, "eps": eps, "label": {}}
        if self.latent is not None:
            rows["drawn"] = jax.random.normal(jax.random.fold_in(k_noise, 1), eps.shape)
            rows |= {"latent": batch["latent"]} if "latent" in batch else {}
        if self.conditions():
            drop = jax.random.bernoulli(k_drop, self.condition_dropout, (len(image),))
            rows["label"] = self._label(batch, drop)
            rows |= texts.dropped(self.text, batch, drop, k_drop)
        return rows

    def net_in_training(self, params: Tree, stats: Tree, condition: Condition, key: PRNGKeyArray) -> NetWithMore:
        """Return the net of a step, with its new stats; calls with one key have the same dropout."""

        def net(z: Array, noise: Array) -> tuple[Array, Tree]:
            output, _, moved = self.net.train(params["net"], stats["net"], key, z, noise, condition)
            return output, moved

        return net

    def clean(self, params: Tree, stats: Tree, rows: Tree) -> Float[Array, "b *s"]:
        """Return what is denoised, without noise, of a step's rows."""
        if self.latent is None:
            return rows["image"]
        whole = {"params": params["autoencoder"], **stats["autoencoder"]}
        return self.latent.draw(whole, self.latent.encode(whole, rows, rows["image"]), rows["drawn"])

    def asked_in_training(
        self, params: Tree, stats: Tree, rows: Tree, key: PRNGKeyArray
    ) -> tuple[Condition, dict[str, Tree]]:
        """Return what the net takes of a step's rows, and the text encoders' new stats."""
        encoded, moved = texts.train(self.text, params, stats, rows, jax.random.fold_in(key, 2))
        return {**rows["label"], **encoded}, moved

    # --- of a state ---------------------------------------------------------------------------------------------------

    def asked(self, state: State, batch: Condition) -> tuple[Condition, Condition]:
        """Return what the net takes of a batch's arrays, and what stands for no text."""
        encoded, null = texts.encode(self.text, state.nets, batch)
        return {**self._label(batch), **encoded}, null

    def asked_of_both(self, state: State, guide: State | None, batch: Condition) -> tuple[Condition, Condition]:
        """Return what `asked` does for a net, and for the guiding model with its own text encoders."""
        asked, null = self.asked(state, batch)
        if guide is None:
            return asked, null
        own, none = texts.encode(self.text, guide.nets, batch)
        return texts.with_guides(asked, own), texts.with_guides(null, none)

    def fixed_net(self, state: State, condition: Condition) -> NetWithMore:
        """Return the state's net for a condition, with nothing more."""
        return lambda z, noise: (self.net.infer(state.nets["net"], z, noise, condition), None)

    def errors(
        self, batch: Batch, x0: Float[Array, "b *s"], key: PRNGKeyArray, levels: NoiseDistribution, at: AtLevel
    ) -> Metrics:
        """Average, over the valid rows, the error at eight noise levels by name, and the loss of all.

        `at` maps noise f32[b *s] and a share of the draws, f32[b], to the error and the loss of each row.
        """
        # The noise of a row is a function of its place in the data, in any batch.
        errors, losses = over_levels(numbered(key, batch["index"]), x0.shape[1:], at)
        names = [f"error_at_{level:.3g}" for level in middles(levels, self.path, MEASURED)]
        named = {name: Mean.of(error, batch["valid"]) for name, error in zip(names, errors, strict=True)}
        return {"loss": Mean.of(losses.mean(0), batch["valid"]), **named}

    def denoise(self, state: State, asked: Condition) -> Denoise:
        """Return the state's denoiser for a condition, as the net takes it."""

        def net(z: Array, noise: Array) -> Array:
            return self.net.infer(state.nets["net"], z, noise, texts.without_guides(asked))

        return denoiser(net, self.path, self.prediction)

    def conditioned(self, state: State) -> Conditioned:
        """Return the state's denoiser as a function of the condition too."""
        return lambda x, sigma, asked: self.denoise(state, asked)(x, sigma)

    def guiding(self, guide: State | None) -> Conditioned | None:
        """Return the same of the guiding model, where there is one."""
        return None if guide is None else lambda x, sigma, asked: self.denoise(guide, texts.guides(asked))(x, sigma)

    def shape(self, image: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of what is denoised, of images of this shape."""
        return latent_space.shape_of(self.latent, image)

    def means(self, state: State, batch: Batch) -> Float[Array, "b *s"]:
        """Return what is denoised, without noise: images, or the means of their latents."""
        return latent_space.means(self.latent, state, batch)

    def seen(self, state: State, x: Float[Array, "b *s"]) -> Float[Array, "b *t"]:
        """Return the images of what is denoised."""
        return latent_space.seen(self.latent, state, x)

    def first_asked(self, batch: Batch, n: int) -> Condition:
        """Return what the first n samples of a preview are asked for: all classes in turn, and the batch's texts."""
        rows = jnp.arange(n) % len(batch["image"])
        labels = {"label": jnp.arange(n) % self.side % self.classes} if self.classes else {}
        return {text.tokens: batch[text.tokens][rows] for text in self.text} | labels

    def _label(self, batch: Condition, drop: Bool[Array, " b"] | None = None) -> Condition:
        """Return class ids as weights over the classes and the null class, which stands in the rows of `drop`."""
        if not self.classes:
            return {}
        label = batch["label"] if drop is None else jnp.where(drop, self.classes, batch["label"])
        return {"label": one_hot(label, self.classes)}


def over_levels(keys: Key[Array, " b"], shape: tuple[int, ...], at: Callable[[Array, Array], Any]) -> Any:
    """Return what `at` makes, at each of eight noise levels, of noise f32[b *s] and a share of the draws, f32[b].

    The noise of a row is drawn from its own key.
    """

    def one(j: Int[Array, ""]) -> Any:
        eps = jax.vmap(lambda k: jax.random.normal(jax.random.fold_in(k, j), shape))(keys)
        return at(eps, jnp.full(len(keys), (j + 0.5) / MEASURED))

    return jax.lax.map(one, jnp.arange(MEASURED))
