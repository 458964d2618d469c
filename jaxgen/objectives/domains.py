"""What objectives share that translate images of a domain a to images of b, without pairs to learn from.

A batch holds `source` of a and `image` of b, both u8[b h w c]; where the truth is known also `target`, what each source
is to become, which no training sees.
"""

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from jaxgen.adversarial.augmentation import Augmentation, NoAugmentation
from jaxgen.adversarial.game import Game
from jaxgen.adversarial.losses import AdversarialLoss, LeastSquares
from jaxgen.errors import UserError
from jaxgen.learner import Learner, blank
from jaxgen.metrics import reconstruction
from jaxgen.metrics.accumulators import Mean
from jaxgen.nn.interfaces import Discriminator, require
from jaxgen.objective import Forward, Image, Metrics, TotalSteps
from jaxgen.objectives.distances import padded
from jaxgen.objectives.pairs import SHOWN, by
from jaxgen.pictures.panels import Panels
from jaxgen.pictures.pixels import grey_to_rgb, to_float
from jaxgen.state import State
from jaxgen.typing import Batch, Condition, Spec

Images = Float[Array, "b h w c"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Translating(abc.ABC):
    """What `Predictive` and `Generative` ask of an objective that translates: samples are of the test images."""

    loss: AdversarialLoss = LeastSquares()
    """What both sides of each game minimise."""
    penalties: tuple[Any, ...] = ()
    """What is added to a discriminator's loss, of `Penalty`: R1, R2, GradientPenalty, LeCam; () as published."""
    augmentation: Augmentation = NoAugmentation()
    """Applied to what a discriminator sees."""
    microbatches: int = 1
    """Equal parts of the batch whose gradients are accumulated one after the other."""
    total_steps: TotalSteps = 1

    @property
    @abc.abstractmethod
    def learners(self) -> Mapping[str, Learner]:
        """The nets by name."""

    @property
    @abc.abstractmethod
    def domain(self) -> str:
        """The domain that translations are of: "a" by the net `to_a`, or "b" by `to_b`."""

    @property
    def batch_parts(self) -> int:
        return 1

    @property
    def _game(self) -> Game:
        return Game(
            loss=self.loss,
            penalties=self.penalties,
            augmentation=self.augmentation,
            total_steps=self.total_steps,
            microbatches=self.microbatches,
        )

    def translated(self, state: State, name: str, image: Images) -> Images:
        """Return the translations of images by the net of this name, in [-1, 1]."""
        return jnp.clip(self.learners[name].infer(state.nets[name], image).astype(jnp.float32), -1.0, 1.0)

    def any_size(self) -> bool:
        """Return True: what the net cannot halve is padded, and the padding cut off again."""
        return True

    def forward(self, state: State, image: Images) -> Images:
        """Return the translations of images, in [-1, 1]."""
        return self.translated(state, f"to_{self.domain}", image)

    def predict(self, forward: Forward, image: np.ndarray) -> Image:
        """Return the translations of images f32[b h w c] in [-1, 1], of any height and width."""
        module: Any = self.learners[f"to_{self.domain}"].module
        return padded(forward, image, module.factor, least=2 * module.factor)

    def conditions(self) -> tuple[str, ...]:
        """Return the name of the images that samples are translations of."""
        return ("source",) if self.domain == "b" else ("image",)

    def check_sampling(self, *, guide: bool) -> None:
        """Raise UserError for a guiding model."""
        if guide:
            raise UserError("--guide is for Autoguidance, which a translation does not have; drop it")

    def protocol(self) -> dict[str, Any]:
        """Say how samples are made."""
        net = self.learners[f"to_{self.domain}"].module
        return {"generator": type(net).__name__, "to": self.domain, "nfe": 1}

    def noise(self, keys: Key[Array, " b"], shape: tuple[int, ...]) -> Float[Array, " b"]:
        """Return zeros: a translation is a function of its image alone."""
        del shape
        return jnp.zeros(len(keys))

    def generate(
        self,
        state: State,
        noise: Float[Array, " b"],
        keys: Key[Array, " b"],
        condition: Condition,
        guide: State | None = None,
    ) -> Images:
        """Translate the images of the condition."""
        del noise, keys, guide
        return self.forward(state, to_float(condition[self.conditions()[0]]))


def asked_domain(options: Mapping[str, Any]) -> str | None:
    """Return the domain that options ask for, or None. Raises UserError for options that a translation has not."""
    if other := options.keys() - {"to"}:
        raise UserError(f"a translation has no {', '.join(sorted(other))} to choose")
    return options.get("to")


# --- what does not fit ------------------------------------------------------------------------------------------------


def check(spec: Spec) -> None:
    """Raise UserError unless a batch holds pictures of two domains, of one size and as many channels."""
    if "source" not in spec:
        raise UserError(
            "translation learns from pictures of two domains, `source` and `image`, and the data has "
            f"{', '.join(sorted(spec))}; use Unpaired(a=…, b=…) as the source"
        )
    a, b = spec["source"].shape[1:], spec["image"].shape[1:]
    if a != b or len(b) != 3:
        raise UserError(
            f"the two domains have pictures of {by(a)} and {by(b)}; give them one size and as many channels"
        )


def check_generator(name: str, learner: Learner, protocol: type, spec: Spec) -> None:
    """Raise UserError unless the objective's field `name` is a translator of such images that learns."""
    require(learner.module, protocol, name)
    module: Any = learner.module
    shape = spec["image"].shape[1:]
    check_learns(name, learner)
    if shape[0] % module.factor or shape[1] % module.factor:
        raise UserError(
            f"the {name} sees {module.factor}×{module.factor} pixels as one place, which does not divide images of "
            f"{by(shape)}; resize or crop them"
        )
    made, _ = jax.eval_shape(lambda: module.init_with_output(jax.random.key(0), blank(spec), train=False))
    if made.shape[1:] != shape:
        raise UserError(
            f"the {name} makes images of {by(made.shape[1:])}, but the data has {by(shape)}; set "
            f"--objective.{name.replace('_', '-')}.module.channels {shape[-1]}"
        )


def check_discriminator(name: str, learner: Learner, game: Game, spec: Spec) -> None:
    """Raise UserError unless the objective's field `name` is a discriminator of such images that learns."""
    require(learner.module, Discriminator, name)
    module: Any = learner.module
    check_learns(name, learner)
    if module.classes:
        raise UserError(f"the {name} of a translation is asked for no label; set its classes to 0")
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), blank(spec), {}, train=False))
    game.check(spec["image"].shape[1:], spec["image"].shape[0], variables)


