"""An event loop whose clock jumps to the next thing that happens: minutes of waiting in no time, and to the second.

hurry(something())      # as asyncio.run, for coroutines that neither use the network nor threads
"""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Jump(selectors.DefaultSelector):
    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        assert timeout is not None, "everybody waits, and nothing will ever happen"
        self.now += max(0.0, timeout)
        return super().select(0)


class Hurried(asyncio.SelectorEventLoop):
    """See the module."""

    def __init__(self) -> None:
        self.jump = _Jump()
        super().__init__(self.jump)

    def time(self) -> float:
        return self.jump.now


def hurry(what: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a clock of its own, which begins at 0."""
    with asyncio.Runner(loop_factory=Hurried) as runner:
        return runner.run(what)
