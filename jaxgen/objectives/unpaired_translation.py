"""Unpaired translation by cycles: a to b and back again is where it began (CycleGAN, arXiv:1703.10593)."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from jaxgen.adversarial.game import Opponent, discriminator_step, generator_loss
from jaxgen.adversarial.pool import Pool
from jaxgen.errors import UserError, check_field
from jaxgen.learner import Learner, Scalars, blank, first_state, joint_step
from jaxgen.nn.interfaces import Translator
from jaxgen.objective import Metrics
from jaxgen.objectives import domains
from jaxgen.objectives.domains import Images, Translating
from jaxgen.pictures.panels import Panels
from jaxgen.state import State
from jaxgen.typing import Batch, Spec, Tree

GENERATORS, DISCRIMINATORS = ("to_a", "to_b"), ("discriminator_a", "discriminator_b")


@dataclasses.dataclass(frozen=True, kw_only=True)
class UnpairedTranslation(Translating):
    """Two generators, a to b and b to a, and a discriminator of each domain; the defaults are CycleGAN's.

    The generators share one loss: each discriminator's verdict, cycle · (mean |to_a(to_b(a)) - a| + mean |to_b(to_a(b))
    - b|), and cycle · identity · (mean |to_b(b) - b| + mean |to_a(a) - a|), where to_b(b) shall be b. A discriminator
    has its own loss and sees generated images from a pool; all nets move at once, from where they were before the step.

    Neither cycle nor verdict can tell a map from the same map after a permutation that leaves a domain's distribution
    as it is (arXiv:2001.09061); the identity term can, where the domains have colours in common that shall stay.
    """

    to_a: Learner
    """Makes a of b. Translations come from its first EMA, where it keeps one."""
    to_b: Learner
    """Makes b of a."""
    discriminator_a: Learner
    discriminator_b: Learner
    adversarial: float = 2.0
    """Weight of a discriminator's verdict: 2, as CycleGAN has (D - 1)², and LeastSquares half of it."""
    cycle: float = 10.0
    """Weight of the way there and back."""
    identity: float = 0.5
    """Weight, as a share of `cycle`, of leaving images alone that already are of the domain; 0 for none."""
    pool: Pool = Pool()
    """The generated images of steps before that a discriminator sees."""
    to: Literal["a", "b"] = "b"
    """The domain that predictions and samples are of."""

    def __post_init__(self) -> None:
        for name in ("adversarial", "cycle", "identity"):
            check_field(self, name, 0 <= getattr(self, name) < math.inf, "0 or more")
        check_field(self, "to", self.to in ("a", "b"), "'a' or 'b'")

    @property
    def learners(self) -> Mapping[str, Learner]:
        return {name: getattr(self, name) for name in (*GENERATORS, *DISCRIMINATORS)}

    @property
    def domain(self) -> str:
        return self.to

    def check(self, spec: Spec, classes: tuple[str, ...]) -> None:
        """Raise UserError where data, nets, penalties and augmentation do not fit each other."""
        del classes
        domains.check(spec)
        for name in GENERATORS:
            domains.check_generator(name, self.learners[name], Translator, spec)
        for name in DISCRIMINATORS:
            domains.check_discriminator(name, self.learners[name], self._game, spec)

    def init(self, key: PRNGKeyArray, spec: Spec) -> State:
        """Make the first state."""
        keys = dict(zip(self.learners, jax.random.split(key, 4), strict=True))
        inputs = {name: () if name in GENERATORS else ({},) for name in self.learners}
        nets = {
            name: learner.init(keys[name], blank(spec), *inputs[name], total_steps=self.total_steps)
            for name, learner in self.learners.items()
        }
        shape = spec["image"].shape[1:]
        # Arrays of their own for each side: those of a state are given away when it is updated.
        return first_state(nets, {side: {"game": self._game.init(), "pool": self.pool.init(shape)} for side in "ab"})

    def step(self, state: State, batch: Batch, key: PRNGKeyArray) -> tuple[State, Scalars]:
        """Make one update of both generators and one of each discriminator."""
        k_generators, *k_sides = jax.random.split(key, 3)
        a, b = domains.sides(batch)
        # Made before the update. The compiler computes them once, here and in the generators' loss.
        fakes = {"a": self._made(state, "to_a", b), "b": self._made(state, "to_b", a)}
        updated, scalars = joint_step(
            {name: self.learners[name] for name in GENERATORS}, state, {"a": a, "b": b}, k_generators,
            self._generators_loss(state), total_steps=self.total_steps, microbatches=self.microbatches,
        )  # fmt: skip
        nets, extra = dict(updated.nets), {}
        for side, real, k in (("a", a, k_sides[0]), ("b", b, k_sides[1])):
            k_pool, k_game = jax.random.split(k)
            name, memory = f"discriminator_{side}", state.extra[side]
            fake, pool = self.pool.query(memory["pool"], fakes[side], k_pool)
            rows = {"real": real, "fake": fake, "condition": {}}
            nets[name], game, told = discriminator_step(
                self._game, self.learners[name], state.nets[name], memory["game"], rows, k_game, state.step
            )
            extra[side] = {"game": game, "pool": pool}
            scalars |= {f"{scalar}_{side}": value for scalar, value in told.items()}
        return State(step=updated.step, nets=nets, extra=extra), scalars

    def _made(self, state: State, name: str, image: Images) -> Images:
        net = state.nets[name]
        made = self.learners[name].train(net.params, net.stats, jax.random.key(0), image)[0]
        return jax.lax.stop_gradient(made)

    def _generators_loss(self, state: State) -> Any:
        """Return what the two generators minimise together, against the discriminators of this state."""
        opponents = {
            side: Opponent(
                self.learners[f"discriminator_{side}"], state.nets[f"discriminator_{side}"], state.extra[side]["game"]
            )
            for side in "ab"
        }

        def loss(params: Tree, stats: Tree, part: Batch, key: PRNGKeyArray) -> tuple[Array, tuple[Tree, Scalars]]:
            k_net, k_a, k_b = jax.random.split(key, 3)
            moved = dict(stats)

            def made(name: str, image: Images) -> Images:
                output, _, moved[name] = self.learners[name].train(params[name], moved[name], k_net, image)
                return output

            fake = {"a": made("to_a", part["b"]), "b": made("to_b", part["a"])}
            back = {"a": made("to_a", fake["b"]), "b": made("to_b", fake["a"])}
            value, scalars = jnp.float32(0.0), {}
            for side, k in (("a", k_a), ("b", k_b)):
                real = part[side]
                verdict = generator_loss(
                    self._game, opponents[side], real, fake[side], {}, jax.random.split(k, 3), state.step
                )
                scalars |= {f"adversarial_{side}": verdict, f"cycle_{side}": domains.distance(back[side], real).mean()}
                value += self.adversarial * verdict + self.cycle * scalars[f"cycle_{side}"]
                if self.identity:
                    scalars[f"identity_{side}"] = domains.distance(made(f"to_{side}", real), real).mean()
                    value += self.cycle * self.identity * scalars[f"identity_{side}"]
            scalars["error"] = (scalars["cycle_a"] + scalars["cycle_b"]) / 2
            return value, (moved, scalars)

        return loss

    def evaluate(self, state: State, batch: Batch, key: PRNGKeyArray) -> Metrics:
        """Average, over the valid rows, how near cycles end to where they began and, where it is known, the truth.

        `l1_there` and `psnr_there` are of to_b(source) and `target`; `…_back` of to_a(target) and the source.
        """
        a, b = domains.sides(batch)
        fake_b, fake_a = self.translated(state, "to_b", a), self.translated(state, "to_a", b)
        found = {
            "cycle_a": domains.distance(self.translated(state, "to_a", fake_b), a),
            "cycle_b": domains.distance(self.translated(state, "to_b", fake_a), b),
        }
        truth = domains.truth(batch)
        if truth is not None:
            found |= domains.errors(fake_b, truth, "_there")
            found |= domains.errors(self.translated(state, "to_a", truth), a, "_back")
        return domains.means(found, batch)

    def preview(self, state: State, batch: Batch, key: PRNGKeyArray) -> dict[str, Panels]:
        """Show images of each domain, what is made of them, what of that again and, where it is known, the truth."""
        a, b = domains.sides(batch)
        fake_b, fake_a = self.translated(state, "to_b", a), self.translated(state, "to_a", b)
        there = {"a": a, "a → b": fake_b, "a → b → a": self.translated(state, "to_a", fake_b)}
        back = {"b": b, "b → a": fake_a, "b → a → b": self.translated(state, "to_b", fake_a)}
        truth = domains.truth(batch)
        if truth is not None:
            there["truth"] = truth
        return {"to_b": domains.strips(there), "to_a": domains.strips(back)}

    def with_options(self, options: Mapping[str, Any]) -> "UnpairedTranslation":
        """Return the objective with another `to`. Raises UserError for other options, and for other domains."""
        to = domains.asked_domain(options)
        if to not in (None, "a", "b"):
            raise UserError(f"--to is {to!r}; the domains are a and b")
        return self if to is None else dataclasses.replace(self, to=to)
