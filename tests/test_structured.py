"""Answers with a form: what a model wraps around its JSON is taken off, what is wrong is asked for once more."""

import json
import re
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from personalign.clients import Answer, NoAnswer, Request, Usage, ask_for, formed, loads
from personalign.clients.structured import strict
from personalign.clients.tolerant import PAIRS
from personalign.synthesis import Made, gather
from scripted import Scripted, said, scripted_job

TEXT = st.text(max_size=12) | st.sampled_from(
    ["안녕", "```", "a, b}", "[1]", "// no", "”", "it's", "</think>", "\n```json\n", ",]"]
)
SCALARS = (
    st.none() | st.booleans() | st.integers(-(10**12), 10**12) | st.floats(allow_nan=False, allow_infinity=False) | TEXT
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=12
)
# what is asked for begins with a bracket
JSON = st.lists(VALUES, min_size=1, max_size=4) | st.dictionaries(TEXT, VALUES, min_size=1, max_size=4)
INDENT = st.sampled_from([None, 0, 2])
PROSE = st.sampled_from(["", "Sure! Here it is:\n", "네, 요청하신 결과입니다.\n\n", "[User] asked for {this}. So: "])
AFTER = st.sampled_from(["", "\n", "\n\nLet me know if you need more (or less).", "\n도움이 되었길 바랍니다 :)"])


def written(value, indent=None):
    return json.dumps(value, ensure_ascii=False, indent=indent)


@given(JSON, INDENT)
@settings(deadline=None)
def test_json_as_it_is_comes_back_as_it_is(value, indent):
    assert loads(written(value, indent)) == value
    assert loads("\ufeff \n" + written(value, indent) + "\n") == value


@given(JSON, INDENT, PROSE, AFTER, st.sampled_from(["```json\n", "```\n", "```JSON\n"]))
@settings(deadline=None)
def test_fences_and_prose_are_taken_off(value, indent, before, after, fence):
    assert loads(f"{before}{written(value, indent)}{after}") == value
    assert loads(f"{before}\n{fence}{written(value, indent)}\n```{after}") == value


@given(JSON, st.data())
@settings(deadline=None)
def test_trailing_commas_and_comments_are_mended(value, data):
    text = written(value, 1)
    lines = text.split("\n")
    for at, line in enumerate(lines[:-1]):
        closes_next = lines[at + 1].strip()[:1] in ("}", "]")
        if closes_next and line.strip()[-1:] not in "{[,":
            line += ","
        lines[at] = line + data.draw(st.sampled_from(["", "  // because", " /* so */"]))
    assert loads("\n".join(lines)) == value


