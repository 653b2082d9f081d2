"""The ledger: every request and every answer of a run in one SQLite file, before anything else uses them.

An intent row is written, and the most that the request can cost is reserved, before it is sent; the answer takes the
row's place before anyone reads it. So a process killed at any moment loses at most what was in flight, which counts as
spent, and a rerun asks for nothing that was answered. The budget holds for the file: across stages, reruns and kills.

Money is counted in whole pico-dollars: a price in dollars per million tokens is a million times that per token.
"""

import errno
import json
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from personalign.clients.prices import Price
from personalign.clients.protocol import Answer, Request, Usage
from personalign.errors import UserError
from personalign.locks import locked

DOLLAR = 10**12
SCHEMA = """
CREATE TABLE IF NOT EXISTS requests (
  id INTEGER PRIMARY KEY,
  hash TEXT NOT NULL,
  stage TEXT NOT NULL,
  prompt TEXT NOT NULL,           -- name and version of the template
  model TEXT NOT NULL,
  request TEXT NOT NULL,          -- messages and parameters as JSON
  status TEXT NOT NULL CHECK (status IN ('sent', 'answered', 'refused', 'lost')),
  text TEXT, finish TEXT, raw_id TEXT, error TEXT,
  most_input INTEGER NOT NULL, most_output INTEGER NOT NULL,  -- tokens that are reserved
  most_cost INTEGER NOT NULL,                                 -- pico-dollars that are reserved
  input INTEGER, output INTEGER, cached INTEGER, cache_written INTEGER,
  cost INTEGER,                                               -- pico-dollars
  price TEXT NOT NULL,            -- dollars per million tokens, and of which day, as JSON
  sent REAL NOT NULL, ended REAL  -- seconds since 1970
) STRICT;
CREATE INDEX IF NOT EXISTS answered ON requests (hash) WHERE status = 'answered';
"""


