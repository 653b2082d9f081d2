"""Errors that are shown to a user as a sentence and not as a traceback."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class UserError(Exception):
    """Bad input: one clear sentence with file, row, field and remedy. The CLI prints it and exits 2."""


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Writing safetensors to `path`: its error for a full or read-only disk (no OSError) becomes one, as all others are."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        raise OSError(errno.EIO, str(error), str(path)) from error
