"""The forms in which people keep preference pairs, rankings and conversations, and how a row of each becomes ours."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from personalign.conversation import Message
from personalign.datasets.records import Row

FIELDS = (
    "system", "prompt", "chosen", "rejected", "completions", "ranks", "completion_0", "ranking", "completion", "messages",
    "instruction", "input", "output", "output_with_persona",
)  # fmt: skip
"""Every field that a format reads, by our name for it; completion_0 stands for completion_1, completion_2, ... as well."""
NUMBERED = re.compile(r"completion_(\d+)")

Ranked = tuple[list[Message], list[str], list[int]]
"""A prompt, its answers and the rank of each (the lowest is the best)."""


class BadField(Exception):
    """A field that cannot be used: (field, problem, remedy); the reader adds the file and row."""


@dataclass(frozen=True)
class Format:
    """A way of writing rows: the columns that it needs, and its two readings (None: it has no such reading).

    `ranked(row, prefer)` gives a prompt with ranked answers (a pair is a ranking of two) and `messages(row)` a
    conversation; both raise BadField.
    """

    needs: tuple[str, ...]
    description: str
    ranked: Callable[[Row, int], Ranked] | None
    messages: Callable[[Row], list[Message]] | None


def detect(rows: list[Row]) -> str | None:
    """Return the name of the first format all of whose columns occur, or None.

    The columns of all rows together decide: a row that lacks one is then a bad row, not another format.
    """
    columns = {column for row in rows for column in row}
    lists = any(isinstance(row.get("output"), list) for row in rows)
    for name, form in FORMATS.items():
        if set(form.needs) <= columns and (name != "alternatives" or lists):
            return name
    return None


def _text(row: Row, field: str) -> str:
    return check_text(_there(row, field), field)


def _there(row: Row, field: str) -> object:
    if row.get(field) is None:
        raise BadField(field, "is missing", "add it, or delete the row")
    return row[field]


def check_text(value: object, field: str) -> str:
    """Return `value` if it is text with something in it; raise BadField otherwise."""
    if not isinstance(value, str):
        raise BadField(field, f"is of type {type(value).__name__}, not text", 'write it as a string in "quotes"')
    if not value.strip():
        raise BadField(field, "is empty", "write the text, or delete the row")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise BadField(field, f"holds half a character (position {error.start})", "restore or remove it") from None
    return value


def _messages(value: object, field: str) -> list[Message]:
    messages: list[Message] = []
    for number, message in enumerate(_list(value, field, "messages", '[{"role": "user", "content": "..."}, ...]')):
        place = f"{field}[{number}]"
        if not isinstance(message, dict) or not {"role", "content"} <= set(message):
            raise BadField(place, "is no message", 'write {"role": ..., "content": ...}')
        role = message["role"]
        if role not in ("system", "user", "assistant"):
            raise BadField(f"{place}.role", f"is {role!r}", "use system, user or assistant")
        if role == "system" and number:
            raise BadField(f"{place}.role", "is a system message after the beginning", "put it first")
        messages.append({"role": role, "content": check_text(message["content"], f"{place}.content")})
    return messages


def _list(value: object, field: str, of: str, example: str) -> list[Any]:
    """Check a list with something in it; a CSV cell holds it as JSON."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            value = None
    if not isinstance(value, list) or not value:
        raise BadField(field, f"is no list of {of}", f"write {example}")
    return value


def _prompt(row: Row) -> list[Message]:
    """The prompt, ending with the user's turn: from a list, or from a text and an optional system prompt."""
    value = row.get("prompt")
    if isinstance(value, list):
        return _in_turn(_messages(value, "prompt"), "prompt", "user")
    return _asked(row, _text(row, "prompt"))


def _asked(row: Row, question: str) -> list[Message]:
    system: list[Message] = [{"role": "system", "content": _text(row, "system")}] if row.get("system") else []
    return [*system, {"role": "user", "content": question}]


def question(row: Row) -> list[Message]:
    """The prompt of a row that has nothing else: `prompt`, or alpaca's `instruction` and `input`. Raises BadField."""
    return _instruction(row) if row.get("prompt") is None and "instruction" in row else _prompt(row)


def _in_turn(messages: list[Message], field: str, last: str) -> list[Message]:
    """Require user and assistant to alternate after the system prompt, if any, and `last` to have the last word."""
    systems = sum(message["role"] == "system" for message in messages)
    for number, message in enumerate(messages[systems:]):
        if message["role"] != ("user", "assistant")[number % 2]:
            remedy = "let user and assistant alternate, the user first"
            raise BadField(f"{field}[{number + systems}].role", f"is {message['role']}, out of turn", remedy)
    if len(messages) == systems or messages[-1]["role"] != last:
        raise BadField(
            field, f"does not end with a message of the {last}", "add it, or remove what follows the last one"
        )
    return messages


def _answer(value: object, field: str) -> str:
    """An answer: a text, or a list that holds one assistant message."""
    if not isinstance(value, list):
        return check_text(value, field)
    messages = _messages(value, field)
    if len(messages) != 1 or messages[0]["role"] != "assistant":
        raise BadField(field, "is not one assistant message", "put everything before the answer into `prompt`")
    return messages[0]["content"]


def _preference(row: Row, prefer: int) -> Ranked:
    # TRL's implicit prompt: both sides are whole conversations that differ in their last message only. Some files
    # repeat the prompt as a text beside them.
    if not all(isinstance(row.get(field), list) and len(row[field]) > 1 for field in ("chosen", "rejected")):
        if row.get("prompt") is None:
            raise BadField("prompt", "is missing", "add it, or write `chosen` and `rejected` as whole message lists")
        return _prompt(row), [_answer(_there(row, field), field) for field in ("chosen", "rejected")], [0, 1]
    chosen, rejected = (_in_turn(_messages(row[field], field), field, "assistant") for field in ("chosen", "rejected"))
    if chosen[:-1] != rejected[:-1]:
        raise BadField("rejected", "differs from `chosen` before the last message", "let the two share their prompt")
    return chosen[:-1], [chosen[-1]["content"], rejected[-1]["content"]], [0, 1]


