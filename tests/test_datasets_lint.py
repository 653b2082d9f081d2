"""Lint and show: what is wrong with a dataset, and how a row looks to the model."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from personalign.conversation import answer_ids, conversation_tokens, prompt_ids
from personalign.datasets import (
    Conversation,
    Pair,
    length_bias,
    lint,
    lint_file,
    show,
    show_row,
    size,
)
from personalign.datasets.show import _pieces
from personalign.errors import UserError
from tiny import byte_tokenizer

TOKENIZER = byte_tokenizer()


def pair(prompt="Hi", chosen="yes!", rejected="no", source="x:1"):
    return Pair([{"role": "user", "content": prompt}], chosen, rejected, source)


def chat(*texts, source="x:1"):
    roles = ("user", "assistant") * len(texts)
    return Conversation([{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)], source)


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_every_bad_row_is_named_and_the_exit_code_is_2(tmp_path):
    rows = [
        {"prompt": "Hi", "chosen": "a b c", "rejected": "d"},
        {"prompt": "Hi", "chosen": "", "rejected": "d"},
        {"prompt": "Hi", "chosen": "a b c", "rejected": "d"},
        {"prompt": "Ho", "chosen": "same", "rejected": "same"},
        {"prompt": "Hi", "chosen": "other", "rejected": None},
    ]
    path = write(tmp_path / "data.jsonl", rows)
    report, code = lint_file(path)
    assert code == report.exit_code == 2
    text = report.format()
    assert f"{path}:2: `chosen` is empty; write the text, or delete the row." in text
    assert f"{path}:5: `rejected` is missing; add it, or delete the row." in text
    assert "rows          5, of which bad 2" in text
    assert report.duplicates == [(f"{path}:3", f"{path}:1")]
    assert report.identical == [f"{path}:4"]
    assert "duplicates    1: 3 = 1" in text and "identical     1 pairs teach nothing: 4" in text
    assert "prompt, chosen, rejected, read as pairs" in text
    assert report.problems[0].field == "chosen"


def test_a_file_without_one_readable_row_is_linted_too(tmp_path):
    (tmp_path / "bad.jsonl").write_text("{\n" * 7, encoding="utf-8")
    report, code = lint_file(tmp_path / "bad.jsonl")
    assert code == 2 and len(report.problems) == 7 and report.format()


def test_a_good_file_has_exit_code_0(tmp_path):
    assert lint_file(write(tmp_path / "data.jsonl", [{"prompt": "Hi", "completion": "yes"}]))[1] == 0


def test_rows_with_the_same_prompt_and_other_answers_are_counted():
    assert lint([pair(), pair(chosen="sure"), pair(prompt="Ho")]).same_prompt == 1


def test_rows_made_in_memory_are_checked_too():
    report = lint([pair(chosen=" "), pair(prompt=""), chat("Hi", "")])
    assert [(problem.field, problem.problem) for problem in report.problems] == [
        ("answer", "is empty"),
        ("prompt", "is empty"),
        ("answer", "is empty"),
    ]


def test_sizes_are_those_of_what_the_model_sees():
    one = size(pair(), TOKENIZER)
    prompt = len(prompt_ids(TOKENIZER, pair().prompt))
    assert (one.prompt, one.answers, one.total) == (prompt, (5, 3), prompt + 5)  # the end token counts
    assert size(pair(rejected="longer"), TOKENIZER).total == prompt + 7  # the longer answer decides
    whole = chat("Hi", "yes!", "Ho", "no")
    ids, counts = conversation_tokens(TOKENIZER, whole.messages)
    assert size(whole, TOKENIZER).total == len(ids)
    assert size(whole, TOKENIZER).answers == (sum(counts),)
    assert size(whole, TOKENIZER).prompt == prompt


def test_rows_beyond_max_length_are_listed_and_impossible_ones_are_bad():
    prompt = size(pair(), TOKENIZER).prompt
    rows = [pair(source="x:1"), pair(chosen="y" * 50, source="x:2"), pair(prompt="H" * 50, source="x:3")]
    report = lint(rows, TOKENIZER, max_length=prompt + 10)
    assert report.truncated == ["x:2"] and report.exit_code == 2
    (problem,) = report.problems
    assert str(problem).startswith(f"x:3: `prompt` takes {prompt + 48} tokens alone, which leaves no room")
    assert lint(rows, TOKENIZER).truncated == []
    assert lint(rows[:1], TOKENIZER, max_length=prompt).exit_code == 2  # no room for a single token of an answer
    assert lint(rows[:1], TOKENIZER, max_length=prompt + 1).truncated == ["x:1"]
    with pytest.raises(UserError, match="name the model"):
        lint(rows, max_length=10)


def test_a_row_that_the_chat_template_refuses_is_bad():
    report = lint([pair(chosen="bye<|im_end|>now")], TOKENIZER)
    assert "refused by the chat template" in str(report.problems[0]) and report.exit_code == 2


def test_length_bias_is_the_accuracy_of_longer_wins():
    longer, shorter = pair(chosen="longer", rejected="x"), pair(chosen="x", rejected="longer")
    rows = [longer] * 30 + [shorter] * 10 + [pair("a", "b", "c")]
    bias = length_bias(rows)
    assert (bias.equal, bias.unit) == (1, "characters")
    assert bias.share_chosen_longer == pytest.approx(30 / 41)
    assert bias.longer_wins == pytest.approx((0.75, 0.598, 0.858), abs=5e-4)
    assert bias.biased and "LENGTH BIAS: the longer answer" in lint(rows).format()
    assert not length_bias(rows[20:40]).biased
    assert length_bias(rows[-1:]).longer_wins is None


def test_lengths_are_in_tokens_where_there_is_a_tokenizer():
    bias = lint([pair(chosen="한", rejected="ab")], TOKENIZER).length_bias
    assert bias is not None and (bias.unit, bias.mean_chosen, bias.mean_rejected) == ("tokens", 4, 3)


def test_distinct_n_is_one_without_repetition():
    assert lint([pair(chosen="a b c", rejected="d e f")]).distinct == {1: 1, 2: 1, 3: 1}
    assert lint([pair(chosen="a b", rejected="a b")]).distinct == {1: 0.5, 2: 0.5}  # no answer has three words


def test_show_brackets_the_tokens_that_count():
    text = show(pair(chosen="yes", rejected="no"), TOKENIZER)
    assert "H·i" in text and "[y][e][s][<|im_end|>]" in text and "[n][o][<|im_end|>]" in text
    assert "[H]" not in text and "chosen: 4 tokens, 4 counted" in text
    assert text.count("H·i") == 1  # the prompt once
    several = show(chat("Hi", "yes", "Ho", "no"), TOKENIZER)
    assert "[y][e][s][<|im_end|>]" in several and "[n][o][<|im_end|>]" in several and "H·o" in several


def test_show_keeps_the_bytes_of_a_character_together():
    assert "[한][글][<|im_end|>]" in show(pair(chosen="한글"), TOKENIZER)


def test_show_parts_a_character_where_counting_begins():
    ids = TOKENIZER("한", add_special_tokens=False).input_ids
    first, *rest = [counted for _, counted in _pieces(TOKENIZER, ids, [False, True, True])]
    assert not first and rest and all(rest)


def test_show_in_colour_underlines_what_counts_and_prints_no_foreign_escape():
    text = show(pair(prompt="a\x1b[2J", chosen="y"), TOKENIZER, colour=True)
    assert "\x1b[4;92my\x1b[0m" in text and "\x1b[2J" not in text and "\\x1b" in text


@settings(deadline=None)  # a busy machine is no failure
@given(st.text(st.characters(codec="utf-8"), max_size=40), st.lists(st.booleans(), min_size=200, max_size=200))
def test_the_pieces_join_to_the_decoded_text(text, counts):
    ids = answer_ids(TOKENIZER, pair().prompt, "x" + text.replace("<|", "") + "x")
    pieces = list(_pieces(TOKENIZER, ids, [True] * len(ids)))
    assert "".join(piece for piece, _ in pieces) == TOKENIZER.decode(ids, clean_up_tokenization_spaces=False)
    assert [counted for _, counted in _pieces(TOKENIZER, [65] * 200, counts)] == counts


def test_show_row_counts_rows_as_lint_does(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text('\n{"prompt": "Hi", "completion": "yes"}\n{"prompt": "Hi"}\n', encoding="utf-8")
    assert show_row(path, 2, TOKENIZER).startswith(f"{path}:2\n")
    with pytest.raises(UserError, match="data.jsonl:3: `completion` is missing"):
        show_row(path, 3, TOKENIZER)
    with pytest.raises(UserError, match="there is no row 9; the rows run from 2 to 3"):
        show_row(path, 9, TOKENIZER)
