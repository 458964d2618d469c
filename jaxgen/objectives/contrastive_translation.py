"""Unpaired translation by contrast: each patch shall keep what tells it from the others (CUT, arXiv:2007.15651)."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from jaxgen.adversarial.game import Opponent, discriminator_step, generator_loss
from jaxgen.errors import UserError, check_field
from jaxgen.learner import Learner, Scalars, blank, first_state, joint_step
from jaxgen.nn.interfaces import FeatureTranslator, require
from jaxgen.objective import Metrics
from jaxgen.objectives import domains
from jaxgen.objectives.domains import Images, Translating
from jaxgen.pictures.panels import Panels
from jaxgen.state import State
from jaxgen.supervised.contrastive import at_places, patch_nce
from jaxgen.typing import Batch, Spec, Tree

Maps = dict[str, Array]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ContrastiveTranslation(Translating):
    """One generator, a to b, and a discriminator of b; the defaults are CUT's. Nothing leads back.

    The generator's own maps of its input and of its output are compared at some places, by heads that learn with it:
    contrast · NCE(a, to_b(a)) + identity · NCE(b, to_b(b)), averaged over layers, places and images (`supervised.
    contrastive`). The discriminator moves first. FastCUT is contrast=10, identity=0, mirrored=0.5.
    """

    to_b: Learner
    """Makes b of a. Translations come from its first EMA, where it keeps one."""
    discriminator: Learner
    heads: Learner
    """Makes vectors of each layer comparable, such as PatchHeads."""
    adversarial: float = 2.0
    """Weight of the discriminator's verdict: 2, as CUT has (D - 1)², and LeastSquares half of it."""
    contrast: float = 0.5
    """Weight of the contrast between an image and its translation."""
    identity: float = 0.5
    """Weight of the contrast between an image of b and what the generator makes of it; 0 for none."""
    layers: tuple[str, ...] = ("image", "halving0", "halving1", "block0", "block4")
    """The generator's maps that are compared, by name."""
    places: int = 256
    """Places of a map that are compared, at most."""
    temperature: float = 0.07
    """What similarities are divided by."""
    mirrored: float = 0.0
    """Share of the steps in which the generator sees its input mirrored, and its maps are mirrored back."""

    def __post_init__(self) -> None:
        for name in ("adversarial", "contrast", "identity"):
            check_field(self, name, 0 <= getattr(self, name) < math.inf, "0 or more")
        check_field(self, "places", self.places >= 2, "at least 2: one place has nothing to be told from")
        check_field(self, "temperature", 0 < self.temperature < math.inf, "above 0")
        check_field(self, "mirrored", 0 <= self.mirrored <= 1, "a share, 0 to 1")
        check_field(self, "layers", len(self.layers) > 0, "one layer or more")

    @property
    def learners(self) -> Mapping[str, Learner]:
        return {"to_b": self.to_b, "discriminator": self.discriminator, "heads": self.heads}

    @property
    def domain(self) -> str:
        return "b"

    def check(self, spec: Spec, classes: tuple[str, ...]) -> None:
        """Raise UserError where data, nets, penalties and augmentation do not fit each other."""
        del classes
        domains.check(spec)
        domains.check_generator("to_b", self.to_b, FeatureTranslator, spec)
        domains.check_discriminator("discriminator", self.discriminator, self._game, spec)
        domains.check_learns("heads", self.heads)

    def init(self, key: PRNGKeyArray, spec: Spec) -> State:
        """Make the first state. Raises UserError for a net without the compared maps."""
        require(self.to_b.module, FeatureTranslator, "to_b")
        k_net, k_discriminator, k_heads = jax.random.split(key, 3)
        image, steps = blank(spec), self.total_steps
        net = self.to_b.init(k_net, image, total_steps=steps)
        maps = self._maps(net.params, net.stats, image, train=False)
        nets = {
            "to_b": net,
            "discriminator": self.discriminator.init(k_discriminator, image, {}, total_steps=steps),
            "heads": self.heads.init(k_heads, self._vectors(maps, k_heads), total_steps=steps),
        }
        return first_state(nets, self._game.init())

    def step(self, state: State, batch: Batch, key: PRNGKeyArray) -> tuple[State, Scalars]:
        """Make one update of the discriminator, then one of the generator and its heads."""
        k_discriminator, k_net, k_mirror = jax.random.split(key, 3)
        a, b = domains.sides(batch)
        mirrored = jax.random.bernoulli(k_mirror, self.mirrored)
        net = state.nets["to_b"]
        # The compiler computes it once, here and in the generator's loss.
        fake = self.to_b.train(net.params, net.stats, k_net, _turned(a, mirrored))[0]
        rows = {"real": _turned(b, mirrored), "fake": jax.lax.stop_gradient(fake), "condition": {}}
        judge, memory, told = discriminator_step(
            self._game, self.discriminator, state.nets["discriminator"], state.extra, rows, k_discriminator, state.step
        )
        loss = self._generator_loss(Opponent(self.discriminator, judge, memory), mirrored, state.step)
        learning = {"to_b": self.to_b, "heads": self.heads}
        updated, scalars = joint_step(
            learning, state, {"a": a, "b": b}, k_net, loss,
            total_steps=self.total_steps, microbatches=self.microbatches,
        )  # fmt: skip
        nets = {**updated.nets, "discriminator": judge}
        return State(step=updated.step, nets=nets, extra=memory), scalars | told

    def _generator_loss(self, opponent: Opponent, mirrored: Any, step: Any) -> Any:
        """Return what generator and heads minimise together against a discriminator."""

        def loss(params: Tree, stats: Tree, part: Batch, key: PRNGKeyArray) -> tuple[Array, tuple[Tree, Scalars]]:
            k_a, k_b, k_game = jax.random.split(key, 3)
            moved = dict(stats)

            def made(image: Images) -> Images:
                output, _, moved["to_b"] = self.to_b.train(params["to_b"], moved["to_b"], key, image)
                return output

            def contrast(image: Images, fake: Images, k: PRNGKeyArray) -> Float[Array, ""]:
                maps = [self._maps(params["to_b"], stats["to_b"], x, train=True) for x in (fake, image)]
                maps[0] = {name: _turned(x, mirrored) for name, x in maps[0].items()}
                query, keys = (self._heads(params, stats, self._vectors(x, k)) for x in maps)
                rows = [patch_nce(query[name], keys[name], self.temperature).mean() for name in self.layers]
                return jnp.stack(rows).mean()

            fake = made(_turned(part["a"], mirrored))
            real = _turned(part["b"], mirrored)
            keys = jax.random.split(k_game, 3)
            verdict = generator_loss(self._game, opponent, real, fake, {}, keys, step)
            scalars = {"adversarial": verdict, "contrast": contrast(part["a"], fake, k_a)}
            value = self.adversarial * verdict + self.contrast * scalars["contrast"]
            if self.identity:
                scalars["identity"] = contrast(part["b"], made(real), k_b)
                value += self.identity * scalars["identity"]
            return value, (moved, scalars | {"error": scalars["contrast"]})

        return loss

    def _maps(self, params: Tree, stats: Tree, image: Images, *, train: bool) -> Maps:
        """Return the compared maps of images, by name. Raises UserError where the net has none of that name."""
        maps: Any = self.to_b.module.apply({"params": params, **stats}, image, train=train, method="features")
        if missing := [name for name in self.layers if name not in maps]:
            known = ", ".join(sorted(maps))
            raise UserError(f"--objective.layers names {missing[0]!r}, but the net's maps are {known}")
        return {name: maps[name] for name in self.layers}

    def _vectors(self, maps: Maps, key: PRNGKeyArray) -> Maps:
        """Return the vectors at random places of each map, the same ones for each image, query and key."""
        keys = jax.random.split(key, len(self.layers))
        return {name: at_places(maps[name], self.places, k) for name, k in zip(self.layers, keys, strict=True)}

    def _heads(self, params: Tree, stats: Tree, vectors: Maps) -> Maps:
        found: Any = self.heads.module.apply({"params": params["heads"], **stats["heads"]}, vectors, train=True)
        return found

    def evaluate(self, state: State, batch: Batch, key: PRNGKeyArray) -> Metrics:
        """Average, over the valid rows, how far the generator moves b and, where it is known, how near the truth is.

        `l1_there` and `psnr_there` are of to_b(source) and `target`.
        """
        a, b = domains.sides(batch)
        found = {"kept_b": domains.distance(self.forward(state, b), b)}
        truth = domains.truth(batch)
        if truth is not None:
            found |= domains.errors(self.forward(state, a), truth, "_there")
        return domains.means(found, batch)

    def preview(self, state: State, batch: Batch, key: PRNGKeyArray) -> dict[str, Panels]:
        """Show images of a, what is made of them and, where known, the truth; and images of b, which shall stay."""
        a, b = domains.sides(batch)
        there = {"a": a, "a → b": self.forward(state, a)}
        truth = domains.truth(batch)
        if truth is not None:
            there["truth"] = truth
        kept = {"b": b, "b → b": self.forward(state, b)}
        return {"to_b": domains.strips(there), "kept": domains.strips(kept)}

    def with_options(self, options: Mapping[str, Any]) -> "ContrastiveTranslation":
        """Return the objective as it is. Raises UserError for options, and for another domain than b."""
        to = domains.asked_domain(options)
        if to not in (None, "b"):
            raise UserError(f"--to is {to!r}, but CUT has no net that leads back from b; drop it")
        return self


def _turned(x: Float[Array, "b h w c"], mirrored: Any) -> Float[Array, "b h w c"]:
    """Return images or maps with left and right exchanged, or as they are."""
    return jnp.where(mirrored, x[:, :, ::-1], x)