def _ranked(row: Row, prefer: int) -> Ranked:
    """`completions` and `ranks`, side by side."""
    prompt = _prompt(row)
    texts = _list(_there(row, "completions"), "completions", "answers", '["...", "..."]')
    texts = [
        _answer(_there({place: text}, place), place)
        for at, text in enumerate(texts)
        for place in [f"completions[{at}]"]
    ]
    return prompt, texts, check_ranks(_there(row, "ranks"), len(texts), "ranks")


def _numbered(row: Row, prefer: int) -> Ranked:
    """KoChatGPT's and DnF's form: `ranking[i]` is the rank of `completion_i`.

    A file's rows may have different numbers of answers: the last columns of a row may then be empty, none before them.
    """
    prompt = _prompt(row)
    ranking = _list(_there(row, "ranking"), "ranking", "ranks", "one rank for each completion, such as [1, 0, 2]")
    filled = [
        int(match[1]) for field in row if (match := NUMBERED.fullmatch(str(field))) and row[field] not in (None, "")
    ]
    count = max([len(ranking) - 1, *filled]) + 1
    texts = [_answer(_there(row, f"completion_{at}"), f"completion_{at}") for at in range(count)]
    return prompt, texts, check_ranks(ranking, count, "ranking")


def check_ranks(value: object, count: int, field: str) -> list[int]:
    """Return the ranks of `count` answers, one each from 0 or 1 on, the lowest the best; raise BadField otherwise."""
    if count < 2:
        raise BadField(field, "ranks fewer than two completions", "add another completion, or delete the row")
    ranks = _list(value, field, "ranks", "one rank for each completion, such as [1, 0, 2]")
    if len(ranks) != count:
        raise BadField(field, f"has {len(ranks)} ranks for {count} completions", "give every completion one rank")
    for at, rank in enumerate(ranks):
        if type(rank) is not int:
            raise BadField(
                f"{field}[{at}]", f"is {rank!r}, not a whole number", "write the rank, such as 0 for the best"
            )
        if rank in ranks[:at]:
            two = f"completions {ranks.index(rank)} and {at} (rank {rank})"
            raise BadField(
                field, f"has a tie: {two}", "give each completion a rank of its own, or leave one of the two out"
            )
    if sorted(ranks) not in (list(range(count)), list(range(1, count + 1))):
        ways = f"0 to {count - 1} or 1 to {count}, the lowest for the best"
        raise BadField(field, f"is {ranks}, no permutation", f"number the completions {ways}")
    return ranks


def _instruction(row: Row) -> list[Message]:
    """Alpaca's question: the instruction, and below it the input where there is one."""
    instruction, given = _text(row, "instruction"), row.get("input")
    if given is not None and not isinstance(given, str):
        check_text(given, "input")
    return _asked(row, f"{instruction}\n\n{given}" if given and given.strip() else instruction)


def _alternatives(row: Row, prefer: int) -> Ranked:
    outputs = row.get("output")
    if not isinstance(outputs, list) or len(outputs) != 2:
        raise BadField("output", "is not a list of two answers", "write [first, second]")
    texts = [check_text(text, f"output[{index}]") for index, text in enumerate(outputs)]
    return _instruction(row), texts, [1, 0] if prefer else [0, 1]


def _restyled(row: Row, prefer: int) -> Ranked:
    return _instruction(row), [_text(row, "output_with_persona"), _text(row, "output")], [0, 1]


def _conversation(row: Row) -> list[Message]:
    if row.get("messages") is None:
        raise BadField("messages", "is missing", "add it, or delete the row")
    return _in_turn(_messages(row["messages"], "messages"), "messages", "assistant")


def _answered(prompt: list[Message], answer: str) -> list[Message]:
    return [*prompt, {"role": "assistant", "content": answer}]


def _best(prompt: list[Message], texts: list[str], ranks: list[int]) -> list[Message]:
    return _answered(prompt, texts[ranks.index(min(ranks))])


FORMATS = {
    "preference": Format(
        ("chosen", "rejected"),
        "prompt, chosen, rejected",
        _preference,
        lambda row: _best(*_preference(row, 0)),
    ),
    "ranking": Format(
        ("completions", "ranks"),
        "prompt, completions, ranks",
        _ranked,
        lambda row: _best(*_ranked(row, 0)),
    ),
    "numbered": Format(
        ("completion_0", "ranking"),
        "prompt, completion_0, completion_1, ..., ranking",
        _numbered,
        lambda row: _best(*_numbered(row, 0)),
    ),
    "restyled": Format(
        ("instruction", "output", "output_with_persona"),
        "instruction, input, output, output_with_persona (the persona's answer is learned, or preferred)",
        _restyled,
        lambda row: _answered(_instruction(row), _text(row, "output_with_persona")),
    ),
    "alternatives": Format(
        ("instruction", "output"),
        "instruction, input, output: [first, second]",
        _alternatives,
        None,
    ),
    "messages": Format(("messages",), "messages", None, _conversation),
    "completion": Format(
        ("prompt", "completion"),
        "prompt, completion",
        None,
        lambda row: _answered(_prompt(row), _answer(_there(row, "completion"), "completion")),
    ),
    "alpaca": Format(
        ("instruction", "output"),
        "instruction, input, output",
        None,
        lambda row: _answered(_instruction(row), _text(row, "output")),
    ),
}
"""In the order in which they are recognised: the more particular first."""
