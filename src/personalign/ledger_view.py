"""`data ledger`: what a run has asked for and what that cost, by stage. It only reads, also while the run goes on."""

import json
import sqlite3
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from personalign.clients.ledger import DOLLAR, dollars, spending
from personalign.errors import UserError
from personalign.terminal import width

HEADS = ("stage", "model", "answered", "repaired", "withheld", "lost", "tokens in", "tokens out", "dollars")
SUMS = (
    "answered",
    "repaired",
    "filtered",
    "refused",
    "lost",
    "in_flight",
    "input",
    "output",
    "cached",
    "cost",
    "unpriced",
)


class LedgerView(BaseModel):
    """Options of `data ledger`."""

    model_config = ConfigDict(extra="forbid")

    run: str = Field(description="a run folder, or its ledger.sqlite", json_schema_extra={"positional": True})
    as_json: bool = Field(
        False, validation_alias=AliasChoices("json"), description="print the same as JSON, money in dollars"
    )


def ledger_view(options: LedgerView) -> None:
    """Print a run's spending by stage and model."""
    path = Path(options.run)
    path = path / "ledger.sqlite" if path.is_dir() else path
    rows = read_spending(path)
    print(json.dumps(as_plain(rows), indent=2, ensure_ascii=False) if options.as_json else table(rows))


def read_spending(path: Path) -> list[dict[str, Any]]:
    """The rows of `clients.ledger.spending` from a ledger's file. Raises UserError where there is none."""
    if not path.is_file():
        raise UserError(f"{path}: there is no ledger; give the folder of a run that asked a language model.")
    try:
        # another process may be writing: no lock is taken, and nothing in flight is called lost
        db = sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=ro", uri=True)
        try:
            return spending(db)
        finally:
            db.close()
    except sqlite3.DatabaseError as error:
        raise UserError(f"{path}: is no ledger of personalign ({error}).") from None


def total(rows: list[dict[str, Any]]) -> dict[str, int]:
    """The sums over all stages."""
    return {name: sum(row[name] for row in rows) for name in SUMS}


def as_plain(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """For other programs: stages and total, money in dollars, times in seconds since 1970."""
    stages = [{**row, "cost": row["cost"] / DOLLAR} for row in rows]
    return {"stages": stages, "total": {**(whole := total(rows)), "cost": whole["cost"] / DOLLAR}}


def table(rows: list[dict[str, Any]]) -> str:
    """For people: a line for each stage and model, the total, and what is not to be read off the figures."""
    if not rows:
        return "nothing was asked for yet"
    whole = total(rows)
    several = [{"stage": "total", "model": "", **whole}] if len(rows) > 1 else []
    cells = [HEADS, *(_cells(row) for row in [*rows, *several])]
    widths = [max(width(line[at]) for line in cells) for at in range(len(HEADS))]
    lines = ["  ".join(_padded(text, size, at < 2) for at, (text, size) in enumerate(zip(line, widths, strict=True)))
             for line in cells]  # fmt: skip
    notes = [f"first asked {_day(min(row['first'] for row in rows))}"]
    if whole["refused"]:
        notes.append(f"{whole['refused']:,} were turned away and cost nothing")
    if whole["in_flight"]:
        notes.append(f"{whole['in_flight']:,} in flight, or so when the process ended")
    if whole["lost"] or whole["in_flight"]:
        notes.append("what is lost or in flight counts as the most that it can have cost")
    if whole["unpriced"]:
        notes.append(f"{whole['unpriced']:,} went to a model whose price is not known: not in the dollars")
    return "\n".join([*(line.rstrip() for line in lines), "", "; ".join(notes) + "."])


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    counts = (
        row["answered"],
        row["repaired"],
        row["filtered"],
        row["lost"] + row["in_flight"],
        row["input"],
        row["output"],
    )
    return row["stage"], row["model"], *(f"{count:,}" for count in counts), dollars(row["cost"])


def _padded(text: str, size: int, left: bool) -> str:
    space = " " * (size - width(text))
    return text + space if left else space + text


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
