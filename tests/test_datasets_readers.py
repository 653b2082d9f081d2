"""Datasets from files: every form people keep them in, and what is said about a bad row."""

import csv
import json
from pathlib import Path

import datasets as hub
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from personalign.datasets import Conversation, Pair, chosen_conversation, read, read_conversations, read_pairs, split
from personalign.errors import UserError

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=20).filter(str.strip)


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def write(path: Path, rows: list) -> Path:
    """Write rows in the form that the file's ending says."""
    if path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows, ensure_ascii=False, indent=1), encoding="utf-8")
    else:
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


PAIR_FORMS = {
    "texts": {"prompt": "Hi", "chosen": "yes", "rejected": "no"},
    "texts with a system prompt": {"system": "Be kind.", "prompt": "Hi", "chosen": "yes", "rejected": "no"},
    "message lists": {"prompt": [user("Hi")], "chosen": [assistant("yes")], "rejected": [assistant("no")]},
    "implicit prompt": {"chosen": [user("Hi"), assistant("yes")], "rejected": [user("Hi"), assistant("no")]},
    "implicit prompt, repeated as a text": {
        "prompt": "Hi",
        "chosen": [user("Hi"), assistant("yes")],
        "rejected": [user("Hi"), assistant("no")],
    },
    "a persona's output": {"instruction": "Hi", "input": "", "output": "no", "output_with_persona": "yes"},
    "unlabelled answers": {"instruction": "Hi", "input": " ", "output": ["yes", "no"]},
}


@pytest.mark.parametrize("form", PAIR_FORMS)
@pytest.mark.parametrize("ending", [".json", ".jsonl", ".parquet"])
def test_pairs_are_read_from_every_form(tmp_path, form, ending):
    path = write(tmp_path / f"data{ending}", [PAIR_FORMS[form]])
    (pair,) = read_pairs(path, prefer=0)
    system = [{"role": "system", "content": "Be kind."}] if "system" in form else []
    assert pair == Pair([*system, user("Hi")], "yes", "no", f"{path}:1")


CONVERSATION_FORMS = {
    "messages": {"messages": [user("Hi"), assistant("yes")]},
    "prompt and completion": {"prompt": "Hi", "completion": "yes"},
    "prompt and completion as messages": {"prompt": [user("Hi")], "completion": [assistant("yes")]},
    "alpaca": {"instruction": "Hi", "input": "", "output": "yes"},
    "a persona's output": {"instruction": "Hi", "input": "", "output": "no", "output_with_persona": "yes"},
    "pairs": {"prompt": "Hi", "chosen": "yes", "rejected": "no"},
}


@pytest.mark.parametrize("form", CONVERSATION_FORMS)
def test_conversations_are_read_from_every_form(tmp_path, form):
    path = write(tmp_path / "data.jsonl", [CONVERSATION_FORMS[form]])
    assert read_conversations(path) == [Conversation([user("Hi"), assistant("yes")], f"{path}:1")]


def test_alpacas_input_stands_below_the_instruction(tmp_path):
    path = write(tmp_path / "a.json", [{"instruction": "Translate.", "input": "Bonjour", "output": "Hello"}])
    assert read_conversations(path)[0].messages[0] == user("Translate.\n\nBonjour")


def test_the_preferred_of_two_unlabelled_answers_must_be_said(tmp_path):
    path = write(tmp_path / "ie.json", [{"instruction": "Hi", "input": " ", "output": ["quiet", "loud"]}])
    assert read_pairs(path, prefer=0)[0].chosen == "quiet"
    assert read_pairs(path, prefer=1)[0].chosen == "loud"
    with pytest.raises(UserError, match="says of no answer that it is preferred"):
        read_pairs(path)
    with pytest.raises(UserError, match="prefer is 2"):
        read_pairs(path, prefer=2)


