"""`roleplay`: questions to a persona with their factuality, made in rounds so that they do not repeat themselves."""

import json
import random
from pathlib import Path

import pytest
import yaml

from personalign.clients import Answer, Request, Usage
from personalign.datasets import lint_file, read_conversations
from personalign.datasets.similarity import rouge_l
from personalign.errors import UserError
from personalign.personas import Persona, persona
from personalign.synthesis.roleplay import Roleplay, make_roleplay
from scripted import Scripted, said, scripted_job

RECORDED = yaml.safe_load((Path(__file__).parent / "recorded" / "roleplay.ko.yaml").read_text(encoding="utf-8"))[
    "answers"
]
PESSIMIST = persona("pessimistic-job-seeker", "ko")
WORDS = """apple river stone window garden letter train winter music doctor bread island market shadow candle bridge pocket
teacher mirror engine forest button camera desert dinner feather hammer jacket kettle ladder magnet needle orange pencil
rabbit saddle""".split()


def exchange(question: str, factuality: str = "high", answer: str = "Ask somebody who got the job.") -> dict:
    return {"question": question, "factuality": factuality, "reason": "it is said above", "answer": answer}


def answered(*exchanges: dict) -> str:
    return json.dumps({"exchanges": exchanges}, ensure_ascii=False)


def fresh(request: Request, count: int = 5, offset: str = "") -> str:
    """Questions that no other request has: words drawn by what was asked."""
    luck = random.Random(said(request) + str(request.draw) + offset)
    return answered(*(exchange(f"What about the {' '.join(luck.sample(WORDS, 6))}?") for _ in range(count)))


def made(folder: Path, answers, people=(PESSIMIST,), language="ko", **settings):
    """(rows, quarantine, client)."""
    client = Scripted(answers)
    with scripted_job(folder / "run", client, language=language) as job:
        rows = make_roleplay(job, Roleplay(**settings), people)
    apart = (folder / "run" / "roleplay.quarantine.jsonl").read_text(encoding="utf-8").splitlines()
    return rows, [json.loads(line) for line in apart], client


def questions(rows: list[dict]) -> list[str]:
    return [row["messages"][0]["content"] for row in rows]


def test_recorded_answers_become_rows(tmp_path):
    rows, apart, client = made(tmp_path, lambda request: RECORDED[request.draw], count=22, batch=8, calls=3)
    assert len(client.asked) == 3 and len(rows) == 22 and len(rows) / (len(rows) + len(apart)) >= 0.9
    assert [row["reason"].split(":")[0] for row in apart] == [
        "repeats an earlier question",
        "factuality is neither high nor low",
    ]
    assert questions(apart) == ["면접 준비는 잘돼 가나요?", "아낀 돈으로 제일 먼저 사고 싶은 건요?"]
    assert {row["factuality"] for row in rows} == {"high", "low"} and all(row["factuality_reason"] for row in rows)
    for row in rows:
        assert row["persona"] == PESSIMIST.name and row["prompt_id"] == "roleplay.ko@1" and len(row["requests"]) == 1
    assert len(read_conversations(tmp_path / "run" / "roleplay.jsonl")) == 22
    assert lint_file(tmp_path / "run" / "roleplay.jsonl")[1] == 0


def test_each_call_has_a_subject_of_its_own_and_is_told_who_speaks(tmp_path):
    _, _, client = made(tmp_path, lambda request: RECORDED[request.draw], count=22, batch=8, calls=3)
    for request, subject in zip(client.asked, ["회사와 동료", "돈과 저축", "어린 시절과 학교"], strict=True):
        assert f'"{subject}"' in said(request) and PESSIMIST.system_prompt in said(request)
    _, _, client = made(tmp_path / "own", fresh, subjects=("tea", "rain"), count=15, batch=5, calls=3, language="en")
    assert ["about: tea" in said(request) for request in client.asked] == [True, False, True, False][
        : len(client.asked)
    ]


def test_what_a_round_kept_the_next_is_told_not_to_repeat(tmp_path):
    rows, _, client = made(tmp_path, fresh, language="en", count=20, batch=5, calls=2, shown=4)
    assert len(rows) == 20
    first, later = client.asked[:2], client.asked[2:]
    assert all("have been asked already" not in said(request) for request in first) and later
    for request in later:
        assert sum(f"- {question}\n" in said(request) + "\n" for question in questions(rows)) == 4


def test_no_two_questions_are_near_each_other_whatever_the_model_repeats(tmp_path):
    """A model that repeats itself more with every call, as Polaris' did."""

    def worse(request: Request) -> str:
        new = json.loads(fresh(request, 5))["exchanges"]
        old = [exchange(f"What would you do in winter, number {at}?") for at in range(min(5, request.draw))]
        return answered(*old, *new[: 5 - len(old)])

    rows, apart, _ = made(tmp_path, worse, language="en", count=14, batch=5, calls=2)
    texts = questions(rows)
    near = [rouge_l(one, other, "en") for at, one in enumerate(texts) for other in texts[:at]]
    assert max(near) <= 0.7
    assert [row["similarity"] for row in rows] == [
        round(max((rouge_l(one, other, "en") for other in texts[:at]), default=0), 4) for at, one in enumerate(texts)
    ]
    assert any(row["reason"].startswith("repeats an earlier question") for row in apart)


