"""Texts as conditions: token ids go in, what text encoders make of them comes out, and some are dropped in training."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from jaxgen.errors import UserError, check_field
from jaxgen.learner import Learner
from jaxgen.nn.interfaces import Encoded, TextEncoder, require
from jaxgen.state import Net
from jaxgen.typing import Batch, Condition, Spec, Tree

PREPARED = ("text", "pooled", "text_mask")  # what a batch may hold of its texts, encoded once and for all
GUIDES = "guide:"  # begins the names of what the guiding model's own encoders made of a text
NEGATIVE, TO, SHARE = "negative_{}", "{}_to", "share"  # names of what samples may be asked for besides


@dataclasses.dataclass(frozen=True, kw_only=True)
class Text:
    """A text encoder, which learns or is frozen, and how its texts are dropped."""

    encoder: Learner
    tokens: str = "tokens"
    """The batch's array of token ids, i32[b n]."""
    empty: tuple[int, ...] = (1, 2)
    """Token ids of no text: start and end, for `Words`; (49406, 49407) for `Clip`."""
    padding: int = 0
    """The token id that a text is filled up with: 0 for `Words`, 49407 for `Clip`."""
    dropout: float = 0.0
    """Share of the texts that this encoder alone does not see in training (SD 3: 0.464 for each of three,
    arXiv:2403.03206, B.1), besides what drops all conditions."""
    joins: Literal["tokens", "channels"] = "tokens"
    """How it goes with the encoders before it: more tokens, or more channels of the same tokens."""

    def __post_init__(self) -> None:
        check_field(self, "dropout", 0 <= self.dropout <= 1, "a share of the texts, 0 to 1")

    def none(self, rows: int, length: int) -> Int[Array, "b n"]:
        """Return the token ids of no text, so many times."""
        row = [*self.empty, *[self.padding] * length][:length]
        return jnp.broadcast_to(jnp.array(row, jnp.int32), (rows, length))


Texts = Sequence[Text]


def learners(texts: Texts) -> dict[str, Learner]:
    """Return the encoders by name: "text", or "text_1", "text_2", …"""
    return dict(zip(_names(texts), (text.encoder for text in texts), strict=True))


def check(texts: Texts, spec: Spec) -> None:
    """Raise UserError where the encoders and the data do not fit each other."""
    for i, text in enumerate(texts):
        require(text.encoder.module, TextEncoder, f"text.{i}.encoder")
        if text.tokens not in spec:
            raise UserError(
                f"objective.text reads {text.tokens!r}, which the data does not have: add "
                "Tokenize(tokenizer=…) to the transforms of both pipelines"
            )
    if "text" in spec and not (frozen(texts) and all(text.dropout == 0 for text in texts)):
        raise UserError(
            "the data holds texts that were encoded before, but an encoder learns, or drops texts of its own; train on "
            "the source that was prepared, without Prepared"
        )
    if not texts and "tokens" in spec:
        raise UserError("the data has tokens, but the objective reads no text: set objective.text, or drop Tokenize")
    if len(texts) > 1 and texts[0].joins == "channels":
        raise UserError("objective.text.0.joins is 'channels', but no encoder comes before it; set it to 'tokens'")


def init(texts: Texts, key: PRNGKeyArray, spec: Spec, total_steps: int) -> dict[str, Net]:
    """Make the encoders' nets."""
    made = {}
    for i, (name, text) in enumerate(zip(_names(texts), texts, strict=True)):
        tokens = jnp.zeros((1, *spec[text.tokens].shape[1:]), jnp.int32)
        made[name] = text.encoder.init(jax.random.fold_in(key, i), tokens, total_steps=total_steps)
    return made


def frozen(texts: Texts) -> bool:
    """Say whether no encoder learns."""
    return all(text.encoder.optimizer is None for text in texts)


def dropped(texts: Texts, batch: Batch, drop: Bool[Array, " b"], key: PRNGKeyArray) -> dict[str, Array]:
    """Return what a step takes of a batch's texts, with no text in the rows of `drop` and where an encoder drops it.

    Those are token ids, or what frozen encoders made of them, where the batch holds that.
    """
    if "text" in batch:
        names = (*(text.tokens for text in texts), *(name for name in PREPARED if name in batch))
        return {"drop": drop, **{name: batch[name] for name in names}}
    rows = {}
    for i, text in enumerate(texts):
        tokens = batch[text.tokens]
        own = jax.random.bernoulli(jax.random.fold_in(key, i), text.dropout, drop.shape)
        rows[text.tokens] = jnp.where((drop | own)[:, None], text.none(*tokens.shape), tokens)
    return rows


