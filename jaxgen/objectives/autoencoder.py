"""Autoencoders: an image becomes a small latent, and the latent the image again."""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jaxtyping import Array, Float, PRNGKeyArray

from jaxgen import tree
from jaxgen.adversarial.adaptive_weight import adaptive_weight
from jaxgen.adversarial.game import Game, Opponent, discriminator_step, generator_loss
from jaxgen.adversarial.losses import AdversarialLoss, Hinge
from jaxgen.errors import UserError, check_field
from jaxgen.learner import Learner, Scalars, blank, first_state, joint_step
from jaxgen.metrics import reconstruction
from jaxgen.metrics.accumulators import Mean
from jaxgen.nn.interfaces import Autoencoder, Discriminator, require
from jaxgen.objective import Forward, Image, Metrics, TotalSteps
from jaxgen.objectives.checks import check_divides
from jaxgen.objectives.distances import distances, padded
from jaxgen.objectives.moments import drawn, kl, measured
from jaxgen.objectives.perceptual import Lpips, Perceptual
from jaxgen.pictures.panels import Panels
from jaxgen.pictures.pixels import grey_to_rgb, to_float
from jaxgen.state import State
from jaxgen.typing import Batch, Spec, Tree

Images = Float[Array, "b h w c"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Autoencoding:
    """An autoencoder as latent diffusion trains it (arXiv:2112.10752), against a discriminator from some step on.

    The loss is l1·mean |x - x̂| + l2·mean (x - x̂)² + perceptual + kl·KL / (h·w·c) and, with a discriminator, its verdict
    on x̂ times the adaptive weight of VQGAN (arXiv:2012.09841, equation 7). That is the published loss over h·w·c, so
    that its weights mean what they do there and the loss does not grow with the image.

    The mean and deviation of the latents' channels, over places and images, are averaged over the last 1000 steps and
    lie with the net, in the collection "latent".
    """

    net: Learner
    discriminator: Learner | None = None
    """None: nothing judges the reconstructions but the distances."""
    l1: float = 1.0
    """Weight of the absolute error of a value."""
    l2: float = 0.0
    """Weight of the squared error of a value."""
    kl: float = 1e-6
    """Weight of the divergence in nats, summed over a latent, from N(0, 1)."""
    perceptual: Perceptual | Lpips | None = None
    """A distance in the maps of a frozen net; None for none."""
    adversarial_loss: AdversarialLoss = Hinge()
    """What both sides of the game minimise."""
    adversarial_weight: float = 0.5
    """Share of the discriminator's pull on the last kernel, of that of the distances."""
    start: int = 50_000
    """Updates of the autoencoder before the discriminator learns and judges."""
    last_kernel: str = r"decoder/out/kernel$"
    """Regular expression: the kernel at which the two pulls are compared, the decoder's last."""
    microbatches: int = 1
    """Equal parts of the batch whose gradients are accumulated one after the other."""
    total_steps: TotalSteps = 1

    def __post_init__(self) -> None:
        for name in ("l1", "l2", "kl", "adversarial_weight", "start"):
            check_field(self, name, 0 <= getattr(self, name) < math.inf, "0 or more")
        measured = self.l1 + self.l2 > 0 or self.perceptual is not None
        check_field(self, "l1", measured, "above 0 where neither `l2` nor `perceptual` measures a distance")

    @property
    def learners(self) -> Mapping[str, Learner]:
        return {"net": self.net, **self._judges, **self._eyes}

    @property
    def batch_parts(self) -> int:
        return 1

    @property
    def _judges(self) -> dict[str, Learner]:
        return {} if self.discriminator is None else {"discriminator": self.discriminator}

    @property
    def _eyes(self) -> dict[str, Learner]:
        return {} if self.perceptual is None else {"perceptual": self.perceptual.net}

    @property
    def _game(self) -> Game:
        # The discriminator's schedules begin with it, and end with the training.
        return Game(
            loss=self.adversarial_loss,
            total_steps=max(1, self.total_steps - self.start),
            microbatches=self.microbatches,
        )

    def check(self, spec: Spec, classes: tuple[str, ...]) -> None:
        """Raise UserError where data and nets do not fit each other."""
        del classes
        require(self.net.module, Autoencoder, "net")
        for name, learner in {"net": self.net, **self._judges}.items():
            if learner.optimizer is None:
                raise UserError(f"--objective.{name}.optimizer is None, but it is to learn; give it one")
        module: Any = self.net.module
        shape = spec["image"].shape[1:]
        check_divides(module.factor, shape)
        image = jax.eval_shape(lambda: blank(spec))
        made, variables = jax.eval_shape(lambda x: module.init_with_output(jax.random.key(0), x, train=False), image)
        if made.shape[1:] != shape:
            raise UserError(
                f"the autoencoder makes images of {'×'.join(map(str, made.shape[1:]))}, but the data has "
                f"{'×'.join(map(str, shape))}; set --objective.net.module.image-channels {shape[-1]}"
            )
        if self.discriminator is not None:
            self._check_discriminator(self.discriminator, spec, variables["params"])
        if self.perceptual is not None:
            self.perceptual.check(spec)

    def _check_discriminator(self, learner: Learner, spec: Spec, params: Tree) -> None:
        require(learner.module, Discriminator, "discriminator")
        module: Any = learner.module
        if module.classes:
            raise UserError("the discriminator of an autoencoder is asked for no label; set its classes to 0")
        if self.start >= self.total_steps:
            raise UserError(
                f"--objective.start is {self.start}, but the training has {self.total_steps} steps: the discriminator "
                "would never judge; set it lower, or discriminator to None"
            )
        image = jax.eval_shape(lambda: blank(spec))
        jax.eval_shape(lambda x: module.init(jax.random.key(0), x, {}, train=False), image)
        found = [path for path, _ in tree.leaves(params) if re.search(self.last_kernel, path)]
        if len(found) != 1:
            raise UserError(
                f"--objective.last-kernel {self.last_kernel!r} finds {len(found)} parameters of the autoencoder, not "
                f"one; the decoder's last kernel may be among {', '.join([p for p, _ in tree.leaves(params)][-3:])}"
            )

    def init(self, key: PRNGKeyArray, spec: Spec) -> State:
        """Make the first state."""
        keys = dict(zip(("net", "discriminator", "perceptual"), jax.random.split(key, 3), strict=True))
        inputs = {"net": (), "discriminator": ({},), "perceptual": ()}
        nets = {
            name: learner.init(keys[name], blank(spec), *inputs[name], total_steps=self.total_steps)
            for name, learner in self.learners.items()
        }
        return first_state(nets, {} if self.discriminator is None else self._game.init())

    def step(self, state: State, batch: Batch, key: PRNGKeyArray) -> tuple[State, Scalars]:
        """Make one update of the discriminator, if it has begun, then one of the autoencoder."""
        k_discriminator, k_net = jax.random.split(key)
        rows = {"image": batch["image"]}
        nets, memory, told = {}, state.extra, {}
        if self.discriminator is not None:
            nets["discriminator"], memory, told = self._judge(self.discriminator, state, rows, k_discriminator)

        def loss(params: Tree, stats: Tree, part: Batch, key: PRNGKeyArray) -> tuple[Array, tuple[Tree, Scalars]]:
            image, (k_net, k_loss) = to_float(part["image"]), jax.random.split(key)
            moments, latent, fake, moved = self._coded(params["net"], stats["net"], image, k_net)
            parts = self._distances(params, stats, image, fake)
            distance, nats = parts.pop("error"), kl(moments).mean()
            value = distance + self.kl * nats / math.prod(image.shape[1:])
            scalars = {"error": distance, **parts, "kl": nats}
            if self.discriminator is not None:
                opponent = Opponent(self.discriminator, nets["discriminator"], memory)
                verdict, weight = self._verdict(opponent, params, stats, (latent, fake, image), k_loss, state.step)
                value += weight * verdict
                scalars |= {"adversarial": verdict, "adaptive_weight": weight}
            moved = moved | {"latent": measured(moved["latent"], moments, state.step)}
            return value, ({**stats, "net": moved}, scalars)

        learning = {"net": self.net, **self._eyes}
        updated, scalars = joint_step(
            learning, state, rows, k_net, loss, total_steps=self.total_steps, microbatches=self.microbatches
        )
        return State(step=updated.step, nets=updated.nets | nets, extra=memory), scalars | told

    def _judge(self, learner: Learner, state: State, rows: Batch, key: PRNGKeyArray) -> tuple[Any, Tree, Scalars]:
        """Make one update of the discriminator from the start step on; return its net, its memory and scalars."""
        k_net, k_step = jax.random.split(key)
        net, since = state.nets["discriminator"], state.step - self.start

        def update() -> tuple[Any, Tree, Scalars]:
            image, own = to_float(rows["image"]), state.nets["net"]
            fake = self._coded(own.params, own.stats, image, k_net)[2]
            pairs = {"real": image, "fake": fake, "condition": {}}
            return discriminator_step(self._game, learner, net, state.extra, pairs, k_step, since)

        _, _, told = jax.eval_shape(update)
        silent = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), told)
        return jax.lax.cond(since >= 0, update, lambda: (net, state.extra, silent))

    def _verdict(
        self, opponent: Opponent, params: Tree, stats: Tree, made: tuple[Array, Images, Images], key: Any, step: Any
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """Return what the autoencoder minimises against the discriminator, and its weight; 0 before the start.

        `made` holds latents, their images and the true ones.
        """
        latent, fake, image = made
        k_game, k_net = jax.random.split(key)
        keys = jax.random.split(k_game, 3)
        fixed = jax.lax.stop_gradient(params)
        flat: dict[str, Any] = traverse_util.flatten_dict(fixed["net"], sep="/")
        last = next(path for path in flat if re.search(self.last_kernel, path))

        def verdict(fake: Images) -> Float[Array, ""]:
            return generator_loss(self._game, opponent, image, fake, {}, keys, step - self.start)

        def distance(fake: Images) -> Float[Array, ""]:
            return self._distances(fixed, stats, image, fake)["error"]

        def decoded(kernel: Array) -> Images:
            changed = traverse_util.unflatten_dict({**flat, last: kernel}, sep="/")
            return self._call(changed, stats["net"], jax.lax.stop_gradient(latent), k_net, "decode")[0]

        def judged() -> tuple[Float[Array, ""], Float[Array, ""]]:
            weight = self.adversarial_weight * adaptive_weight(decoded, flat[last], distance, verdict)
            return verdict(fake), weight

        return jax.lax.cond(step >= self.start, judged, lambda: (jnp.float32(0.0), jnp.float32(0.0)))

    def _coded(self, params: Tree, stats: Tree, image: Images, key: PRNGKeyArray) -> tuple[Array, Array, Images, Tree]:
        """Return moments, latents drawn from them, their images and the net's new stats, in training."""
        k_encode, k_decode, k_draw = jax.random.split(key, 3)
        moments, stats = self._call(params, stats, image, k_encode, "encode")
        latent = drawn(moments, jax.random.normal(k_draw, (*moments.shape[:-1], moments.shape[-1] // 2)))
        fake, stats = self._call(params, stats, latent, k_decode, "decode")
        return moments, latent, fake, stats

    def _call(self, params: Tree, stats: Tree, x: Array, key: PRNGKeyArray, method: str) -> tuple[Array, Tree]:
        output, moved = self.net.module.apply(
            {"params": params, **stats}, x, train=True, method=method, rngs={"dropout": key}, mutable=[*stats]
        )
        return output.astype(jnp.float32), {name: moved[name] for name in stats}

    def _distances(self, params: Tree, stats: Tree, image: Images, fake: Images) -> Scalars:
        return distances(image, fake, l1=self.l1, l2=self.l2, perceptual=self.perceptual, params=params, stats=stats)

    def evaluate(self, state: State, batch: Batch, key: PRNGKeyArray) -> Metrics:
        """Average, over the valid rows, how near the images of the latents' means come: PSNR, SSIM, and the errors."""
        image = to_float(batch["image"])
        moments, fake = self._reconstructed(state, image)
        of_row = tuple(range(1, image.ndim))
        found = {
            "psnr": reconstruction.psnr(image, fake),
            "l1": jnp.abs(image - fake).mean(of_row),
            "kl": kl(moments),
        }
        if reconstruction.measures_ssim(image.shape[1:]):
            found["ssim"] = reconstruction.ssim(image, fake)
        if self.perceptual is not None:
            net = state.nets["perceptual"]
            found["perceptual"] = self.perceptual.distance({"params": net.params, **net.stats}, image, fake)
        return {name: Mean.of(x, batch["valid"]) for name, x in found.items()}

    def preview(self, state: State, batch: Batch, key: PRNGKeyArray) -> dict[str, Panels]:
        """Show images, and beneath them what came back."""
        image = to_float(batch["image"])
        _, fake = self._reconstructed(state, image)
        rows = [grey_to_rgb(jnp.clip(x, -1.0, 1.0)) for x in (image, fake)]
        return {"reconstructions": Panels(images=jnp.stack(rows), titles=("image", "reconstruction"))}

    def any_size(self) -> bool:
        """Return True: what `factor` does not divide is padded, and the padding cut off again."""
        return True

    def forward(self, state: State, image: Images) -> Images:
        """Return the images of the means of the images' latents, in [-1, 1]."""
        return jnp.clip(self._reconstructed(state, image)[1], -1.0, 1.0)

    def predict(self, forward: Forward, image: np.ndarray) -> Image:
        """Return the reconstructions of images f32[b h w c] in [-1, 1], of any height and width."""
        module: Any = self.net.module
        return padded(forward, image, module.factor)

    def _reconstructed(self, state: State, image: Images) -> tuple[Float[Array, "b i j m"], Images]:
        net, module = state.nets["net"], self.net.module
        variables = {"params": net.best_params, **net.stats}
        moments: Any = module.apply(variables, image, train=False, method="encode")
        mean, _ = jnp.split(moments, 2, axis=-1)
        fake: Any = module.apply(variables, mean, train=False, method="decode")
        return moments.astype(jnp.float32), fake.astype(jnp.float32)
