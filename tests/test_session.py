"""Asking many things: within limits and budget, again where that helps, once where it does not. On a clock that jumps."""

import asyncio
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hurried import hurry
from personalign.clients import (
    Answer,
    BudgetReached,
    Busy,
    Kept,
    Ledger,
    Limits,
    Lost,
    NoAnswer,
    Request,
    Session,
    Usage,
    ledger,
    price_of,
    together,
)
from personalign.clients.ledger import DOLLAR
from personalign.clients.session import Pace
from personalign.errors import UserError

MODEL = "openai:gpt-4o-mini"


def asking(text: str, **more: Any) -> Request:
    return Request(({"role": "user", "content": text},), "test.en@1", **more)


def fine(text: str = "yes") -> Answer:
    return Answer(text, "end", Usage(10, 5))


class Provider:
    """A client that takes so long, then does what the function says; it notes when it was asked for what."""

    def __init__(
        self, does: Callable[[str, int], Answer | Exception] = lambda text, time: fine(text), seconds: float = 1.0
    ):
        self.name, self.does, self.seconds = MODEL, does, seconds
        self.asked: list[tuple[float, str]] = []
        self.now = self.most = 0

    async def ask(self, request: Request) -> Answer:
        text = request.messages[-1]["content"]
        self.asked.append((asyncio.get_running_loop().time(), text))
        times = sum(text == each for _, each in self.asked)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self.now -= 1
        found = self.does(text, times)
        if isinstance(found, Exception):
            raise found
        return found

    async def close(self) -> None:
        pass

    def times(self, text: str) -> list[float]:
        """When it was asked for this."""
        return [second for second, each in self.asked if each == text]


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Ledger]:
    with ledger(tmp_path) as found:
        yield found


def ask_all(book: Ledger, provider: Provider, *texts: str, **limits: Any) -> list[Kept | BaseException]:
    """What comes of each text, asked at the same time: an answer of the ledger, or what was raised."""

    async def run() -> list[Kept | BaseException]:
        session = Session(provider, book, Limits(**limits), stage="test")
        return await asyncio.gather(*(session.ask(asking(text)) for text in texts), return_exceptions=True)

    return hurry(run())


def statuses(book: Ledger) -> list[tuple[str, str | None]]:
    return list(book._db.execute("SELECT status, error FROM requests ORDER BY id"))


def only(found: list[Kept | BaseException]) -> Any:
    assert len(found) == 1
    return found[0]


# how many at once, how many a minute


def test_no_more_are_in_flight_than_there_are_slots(book):
    provider = Provider()
    ask_all(book, provider, *map(str, range(50)), concurrency=8)
    assert provider.most == 8
    assert max(second for second, _ in provider.asked) == 6  # 50 in rounds of 8, a second each


def test_equal_requests_at_the_same_time_are_sent_once(book):
    provider = Provider()
    found = ask_all(book, provider, "same", "same", "other", "same")
    assert sorted(text for _, text in provider.asked) == ["other", "same"]
    assert found[0] == found[1] == found[3] != found[2]


def test_what_the_ledger_has_is_not_sent(book):
    first = ask_all(book, Provider(), "a", "b")
    provider = Provider()
    assert ask_all(book, provider, "b", "a") == first[::-1]
    assert provider.asked == []


def test_draws_of_one_question_are_different_requests_with_different_seeds():
    first, second = asking("a", seed=7), asking("a", seed=7, draw=1)
    assert first.hashed(MODEL) != second.hashed(MODEL)
    assert first.own_seed() == 7 != second.own_seed()
    assert asking("a", draw=3).own_seed() is None


def most_in_a_minute(times: list[float]) -> int:
    return max(sum(start <= time < start + 60 - 1e-6 for time in times) for start in times)


@pytest.mark.parametrize("rate", [1, 30, 200])
def test_requests_a_minute_are_kept_in_every_minute_and_made_use_of(book, rate):
    count = 3 * rate + 1
    provider = Provider(seconds=0.01)
    ask_all(book, provider, *map(str, range(count)), requests_per_minute=rate, concurrency=64)
    times = [second for second, _ in provider.asked]
    assert most_in_a_minute(times) == rate
    assert max(times) == pytest.approx(180, abs=0.5)