@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
def test_other_column_names_are_mapped_and_errors_use_them(tmp_path, ending):
    rows = [{"q": "Hi", "good": "yes", "bad": "no"}, {"q": "Hi", "good": "", "bad": "no"}]
    columns = {"prompt": "q", "chosen": "good", "rejected": "bad"}
    path = write(tmp_path / f"data{ending}", rows)
    assert read_pairs(write(tmp_path / f"good{ending}", rows[:1]), columns=columns)[0].rejected == "no"
    with pytest.raises(UserError, match="data.*:2: `good` is empty; write the text, or delete the row"):
        read_pairs(path, columns=columns)
    with pytest.raises(UserError, match="there is no column `answer` .for `chosen`.; there are bad, good, q"):
        read_pairs(path, columns=columns | {"chosen": "answer"})
    with pytest.raises(UserError, match="unknown field `choosen`; did you mean `chosen`"):
        read_pairs(path, columns={"choosen": "good"})


def test_messages_in_a_csv_cell_are_json(tmp_path):
    path = write(tmp_path / "chat.csv", [{"messages": json.dumps([user("Hi"), assistant('a, b\n"c"')])}])
    assert read_conversations(path)[0].messages[1]["content"] == 'a, b\n"c"'


def test_a_long_csv_cell_is_read(tmp_path):
    path = write(tmp_path / "long.csv", [{"prompt": "Hi", "completion": "long " * 40_000}])
    assert len(read_conversations(path)[0].messages[1]["content"]) == 200_000


def test_jsonl_under_the_name_json_and_a_byte_order_mark_are_accepted(tmp_path):
    path = tmp_path / "data.json"
    rows = [{"prompt": text, "completion": "yes"} for text in ("one\u2028line", "둘")]
    path.write_text("\ufeff" + "\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    found = read_conversations(path)
    assert [row.messages[0]["content"] for row in found] == ["one\u2028line", "둘"]
    assert [row.source for row in found] == [f"{path}:1", f"{path}:3"]  # the line, blank ones counted


@settings(deadline=None)  # a busy machine is no failure
@given(st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=1, max_size=4))
def test_every_text_survives_every_kind_of_file(tmp_path_factory, texts):
    rows = [dict(zip(("prompt", "chosen", "rejected"), row, strict=True)) for row in texts]
    folder = tmp_path_factory.mktemp("rows")
    for ending in (".json", ".jsonl", ".csv", ".parquet"):
        pairs = read_pairs(write(folder / f"data{ending}", rows))
        assert [(pair.prompt[0]["content"], pair.chosen, pair.rejected) for pair in pairs] == texts