def requoted(value, opening, closing):
    """The JSON of a value with other quotes; texts that hold one of them cannot be said in them without a doubt."""
    if isinstance(value, dict):
        pairs = (f"{requoted(k, opening, closing)}: {requoted(v, opening, closing)}" for k, v in value.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(requoted(each, opening, closing) for each in value) + "]"
    return opening + written(value)[1:-1] + closing if isinstance(value, str) else written(value)


@given(JSON, st.sampled_from(["“”", "„“", "「」", "『』", "＂＂", "‘’", "''", "«»"]), PROSE)
@settings(deadline=None)
def test_typographic_and_korean_quotes_are_read(value, quotes, before):
    text = written(value)
    if not {*quotes, *PAIRS[quotes[0]]} & set(text):
        assert loads(before + requoted(value, *quotes)) == value


@given(JSON, INDENT, PROSE, st.sampled_from(["", "\n```json\n"]), st.data())
@settings(deadline=None, max_examples=300)
def test_an_answer_that_was_cut_off_is_never_mended_into_a_shorter_one(value, indent, before, fence, data):
    text = written(value, indent)
    at = data.draw(st.integers(1, len(text) - 1))
    with pytest.raises(ValueError):
        loads(before + fence + text[:at])


@given(JSON, st.data())
@settings(deadline=None, max_examples=300)
def test_a_damaged_answer_is_refused_or_read_as_it_stands(value, data):
    """One character less: what is still read is the JSON that it has become, but for a trailing comma or \\' for '."""
    text = written(value)
    at = data.draw(st.integers(1, len(text) - 1))
    damaged = text[:at] + text[at + 1 :]
    try:
        found = loads(damaged)
    except ValueError:
        return
    try:
        assert found == json.loads(damaged)
    except json.JSONDecodeError:
        assert found == json.loads(re.sub(r", ([\]}])", r"\1", damaged).replace("\\'", "'"))


@given(st.text(max_size=60) | st.text(alphabet="{}[]\",: \\n'“”`/*1a가", max_size=60))
@settings(deadline=None, max_examples=400)
def test_whatever_a_model_says_there_is_json_or_an_error(text):
    try:
        assert isinstance(loads(text), dict | list)
    except ValueError as error:
        assert str(error)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{'name': 'Mina', 'sure': True, 'age': None}", {"name": "Mina", "sure": True, "age": None}),
        ('{name: "Mina", 나이: 31}', {"name": "Mina", "나이": 31}),
        ('{"a"： 1，"b"： 2}', {"a": 1, "b": 2}),
        ("{“말”: “그는 “싫어”라고 했다”}", {"말": "그는 “싫어”라고 했다"}),
        ('{“say”: “"no" and that\\nwas it”}', {"say": '"no" and that\nwas it'}),
        ("['it\\'s']", ["it's"]),
        ('{"two": "lines\nof text"}', {"two": "lines\nof text"}),
        ('<think>Perhaps {"a": 0}? No.</think>\n{"a": 1}', {"a": 1}),
        ('First I wondered.\n</think>\n\n{"a": 1}', {"a": 1}),
        ('A draft: {"a": 0}. Now for good:\n```json\n{"a": 1}\n```', {"a": 1}),
        ('{"code": "```[1, 2]```"}', {"code": "```[1, 2]```"}),
        ('{"a": 1}\n\nOr once more:\n\n{"a": 1}', {"a": 1}),
    ],
)
def test_what_has_one_meaning_is_read(text, value):
    assert loads(text) == value


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("I am sorry, I cannot.", "nothing that begins"),
        ("3", "nothing that begins"),
        ('{"a": 1}\n{"a": 2}', "there are 2 values"),
        ('{"a": "he said "no" twice"}', "a quote is out of place at character 16"),
        ('{"a": 1, "a": 2}', "stands twice"),
        ("[1, 2, ...]", "a value is missing"),
        ('{"a"; 1}', "a quote is out of place"),
        ('{"x": 1, a; 1}', "a colon is missing"),
        ('"a": {"b": 1}}', "half a pair of brackets"),
        ('"a": {"b": 1}, "c": [2]', "it goes on after its end"),
        ('{so "a": {"b": 1}}', "half a pair of brackets"),
        ('{"a": 1 "b": 2}', "a comma or } is missing"),
        ('<think>It could be {"a": 1}, or', "cut off within its thoughts"),
        ('```json\n{"a": 1}\n```\n```json\n{"b": [1,', "cut off"),
        ('{"a": NaN}', "NaN is no number"),
        ('{"a": "\\ud83d"}', "half a character"),
        ("[" * 5000, "too many brackets"),
        ('{"a":' * 5000, "too many brackets"),
    ],
)
def test_what_leaves_a_doubt_is_refused_with_the_reason(text, why):
    with pytest.raises(ValueError, match=why):
        loads(text)


class Card(BaseModel):
    title: str = Field(min_length=1)
    mood: Literal["good", "bad"] = "good"


class Cards(BaseModel):
    cards: list[Card]


def test_a_list_alone_will_do_where_the_form_has_one_field():
    assert formed('[{"title": "a"}]', Cards) == (Cards(cards=[Card(title="a")]), "")


def test_errors_name_the_field_and_not_the_text():
    assert formed('{"title": "secret", "mood": "sad"}', Card)[1] == "mood: Input should be 'good' or 'bad'"
    assert formed('[{"title": ""}]', Cards)[1].startswith("cards.0.title: ")


