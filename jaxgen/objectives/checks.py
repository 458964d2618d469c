"""What several objectives check before anything is compiled: that the net and the data have the same classes."""

import flax.linen as nn
import jax

from jaxgen.errors import UserError
from jaxgen.learner import blank
from jaxgen.typing import Spec


def check_labels(name: str, net_classes: int, spec: Spec, classes: tuple[str, ...]) -> None:
    """Raise UserError unless a net of so many classes, the objective's field `name`, and the data agree on labels."""
    field = f"--objective.{name}.module.classes"
    if net_classes and "label" not in spec:
        raise UserError(f"the {name} has {net_classes} classes, but the data has no labels; set {field} 0")
    if "label" in spec and not net_classes:
        raise UserError(
            f"the data has labels, but the {name} is unconditional: add Unlabelled() to the transforms of both "
            f"pipelines, or set {field} {len(classes)}"
        )
    if net_classes not in (0, len(classes)):
        listed = ", ".join(classes[:4])
        raise UserError(f"the {name} has {net_classes} classes, but the data has {len(classes)}: {listed}…")


def check_divides(factor: int, shape: tuple[int, ...]) -> None:
    """Raise UserError unless an autoencoder, which makes one place of factor×factor pixels, divides images' sides."""
    if len(shape) != 3 or shape[0] % factor or shape[1] % factor:
        raise UserError(
            f"the autoencoder maps {factor}×{factor} pixels to one place of a latent, which does not divide images of "
            f"{'×'.join(map(str, shape))}; resize or crop them"
        )


def check_outputs(module: nn.Module, spec: Spec, classes: tuple[str, ...]) -> None:
    """Raise UserError unless the net has one output for each class, or a single one for two."""
    if len(classes) < 2:
        raise UserError(
            f"the data have {len(classes) or 'no'} class{'' if classes else 'es'} ({', '.join(classes)}), from which "
            "nothing can be told apart; name two or more, such as ('background', 'object')"
        )
    image = jax.eval_shape(lambda: blank(spec))
    logits, _ = jax.eval_shape(lambda x: module.init_with_output(jax.random.key(0), x, train=False), image)
    if logits.shape[-1] != len(classes) and (logits.shape[-1], len(classes)) != (1, 2):
        raise UserError(
            f"the net has {logits.shape[-1]} outputs, but the data has {len(classes)} classes "
            f"({', '.join(classes[:4])}{', …' if len(classes) > 4 else ''}); "
            f"set --objective.net.module.classes {len(classes)}"
        )


def check_groups(spec: Spec, microbatches: int, norm_groups: int) -> None:
    """Raise UserError unless a microbatch divides into groups with batch statistics of their own."""
    rows = spec["image"].shape[0] // microbatches
    if norm_groups < 1 or rows % norm_groups:
        raise UserError(
            f"the {rows} rows of a batch do not divide into {norm_groups} groups; "
            f"set --objective.norm-groups to a divisor of {rows}"
        )
