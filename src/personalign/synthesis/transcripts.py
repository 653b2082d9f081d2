"""A dialogue as models write it down -> who says what, turn by turn.

Asked for are lines such as "User: ..." and "ENTJ: ...". What comes is that, or labels in bold, numbered or as headings, with
stage directions in brackets, several on a line, under other names, or JSON of any shape, whole or cut off.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from personalign.clients import loads

USER = "User"
_USERS = {"user", "you", "human", "사용자", "유저", "이용자"}
_WHO = ("speaker", "role", "name", "who", "from", "character", "화자", "이름")
_WHAT = ("text", "content", "message", "line", "utterance", "says", "value", "dialogue", "대사", "내용", "말")
_WHOLE = re.compile(
    rf'"(?:{"|".join(_WHO)})"\s*:\s*"([^"]+)"\s*,\s*"(?:{"|".join(_WHAT)})"\s*:\s*"((?:[^"\\]|\\.)*)"', re.IGNORECASE
)

# in front of what is said: marks of a list or heading, a name, perhaps brackets around it or an aside behind it, a colon
_MARKS = r"[ \t]*(?:(?:[-•>#]+|\*(?=\s)|\d+[.)])[ \t]*)*(?:\*\*|__|[*_\[【<「])*[ \t]*"
_AFTER = r"[ \t]*(?:\*\*|__|[*_\]】>」])*[ \t]*(?:[(（\[*][^()（）\]\n:：]{1,60}[)）\]*])?[ \t]*(?:\*\*|__)?[ \t]*"
_LABEL = re.compile(
    rf"^{_MARKS}(?P<label>[^\W_][^\n:：*_\[\]【】<>()（）「」\"“”,.!?]{{0,39}}?){_AFTER}[:：][ \t]*(?:\*\*|__)?"
)
# between turns: rules, headings, "Turn 2"; and behind the last one, what the model says about its work
_BETWEEN = re.compile(
    r"\s*(?:[-–—*=_]{3,}|#+\s.*|[*_\[(]*(?:turn|round|exchange|턴|차례) ?\d+[^\w\n]*|\d+ ?번째[^\w\n]*)\s*", re.I
)
_EPILOGUE = re.compile(
    r"\n\s*\n\s*(?:[-–—*=_]{3,}\s*\n)?\s*[(\[*]*(?:end of|the end|let me know|i hope|note:|would you like|feel free|"
    r"this (?:dialogue|conversation)|(?:이|위) (?:대화|대본)|필요하시|원하시면|참고|대화 끝|끝\b)[^\n]*(?:\n.*)?\Z",
    re.IGNORECASE | re.DOTALL,
)


@dataclass(frozen=True)
class Turn:
    """What the user says, and what each persona replies."""

    user: str
    replies: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Transcript:
    """The turns; and what was said and belongs to none: before the user said anything, or cut off."""

    turns: list[Turn]
    unasked: list[str]
    cut: str = ""


def transcript(text: str, names: Sequence[str], cut: bool = False) -> Transcript:
    """The turns of a dialogue between the user and the personas of these names.

    `cut` says that the model was stopped: the last thing said is then no whole one. A text without a dialogue has no turns.
    """
    text = re.sub(r"(?s)\A\s*<think>.*?(?:</think>|\Z)", "", text)
    said, unfinished = _from_json(text, names)
    if not said:
        said = _from_lines(text, names)
        if cut and said:
            _, unfinished = said.pop()
    turns: list[Turn] = []
    unasked: list[str] = []
    for who, what in _joined(said):
        if who == USER:
            turns.append(Turn(what))
        elif not turns:
            unasked.append(what)
        else:
            replies = turns[-1].replies
            replies[who] = f"{replies[who]} {what}" if who in replies else what
    return Transcript(turns, unasked, unfinished)


def _joined(said: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Without empty ones, and what the same speaker says twice in a row as one."""
    found: list[tuple[str, str]] = []
    for who, what in said:
        if not what.strip():
            continue
        if found and found[-1][0] == who:
            found[-1] = who, f"{found[-1][1]} {what.strip()}"
        else:
            found.append((who, what.strip()))
    return found


