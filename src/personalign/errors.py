"""The one error that is shown to a user as a sentence and not as a traceback."""


class UserError(Exception):
    """Bad input: one clear sentence with file, row, field and remedy. The CLI prints it and exits 2."""
