"""`rejections`: to every reply that of somebody opposite, matched in length and content, and what is not matched set apart."""

import json
import statistics
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from personalign.clients import Answer, loads
from personalign.datasets import lint_file
from personalign.errors import UserError
from personalign.personas import Persona, persona
from personalign.statistics import wilson
from personalign.synthesis.matching import Matched, balance, off
from personalign.synthesis.rejections import Rejections, make_rejections
from scripted import Scripted, said, scripted_job

RECORDED = Path(__file__).parent / "recorded"
ASKED = "What would you do?"


def recorded(language: str) -> list[dict]:
    return yaml.safe_load((RECORDED / f"rejections.{language}.yaml").read_text(encoding="utf-8"))


def dialogue(folder: Path, replies: list[str], persona: str = "ENTJ", user: str = ASKED) -> None:
    rows = [
        {
            "prompt": [{"role": "user", "content": user}],
            "completion": reply,
            "persona": persona,
            "recipe": "feature",
            "dialogue": at,
            "turn": 1,
            "requests": [1000 + at],
        }
        for at, reply in enumerate(replies, 1)
    ]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    folder.mkdir(exist_ok=True)
    (folder / "dialogues.jsonl").write_text(text, encoding="utf-8")


def replayed(language: str):
    """The recorded answer to whatever a request asks to be turned round."""
    entries = recorded(language)

    def answer(request) -> str:
        entry = next(e for e in entries if any(e["chosen"] in message["content"] for message in request.messages))
        if "shorter than" in said(request) or "조금 짧게" in said(request):
            return entry.get("shorter", entry["answers"][-1])
        return entry["answers"][-1 if request.prompt.endswith(("+redo", "+repair")) else 0]

    return answer


def answering(**rejected: str | list[str]):
    """Answers by a word of the reply that is to be turned round, one after another; the last one for ever."""
    tries = {word: [each] if isinstance(each, str) else list(each) for word, each in rejected.items()}

    def answer(request) -> str:
        mine = next(texts for word, texts in tries.items() if word in request.messages[1]["content"])
        return json.dumps({"reply": mine.pop(0) if len(mine) > 1 else mine[0]}, ensure_ascii=False)

    return answer


def made(
    folder: Path, client: Scripted, people: list[Persona] | None = None, language: str = "en", **settings
) -> list[dict]:
    with scripted_job(folder, client, language=language) as job:
        return make_rejections(job, Rejections(**settings), people or [persona("ENTJ", language)])


def quarantined(folder: Path) -> list[dict]:
    return [
        json.loads(line) for line in (folder / "rejections.quarantine.jsonl").read_text(encoding="utf-8").splitlines()
    ]


@pytest.mark.parametrize("language", ["en", "ko"])
def test_recorded_answers_become_pairs_that_lint_passes_and_finds_balanced(language, tmp_path, capsys):
    entries = recorded(language)
    user = {"en": ASKED, "ko": "어떻게 하실 거예요?"}[language]
    dialogue(tmp_path, [entry["chosen"] for entry in entries], user=user)
    client = Scripted(replayed(language))
    rows = made(tmp_path, client, language=language)
    assert len(rows) >= 0.9 * len(entries), quarantined(tmp_path)
    assert len(rows) + len(quarantined(tmp_path)) == len(entries)
    assert {row["chosen"] for row in rows} <= {entry["chosen"] for entry in entries}
    # the first answers alone were longer than the replies nearly throughout
    first = [json.loads(json.dumps(loads(entry["answers"][0]))) for entry in entries]
    assert balance(
        [len(next(iter(each.values()))) / len(entry["chosen"]) for each, entry in zip(first, entries, strict=True)]
    )
    report, code = lint_file(tmp_path / "rejections.jsonl")
    assert code == 0 and not report.identical and not report.duplicates
    assert not report.length_bias.biased and "no sign of length bias" in report.format()
    assert 0.9 < statistics.median(row["length_ratio"] for row in rows) < 1.1
    assert all(0.2 <= row["similarity"] <= 0.9 for row in rows)
    told = capsys.readouterr().err
    assert "length ratio median" in told and "similarity median" in told and "balanced)" in told


def test_a_row_says_who_is_opposite_what_was_measured_and_which_requests_it_took(tmp_path):
    dialogue(tmp_path, ["Book the table for seven tonight."])
    client = Scripted(answering(Book="Leave the table for tonight open."))
    (row,) = made(tmp_path, client)
    assert row["prompt"] == [{"role": "user", "content": ASKED}]
    assert (row["persona"], row["opposite"]) == ("ENTJ", "ISFP")
    assert row["length_ratio"] == 1.0 and row["similarity"] == pytest.approx(6 / 12 + 1 / 12, abs=0.1)
    assert row["requests"] == [1001, 1] and row["source"] == "dialogues.jsonl:1"
    assert row["prompt_id"].startswith("rejections.en@") and row["model"] == "local:scripted"
    assert (row["recipe"], row["dialogue"], row["turn"], row["redone"]) == ("feature", 1, 1, False)