def train(
    texts: Texts, params: Tree, stats: Tree, rows: Mapping[str, Array], key: PRNGKeyArray
) -> tuple[Condition, dict[str, Tree]]:
    """Return what the encoders make of the texts of a step's rows, and their new stats."""
    ready = "text" in rows
    outputs, moved = [], {}
    for i, (name, text) in enumerate(zip(_names(texts), texts, strict=True)):
        k = jax.random.fold_in(key, i)
        tokens = text.none(1, rows[text.tokens].shape[1]) if ready else rows[text.tokens]
        encoded, _, moved[name] = text.encoder.train(params[name], stats[name], k, tokens)
        outputs.append(encoded)
    made = _joined(texts, outputs)
    if not ready:
        return made, moved

    def kept(name: str, none: Array) -> Array:
        drop = rows["drop"].reshape(-1, *[1] * (none.ndim - 1))
        return jnp.where(drop, none, rows[name].astype(none.dtype))

    return {name: kept(name, none) for name, none in made.items()}, moved


def encode(texts: Texts, nets: Mapping[str, Net], asked: Condition) -> tuple[Condition, Condition]:
    """Return what the encoders make of what samples are asked for, and what stands for no text.

    `asked` holds token ids as a batch does. Where it also has `negative_tokens` these stand for no text. With
    `tokens_to` and `share` f32[b] a sample is asked for what lies that far on the way to another text.
    """
    if not texts:
        return {}, {}
    if "text" in asked:
        wanted = {name: asked[name] for name in PREPARED if name in asked}
    else:
        wanted = _encoded(texts, nets, {text.tokens: asked[text.tokens] for text in texts})
    if SHARE in asked:
        other = _encoded(texts, nets, {text.tokens: asked[TO.format(text.tokens)] for text in texts})
        wanted = _between(wanted, other, asked[SHARE])
    if any(NEGATIVE.format(text.tokens) in asked for text in texts):
        return wanted, _encoded(texts, nets, {text.tokens: asked[NEGATIVE.format(text.tokens)] for text in texts})
    none = _encoded(texts, nets, {text.tokens: text.none(1, asked[text.tokens].shape[1]) for text in texts})
    rows = len(asked[texts[0].tokens])
    return wanted, {name: jnp.broadcast_to(x, (rows, *x.shape[1:])) for name, x in none.items()}


def with_guides(condition: Condition, own: Condition) -> Condition:
    """Return a condition with what the guiding model's encoders made of the same text."""
    return {**condition, **{GUIDES + name: rows for name, rows in own.items()}}


def without_guides(condition: Condition) -> Condition:
    """Return what a net itself takes of a condition."""
    return {name: rows for name, rows in condition.items() if not name.startswith(GUIDES)}


def guides(condition: Condition) -> Condition:
    """Return what the guiding model takes of a condition."""
    own = {name.removeprefix(GUIDES): rows for name, rows in condition.items() if name.startswith(GUIDES)}
    return {**without_guides(condition), **own}


def _names(texts: Texts) -> list[str]:
    return ["text"] if len(texts) == 1 else [f"text_{i + 1}" for i in range(len(texts))]


def _encoded(texts: Texts, nets: Mapping[str, Net], rows: Mapping[str, Array]) -> Condition:
    outputs = [
        text.encoder.infer(nets[name], rows[text.tokens]) for name, text in zip(_names(texts), texts, strict=True)
    ]
    return _joined(texts, outputs)


def _joined(texts: Texts, outputs: Sequence[Encoded]) -> Condition:
    """Return one text for a net; narrower vectors are filled up with zeros (arXiv:2403.03206, section 4)."""
    if not outputs:
        return {}
    first, *others = outputs
    text, mask = first.text, first.mask
    for how, output in zip(texts[1:], others, strict=True):
        if how.joins == "channels":
            text = jnp.concatenate([text, output.text], axis=2)
            continue
        width = max(text.shape[2], output.text.shape[2])
        if mask is not None or output.mask is not None:
            mask = jnp.concatenate([_masked(text, mask), _masked(output.text, output.mask)], axis=1)
        text = jnp.concatenate([_widened(text, width), _widened(output.text, width)], axis=1)
    condition = {"text": text, "pooled": jnp.concatenate([output.pooled for output in outputs], axis=1)}
    return condition if mask is None else condition | {"text_mask": mask}


def _masked(text: Float[Array, "b n c"], mask: Bool[Array, "b n"] | None) -> Bool[Array, "b n"]:
    return jnp.ones(text.shape[:2], bool) if mask is None else mask


def _widened(text: Float[Array, "b n c"], width: int) -> Float[Array, "b n {width}"]:
    return jnp.pad(text, ((0, 0), (0, 0), (0, width - text.shape[2])))


def _between(a: Condition, b: Condition, share: Float[Array, " b"]) -> Condition:
    """Mix two texts' vectors; what either has a token for may be attended to."""

    def mixed(x: Any, y: Any) -> Any:
        if x.dtype == bool:
            return x | y
        s = share.reshape(-1, *[1] * (x.ndim - 1))
        return (1 - s) * x + s * y

    return {name: mixed(x, b[name]) for name, x in a.items()}
