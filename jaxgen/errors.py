"""What a user's mistake looks like."""


class UserError(Exception):
    """A mistake that the user can fix: one or two lines that name the cause and the fix (exit status 2)."""


class DataNotFound(UserError):
    """The data set is not on this machine. What can be known from the shapes alone can still be computed."""
