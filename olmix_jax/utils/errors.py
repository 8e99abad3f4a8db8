"""The one exception that is the user's to mend."""


class UserError(Exception):
    """Bad input: the message names the file, field or row and says what to do. Shown without a traceback."""
