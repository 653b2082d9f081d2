"""`restyle` (Polaris): answers that exist, said again in the persona's voice, ten a call. Questions stay as diverse as they were.

    <folder>/restyle.jsonl         messages: the question with the persona's answer, to learn from (SFT)
    <folder>/restyle-pairs.jsonl   the same questions; the persona's answer is chosen, the original rejected (DPO)

A rewriting must say what the original says: how much of its wording is left is measured for each, and of a sample the model
judges how much of the meaning is.
"""

import random
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from personalign.clients import Session, ask_for
from personalign.clients.judge import grade
from personalign.conversation import Message
from personalign.datasets import Conversation, Problem, read
from personalign.errors import UserError
from personalign.personas import Persona
from personalign.statistics import wilson
from personalign.synthesis.job import Job, Made, Row, finish, gather, unusable, write_rows
from personalign.synthesis.templates import Template

PAIRS = "restyle-pairs.jsonl"
SAME = 4  # grade from which the meaning counts as kept
SCALE = {
    "en": {
        1: "another answer",
        3: "something that matters is missing, added or turned round",
        5: "the same in another voice",
    },
    "ko": {1: "다른 답이다", 3: "중요한 내용이 빠졌거나 더해졌거나 뒤집혔다", 5: "말투만 다르고 내용은 같다"},
}


class Restyle(BaseModel):
    """Settings of `restyle`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: Path = Field(description="questions with answers: instruction, input, output (alpaca's form), or messages")
    count: int | None = Field(None, ge=1, description="rows of it, drawn by the seed; all if not given")
    batch: int = Field(10, ge=1, le=50, description="answers rewritten a call")
    similar: float = Field(
        0.15,
        ge=0,
        le=1,
        description="least share of the original's wording that is left; below it the meaning is in doubt",
    )
    longest: float = Field(3.0, gt=1, description="how many times as long or as short as the original it may be")
    judged: float = Field(0.1, ge=0, le=1, description="share of the rewritings whose meaning the model judges")


class _Answer(BaseModel):
    id: int
    answer: str


class _Answers(BaseModel):
    """The answer that is asked for."""

    answers: list[_Answer]


@dataclass(frozen=True)
class _Item:
    """One answer to be said by one persona."""

    person: Persona
    prompt: list[Message]
    original: str
    source: str

    @property
    def question(self) -> str:
        """What was said before the answer; with the roles where that is more than one question."""
        if len(self.prompt) == 1:
            return self.prompt[0]["content"]
        return "\n".join(f"{message['role']}: {message['content']}" for message in self.prompt)

    def row(self, used: Sequence[int]) -> Row:
        """What every row says of where it comes from."""
        return {"persona": self.person.name, "source": self.source, "requests": list(dict.fromkeys(used))}


def make_restyle(job: Job, settings: Restyle, people: Sequence[Persona]) -> list[Row]:
    """Rewrite every answer in every persona's voice; write both files and return the rows to learn from.

    A row has the `original`, `similarity` (`wording_kept`) and, if it was judged, `meaning` (1 to 5, None where the grade
    could not be read) with the judge's reason. Raises UserError where the source cannot be read or nobody is there to speak.
    """
    if not people:
        raise UserError("restyle: whose voice? Give a persona (--persona, or `persona` in the recipe).")
    rows, problems = _rows(settings, job.seed)
    batches = [
        [
            _Item(person, row.messages[:-1], row.messages[-1]["content"], row.source)
            for row in rows[at : at + settings.batch]
        ]
        for person in people
        for at in range(0, len(rows), settings.batch)
    ]

    prompt = job.template("restyle")
    made = gather(job, "restyle", batches, lambda session, batch: _batch(job, settings, prompt, session, batch))
    made = _graded(job, settings, made)
    unread = [unusable(f"row cannot be read: {each}", (), source=each.source) for each in problems]
    write_rows(job.folder / PAIRS, [_pair(row) for each in made for row in each.rows])
    return finish(job, "restyle", [*made, *unread], len(people) * len(rows) + len(problems))


def _pair(row: Row) -> Row:
    """The same as a preference: the persona's answer before the original."""
    *prompt, answer = row["messages"]
    same = {key: row[key] for key in ("persona", "source", "requests", "prompt_id", "model", "similarity")}
    return {"prompt": prompt, "chosen": answer["content"], "rejected": row["original"], **same}


def _rows(settings: Restyle, seed: int) -> tuple[list[Conversation], list[Problem]]:
    """The questions with their answers, and the rows that are none."""
    reading = read(settings.source, "conversations")
    rows = [row for row in reading.rows if isinstance(row, Conversation)]
    if not rows:
        raise UserError(f"{settings.source}: holds no row that can be rewritten; `personalign data lint` says why.")
    if settings.count is not None and settings.count < len(rows):
        rows = [rows[at] for at in sorted(random.Random(seed).sample(range(len(rows)), settings.count))]
    return rows, reading.problems