def test_tokens_a_minute_are_kept_and_what_was_reserved_in_vain_is_given_back():
    """Each takes 100, reserves 400 and says so after a second: ten a minute of 1,000, in the long run."""
    times: list[float] = []

    async def one(pace: Pace) -> None:
        await pace.take(400)
        times.append(asyncio.get_running_loop().time())
        await asyncio.sleep(1)
        pace.give_back(300)

    async def run() -> None:
        pace = Pace(1000)
        queue = iter(range(100))

        async def worker() -> None:
            for _ in queue:
                await one(pace)

        await asyncio.gather(*(worker() for _ in range(16)))

    hurry(run())
    assert most_in_a_minute(times) <= 11  # a minute's ten, and the one that begins at its end
    assert max(times) == pytest.approx(600, rel=0.1)


def test_limits_in_tokens_reach_the_session(book):
    provider = Provider(lambda text, time: Answer("", "end", None), seconds=1)
    most = sum(asking("0").most_tokens)
    ask_all(book, provider, *"012345", tokens_per_minute=2 * most)
    assert [second for second, _ in provider.asked] == pytest.approx([0, 30, 60, 90, 120, 150], abs=0.2)


# again where that helps


def test_retry_after_is_kept_by_everyone(book):
    def does(text: str, time: int) -> Answer | Exception:
        return Busy("429", after=20) if text == "0" and time == 1 else fine()

    provider = Provider(does)
    found = ask_all(book, provider, *map(str, range(40)), concurrency=4)
    assert all(isinstance(each, Kept) for each in found)
    times = [second for second, _ in provider.asked]
    assert not [second for second in times if 1 < second < 21]  # said at the end of the first second
    assert len(times) == 41


def test_without_retry_after_the_waits_double_and_vary(book):
    provider = Provider(lambda text, time: Busy("529 overloaded") if time < 6 else fine(), seconds=0)
    assert isinstance(only(ask_all(book, provider, "a")), Kept)
    times = provider.times("a")
    waits = [after - before for before, after in zip(times, times[1:], strict=False)]
    for wait, most in zip(waits, (0.5, 1, 2, 4, 8), strict=True):
        assert most / 2 <= wait <= most
    assert len({wait / most for wait, most in zip(waits, (0.5, 1, 2, 4, 8), strict=True)}) > 1


def test_a_busy_provider_costs_nothing_and_a_lost_answer_all_that_it_can_have_cost(book):
    provider = Provider(lambda text, time: [Busy("500"), Lost("cut"), fine()][time - 1])
    kept = only(ask_all(book, provider, "a"))
    assert statuses(book) == [("refused", "500"), ("lost", "cut"), ("answered", None)] and kept.id == 3
    price = price_of(MODEL)
    most = asking("a").most_tokens
    assert book.spent == (price.most(*most) + price.cost(Usage(10, 5)), sum(most) + 15)


def test_a_timeout_is_a_lost_answer(book):
    provider = Provider(seconds=50)
    error = only(ask_all(book, provider, "a", timeout=5, tries=3))
    assert isinstance(error, NoAnswer) and "no answer within 5 s" in str(error)
    assert error.requests == (1, 2, 3)
    assert statuses(book) == [("lost", "no answer within 5 s")] * 3


def test_one_request_that_is_never_answered_does_not_hold_up_the_others(book):
    """A prompt on which a provider always fails (Gemini's 500): waited for while others are answered, then set apart."""
    provider = Provider(lambda text, time: Busy("500 internal") if text == "poison" else fine(text))
    found = ask_all(book, provider, "poison", *map(str, range(100)), concurrency=4)
    assert isinstance(found[0], NoAnswer) and "500 internal" in str(found[0])
    assert all(isinstance(each, Kept) for each in found[1:])
    assert len(found[0].requests) == len(provider.times("poison")) >= 8
    assert book.spent[1] == 100 * 15


def test_requests_turned_away_one_by_one_stop_nothing_but_five_in_a_row_do(book):
    provider = Provider(
        lambda text, time: NoAnswer("turned away: too long") if text.startswith("long") else fine(), seconds=1
    )
    found = ask_all(book, provider, "long 1", "b", "long 2", "long 3", "d", concurrency=1)
    assert [type(each) for each in found] == [NoAnswer, Kept, NoAnswer, NoAnswer, Kept]
    found = ask_all(book, provider, *(f"long {n}" for n in range(10, 17)), concurrency=1)
    assert [type(each) for each in found] == [NoAnswer] * 4 + [UserError] * 3
    assert "5 requests one after another got no answer" in str(found[-1])
    assert len(provider.asked) == 5 + 5  # the last two were not sent


