"""How every pipeline makes rows: in the order of the items, accounted for, the same after a rerun and after a kill."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pydantic import BaseModel

from personalign.clients import BudgetReached, Limits, NoAnswer, ask_for
from personalign.datasets.files import read_rows
from personalign.errors import UserError
from personalign.personas import Persona
from personalign.synthesis import Made, finish, gather, template, unusable, write_rows
from personalign.synthesis.traits import Traits, make_traits
from scripted import Scripted, said, scripted_job

PROMPT = """
version: 1
max_tokens: 20
messages: [{role: user, content: "Square {{ number }}"}]
"""


class Square(BaseModel):
    square: int


def squares(job, numbers):
    """A pipeline as they all are, in small."""
    prompt = template("traits", "en", job.prompts)

    async def one(session, number):
        found = await ask_for(session, prompt.request(number=number), Square)
        if found.value is None:
            return unusable(str(found.reason), found.requests, found.text, number=number)
        return Made([{"number": number, "square": found.value.square, "requests": list(found.requests)}])

    return finish(job, "squares", gather(job, "squares", numbers, one), len(numbers))


def calculator(name="local:scripted"):
    """Knows squares, but says nothing of use about 13."""

    def answers(request):
        number = int(request.messages[0]["content"].split()[1])
        return "bad luck" if number == 13 else json.dumps({"square": number**2})

    return Scripted(answers, name)


@pytest.fixture
def prompts(tmp_path):
    folder = tmp_path / "prompts"
    folder.mkdir()
    (folder / "traits.en.yaml").write_text(PROMPT, encoding="utf-8")
    return folder


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_rows_come_in_the_order_of_the_items_and_what_is_unusable_is_set_apart_with_its_reason(
    tmp_path, prompts, capsys
):
    with scripted_job(tmp_path / "run", calculator(), prompts=prompts) as job:
        rows = squares(job, range(20))
        answered = job.book.spending()[0]["answered"]
    assert [row["number"] for row in rows] == [number for number in range(20) if number != 13]
    assert read(tmp_path / "run" / "squares.jsonl") == rows
    (bad,) = read(tmp_path / "run" / "squares.quarantine.jsonl")
    assert bad["number"] == 13 and bad["text"] == "bad luck" and bad["reason"].startswith("twice not in form: no JSON")
    assert sorted(number for row in [*rows, bad] for number in row["requests"]) == list(range(1, answered + 1))
    shown = capsys.readouterr().err
    assert "squares: 19 rows from 20 items; 1 set apart in squares.quarantine.jsonl (1 x twice not in form)" in shown


def test_where_everything_is_unusable_the_files_are_there_and_it_is_said(tmp_path, prompts, capsys):
    with scripted_job(tmp_path / "run", Scripted(lambda request: "hmm"), prompts=prompts) as job:
        assert squares(job, range(12)) == []
    assert (tmp_path / "run" / "squares.jsonl").read_bytes() == b""
    assert len(read(tmp_path / "run" / "squares.quarantine.jsonl")) == 12
    assert "squares: 0 rows from 12 items; 12 set apart" in capsys.readouterr().err


def test_without_items_nothing_is_asked(tmp_path, prompts):
    model = calculator()
    with scripted_job(tmp_path / "run", model, prompts=prompts) as job:
        assert squares(job, []) == [] and not model.asked


def test_an_item_that_gets_no_answer_is_set_apart_too(tmp_path, prompts):
    def answers(request):
        if said(request) == "Square 2":
            raise NoAnswer("turned away")
        return json.dumps({"square": 1})

    with scripted_job(tmp_path / "run", Scripted(answers), prompts=prompts) as job:
        assert [row["number"] for row in squares(job, range(4))] == [0, 1, 3]
    (bad,) = read(tmp_path / "run" / "squares.quarantine.jsonl")
    assert bad["reason"].startswith("turned away") and bad["number"] == 2 and bad["requests"] == [3]


def test_a_rerun_asks_nothing_pays_nothing_and_writes_the_same_bytes(tmp_path, prompts):
    def run():
        model = calculator("openai:gpt-4o-mini")
        with scripted_job(tmp_path / "run", model, prompts=prompts) as job:
            squares(job, range(20))
            spent = job.book.spent
        files = [(tmp_path / "run" / name).read_bytes() for name in ("squares.jsonl", "squares.quarantine.jsonl")]
        return len(model.asked), spent, files

    first, again = run(), run()
    assert first[0] == 21 and again[0] == 0 and first[1] == again[1] and first[1][0] > 0 and first[2] == again[2]


def test_with_more_items_a_rerun_pays_for_the_new_ones_only(tmp_path, prompts):
    asked = []
    for count in (5, 8):
        model = calculator()
        with scripted_job(tmp_path / "run", model, prompts=prompts) as job:
            squares(job, range(count))
        asked.append([said(request) for request in model.asked])
    assert asked == [[f"Square {number}" for number in range(5)], [f"Square {number}" for number in range(5, 8)]]


# --- the estimate ---


def estimate(folder, prompts, capsys, name, count=20, **settings):
    budget = settings.pop("budget_usd", None)
    with scripted_job(folder, calculator(name), budget_usd=budget, prompts=prompts, **settings) as job:
        try:
            squares(job, range(count))
        except BudgetReached:
            pass
        spent = job.book.spent
    lines = [line for line in capsys.readouterr().err.splitlines() if "estimated" in line]
    return lines[0].split("squares: ")[-1] if lines else None, spent


def test_after_two_of_many_items_the_whole_is_estimated(tmp_path, prompts, capsys):
    line, (cost, tokens) = estimate(tmp_path / "run", prompts, capsys, "openai:gpt-4o-mini")
    assert line.startswith("20 items; after 2 of them the whole is estimated at about ") and "$" in line
    said_tokens = int(line.split("about ")[1].split(" tokens")[0].replace(",", ""))
    assert said_tokens == pytest.approx(tokens, rel=0.5) and "budget" not in line
    assert estimate(tmp_path / "run", prompts, capsys, "openai:gpt-4o-mini")[0] is None  # a rerun costs nothing


def test_few_items_need_no_estimate(tmp_path, prompts, capsys):
    assert estimate(tmp_path / "run", prompts, capsys, "openai:gpt-4o-mini", count=9)[0] is None


def test_what_runs_here_is_estimated_in_tokens_and_an_unknown_price_is_said(tmp_path, prompts, capsys):
    assert "$" not in estimate(tmp_path / "here", prompts, capsys, "local:scripted")[0]
    assert "at a price that is not known" in estimate(tmp_path / "there", prompts, capsys, "openai:our-own")[0]


def test_it_is_said_where_the_budget_has_less_left_and_the_job_goes_on_with_a_larger_one(tmp_path, prompts, capsys):
    model = {"openai:our-own": {"input": 1000.0, "output": 1000.0}}
    line, _ = estimate(tmp_path / "run", prompts, capsys, "openai:our-own", prices=model, budget_usd=0.9, count=200)
    assert line.endswith("that is more than the budget has left, and it will stop there")
    paid = read(tmp_path / "run" / "squares.jsonl")  # what was paid for is there
    again = calculator("openai:our-own")
    with scripted_job(tmp_path / "run", again, budget_usd=100, prompts=prompts, prices=model) as job:
        before = job.book.spending()[0]["answered"]
        assert squares(job, range(200))[: len(paid)] == paid and 0 < len(paid) < 199
        assert before + len(again.asked) == job.book.spending()[0]["answered"] == 201 and 0 < before < 201


# --- kill -9 ---

CHILD = """
import asyncio, sys
from pathlib import Path
from personalign.clients import Limits
from scripted import scripted_job
from test_synthesis_job import calculator, squares