def test_it_ends_when_two_rounds_bring_nothing_new(tmp_path, capsys):
    same = answered(exchange("Do you like rain?"), exchange("Where were you born?"))
    rows, apart, client = made(tmp_path, lambda request: same, language="en", count=50, batch=5, calls=2)
    assert questions(rows) == ["Do you like rain?", "Where were you born?"]
    assert len(client.asked) == 6, "a round that brings two, and two that bring nothing"
    assert "roleplay: 2 rows from 50 items; 10 set apart" in capsys.readouterr().err and len(apart) == 10


def test_questions_of_other_files_count_as_asked(tmp_path):
    path = tmp_path / "earlier.jsonl"
    path.write_text('{"prompt": "Do you like rain at all?"}\n', encoding="utf-8")
    same = answered(exchange("Do you like the rain at all?"), exchange("Where were you born?"))
    rows, _, _ = made(tmp_path, lambda request: same, language="en", count=1, existing=(path,))
    assert questions(rows) == ["Where were you born?"]


def test_what_is_more_than_asked_for_is_kept_apart_not_thrown_away(tmp_path):
    rows, apart, _ = made(tmp_path, lambda request: fresh(request, 10), language="en", count=3)
    assert len(rows) == 3 and [row["reason"] for row in apart] == ["more than asked for"] * 7


def test_each_persona_has_its_own_questions_and_may_share_them(tmp_path):
    other = Persona(name="Optimist", description="somebody for whom all will be well")
    same = answered(exchange("Do you like rain?"), exchange("Where were you born?"))
    rows, _, client = made(tmp_path, lambda request: same, (PESSIMIST, other), language="en", count=2)
    assert [row["persona"] for row in rows] == [PESSIMIST.name] * 2 + ["Optimist"] * 2 and len(client.asked) == 2
    assert questions(rows[:2]) == questions(rows[2:])


def test_questions_that_cannot_be_answered_truly_can_be_left_out(tmp_path):
    same = answered(exchange("Do you like rain?", "low"), exchange("Where were you born?", "High."))
    rows, apart, _ = made(tmp_path, lambda request: same, language="en", count=1, factuality="high")
    assert questions(rows) == ["Where were you born?"] and apart[0]["reason"] == "factuality is low"


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (exchange(" "), "no question"),
        (exchange("Do you like rain?", answer=""), "no answer"),
        (exchange("...", answer="..."), "form repeated, not filled in"),
        (exchange("Do you like rain?", answer="Do you like rain?"), "form repeated, not filled in"),
        (exchange("Do you like rain?", "who knows"), "factuality is neither high nor low"),
    ],
)
def test_one_bad_exchange_costs_only_itself(bad, reason, tmp_path):
    rows, apart, client = made(
        tmp_path, lambda request: answered(bad, exchange("Where were you born?")), language="en", count=1
    )
    assert len(rows) == 1 and apart[0]["reason"] == reason and len(client.asked) == 1


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("I am a helpful assistant.", "twice not in form: no JSON"),
        (Answer("", "filter", Usage(9, 0)), "withheld by the provider's content filter"),
        (Answer('{"exchanges": [{"question": "W', "length", Usage(9, 9)), "cut off at 3500 tokens"),
    ],
)
def test_garbage_leaves_no_rows_and_no_exception(answer, reason, tmp_path):
    rows, apart, client = made(tmp_path, lambda request: answer, language="en", count=30, calls=2)
    assert not rows and {row["reason"][: len(reason)] for row in apart} == {reason}
    assert (tmp_path / "run" / "roleplay.jsonl").read_text(encoding="utf-8") == ""
    assert len(apart) == 4, "two rounds of two calls"


def test_a_rerun_pays_for_nothing_and_writes_the_same(tmp_path):
    settings = {"language": "en", "count": 30, "batch": 5, "calls": 2}
    rows, _, client = made(tmp_path, fresh, **settings)
    files = {path.name: path.read_bytes() for path in (tmp_path / "run").glob("*.jsonl")}
    assert len(rows) == 30 and len({json.dumps(request.messages) for request in client.asked}) == len(client.asked)
    _, _, again = made(tmp_path, lambda request: "nobody should ask", **settings)
    assert not again.asked
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").glob("*.jsonl")} == files


def test_nobody_to_ask_is_refused(tmp_path):
    with pytest.raises(UserError, match="who is asked"):
        made(tmp_path, fresh, people=())
