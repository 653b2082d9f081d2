"""Which of the processes of an `accelerate launch` this is. One process alone needs nothing of this, torch included."""

import os
from datetime import timedelta


def rank() -> int:
    """Number of this process among all, from 0; 0 is the main one, which prints and writes."""
    return int(os.environ.get("RANK", 0))


def world() -> int:
    """How many processes work together."""
    return int(os.environ.get("WORLD_SIZE", 1))


def wait() -> None:
    """Until every process is here.

    The main process may work alone for hours while the others wait, so the time after which torch takes a silent process
    for lost is a day; one that dies is noticed at once by the launcher, which then ends them all.
    """
    if world() > 1:
        from accelerate import PartialState

        PartialState(timeout=timedelta(days=1)).wait_for_everyone()
