"""Restoration and super-resolution by pairs: a net maps damaged images to what they were."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from jaxgen.adversarial.game import Game, Opponent, discriminator_step, generator_loss
from jaxgen.adversarial.losses import AdversarialLoss, RelativisticAverage
from jaxgen.errors import UserError, check_field
from jaxgen.learner import Learner, Scalars, first_state, joint_step
from jaxgen.metrics.accumulators import Mean
from jaxgen.nn.interfaces import Discriminator, Restorer, require
from jaxgen.objective import Forward, Image, Metrics, TotalSteps
from jaxgen.objectives import pairs
from jaxgen.objectives.distances import distances, padded
from jaxgen.objectives.perceptual import Lpips, Perceptual
from jaxgen.pictures.panels import Panels
from jaxgen.pictures.pixels import to_float
from jaxgen.state import Net, State
from jaxgen.typing import Batch, Spec, Tree

Images = Float[Array, "b h w c"]
Map = Float[Array, "b _ _ c"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Restoration:
    """Regression of the target by a net of the image, and with a discriminator the game of SRGAN and ESRGAN besides.

    The loss is l1·mean |x - x̂| + l2·mean (x - x̂)² + perceptual + adversarial_weight · what the discriminator says
    (arXiv:1809.00219, equation 3). ESRGAN starts a net that was trained by distances alone: give `net` its `weights`.
    A batch has `image`, what is restored, and `target`, its sides `scale` times as long: see the transforms `Shrink`
    and `Age`.
    """

    net: Learner
    discriminator: Learner | None = None
    """None: nothing judges but the distances."""
    l1: float = 1.0
    """Weight of the absolute error of a value."""
    l2: float = 0.0
    """Weight of the squared error of a value."""
    perceptual: Perceptual | Lpips | None = None
    """A distance in the maps of a frozen net; None for none."""
    adversarial_loss: AdversarialLoss = RelativisticAverage()
    """What both sides of the game minimise."""
    penalties: tuple[Any, ...] = ()
    """What is added to the discriminator's loss, of `Penalty`: R1, R2, GradientPenalty, LeCam."""
    adversarial_weight: float = 0.1
    """Weight of the game; 0.005 in ESRGAN, beside l1=0.01, and 0.1 in Real-ESRGAN."""
    microbatches: int = 1
    """Equal parts of the batch whose gradients are accumulated one after the other."""
    total_steps: TotalSteps = 1

    def __post_init__(self) -> None:
        for name in ("l1", "l2", "adversarial_weight"):
            check_field(self, name, 0 <= getattr(self, name) < math.inf, "0 or more")
        measured = self.l1 + self.l2 > 0 or self.perceptual is not None
        check_field(self, "l1", measured, "above 0 where neither `l2` nor `perceptual` measures a distance")

    @property
    def learners(self) -> Mapping[str, Learner]:
        judge = {} if self.discriminator is None else {"discriminator": self.discriminator}
        return {"net": self.net, **judge, **self._eyes}

    @property
    def batch_parts(self) -> int:
        return 1

    @property
    def scale(self) -> int:
        module: Any = self.net.module
        return module.scale

    @property
    def _eyes(self) -> dict[str, Learner]:
        return {} if self.perceptual is None else {"perceptual": self.perceptual.net}

    @property
    def _game(self) -> Game:
        return Game(
            loss=self.adversarial_loss,
            penalties=self.penalties,
            total_steps=self.total_steps,
            microbatches=self.microbatches,
        )

    def check(self, spec: Spec, classes: tuple[str, ...]) -> None:
        """Raise UserError where data and nets do not fit each other."""
        del classes
        require(self.net.module, Restorer, "net")
        module: Any = self.net.module
        pairs.check(spec, self.scale, module.factor)
        for name, learner in self.learners.items():
            if learner.optimizer is None and name != "perceptual":
                raise UserError(f"--objective.{name}.optimizer is None, but it is to learn; give it one")
        small, large = spec["image"].shape[1:], spec["target"].shape[1:]
        made, _ = jax.eval_shape(lambda: module.init_with_output(jax.random.key(0), _zeros(small), train=False))
        pairs.check_made(made.shape[1:], spec)
        if self.discriminator is not None:
            require(self.discriminator.module, Discriminator, "discriminator")
            judge: Any = self.discriminator.module
            shapes = jax.eval_shape(lambda: judge.init(jax.random.key(0), _zeros(large), {}, train=False))
            self._game.check(large, spec["target"].shape[0], shapes)
        if self.perceptual is not None:
            self.perceptual.check({"image": spec["target"]})

    def init(self, key: PRNGKeyArray, spec: Spec) -> State:
        """Make the first state."""
        keys = dict(zip(("net", "discriminator", "perceptual"), jax.random.split(key, 3), strict=True))
        small, large = (_zeros(spec[name].shape[1:]) for name in ("image", "target"))
        inputs = {"net": (small,), "discriminator": (large, {}), "perceptual": (large,)}
        nets = {
            name: learner.init(keys[name], *inputs[name], total_steps=self.total_steps)
            for name, learner in self.learners.items()
        }
        return first_state(nets, {} if self.discriminator is None else self._game.init())

    def step(self, state: State, batch: Batch, key: PRNGKeyArray) -> tuple[State, Scalars]:
        """Make one update of the discriminator, where there is one, then one of the net."""
        k_discriminator, k_net = jax.random.split(key)
        rows = {"image": batch["image"], "target": batch["target"]}
        nets, memory, told = {}, state.extra, {}
        if self.discriminator is not None:
            net, memory, told = self._judged(self.discriminator, state, rows, k_discriminator)
            nets["discriminator"] = net

        def loss(params: Tree, stats: Tree, part: Batch, key: PRNGKeyArray) -> tuple[Array, tuple[Tree, Scalars]]:
            k_restore, k_game = jax.random.split(key)
            image, target = to_float(part["image"]), to_float(part["target"])
            fake, _, moved = self.net.train(params["net"], stats["net"], k_restore, image)
            fake = fake.astype(jnp.float32)
            scalars = self._distances(params, stats, target, fake)
            value = scalars["error"]
            if self.discriminator is not None:
                opponent = Opponent(self.discriminator, nets["discriminator"], memory)
                keys = jax.random.split(k_game, 3)
                verdict = generator_loss(self._game, opponent, target, fake, {}, keys, state.step)
                value += self.adversarial_weight * verdict
                scalars["adversarial"] = verdict
            return value, ({**stats, "net": moved}, scalars)

        updated, scalars = joint_step(
            {"net": self.net, **self._eyes},
            state,
            rows,
            k_net,
            loss,
            total_steps=self.total_steps,
            microbatches=self.microbatches,
        )
        return State(step=updated.step, nets=updated.nets | nets, extra=memory), scalars | told

    def _judged(self, learner: Learner, state: State, rows: Batch, key: PRNGKeyArray) -> tuple[Net, Tree, Scalars]:
        """Make one update of the discriminator; return its net, its memory and scalars."""
        k_net, k_step = jax.random.split(key)
        own = state.nets["net"]
        fake, _, _ = self.net.train(own.params, own.stats, k_net, to_float(rows["image"]))
        pairs = {"real": to_float(rows["target"]), "fake": fake.astype(jnp.float32), "condition": {}}
        return discriminator_step(
            self._game, learner, state.nets["discriminator"], state.extra, pairs, k_step, state.step
        )

    def _distances(self, params: Tree, stats: Tree, target: Images, fake: Images) -> Scalars:
        return distances(target, fake, l1=self.l1, l2=self.l2, perceptual=self.perceptual, params=params, stats=stats)

    def evaluate(self, state: State, batch: Batch, key: PRNGKeyArray) -> Metrics:
        """Average, over the valid rows, PSNR and SSIM of what is restored, and of the image itself as `…_input`.

        `…_y` is of Y inside a border of `scale` pixels. An input that is smaller is enlarged by a bicubic filter.
        """
        image, target = to_float(batch["image"]), to_float(batch["target"])
        made = self.forward(state, image)
        found = pairs.measured(target, made, image, self.scale, batch["valid"])
        if self.perceptual is not None:
            net = state.nets["perceptual"]
            seen = {"params": net.params, **net.stats}
            for suffix, one in (("", made), ("_input", pairs.enlarged(image, self.scale))):
                found[f"perceptual{suffix}"] = Mean.of(self.perceptual.distance(seen, target, one), batch["valid"])
        return found

    def preview(self, state: State, batch: Batch, key: PRNGKeyArray) -> dict[str, Panels]:
        """Show damaged images, what the net makes of them, and what they were."""
        image, target = (to_float(batch[name][: pairs.SHOWN]) for name in ("image", "target"))
        made = "restored", self.forward(state, image)
        return {"restored": pairs.panels(image, made, target=target, scale=self.scale)}

    def any_size(self) -> bool:
        """Return True: what `factor` does not divide is padded, and the padding cut off again."""
        return True

    def forward(self, state: State, image: Images) -> Map:
        """Return restored images, in [-1, 1]."""
        return jnp.clip(self.net.infer(state.nets["net"], image).astype(jnp.float32), -1.0, 1.0)

    def predict(self, forward: Forward, image: np.ndarray) -> Image:
        """Return what images f32[b h w c] in [-1, 1], of any height and width, were."""
        module: Any = self.net.module
        return padded(forward, image, module.factor, self.scale)


def _zeros(shape: tuple[int, ...]) -> Images:
    return jnp.zeros((1, *shape))
