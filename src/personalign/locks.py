"""One process at a time in a folder, by the system's own file locks: a killed process leaves none behind."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from personalign.errors import UserError

try:
    import fcntl
except ImportError:  # Windows: nothing keeps two processes apart there
    fcntl = None  # type: ignore[assignment]


@contextmanager
def locked(path: Path, refusal: str | None = None) -> Iterator[None]:
    """Hold the lock of the file at `path` (made where it is missing, and left there).

    Where another process holds it: UserError with `refusal`, or without one, wait. A file system without locks is used
    without them.
    """
    with path.open("a", encoding="utf-8") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (fcntl.LOCK_NB if refusal else 0))
            except BlockingIOError:
                raise UserError(refusal or "") from None
            except OSError:
                pass
        yield