def test_a_wrong_key_stops_everything_at_once(book):
    provider = Provider(lambda text, time: UserError("the key is not accepted") if text == "0" else Busy("429"))
    found = ask_all(book, provider, *map(str, range(50)), concurrency=4)
    assert all(isinstance(each, UserError) and "the key" in str(each) for each in found)
    assert len(provider.asked) == 4
    assert max(second for second, _ in provider.asked) < 60
    assert book.spent == (0, 0)


def test_the_others_do_not_wait_out_their_pauses_after_a_stop(book):
    def does(text: str, time: int) -> Answer | Exception:
        return Busy("429", after=600) if text == "a" else UserError("no credit left")

    async def run() -> float:
        session = Session(Provider(does), book, Limits(), stage="test")
        await asyncio.gather(session.ask(asking("a")), session.ask(asking("b")), return_exceptions=True)
        return asyncio.get_running_loop().time()

    assert hurry(run()) < 5


def test_a_provider_that_has_no_more_for_today_ends_the_job_with_a_sentence(book):
    provider = Provider(lambda text, time: Busy("429 daily limit", after=7200))
    error = only(ask_all(book, provider, "a"))
    assert isinstance(error, UserError) and "120 minutes" in str(error)


def test_an_answer_that_was_withheld_is_an_answer_and_not_asked_for_again(book):
    provider = Provider(lambda text, time: Answer("", "filter", Usage(10, 0)))
    first = only(ask_all(book, provider, "a"))
    assert first.answer.finish == "filter"
    assert only(ask_all(book, provider, "a")) == first and len(provider.asked) == 1


# the budget


def test_the_request_that_could_exceed_the_budget_is_not_sent(tmp_path):
    most = price_of(MODEL).most(*asking("0").most_tokens)
    cost = price_of(MODEL).cost(Usage(10, 5))
    with ledger(tmp_path, budget_usd=(most + 3 * cost) / DOLLAR) as book:
        provider = Provider()
        found = ask_all(book, provider, *"0123456", concurrency=1)
        assert [type(each) for each in found] == [Kept] * 4 + [BudgetReached] * 3
        assert len(provider.asked) == 4 and book.spent[0] == 4 * cost


def test_a_full_reservation_waits_for_what_those_in_flight_will_not_use(tmp_path):
    """Sixteen at once would reserve far more than the budget, and use far less."""
    most = price_of(MODEL).most(*asking("00").most_tokens)
    with ledger(tmp_path, budget_usd=3 * most / DOLLAR) as book:
        provider = Provider()
        found = ask_all(book, provider, *(f"{n:02}" for n in range(60)), concurrency=16)
        assert all(isinstance(each, Kept) for each in found)
        assert provider.most == 3 or provider.most == 2
        assert book.spent[0] == 60 * price_of(MODEL).cost(Usage(10, 5))


def test_tokens_have_a_budget_too(tmp_path):
    with ledger(tmp_path, budget_tokens=sum(asking("0").most_tokens) + 20) as book:
        found = ask_all(book, Provider(), *"01234", concurrency=1)
        assert [type(each) for each in found] == [Kept] * 2 + [BudgetReached] * 3
        assert "larger budget goes on" in str(found[-1])


BILLED = ("answer", "no usage", "filter", "lost", "timeout")
FREE = ("busy", "retry after", "turned away")
FAULTS = st.sampled_from((*BILLED, *FREE))


