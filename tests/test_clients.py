"""The three providers through their own SDKs, against a server that speaks their wire formats and has their faults."""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from personalign.clients import (
    Answer,
    BudgetReached,
    Kept,
    Limits,
    NoAnswer,
    Request,
    Session,
    Usage,
    client,
    ledger,
    price_of,
    together,
)
from personalign.clients.failures import retry_after
from personalign.clients.keys import Key
from personalign.clients.ledger import DOLLAR
from personalign.clients.openai import without_lengths
from personalign.errors import UserError
from providers import Providers, providers

NAMES = {
    "openai": "openai:gpt-4o-mini", "anthropic": "anthropic:claude-haiku-4-5", "gemini": "gemini:gemini-2.5-flash"
}  # fmt: skip
SCHEMA = {
    "type": "object", "properties": {"word": {"type": "string", "minLength": 1}}, "required": ["word"],
    "additionalProperties": False,
}  # fmt: skip
kinds = pytest.mark.parametrize("kind", NAMES)


@pytest.fixture(scope="module")
def running() -> Iterator[Providers]:
    with providers() as server:
        yield server


@pytest.fixture
def server(running: Providers, monkeypatch: pytest.MonkeyPatch) -> Providers:
    running.reset()
    monkeypatch.setattr("personalign.clients.session.backoff", lambda failed: 0.02)  # test_session.py has the real one
    monkeypatch.setenv("OPENAI_BASE_URL", running.openai)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", running.address)
    monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", running.address)
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY"):
        monkeypatch.setenv(name, "sk-test-0123456789")
    return running


def asking(text: str, **more: Any) -> Request:
    return Request(({"role": "system", "content": "Be brief."}, {"role": "user", "content": text}), "test.en@1", **more)


def ask_all(folder: Path, name: str, *requests: Request, budget_usd: float | None = None, **limits: Any) -> list[Any]:
    """What comes of each request, asked at the same time: an answer of the ledger, or the error."""

    def piece(request: Request) -> Any:
        async def work(session: Session) -> Kept | Exception:
            try:
                return await session.ask(request)
            except UserError as error:
                return error

        return work

    patient = Limits(**{"timeout": 600, **limits})  # a busy machine is no fault of the provider
    with ledger(folder, budget_usd=budget_usd) as book:
        return together(client(name), book, patient, stage="test", work=[piece(each) for each in requests])


def in_ledger(folder: Path) -> list[tuple[Any, ...]]:
    db = sqlite3.connect(folder / "ledger.sqlite")
    try:
        return db.execute("SELECT status, error FROM requests ORDER BY id").fetchall()
    finally:
        db.close()


def spent(folder: Path) -> tuple[int, int]:
    with ledger(folder) as book:
        return book.spent


# what is sent and what comes back


@kinds
def test_an_answer_with_its_usage_its_end_and_its_id(kind, server, tmp_path):
    (kept,) = ask_all(tmp_path, NAMES[kind], asking("안녕?"))
    assert kept.answer.text == f"{kind} answers: 안녕?" and kept.answer.finish == "end" and kept.answer.id
    assert [kept.answer.usage.input, kept.answer.usage.output] == server.billed()


def test_openai_is_sent_its_own_names_and_no_more_than_is_said(server, tmp_path):
    ask_all(tmp_path, NAMES["openai"], asking("a", max_tokens=77))
    ask_all(
        tmp_path,
        NAMES["openai"],
        asking("b", seed=5, temperature=0.2, schema=SCHEMA, options={"reasoning_effort": "low"}),
    )
    plain, more = (each["body"] for each in server.seen())
    assert plain == {
        "model": "gpt-4o-mini", "max_completion_tokens": 77,
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "a"}],
    }  # fmt: skip
    assert more["seed"] == 5 and more["temperature"] == 0.2 and more["reasoning_effort"] == "low"
    sent = more["response_format"]["json_schema"]
    assert sent["strict"] and sent["schema"]["properties"] == {"word": {"type": "string"}}


