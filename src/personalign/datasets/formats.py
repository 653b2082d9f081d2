"""The forms in which people keep preference pairs and conversations, and how a row of each becomes ours."""

import json
from collections.abc import Callable
from dataclasses import dataclass

from personalign.conversation import Message
from personalign.datasets.records import Row

FIELDS = (
    "system", "prompt", "chosen", "rejected", "completion", "messages",
    "instruction", "input", "output", "output_with_persona",
)  # fmt: skip
"""Every field that a format reads, by our name for it."""


class BadField(Exception):
    """A field that cannot be used: (field, problem, remedy); the reader adds the file and row."""


@dataclass(frozen=True)
class Format:
    """A way of writing rows: the columns that it needs, and its two readings (None: it has no such reading).

    `pair(row, prefer)` gives (prompt, chosen, rejected) and `messages(row)` a conversation; both raise BadField.
    """

    needs: tuple[str, ...]
    description: str
    pair: Callable[[Row, int], tuple[list[Message], str, str]] | None
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
    value = row.get(field)
    if value is None:
        raise BadField(field, "is missing", "add it, or delete the row")
    return check_text(value, field)


def check_text(value: object, field: str) -> str:
    """Return `value` if it is text with something in it; raise BadField otherwise."""
    if not isinstance(value, str):
        raise BadField(field, f"is a {type(value).__name__}, not text", 'write it as a string in "quotes"')
    if not value.strip():
        raise BadField(field, "is empty", "write the text, or delete the row")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise BadField(field, f"holds half a character (position {error.start})", "restore or remove it") from None
    return value


def _messages(value: object, field: str) -> list[Message]:
    """Check a list of messages; a CSV cell holds it as JSON."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            value = None
    if not isinstance(value, list) or not value:
        raise BadField(field, "is no list of messages", 'write [{"role": "user", "content": "..."}, ...]')
    messages: list[Message] = []
    for number, message in enumerate(value):
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


def _prompt(row: Row) -> list[Message]:
    """The prompt, ending with the user's turn: from a list, or from a text and an optional system prompt."""
    value = row.get("prompt")
    if isinstance(value, list):
        return _in_turn(_messages(value, "prompt"), "prompt", "user")
    return _asked(row, _text(row, "prompt"))


def _asked(row: Row, question: str) -> list[Message]:
    system: list[Message] = [{"role": "system", "content": _text(row, "system")}] if row.get("system") else []
    return [*system, {"role": "user", "content": question}]


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


def _answer(row: Row, field: str) -> str:
    """An answer: a text, or a list that holds one assistant message."""
    value = row.get(field)
    if not isinstance(value, list):
        return _text(row, field)
    messages = _messages(value, field)
    if len(messages) != 1 or messages[0]["role"] != "assistant":
        raise BadField(field, "is not one assistant message", "put everything before the answer into `prompt`")
    return messages[0]["content"]


def _preference(row: Row, prefer: int) -> tuple[list[Message], str, str]:
    # TRL's implicit prompt: both sides are whole conversations that differ in their last message only. Some files
    # repeat the prompt as a text beside them.
    if not all(isinstance(row.get(field), list) and len(row[field]) > 1 for field in ("chosen", "rejected")):
        if row.get("prompt") is None:
            raise BadField("prompt", "is missing", "add it, or write `chosen` and `rejected` as whole message lists")
        return _prompt(row), _answer(row, "chosen"), _answer(row, "rejected")
    chosen, rejected = (_in_turn(_messages(row[field], field), field, "assistant") for field in ("chosen", "rejected"))
    if chosen[:-1] != rejected[:-1]:
        raise BadField("rejected", "differs from `chosen` before the last message", "let the two share their prompt")
    return chosen[:-1], chosen[-1]["content"], rejected[-1]["content"]


def _instruction(row: Row) -> list[Message]:
    """Alpaca's question: the instruction, and below it the input where there is one."""
    instruction, given = _text(row, "instruction"), row.get("input")
    if given is not None and not isinstance(given, str):
        check_text(given, "input")
    return _asked(row, f"{instruction}\n\n{given}" if given and given.strip() else instruction)


def _alternatives(row: Row, prefer: int) -> tuple[list[Message], str, str]:
    outputs = row.get("output")
    if not isinstance(outputs, list) or len(outputs) != 2:
        raise BadField("output", "is not a list of two answers", "write [first, second]")
    first, second = (check_text(text, f"output[{index}]") for index, text in enumerate(outputs))
    return (_instruction(row), second, first) if prefer else (_instruction(row), first, second)


def _restyled(row: Row, prefer: int) -> tuple[list[Message], str, str]:
    return _instruction(row), _text(row, "output_with_persona"), _text(row, "output")


def _conversation(row: Row) -> list[Message]:
    if row.get("messages") is None:
        raise BadField("messages", "is missing", "add it, or delete the row")
    return _in_turn(_messages(row["messages"], "messages"), "messages", "assistant")


def _answered(prompt: list[Message], answer: str) -> list[Message]:
    return [*prompt, {"role": "assistant", "content": answer}]


FORMATS = {
    "preference": Format(
        ("chosen", "rejected"),
        "prompt, chosen, rejected",
        _preference,
        lambda row: _answered(*_preference(row, 0)[:2]),
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
        lambda row: _answered(_prompt(row), _answer(row, "completion")),
    ),
    "alpaca": Format(
        ("instruction", "output"),
        "instruction, input, output",
        None,
        lambda row: _answered(_instruction(row), _text(row, "output")),
    ),
}
"""In the order in which they are recognised: the more particular first."""
