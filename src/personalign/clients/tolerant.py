"""JSON out of a model's answer: whatever stands around it, and in the small ways in which models deviate from it.

Only what has one meaning is mended: trailing commas, comments, typographic and Korean quotes, single quotes, Python's
True, False and None, names without quotes, full-width commas and colons. What is cut off, holds quotes that are not
escaped, or leaves a choice between two values is no JSON: the model is asked again rather than guessed at.
"""

import json
import re
from typing import Any

PAIRS = {
    '"': '"', "'": "'", "“": "”", "”": "”", "„": "“”", "‟": "”", "‘": "’", "＂": "＂", "「": "」", "『": "』", "«": "»",
}  # fmt: skip
WORDS = {"true": True, "false": False, "null": None, "True": True, "False": False, "None": None}
BLANK = re.compile(r"(?:\s|//[^\n]*(?:\n|$)|/\*.*?\*/)*", re.DOTALL)
NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?(?![\w.])", re.ASCII)
NAME = re.compile(r"[^\W\d]\w*")
# what a bracket must be followed by to be JSON's: in prose [the user] and {persona} stand for themselves
OPENING = re.compile(
    rf"\{{{BLANK.pattern}(?:[{''.join(PAIRS)}}}]|[^\W\d]\w*\s*[:：]|$)"
    rf"|\[{BLANK.pattern}(?:[{''.join(PAIRS)}\[\]{{]|-?\d[\d.eE+-]*\s*(?:[,\]]|$)|(?:{'|'.join(WORDS)})\b|$)",
    re.DOTALL,
)
FENCE = re.compile(r"^[ \t]*```[ \t]*(\w*)[ \t]*\n(.*?)^[ \t]*```[ \t]*$", re.DOTALL | re.MULTILINE)


