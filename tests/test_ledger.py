"""The ledger: what was asked, answered and paid for, in a file that outlives its process."""

import json
import sqlite3
import unicodedata
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from personalign.clients import Answer, BudgetReached, Ledger, Price, Request, Usage, dollars, ledger, price_of
from personalign.clients.ledger import DOLLAR
from personalign.clients.prices import _table
from personalign.clients.protocol import said_usage
from personalign.errors import UserError
from personalign.ledger_view import LedgerView, ledger_view, read_spending

MODEL = "openai:gpt-4o-mini"
PRICE = price_of(MODEL)


def asking(text: str, **more: Any) -> Request:
    return Request(({"role": "user", "content": text},), more.pop("prompt", "test.en@1"), **more)


def intend(book: Ledger, text: str, stage: str = "traits", price: Price | None = PRICE, model: str = MODEL) -> int:
    return book.intend(asking(text), model=model, stage=stage, price=price)


def rows(path: Path) -> list[tuple[Any, ...]]:
    db = sqlite3.connect(path)
    try:
        return db.execute("SELECT status, text, cost FROM requests ORDER BY id").fetchall()
    finally:
        db.close()


# what stands in it


def test_the_intent_is_in_the_file_before_anything_is_sent_and_the_answer_before_anybody_reads_it(tmp_path):
    with ledger(tmp_path) as book:
        number = intend(book, "안녕?")
        assert rows(book.path) == [("sent", None, None)]
        kept = book.answer(number, Answer("반가워요.", "end", Usage(10, 5), "id-7"), PRICE)
        assert rows(book.path) == [("answered", "반가워요.", PRICE.cost(Usage(10, 5)))]
    with ledger(tmp_path) as book:
        assert book.answered(asking("안녕?").hashed(MODEL)) == kept
        assert book.answered(asking("안녕?").hashed("openai:gpt-4o")) is None


def test_a_row_says_who_was_asked_what_in_which_words_and_at_which_price(tmp_path):
    with ledger(tmp_path) as book:
        book.intend(asking("hi", seed=3, options={"stop": ["."]}), model=MODEL, stage="traits", price=PRICE)
        row = book._db.execute("SELECT stage, prompt, model, request, price FROM requests").fetchone()
    assert row[:3] == ("traits", "test.en@1", MODEL)
    sent = json.loads(row[3])
    assert (
        sent["messages"] == [{"role": "user", "content": "hi"}]
        and sent["seed"] == 3
        and sent["options"] == {"stop": ["."]}
    )
    assert json.loads(row[4]) == {"input": 0.15, "output": 0.6, "cached": 0.075, "date": _table()[MODEL]["date"]}


def test_what_was_in_flight_when_the_process_ended_counts_as_spent(tmp_path):
    first = Ledger(tmp_path / "ledger.sqlite")
    intend(first, "a")
    reserved = first.spent
    first._db.close()  # no farewell
    with ledger(tmp_path) as book:
        assert rows(book.path) == [("lost", None, None)]
        assert book.spent == reserved == (PRICE.most(*asking("a").most_tokens), sum(asking("a").most_tokens))
        assert book.answered(asking("a").hashed(MODEL)) is None  # and is asked for again


def test_turned_away_costs_nothing_lost_costs_the_most_and_an_answer_what_it_costs(tmp_path):
    most = PRICE.most(*asking("a").most_tokens)
    with ledger(tmp_path) as book:
        book.refuse(intend(book, "a"), "429")
        assert book.spent == (0, 0)
        book.lose(intend(book, "a"), "cut")
        assert book.spent[0] == most
        book.answer(intend(book, "a"), Answer("b", "end", Usage(100, 10, cached=50)), PRICE)
        spent = book.spent
        assert spent[0] == most + 50 * 150_000 + 50 * 75_000 + 10 * 600_000
    with ledger(tmp_path) as book:
        assert book.spent == spent


def test_an_answer_without_usage_keeps_its_whole_reservation(tmp_path):
    with ledger(tmp_path) as book:
        number = intend(book, "a")
        reserved = book.spent
        book.answer(number, Answer("b", "end", None), PRICE)
        assert book.spent == reserved
    with ledger(tmp_path) as book:
        assert book.spent == reserved


@pytest.mark.parametrize(
    "said",
    [(None, None), (0, 0), (-5, 5), (5, -5), (10, None), ("10", 5), (10, 5, 20), (10, 5, 6, 6), (10, 5, -1), (1.5, 2)],
)
def test_a_usage_that_cannot_be_is_none(said):
    assert said_usage(*said) is None


def test_a_usage_beyond_the_request_is_kept_and_ends_a_job_with_a_budget(tmp_path):
    most_input, most_output = asking("a").most_tokens
    with ledger(tmp_path, budget_usd=1) as book:
        number = intend(book, "a")
        with pytest.raises(UserError, match="a budget cannot be kept with it"):
            book.answer(number, Answer("b", "end", Usage(most_input, most_output + 1)), PRICE)
        assert book.answered(asking("a").hashed(MODEL)).answer.text == "b"
    with ledger(tmp_path / "free") as book:
        book.answer(intend(book, "a"), Answer("b", "end", Usage(10**9, 10**9)), PRICE)