BAD = {
    "broken JSON": ('{"prompt": "Hi", "chosen": "a"', "is not valid JSON"),
    "no object": ('["Hi"]', "is not a JSON object"),
    "not UTF-8": (b'{"prompt": "Hi", "chosen": "\xff", "rejected": "b"}', "is not UTF-8 text"),
    "missing field": ({"prompt": "Hi", "chosen": "a"}, "`rejected` is missing; add it, or delete the row"),
    "empty answer": ({"prompt": "Hi", "chosen": " \n", "rejected": "b"}, "`chosen` is empty"),
    "number": ({"prompt": "Hi", "chosen": 3, "rejected": "b"}, "`chosen` is of type int, not text"),
    "half a character": ('{"prompt": "Hi", "chosen": "\\ud83d", "rejected": "b"}', "`chosen` holds half a character"),
    "no prompt": ({"chosen": "a", "rejected": "b"}, "`prompt` is missing"),
    "unknown role": (
        {"prompt": [{"role": "human", "content": "Hi"}], "chosen": "a", "rejected": "b"},
        "`prompt[0].role` is 'human'; use system, user or assistant",
    ),
    "picture": (
        {"prompt": [{"role": "user", "content": [{"type": "image"}]}], "chosen": "a", "rejected": "b"},
        "`prompt[0].content` is of type list, not text",
    ),
    "late system message": (
        {"prompt": [user("Hi"), {"role": "system", "content": "x"}], "chosen": "a", "rejected": "b"},
        "`prompt[1].role` is a system message after the beginning",
    ),
    "out of turn": (
        {"prompt": [user("Hi"), user("Hello?")], "chosen": "a", "rejected": "b"},
        "`prompt[1].role` is user, out of turn",
    ),
    "answered prompt": (
        {"prompt": [user("Hi"), assistant("Yes?")], "chosen": "a", "rejected": "b"},
        "`prompt` does not end with a message of the user",
    ),
    "different prompts": (
        {"chosen": [user("Hi"), assistant("a")], "rejected": [user("Ho"), assistant("b")]},
        "`rejected` differs from `chosen` before the last message",
    ),
    "two turns in the answer": (
        {"prompt": "Hi", "chosen": [assistant("a"), user("b")], "rejected": "b"},
        "`chosen` is not one assistant message",
    ),
    "no message": ({"prompt": [{"text": "Hi"}], "chosen": "a", "rejected": "b"}, "`prompt[0]` is no message"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_row_is_named_with_line_field_and_remedy(tmp_path, kind):
    row, message = BAD[kind]
    raw = row if isinstance(row, bytes) else (row if isinstance(row, str) else json.dumps(row)).encode()
    good = json.dumps({"prompt": "Hi", "chosen": "a", "rejected": "b"}).encode()
    path = tmp_path / "bad.jsonl"
    path.write_bytes(good + b"\n\n" + raw + b"\n" + good)
    reading = read(path)
    assert [pair.source for pair in reading.rows] == [f"{path}:1", f"{path}:4"]
    (problem,) = reading.problems
    assert str(problem).startswith(f"{path}:3: {message}") and problem.remedy in str(problem)
    with pytest.raises(UserError, match="bad.jsonl:3"):
        read_pairs(path)


def test_a_conversation_needs_an_answer_at_its_end(tmp_path):
    rows = [{"messages": [user("Hi")]}, {"messages": [user("Hi"), assistant("a"), user("b")]}, {"messages": []}]
    path = write(tmp_path / "bad.jsonl", rows)
    assert [problem.source[-2:] for problem in read(path).problems] == [":1", ":2", ":3"]


def test_all_bad_rows_are_found_and_the_first_five_raised(tmp_path):
    rows = [{"prompt": "Hi", "completion": "" if number % 2 else "yes"} for number in range(20)]
    path = write(tmp_path / "bad.csv", rows)
    assert len(read(path).problems) == 10
    with pytest.raises(UserError) as error:
        read_conversations(path)
    assert str(error.value).count("`completion` is empty") == 5 and "and 5 more" in str(error.value)


def test_a_csv_row_with_too_many_cells_is_named(tmp_path):
    path = tmp_path / "bad.csv"
    path.write_text("prompt,completion\nHi,yes\nHi,yes, of course\n", encoding="utf-8")
    assert str(read(path).problems[0]).startswith(f"{path}:2: has 3 cells where the header has 2; put cells that hold")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.jsonl", None, "cannot be read"),
        ("data.txt", b"x", "unknown kind of file"),
        ("empty.jsonl", b"\n", "holds no rows"),
        ("empty.json", b"[]", "holds no rows"),
        ("broken.json", b'[\n{"a": 1},\n{]', r"broken.json:3: is not valid JSON"),
        ("object.json", b'{\n"data": []\n}', "neither a JSON list of rows"),
        ("other.jsonl", b'{"question": "Hi"}', r"its columns \(question\) fit no known form"),
        ("latin.csv", "prompt,completion\nZoë,x".encode("latin-1"), "is not UTF-8"),
        ("quote.csv", b'prompt,completion\n"Hi" there,x', "is not valid CSV near line 2"),
        ("fake.parquet", b"PAR?", "is not a valid Parquet file"),
    ],
)
def test_a_file_that_cannot_be_used_at_all_is_refused(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_conversations(tmp_path / name)


def test_conversations_are_no_pairs(tmp_path):
    path = write(tmp_path / "chat.jsonl", [{"prompt": "Hi", "completion": "yes"}])
    with pytest.raises(UserError, match="cannot be read as pairs"):
        read_pairs(path)


def test_the_format_is_said(tmp_path):
    path = write(tmp_path / "ie.json", [{"instruction": "Hi", "input": " ", "output": ["quiet", "loud"]}])
    assert (
        read(path, prefer=1).description
        == "instruction, input, output: [first, second], the second preferred, read as pairs"
    )


def test_a_hub_dataset_is_named_by_its_split(monkeypatch):
    rows = hub.Dataset.from_list([{"prompt": "Hi", "chosen": "yes", "rejected": "no"}])
    asked = []
    monkeypatch.setattr(hub, "load_dataset", lambda *args, **kwargs: asked.append((args, kwargs)) or rows)
    assert read_pairs("hf:org/name:train")[0].source == "hf:org/name:train:1"
    assert read_pairs("hf:org/name:main:test")[0].chosen == "yes"
    assert asked == [(("org/name", None), {"split": "train"}), (("org/name", "main"), {"split": "test"})]
    with pytest.raises(UserError, match="write hf:org/name:split"):
        read_pairs("hf:org/name")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ConnectionError("no route"), "the hub could not be reached .ConnectionError.; check the network"),
        (hub.exceptions.DatasetNotFoundError("gone"), "no such dataset, or it is private"),
        (ValueError("Unknown split \"dev\". Should be one of ['train']."), 'Unknown split "dev"'),
    ],
)
def test_a_hub_that_does_not_answer_is_said_so(monkeypatch, error, message):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(hub, "load_dataset", fail)
    with pytest.raises(UserError, match=message):
        read_pairs("hf:org/name:dev")