def loads(text: str) -> Any:
    """The JSON object or list in a model's answer: bare, in fences, in prose, after its thoughts (<think>).

    What parses as it is stays as it is. Raises ValueError, saying what is wrong in a few words, where there is none, where
    it was cut off, where there are several that differ, and for half a character (no file could hold it).
    """
    bare = _without_thoughts(text.strip().lstrip("\ufeff").strip())
    try:
        found = _plain(bare)
        if found is None:
            found = _one(_in_fences(bare) or _in_prose(bare))
        json.dumps(found, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("there are too many brackets within brackets") from None
    except UnicodeEncodeError:
        raise ValueError("there is half a character in it") from None
    return found


def _without_thoughts(text: str) -> str:
    thoughts, closed, rest = text.partition("</think>")
    if closed and (text.startswith("<think>") or OPENING.search(thoughts) is None):  # some templates open them unseen
        return rest.strip()
    if text.startswith("<think>"):
        raise ValueError("it is cut off within its thoughts")
    return text


def _plain(text: str) -> Any:
    """The object or list that the whole text is by the book, or None."""
    try:  # line breaks within strings are let be
        found = json.loads(text, strict=False, object_pairs_hook=_object, parse_constant=_no_number)
    except json.JSONDecodeError:
        return None
    return found if isinstance(found, dict | list) else None


def _no_number(word: str) -> Any:
    raise ValueError(f"{word} is no number")


def _one(found: list[Any]) -> Any:
    if not found:
        raise ValueError("there is nothing that begins with { or [")
    if any(json.dumps(each, sort_keys=True) != json.dumps(found[0], sort_keys=True) for each in found[1:]):
        raise ValueError(f"there are {len(found)} values, and one is wanted")
    return found[0]


def _in_fences(text: str) -> list[Any]:
    """What stands in fences of its own, if that can be read; nothing where an answer begins outside of them, or one is open."""
    fences = FENCE.findall(text)
    if text[:1] in ("{", "[") or len(re.findall(r"^[ \t]*```", text, re.MULTILINE)) != 2 * len(fences):
        return []
    try:
        marked = [(tag.lower(), _in_prose(inside)) for tag, inside in fences]
    except ValueError:
        return []
    tagged = [each for tag, values in marked if tag == "json" for each in values]
    return tagged or [each for _, values in marked for each in values]


def _in_prose(text: str) -> list[Any]:
    """All objects and lists of a text. Raises ValueError for one that begins and cannot be read to its end."""
    found: list[Any] = []
    at = 0
    while (start := OPENING.search(text, at)) is not None:
        _check_prose(text[at : start.start()])
        value, at = _value(text, start.start())
        if text[_blank(text, at) :][:1] in (",", "，", ":", "："):
            raise ValueError(f"it goes on after its end at character {at}")
        found.append(value)
    _check_prose(text[at:])
    return found


def _check_prose(text: str) -> None:
    """Raises ValueError where half of a pair of brackets stands in it: what was found beside it is a part of something."""
    closing: list[str] = []
    for letter in text:
        if letter in "{[":
            closing.append("}" if letter == "{" else "]")
        elif letter in "}]" and (not closing or closing.pop() != letter):
            closing = [letter]
            break
    if closing:
        raise ValueError("half a pair of brackets stands outside of it")


def _value(text: str, at: int) -> tuple[Any, int]:
    """The value that begins at a place, and where it ends."""
    letter = text[at : at + 1]
    if letter == "{":
        return _members(text, at)
    if letter == "[":
        return _items(text, at)
    if letter in PAIRS:
        return _string(text, at)
    if (number := NUMBER.match(text, at)) is not None:
        return json.loads(number[0]), number.end()
    if (word := NAME.match(text, at)) is not None and word[0] in WORDS:
        return WORDS[word[0]], word.end()
    raise _wrong(text, at, "a value is missing")


def _members(text: str, at: int) -> tuple[dict[str, Any], int]:
    pairs: list[tuple[str, Any]] = []
    at = _blank(text, at + 1)
    while text[at : at + 1] != "}":
        if text[at : at + 1] in PAIRS:
            key, at = _string(text, at)
        elif (name := NAME.match(text, at)) is not None:
            key, at = name[0], name.end()
        else:
            raise _wrong(text, at, "a name in quotes is missing")
        at = _blank(text, at)
        if text[at : at + 1] not in (":", "："):
            raise _wrong(text, at, "a colon is missing")
        value, at = _value(text, _blank(text, at + 1))
        pairs.append((key, value))
        at = _next(text, at, "}")
    return _object(pairs), at + 1


def _items(text: str, at: int) -> tuple[list[Any], int]:
    found: list[Any] = []
    at = _blank(text, at + 1)
    while text[at : at + 1] != "]":
        value, at = _value(text, at)
        found.append(value)
        at = _next(text, at, "]")
    return found, at + 1


def _next(text: str, at: int, end: str) -> int:
    """Where the next item begins, or the bracket stands that ends them."""
    at = _blank(text, at)
    if text[at : at + 1] in (",", "，"):
        return _blank(text, at + 1)
    if text[at : at + 1] != end:
        raise _wrong(text, at, f"a comma or {end} is missing")
    return at


def _string(text: str, at: int) -> tuple[str, int]:
    """The string that a quote opens. Quotes of its own kind may stand within it in pairs; a plain one must be escaped."""
    opening, ends = text[at], PAIRS[text[at]]
    start, level, at = at + 1, 0, at + 1
    while at < len(text):
        if text[at] == "\\":
            at += 1
        elif text[at] in ends and level == 0:
            break
        elif text[at] in ends:
            level -= 1
        elif text[at] == opening:
            level += 1
        at += 1
    if at >= len(text):
        raise ValueError("it is cut off")
    after = _blank(text, at + 1)
    if after < len(text) and text[after] not in ",，:：}]":
        raise _wrong(text, at, "a quote is out of place")
    own = f"'{opening}{ends}".replace('"', "")  # JSON knows no such escapes, and leaves plain quotes to be escaped
    inside = re.sub(r"\\(.)", lambda two: two[1] if two[1] in own else two[0], text[start:at])
    inside = re.sub(r'\\.|"', lambda one: '\\"' if one[0] == '"' else one[0], inside, flags=re.DOTALL)
    return json.loads(f'"{inside}"', strict=False), at + 1


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Raises ValueError for a name that stands twice: one of the two would be lost."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands twice in an object")
    return found


def _blank(text: str, at: int) -> int:
    found = BLANK.match(text, at)
    return found.end() if found is not None else at


def _wrong(text: str, at: int, what: str) -> ValueError:
    return ValueError("it is cut off" if _blank(text, at) >= len(text) else f"{what} at character {at + 1}")