def check_learns(name: str, learner: Learner) -> None:
    """Raise UserError for a net without an optimizer."""
    if learner.optimizer is None:
        raise UserError(f"--objective.{name.replace('_', '-')}.optimizer is None, but it is to learn; give it one")


# --- batches, numbers and previews ------------------------------------------------------------------------------------


def sides(batch: Batch) -> tuple[Images, Images]:
    """Return the images of a and of b, in [-1, 1]."""
    return to_float(batch["source"]), to_float(batch["image"])


def truth(batch: Batch) -> Images | None:
    """Return what each source is to become, in [-1, 1], or None where it is not known."""
    return to_float(batch["target"]) if "target" in batch else None


def errors(fake: Images, true: Images, suffix: str) -> dict[str, Float[Array, " b"]]:
    """Return for each row the mean absolute error, of values in [-1, 1], and PSNR in dB."""
    return {f"l1{suffix}": distance(fake, true), f"psnr{suffix}": reconstruction.psnr(true, fake)}


def distance(x: Images, y: Images) -> Float[Array, " b"]:
    """Return the mean absolute difference of each row."""
    return jnp.abs(x - y).mean((1, 2, 3))


def means(found: Mapping[str, Float[Array, " b"]], batch: Batch) -> Metrics:
    """Average numbers over the valid rows."""
    return {name: Mean.of(x, batch["valid"]) for name, x in found.items()}


def strips(rows: Mapping[str, Images]) -> Panels:
    """Show rows of images, each with its title, the first few."""
    shown = [grey_to_rgb(jnp.clip(x[:SHOWN], -1.0, 1.0)) for x in rows.values()]
    return Panels(images=jnp.stack(shown), titles=tuple(rows))