def _from_lines(text: str, names: Sequence[str]) -> list[tuple[str, str]]:
    text = re.sub(r"(?m)^\s*```\w*\s*$", "", text.replace("\r\n", "\n"))
    text = _EPILOGUE.sub("", text)
    labels = [found["label"].strip() for line in text.split("\n") if (found := _LABEL.match(line))]
    # those that are known count without a colon, too, and in the middle of a line
    own = "|".join(map(re.escape, (*names, *_USERS)))
    bare = re.compile(
        rf"^{_MARKS}({own}){_AFTER}(?:[ ][-–—][ ]|$)|(?<=[.!?…\"”*)~])[ \t]+({own})[ \t]*[:：]", re.M | re.I
    )
    labels += [first or second for first, second in bare.findall(text)]
    speakers = _speakers(labels, names)
    if not speakers:
        return []
    known = "|".join(re.escape(label) for label in sorted(speakers, key=len, reverse=True))
    text = re.sub(rf"(?<=[.!?…\"”*)~])(?<!\d\.)[ \t]+(?=(?:\*\*)?(?:{known})(?:\*\*)?[ \t]*[:：])", "\n", text)
    # with a colon, a dash, or alone on its line
    begins = re.compile(rf"^{_MARKS}(?P<label>{known}){_AFTER}(?:[:：][ \t]*(?:\*\*|__)?|[ ][-–—][ ]|$)[ \t]*")
    said: list[tuple[str, str]] = []
    for line in text.split("\n"):
        if found := begins.match(line):
            said.append((speakers[found["label"]], line[found.end() :]))
        elif said and not _BETWEEN.fullmatch(line):
            said[-1] = said[-1][0], f"{said[-1][1]}\n{line}"
    return [(who, what.strip()) for who, what in said]


def _from_json(text: str, names: Sequence[str]) -> tuple[list[tuple[str, str]], str]:
    """Who says what in JSON; of JSON that was cut off what stands there whole, and the rest."""
    rest = ""
    if not re.search(r'[\[{]\s*["“{\[]', text):
        return [], rest
    try:
        listed = _list_of_turns(loads(text))
    except ValueError:
        whole = list(_WHOLE.finditer(text))
        listed = [(found[1], _unescaped(found[2])) for found in whole]
        rest = text[whole[-1].end() :].strip(" \n}],") if whole else ""
    speakers = _speakers([label for label, _ in listed], names)
    said = [(speakers[label], what) for label, what in listed if label in speakers]
    return said, rest if said and any(map(str.isalnum, rest)) else ""


def _unescaped(text: str) -> str:
    try:
        return str(loads(f'["{text}"]')[0])
    except ValueError:
        return text


def _list_of_turns(value: Any, depth: int = 4) -> list[tuple[str, str]]:
    """(label, what is said) of the first list that has some: objects with speaker and text, or with a text by speaker."""
    if isinstance(value, dict) and depth:
        return next((turns for part in value.values() if (turns := _list_of_turns(part, depth - 1))), [])
    if not isinstance(value, list):
        return []
    found: list[tuple[str, str]] = []
    for each in value:
        if isinstance(each, str) and (label := _LABEL.match(each)):
            found.append((label["label"].strip(), each[label.end() :]))
        elif isinstance(each, dict):
            keys = {str(key).casefold(): text for key, text in each.items() if isinstance(text, str)}
            who = next((keys[key] for key in _WHO if key in keys), None)
            what = next((keys[key] for key in _WHAT if key in keys), None)
            pairs = [(str(key), text) for key, text in each.items() if isinstance(text, str)]
            found += [(who, what)] if who is not None and what is not None else pairs
    return found


def _speakers(labels: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """{label: speaker} of the labels that are speakers.

    A name counts in any case and as a part of the label ("ENTJ friend"). A model may also have given names of its own: a
    label that comes twice and is nobody's is the user, where nobody else is, then the one persona.
    """
    plain = {_plain(name): name for name in names}
    found: dict[str, str] = {}
    for label in dict.fromkeys(labels):
        short = _plain(label)
        near = [
            name for key, name in plain.items() if key and short and (key in short or short in key and len(short) > 2)
        ]
        if short in plain:
            found[label] = plain[short]
        elif short in _USERS:
            found[label] = USER
        elif len(near) == 1 and len(label.split()) <= 6:
            found[label] = near[0]
    strangers = [label for label, count in Counter(labels).items() if count > 1 and label not in found]
    if len(names) == 1 and len(strangers) <= 2:
        for label in strangers:
            for who in (USER, names[0]):
                if who not in found.values():
                    found[label] = who
                    break
    if USER not in found.values() or not set(names) & set(found.values()):
        return {}
    return found


def _plain(label: str) -> str:
    return "".join(letter for letter in label.casefold() if letter.isalnum())
