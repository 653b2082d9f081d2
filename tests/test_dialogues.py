"""`dialogues`: LAPD's four recipes, and what models write taken apart into prompts and clean replies."""

import json
from collections import Counter
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from personalign.clients import Answer
from personalign.datasets import lint_file, read_conversations
from personalign.datasets.formats import question
from personalign.errors import UserError
from personalign.personas import Persona, persona
from personalign.synthesis.cleaning import clean, machine, speaks
from personalign.synthesis.dialogues import Dialogues, Item, make_dialogues, taken_apart
from personalign.synthesis.transcripts import USER, transcript
from scripted import Scripted, said, scripted_job

RECORDED = Path(__file__).parent / "recorded"
FREE = {"en": "Pessimistic job seeker", "ko": "비관적인 취업 준비생"}
PLAIN = "User: Rain again.\nENTJ: Then we meet inside, at six.\nUser: Fine.\nENTJ: Bring the map."


def person(name: str, language: str) -> Persona:
    return persona("pessimistic-job-seeker" if name == FREE[language] else name, language)


def made(folder: Path, client: Scripted, *people: Persona, language: str = "en", **settings) -> list[dict]:
    with scripted_job(folder, client, language=language) as job:
        return make_dialogues(job, Dialogues(**settings), people or [persona("ENTJ", language)])


def quarantined(folder: Path) -> list[dict]:
    return [
        json.loads(line) for line in (folder / "dialogues.quarantine.jsonl").read_text(encoding="utf-8").splitlines()
    ]


def replayed(entries: list[dict]):
    """Dialogue number n gets the nth recorded answer."""

    def answer(request) -> Answer | str:
        entry = entries[request.draw - 1]
        if "first" in entry and not request.prompt.endswith("+repair"):
            return entry["first"]
        return Answer(entry["text"], entry.get("finish", "end"), None)

    return answer


@pytest.mark.parametrize("language", ["en", "ko"])
def test_of_recorded_answers_nine_replies_in_ten_are_kept_and_lint_passes(language, tmp_path):
    recorded = yaml.safe_load((RECORDED / f"dialogues.{language}.yaml").read_text(encoding="utf-8"))
    assert len(recorded) >= 15  # with those of the other language more than thirty
    kept = written = 0
    for cast in {tuple(entry["cast"]) for entry in recorded}:
        entries = [entry for entry in recorded if tuple(entry["cast"]) == cast]
        folder = tmp_path / "-".join(cast)
        people = [person(name, language) for name in cast]
        rows = made(
            folder, Scripted(replayed(entries)), *people, language=language, count=len(entries), together=len(cast)
        )
        report, code = lint_file(folder / "dialogues.jsonl")
        assert code == 0 and report.rows == len(rows) and not report.duplicates
        for number, entry in enumerate(entries, 1):
            found = sum(row["dialogue"] == number for row in rows)
            apart = sum(row["dialogue"] == number for row in quarantined(folder))
            assert found + apart == entry["replies"], entry["form"]  # nothing is dropped, nothing is invented
        kept, written = kept + len(rows), written + sum(entry["replies"] for entry in entries)
        for row in rows:
            texts = [row["completion"], *(message["content"] for message in row["prompt"])]
            assert all(text == clean(text) and speaks(text, language) for text in texts)
            assert not any(mark in text for text in texts for mark in ("*", "ENTJ:", "User:", "사용자:", "```"))
    assert kept >= 0.9 * written


def test_a_row_is_a_reply_after_its_history_and_says_where_it_comes_from(tmp_path):
    first, second = made(tmp_path, Scripted(lambda request: PLAIN), count=1, recipes=["feature"])
    assert first["prompt"] == [{"role": "user", "content": "Rain again."}]
    assert second["prompt"] == [
        {"role": "user", "content": "Rain again."},
        {"role": "assistant", "content": "Then we meet inside, at six."},
        {"role": "user", "content": "Fine."},
    ]
    assert second["completion"] == "Bring the map."
    assert (second["persona"], second["recipe"], second["dialogue"], second["turn"]) == ("ENTJ", "feature", 1, 2)
    assert second["requests"] == [1] and second["prompt_id"].startswith("dialogues.en@")
    assert second["model"] == "local:scripted" and second["source"] == "personas"
    assert len(read_conversations(tmp_path / "dialogues.jsonl")) == 2


def test_without_history_a_prompt_is_what_the_user_said_last(tmp_path):
    rows = made(tmp_path, Scripted(lambda request: PLAIN), count=1, history=False)
    assert [row["prompt"] for row in rows] == [[{"role": "user", "content": text}] for text in ("Rain again.", "Fine.")]


