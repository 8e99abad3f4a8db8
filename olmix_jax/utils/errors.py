"""The exception for errors that the user can fix."""


class UserError(Exception):
    """Bad input. The message names the file, field or row and says what to change. Shown without a traceback."""