async def _batch(job: Job, settings: Restyle, prompt: Template, session: Session, batch: Sequence[_Item]) -> Made:
    """Rewrite some answers at once; what comes back missing, twice or amiss is asked for again alone."""
    found, used, why = await _ask(job, prompt, session, batch)
    made = Made()
    for number, item in enumerate(batch, 1):
        texts, mine = found.get(number, []), list(used)
        fault = _fault(settings, item, texts) if why is None else why
        if fault is not None:
            # alone, a filter or a length that met the whole batch may not meet it
            texts_alone, used_alone, why_alone = await _ask(job, prompt, session, [item], draw=1)
            texts, mine = texts_alone.get(1, []), [*mine, *used_alone]
            again = _fault(settings, item, texts) if why_alone is None else why_alone
            if again is not None:
                said = {"original": item.original, **item.row(mine)}
                made += unusable(again, said.pop("requests"), texts[0] if texts else "", first=fault, **said)
                continue
        (text,) = texts
        made.rows.append(
            {
                "messages": [*item.prompt, {"role": "assistant", "content": text}],
                **item.row(mine),
                "prompt_id": prompt.id,
                "model": session.client.name,
                "similarity": round(wording_kept(item.original, text), 4),
                "original": item.original,
            }
        )
    return made


async def _ask(
    job: Job, prompt: Template, session: Session, batch: Sequence[_Item], draw: int = 0
) -> tuple[Mapping[int, list[str]], tuple[int, ...], str | None]:
    """(different texts that came back under each number of the batch from 1, requests, why nothing did)."""
    texts = [{"id": at, "question": item.question, "answer": item.original} for at, item in enumerate(batch, 1)]
    request = prompt.request(draw=draw, seed=job.seed, person=batch[0].person, items=texts)
    # the template's bound is that of one answer
    request = replace(request, max_tokens=request.max_tokens * len(batch))
    answer = await ask_for(session, request, _Answers, job.language)
    if answer.value is None:
        return {}, answer.requests, answer.reason
    found: dict[int, list[str]] = {}
    for each in answer.value.answers:
        text, said = each.answer.strip(), found.setdefault(each.id, [])
        if text and text not in said:
            said.append(text)
    if len(batch) == 1 and len(found) == 1:  # whatever it calls the only one
        found = {1: next(iter(found.values()))}
    return found, answer.requests, None


def _fault(settings: Restyle, item: _Item, texts: Sequence[str]) -> str | None:
    """What is wrong with what came back for an item, None if it can be used."""
    if not texts:
        return "missing from the answer"
    if len(texts) > 1:
        return f"rewritten {len(texts)} times under one number"
    (text,) = texts
    if _plain(text) == _plain(item.original):
        return "unchanged"
    ratio = len(text) / len(item.original)
    if not 1 / settings.longest <= ratio <= settings.longest and max(len(text), len(item.original)) > 80:
        return f"length: {ratio:.2f} times that of the original"
    share = wording_kept(item.original, text)
    if share < settings.similar:
        return f"meaning in doubt: {share:.0%} of the wording is left"
    return None


def _plain(text: str) -> str:
    return re.sub(r"[\W_]+", "", text).lower()


def wording_kept(original: str, rewritten: str) -> float:
    """Share of the original's pieces of words that the rewriting has too, 0 to 1; 1 where the original has none.

    Pieces are numbers and words' four first letters, of Hangul each pair of neighbouring syllables: what a change of voice
    (particles, endings, word order) leaves as it is.
    """
    pieces, others = _pieces(original), _pieces(rewritten)
    return len(pieces & others) / len(pieces) if pieces else 1.0


def _pieces(text: str) -> set[str]:
    found: set[str] = set()
    for word in re.findall(r"[가-힣]+|[^\W\d_가-힣]+|\d+", text.lower()):
        if "가" <= word[0] <= "힣":
            found |= {word[at : at + 2] for at in range(len(word) - 1)} or {word}
        elif word.isdigit() or len(word) > 3:  # short words are articles and the like
            found.add(word[:4])
    return found


def _graded(job: Job, settings: Restyle, made: list[Made]) -> list[Made]:
    """Have a sample graded for how much of the meaning is left, say how it came out, and set apart where it was lost."""
    rows = [row for each in made for row in each.rows]
    number = min(len(rows), max(1, round(settings.judged * len(rows)))) if settings.judged else 0
    if not number:
        return made
    sample = [rows[at] for at in sorted(random.Random(job.seed).sample(range(len(rows)), number))]
    rubric, scale = job.template("restyle").file.rubric, SCALE[job.language]

    async def one(session: Session, row: Row) -> Made:
        *_, asked, said = (message["content"] for message in row["messages"])
        found = await grade(
            session,
            asked,
            said,
            rubric=rubric,
            scale=scale,
            material=row["original"],
            language=job.language,
            seed=job.seed,
        )
        return Made(
            [{"meaning": found.score, "judged": found.reason or found.problem, "judged_by": list(found.requests)}]
        )

    for row, verdict in zip(sample, gather(job, "restyle", sample, one), strict=True):
        for found in verdict.rows:  # none where the budget was reached
            row |= found
    scores = [row["meaning"] for row in sample if row.get("meaning") is not None]
    same = sum(score >= SAME for score in scores)
    if scores:
        share, low, high = wilson(same, len(scores))
        said = f"the meaning is kept in {same} of {len(scores)} ({share:.0%}; 95 % interval {low:.0%} to {high:.0%})"
    else:
        said = "no grade could be read"
    unread = f"; {len(sample) - len(scores)} grades cannot be read" if 0 < len(scores) < len(sample) else ""
    print(f"restyle: of {len(sample)} rewritings that were judged, {said}{unread}", file=sys.stderr)
    # what could not be judged stays: nothing was found against it
    return [
        Made(
            [row for row in each.rows if not _lost(row)],
            [*each.quarantined, *({"reason": "another meaning", **row} for row in each.rows if _lost(row))],
        )
        for each in made
    ]


def _lost(row: Row) -> bool:
    return row.get("meaning") is not None and row["meaning"] < SAME