def test_dialogues_are_spread_over_the_four_recipes_and_each_asks_for_its_own(tmp_path):
    client = Scripted(lambda request: PLAIN)
    rows = made(tmp_path, client, count=8, turns=(4, 10))
    cells = Counter(row["recipe"] for row in rows)
    assert cells == dict.fromkeys(["character+situation", "character", "feature+situation", "feature"], 4)
    who = persona("ENTJ")
    by_cell = {row["recipe"]: client.asked[row["requests"][0] - 1].messages[1]["content"] for row in rows}
    for cell, asked in by_cell.items():
        assert (who.description in asked) == cell.startswith("character")
        assert (", ".join(who.traits) in asked) == cell.startswith("feature")
        assert ("The situation:" in asked) == cell.endswith("+situation")
    assert all(("situation" in row) == row["recipe"].endswith("+situation") for row in rows)
    asked_turns = [int(request.messages[1]["content"].split(" turns each")[0].split()[-1]) for request in client.asked]
    assert set(asked_turns) <= set(range(4, 11)) and len(set(asked_turns)) > 1


def test_situations_that_were_made_are_used_and_ours_where_there_are_none(tmp_path, capsys):
    client = Scripted(lambda request: PLAIN)
    assert "situation" in made(tmp_path, client, count=1)[0]
    assert "holds no situations; those that come with personalign are taken" in capsys.readouterr().err
    (tmp_path / "situations.jsonl").write_text('{"situation": "Painting a boat in the rain"}\n', encoding="utf-8")
    assert made(tmp_path, client, count=1)[0]["situation"] == "Painting a boat in the rain"
    (tmp_path / "mine.txt").write_text("Selling honey at the market\n\n", encoding="utf-8")
    rows = made(tmp_path, client, count=1, situations=tmp_path / "mine.txt")
    assert rows[0]["situation"] == "Selling honey at the market"


def test_profiles_of_a_persona_come_from_files_and_web_pages(tmp_path):
    folder = tmp_path / "profiles" / "entj"
    folder.mkdir(parents=True)
    page = "<head><script>track()</script></head><body><nav>Menu</nav><p>She runs a shipyard.</p></body>"
    (folder / "a.html").write_text(page, encoding="utf-8")
    client = Scripted(lambda request: PLAIN)
    rows = made(tmp_path, client, count=2, recipes=["character", "feature"], profiles=tmp_path / "profiles")
    asked = [request.messages[1]["content"] for request in client.asked]
    assert "She runs a shipyard." in asked[0] and "track" not in asked[0] and "Menu" not in asked[0]
    assert "shipyard" not in asked[1]
    assert rows[0]["source"] == "a.html, passage 1" and rows[-1]["source"] == "personas"
    with pytest.raises(UserError, match="holds nothing about INFP; add infp.txt"):
        made(tmp_path, client, persona("INFP"), profiles=tmp_path / "profiles")


def test_several_personas_answer_the_same_turn_each_with_its_own_history(tmp_path):
    text = "User: Rain.\nENTJ: Inside, at six.\nISFP: I like rain.\nUser: So?\nISFP: Let us walk.\n"
    text += "User: Now?\nENTJ: Now.\nISFP: Yes."
    rows = made(tmp_path, Scripted(lambda request: text), persona("ENTJ"), persona("ISFP"), count=1, together=2)
    same = {name: [row for row in rows if row["persona"] == name] for name in ("ENTJ", "ISFP")}
    assert [row["turn"] for row in same["ENTJ"]] == [1, 3] and [row["turn"] for row in same["ISFP"]] == [1, 2, 3]
    # where it has said nothing, what the user said is one message
    assert [message["content"] for message in same["ENTJ"][1]["prompt"]] == ["Rain.", "Inside, at six.", "So? Now?"]
    assert [message["content"] for message in same["ISFP"][1]["prompt"]] == ["Rain.", "I like rain.", "So?"]
    assert same["ENTJ"][0]["prompt"] == same["ISFP"][0]["prompt"]


def test_every_persona_has_dialogues_of_its_own_and_no_two_requests_are_the_same(tmp_path):
    client = Scripted(
        lambda request: PLAIN.replace("ENTJ", "INFP" if "INFP" in request.messages[1]["content"] else "ENTJ")
    )
    rows = made(tmp_path, client, persona("ENTJ"), persona("INFP"), count=6)
    assert Counter(row["persona"] for row in rows) == {"ENTJ": 12, "INFP": 12}
    assert len({request.hashed("x") for request in client.asked}) == 12


