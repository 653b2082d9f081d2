"""Progress bars with an ETA, on a terminal and quietly in a log."""

import sys
from collections.abc import Iterable
from typing import Any, TypeVar

from tqdm import tqdm

from personalign.processes import rank

T = TypeVar("T")


def bar(items: Iterable[T] | None = None, label: str = "", **options: Any) -> "tqdm[T]":
    """A tqdm bar on stderr; where that is no terminal, a line at most every ten seconds."""
    options["disable"] = bool(options.get("disable")) or rank() > 0  # the main process speaks for all
    interval = 0.2 if sys.stderr.isatty() else 10.0
    return tqdm(items, desc=label, mininterval=interval, dynamic_ncols=sys.stderr.isatty(), **options)