def test_a_compatible_server_is_told_everything_and_needs_no_key(server, tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    request = asking("a", temperature=1.0, options={"extra_body": {"min_p": 0.1}})
    (kept,) = ask_all(tmp_path, f"{server.address}#some/model", request, budget_usd=0)  # what runs here is free
    (seen,) = server.seen()
    assert seen["path"] == "/v1/chat/completions" and kept.answer.text == "openai answers: a"
    said = seen["body"]
    assert (said["model"], said["max_tokens"], said["temperature"], said["top_p"], said["min_p"]) == (
        "some/model",
        1024,
        1,
        1,
        0.1,
    )


def test_anthropic_is_told_to_cache_the_system_prompt_and_the_cache_is_paid_for(server, tmp_path):
    long = Request(
        ({"role": "system", "content": "Be brief. " * 50}, {"role": "user", "content": "a"}), "test.en@1", schema=SCHEMA
    )
    (kept,) = ask_all(tmp_path, NAMES["anthropic"], long)
    (seen,) = server.seen()
    said = seen["body"]
    assert said["system"] == [
        {"type": "text", "text": "Be brief. " * 49 + "Be brief. ", "cache_control": {"type": "ephemeral"}}
    ]
    assert said["messages"] == [{"role": "user", "content": "a"}] and "temperature" not in said
    assert "minLength" not in said["output_config"]["format"]["schema"]["properties"]["word"]
    usage = kept.answer.usage
    assert usage.cache_written > 0
    plain = usage.input - usage.cache_written
    assert spent(tmp_path)[0] == plain * 1_000_000 + usage.cache_written * 1_250_000 + usage.output * 5_000_000


def test_gemini_is_told_the_safety_thresholds_and_its_thoughts_are_no_text_and_are_paid_for(server, tmp_path):
    conversation = (
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c d e"},
    )
    request = Request(conversation, "test.en@1", seed=1, schema=SCHEMA, options={"safety": "BLOCK_NONE"})
    (kept,) = ask_all(tmp_path, NAMES["gemini"], request)
    (seen,) = server.seen()
    said = seen["body"]
    assert [each["role"] for each in said["contents"]] == ["user", "model", "user"]
    assert {each["threshold"] for each in said["safetySettings"]} == {"BLOCK_NONE"} and len(said["safetySettings"]) == 4
    assert said["generationConfig"]["responseJsonSchema"]["properties"]["word"] == {"type": "string", "minLength": 1}
    assert kept.answer.text == "gemini answers: c d e" and kept.answer.usage.output == 5


@kinds
def test_an_answer_that_was_cut_at_its_limit_says_so(kind, server, tmp_path):
    (kept,) = ask_all(tmp_path, NAMES[kind], asking("one two three four", max_tokens=4))
    assert kept.answer.finish == "length" and kept.answer.text == f"{kind} answers: one two"


@kinds
def test_an_option_that_could_multiply_the_bill_is_not_sent(kind, server, tmp_path):
    for options in ({"n": 4}, {"max_tokens": 10**6}, {"tools": []}, {"extra_body": {"n": 4}}):
        (error,) = ask_all(tmp_path, NAMES[kind], asking("a", options=options))
        assert isinstance(error, UserError) and "cannot be asked with" in str(error)
    (error,) = ask_all(tmp_path, f"{server.address}#m", asking("a", options={"extra_body": {"n": 4}}))
    assert "cannot be asked with n" in str(error)
    assert server.seen() == [] and spent(tmp_path) == (0, 0)


@kinds
def test_a_model_that_knows_no_schemas_is_asked_without_and_from_then_on_always(kind, server, tmp_path):
    server.next_faults(["noschema"] * 20)
    found = ask_all(tmp_path, NAMES[kind], *(asking(str(n), schema=SCHEMA) for n in range(5)), concurrency=1)
    assert all(isinstance(each, Kept) for each in found)
    assert len(server.seen()) == 6  # once with, and five times without
    assert [status for status, _ in in_ledger(tmp_path)] == ["answered"] * 5


@pytest.mark.parametrize("kind", ["openai", "anthropic", "gemini"])
def test_a_model_that_takes_no_temperature_is_asked_without_and_says_so_once(kind, server, tmp_path, capsys):
    server.next_faults(["notemperature"] * 20)
    requests = [asking(str(n), temperature=0.3, schema=SCHEMA) for n in range(4)]
    found = ask_all(tmp_path, NAMES[kind], *requests, concurrency=1)
    assert all(isinstance(each, Kept) for each in found)
    first, *rest = (each["body"] for each in server.seen())
    assert "0.3" in str(first) and len(rest) == 4 and "0.3" not in str(rest)
    assert all("word" in str(each) for each in rest)  # the schema was not to blame
    assert capsys.readouterr().err.count("takes no temperature") == 1


def test_a_prompt_that_is_turned_away_says_nothing_about_schemas(server, tmp_path):
    found = ask_all(
        tmp_path,
        NAMES["openai"],
        asking("<<toolong, toolong>>", schema=SCHEMA),
        asking("b", schema=SCHEMA),
        concurrency=1,
    )
    assert isinstance(found[0], NoAnswer) and "longer than the context window" in str(found[0])
    assert isinstance(found[1], Kept) and "response_format" in server.seen()[-1]["body"]


def test_lengths_of_strings_are_left_out_and_properties_of_that_name_are_not():
    schema = {
        "type": "object",
        "properties": {"minLength": {"type": "string", "maxLength": 3}},
        "required": ["minLength"],
    }
    assert without_lengths(schema) == {**schema, "properties": {"minLength": {"type": "string"}}}


# faults


@kinds
@pytest.mark.parametrize("fault", ["429", "500", "503", "529"])
def test_a_busy_provider_is_asked_again_and_costs_nothing(kind, fault, server, tmp_path):
    (kept,) = ask_all(tmp_path, NAMES[kind], asking(f"<<{fault}>>"))
    (refused, why), answered = in_ledger(tmp_path)
    assert refused == "refused" and why.startswith(fault) and answered == ("answered", None)
    assert spent(tmp_path)[1] == sum(server.billed())


@kinds
@pytest.mark.parametrize("fault", ["cut", "cutchunks", "drop", "garbage", "empty", "504"])
def test_what_got_lost_is_asked_again_and_counts_as_spent(kind, fault, server, tmp_path):
    request = asking(f"<<{fault}>>")
    (kept,) = ask_all(tmp_path, NAMES[kind], request)
    assert kept.answer.text.startswith(f"{kind} answers")
    assert [status for status, _ in in_ledger(tmp_path)] == ["lost", "answered"]
    assert spent(tmp_path)[1] == sum(request.most_tokens) + sum(server.seen()[-1]["billed"]) >= sum(server.billed())


@kinds
def test_what_takes_too_long_is_lost(kind, server, tmp_path):
    """And the connection with it: an answer that comes late is nobody else's."""
    ask_all(tmp_path, NAMES[kind], asking("first of all, the SDK is loaded"))
    (error,) = ask_all(tmp_path, NAMES[kind], asking("<<timeout, timeout>>"), timeout=0.2, tries=2)
    assert "no answer within 0.2 s" in str(error) and len(error.requests) == 2
    assert [status for status, _ in in_ledger(tmp_path)] == ["answered", "lost", "lost"]
    assert spent(tmp_path)[1] >= sum(server.billed())


@kinds
def test_a_content_filter_is_a_result_of_its_own_and_is_not_asked_again(kind, server, tmp_path):
    for _ in range(2):
        (kept,) = ask_all(tmp_path, NAMES[kind], asking("<<filter>>"))
        assert (kept.answer.text, kept.answer.finish) == ("", "filter")
    assert len(server.seen()) == 1 and spent(tmp_path)[1] == sum(server.billed())


def test_what_azure_filters_before_it_answers_is_a_filtered_answer_too_and_may_be_billed(server, tmp_path):
    (kept,) = ask_all(tmp_path, NAMES["openai"], asking("<<azure>>"))
    assert kept.answer == Answer("", "filter", None)
    assert spent(tmp_path)[1] == sum(asking("<<azure>>").most_tokens)


@kinds
@pytest.mark.parametrize("after", ["0.4", "1"])
def test_retry_after_is_kept_by_everyone(kind, after, server, tmp_path):
    """In seconds, in milliseconds (OpenAI), and in Gemini's RetryInfo. By our own clock: the ledger has it all."""
    server.reset(delay=0.02)
    ask_all(tmp_path, NAMES[kind], *map(asking, [f"<<429={after}>>", *map(str, range(20))]), concurrency=4)
    db = sqlite3.connect(tmp_path / "ledger.sqlite")
    (told,) = db.execute("SELECT ended FROM requests WHERE status = 'refused'").fetchone()
    sent = [second for (second,) in db.execute("SELECT sent FROM requests")]
    db.close()
    assert len(sent) == 22
    assert not [second for second in sent if told < second < told + float(after) - 0.01]


def test_retry_after_is_read_in_all_its_forms():
    assert retry_after({"Retry-After": "7"}) == 7 and retry_after({"retry-after": "1.5"}) == 1.5
    assert retry_after({"retry-after-ms": "250", "retry-after": "1"}) == 0.25
    assert 28 < (retry_after({"Retry-After": formatdate(time.time() + 30, usegmt=True)}) or 0) <= 30
    assert retry_after({"Retry-After": formatdate(time.time() - 30, usegmt=True)}) == 0
    assert retry_after({}, {"error": {"details": [{"retryDelay": "21.5s"}]}}) == 21.5
    for nothing in ({}, {"retry-after": "soon"}, {"retry-after": "²"}, {"retry-after": "-1"}, {"retry-after": "nan"}):
        assert retry_after(nothing) is None


@kinds
def test_an_account_without_credit_is_not_asked_again(kind, server, tmp_path):
    server.next_faults(["quota"] * 50)
    found = ask_all(tmp_path, NAMES[kind], *(asking(str(n)) for n in range(20)), concurrency=2)
    assert all("no credit left" in str(error) for error in found)
    assert len(server.seen()) == 2 and spent(tmp_path) == (0, 0)


@kinds
def test_no_connection_is_no_bill(kind, server, tmp_path, monkeypatch):
    for name in ("OPENAI_BASE_URL", "ANTHROPIC_BASE_URL", "GOOGLE_GEMINI_BASE_URL"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/v1")
    (error,) = ask_all(tmp_path, NAMES[kind], asking("a"), tries=2)
    assert "no connection" in str(error) and spent(tmp_path) == (0, 0)


@kinds
def test_usage_that_is_missing_or_impossible_is_the_most_that_it_can_have_been(kind, server, tmp_path):
    requests = [asking(f"<<{fault}>>") for fault in ("nousage", "negativeusage", "zerousage")]
    found = ask_all(tmp_path, NAMES[kind], *requests)
    assert [each.answer.usage for each in found] == [None] * 3
    assert spent(tmp_path)[1] == sum(sum(each.most_tokens) for each in requests)


@kinds
def test_usage_beyond_the_request_ends_a_job_with_a_budget_and_keeps_the_answer(kind, server, tmp_path):
    (error,) = ask_all(tmp_path, NAMES[kind], asking("<<hugeusage>>"), budget_usd=1)
    assert isinstance(error, UserError) and "a budget cannot be kept" in str(error)
    (kept,) = ask_all(tmp_path, NAMES[kind], asking("<<hugeusage>>"))
    assert kept.answer.usage == Usage(10**9, 10**9, kept.answer.usage.cached, kept.answer.usage.cache_written)
    assert len(server.seen()) == 1


@kinds
def test_an_emoji_that_was_cut_by_the_limit_is_kept(kind, server, tmp_path):
    (kept,) = ask_all(tmp_path, NAMES[kind], asking("<<half>>"))
    assert kept.answer.text.endswith("\ufffd")
    assert ask_all(tmp_path, NAMES[kind], asking("<<half>>")) == [kept]


# all together


FAULTS = ("429", "429=0.2", "500", "cut", "drop", "garbage", "nousage", "filter", "504")


@kinds
def test_nothing_is_lost_and_nothing_twice_among_hundreds_at_once(kind, server, tmp_path):
    rng = random.Random(3)
    server.reset(delay=0.01)
    texts = [f"{n} <<{', '.join(rng.choices(FAULTS, k=rng.choice((0, 0, 0, 1, 2))))}>>" for n in range(200)]
    found = ask_all(tmp_path, NAMES[kind], *map(asking, texts), concurrency=64)
    assert all(isinstance(each, Kept) for each in found)
    for text, kept in zip(texts, found, strict=True):
        assert kept.answer.text == (f"{kind} answers: {text}" if kept.answer.finish == "end" else "")
    sent = Counter(each["body"].get("messages", each["body"].get("contents"))[-1].__repr__() for each in server.seen())
    statuses = Counter(status for status, _ in in_ledger(tmp_path))
    assert statuses["answered"] == 200 and sum(statuses.values()) == sum(sent.values())
    assert 32 < server.most_at_once() <= 64
    assert spent(tmp_path)[1] >= sum(server.billed())
    before = len(server.seen())
    assert ask_all(tmp_path, NAMES[kind], *map(asking, texts)) == found and len(server.seen()) == before


def test_a_budget_is_not_exceeded_by_a_cent_with_sixty_four_at_once(server, tmp_path):
    server.reset(delay=0.01)
    texts = [f"{n} <<{fault}>>" for n in range(40) for fault in ("", "cut", "429", "nousage")]
    budget = 0.02
    found = ask_all(tmp_path, NAMES["openai"], *map(asking, texts), concurrency=64, budget_usd=budget)
    assert any(isinstance(each, Kept) for each in found) and any(isinstance(each, BudgetReached) for each in found)
    read, written = server.billed()
    billed = read * 150_000 + written * 600_000
    assert 0 < billed <= spent(tmp_path)[0] <= budget * DOLLAR
    # and it was made use of: what is left would not have held another
    with ledger(tmp_path, budget_usd=budget) as book, pytest.raises(BudgetReached):
        for n in range(3):
            book.intend(asking(f"{n} more"), model=NAMES["openai"], stage="test", price=price_of(NAMES["openai"]))


KILLED = """
import json, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import openai
from test_clients import ask_all, asking
print("ready", flush=True)
texts = [f"{{n}} <<{{'filter, filter, filter, filter' if n % 7 == 0 else '429' if n % 11 == 0 else ''}}>>" for n in range(150)]
found = ask_all(Path(sys.argv[1]), "openai:gpt-4o-mini", *map(asking, texts), concurrency=8)
Path(sys.argv[1], "rows.json").write_text(json.dumps([[kept.answer.text, kept.answer.finish] for kept in found]))
"""


def start(folder: Path) -> "subprocess.Popen[str]":
    script = KILLED.format(tests=str(Path(__file__).parent))
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ,
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def test_killed_at_three_moments_it_pays_for_every_answer_once_and_ends_in_the_same_rows(server, tmp_path):
    server.reset(delay=0.04)
    assert start(tmp_path / "whole").wait(300) == 0
    server.reset(delay=0.04)
    rng = random.Random(7)
    for _ in range(3):
        process, enough = start(tmp_path / "cut"), len(server.seen()) + rng.randint(5, 45)
        while len(server.seen()) < enough:
            assert process.poll() is None
            time.sleep(0.003)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert start(tmp_path / "cut").wait(300) == 0
    assert json.loads((tmp_path / "cut" / "rows.json").read_text()) == json.loads(
        (tmp_path / "whole" / "rows.json").read_text()
    )
    db = sqlite3.connect(tmp_path / "cut" / "ledger.sqlite")
    asked = db.execute("SELECT request, status, id FROM requests ORDER BY id").fetchall()
    db.close()
    by_text: dict[str, list[str]] = {}
    for request, status, _ in asked:
        by_text.setdefault(json.loads(request)["messages"][-1]["content"], []).append(status)
    assert len(by_text) == 150
    sent = Counter(each["body"]["messages"][-1]["content"] for each in server.seen())
    for text, statuses in by_text.items():
        assert statuses.count("answered") == 1 and statuses[-1] == "answered"  # paid once, and not asked for again
        assert sent[text] <= len(statuses)  # nothing was sent that the ledger had not written down before
    lost = sum(statuses.count("lost") for statuses in by_text.values())
    assert 0 < lost <= 3 * 8  # no more than was in flight
    assert spent(tmp_path / "cut")[1] >= sum(server.billed())


# names


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gpt-4o", "is no model to ask"), ("openai:", "is no model to ask"), ("bard:x", "'bard' is not known"),
        ("http://localhost:8000", "http://HOST:PORT#MODEL"), ("http://#m", "http://HOST:PORT#MODEL"),
        ("http://[::1#m", "http://HOST:PORT#MODEL"), ("http://host:port#m", "http://HOST:PORT#MODEL"),
    ],
)  # fmt: skip
def test_a_name_that_is_none_is_answered_with_the_forms_there_are(name, said):
    with pytest.raises(UserError, match=said):
        client(name)


def test_an_address_may_have_a_path_of_its_own():
    assert client("http://localhost:8000#m").base_url == "http://localhost:8000/v1"
    assert client("https://host/api/v1/#org/m:free").base_url == "https://host/api/v1"
    assert client("https://host/api/v1/#org/m:free").model == "org/m:free"


@kinds
def test_without_a_key_the_variable_is_named_and_nothing_sent(kind, server, tmp_path, monkeypatch):
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    (error,) = ask_all(tmp_path, NAMES[kind], asking("a"))
    assert f"set {kind.upper()}_API_KEY" in str(error) and server.seen() == []
    assert Key("A", "B").variables == ("A", "B")
