"""`restyle`: existing answers in the persona's voice, on recorded answers in a real provider's manner (written by us)."""

import json
import re
from pathlib import Path

import pytest

from personalign.clients import Answer, Request, Usage
from personalign.datasets import lint_file, read_conversations, read_pairs
from personalign.errors import UserError
from personalign.personas import Persona, persona
from personalign.synthesis.restyle import Restyle, make_restyle, wording_kept
from scripted import Scripted, said, scripted_job

RECORDED = [
    json.loads(line)
    for line in (Path(__file__).parent / "recorded" / "restyle.ko.jsonl").read_text(encoding="utf-8").splitlines()
]
PESSIMIST = persona("pessimistic-job-seeker", "ko")


def source(folder: Path, rows: list[dict] = RECORDED) -> Path:
    """The rows as ko-alpaca has them: without the recorded rewriting."""
    path = folder / "ko-alpaca.jsonl"
    bare = [{key: value for key, value in row.items() if key != "rewritten"} for row in rows]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in bare), encoding="utf-8")
    return path


def asked_for(request: Request) -> list[tuple[int, dict]]:
    """(number, recorded row) of every answer that a request wants rewritten."""
    parts = re.split(r"### (\d+)번?\n", said(request))[1:]
    found = []
    for number, text in zip(parts[::2], parts[1::2], strict=True):
        (row,) = [row for row in RECORDED if row["output"] in text]
        assert row["input"] in text, "the input belongs to the question"
        found.append((int(number), row))
    return found


def recorded(request: Request) -> list[dict]:
    return [{"id": number, "answer": row["rewritten"]} for number, row in asked_for(request)]


def fenced(answers: list[dict]) -> str:
    return f"네, 바꿔 봤습니다.\n```json\n{json.dumps({'answers': answers}, ensure_ascii=False, indent=2)}\n```"


def made(folder: Path, answers, settings: dict | None = None, people=(PESSIMIST,), language="ko"):
    """(rows, quarantine, client) of a job whose answers are a function of the request."""
    client = Scripted(answers)
    given = {"source": source(folder), "judged": 0} | (settings or {})
    with scripted_job(folder / "run", client, language=language) as job:
        rows = make_restyle(job, Restyle(**given), people)
    apart = (folder / "run" / "restyle.quarantine.jsonl").read_text(encoding="utf-8").splitlines()
    return rows, [json.loads(line) for line in apart], client


def test_recorded_answers_become_an_sft_and_a_preference_set(tmp_path):
    rows, apart, client = made(tmp_path, lambda request: fenced(recorded(request)))
    assert len(rows) == len(RECORDED) and not apart
    assert len(client.asked) == 3, "ten a call"
    learned = read_conversations(tmp_path / "run" / "restyle.jsonl")
    pairs = read_pairs(tmp_path / "run" / "restyle-pairs.jsonl")
    for row, conversation, pair, given in zip(rows, learned, pairs, RECORDED, strict=True):
        question = "\n\n".join(filter(None, [given["instruction"], given["input"]]))
        assert [message["content"] for message in conversation.messages] == [question, given["rewritten"]]
        assert pair.prompt == [{"role": "user", "content": question}]
        assert (pair.chosen, pair.rejected) == (given["rewritten"], given["output"])
        assert row["source"].endswith(f"ko-alpaca.jsonl:{RECORDED.index(given) + 1}")
        assert row["requests"] and row["prompt_id"] == "restyle.ko@1" and row["model"] == "local:scripted"
    for name in ("restyle.jsonl", "restyle-pairs.jsonl"):
        assert lint_file(tmp_path / "run" / name)[1] == 0


def test_the_model_is_told_who_speaks(tmp_path):
    _, _, client = made(tmp_path, lambda request: fenced(recorded(request)))
    for request in client.asked:
        assert PESSIMIST.system_prompt in said(request) and PESSIMIST.examples[0].assistant in said(request)


def test_answers_of_a_batch_are_matched_by_number_not_by_place(tmp_path):
    rows, apart, _ = made(tmp_path, lambda request: fenced(recorded(request)[::-1]))
    assert [row["messages"][-1]["content"] for row in rows] == [row["rewritten"] for row in RECORDED] and not apart


