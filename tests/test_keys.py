"""Keys are read from the environment, sent to their provider, and stand nowhere else."""

import io
import logging
import traceback
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from personalign.clients import Limits, Request, Session, client, ledger, together
from personalign.clients.keys import Key
from personalign.errors import UserError
from personalign.ledger_view import LedgerView, ledger_view
from personalign.synthesis import Job, Made, finish, gather
from providers import Providers, providers

SECRET = "q7Zk-9fTr2mWx4-Vb81"  # of no provider's form: only its own value can give it away
NAMES = {
    "OPENAI_API_KEY": "openai:gpt-4o-mini", "ANTHROPIC_API_KEY": "anthropic:claude-haiku-4-5",
    "GEMINI_API_KEY": "gemini:gemini-2.5-flash", "GOOGLE_API_KEY": "gemini:gemini-2.5-flash", "PERSONALIGN_API_KEY": "",
}  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[Providers]:
    with providers() as found:
        yield found


@pytest.fixture
def variable(request: pytest.FixtureRequest, server: Providers, monkeypatch: pytest.MonkeyPatch) -> str:
    """One of the variables, alone in the environment."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_BASE_URL", server.openai)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", server.address)
    monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", server.address)
    monkeypatch.setattr("personalign.clients.session.backoff", lambda failed: 0.02)
    server.reset()
    return str(request.param)


@pytest.mark.parametrize("variable", NAMES, indirect=True)
@pytest.mark.parametrize("wrong", [False, True])
def test_the_key_reaches_the_provider_and_no_log_ledger_error_row_or_report(
    variable, wrong, server, tmp_path, monkeypatch, caplog
):
    """The provider repeats it in errors and in an answer, every logger is at its most talkative, one key is not accepted."""
    key = f"wrong-{SECRET}" if wrong else SECRET
    monkeypatch.setenv(variable, key)
    caplog.set_level(logging.DEBUG)
    name = NAMES[variable] or f"{server.address}#m"
    texts = ["a", "<<echoed>> b", "<<echo, echo>> c", "<<cut>> d", "<<garbage>> e", "<<429>> f"]
    said, errors = io.StringIO(), []

    async def one(session: Session, text: str) -> Made:
        kept = await session.ask(Request(({"role": "user", "content": text},), "test.en@1"))
        return Made([{"text": kept.answer.text, "model": session.client.name, "requests": [kept.id]}])

    with redirect_stdout(said), redirect_stderr(said):
        try:
            with ledger(tmp_path) as book:
                job = Job(client(name), book, tmp_path, limits=Limits(concurrency=2))
                finish(job, "test", gather(job, "test", texts, one))
        except UserError as error:
            errors = [str(error), "".join(traceback.format_exception(error)), repr(vars(error))]
        ledger_view(LedgerView(run=str(tmp_path)))
        ledger_view(LedgerView.model_validate({"run": str(tmp_path), "json": True}))
    assert {each["key"] for each in server.seen()} == {key}
    assert bool(errors) == wrong and (not wrong or variable in errors[0])
    files = [file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()]
    assert len(files) >= 2
    assert (b"[key]" in b"".join(files)) and (wrong or "1 set apart" in said.getvalue())
    everything = [said.getvalue(), caplog.text, *(repr(vars(record)) for record in caplog.records), *errors]
    assert not [text for text in everything if SECRET in text]
    assert not [data for data in files if SECRET.encode() in data]


def test_a_key_has_no_text_of_its_own(monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", f"  {SECRET}\n")
    key = Key("OTHER_API_KEY", "SOME_API_KEY")
    assert key.value() == key.required("m") == SECRET
    assert SECRET not in f"{key} {key!r} {vars(key)}"
    assert key.hidden(f"you sent\n{SECRET}, and {SECRET}") == "you sent [key], and [key]"
    assert len(key.hidden("x" * 280 + SECRET * 9)) <= 300 and SECRET[:5] not in key.hidden("x" * 280 + SECRET)


@pytest.mark.parametrize(
    "masked", ["sk-proj-abcd1234efgh5678", "sk-ab***************wxyz", "AIzaSyA1234567890", "gsk_abcdefghijk1"]
)
def test_what_looks_like_a_key_is_hidden_as_well(masked, monkeypatch):
    """OpenAI shows the ends of the key that it does not accept, which need not be the one that is set here."""
    monkeypatch.delenv("SOME_API_KEY", raising=False)
    assert Key("SOME_API_KEY").hidden(f"Incorrect API key provided: {masked}.") == "Incorrect API key provided: [key]."


@pytest.mark.parametrize("inside", ["two\nlines", "with blank", "키", "\x07bell"])
def test_a_key_that_no_header_can_hold_is_refused_without_being_shown(inside, monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", f"{SECRET}{inside}{SECRET}")
    with pytest.raises(UserError, match="SOME_API_KEY in the environment holds a character") as error:
        Key("SOME_API_KEY").required("m")
    assert SECRET not in str(error.value)


@pytest.mark.parametrize(
    "address", [f"http://user:{SECRET}@host#m", f"https://{SECRET}@host", f"https://host/v1?key={SECRET}#m"]
)
def test_an_address_with_a_key_in_it_is_refused_without_being_shown(address):
    with pytest.raises(UserError, match="PERSONALIGN_API_KEY") as error:
        client(address)
    assert SECRET not in str(error.value)


def test_keys_are_read_when_they_are_needed(monkeypatch, tmp_path):
    """A client can be named before its key is set: `--dry-run` and `data lint` need none."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    nobody = client("openai:gpt-4o-mini")

    async def work(session: Session) -> Any:
        return await session.ask(Request(({"role": "user", "content": "a"},), "test.en@1"))

    with ledger(Path(tmp_path)) as book, pytest.raises(UserError, match="set OPENAI_API_KEY"):
        together(nobody, book, Limits(), stage="test", work=[work])