def test_what_cannot_be_used_is_set_apart_with_its_reason(tmp_path):
    text = (
        "ENTJ: You look tired.\nUser: A bit.\nENTJ: *nods*\nUser: And you?\n"
        "ENTJ: As an AI, I do not sleep.\n"
        "User: Funny.\nENTJ: 저는 농담을 하지 않는 사람이에요.\nUser: What?\n"
        "ENTJ: As an ENTJ I plan my sleep.\nUser: Ok.\nENTJ: Good night."
    )
    rows = made(tmp_path, Scripted(lambda request: text), count=1)
    assert [row["completion"] for row in rows] == ["Good night."]
    assert [row["reason"].split(":")[0] for row in quarantined(tmp_path)] == [
        "said before the user has said anything",
        "nothing left after cleaning",
        "speaks as a language model",
        "not in the language",
        "names a type",
    ]
    assert lint_file(tmp_path / "dialogues.jsonl")[1] == 0


def test_garbage_is_asked_for_once_more_and_then_set_apart_whole(tmp_path, capsys):
    client = Scripted(lambda request: "the the the")
    assert made(tmp_path, client, count=3) == []
    assert len(client.asked) == 6 and client.asked[-1].prompt.endswith("+repair")
    assert "beginning with the speaker's name and a colon (User:, ENTJ:)" in said(client.asked[-1])
    assert [(row["reason"], row["text"], len(row["requests"])) for row in quarantined(tmp_path)] == [
        ("twice no dialogue", "the the the", 2)
    ] * 3
    assert "dialogues: 0 rows from 3 items; 3 set apart" in capsys.readouterr().err


def test_an_answer_that_was_withheld_or_cut_before_it_began_is_not_asked_for_again(tmp_path):
    finishes = ["filter", "length"]
    client = Scripted(lambda request: Answer("Title", finishes[request.draw - 1], None))
    assert made(tmp_path, client, count=2) == []
    reasons = [row["reason"] for row in quarantined(tmp_path)]
    assert reasons[0] == "withheld by the provider's content filter" and reasons[1].startswith("cut off at")
    assert len(client.asked) == 2


def test_settings_and_people_that_cannot_be_used_are_named(tmp_path):
    client = Scripted(lambda request: PLAIN)
    with scripted_job(tmp_path, client) as job:
        with pytest.raises(UserError, match="no persona to talk with"):
            make_dialogues(job, Dialogues(), [])
        with pytest.raises(UserError, match="two personas have the same name"):
            make_dialogues(job, Dialogues(), [persona("ENTJ"), persona("ENTJ")])
    with pytest.raises(ValidationError, match="the least and the most turns"):
        Dialogues(turns=(5, 2))
    assert Dialogues(turns=6).turns == (6, 6)  # type: ignore[arg-type]


ODD = [
    "*nods*",
    "(웃음)",
    "...",
    "As an AI, no.",
    "한국어로 말하고 있어요 지금",
    "Fine by me.",
    "Wow!",
    "ENTJ here.",
    "So be it, then.",
]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([USER, "ENTJ", "ISFP"]), st.sampled_from(ODD)), min_size=2, max_size=14),
    st.booleans(),
)
def test_however_odd_a_dialogue_its_rows_can_be_read_and_no_reply_is_lost(said_by, history):
    people = persona("ENTJ"), persona("ISFP")
    turns = transcript("".join(f"{who}: {what}\n" for who, what in said_by), ["ENTJ", "ISFP"])
    item = Item(1, people, "feature", 4, None, (None, None))
    made = taken_apart(turns, item, {"requests": [1]}, "en", history)
    assert len(made.rows) + len(made.quarantined) == len(turns.unasked) + sum(len(turn.replies) for turn in turns.turns)
    for row in made.rows:
        asked = question(row)  # raises for a prompt that nobody could read
        assert asked == row["prompt"] and asked[-1]["role"] == "user" and row["completion"] == clean(row["completion"])
        assert not machine(row["completion"]) and "ENTJ" not in row["completion"]


# cleaning ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("*chuckles* Well, I think so.", "I think so."),
        ("Hey, hmm... wow! I *really* mean it.", "I really mean it."),
        ("(laughs) Oh, *sighs deeply* you know.", "You know."),
        ("[sighs] Fine, it costs 20 (or 25).", "Fine, it costs 20 (or 25)."),
        ('"Ah, that is it."', "That is it."),
        ("*leans in* so what?", "So what?"),
        ("**Bold** and `plain`, 2 * 3 * 4 = 24", "Bold and `plain`, 2 * 3 * 4 = 24"),
        (
            "Well done, you! Well-being matters. Oh no, that's bad.",
            "Well done, you! Well-being matters. Oh no, that's bad.",
        ),
        ("Wow!", "Wow!"),
        ("음… 아, 그건 *정말* 좋아요 (웃음).", "그건 정말 좋아요."),
        ("(고개를 끄덕이며) 글쎄요, 저는 *최고*라고 생각해요.", "저는 최고라고 생각해요."),
        ("*한숨을 쉬며* 와, 됐어요. *웃는다* 네.", "됐어요. 네."),
        (
            "와인 좋아해요. 아침에 봐요. 어제 갔어요 (세 시쯤요).",
            "와인 좋아해요. 아침에 봐요. 어제 갔어요 (세 시쯤요).",
        ),
        ("ㅋㅋㅋ, 그래요", "그래요"),
    ],
)
def test_cleaning_takes_off_what_is_put_around_speech_and_no_more(text, cleaned):
    assert clean(text) == cleaned


