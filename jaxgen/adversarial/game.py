"""The game of a discriminator against a generator: one step of each, and the term that others add to their own loss.

An objective with one of each calls `discriminator_step` and `generator_step`. One whose generators share a loss, such
as a CycleGAN, adds a `generator_loss` for each discriminator to it. Logits are f32[b], or f32[b h w] of patches.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray

from jaxgen.adversarial.augmentation import Augmentation, NoAugmentation
from jaxgen.adversarial.losses import AdversarialLoss, Logits, per_row
from jaxgen.adversarial.penalties import Discriminators
from jaxgen.errors import UserError
from jaxgen.learner import Learner, Scalars
from jaxgen.optim.gradients import gradients
from jaxgen.state import Net
from jaxgen.typing import Condition, Tree

Images = Float[Array, "b *s"]
Rows = Mapping[str, Any]  # "real" f32[b *s], "fake" f32[b *s], "condition", and what else a step is to see of a batch
# (params, stats, rows, key) -> fakes f32[b *s], new stats
Make = Callable[[Tree, Tree, Rows, PRNGKeyArray], tuple[Images, Tree]]
# (params, stats, memory, fakes, rows, key) -> what is added to the loss, new memory, scalars
Term = Callable[[Tree, Tree, Tree, Images, Rows, PRNGKeyArray], tuple[Float[Array, ""], Tree, Scalars]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Game:
    """What both sides minimise, and over how many steps."""

    loss: AdversarialLoss
    penalties: tuple[Any, ...] = ()
    """What is added to the discriminator's loss, of `Penalty`."""
    augmentation: Augmentation = NoAugmentation()
    """Applied to real and generated images before the discriminator."""
    total_steps: int
    """The training's length, over which schedules run."""
    microbatches: int = 1
    """Equal parts of the rows of each step whose gradients are accumulated one after the other."""

    def init(self) -> Tree:
        """Return what augmentation and penalties keep from step to step."""
        return {"augmentation": self.augmentation.p.init(), "penalties": tuple(p.init() for p in self.penalties)}

    def check(self, shape: tuple[int, ...], rows: int, discriminator: Tree) -> None:
        """Raise UserError where penalties and augmentation do not fit examples of this shape, so many in each step.

        `discriminator` holds the shapes of the discriminator's stats.
        """
        self.augmentation.check(shape)
        for penalty in self.penalties:
            penalty.check(shape, rows, self.total_steps)
            if penalty.needs_per_example_gradients() and "batch_stats" in discriminator:
                raise UserError(
                    f"{type(penalty).__name__} takes each example's own gradient, which batch normalisation in the "
                    "discriminator mixes with the others'; give it another normalisation, or no such penalty"
                )

    def probability(self, memory: Tree, step: Int[Array, ""]) -> Float[Array, ""]:
        """Return how often the augmentation is applied at this step."""
        return self.augmentation.p.at(memory["augmentation"], step, self.total_steps)


class Opponent(NamedTuple):
    """A discriminator as a generator's loss sees it: fixed."""

    learner: Learner
    net: Net
    memory: Tree  # what its `discriminator_step` keeps


def discriminator_step(
    game: Game,
    learner: Learner,
    net: Net,
    memory: Tree,
    rows: Rows,
    key: PRNGKeyArray,
    step: Int[Array, ""],
) -> tuple[Net, Tree, Scalars]:
    """Make one update of a discriminator; return its net, what augmentation and penalties keep, and scalars.

    `rows` holds "real" and "fake", each f32[b *s], and "condition"; the discriminator is called with (images,
    condition). `memory` is `game.init()` at first.
    """
    p = game.probability(memory, step)

    def loss(params: Tree, moving: Tree, rows: Rows, key: PRNGKeyArray) -> tuple[Array, tuple[Tree, Scalars]]:
        k_real, k_fake, k_penalty, k_net = jax.random.split(key, 4)
        real, fake, before = rows["real"], rows["fake"], moving["stats"]

        def seen(x: Images, stats: Tree, k: PRNGKeyArray) -> tuple[Logits, Tree]:
            augmented = game.augmentation(x, k, p)
            output, _, stats = learner.train(params, stats, k_net, augmented, rows["condition"])
            return output, stats

        on_real, between = seen(real, before, k_real)
        on_fake, after = seen(fake, between, k_fake)
        # The same calls as above, so that the compiler computes them once.
        discriminators = (lambda x: seen(x, before, k_real)[0], lambda x: seen(x, between, k_fake)[0])
        value = game.loss.discriminator(on_real, on_fake).mean()
        scalars = {name: x.mean() for name, x in logit_statistics(game.loss, on_real, on_fake).items()}
        scalars["discriminator_loss"] = value
        terms, penalties = _penalised(game, discriminators, real, fake, moving["penalties"], k_penalty, step)
        # A relativistic loss leaves the logits' own signs undefined; the sign of a pair's difference has the meaning.
        sure = on_real - on_fake if game.loss.paired() else on_real
        moving = {
            "stats": after,
            "augmentation": game.augmentation.p.adapt(moving["augmentation"], sure),
            "penalties": tuple(
                penalty.remember(kept, on_real, on_fake)
                for penalty, kept in zip(game.penalties, moving["penalties"], strict=True)
            ),
        }
        return sum(terms, value), (moving, scalars | penalties)

    moving = {"stats": net.stats, **memory}
    grads, moving, scalars = gradients(loss, net.params, moving, rows, key, game.microbatches)
    net = learner.update(net, grads, moving.pop("stats"), step, total_steps=game.total_steps)
    del scalars["loss"]  # the generator's has this name
    scalars["discriminator_gradient_norm"] = optax.tree.norm(grads)
    if not isinstance(game.augmentation, NoAugmentation):
        scalars["augmentation"] = p
    return net, moving, scalars