def test_schemas_are_closed_and_a_property_may_be_called_title():
    found = strict(Cards.model_json_schema())
    card = found["$defs"]["Card"]
    assert found["required"] == ["cards"] and found["additionalProperties"] is False
    assert card["required"] == ["title", "mood"]  # in the order of the form: reasons come before verdicts
    assert card["properties"]["title"] == {"type": "string", "minLength": 1}
    assert "default" not in card["properties"]["mood"]


REQUEST = Request(({"role": "user", "content": "A card, please."},), "cards.en@1", max_tokens=50)


def asked(tmp_path, answers, language="en"):
    """What `ask_for` makes of a model that answers so, and what that model was asked."""
    client, found = Scripted(answers), []

    async def one(session, item):
        found.append(await ask_for(session, REQUEST, Card, language))
        return Made()

    with scripted_job(tmp_path, client) as job:
        gather(job, "cards", [0], one)
    return found[0], client


def test_the_schema_goes_along_and_a_good_answer_is_taken(tmp_path):
    found, client = asked(tmp_path, lambda _: '```json\n{"title": "x", "mood": "bad",}\n```')
    assert found.value == Card(title="x", mood="bad") and found.reason is None and found.requests == (1,)
    assert client.asked[0].schema == strict(Card.model_json_schema())


@pytest.mark.parametrize(("language", "words"), [("en", "Answer again"), ("ko", "다시 답하세요")])
def test_a_wrong_answer_is_sent_back_once_with_the_error(tmp_path, language, words):
    replies = iter(['{"title": "x", "mood": "sad"}', '{"title": "x", "mood": "bad"}'])
    found, client = asked(tmp_path, lambda _: next(replies), language)
    assert found.value == Card(title="x", mood="bad") and found.requests == (1, 2)
    first, again = client.asked
    assert again.messages[:1] == first.messages and again.messages[1]["content"] == '{"title": "x", "mood": "sad"}'
    assert words in said(again) and "mood: Input should be" in said(again)
    assert again.prompt == "cards.en@1+repair"


def test_twice_wrong_is_given_up_with_both_errors(tmp_path):
    found, client = asked(tmp_path, lambda _: "no idea")
    assert found.value is None and len(client.asked) == 2 and found.requests == (1, 2) and found.text == "no idea"
    assert found.reason.startswith(
        "twice not in form: no JSON (there is nothing that begins with { or [); then no JSON"
    )


def test_what_was_cut_off_or_withheld_is_not_asked_for_again(tmp_path):
    found, client = asked(tmp_path / "a", lambda _: Answer('{"title": "x', "length", Usage(9, 50)))
    assert (found.value, found.reason, len(client.asked)) == (None, "cut off at 50 tokens", 1)
    found, client = asked(tmp_path / "b", lambda _: Answer("", "filter", Usage(9, 0)))
    assert (found.value, found.reason, len(client.asked)) == (None, "withheld by the provider's content filter", 1)


def test_an_answer_that_is_whole_when_the_limit_comes_is_taken(tmp_path):
    found, _ = asked(tmp_path, lambda _: Answer('{"title": "x"} And then', "length", Usage(9, 50)))
    assert found.value == Card(title="x")


def test_a_request_that_is_turned_away_is_a_reason_and_no_error(tmp_path):
    def refuses(request):
        raise NoAnswer("too long: 9,000 tokens of 8,192.")

    found, _ = asked(tmp_path / "a", refuses)
    assert found.value is None and found.reason.startswith("too long: ")

    def refuses_the_repair(request):
        return "no" if len(request.messages) == 1 else refuses(request)

    found, _ = asked(tmp_path / "b", refuses_the_repair)
    assert found.value is None and found.reason.startswith("not in form: ") and 1 in found.requests


def test_an_empty_answer_can_be_sent_back(tmp_path):
    """Providers refuse messages without a text."""
    _, client = asked(tmp_path, lambda _: " \n")
    assert client.asked[1].messages[1]["content"] == "-"