def test_the_chosen_answer_makes_a_conversation():
    pair = Pair([user("Hi")], "yes", "no", "x:1")
    assert chosen_conversation(pair) == Conversation([user("Hi"), assistant("yes")], "x:1")


@settings(deadline=None)  # a busy machine is no failure
@given(st.lists(st.integers(0, 30), min_size=2, max_size=60), st.floats(0.01, 0.9), st.integers(0, 3), st.randoms())
def test_a_split_keeps_a_prompt_on_one_side_whatever_the_order(prompts, share, seed, random):
    rows = [Pair([user(f"q{prompt}")], f"a{row}", "b", f"x:{row}") for row, prompt in enumerate(prompts)]
    if len(set(prompts)) < 2:
        with pytest.raises(UserError, match="share one prompt"):
            split(rows, share, seed)
        return
    train, held_out = split(rows, share, seed)
    assert train and held_out
    assert sorted(train + held_out, key=rows.index) == rows
    assert not {str(row.prompt) for row in train} & {str(row.prompt) for row in held_out}
    shuffled = random.sample(rows, len(rows))
    assert set(map(str, split(shuffled, share, seed)[1])) == set(map(str, held_out))


def test_a_split_holds_out_the_share_asked_for_and_depends_on_the_seed():
    rows = [Pair([user(f"question {row}")], "a", "b", f"x:{row}") for row in range(200)]
    parts = [split(rows, 0.1, seed)[1] for seed in (0, 1)]
    assert [len(part) for part in parts] == [20, 20] and parts[0] != parts[1]
    assert split(rows, 0)[1] == []
    with pytest.raises(UserError, match="held_out is 1"):
        split(rows, 1)


def test_the_same_question_to_two_personas_is_one_prompt():
    rows = [
        Pair([{"role": "system", "content": f"You are {who}."}, user(f" question  {number}")], "a", "b", "x")
        for who in ("Mo", "Al")
        for number in range(10)
    ]
    train, held_out = split(rows, 0.2)
    questions = [{row.prompt[1]["content"] for row in part} for part in (train, held_out)]
    assert not questions[0] & questions[1] and len(held_out) == 4
