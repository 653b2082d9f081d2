"""The data stage: the same file as each method wants it, and prompts from whatever holds some."""

import json
from pathlib import Path

import pytest

from personalign import recipe as recipes
from personalign.datasets import Conversation, Pair, Prompt, Ranking, read_prompts
from personalign.errors import UserError
from personalign.rows import read_rows, rows_of, write_rows
from personalign.sources import Data

HELLO = {"role": "user", "content": "Hello"}
FORMS = {
    "alone": {"prompt": "Hello"},
    "alone, with a system prompt": {"prompt": "Hello", "system": "Be brief."},
    "as messages": {"prompt": [HELLO]},
    "instruction": {"instruction": "Hello", "input": ""},
    "pair": {"prompt": "Hello", "chosen": "a", "rejected": "b"},
    "ranking": {"prompt": "Hello", "completion_0": "a", "completion_1": "b", "ranking": [1, 0]},
    "completion": {"prompt": "Hello", "completion": "a"},
    "two answers": {"instruction": "Hello", "output": ["a", "b"]},
}


def written(folder: Path, *rows: dict) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("form", FORMS)
def test_a_prompt_is_what_the_user_says_before_the_answer(form, tmp_path):
    path = written(tmp_path, FORMS[form])
    system = [{"role": "system", "content": "Be brief."}] if "system" in FORMS[form] else []
    assert read_prompts(path) == [Prompt([*system, HELLO], f"{path}:1")]


def test_of_a_conversation_the_prompt_ends_before_the_last_answer(tmp_path):
    turns = [HELLO, {"role": "assistant", "content": "Hi"}, {"role": "user", "content": "So?"}]
    path = written(tmp_path, {"messages": [*turns, {"role": "assistant", "content": "Well."}]})
    assert read_prompts(path)[0].prompt == turns


def test_a_prompt_counts_once(tmp_path):
    path = written(tmp_path, {"prompt": "a"}, {"prompt": "b"}, {"prompt": "a"})
    assert [prompt.source.rpartition(":")[2] for prompt in read_prompts(path)] == ["1", "2"]


@pytest.mark.parametrize(
    ("rows", "columns", "said"),
    [
        ([], {}, "rows.jsonl: holds no rows"),
        ([{"text": "a"}], {}, "there is no column `prompt` among its columns \\(text\\)"),
        ([{"prompt": "a"}, {"prompt": " "}], {}, "rows.jsonl:2: `prompt` is empty"),
        ([{"asked": "a"}, {"asked": 3}], {"prompt": "asked"}, "rows.jsonl:2: `asked` is of type int"),
    ],
)
def test_a_file_without_prompts_is_refused(rows, columns, said, tmp_path):
    with pytest.raises(UserError, match=said):
        read_prompts(written(tmp_path, *rows), columns=columns)


@pytest.mark.parametrize(
    ("method", "kind"),
    [("sft", Pair), ("dpo", Pair), ("reward", Ranking), ("ppo", Prompt), (None, Pair)],
)
def test_the_bundled_data_come_as_the_method_wants_them(method, kind):
    recipe = recipes.build({"name": "x", "persona": "ENFP"})
    train, held_out = rows_of(recipe, method, recipe.data)
    assert {type(row) for row in [*train, *held_out]} == {kind}
    assert (len(train), len(held_out)) == ((54, 18) if method == "ppo" else (216, 72))
    if kind is Ranking:
        pairs, _ = rows_of(recipe, "dpo", recipe.data)
        assert [row.best_first for row in train] == [[pair.chosen, pair.rejected] for pair in pairs]


@pytest.mark.parametrize(
    ("method", "kind", "count"),
    [("sft", Conversation, 2), ("dpo", Pair, 6), ("reward", Ranking, 2), ("ppo", Prompt, 2), (None, Pair, 6)],
)
def test_rankings_come_as_the_method_wants_them(method, kind, count, tmp_path):
    rows = [{"prompt": f"q{n}", "completions": ["a", "b", "c"], "ranks": [2, 0, 1]} for n in range(2)]
    data = Data(source=str(written(tmp_path, *rows)), held_out=0)
    recipe = recipes.build({"name": "x", "persona": "ENFP", "train": None})
    found, _ = rows_of(recipe, method, data)
    assert [type(row) for row in found] == [kind] * count
    if kind is Conversation:
        assert found[0].messages[-1]["content"] == "b"


def test_prompts_alone_can_be_measured_on(tmp_path):
    data = Data(source=str(written(tmp_path, {"prompt": "a"}, {"prompt": "b"})), held_out=0.5)
    recipe = recipes.build({"name": "x", "persona": "ENFP", "train": None})
    assert [len(part) for part in rows_of(recipe, None, data)] == [1, 1]


def test_rows_come_back_as_they_were_written(tmp_path):
    rows = [
        Pair([HELLO], "a", "b", "x:1"), Ranking([HELLO], ["a", "b"], [1, 0], "x:2"), Prompt([HELLO], "x:3"),
        Conversation([HELLO, {"role": "assistant", "content": "줄\u2028바꿈"}], "x:4"),
    ]  # fmt: skip
    write_rows(tmp_path / "rows.jsonl", rows)
    assert read_rows(tmp_path / "rows.jsonl") == rows
