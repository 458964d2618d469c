"""Diffusion between pairs: a net draws what a damaged image may have been, each answer one of many."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PRNGKeyArray

from jaxgen.diffusion.denoiser import NetWithMore
from jaxgen.diffusion.paired import FromNoise, Process
from jaxgen.errors import UserError, check_field
from jaxgen.learner import Learner, Scalars, first_state, joint_step
from jaxgen.metrics.accumulators import Mean
from jaxgen.nn.interfaces import Denoiser, require
from jaxgen.noise import numbered
from jaxgen.objective import Forward, Image, Metrics, TotalSteps
from jaxgen.objectives import pairs
from jaxgen.objectives.denoising import over_levels
from jaxgen.objectives.distances import padded
from jaxgen.pictures.panels import Picture
from jaxgen.pictures.pixels import to_float
from jaxgen.state import State
from jaxgen.typing import Batch, Spec, Tree

Images = Float[Array, "b h w c"]
Map = Float[Array, "b _ _ c"]

SEED = 0  # of the samples that `predict` draws: one picture has one answer


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairedDiffusion:
    """A denoiser of the target that is shown the damaged image too, as further channels, unscaled and without noise.

    A batch has `image`, what is restored, and `target`, its sides `scale` times as long, as for `Restoration`. The net
    gets the channels of both and returns those of the target: set its `channels`.
    """

    net: Learner
    process: Process = FromNoise()
    """How the target is drawn: FromNoise (SR3, Palette), or Bridge (I2SB), which starts from the image itself."""
    scale: int = 1
    """Height and width of the target over those of the image, which is enlarged by a bicubic filter."""
    factor: int = 1
    """What must divide the sides of the target, 2 for each time the net halves them."""
    microbatches: int = 1
    """Equal parts of the batch whose gradients are accumulated one after the other."""
    total_steps: TotalSteps = 1

    def __post_init__(self) -> None:
        for name in ("scale", "factor"):
            check_field(self, name, getattr(self, name) >= 1, "at least 1")

    @property
    def learners(self) -> Mapping[str, Learner]:
        return {"net": self.net}

    @property
    def batch_parts(self) -> int:
        return 1

    def check(self, spec: Spec, classes: tuple[str, ...]) -> None:
        """Raise UserError where data, net and process do not fit each other."""
        del classes
        require(self.net.module, Denoiser, "net")
        module: Any = self.net.module
        if module.classes:
            raise UserError("PairedDiffusion asks its net for no class; set --objective.net.module.classes to 0")
        if self.net.optimizer is None:
            raise UserError("--objective.net.optimizer is None, but it is to learn; give it one")
        pairs.check(spec, self.scale, 1)
        self.process.check()
        target = spec["target"].shape[1:]
        if target[0] % self.factor or target[1] % self.factor:
            raise UserError(f"a factor of {self.factor} does not divide targets of {pairs.by(target)}; crop or resize")
        made, _ = jax.eval_shape(lambda: module.init_with_output(jax.random.key(0), *_inputs(spec), train=False))
        if made.shape[1:] != target:
            raise UserError(
                f"the net returns {made.shape[-1]} channels, and the target has {target[-1]}: set "
                f"--objective.net.module.channels to {target[-1]}"
            )
        pairs.check_made(tuple(side * self.scale for side in spec["image"].shape[1:3]) + target[2:], spec)

    def init(self, key: PRNGKeyArray, spec: Spec) -> State:
        """Make the first state."""
        return first_state({"net": self.net.init(key, *_inputs(spec), total_steps=self.total_steps)})

    def step(self, state: State, batch: Batch, key: PRNGKeyArray) -> tuple[State, Scalars]:
        """Make one update on freshly drawn times and noise."""
        k_time, k_noise, k_net = jax.random.split(key, 3)
        target = to_float(batch["target"])
        rows = {
            "image": to_float(batch["image"]),
            "target": target,
            "t": self.process.draw(k_time, len(target)),
            "eps": jax.random.normal(k_noise, target.shape),
        }

        def loss(params: Tree, stats: Tree, rows: Tree, key: PRNGKeyArray) -> tuple[Array, tuple[Tree, Scalars]]:
            x1 = pairs.enlarged(rows["image"], self.scale)

            def net(z: Array, level: Array) -> tuple[Array, Tree]:
                seen = jnp.concatenate([z, x1], -1)
                output, _, moved = self.net.train(params["net"], stats["net"], key, seen, level, {})
                return output, moved

            error, moved = self.process.error(net, rows["target"], x1, rows["eps"], rows["t"])
            return error.mean(), ({**stats, "net": moved}, {"error": error.mean()})

        return joint_step(
            self.learners, state, rows, k_net, loss, total_steps=self.total_steps, microbatches=self.microbatches
        )

    def evaluate(self, state: State, batch: Batch, key: PRNGKeyArray) -> Metrics:
        """Average, over the valid rows, the loss, and PSNR and SSIM of one sample, and of the image as `…_input`.

        A perfect sample has 3.01 dB less than the best estimate (docs/restoration.md).
        """
        image, target = to_float(batch["image"]), to_float(batch["target"])
        x1, keys = pairs.enlarged(image, self.scale), numbered(key, batch["index"])
        net = self._bound(state, x1)

        def at(eps: Array, u: Array) -> Float[Array, " b"]:
            return self.process.error(net, target, x1, eps, self.process.at(u))[0]

        losses = over_levels(keys, target.shape[1:], at)
        made = self._sample(state, x1, keys)
        found = pairs.measured(target, made, image, self.scale, batch["valid"])
        return {"loss": Mean.of(losses.mean(0), batch["valid"]), **found}

    def preview(self, state: State, batch: Batch, key: PRNGKeyArray) -> Mapping[str, Picture]:
        """Show damaged images, two samples of what each was, and what it was."""
        image, target = (to_float(batch[name][: pairs.SHOWN]) for name in ("image", "target"))
        x1 = pairs.enlarged(image, self.scale)
        draw = functools.partial(self._sample, state, x1)
        made = [
            (f"sample {k + 1}", draw(numbered(own, jnp.arange(len(x1))))) for k, own in enumerate(jax.random.split(key))
        ]
        return {"restored": pairs.panels(image, *made, target=target, scale=self.scale)}

    def any_size(self) -> bool:
        """Return True: what `factor` does not divide is padded, and the padding cut off again."""
        return True

    def forward(self, state: State, image: Images) -> Map:
        """Return one sample of what each image was, in [-1, 1], always the same one."""
        x1 = pairs.enlarged(image, self.scale)
        return self._sample(state, x1, numbered(jax.random.key(SEED), jnp.arange(len(x1))))

    def predict(self, forward: Forward, image: np.ndarray) -> Image:
        """Return what images f32[b h w c] in [-1, 1], of any height and width, may have been."""
        return padded(forward, image, self.factor, self.scale)

    def _sample(self, state: State, x1: Images, keys: Key[Array, " b"]) -> Images:
        net = self._bound(state, x1)
        return jnp.clip(self.process.sample(lambda z, level: net(z, level)[0], x1, keys), -1.0, 1.0)

    def _bound(self, state: State, x1: Images) -> NetWithMore:
        """Return the state's net, which sees x1, with nothing more."""
        return lambda z, level: (self.net.infer(state.nets["net"], jnp.concatenate([z, x1], -1), level, {}), None)


def _inputs(spec: Spec) -> tuple[Any, ...]:
    """Return what a net is made with: the channels of target and image, at the target's size."""
    h, w, c = spec["target"].shape[1:]
    return jnp.zeros((1, h, w, c + spec["image"].shape[3])), jnp.zeros(1), {}