def test_the_prompt_names_both_sides_of_a_type_and_the_length_in_words(tmp_path):
    dialogue(tmp_path, ["Book the table for seven tonight."])
    client = Scripted(answering(Book="Leave the table for tonight open."))
    made(tmp_path, client)
    asked = client.asked[0].messages[1]["content"]
    assert persona("ENTJ").description in asked and persona("ISFP").description in asked
    assert "About 6 words" in asked and f"User: {ASKED}" in asked


@pytest.mark.parametrize(
    ("second", "kept", "reason"),
    [("Leave the table for tonight open.", True, ""), ("No.", False, "another length than the chosen answer")],
)
def test_an_answer_of_another_length_is_asked_for_once_more_and_no_oftener(second, kept, reason, tmp_path):
    dialogue(tmp_path, ["Book the table for seven tonight."])
    client = Scripted(answering(Book=["Nothing needs booking. " * 6, second]))
    rows = made(tmp_path, client)
    assert len(client.asked) == 2 and client.asked[1].prompt.endswith("+redo")
    assert "That is 18 words, the original has 6." in said(client.asked[1])
    if kept:
        assert rows[0]["rejected"] == second and rows[0]["redone"] and rows[0]["requests"] == [1001, 1, 2]
    else:
        (apart,) = quarantined(tmp_path)
        assert not rows and apart["reason"].startswith(reason) and apart["requests"] == [1001, 1, 2]
        assert apart["chosen"] == "Book the table for seven tonight."  # the whole pair: a user may still want it


def test_an_answer_that_turns_nothing_round_is_set_apart(tmp_path):
    reply = "Book the table for seven tonight."
    dialogue(tmp_path, [reply])
    assert not made(tmp_path, Scripted(answering(Book=reply)))
    assert quarantined(tmp_path)[0]["reason"].startswith("nearly the chosen answer")


def test_an_answer_about_other_things_is_asked_for_again_and_then_flagged(tmp_path, capsys):
    dialogue(tmp_path, ["Book the table for seven tonight."])
    (row,) = made(tmp_path, Scripted(answering(Book="My grandmother sings so sweetly.")))
    assert row["flag"].startswith("little in common") and row["redone"]
    assert "1 redone, 1 flagged" in capsys.readouterr().err


def test_where_all_answers_are_longer_half_are_asked_for_shorter_and_no_pair_is_lost(tmp_path):
    replies = [f"Book table {at} for seven tonight." for at in range(10, 40)]
    dialogue(tmp_path, replies)

    def answer(request) -> str:
        number = next(word for word in request.messages[1]["content"].split("The reply:")[1].split() if word.isdigit())
        shorter = "a little shorter" in said(request)
        return json.dumps(
            {"reply": f"Leave table {number} for me." if shorter else f"Leave table {number} for another night."}
        )

    client = Scripted(answer)
    rows = made(tmp_path, client)
    assert len(rows) == 30 and sum(row["length_ratio"] < 1 for row in rows) == 15
    assert len(client.asked) == 45
    assert not lint_file(tmp_path / "rejections.jsonl")[0].length_bias.biased


def test_where_a_model_cannot_write_shorter_pairs_are_set_apart_until_length_tells_nothing(tmp_path, capsys):
    replies = [f"Book table {at} for seven tonight." for at in range(10, 40)]
    dialogue(tmp_path, replies)
    longer, shorter = "Leave table {} for another night.", "Leave table {} for a day."

    def answer(request) -> str:
        number = next(word for word in request.messages[1]["content"].split("The reply:")[1].split() if word.isdigit())
        return json.dumps({"reply": (longer if int(number) < 34 else shorter).format(number)})

    rows = made(tmp_path, Scripted(answer))
    apart = quarantined(tmp_path)
    assert len(rows) + len(apart) == 30 and rows and apart
    assert all("length would tell" in each["reason"] for each in apart)
    assert not lint_file(tmp_path / "rejections.jsonl")[0].length_bias.biased
    assert len(made(tmp_path, Scripted(answer), balance=False)) == 30
    assert "LENGTH BIAS" in capsys.readouterr().err


