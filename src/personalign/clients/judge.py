"""A language model as judge: which of two answers is better, asked in both orders, or how good one is on a stated scale.

A judge has a liking for a place (GPT-4's verdicts on MT-Bench flip in 12.9 % of pairs when the answers change places), so
an answer is better only if it is preferred in both orders, and whatever the orders disagree about is a tie. Verdicts keep
their reasons and the ids of the requests behind them; where there is none, it says why.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from itertools import combinations
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, Field, create_model

from personalign.clients.session import Session
from personalign.clients.structured import ask_for
from personalign.clients.templates import Template, read_template
from personalign.statistics import Interval, wilson

Winner: TypeAlias = Literal["first", "second", "tie"]
VERDICTS = {
    "a": "A", "b": "B", "tie": "tie", "c": "tie", "draw": "tie", "equal": "tie", "neither": "tie", "both": "tie", "무승부": "tie",
    "비김": "tie", "동점": "tie", "비슷함": "tie",
}  # fmt: skip
AROUND = re.compile(r"answer|assistant|response|verdict|답변|답|[\s\[\]()<>.,:'\"*_]", re.IGNORECASE)


def _verdict(said: Any) -> Any:
    """[[A]], "Answer A", "답 B", "C", "무승부" and the like as A, B or tie; anything else as it is."""
    return VERDICTS.get(AROUND.sub("", said).lower(), said) if isinstance(said, str) else said


class _Verdict(BaseModel):
    reason: str  # first: the verdict shall follow from it
    verdict: Annotated[Literal["A", "B", "tie"], BeforeValidator(_verdict)]


@dataclass(frozen=True)
class Comparison:
    """Which of two answers a judge prefers, None where it gave no verdict (`problem` says why).

    `flipped`: the same place won in both orders, which is a tie. `reasons` are its own, in the order in which it was asked:
    with the first answer as A, then with the second as A.
    """

    winner: Winner | None
    flipped: bool = False
    reasons: tuple[str, ...] = ()
    requests: tuple[int, ...] = ()
    problem: str | None = None


@dataclass(frozen=True)
class Grade:
    """The score of an answer and the reason for it, or `problem`: why there is none."""

    score: int | None
    reason: str = ""
    requests: tuple[int, ...] = ()
    problem: str | None = None


def judge_prompt(
    name: Literal["compare", "grade"], language: str, options: Mapping[str, Any] | None = None
) -> Template:
    """The prompt that a judge is asked with; `options` go to the provider as they are."""
    found = read_template(resources.files("personalign.clients") / "prompts", name, language)
    return replace(found, options=options or {})


async def compare(
    session: Session,
    question: str,
    first: str,
    second: str,
    *,
    rubric: str,
    material: str = "",
    language: str = "en",
    seed: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> Comparison:
    """Which of two answers is better by the rubric, asked in both orders; `material` is what the judge may check them by.

    Answers that read the same are a tie, and nobody is asked.
    """
    if first.split() == second.split():
        return Comparison("tie")
    prompt = judge_prompt("compare", language, options)
    requests: list[int] = []
    verdicts: list[_Verdict] = []
    for one, other in ((first, second), (second, first)):
        request = prompt.request(
            seed=seed, question=question, first=one, second=other, rubric=rubric, material=material
        )
        found = await ask_for(session, request, _Verdict, language)
        requests += found.requests
        if found.value is None:
            reasons = tuple(each.reason for each in verdicts)
            return Comparison(None, False, reasons, tuple(requests), found.reason)
        verdicts.append(found.value)
    straight, turned = (each.verdict for each in verdicts)
    winners: dict[tuple[str, str], Winner] = {("A", "B"): "first", ("B", "A"): "second"}
    return Comparison(
        winners.get((straight, turned), "tie"),
        straight == turned != "tie",
        tuple(each.reason for each in verdicts),
        tuple(requests),
    )


def flip_rate(comparisons: Iterable[Comparison]) -> Interval:
    """Share of the pairs with both verdicts in which the same place won twice, with Wilson's 95 % interval."""
    asked = [each for each in comparisons if each.winner is not None and each.requests]
    return wilson(sum(each.flipped for each in asked), len(asked))


async def grade(
    session: Session,
    question: str,
    answer: str,
    *,
    rubric: str,
    scale: Mapping[int, str],
    material: str = "",
    language: str = "en",
    seed: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> Grade:
    """The score of an answer by the rubric; `scale` says what marks mean, at least the lowest and the highest.

    Raises ValueError for a scale of fewer than two marks.
    """
    if len(scale) < 2:
        raise ValueError(f"a scale has a lowest and a highest mark, not only {dict(scale)}")
    low, high = min(scale), max(scale)
    request = judge_prompt("grade", language, options).request(
        seed=seed, question=question, answer=answer, rubric=rubric, material=material, low=low, high=high,
        marks=sorted(scale.items()),
    )  # fmt: skip
    found = await ask_for(session, request, _scored(low, high), language)
    if found.value is None:
        return Grade(None, "", found.requests, found.reason)
    return Grade(found.value.score, found.value.reason, found.requests)  # type: ignore[attr-defined]


@cache
def _scored(low: int, high: int) -> type[BaseModel]:
    def number(said: Any) -> Any:
        # "4/5" is four of a scale to five, and "8/10" nothing on it
        found = (
            re.fullmatch(rf"\s*(-?\d+)\s*(?:점|/\s*{high}|out of {high})?\s*", said) if isinstance(said, str) else None
        )
        return int(found[1]) if found is not None else said

    # in this order: the other way round the schema would say "ge" for "minimum"
    score: Any = Annotated[int, Field(ge=low, le=high), BeforeValidator(number)]
    return create_model("_Scored", reason=(str, ...), score=(score, ...))


async def compare_all(
    session: Session, question: str, answers: Sequence[str], **how: Any
) -> dict[tuple[int, int], Comparison]:
    """Every two of these answers compared, by their places; `how` as of `compare`."""
    return {
        (i, j): await compare(session, question, answers[i], answers[j], **how)
        for i, j in combinations(range(len(answers)), 2)
    }


def orders(comparisons: Mapping[tuple[int, int], Comparison]) -> list[tuple[int, ...]]:
    """What the comparisons decide: the largest sets of answers of which every two are decided, places from best to worst.

    A tie decides nothing, and nothing is drawn by lot. Nor do preferences that run in a circle (0 before 1 before 2 before
    0) decide anything.
    """
    before = {
        (i, j) if each.winner == "first" else (j, i)
        for (i, j), each in comparisons.items()
        if each.winner in ("first", "second")
    }
    after = _closure(before)
    sound = {(i, j) for i, j in before if (j, i) not in after}
    places = sorted({place for pair in sound for place in pair})
    found: list[tuple[int, ...]] = []
    for size in range(len(places), 1, -1):
        for some in combinations(places, size):
            decided = all((i, j) in sound or (j, i) in sound for i, j in combinations(some, 2))
            if decided and not any(set(some) <= set(larger) for larger in found):
                found.append(tuple(sorted(some, key=lambda i: -sum((i, j) in sound for j in some))))  # noqa: B023
    return found


def _closure(before: Collection[tuple[int, int]]) -> set[tuple[int, int]]:
    """Who stands before whom directly or by way of others."""
    found = set(before)
    while new := {(i, last) for i, j in found for first, last in found if j == first} - found:
        found |= new
    return found
