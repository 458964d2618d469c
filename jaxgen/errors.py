"""What a user's mistake looks like."""


class UserError(Exception):
    """A mistake that the user can mend: one or two lines that name the cause and the mend (exit status 2)."""