@pytest.mark.parametrize("broken", ["missing", "doubled", "empty", "unchanged", "off", "long"])
def test_what_a_batch_gives_amiss_is_asked_for_again_alone(broken, tmp_path):
    def answers(request: Request) -> str:
        found = recorded(request)
        if len(found) == 1:
            return fenced([{**found[0], "id": 7}])  # alone, its number does not matter
        amiss = {
            "missing": [],
            "doubled": [found[1], {**found[1], "answer": "휴대전화를 침실 밖에 두라니, 그럼 알람은 누가 끄나요."}],
            "empty": [{**found[1], "answer": "  "}],
            "unchanged": [{**found[1], "answer": asked_for(request)[1][1]["output"].replace(".", "!")}],
            "off": [{**found[1], "answer": "글쎄요, 저라면 그냥 누워 있을래요. 세상이 다 그렇죠 뭐, 안 그래요?"}],
            "long": [{**found[1], "answer": found[1]["answer"] * 5}],
        }
        return fenced([found[0], *amiss[broken], *found[2:]])

    rows, apart, client = made(tmp_path, answers)
    assert [row["messages"][-1]["content"] for row in rows] == [row["rewritten"] for row in RECORDED] and not apart
    alone = [request for request in client.asked if len(asked_for(request)) == 1]
    assert [asked_for(request)[0][1] for request in alone] == [RECORDED[1], RECORDED[11], RECORDED[21]]
    assert len(rows[1]["requests"]) == 2, "both requests are named"


def test_numbers_that_were_never_given_are_let_be(tmp_path):
    rows, apart, client = made(
        tmp_path, lambda request: fenced([*recorded(request), {"id": 99, "answer": "덤입니다."}])
    )
    assert len(rows) == len(RECORDED) and not apart and len(client.asked) == 3


def test_a_bad_tenth_of_the_answers_costs_at_most_a_tenth_of_the_rows(tmp_path):
    """Two answers are never right, one call is withheld as a whole, another is cut off."""
    never = {RECORDED[4]["output"], RECORDED[15]["output"]}

    def answers(request: Request) -> str | Answer:
        asked = asked_for(request)
        if len(asked) > 1 and asked[0][1] is RECORDED[0]:
            return Answer("", "filter", Usage(900, 0), "withheld")
        if len(asked) > 1 and asked[0][1] is RECORDED[10]:
            return Answer('{"answers": [{"id": 1, "answer": "휴대', "length", Usage(900, 800), "cut")
        return fenced(
            [each for each, (_, row) in zip(recorded(request), asked, strict=True) if row["output"] not in never]
        )

    rows, apart, _ = made(tmp_path, answers)
    assert len(rows) == 20 and len(rows) / len(RECORDED) >= 0.9
    assert [row["reason"] for row in apart] == ["missing from the answer"] * 2
    assert {row["first"] for row in apart} == {"withheld by the provider's content filter", "cut off at 12000 tokens"}
    assert {row["original"] for row in apart} == never


def test_garbage_leaves_no_rows_and_no_exception(tmp_path, capsys):
    rows, apart, _ = made(tmp_path, lambda request: "I am a helpful assistant. I am a helpful assistant.")
    assert not rows and len(apart) == len(RECORDED)
    assert all(row["reason"].startswith("twice not in form: no JSON") and row["requests"] for row in apart)
    assert (tmp_path / "run" / "restyle.jsonl").read_text(encoding="utf-8") == ""
    assert f"restyle: 0 rows from {len(RECORDED)} items; {len(RECORDED)} set apart" in capsys.readouterr().err


def test_rows_that_cannot_be_read_are_counted(tmp_path):
    (tmp_path / "mixed").mkdir()
    path = source(tmp_path / "mixed", [*RECORDED[:3], {"instruction": "빈 답", "input": "", "output": " "}])
    rows, apart, _ = made(tmp_path, lambda request: fenced(recorded(request)), {"source": path, "batch": 2})
    assert len(rows) == 3
    (bad,) = apart
    assert bad["source"].endswith(":4") and "`output` is empty" in bad["reason"]