@settings(deadline=None)
@given(st.text(alphabet=st.sampled_from("ab 음아웃며*_()[]\"“”'.,!~…-\nWelAh#`"), max_size=60) | st.text(max_size=60))
def test_cleaning_a_clean_text_changes_nothing(text):
    assert clean(clean(text)) == clean(text)


def test_who_speaks_as_a_machine_and_in_which_language():
    assert machine("As an AI language model, I can't.") and machine("저는 인공지능 언어 모델로서 말씀드려요.")
    assert not machine("My aim is an aisle seat.") and not machine("요즘 AI가 무섭긴 해요.")
    assert speaks("안녕하세요, 반갑습니다, 여러분", "ko") and not speaks("Good morning to all of you", "ko")
    assert speaks("OK!", "ko") and not speaks("좋은 아침이에요 여러분 모두", "en")


# transcripts ---------------------------------------------------------------------------------------------------------

WORDS = st.lists(
    st.sampled_from("we could try that one tomorrow 내일 다시 해 봐요 at ten".split()), min_size=1, max_size=8
)
UTTERANCES = st.lists(WORDS.map(lambda words: " ".join(words).capitalize() + "."), min_size=2, max_size=12)
FORMS = {
    "plain": lambda who, what: f"{who}: {what}\n",
    "bold": lambda who, what: f"**{who}:** {what}\n\n",
    "aside": lambda who, what: f"**{who}** (quietly): {what}\n",
    "list": lambda who, what: f"- {who}: {what}\n",
    "number": lambda who, what: f"3. {who}: {what}\n",
    "heading": lambda who, what: f"### {who}\n{what}\n\n",
    "quote": lambda who, what: f"> **{who}**: {what}\n",
    "bracket": lambda who, what: f"[{who}]: {what}\n",
    "dash": lambda who, what: f"{who} - {what}\n",
    "wide": lambda who, what: f"{who}： {what}\n",
    "line": lambda who, what: f"{who}: {what} ",
}


@settings(deadline=None)
@given(
    UTTERANCES,
    st.sampled_from(sorted(FORMS)),
    st.sampled_from(["ENTJ", "Pessimistic job seeker", "비관적인 취업 준비생"]),
)
def test_whatever_the_form_the_same_turns_come_out(utterances, form, name):
    said_by = [(USER if at % 2 == 0 else name, text) for at, text in enumerate(utterances)]
    found = transcript("".join(FORMS[form](who, what) for who, what in said_by), [name])
    assert [turn.user for turn in found.turns] == utterances[::2]
    assert [reply for turn in found.turns for reply in turn.replies.values()] == utterances[1::2]
    listed = [{"speaker": who, "text": what} for who, what in said_by]
    assert transcript(f"Here:\n{json.dumps({'turns': listed}, ensure_ascii=False)}", [name]).turns == found.turns


@settings(deadline=None)
@given(
    st.text(alphabet=st.sampled_from('User:ENTJ\n *"{}[],-#사용자：'), max_size=200) | st.text(max_size=200),
    st.booleans(),
)
def test_no_text_breaks_the_parser(text, cut):
    found = transcript(text, ["ENTJ"], cut)
    assert all(turn.user.strip() for turn in found.turns)


def test_what_was_cut_off_is_no_reply():
    text = "User: One.\nENTJ: Two.\nUser: Three.\nENTJ: And then the"
    found = transcript(text, ["ENTJ"], cut=True)
    assert [turn.replies for turn in found.turns] == [{"ENTJ": "Two."}, {}] and found.cut == "And then the"
    whole = json.dumps([{"speaker": "User", "text": "One."}, {"speaker": "ENTJ", "text": 'Say "두 번".\nNow.'}])
    found = transcript(whole[:-1] + ', {"speaker": "User", "te', ["ENTJ"], cut=True)
    assert found.turns[0].replies == {"ENTJ": 'Say "두 번".\nNow.'} and found.cut.startswith('{"speaker"')


def test_json_that_goes_ever_deeper_is_no_dialogue():
    assert transcript('{"a": ' * 400 + "1" + "}" * 400, ["ENTJ"]).turns == []