model = calculator()
quick = model.ask
async def slow(request):
    await asyncio.sleep(0.03)
    return await quick(request)
model.ask = slow
with scripted_job(Path(sys.argv[1]), model, prompts=Path(sys.argv[2]), limits=Limits(concurrency=4)) as job:
    squares(job, range(60))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9")
def test_a_killed_run_goes_on_and_ends_as_one_that_was_not(tmp_path, prompts):
    run = tmp_path / "run"
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(run), str(prompts)],
        env=os.environ | {"PYTHONPATH": path},
        stderr=subprocess.DEVNULL,
    )
    end = time.monotonic() + 60
    while answered(run) < 15 and time.monotonic() < end and child.poll() is None:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL and 15 <= (before := answered(run)) < 61
    assert not (run / "squares.jsonl").exists()

    model, alone = calculator(), calculator()
    with scripted_job(run, model, prompts=prompts) as job:
        squares(job, range(60))
        paid = job.book.spending()[0]["answered"]
    with scripted_job(tmp_path / "alone", alone, prompts=prompts) as job:
        squares(job, range(60))
    assert paid == len(alone.asked) == 61 and len(model.asked) == 61 - before
    for name in ("squares.jsonl", "squares.quarantine.jsonl"):
        # only the numbers of the requests differ: those in flight at the kill have theirs
        ours, theirs = (
            [{**row, "requests": len(row["requests"])} for row in read(folder / name)]
            for folder in (run, tmp_path / "alone")
        )
        assert ours == theirs


