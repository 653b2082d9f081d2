"""Asking a client many things: so many at once, so many a minute, again where that helps, and each thing only once.

    with ledger(folder, budget_usd=5) as book:
        replies = together(client, book, Limits(), stage="dialogues", work=[ask_this, ask_that, ...])

where each piece of work is a function of the session that awaits `session.ask(request)` as often as it needs.
"""

import asyncio
import gc
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from personalign.clients.ledger import BudgetReached, Kept, Ledger
from personalign.clients.prices import price_of
from personalign.clients.protocol import Busy, Client, Lost, NoAnswer, Request
from personalign.errors import UserError
from personalign.progress import bar

T = TypeVar("T")
LONGEST_WAIT = 60.0  # seconds between two tries, unless the provider names more
LONGEST_PATIENCE = 900.0  # seconds: a provider that names more has no more for today
IN_A_ROW = 5  # requests without an answer, one after another, after which the fault is not theirs


class Limits(BaseModel):
    """How a provider may be asked."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    concurrency: int = Field(16, ge=1, description="requests in flight at once")
    requests_per_minute: float | None = Field(None, gt=0, description="requests sent a minute, at most")
    tokens_per_minute: float | None = Field(None, gt=0, description="tokens read and written a minute, at most")
    timeout: float = Field(120.0, gt=0, description="seconds until a request counts as lost")
    tries: int = Field(
        8,
        ge=1,
        description="how often a request is sent without an answer; while others are answered, waiting costs none",
    )


class Session:
    """One client, one ledger and one stage, within one event loop."""

    def __init__(
        self,
        client: Client,
        ledger: Ledger,
        limits: Limits,
        *,
        stage: str,
        prices: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.client, self.ledger, self.limits, self.stage = client, ledger, limits, stage
        self.price = price_of(client.name, prices)
        # on this machine nothing gets lost, and a model on a CPU may take its time
        self._timeout = None if client.name.startswith("local:") else limits.timeout
        self._slots = asyncio.Semaphore(limits.concurrency)
        self._requests = Pace(limits.requests_per_minute, self._rest)
        self._tokens = Pace(limits.tokens_per_minute, self._rest)
        self._resume = 0.0  # when the provider said that it wants to be asked again
        self._asked: dict[str, asyncio.Future[Kept]] = {}
        self._in_flight, self._landed = 0, asyncio.Event()
        self._answers, self._unanswered = 0, 0  # in all; one after another
        self._stop = asyncio.Event()
        self._error: Exception = UserError("")

    async def ask(self, request: Request) -> Kept:
        """The answer to a request, from the ledger where it has one; else sent, and sent again where that may help.

        Equal requests at the same time are sent once. An answer that was withheld ("filter") is an answer. Raises NoAnswer
        where this request is turned away or never answered; BudgetReached, and UserError where no request would be
        answered: after that nothing more is sent.
        """
        hashed = request.hashed(self.client.name)
        if (known := self.ledger.answered(hashed)) is not None:
            return known
        if (running := self._asked.get(hashed)) is not None:
            return await asyncio.shield(running)
        future = self._asked[hashed] = asyncio.get_running_loop().create_future()
        try:
            async with self._slots:
                kept = await self._send(request)
        except asyncio.CancelledError:
            future.cancel()
            raise
        except Exception as error:
            told = self._told(error)
            future.set_exception(told)
            future.exception()  # taken note of: nobody else may be waiting
            raise told from None
        finally:
            del self._asked[hashed]
        future.set_result(kept)
        return kept

    def stop(self, error: Exception) -> None:
        """Send nothing more; whoever asks from now on is told this error."""
        if not self._stop.is_set():
            self._error = error
            self._stop.set()

    def _told(self, error: Exception) -> Exception:
        """The error that the asker is told; all but one request's own stop the session."""
        if isinstance(error, NoAnswer):
            self._unanswered += 1
            if self._unanswered < IN_A_ROW:
                return error
            error = UserError(
                f"{self.client.name}: {IN_A_ROW} requests one after another got no answer (the last: {error}); what was "
                "answered is kept, and the same command goes on."
            )
        self.stop(error)
        return error

    async def _send(self, request: Request) -> Kept:
        numbers: list[int] = []
        failed, why = 0, ""
        while failed < self.limits.tries:
            await self._turn(request)
            numbers.append(await self._reserve(request))
            answers = self._answers
            try:
                kept = await self._once(request, numbers[-1])
            except (Busy, Lost) as error:
                why = str(error)
                # a provider that answers others is only busy; what is lost costs, so it is not asked for without end
                failed += isinstance(error, Lost) or self._answers == answers
                self._wait(error.after)
                if failed < self.limits.tries:
                    await self._rest(backoff(max(0, failed - 1)))
            except NoAnswer as error:
                error.requests = tuple(numbers)
                raise
            else:
                self._answers, self._unanswered = self._answers + 1, 0
                return kept
        none = NoAnswer(f"no answer: {self.client.name} was asked {len(numbers)} times (the last: {why}).")
        none.requests = tuple(numbers)
        raise none

    async def _reserve(self, request: Request) -> int:
        """The ledger's row for a request; where the budget is all reserved, wait for what those in flight will not use."""
        while True:
            if self._stop.is_set():
                raise self._error
            try:
                return self.ledger.intend(request, model=self.client.name, stage=self.stage, price=self.price)
            except BudgetReached as error:
                if not self._in_flight:
                    self.ledger.reached = error
                    raise
            await self._landed.wait()

    async def _once(self, request: Request, number: int) -> Kept:
        """Send a request once and write down what came of it."""
        used = most = sum(request.most_tokens)
        self._in_flight += 1
        try:
            async with asyncio.timeout(self._timeout):
                answer = await self.client.ask(request)
        except (Busy, UserError) as error:
            used = 0
            self.ledger.refuse(number, str(error))
            raise
        except TimeoutError:
            lost = Lost(f"no answer within {self.limits.timeout:g} s")
            self.ledger.lose(number, str(lost))
            raise lost from None
        except BaseException as error:
            self.ledger.lose(number, str(error) if isinstance(error, Lost) else f"given up ({type(error).__name__})")
            raise
        else:
            used = most if answer.usage is None else answer.usage.input + answer.usage.output
            return self.ledger.answer(number, answer, self.price)
        finally:
            self._tokens.give_back(most - used)
            self._in_flight -= 1
            self._landed.set()
            self._landed = asyncio.Event()

    def _wait(self, seconds: float | None) -> None:
        """What the provider says to one, everyone keeps to."""
        if seconds is None:
            return
        if seconds > LONGEST_PATIENCE:
            raise UserError(
                f"{self.client.name}: wants to be left alone for {seconds / 60:,.0f} minutes; what was answered is kept, and "
                "the same command goes on then."
            )
        self._resume = max(self._resume, asyncio.get_running_loop().time() + seconds)

    async def _turn(self, request: Request) -> None:
        """Wait until limits and provider allow another request."""
        await self._requests.take(1)
        await self._tokens.take(sum(request.most_tokens))
        while (wait := self._resume - asyncio.get_running_loop().time()) > 0:
            await self._rest(wait + random.uniform(0, 0.1 * wait))  # not all at the same instant

    async def _rest(self, seconds: float) -> None:
        """Sleep; raises the session's error as soon as it stops."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        if self._stop.is_set():
            raise self._error


def backoff(failed: int) -> float:
    """Seconds to wait after so many failures: twice as long each time, up to a minute, drawn from the upper half of it."""
    return min(LONGEST_WAIT, 0.5 * 2**failed) * random.uniform(0.5, 1)


class Pace:
    """So much a minute (None: without limit), spread evenly, in the order in which it was asked for.

    An amount begins when those before it are used up at that rate, so that no minute holds more than its share and the
    one that begins at its end.
    """

    LATE = 0.05  # seconds: as late as a busy machine wakes somebody up, which is no pause

    def __init__(self, a_minute: float | None, rest: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self.seconds_each = 60 / a_minute if a_minute is not None else 0.0
        self._rest, self._queue = rest, asyncio.Lock()
        self._free = 0.0  # when all that was taken is used up

    async def take(self, amount: float) -> None:
        """Wait for the turn of this much."""
        if not self.seconds_each:
            return
        clock = asyncio.get_running_loop().time
        async with self._queue:
            while (wait := self._free - clock()) > 0:
                await self._rest(min(wait, 0.1))  # what others give back meanwhile shortens it
            start = self._free if clock() - self._free < self.LATE else clock()
            self._free = start + amount * self.seconds_each

    def give_back(self, amount: float) -> None:
        """What was taken and not used."""
        self._free -= amount * self.seconds_each


def together(
    client: Client,
    ledger: Ledger,
    limits: Limits,
    *,
    stage: str,
    work: Sequence[Callable[[Session], Awaitable[T]]],
    prices: Mapping[str, Mapping[str, Any]] | None = None,
    done: Callable[[int, T], None] | None = None,
) -> list[T]:
    """Do pieces of work that ask the client, many at once; their results in order. `done(place, result)` as each is there.

    Where one fails, no new request is sent, those in flight are waited for (they are paid), and the first error is raised.
    Ctrl-C waits for nothing: what was in flight counts as spent.
    """

    async def everything() -> list[T]:
        session = Session(client, ledger, limits, stage=stage, prices=prices)
        found: dict[int, T] = {}
        errors: list[BaseException] = []
        queue = iter(range(len(work)))
        with bar(total=len(work), label=stage, unit="item") as progress:

            async def worker() -> None:
                for place in queue:
                    if errors:
                        return
                    try:
                        found[place] = await work[place](session)
                        if done is not None:
                            done(place, found[place])
                    except Exception as error:
                        session.stop(error)
                        errors.append(error)
                    progress.update()

            try:
                await asyncio.gather(*(worker() for _ in range(min(2 * limits.concurrency, len(work)))))
            finally:
                await client.close()
        if errors:
            raise next((error for error in errors if not isinstance(error, BudgetReached)), errors[0])
        return [found[place] for place in range(len(work))]

    gc.freeze()  # the providers' libraries are large: to look through them again and again takes a percent of the time
    try:
        return asyncio.run(everything())
    finally:
        gc.unfreeze()