def test_an_answer_is_given_once(tmp_path):
    with ledger(tmp_path) as book:
        number = intend(book, "a")
        book.answer(number, Answer("b", "end", Usage(1, 1)), PRICE)
        with pytest.raises(ValueError, match="not in flight"):
            book.answer(number, Answer("c", "end", Usage(1, 1)), PRICE)


def test_half_an_emoji_can_be_asked_hashed_and_kept(tmp_path):
    half = "\ud83d"
    with ledger(tmp_path) as book:
        request = asking(f"so {half}")
        number = book.intend(request, model=MODEL, stage="traits", price=PRICE)
        book.answer(number, Answer(f"ha {half}", "length", Usage(1, 1), half), PRICE)
        assert book.answered(request.hashed(MODEL)).answer.text == "ha \ufffd"
    assert asking("\ud83d\ude00").messages[0]["content"] == "😀"  # two halves are one


# who may write it


def test_two_processes_cannot_write_one_ledger(tmp_path):
    with ledger(tmp_path), pytest.raises(UserError, match="another process is writing"), ledger(tmp_path):
        pass


def test_a_file_that_is_no_ledger_is_named(tmp_path):
    (tmp_path / "ledger.sqlite").write_text("no database at all, but long enough to be one" * 10)
    with pytest.raises(UserError, match="is no ledger of personalign"), ledger(tmp_path):
        pass


def test_a_disk_that_takes_no_more_is_an_error_of_the_disk(tmp_path):
    with ledger(tmp_path) as book:
        book._db.execute("PRAGMA max_page_count = 1")
        with pytest.raises(OSError, match="full") as error:
            for n in range(100):
                intend(book, f"{n} " + "x" * 3000)
        assert str(book.path) in str(error.value)


# the budget and money


def test_a_budget_is_kept_to_the_pico_dollar(tmp_path):
    most = PRICE.most(*asking("a").most_tokens)
    with ledger(tmp_path / "enough", budget_usd=most / DOLLAR) as book:
        intend(book, "a")
    with ledger(tmp_path / "short", budget_usd=(most - 1) / DOLLAR) as book:
        with pytest.raises(BudgetReached, match="is reached"):
            intend(book, "a")
        assert rows(book.path) == []


def test_the_budget_holds_across_runs_and_a_larger_one_goes_on(tmp_path):
    most = PRICE.most(*asking("a").most_tokens)
    with ledger(tmp_path, budget_usd=1.5 * most / DOLLAR) as book:
        book.lose(intend(book, "a"), "cut")
    with ledger(tmp_path, budget_usd=1.5 * most / DOLLAR) as book, pytest.raises(BudgetReached):
        intend(book, "b")
    with ledger(tmp_path, budget_usd=2 * most / DOLLAR) as book:
        assert book.left() == (most, None)
        intend(book, "b")


def test_a_budget_in_dollars_needs_a_price(tmp_path):
    with ledger(tmp_path, budget_usd=1) as book, pytest.raises(UserError, match="make.prices"):
        intend(book, "a", price=None, model="openai:new")
    with ledger(tmp_path, budget_tokens=10**6) as book:
        intend(book, "a", price=None, model="openai:new")


@pytest.mark.parametrize("budget", [-1, float("nan"), float("inf")])
def test_a_budget_is_a_number(tmp_path, budget):
    with pytest.raises(UserError, match="a budget of"), ledger(tmp_path, budget_usd=budget):
        pass


@given(
    st.floats(0, 100).map(lambda x: round(x, 4)), st.floats(0, 100).map(lambda x: round(x, 4)),
    st.integers(0, 10**6), st.integers(0, 10**6),
)  # fmt: skip
def test_money_is_counted_in_whole_numbers(read, written, input, output):
    exact = (Decimal(str(read)) * input + Decimal(str(written)) * output) * 10**6
    assert Price(read, written).cost(Usage(input, output)) == Price(read, written).most(input, output) == exact


@given(
    st.text(), st.integers(0, 100), st.integers(0, 100), st.integers(0, 100), st.integers(0, 100),
    st.tuples(*[st.floats(0, 10)] * 4),
)  # fmt: skip
def test_no_usage_within_the_bound_costs_more_than_the_bound(text, plain, cached, cache_written, output, prices):
    price = Price(*prices)
    usage = Usage(plain + cached + cache_written, output, cached, cache_written)
    assert price.cost(usage) <= price.most(usage.input, usage.output)


@given(st.lists(st.text(), min_size=1, max_size=4))
def test_a_request_cannot_have_more_tokens_than_bytes(texts):
    request = Request(tuple({"role": "user", "content": text} for text in texts), "test.en@1", max_tokens=7)
    most_input, most_output = request.most_tokens
    for form in (str, lambda text: unicodedata.normalize("NFKC", text)):
        assert most_input >= sum(len(form(each["content"]).encode()) for each in request.messages) + 32 * len(texts)
    assert most_output == 7
    with_schema = Request(request.messages, "test.en@1", schema={"type": "object"}).most_tokens
    assert with_schema[0] >= most_input + len('{"type": "object"}')


