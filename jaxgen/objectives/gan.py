"""GANs: a generator that makes images of noise, and a discriminator that tells them from real ones."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PRNGKeyArray

from jaxgen.adversarial import diagnostics
from jaxgen.adversarial.augmentation import Augmentation, NoAugmentation
from jaxgen.adversarial.game import Game, Opponent, discriminator_step, generator_step, logit_statistics, logits
from jaxgen.adversarial.generator import blank_inputs, check_size, draw, make_fakes, sample
from jaxgen.adversarial.losses import AdversarialLoss, Logits, RelativisticPairing, likely_real
from jaxgen.adversarial.path_length import PathLength
from jaxgen.errors import UserError
from jaxgen.learner import Learner, Scalars, first_state
from jaxgen.metrics.accumulators import Mean
from jaxgen.nn.conditioning import one_hot
from jaxgen.nn.interfaces import Discriminator, Generator, StyleGenerator, require
from jaxgen.noise import numbered
from jaxgen.objective import Metrics, TotalSteps
from jaxgen.objectives import latent_space
from jaxgen.objectives.checks import check_labels
from jaxgen.objectives.latent_space import LatentSpace, variables
from jaxgen.optim.gradients import split_batch
from jaxgen.pictures import previews
from jaxgen.pictures.panels import Picture
from jaxgen.pictures.pixels import to_float
from jaxgen.state import Net, State
from jaxgen.typing import Batch, Condition, Spec, Tree


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gan:
    """Two nets in a game (arXiv:1406.2661), by default by R3GAN's rules (arXiv:2501.05441): RpGAN, and R1 and R2.

    A batch has `image`, bytes or f32[b *s], and `label` if the nets have classes. It is split evenly: each update of
    the discriminator, and that of the generator where its loss looks at real images too, gets rows of its own.
    """

    generator: Learner
    """Samples come from its first EMA."""
    discriminator: Learner
    penalties: tuple[Any, ...]
    """What is added to the discriminator's loss, of `Penalty`: R1, R2, GradientPenalty, LeCam; () for nothing."""
    loss: AdversarialLoss = RelativisticPairing()
    """What each side minimises, as a function of the discriminator's logits."""
    augmentation: Augmentation = NoAugmentation()
    """Applied to real and generated images before the discriminator."""
    path_length: PathLength | None = None
    """StyleGAN2's penalty on the generator; None for nets without styles."""
    latent: LatentSpace | None = None
    """The autoencoder whose latents both sides play for; None: pixels."""
    discriminator_steps: int = 1
    """Updates of the discriminator for one of the generator."""
    truncation: float = 1.0
    """Below 1, samples are nearer to the average one, better and less diverse: by z, or in StyleGAN2 by styles."""
    microbatches: int = 1
    """Equal parts of the rows of each update whose gradients are accumulated one after the other."""
    side: int = 8
    """Previews show side × side samples."""
    total_steps: TotalSteps = 1

    @property
    def learners(self) -> Mapping[str, Learner]:
        frozen = {} if self.latent is None else {"autoencoder": self.latent.autoencoder}
        return {"generator": self.generator, "discriminator": self.discriminator, **frozen}

    @property
    def batch_parts(self) -> int:
        return self.discriminator_steps + self.loss.paired()

    @property
    def classes(self) -> int:
        module: Any = self.generator.module
        return module.classes

    @property
    def game(self) -> Game:
        """The rules that both sides follow."""
        return Game(
            loss=self.loss,
            penalties=self.penalties,
            augmentation=self.augmentation,
            total_steps=self.total_steps,
            microbatches=self.microbatches,
        )

    def conditions(self) -> tuple[str, ...]:
        """Return ("label",) where the nets have classes."""
        return ("label",) if self.classes else ()

    def check_sampling(self, *, guide: bool) -> None:
        """Raise UserError for a guiding model, and a truncation out of range."""
        if guide:
            raise UserError("--guide is for Autoguidance, which a GAN does not have; drop it")
        if not 0 <= self.truncation <= 1:
            raise UserError(f"--truncation is {self.truncation}; it lies in 0..1")

    def with_options(self, options: Mapping[str, Any]) -> "Gan":
        """Return the objective with another `truncation`. Raises UserError for other options."""
        if other := options.keys() - {"truncation"}:
            raise UserError(f"a GAN has no {', '.join(sorted(other))} to choose")
        return dataclasses.replace(self, **options)

    def protocol(self) -> dict[str, Any]:
        """Say how samples are made."""
        return {"generator": type(self.generator.module).__name__, "truncation": self.truncation, "nfe": 1}

    def check(self, spec: Spec, classes: tuple[str, ...]) -> None:
        """Raise UserError where data, nets, penalties and augmentation do not fit each other."""
        if self.discriminator_steps < 1:
            raise UserError(f"--objective.discriminator-steps is {self.discriminator_steps}; it must be at least 1")
        require(self.generator.module, Generator if self.path_length is None else StyleGenerator, "generator")
        require(self.discriminator.module, Discriminator, "discriminator")
        for name, learner in (("generator", self.generator), ("discriminator", self.discriminator)):
            module: Any = learner.module
            check_labels(name, module.classes, spec, classes)
            if learner.optimizer is None:
                raise UserError(f"--objective.{name}.optimizer is None, but both nets of a GAN learn; give it one")
        self.check_sampling(guide=False)
        if self.latent is not None:
            self.latent.check(spec)
        shape = self._shape(spec)
        check_size(self.generator.module, shape)
        shapes = jax.eval_shape(functools.partial(self.init, spec=spec), jax.random.key(0))
        rows = spec["image"].shape[0] // self.batch_parts
        self.game.check(shape, rows, shapes.nets["discriminator"].stats)

    def init(self, key: PRNGKeyArray, spec: Spec) -> State:
        """Make the first state."""
        k_generator, k_discriminator = jax.random.split(key)
        z, condition, noise = blank_inputs(self.generator.module)
        steps, blank = self.total_steps, jnp.zeros((1, *self._shape(spec)))
        nets = {
            "generator": self.generator.init(k_generator, z, condition, noise, total_steps=steps),
            "discriminator": self.discriminator.init(k_discriminator, blank, condition, total_steps=steps),
        }
        if self.latent is not None:
            nets["autoencoder"] = self.latent.init(jax.random.fold_in(key, 3), spec, steps)
        path_length = {} if self.path_length is None else self.path_length.init()
        return first_state(nets, {**self.game.init(), "path_length": path_length})

    def step(self, state: State, batch: Batch, key: PRNGKeyArray) -> tuple[State, Scalars]:
        """Make `discriminator_steps` updates of the discriminator, then one of the generator."""
        k_discriminator, k_generator = jax.random.split(key)
        generator, memory = state.nets["generator"], dict(state.extra)
        path_length = memory.pop("path_length")
        make = functools.partial(make_fakes, self.generator)
        played = {"real": self._real(state, batch, key), **{name: batch[name] for name in self.conditions()}}
        parts = split_batch(played, self.batch_parts)

        def update(carry: tuple[Net, Tree], xs: tuple[Batch, PRNGKeyArray]) -> tuple[tuple[Net, Tree], Scalars]:
            (net, memory), (part, k) = carry, xs
            k_make, k_loss = jax.random.split(k)
            rows = self._rows(part)
            rows["fake"], _ = make(generator.params, generator.stats, rows, k_make)
            net, memory, scalars = discriminator_step(
                self.game, self.discriminator, net, memory, rows, k_loss, state.step
            )
            return (net, memory), scalars | diagnostics.compared(rows["real"], rows["fake"])

        carry = (state.nets["discriminator"], memory)
        n = self.discriminator_steps
        xs = jax.tree.map(lambda x: x[:n], parts), jax.random.split(k_discriminator, n)
        if n == 1:  # without a compiled loop, which costs time on a CPU
            (discriminator, memory), scalars = update(carry, jax.tree.map(lambda x: x[0], xs))
        else:
            (discriminator, memory), scalars = jax.lax.scan(update, carry, xs)
            scalars = jax.tree.map(lambda s: s.mean(0), scalars)

        opponent = Opponent(self.discriminator, discriminator, memory)
        rows = self._rows(jax.tree.map(lambda x: x[-1], parts))
        term = None if self.path_length is None else self.path_length.term(self.generator, state.step)
        updated, path_length, more = generator_step(
            self.game, self.generator, generator, opponent, make, rows, k_generator, state.step, term, path_length
        )
        nets = {**state.nets, "generator": updated, "discriminator": discriminator}
        extra = {**memory, "path_length": path_length}
        return State(step=state.step + 1, nets=nets, extra=extra), scalars | more

    def prepare(self, state: State, batch: Batch) -> dict[str, Array]:
        """Return the moments of a batch's latents."""
        return latent_space.moments(self.latent, state, batch)

    def evaluate(self, state: State, batch: Batch, key: PRNGKeyArray) -> Metrics:
        """Average, over the valid rows, what the discriminator says of test images and of as many samples."""
        _, on_real, on_fake = self._compared(state, batch, key)
        statistics = logit_statistics(self.loss, on_real, on_fake)
        return {name: Mean.of(x, batch["valid"]) for name, x in statistics.items()}

    def diagnose(self, scalars: Mapping[str, float], progress: float) -> dict[str, str]:
        """Say what goes wrong and what to try; see `adversarial.diagnostics`."""
        return diagnostics.diagnose(scalars, progress)

    def noise(self, keys: Key[Array, " b"], shape: tuple[int, ...]) -> Float[Array, "b z"]:
        """Return the z of each sample's key; its length is the generator's, whatever the shape of an example."""
        del shape
        return draw(self.generator.module, keys)

    def generate(
        self,
        state: State,
        noise: Float[Array, "b z"],
        keys: Key[Array, " b"],
        condition: Condition,
        guide: State | None = None,
    ) -> Float[Array, "b *s"]:
        """Make one sample from each row of noise."""
        del guide  # `check_sampling` refuses it
        return self._seen_sample(state, noise, keys, condition, self.truncation)

    def preview(self, state: State, batch: Batch, key: PRNGKeyArray) -> Mapping[str, Picture]:
        """Show samples of the same noise each time, and the discriminator's opinion of them and of test examples."""
        real = to_float(batch["image"])
        n = self.side**2
        keys = numbered(key, jnp.arange(n))
        noise = self.noise(keys, real.shape[1:])
        condition = {"label": jnp.arange(n) % self.side % self.classes} if self.classes else {}
        samples = self.generate(state, noise, keys, condition)
        if real.ndim == 2 and real.shape[1] != 2:  # the discriminator has no opinion of a plane to draw
            return {"samples": previews.grid(samples, self.side)}
        if real.ndim == 2:
            return {"samples": self._landscape(state, real, samples)}
        sample = functools.partial(self._seen_sample, state)
        fake, on_real, on_fake = self._compared(state, batch, key)
        fake = latent_space.seen(self.latent, state, fake)
        likely = likely_real(self.loss, on_real, on_fake), likely_real(self.loss, on_fake, on_real)
        return {
            "samples": previews.grid(samples, self.side),
            "interpolation": previews.interpolation(sample, noise, keys, condition, self.truncation),
            "truncation": previews.truncations(sample, noise, keys, condition),
            "discriminator": previews.verdict(real, fake, *likely),
        }

    def _landscape(self, state: State, real: Float[Array, "b 2"], samples: Float[Array, "n 2"]) -> Picture:
        reach = jnp.abs(real).max() * 1.25
        # A discriminator with classes is asked about the first one.
        on_plane, on_real = (
            self._logits(state, x, {"label": jnp.zeros(len(x), jnp.int32)}) for x in (previews.plane(reach), real)
        )
        likely = likely_real(self.loss, on_plane, jnp.full_like(on_plane, on_real.mean()))
        return previews.landscape(real, samples, likely, reach)

    def _compared(self, state: State, batch: Batch, key: PRNGKeyArray) -> tuple[Float[Array, "b *s"], Logits, Logits]:
        """Return a sample for each row, as it is made, and the discriminator's logits of rows and samples."""
        real, keys = latent_space.means(self.latent, state, batch), numbered(key, batch["index"])
        fake = self._sample(state, self.noise(keys, real.shape[1:]), keys, batch, self.truncation)
        return fake, self._logits(state, real, batch), self._logits(state, fake, batch)

    def _shape(self, spec: Spec) -> tuple[int, ...]:
        """Return the shape of what the generator makes and the discriminator judges."""
        return latent_space.shape_of(self.latent, spec["image"].shape[1:])

    def _real(self, state: State, batch: Batch, key: PRNGKeyArray) -> Float[Array, "b *s"]:
        """Return what the discriminator sees of a step's rows; latents are drawn anew each time."""
        image = to_float(batch["image"])
        if self.latent is None:
            return image
        whole = variables(state.nets["autoencoder"])
        noise = jax.random.normal(jax.random.fold_in(key, 2), (len(image), *self.latent.shape(image.shape[1:])))
        return self.latent.draw(whole, self.latent.encode(whole, batch, image), noise)

    def _rows(self, part: Batch) -> dict[str, Any]:
        return {"real": part["real"], "condition": self._condition(part)}

    def _condition(self, batch: Condition) -> Condition:
        """Return what the nets take of a batch's arrays: class ids as weights over the classes and the null class."""
        return {"label": one_hot(batch["label"], self.classes)} if self.classes else {}

    def _sample(
        self, state: State, z: Float[Array, "b z"], keys: Key[Array, " b"], condition: Condition, truncation: float
    ) -> Float[Array, "b *s"]:
        net = state.nets["generator"]
        return sample(self.generator, net, z, self._condition(condition), keys, truncation)

    def _seen_sample(
        self, state: State, z: Float[Array, "b z"], keys: Key[Array, " b"], condition: Condition, truncation: float
    ) -> Float[Array, "b *s"]:
        return latent_space.seen(self.latent, state, self._sample(state, z, keys, condition, truncation))

    def _logits(self, state: State, x: Float[Array, "b *s"], condition: Condition) -> Logits:
        return logits(self.discriminator, state.nets["discriminator"], x, self._condition(condition))
