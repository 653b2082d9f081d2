"""The bundled data: what it promises, and the pairs made from it."""

import json
from collections import Counter
from importlib.resources import files

import pytest

from personalign.datasets import Size, everyday, length_bias, lint, type_pairs
from personalign.errors import UserError
from personalign.personas import AXES, TYPES
from personalign.statistics import distinct_n, wilson

LANGUAGES = ("en", "ko")


def length(text, language):
    """Words of English, syllables of Korean: what the writers counted."""
    return len(text.split()) if language == "en" else sum("가" <= char <= "힣" for char in text)


def test_there_are_enough_situations_split_alike_in_both_languages():
    english, korean = (everyday(language) for language in LANGUAGES)
    assert len(english) >= 60 and len({situation.id for situation in english}) == len(english)
    assert [(one.id, one.split) for one in english] == [(one.id, one.split) for one in korean]
    held_out = everyday("en", "held_out")
    assert len(everyday("en", "train")) + len(held_out) == len(english)
    assert 0.15 <= len(held_out) / len(english) <= 0.3
    assert len({situation.topic for situation in english}) >= 30


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_situation_is_answered_from_every_pole_in_its_language(language):
    for situation in everyday(language):
        assert set(situation.answers) == set("EISNTFJP")
        for text in [situation.text, *situation.answers.values()]:
            assert text == text.strip() and text
            assert any("가" <= char <= "힣" for char in text) == (language == "ko"), text


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("axis", AXES)
def test_the_poles_of_an_axis_are_equally_long_so_that_length_teaches_nothing(axis, language):
    lengths = [[length(situation.answers[pole], language) for pole in axis] for situation in everyday(language)]
    assert sum(one for one, _ in lengths) / sum(other for _, other in lengths) == pytest.approx(1, abs=0.02)
    assert all(max(pair) <= 1.25 * min(pair) for pair in lengths)
    rule = wilson(sum(one > other for one, other in lengths), sum(one != other for one, other in lengths))
    assert rule.low <= 0.5 <= rule.high, "the longer answer is the one to prefer"


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", ["ENTJ", "ISFP"])
@pytest.mark.parametrize("split", ["train", "held_out"])
def test_lint_finds_nothing_and_length_does_not_tell_the_type(name, language, split):
    pairs = type_pairs(name, language, split)
    report = lint(pairs)
    assert report.exit_code == 0 and not report.duplicates and not report.identical
    sizes = [Size(0, (length(pair.chosen, language), length(pair.rejected, language)), 0) for pair in pairs]
    assert not length_bias(pairs, sizes).biased


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_answers_are_written_one_by_one(language):
    texts = [text for situation in everyday(language) for text in situation.answers.values()]
    assert len(set(texts)) == len(texts)
    assert distinct_n(texts, 2) > 0.7 and distinct_n(texts, 3) > 0.95
    openings = Counter(" ".join(text.split()[:2]) for text in texts)
    assert openings.most_common(1)[0][1] <= 8


def test_no_answer_names_a_type():
    text = (files("personalign.datasets") / "everyday.jsonl").read_text(encoding="utf-8").lower()
    assert not any(word in text for word in ("introver", "extrover", "extraver", "mbti", "내향", "외향"))


def test_no_prompt_stands_in_both_splits():
    sides = [{json.dumps(pair.prompt) for pair in type_pairs("ENTJ", "en", split)} for split in ("train", "held_out")]
    assert sides[0] and sides[1] and not sides[0] & sides[1]


@pytest.mark.parametrize("name", TYPES)
def test_a_type_prefers_its_pole_on_every_axis(name):
    situations = {situation.text: situation for situation in everyday("ko", "train")}
    pairs = type_pairs(name, "ko", "train")
    assert len(pairs) == 4 * len(situations) == len({(pair.chosen, pair.rejected) for pair in pairs})
    for pair in pairs:
        answers = situations[pair.prompt[0]["content"]].answers
        pole = pair.source[-1]
        axis = next(axis for axis in AXES if pole in axis)
        assert pole in name and (pair.chosen, pair.rejected) == (answers[pole], answers[axis.replace(pole, "")])


def test_the_opposite_type_turns_every_pair_round():
    turned = [(pair.prompt, pair.rejected, pair.chosen) for pair in type_pairs("ISFP", "en", "train")]
    assert turned == [(pair.prompt, pair.chosen, pair.rejected) for pair in type_pairs("ENTJ", "en", "train")]


def test_any_first_part_holds_all_axes_and_neighbours_differ():
    pairs = type_pairs("ENTJ", "en", "train")
    assert pairs == type_pairs("entj", "en", "train")
    for count in (4, 40, 100):
        axes = Counter(pair.source[-1] for pair in pairs[:count])
        assert len(axes) == 4 and max(axes.values()) - min(axes.values()) <= 2
    assert all(one.prompt != other.prompt for one, other in zip(pairs, pairs[1:], strict=False))


def test_single_poles_give_their_axis_only():
    pairs = type_pairs("E", "en", "train")
    assert len(pairs) == len(everyday("en", "train")) and {pair.source[-1] for pair in pairs} == {"E"}
    assert {pair.source[-1] for pair in type_pairs("TE", "en")} == {"E", "T"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ENTX", "en"), "none of the 16 types .near: ENTP, ENTJ"),
        (("ENTJ", "fr"), "unknown language 'fr'"),
        (("ENTJ", "en", "test"), "unknown split 'test'"),
    ],
)
def test_what_is_not_there_is_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        type_pairs(*arguments)
