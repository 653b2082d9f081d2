"""`situations`: everyday situations to talk in, from seeds or from the user's own material (LAPD had about 3,000).

They are made in rounds. A round's requests show what earlier rounds kept, and of what they bring back all that comes too
close to anything there is (ROUGE-L) is set apart: so a large set does not turn into a few situations in many words.
"""

import random
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from statistics import fmean

import yaml
from pydantic import BaseModel, ConfigDict, Field

from personalign.clients import Session, ask_for
from personalign.datasets import everyday
from personalign.datasets.dedupe import dedupe
from personalign.datasets.files import read_rows
from personalign.datasets.readers import refuse
from personalign.errors import UserError
from personalign.personas import Persona
from personalign.synthesis.cleaning import clean, speaks
from personalign.synthesis.job import LONG, SAMPLE, Job, Made, Row, finish, gather, say_estimate, unusable
from personalign.synthesis.material import Passage, passages

SHORTEST, LONGEST = 8, 300  # characters of a situation
IDLE = 2  # rounds in a row that bring nothing new: then there is no more to be had


class Situations(BaseModel):
    """Settings of `situations`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    count: int = Field(100, ge=1, description="situations wanted; the last round may bring a few more")
    seeds: Path | None = Field(
        None, description="situations to begin from, one a line or rows of `situation`; ours if not given"
    )
    material: tuple[Path, ...] = Field(
        (), description="texts, saved web pages or folders of them that the situations come from"
    )
    passage: int = Field(1500, ge=200, description="characters of the material that are shown in a request")
    batch: int = Field(10, ge=1, le=20, description="situations a request asks for")
    calls: int = Field(8, ge=1, description="requests a round; fewer keep the set more varied, more are faster")
    shown: int = Field(8, ge=1, description="situations that a request shows, drawn from those there are")
    similarity: float = Field(
        0.7, gt=0, lt=1, description="ROUGE-L F above which a situation is too close to an earlier one"
    )
    rounds: int = Field(100, ge=1, description="rounds at most; it ends earlier when two in a row bring nothing new")


class _Listed(BaseModel):
    """The answer that is asked for."""

    situations: list[str] = Field(min_length=1)


@dataclass(frozen=True)
class _Call:
    number: int
    shown: tuple[str, ...]
    passage: Passage | None


def make_situations(job: Job, settings: Situations, people: Sequence[Persona] = ()) -> list[Row]:
    """Rows of `situation`, `similarity` (to the nearest one before it), `round` and `source`; they belong to no persona.

    Raises UserError for seeds or material that cannot be read.
    """
    prompt = job.template("situations")
    seeds = read_situations(settings.seeds, job.language)
    pieces = passages(settings.material, settings.passage)

    async def one(session: Session, call: _Call) -> Made:
        request = prompt.request(
            seed=job.seed, draw=call.number, shown=call.shown, count=settings.batch,
            passage=call.passage.text if call.passage is not None else "",
        )  # fmt: skip
        found = await ask_for(session, request, _Listed, job.language)
        if found.value is None:
            return unusable(str(found.reason), found.requests, found.text)
        source = call.passage.source if call.passage is not None else "seeds"
        more: Row = {"source": source, "requests": list(found.requests)}
        more |= {"prompt_id": prompt.id, "model": session.client.name}
        made = Made()
        for text in map(_plain, found.value.situations):
            reason = _unfit(text, job.language)
            made += Made([{"situation": text} | more]) if reason is None else unusable(reason, found.requests, text)
        return made

    # new ones shall differ from the bundled data, too
    texts = [*seeds, *(each.text for each in everyday(job.language))]
    found: list[Made] = []
    kept: list[Row] = []
    calls = idle = 0
    needed = -(-settings.count // settings.batch)
    for number in range(1, settings.rounds + 1):
        wanted = -(-(settings.count - len(kept)) // settings.batch)
        if wanted <= 0 or idle == IDLE:
            break
        # of a long job two requests come first, to tell what it will cost
        size = SAMPLE if not calls and needed >= LONG else min(wanted, settings.calls)
        asked = [
            _Call(at, _drawn(job, at, [*seeds, *(row["situation"] for row in kept)], settings.shown),
                  pieces[at % len(pieces)] if pieces else None)
            for at in range(calls, calls + size)
        ]  # fmt: skip
        before = job.book.spent
        made = _new(gather(job, "situations", asked, one, estimated=True), texts, settings.similarity, number)
        if not calls and needed >= LONG:
            say_estimate(job, "situations", before, needed)
        calls += size
        found += made
        new = [row for each in made for row in each.rows]
        kept += new
        idle = 0 if new else idle + 1
        if new:
            apart = sum(len(each.quarantined) for each in made)
            nearest = fmean(row["similarity"] for row in new)
            print(
                f"situations: round {number}: {len(new)} new, {apart} set apart; on average {nearest:.2f} like the nearest of "
                f"the {len(texts) - len(new)} before",
                file=sys.stderr,
            )
    if len(kept) < settings.count:
        print(f"situations: {len(kept)} of the {settings.count} wanted", file=sys.stderr)
    return finish(job, "situations", found)


def read_situations(path: Path | None, language: str) -> list[str]:
    """Situations from a file (a text with one a line, or rows that have `situation`); of None, those that come with us."""
    if path is None:
        text = (resources.files("personalign.synthesis") / "situations.yaml").read_text(encoding="utf-8")
        return list(yaml.safe_load(text)[language])
    if path.suffix.lower() == ".txt":
        try:
            found = [_plain(line) for line in path.read_text(encoding="utf-8-sig").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: cannot be read ({error}); save it as UTF-8 text.") from None
    else:
        rows, problems = read_rows(path)
        refuse(str(path), problems)
        for place, row in rows:
            if not isinstance(row.get("situation"), str):
                raise UserError(f"{place}: `situation` is missing; give each row one as a text.")
        found = [row["situation"].strip() for _, row in rows]
    found = list(dict.fromkeys(filter(None, found)))
    if not found:
        raise UserError(f"{path}: holds no situations.")
    return found


def _drawn(job: Job, number: int, there: Sequence[str], count: int) -> tuple[str, ...]:
    return tuple(random.Random(f"{job.seed}:{number}").sample(there, min(count, len(there))))


def _unfit(text: str, language: str) -> str | None:
    if not SHORTEST <= len(text) <= LONGEST:
        return f"too {'short' if len(text) < SHORTEST else 'long'} for a situation: {len(text)} characters"
    return None if speaks(text, language) else f"not in the language: {language} was asked for"


def _new(found: Sequence[Made], texts: list[str], most: float, number: int) -> list[Made]:
    """Without the rows that are too close to one of `texts`, or to one before them; `texts` grows by those that are kept."""
    asked = [row["situation"] for each in found for row in each.rows]
    there = [*texts, *asked]
    checked = dedupe(asked, list(texts), threshold=most, most=1)
    made: list[Made] = []
    at = 0
    for each in found:
        made.append(Made([], list(each.quarantined)))
        for row in each.rows:
            if (near := checked.dropped.get(at)) is not None:
                reason = f"too close to an earlier one: {near.score:.2f} like {there[near.index]!r}"
                made[-1] += unusable(reason, row["requests"], row["situation"])
            else:
                neighbours = checked.kept[at]
                closest = neighbours.nearest[0][1] if neighbours is not None and neighbours.nearest else 0.0
                made[-1].rows.append(row | {"similarity": round(closest, 3), "round": number})
                texts.append(row["situation"])
            at += 1
    return made


def _plain(text: str) -> str:
    """Without the mark or number of a list."""
    return clean(re.sub(r"^\s*(?:[-•*]\s+|\(?\d{1,3}[.)]\s+)", "", text))