class Shop:
    """A provider that bills as it is asked, whatever comes of it, and up to the last token that a request can have."""

    name = MODEL

    def __init__(self, faults: list[list[str]], seed: int):
        self.faults, self.rng = {str(n): iter(each) for n, each in enumerate(faults)}, random.Random(seed)
        self.cost = self.tokens = 0
        self.answered: list[str] = []

    async def ask(self, request: Request) -> Answer:
        text = request.messages[-1]["content"]
        fault = next(self.faults[text], "answer")
        most_input, most_output = request.most_tokens
        read, written = (
            self.rng.randint(1, most_input),
            self.rng.choice([0, most_output, self.rng.randint(0, most_output)]),
        )
        usage = Usage(read, written, self.rng.randint(0, read))
        if fault in BILLED:
            self.cost += price_of(MODEL).cost(usage)
            self.tokens += usage.input + usage.output
        await asyncio.sleep(self.rng.uniform(0, 3) + 1000 * (fault == "timeout"))
        if fault in ("answer", "no usage", "filter"):
            self.answered.append(text)
            return Answer(
                f"to {text}", "filter" if fault == "filter" else "end", None if fault == "no usage" else usage
            )
        raise {
            "lost": Lost("cut"), "busy": Busy("500"), "retry after": Busy("429", 5.0), "turned away": NoAnswer("400")
        }[fault]  # fmt: skip

    async def close(self) -> None:
        pass


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    faults=st.lists(st.lists(FAULTS, max_size=4), min_size=1, max_size=80),
    seed=st.integers(0, 10**6),
    share=st.floats(0.0, 1.2),
    in_tokens=st.booleans(),
    kills=st.lists(st.floats(0.1, 40), max_size=3),
)
def test_no_budget_is_ever_exceeded_whatever_goes_wrong_and_whenever_it_is_killed(
    tmp_path_factory, faults, seed, share, in_tokens, kills
):
    """64 at once. A kill leaves the file as it is at that moment; the provider has billed all that was in flight."""
    folder = tmp_path_factory.mktemp("ledger")
    requests = [asking(str(n), max_tokens=40) for n in range(len(faults))]
    most = sum(sum(r.most_tokens) for r in requests), sum(price_of(MODEL).most(*r.most_tokens) for r in requests)
    budget = {"budget_tokens": int(share * most[0])} if in_tokens else {"budget_usd": share * most[1] / DOLLAR}
    shop = Shop(faults, seed)

    async def life(book: Ledger, seconds: float, grave: Path) -> list[Any] | None:
        session = Session(shop, book, Limits(concurrency=64, tries=3), stage="test")
        asked = asyncio.gather(*(session.ask(request) for request in requests), return_exceptions=True)
        done, _ = await asyncio.wait({asked}, timeout=seconds)
        if done:
            return asked.result()
        for file in folder.glob("ledger.sqlite*"):
            if not file.name.endswith("-shm"):  # what a killed process leaves
                shutil.copy(file, grave)
        asked.cancel()
        await asyncio.wait({asked})
        return None

    found = None
    for seconds in [*kills, 10**9]:
        grave = tmp_path_factory.mktemp("ledger")
        with ledger(folder, **budget) as book:
            found = hurry(life(book, seconds, grave))
            assert found is None or book.spent >= (shop.cost, 0) and book.spent[1] >= shop.tokens
        if found is not None:
            break
        folder = grave
        with ledger(folder, **budget) as book:  # what was in flight counts as spent
            assert book.spent[0] >= shop.cost and book.spent[1] >= shop.tokens
    assert shop.tokens <= budget.get("budget_tokens", 10**18)
    assert shop.cost <= round(budget.get("budget_usd", 10**6) * DOLLAR)
    assert found is not None
    with ledger(folder, **budget) as book:
        twice = book._db.execute(
            "SELECT COUNT(*) - COUNT(DISTINCT hash) FROM requests WHERE status = 'answered'"
        ).fetchone()
        assert twice == (0,)
        assert [isinstance(each, Kept) for each in found] == [
            book.answered(r.hashed(MODEL)) is not None for r in requests
        ]
    if not any(isinstance(each, BudgetReached) for each in found) and not any(faults):
        assert all(isinstance(each, Kept) for each in found)


# pieces of work, together


def test_results_come_in_order_and_each_is_told_as_it_is_there(book):
    provider = Provider(seconds=0)
    told: list[tuple[int, str]] = []

    def piece(n: int) -> Any:
        async def work(session: Session) -> str:
            await asyncio.sleep(0.002 * (5 - n))
            first = await session.ask(asking(f"{n}"))
            return (await session.ask(asking(f"{first.answer.text} again"))).answer.text

        return work

    found = together(
        provider, book, Limits(), stage="test", work=[piece(n) for n in range(5)],
        done=lambda place, text: told.append((place, text)),
    )  # fmt: skip
    assert found == [f"{n} again" for n in range(5)]
    assert sorted(told) == list(enumerate(found)) and told != sorted(told)


def test_an_error_in_a_piece_of_work_stops_the_requests_of_the_others_and_loses_none_in_flight(book):
    provider = Provider(seconds=0.05)

    async def chain(session: Session) -> None:
        for n in range(100):
            await session.ask(asking(f"{n}"))

    async def bug(session: Session) -> None:
        await session.ask(asking("x"))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        together(provider, book, Limits(), stage="test", work=[chain, bug])
    assert len(provider.asked) <= 4
    assert {status for status, _ in statuses(book)} == {"answered"}


def test_no_work_is_no_trouble(book):
    assert together(Provider(), book, Limits(), stage="test", work=[]) == []
