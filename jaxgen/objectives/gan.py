"""GANs: a generator that makes pictures of noise, and a discriminator that tells them from real ones."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray

from jaxgen import learner
from jaxgen import state as states
from jaxgen.adversarial import diagnostics, game
from jaxgen.adversarial.augmentation import Augmentation, NoAugmentation
from jaxgen.adversarial.losses import AdversarialLoss, RelativisticPairing
from jaxgen.adversarial.path_length import PathLength
from jaxgen.errors import UserError
from jaxgen.metrics.accumulators import Mean
from jaxgen.noise import Towards, numbered
from jaxgen.objective import Metrics, Scalars, TotalSteps
from jaxgen.optim import gradients
from jaxgen.optim.optimizer import Optimizer
from jaxgen.pictures import previews
from jaxgen.pictures.panels import Panels, Picture
from jaxgen.pictures.pixels import grey_to_rgb, scatter, to_float
from jaxgen.state import Net, State
from jaxgen.typing import Batch, Spec, Tree

ROWS, COLUMNS = 4, 8  # of previews that go from one sample to another, or from the mean to the sample
CELLS = 192  # along each side of a picture of the plane


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gan:
    """Two nets in a game (arXiv:1406.2661), by default by R3GAN's rules (arXiv:2501.05441): RpGAN, and R1 and R2.

    A batch has `image`, bytes or f32[b *s], and `label` if the nets have classes. It is dealt out evenly: each step of
    the discriminator, and that of the generator where its loss looks at real pictures too, gets rows of its own.
    """

    generator: nn.Module
    discriminator: nn.Module
    generator_optimizer: Optimizer
    discriminator_optimizer: Optimizer
    penalties: tuple[Any, ...]
    """What else the discriminator's loss holds, of `Penalty`: R1, R2, GradientPenalty, LeCam; () for nothing."""
    loss: AdversarialLoss = RelativisticPairing()
    """What each side wants of the discriminator's outputs."""
    augmentation: Augmentation = NoAugmentation()
    """What befalls every picture, real or made, before the discriminator sees it."""
    path_length: PathLength | None = None
    """StyleGAN2's penalty on the generator; None for nets without styles."""
    discriminator_steps: int = 1
    """Updates of the discriminator for one of the generator."""
    averages: tuple[Any, ...] = ()
    """Moving averages of the generator's weights to keep, of `Average`; samples come from the first."""
    truncation: float = 1.0
    """Samples nearer to the average one, truer and less varied, below 1: of z, or in StyleGAN2 of the styles."""
    microbatches: int = 1
    """Equal parts of the rows of each update whose gradients are accumulated one after the other."""
    side: int = 8
    """Previews show side × side samples."""
    steps: TotalSteps = 1

    @property
    def txs(self) -> dict[str, optax.GradientTransformation]:
        """The optimizer of each net."""
        return {
            "generator": self.generator_optimizer.transform(self.steps),
            "discriminator": self.discriminator_optimizer.transform(self.steps),
        }

    @property
    def parts(self) -> int:
        """Into how many the batch is dealt out."""
        return self.discriminator_steps + self.loss.paired()

    @property
    def classes(self) -> int:
        return int(getattr(self.generator, "classes", 0))

    def conditional(self) -> bool:
        """Whether the nets are told a class."""
        return self.classes > 0

    def check_sampling(self, *, weak: bool) -> None:
        """Raise UserError for a worse model, which nothing here makes use of, and a truncation that means nothing."""
        if weak:
            raise UserError("--weak is for Autoguidance, which a GAN has none of; drop it")
        if not 0 <= self.truncation <= 1:
            raise UserError(f"--truncation is {self.truncation}; it lies in 0..1")

    def protocol(self) -> dict[str, Any]:
        """Say how samples are made."""
        return {"generator": type(self.generator).__name__, "truncation": self.truncation, "nfe": 1}

    def check(self, spec: Spec, classes: tuple[str, ...]) -> None:
        """Raise UserError where data, nets, penalties and augmentation do not fit each other, or the batch."""
        if self.discriminator_steps < 1:
            raise UserError(f"--objective.discriminator-steps is {self.discriminator_steps}; it must be at least 1")
        learner.check_division(spec, self.parts * self.microbatches)
        for name, net in (("generator", self.generator), ("discriminator", self.discriminator)):
            learner.check_labels(name, int(getattr(net, "classes", 0)), spec, classes)
        self.check_sampling(weak=False)
        shape = spec["image"].shape[1:]
        game.check_size(self.generator, shape)
        shapes = jax.eval_shape(functools.partial(self.init, spec=spec), jax.random.key(0))
        self.augmentation.check(shape)
        rows = spec["image"].shape[0] // self.parts
        for penalty in self.penalties:
            penalty.check(shape, rows)
            if penalty.mixes_nothing() and "batch_stats" in shapes.nets["discriminator"].stats:
                raise UserError(
                    f"{type(penalty).__name__} takes each example's own gradient, which batch normalisation in the "
                    "discriminator mixes with the others'; give it another normalisation, or no such penalty"
                )
        if self.path_length is not None and not hasattr(self.generator, "styles"):
            raise UserError(f"PathLength wants a generator with styles; {type(self.generator).__name__} has none")

    def init(self, key: PRNGKeyArray, spec: Spec) -> State:
        """Make the first state."""
        k_generator, k_discriminator = jax.random.split(key)
        z, label, noise = game.blank(self.generator)
        maker = self.generator.init(k_generator, z, label, noise, train=False)
        judge = self.discriminator.init(k_discriminator, learner.blank(spec), label, train=False)
        nets = {
            "generator": learner.created(maker, self.txs["generator"], len(self.averages)),
            "discriminator": learner.created(judge, self.txs["discriminator"], 0),
        }
        extra = {
            "augmentation": self.augmentation.init(),
            "penalties": tuple(penalty.init() for penalty in self.penalties),
            "path_length": {} if self.path_length is None else self.path_length.init(),
        }
        return State(step=jnp.int32(0), nets=nets, extra=extra)

    def step(self, state: State, batch: Batch, key: PRNGKeyArray) -> tuple[State, Scalars]:
        """Make `discriminator_steps` updates of the discriminator, then one of the generator."""
        k_critic, k_maker = jax.random.split(key)
        rows = {name: batch[name] for name in ("image", "label") if name in batch and (name == "image" or self.classes)}
        dealt = gradients.split_batch(rows, self.parts)
        generator, critic, extra = state.nets["generator"], state.nets["discriminator"], dict(state.extra)

        def discriminate(carry: tuple[Net, Tree], xs: Any) -> tuple[tuple[Net, Tree], Scalars]:
            (critic, extra), (rows, k) = carry, xs
            critic, extra, scalars = self._critic_step(generator, critic, extra, rows, k, state.step)
            return (critic, extra), scalars

        turns = jax.tree.map(lambda x: x[: self.discriminator_steps], dealt)
        keys = jax.random.split(k_critic, self.discriminator_steps)
        if self.discriminator_steps == 1:  # without a compiled loop, which costs time on a CPU
            first = jax.tree.map(lambda x: x[0], (turns, keys))
            (critic, extra), scalars = discriminate((critic, extra), first)
        else:
            (critic, extra), scalars = jax.lax.scan(discriminate, (critic, extra), (turns, keys))
            scalars = jax.tree.map(lambda s: s.mean(0), scalars)
        last = jax.tree.map(lambda x: x[-1], dealt)
        generator, extra, more = self._generator_step(generator, critic, extra, last, k_maker, state.step)
        nets = {"generator": generator, "discriminator": critic}
        return State(step=state.step + 1, nets=nets, extra=extra), scalars | more

    def _critic_step(
        self, generator: Net, critic: Net, extra: Tree, rows: Batch, key: PRNGKeyArray, step: Int[Array, ""]
    ) -> tuple[Net, Tree, Scalars]:
        """Update the discriminator, and what its augmentation and penalties remember."""
        k_made, k_loss = jax.random.split(key)
        real = to_float(rows["image"])
        fake, _ = game.make(self.generator, generator.params, generator.stats, k_made, len(real), rows.get("label"))
        drawn = {**rows, "image": real, "fake": fake}
        p = self.augmentation.probability(extra["augmentation"], step, self.steps)

        def loss(params: Tree, moving: Tree, drawn: Batch, key: PRNGKeyArray) -> tuple[Array, tuple[Tree, Scalars]]:
            k_real, k_fake, k_penalty, k_net = jax.random.split(key, 4)

            def judge(x: Array, stats: Tree, k: PRNGKeyArray) -> tuple[Float[Array, " b"], Tree]:
                seen = self.augmentation(x, k, p)
                logits, _, moved = learner.train(self.discriminator, params, stats, k_net, seen, drawn.get("label"))
                return logits, moved

            before, real, fake = moving["stats"], drawn["image"], drawn["fake"]
            on_real, between = judge(real, before, k_real)
            on_fake, after = judge(fake, between, k_fake)
            # The very calls of above, so that the compiler finds them done.
            critics = (lambda x: judge(x, before, k_real)[0], lambda x: judge(x, between, k_fake)[0])
            value = self.loss.discriminator(on_real, on_fake).mean()
            scalars = {name: x.mean() for name, x in self._outlook(on_real, on_fake).items()}
            scalars["discriminator_loss"] = value
            kept = []
            for i, (penalty, memory) in enumerate(zip(self.penalties, moving["penalties"], strict=True)):
                k = jax.random.fold_in(k_penalty, i)

                def term(penalty: Any = penalty, memory: Tree = memory, k: PRNGKeyArray = k) -> Float[Array, ""]:
                    return penalty.rows(critics, real, fake, memory, k).mean()

                mean = game.lazily(term, step, penalty.period())
                value = value + penalty.weight(step, self.steps) * mean
                scalars[f"penalty_{type(penalty).__name__.lower()}"] = mean
                kept.append(penalty.remember(memory, on_real, on_fake))
            # A relativistic loss leaves the outputs' own signs undefined; that of a pair's difference says the same.
            sure = on_real - on_fake if self.loss.paired() else on_real
            adapted = self.augmentation.adapt(moving["augmentation"], sure)
            moving = {"stats": after, "penalties": tuple(kept), "augmentation": adapted}
            return value, (moving, scalars)

        moving = {"stats": critic.stats, "penalties": extra["penalties"], "augmentation": extra["augmentation"]}
        grads, moving, scalars = gradients.gradients(loss, critic.params, moving, drawn, k_loss, self.microbatches)
        critic = states.update(critic, self.txs["discriminator"], grads, stats=moving.pop("stats"))
        del scalars["loss"]  # the generator's bears the name
        scalars |= {"discriminator_gradient_norm": optax.tree.norm(grads), **diagnostics.compared(real, fake)}
        if not isinstance(self.augmentation, NoAugmentation):
            scalars["augmentation"] = p
        return critic, {**extra, **moving}, scalars

    def _generator_step(
        self, generator: Net, critic: Net, extra: Tree, rows: Batch, key: PRNGKeyArray, step: Int[Array, ""]
    ) -> tuple[Net, Tree, Scalars]:
        """Update the generator against a discriminator that stays as it is."""
        p = self.augmentation.probability(extra["augmentation"], step, self.steps)
        drawn = {**rows, "image": to_float(rows["image"])}

        def loss(params: Tree, moving: Tree, drawn: Batch, key: PRNGKeyArray) -> tuple[Array, tuple[Tree, Scalars]]:
            k_made, k_real, k_fake, k_net, k_path = jax.random.split(key, 5)
            label = drawn.get("label")
            fake, after = game.make(self.generator, params, moving["stats"], k_made, len(drawn["image"]), label)

            def judge(x: Array, k: PRNGKeyArray) -> Float[Array, " b"]:
                seen = self.augmentation(x, k, p)
                return learner.train(self.discriminator, critic.params, critic.stats, k_net, seen, label)[0]

            # Where the loss does not look at real pictures, the compiler drops the call.
            value = self.loss.generator(judge(drawn["image"], k_real), judge(fake, k_fake)).mean()
            path = moving["path_length"]
            if self.path_length is not None:
                variables = {"params": params, **after}
                penalty, path = game.path_length(
                    self.path_length, self.generator, variables, path, len(fake), label, k_path, step
                )
                value = value + penalty
            return value, ({"stats": after, "path_length": path}, {})

        moving = {"stats": generator.stats, "path_length": extra["path_length"]}
        grads, moving, scalars = gradients.gradients(loss, generator.params, moving, drawn, key, self.microbatches)
        decays = [average.decay(step) for average in self.averages]
        generator = states.update(generator, self.txs["generator"], grads, stats=moving.pop("stats"), decays=decays)
        return generator, {**extra, **moving}, scalars | {"gradient_norm": optax.tree.norm(grads)}

    def evaluate(self, state: State, batch: Batch, key: PRNGKeyArray) -> Metrics:
        """Average, over the valid rows, what the discriminator says of test pictures and of as many samples."""
        _, on_real, on_fake = self._beside(state, batch, key)
        return {name: Mean.of(x, batch["valid"]) for name, x in self._outlook(on_real, on_fake).items()}

    def generate(
        self,
        state: State,
        shape: tuple[int, ...],
        keys: Key[Array, " b"],
        label: Int[Array, " b"] | None,
        weak: State | None,
        towards: Towards | None = None,
    ) -> Float[Array, "b *s"]:
        """Make one sample of the given shape from each key, or what lies towards those of other keys."""
        del shape, weak  # the generator knows its size; nothing here guides
        return self._sample(state, keys, label, self.truncation, towards)

    def warnings(self, values: Mapping[str, float], share: float) -> dict[str, str]:
        """Say what goes wrong and what to try; see `adversarial.watch`."""
        return diagnostics.warnings(values, share)

    def preview(self, state: State, batch: Batch, key: PRNGKeyArray) -> Mapping[str, Picture]:
        """Show samples of the same noise each time, and what the discriminator makes of them and of test examples."""
        real = to_float(batch["image"])
        keys = numbered(key, jnp.arange(self.side**2))
        label = jnp.arange(self.side**2) % self.side % self.classes if self.classes else None
        samples = self.generate(state, real.shape[1:], keys, label, None)
        if real.ndim == 2:
            return {"samples": self._landscape(state, real, samples)}
        first = jnp.repeat(jnp.arange(ROWS) % len(keys), COLUMNS)
        share = jnp.tile(jnp.linspace(0.0, 1.0, COLUMNS), ROWS)
        towards = Towards(keys=jnp.roll(keys, -1)[first], share=share)
        way = self._sample(state, keys[first], None if label is None else label[first], self.truncation, towards)
        few, label = keys[first[::COLUMNS]], None if label is None else label[first[::COLUMNS]]
        sweep = [self._sample(state, few, label, j / (COLUMNS - 1), None) for j in range(COLUMNS)]
        return {
            "samples": previews.grid(samples, self.side),
            "interpolation": previews.grid(way, COLUMNS),
            "truncation": previews.grid(jnp.stack(sweep, 1).reshape(-1, *real.shape[1:]), COLUMNS),
            "discriminator": self._verdict(state, batch, key),
        }

    def _beside(self, state: State, batch: Batch, key: PRNGKeyArray) -> tuple[Array, Array, Array]:
        """Return a sample for each row, and the discriminator's outputs on the rows and on the samples."""
        real, label = to_float(batch["image"]), batch["label"] if self.classes else None
        keys = numbered(key, batch["index"])
        fake = self.generate(state, real.shape[1:], keys, label, None)
        return fake, self._judge(state, real, label), self._judge(state, fake, label)

    def _verdict(self, state: State, batch: Batch, key: PRNGKeyArray) -> Panels:
        """Frame test pictures, and samples beneath, in the colour of how real the discriminator finds them."""
        real, (fake, on_real, on_fake) = to_float(batch["image"]), self._beside(state, batch, key)
        rows = (
            previews.framed(real, self._likely(on_real, on_fake)),
            previews.framed(fake, self._likely(on_fake, on_real)),
        )
        return Panels(images=jnp.stack(rows), titles=("real", "generated"))

    def _landscape(self, state: State, real: Float[Array, "b 2"], samples: Float[Array, "n 2"]) -> Panels:
        """Draw test points, samples, and how real the discriminator finds each place: dark for not at all."""
        reach = jnp.abs(real).max() * 1.25
        # Of a net with classes, what it says of the first.
        first = functools.partial(jnp.zeros, dtype=jnp.int32)
        on_plane, on_real = (
            self._judge(state, x, first(len(x)) if self.classes else None) for x in (previews.plane(reach, CELLS), real)
        )
        likely = self._likely(on_plane, jnp.full_like(on_plane, on_real.mean())).reshape(CELLS, CELLS, 1)
        land = grey_to_rgb(2 * likely - 1)
        return Panels(images=jnp.stack([scatter(real, CELLS, reach), scatter(samples, CELLS, reach), land])[None])

    def _likely(self, own: Float[Array, " b"], other: Float[Array, " b"]) -> Float[Array, " b"]:
        """Return the probability of being real, or where the loss defines none, the place between the outputs' ends."""
        found = self.loss.probability(own, other)
        if found is not None:
            return found
        low, high = (f(jnp.concatenate([own, other])) for f in (jnp.min, jnp.max))
        return (own - low) / jnp.maximum(high - low, 1e-6)

    def _outlook(self, on_real: Float[Array, " b"], on_fake: Float[Array, " b"]) -> dict[str, Float[Array, " b"]]:
        """Return what is worth watching of the discriminator's outputs, for each row."""
        seen = {
            "real": on_real,
            "fake": on_fake,
            "sign_real": jnp.sign(on_real),
            "told_apart": (on_real > on_fake).astype(jnp.float32),
        }
        likely = self.loss.probability(on_real, on_fake), self.loss.probability(on_fake, on_real)
        named = zip(("probability_real", "probability_fake"), likely, strict=True)
        return seen | {name: probability for name, probability in named if probability is not None}

    def _sample(
        self, state: State, keys: Key[Array, " b"], label: Array | None, truncation: float, towards: Towards | None
    ) -> Float[Array, "b *s"]:
        z = game.draw(self.generator, keys, towards)
        return game.sample(self.generator, state.nets["generator"], z, label, keys, truncation)

    def _judge(self, state: State, x: Float[Array, "b *s"], label: Array | None) -> Float[Array, " b"]:
        return game.judge(self.discriminator, state.nets["discriminator"], x, label)
