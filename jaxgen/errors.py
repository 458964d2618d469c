"""What a user's mistake looks like."""


class UserError(Exception):
    """A mistake that the user can fix: one or two lines that name the cause and the fix (exit status 2)."""


def check_field(owner: object, name: str, holds: bool, need: str) -> None:
    """Raise UserError that names a dataclass' field, its value and what it must be, unless that holds."""
    if not holds:
        raise UserError(f"{type(owner).__name__}.{name} is {getattr(owner, name)!r}; it must be {need}")


class DataNotFound(UserError):
    """The data set is not on this machine. What can be known from the shapes alone can still be computed."""