def answered(run):
    if not (run / "ledger.sqlite").exists():
        return 0
    with sqlite3.connect(f"file:{run / 'ledger.sqlite'}?mode=ro", uri=True) as db:
        try:
            return db.execute("SELECT count(*) FROM requests WHERE status = 'answered'").fetchone()[0]
        except sqlite3.OperationalError:  # just being made
            return 0


# --- files ---


def test_rows_hold_any_text_a_line_each(tmp_path):
    rows = [{"text": "첫째 줄\n둘째 줄\u2028\u0085\r\n"}, {"text": '👍 \x00 \\ "'}, {}]
    write_rows(tmp_path / "rows.jsonl", rows)
    found, problems = read_rows(tmp_path / "rows.jsonl")
    assert [row for _, row in found] == rows and not problems


def test_half_a_character_in_an_answer_is_set_apart_and_no_crash_in_the_end(tmp_path):
    model = Scripted(
        lambda request: '{"name": "\\ud83d", "description": "x", "traits": ["y"], "speaking_style": "", "examples": []}'
    )
    with scripted_job(tmp_path, model) as job, pytest.raises(UserError, match="gave no persona in form"):
        make_traits(job, Traits(description="a baker"))


# --- traits ---

BAKER = {
    "name": " Early baker ",
    "description": "a baker who gets up at three and has stopped explaining why",
    "traits": ["dry", " patient ", "dry", "", "proud"],
    "speaking_style": "in short sentences, with long pauses",
    "examples": [
        {"user": "Long day?", "assistant": "It starts when yours ends."},
        {"user": "Tired?", "assistant": "Ask the dough."},
    ],
}


def test_a_line_becomes_a_persona_file(tmp_path):
    model = Scripted(lambda request: f"Here you are:\n```json\n{json.dumps(BAKER)}\n```")
    with scripted_job(tmp_path, model, seed=3) as job:
        person = make_traits(job, Traits(description="a baker at dawn", traits=2, examples=1))
    assert person == Persona.from_yaml(tmp_path / "persona.yaml")
    assert (person.name, person.traits, len(person.examples)) == ("Early baker", ("dry", "patient"), 1)
    assert person.system_prompt.startswith("You are a baker who gets up at three")
    assert (
        "a baker at dawn" in said(model.asked[0])
        and model.asked[0].seed == 3
        and "Give 1 examples" in said(model.asked[0])
    )
    (row,) = read(tmp_path / "traits.jsonl")
    assert row["requests"] == [1] and row["prompt_id"] == "traits.en@1" and row["model"] == "local:scripted"


def test_the_persona_speaks_the_jobs_language_and_has_the_name_that_it_is_given(tmp_path):
    answer = {"name": "구직자", "description": "번번이 떨어져 세상을 믿지 않게 된 취업 준비생", "traits": ["비관적인"],
              "speaking_style": "한숨을 섞어 짧게", "examples": []}  # fmt: skip
    with scripted_job(tmp_path, Scripted(lambda request: json.dumps(answer, ensure_ascii=False)), language="ko") as job:
        person = make_traits(job, Traits(description="부정적인 생각이 많은 취업 준비생", name="비관이", examples=0))
    assert person.language == "ko" and person.name == "비관이" and "취업 준비생입니다" in person.system_prompt


@pytest.mark.parametrize(
    "change", [{"description": "  "}, {"traits": []}, {"examples": [{"user": "Hi", "assistant": " "}]}]
)
def test_a_persona_with_blanks_is_asked_for_again_and_at_last_refused(tmp_path, change):
    model = Scripted(lambda request: json.dumps(BAKER | change))
    with (
        scripted_job(tmp_path, model) as job,
        pytest.raises(UserError, match="traits.quarantine.jsonl: .*gave no persona in form"),
    ):
        make_traits(job, Traits(description="a baker"))
    assert (
        len(model.asked) == 2 * 3 and len(read(tmp_path / "traits.quarantine.jsonl")) == 3
    )  # three draws, each mended once


def test_limits_reach_the_session(tmp_path, prompts):
    running = most = 0

    class Counting(Scripted):
        async def ask(self, request):
            nonlocal running, most
            running += 1
            most = max(most, running)
            try:
                return await super().ask(request)
            finally:
                running -= 1

    model = Counting(lambda request: '{"square": 1}')
    with scripted_job(tmp_path / "run", model, prompts=prompts, limits=Limits(concurrency=3)) as job:
        squares(job, range(20))
    assert most == 3
