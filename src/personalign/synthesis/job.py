"""How every pipeline makes rows: items in, requests through the ledger, rows out; what could not be used is kept apart.

    <folder>/<stage>.jsonl              rows; each says from which requests (ids of the ledger), prompts and model it comes
    <folder>/<stage>.quarantine.jsonl   what was answered and cannot be used, with the reason

Rows are a pure function of the items and of the answers in the ledger, in the order of the items: a run that was killed
and started again writes the same files as one that was not.
"""

import json
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

from personalign.clients import BudgetReached, Client, Ledger, Limits, NoAnswer, Session, dollars, price_of, together
from personalign.files import write_whole
from personalign.synthesis.templates import Template, template

Row: TypeAlias = dict[str, Any]
T = TypeVar("T")
SAMPLE = 2  # requests after which a long job's cost is estimated
LONG = 10  # items that make a job long


@dataclass(frozen=True)
class Job:
    """Who is asked, within which limits and at which prices; the ledger, the folder for rows, the language and the seed.

    `options` go to the provider with every request as they are (Gemini's `{"safety": "BLOCK_NONE"}`).
    """

    client: Client
    book: Ledger
    folder: Path
    language: Literal["en", "ko"] = "en"
    seed: int = 0
    limits: Limits = Limits()
    prices: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    prompts: Path | None = None  # a folder of the user's own prompts
    options: Mapping[str, Any] = field(default_factory=dict)

    def template(self, name: str) -> Template:
        """The prompt of this name in the job's language."""
        return replace(template(name, self.language, self.prompts), options=self.options)


@dataclass
class Made:
    """What came of an item: rows, and what cannot be used (`unusable`)."""

    rows: list[Row] = field(default_factory=list)
    quarantined: list[Row] = field(default_factory=list)

    def __iadd__(self, other: "Made") -> "Made":
        self.rows += other.rows
        self.quarantined += other.quarantined
        return self


def unusable(reason: str, requests: Sequence[int], text: str = "", **more: Any) -> Made:
    """An item that was asked for and gave nothing: why, what it cost, and what the model said."""
    return Made([], [{"reason": reason, **more, "text": text, "requests": list(requests)}])


def gather(
    job: Job, stage: str, items: Sequence[T], one: Callable[[Session, T], Awaitable[Made]], estimated: bool = False
) -> list[Made]:
    """What comes of each item, in order; many are asked about at once. One whose request gets no answer is set apart.

    Of a job of ten items or more the first two are made first, and what the whole will cost is estimated from them, on
    stderr; where the budget has less left than that, it says so (`estimated`: that was done). Of an item for which the
    budget does not suffice nothing comes, and nothing more is sent: see `finish`.
    """

    async def made(session: Session, item: T) -> Made:
        try:
            return await one(session, item)
        except NoAnswer as error:
            return unusable(str(error), error.requests)
        except BudgetReached:
            return Made()

    def asked(some: Sequence[T]) -> list[Made]:
        if not some:
            return []
        work = [lambda session, item=item: made(session, item) for item in some]
        return together(job.client, job.book, job.limits, stage=stage, work=work, prices=job.prices)

    if estimated or len(items) < LONG:
        return asked(items)
    before = job.book.spent
    first = asked(items[:SAMPLE])
    say_estimate(job, stage, before, len(items))
    return first + asked(items[SAMPLE:])


def say_estimate(job: Job, stage: str, before: tuple[int, int], count: int) -> None:
    """Print what `count` items will cost, from what the first two have, and whether the budget has that.

    `before` is what the ledger had spent before these two. Where it had their answers, the estimate was made already.
    """
    cost, tokens = (after - earlier for after, earlier in zip(job.book.spent, before, strict=True))
    if not tokens:
        return
    share = count / SAMPLE
    price = price_of(job.client.name, job.prices)
    said = f"about {round(tokens * share):,} tokens"
    if price is None:
        said += ", at a price that is not known"
    elif price.input or price.output:
        said += f", about {dollars(round(cost * share))}"
    left = job.book.left()
    over = left is not None and any(
        have is not None and need * (share - 1) > have for need, have in zip((cost, tokens), left, strict=True)
    )
    print(
        f"{stage}: {count} items; after {SAMPLE} of them the whole is estimated at {said}"
        f"{'; that is more than the budget has left, and it will stop there' if over else ''}",
        file=sys.stderr,
    )


def finish(job: Job, stage: str, found: Sequence[Made], items: int | None = None) -> list[Row]:
    """Write a stage's rows and what cannot be used, say how many and why, and return the rows.

    Raises BudgetReached, after the rows that were paid for are written, where the budget did not suffice for all.
    """
    whole = Made()
    for each in found:
        whole += each
    write_rows(job.folder / f"{stage}.jsonl", whole.rows)
    write_rows(job.folder / f"{stage}.quarantine.jsonl", whole.quarantined)
    reasons = Counter(row["reason"].split(":")[0] for row in whole.quarantined)
    said = "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common(4))
    more = f"; {len(whole.quarantined)} set apart in {stage}.quarantine.jsonl ({said})" if reasons else ""
    of = f" from {items} items" if items is not None else ""
    print(f"{stage}: {len(whole.rows)} rows{of}{more}", file=sys.stderr)
    if job.book.reached is not None:
        raise job.book.reached
    return whole.rows


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Rows as JSONL, whole or not at all."""
    write_whole(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