def test_the_opposite_of_a_free_persona_is_stated_read_from_a_file_or_asked_for(tmp_path, capsys):
    grumbler = persona("pessimistic-job-seeker")
    reply, turned = "Nobody there will read my letter.", "Somebody there will like my letter."
    sunny = Persona(
        name="Sunny", description="a job seeker who trusts that the next letter is the one", traits=("hopeful",)
    )
    sunny.to_yaml(tmp_path / "sunny.yaml")
    described = '{"description": "somebody who expects good news", "traits": ["hopeful"], "speaking_style": "brightly"}'

    def answer(request) -> str:
        return described if request.prompt.startswith("opposite") else json.dumps({"reply": turned})

    for at, (stated, expected, count) in enumerate(
        [
            ({"opposite": "somebody full of hope"}, "somebody full of hope", 1),
            ({"opposites": {grumbler.name: str(tmp_path / "sunny.yaml")}}, sunny.description, 1),
            ({}, "somebody who expects good news", 2),
        ]
    ):
        folder = tmp_path / str(at)
        dialogue(folder, [reply], grumbler.name)
        client = Scripted(answer)
        (row,) = made(folder, client, [grumbler], **stated)
        assert row["opposite"] == expected and len(client.asked) == count
        assert expected in client.asked[-1].messages[1]["content"]
    assert (
        "the opposite of Pessimistic job seeker, as the model has it: somebody who expects good news"
        in capsys.readouterr().err
    )


def test_without_an_opposite_everything_is_set_apart_and_nothing_crashes(tmp_path):
    grumbler = persona("pessimistic-job-seeker")
    dialogue(tmp_path, ["Nobody will read it.", "They never do."], grumbler.name)
    assert made(tmp_path, Scripted(lambda request: "la la la"), [grumbler]) == []
    apart = quarantined(tmp_path)
    assert [each["reason"].split(":")[0] for each in apart] == [
        "no opposite",
        *["no opposite of Pessimistic job seeker"] * 2,
    ]
    assert apart[0]["requests"] == [1, 2]  # the request and its repair


def test_answers_that_are_no_replies_are_set_apart_with_their_reason(tmp_path):
    said_by = {
        "One": "As an AI language model, I have no tables.",
        "Two": "As an ISFP I never book the tables.",
        "Three": "저는 그런 거 예약 안 해요, 정말로요.",
        "Four": "*shrugs*",
    }
    dialogue(tmp_path, [f"{word} table booked for seven tonight." for word in said_by] + ["Fifth table for seven."])
    answer = answering(**said_by)
    filtered = Answer("", "filter", None)
    client = Scripted(lambda request: filtered if "Fifth" in request.messages[1]["content"] else answer(request))
    assert made(tmp_path, client) == []
    assert [each["reason"].split(":")[0] for each in quarantined(tmp_path)] == [
        "speaks as a language model", "names a type", "not in the language", "nothing left after cleaning",
        "withheld by the provider's content filter",
    ]  # fmt: skip


def test_an_empty_file_of_dialogues_gives_no_rows_and_a_bad_one_is_named(tmp_path, capsys):
    client = Scripted(lambda request: "{}")
    with pytest.raises(UserError, match="make dialogues first"):
        made(tmp_path, client)
    (tmp_path / "dialogues.jsonl").write_text("")
    assert made(tmp_path, client) == [] and "rejections: 0 rows from 0 items" in capsys.readouterr().err
    (tmp_path / "dialogues.jsonl").write_text('{"prompt": "Hi", "persona": "ENTJ"}\n')
    with pytest.raises(UserError, match=r"dialogues.jsonl:1: `completion`"):
        made(tmp_path, client)
    dialogue(tmp_path, ["Yes."], "Somebody else")
    with pytest.raises(UserError, match="no row is spoken by ENTJ"):
        made(tmp_path, client)
    assert client.asked == []


def test_a_rerun_asks_nothing_and_writes_the_same_bytes(tmp_path):
    dialogue(tmp_path, [entry["chosen"] for entry in recorded("en")])
    client = Scripted(replayed("en"))
    made(tmp_path, client)
    files = ("rejections.jsonl", "rejections.quarantine.jsonl")
    before, asked = [(tmp_path / name).read_bytes() for name in files], len(client.asked)
    made(tmp_path, client)
    assert [(tmp_path / name).read_bytes() for name in files] == before and len(client.asked) == asked


@settings(deadline=None)
@given(st.lists(st.sampled_from([0.7, 0.9, 0.99, 1.0, 1.01, 1.2, 1.4]), max_size=60))
def test_what_balance_leaves_out_is_enough_and_no_more(ratios):
    def told(left: list[float]) -> bool:
        uneven = [ratio for ratio in left if ratio != 1]
        if not uneven:
            return False
        _, low, high = wilson(sum(ratio < 1 for ratio in uneven), len(uneven))
        return not low <= 0.5 <= high

    out = balance(ratios)
    assert not told([ratio for at, ratio in enumerate(ratios) if at not in out])
    if out:
        assert told([ratio for at, ratio in enumerate(ratios) if at not in out[:-1]])


@settings(deadline=None)
@given(st.text(min_size=1, max_size=40), st.text(min_size=1, max_size=40))
def test_texts_that_differ_by_a_few_characters_are_of_equal_length(chosen, rejected):
    row = {"chosen": chosen, "rejected": rejected, "length_ratio": len(rejected) / len(chosen), "similarity": 0.5}
    assert (off(row, Matched()) == "length") == (
        abs(len(chosen) - len(rejected)) > 10 and not 0.67 <= len(rejected) / len(chosen) <= 1.5
    )