class BudgetReached(UserError):
    """The next request could exceed the budget; it was not sent."""


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer as the ledger keeps it, and the id of its row."""

    id: int
    answer: Answer


class Ledger:
    """The requests of a run. One process at a time holds it; within it, one thread.

    `budget_usd` and `budget_tokens` bound all that the file has ever spent, what is in flight included.
    """

    def __init__(self, path: Path, *, budget_usd: float | None = None, budget_tokens: int | None = None) -> None:
        if budget_usd is not None and not 0 <= budget_usd <= 1_000_000:
            raise UserError(f"a budget of {budget_usd} dollars: give a number from 0 to a million.")
        self.path = path
        self.budget = None if budget_usd is None else round(budget_usd * DOLLAR)
        self.budget_tokens = budget_tokens
        self._in_flight: dict[int, tuple[int, int, int]] = {}  # what is reserved: tokens in and out, pico-dollars
        self.reached: BudgetReached | None = None  # from then on nothing is sent, however small
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._db = sqlite3.connect(path, isolation_level=None)
            self._db.execute("PRAGMA journal_mode = WAL")
            # a killed process loses nothing, a power cut the last moment
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.execute("PRAGMA wal_autocheckpoint = 20000")  # pages: each time, requests wait for the disk
            self._db.executescript(SCHEMA)
            # whoever sent these is gone, or it would hold the lock
            self._db.execute("UPDATE requests SET status = 'lost', error = 'the process ended' WHERE status = 'sent'")
            self._cost, self._tokens = self._spent()
        except sqlite3.DatabaseError as error:
            raise UserError(f"{path}: is no ledger of personalign ({error}); give another run folder.") from None

    def close(self) -> None:
        """Write everything into the one file."""
        self._db.close()

    def _do(self, sql: str, values: Sequence[Any]) -> sqlite3.Cursor:
        try:
            return self._db.execute(sql, values)
        except sqlite3.OperationalError as error:  # a full or read-only disk
            raise OSError(errno.EIO, str(error), str(self.path)) from None

    def answered(self, hashed: str) -> Kept | None:
        """The answer that the ledger has for a request, if it has one."""
        row = self._do(
            "SELECT id, text, finish, raw_id, input, output, cached, cache_written FROM requests "
            "WHERE hash = ? AND status = 'answered'",
            (hashed,),
        ).fetchone()
        if row is None:
            return None
        number, text, finish, raw, *tokens = row
        return Kept(number, Answer(text, finish, None if tokens[0] is None else Usage(*tokens), raw))

    def intend(self, request: Request, *, model: str, stage: str, price: Price | None) -> int:
        """Reserve the most that the request can cost and note that it is about to be sent; the row's id.

        Raises BudgetReached where the budget might not hold, and UserError where it is in dollars and the price is not known.
        """
        if self.reached is not None:
            raise self.reached
        most_input, most_output = request.most_tokens
        if self.budget is not None and price is None:
            raise UserError(
                f"{model}: its price is not known, so a budget in dollars cannot be kept; give the price in the recipe "
                f"(make.prices: {{{model}: {{input: ..., output: ...}}}}), or a budget in tokens."
            )
        cost = price.most(most_input, most_output) if price is not None else 0
        if self.budget is not None and self._cost + cost > self.budget:
            raise BudgetReached(
                f"the budget of {dollars(self.budget)} is reached: {dollars(self._cost)} are spent or reserved, and the next "
                f"request could cost {dollars(cost)}. What was answered is kept; the same command with a larger budget goes on."
            )
        if self.budget_tokens is not None and self._tokens + most_input + most_output > self.budget_tokens:
            raise BudgetReached(
                f"the budget of {self.budget_tokens:,} tokens is reached: {self._tokens:,} are spent or reserved, and the next "
                f"request could take {most_input + most_output:,}. What was answered is kept; the same command with a larger "
                "budget goes on."
            )
        row = self._do(
            "INSERT INTO requests (hash, stage, prompt, model, request, status, most_input, most_output, most_cost, price, sent) "
            "VALUES (?, ?, ?, ?, ?, 'sent', ?, ?, ?, ?, ?)",
            (
                request.hashed(model), stage, request.prompt, model, request.content, most_input, most_output, cost,
                json.dumps(price.plain() if price is not None else None), time.time(),
            ),
        )  # fmt: skip
        self._cost += cost
        self._tokens += most_input + most_output
        number = int(row.lastrowid or 0)
        self._in_flight[number] = most_input, most_output, cost
        return number

    def answer(self, number: int, answer: Answer, price: Price | None) -> Kept:
        """Keep the answer of a row in place of its reservation. Where the provider says no usage, that stays spent.

        Raises UserError, after it was kept, for a usage that the request cannot have had: the budget could not be trusted.
        """
        most_input, most_output, most_cost = self._reserved(number)
        usage = answer.usage
        tokens = most_input + most_output if usage is None else usage.input + usage.output
        cost = most_cost if usage is None else price.cost(usage) if price is not None else 0
        counts = (None,) * 4 if usage is None else (usage.input, usage.output, usage.cached, usage.cache_written)
        self._do(
            "UPDATE requests SET status = 'answered', text = ?, finish = ?, raw_id = ?, input = ?, output = ?, cached = ?, "
            "cache_written = ?, cost = ?, ended = ? WHERE id = ?",
            (answer.text, answer.finish, answer.id, *counts, cost, time.time(), number),
        )
        self._cost += cost - most_cost
        self._tokens += tokens - most_input - most_output
        limited = self.budget is not None or self.budget_tokens is not None
        if limited and usage is not None and (usage.input > most_input or usage.output > most_output):
            raise UserError(
                f"request {number}: the provider counts {usage.input:,} + {usage.output:,} tokens, and it can have had "
                f"{most_input:,} + {most_output:,} at most; a budget cannot be kept with it. The answer is in the ledger; "
                "go on without a budget, or with another provider."
            )
        return Kept(number, answer)

    def refuse(self, number: int, why: str) -> None:
        """The request was turned away and not billed: its reservation is given back."""
        most_input, most_output, most_cost = self._reserved(number)
        self._end(number, "refused", why)
        self._cost -= most_cost
        self._tokens -= most_input + most_output

    def lose(self, number: int, why: str) -> None:
        """No whole answer came back: it may have been billed, so the reservation stays spent."""
        self._reserved(number)
        self._end(number, "lost", why)

    def spending(self) -> list[dict[str, Any]]:
        """See `spending`."""
        return spending(self._db)

    @property
    def spent(self) -> tuple[int, int]:
        """(pico-dollars, tokens) spent and reserved."""
        return self._cost, self._tokens

    def left(self) -> tuple[int | None, int | None] | None:
        """(pico-dollars, tokens) that the budget has left, None where it sets no bound; None where there is no budget."""
        if self.budget is None and self.budget_tokens is None:
            return None
        bounds = ((self.budget, self._cost), (self.budget_tokens, self._tokens))
        money, tokens = (None if bound is None else bound - spent for bound, spent in bounds)
        return money, tokens

    def _spent(self) -> tuple[int, int]:
        tokens = f"{TOKENS.format('input', 'most_input')} + {TOKENS.format('output', 'most_output')}"
        cost, tokens = self._db.execute(f"SELECT SUM({COST}), SUM({tokens}) FROM requests").fetchone()
        return cost or 0, tokens or 0

    def _reserved(self, number: int) -> tuple[int, int, int]:
        if number not in self._in_flight:
            raise ValueError(f"request {number} is not in flight")
        return self._in_flight.pop(number)

    def _end(self, number: int, status: str, why: str) -> None:
        self._do(
            "UPDATE requests SET status = ?, error = ?, ended = ? WHERE id = ?", (status, why, time.time(), number)
        )


# of an answered request what was billed, of one in flight or lost what is reserved, of one turned away nothing
TOKENS = "CASE status WHEN 'refused' THEN 0 WHEN 'answered' THEN COALESCE({0}, {1}) ELSE {1} END"
COST = "CASE status WHEN 'refused' THEN 0 WHEN 'answered' THEN cost ELSE most_cost END"


def spending(db: sqlite3.Connection) -> list[dict[str, Any]]:
    """A row for each stage and model: requests by status, tokens and pico-dollars; what is lost or in flight as reserved.

    `repaired` are those of the answered that asked again for the right form, `filtered` those that were withheld. `unpriced`
    are requests to a model whose price was not known; they are in no sum of dollars.
    """
    columns = {
        "stage": "stage",
        "model": "model",
        "answered": "SUM(status = 'answered')",
        "repaired": "SUM(status = 'answered' AND prompt LIKE '%+repair')",
        "filtered": "SUM(status = 'answered' AND finish = 'filter')",
        "refused": "SUM(status = 'refused')",
        "lost": "SUM(status = 'lost')",
        "in_flight": "SUM(status = 'sent')",
        "input": f"SUM({TOKENS.format('input', 'most_input')})",
        "output": f"SUM({TOKENS.format('output', 'most_output')})",
        "cached": "SUM(COALESCE(cached, 0))",
        "cost": f"SUM({COST})",
        "unpriced": "SUM(price = 'null' AND status != 'refused')",
        "first": "MIN(sent)",
        "last": "MAX(ended)",
    }
    rows = db.execute(f"SELECT {', '.join(columns.values())} FROM requests GROUP BY stage, model ORDER BY MIN(id)")
    return [dict(zip(columns, row, strict=True)) for row in rows]


@contextmanager
def ledger(folder: Path, *, budget_usd: float | None = None, budget_tokens: int | None = None) -> Iterator[Ledger]:
    """The ledger of a run folder (ledger.sqlite), held against other processes while it is open."""
    folder.mkdir(parents=True, exist_ok=True)
    busy = f"{folder / 'ledger.sqlite'}: another process is writing to it; wait for it, or give another run folder."
    with locked(folder / ".ledger.lock", busy):
        found = Ledger(folder / "ledger.sqlite", budget_usd=budget_usd, budget_tokens=budget_tokens)
        try:
            yield found
        finally:
            found.close()


def dollars(pico: int) -> str:
    """Pico-dollars as people read them: "$0.0123"."""
    return f"${pico / DOLLAR:,.4f}" if pico < DOLLAR else f"${pico / DOLLAR:,.2f}"
