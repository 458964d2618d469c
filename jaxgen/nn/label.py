"""What every conditional net asks of its label: that there is one where the net has classes, and none where not."""

from jaxtyping import Array, Int

from jaxgen.errors import UserError


def check_label(label: Int[Array, " b"] | None, classes: int) -> None:
    """Raise UserError unless class ids come with a net that has `classes`, and none with one that has 0."""
    if label is None and classes:
        raise UserError(
            f"the net is told apart {classes} classes and got no label; give it class ids, or set `classes=0`"
        )
    if label is not None and not classes:
        raise UserError("the net got class ids and has classes=0; set its `classes` to those of the data, or drop them")