def _penalised(
    game: Game,
    discriminators: Discriminators,
    real: Images,
    fake: Images,
    memories: tuple[Tree, ...],
    key: PRNGKeyArray,
    step: Int[Array, ""],
) -> tuple[list[Float[Array, ""]], Scalars]:
    """Return each penalty's weighted mean, and the means without weights by name."""
    terms, scalars = [], {}
    for i, (penalty, memory) in enumerate(zip(game.penalties, memories, strict=True)):
        k = jax.random.fold_in(key, i)

        def term(penalty: Any = penalty, memory: Tree = memory, k: PRNGKeyArray = k) -> Float[Array, ""]:
            return penalty.rows(discriminators, real, fake, memory, k).mean()

        mean = lazily(term, step, penalty.period())
        terms.append(penalty.weight(step, game.total_steps) * mean)
        scalars[f"penalty_{type(penalty).__name__.lower()}"] = mean
    return terms, scalars


def lazily(term: Callable[[], Float[Array, ""]], step: Int[Array, ""], period: int) -> Float[Array, ""]:
    """Return the term, or each `period`-th step as many times it and 0 in between."""
    if period == 1:
        return term()
    return jax.lax.cond(step % period == 0, lambda: period * term(), lambda: jnp.float32(0.0))


def generator_loss(
    game: Game,
    opponent: Opponent,
    real: Images,
    fake: Images,
    condition: Condition,
    keys: Key[Array, "3"],
    step: Int[Array, ""],
) -> Float[Array, ""]:
    """Return what the generator of these fakes minimises against one discriminator, to be added to its other terms.

    The keys are of the augmentation of real images and of fakes, and of the discriminator. A loss that is not paired
    does not look at `real`, and the compiler drops what is computed of it.
    """
    p = game.probability(opponent.memory, step)
    learner, net = opponent.learner, opponent.net

    def seen(x: Images, k: PRNGKeyArray) -> Logits:
        augmented = game.augmentation(x, k, p)
        return learner.train(net.params, net.stats, keys[2], augmented, condition)[0]

    return game.loss.generator(seen(real, keys[0]), seen(fake, keys[1])).mean()


def generator_step(
    game: Game,
    learner: Learner,
    net: Net,
    opponent: Opponent,
    make: Make,
    rows: Rows,
    key: PRNGKeyArray,
    step: Int[Array, ""],
    term: Term | None = None,
    memory: Tree = None,
) -> tuple[Net, Tree, Scalars]:
    """Make one update of a generator against a discriminator; return its net, what its term keeps, and scalars.

    `rows` holds "real" f32[b *s], "condition", and what else `make` and `term` need. `term` is what is added to the
    adversarial loss, such as a distance to a target; `memory` is what it keeps from step to step.
    """

    def loss(params: Tree, moving: Tree, rows: Rows, key: PRNGKeyArray) -> tuple[Array, tuple[Tree, Scalars]]:
        k_make, k_real, k_fake, k_net, k_term = jax.random.split(key, 5)
        fake, stats = make(params, moving["stats"], rows, k_make)
        keys = jnp.stack([k_real, k_fake, k_net])
        value = generator_loss(game, opponent, rows["real"], fake, rows["condition"], keys, step)
        kept, scalars = moving["memory"], {}
        if term is not None:
            more, kept, scalars = term(params, stats, moving["memory"], fake, rows, k_term)
            value = value + more
        return value, ({"stats": stats, "memory": kept}, scalars)

    moving = {"stats": net.stats, "memory": memory}
    grads, moving, scalars = gradients(loss, net.params, moving, rows, key, game.microbatches)
    net = learner.update(net, grads, moving["stats"], step, total_steps=game.total_steps)
    return net, moving["memory"], scalars | {"gradient_norm": optax.tree.norm(grads)}


def logits(learner: Learner, net: Net, image: Images, condition: Condition) -> Logits:
    """Return a discriminator's logits as a fixed function of each image by itself."""

    def one(x: Array, condition: Condition) -> Array:
        return learner.infer(net, x[None], jax.tree.map(lambda a: a[None], condition))[0]

    return jax.vmap(one)(image, condition)


def logit_statistics(loss: AdversarialLoss, real: Logits, fake: Logits) -> dict[str, Float[Array, " b"]]:
    """Return for each row what shows how well the discriminator does.

    `paired_accuracy` is the share of pairs, of equal patches, in which the real one has the higher logit.
    """
    statistics = {
        "real": real,
        "fake": fake,
        "sign_real": jnp.sign(real),
        "paired_accuracy": (real > fake).astype(jnp.float32),
    }
    for name, p in (
        ("probability_real", loss.probability(real, fake)),
        ("probability_fake", loss.probability(fake, real)),
    ):
        if p is not None:
            statistics[name] = p
    return {name: per_row(x) for name, x in statistics.items()}