def test_dollars_are_written_as_people_read_them():
    assert [dollars(each) for each in (0, 12_300_000_000, 3 * DOLLAR, 1234 * DOLLAR)] == [
        "$0.0000",
        "$0.0123",
        "$3.00",
        "$1,234.00",
    ]


# prices


def test_a_dated_model_has_the_price_of_its_name_and_a_longer_name_goes_first():
    assert price_of("openai:gpt-4o-mini-2024-07-18") == price_of("openai:gpt-4o-mini")
    assert price_of("openai:gpt-4o-2024-05-13") != price_of("openai:gpt-4o") == price_of("openai:gpt-4o-2024-08-06")
    assert price_of("anthropic:claude-haiku-4-5-20251001") == price_of("anthropic:claude-haiku-4-5")
    assert price_of("openai:gpt-4o-mini-audio") is None


def test_what_runs_here_is_free_and_elsewhere_unknown():
    assert (
        price_of("local:smollm2")
        == price_of("http://127.0.0.1:8000#m")
        == price_of("http://localhost#m")
        == Price(0, 0)
    )
    assert price_of("http://10.0.0.7:8000#m") is None


def test_own_prices_go_first_and_must_be_prices():
    assert price_of(MODEL, {MODEL: {"input": 1, "output": 2}}) == Price(1, 2)
    for wrong in (
        {"input": -1, "output": 2},
        {"input": 1},
        {"input": 1, "output": 2, "per": "day"},
        {"input": float("nan"), "output": 1},
    ):
        with pytest.raises(UserError, match=f"make.prices: {MODEL}"):
            price_of(MODEL, {MODEL: wrong})


def test_every_price_of_the_table_has_its_day():
    for model, prices in _table().items():
        price = price_of(model)
        assert price is not None and price.date[:2] == "20" and 0 < price.input <= price.output, model
        assert price.cached is None or price.cached < price.input
        assert prices


# `data ledger`


@pytest.fixture
def spent(tmp_path: Path) -> Path:
    with ledger(tmp_path) as book:
        book.answer(intend(book, "a"), Answer("x", "end", Usage(1000, 200, cached=400)), PRICE)
        book.answer(intend(book, "b"), Answer("", "filter", Usage(500, 0)), PRICE)
        repair = asking("c", prompt="test.en@1+repair")
        book.answer(
            book.intend(repair, model=MODEL, stage="traits", price=PRICE), Answer("x", "end", Usage(10, 10)), PRICE
        )
        book.refuse(intend(book, "d"), "429")
        book.lose(intend(book, "e", stage="dialogues"), "cut")
        book.answer(intend(book, "f", "dialogues", None, "openai:new"), Answer("x", "end", Usage(7, 7)), None)
    return tmp_path


def test_spending_is_shown_by_stage_and_model(spent, capsys):
    ledger_view(LedgerView(run=str(spent)))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [
        "stage",
        "model",
        "answered",
        "repaired",
        "withheld",
        "lost",
        "tokens",
        "in",
        "tokens",
        "out",
        "dollars",
    ]
    assert lines[1].split() == ["traits", MODEL, "3", "1", "1", "0", "1,510", "210", "$0.0003"]
    assert lines[2].split()[:6] == ["dialogues", MODEL, "0", "0", "0", "1"]
    assert lines[3].split() == ["dialogues", "openai:new", "1", "0", "0", "0", "7", "7", "$0.0000"]
    assert lines[4].split()[:5] == ["total", "4", "1", "1", "1"]
    said = lines[-1]
    assert (
        "1 were turned away" in said
        and "the most that it can have cost" in said
        and "1 went to a model whose price is not" in said
    )


def test_spending_as_json_adds_up(spent, capsys):
    ledger_view(LedgerView.model_validate({"run": str(spent), "json": True}))
    found = json.loads(capsys.readouterr().out)
    with ledger(spent) as book:
        assert found["total"]["cost"] == pytest.approx(book.spent[0] / DOLLAR, abs=1e-12)
        assert found["total"]["input"] + found["total"]["output"] == book.spent[1]
    assert sum(stage["answered"] for stage in found["stages"]) == found["total"]["answered"] == 4


def test_a_ledger_can_be_looked_at_while_it_is_written(tmp_path):
    with ledger(tmp_path) as book:
        number = intend(book, "a")
        (row,) = read_spending(tmp_path / "ledger.sqlite")
        assert row["in_flight"] == 1 and row["lost"] == 0 and row["cost"] == book.spent[0]
        book.answer(number, Answer("x", "end", Usage(1, 1)), PRICE)  # nobody has called it lost


def test_no_ledger_and_an_empty_one(tmp_path, capsys):
    with pytest.raises(UserError, match="there is no ledger"):
        ledger_view(LedgerView(run=str(tmp_path)))
    with ledger(tmp_path):
        pass
    ledger_view(LedgerView(run=str(tmp_path)))
    assert "nothing was asked for yet" in capsys.readouterr().out
    ledger_view(LedgerView.model_validate({"run": str(tmp_path), "json": True}))
    assert json.loads(capsys.readouterr().out)["stages"] == []
