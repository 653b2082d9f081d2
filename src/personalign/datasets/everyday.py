"""The bundled data: everyday situations, each answered from all eight poles, in English and in Korean."""

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from personalign.datasets.records import Pair
from personalign.errors import UserError
from personalign.files import read_jsonl
from personalign.personas import opposite, poles

Split = Literal["train", "held_out"]
FILE = "everyday.jsonl"


@dataclass(frozen=True)
class Situation:
    """What a user says, and what a person of each pole (a letter of EINSTFJP) would reply."""

    id: str
    topic: str
    split: str
    text: str
    answers: dict[str, str]


def everyday(language: str = "en", split: Split | None = None) -> list[Situation]:
    """Return the bundled situations of a language, of one split or (None) of both, in the file's order.

    The split is by situation and the same in both languages. Raises UserError for another language or split.
    """
    if language not in ("en", "ko"):
        raise UserError(f"unknown language {language!r}; the bundled data is in en and ko.")
    if split not in ("train", "held_out", None):
        raise UserError(f"unknown split {split!r}; the bundled data has train and held_out.")
    return [
        Situation(
            id=row["id"],
            topic=row["topic"],
            split=row["split"],
            text=row["situation"][language],
            answers={pole: texts[language] for pole, texts in row["answers"].items()},
        )
        for row in _rows()
        if split in (None, row["split"])
    ]


def type_pairs(type_or_poles: str, language: str = "en", split: Split | None = None) -> list[Pair]:
    """Return the pairs that teach a type: "ENTJ" prefers, in every situation, E to I, N to S, T to F and J to P.

    Single poles give their axis only: "E" is E over I. The order depends on nothing but the file: in each round every
    situation comes once and neighbours stand for different axes, so that any first part of the list holds all axes in
    nearly equal number.
    """
    wanted = poles(type_or_poles)
    situations = everyday(language, split)
    return [
        Pair(
            prompt=[{"role": "user", "content": situation.text}],
            chosen=situation.answers[pole],
            rejected=situation.answers[opposite(pole)],
            source=f"{FILE}:{situation.id}:{language}:{pole}",
        )
        for turn in range(len(wanted))
        for index, situation in enumerate(situations)
        for pole in [wanted[(index + turn) % len(wanted)]]
    ]


@cache
def _rows() -> list[dict[str, Any]]:
    return read_jsonl(files(__package__) / FILE)