def test_every_persona_says_everything(tmp_path):
    cheerful = Persona(name="낙천가", language="ko", description="무슨 일이든 잘될 거라고 믿는 사람")
    rows, _, client = made(tmp_path, lambda request: fenced(recorded(request)), {"count": 4}, (PESSIMIST, cheerful))
    assert [row["persona"] for row in rows] == [PESSIMIST.name] * 4 + ["낙천가"] * 4
    assert [row["source"] for row in rows[:4]] == [row["source"] for row in rows[4:]]
    assert len(client.asked) == 2


def test_the_rows_are_drawn_by_the_seed(tmp_path):
    drawn = []
    for folder in ("once", "again"):
        (tmp_path / folder).mkdir()
        drawn.append(
            [row["original"] for row in made(tmp_path / folder, lambda r: fenced(recorded(r)), {"count": 5})[0]]
        )
    assert drawn[0] == drawn[1] and len(set(drawn[0])) == 5


def test_of_a_sample_the_meaning_is_judged_and_where_it_is_lost_the_row_is_set_apart(tmp_path, capsys):
    graded: list[Request] = []

    def answers(request: Request) -> str:
        if not request.prompt.startswith("grade"):
            return fenced(recorded(request))
        graded.append(request)
        scores = ['"5"', "4", '"2점"', '"I would say four"']
        return f'{{"reason": "숫자를 견주어 보았습니다.", "score": {scores[min(len(graded), 4) - 1]}}}'

    rows, apart, client = made(tmp_path, answers, {"judged": 0.18})
    first = [request for request in graded if "+repair" not in request.prompt]
    assert len(first) == 4, "18 % of 22"
    assert any(row["output"] in said(first[0]) and row["rewritten"] in said(first[0]) for row in RECORDED)
    (lost,) = apart
    assert lost["reason"] == "another meaning" and lost["meaning"] == 2 and lost["judged_by"]
    assert sorted(str(row["meaning"]) for row in rows if "meaning" in row) == ["4", "5", "None"]
    assert len(rows) == 21 and len(read_pairs(tmp_path / "run" / "restyle-pairs.jsonl")) == 21
    assert "of 4 rewritings that were judged, the meaning is kept in 2 of 3 (67%" in capsys.readouterr().err


def test_a_rerun_pays_for_nothing_and_writes_the_same(tmp_path):
    def answers(request: Request) -> str:
        grade = '{"reason": "같은 내용입니다.", "score": "5"}'
        return grade if request.prompt.startswith("grade") else fenced(recorded(request))

    made(tmp_path, answers, {"judged": 0.2})
    files = {path.name: path.read_bytes() for path in (tmp_path / "run").glob("*.jsonl")}
    _, _, client = made(tmp_path, lambda request: "nobody should ask", {"judged": 0.2})
    assert not client.asked and b'"meaning": 5' in files["restyle.jsonl"]
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").glob("*.jsonl")} == files


def test_nobody_to_speak_and_nothing_to_say_are_refused(tmp_path):
    with pytest.raises(UserError, match="whose voice"):
        made(tmp_path, recorded, people=())
    empty = tmp_path / "empty.jsonl"
    empty.write_text('{"instruction": "a", "output": ""}\n', encoding="utf-8")
    with pytest.raises(UserError, match=r"empty\.jsonl: holds no row that can be rewritten"):
        made(tmp_path, recorded, {"source": empty})


def test_wording_is_kept_where_the_voice_changes_and_lost_where_the_matter_does():
    for row, other in zip(RECORDED, RECORDED[1:], strict=False):
        assert wording_kept(row["output"], row["rewritten"]) > 0.5
        assert wording_kept(row["output"], other["rewritten"]) < 0.15
    original = "Boil the eggs for ten minutes, then put them into cold water."
    assert (
        wording_kept(original, "Ten minutes of boiling, the poor eggs, and straight into cold water. Such is life.")
        > 0.5
    )
    assert (
        wording_kept(original, "I never got anything out of a kitchen except burns, so why bother with lunch?") < 0.15
    )
    assert wording_kept("?!", "anything") == 1
