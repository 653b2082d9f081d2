"""What is wrong with a dataset, and what a model could learn from it that nobody meant to teach."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isnan
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from personalign.datasets.formats import BadField, check_text
from personalign.datasets.readers import Kind, read
from personalign.datasets.records import Conversation, Pair, Problem, answers, opening
from personalign.datasets.sizes import Size, size, too_long
from personalign.errors import UserError
from personalign.statistics import Interval, distinct_n, wilson

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

AnyRow = Pair | Conversation


@dataclass(frozen=True)
class LengthBias:
    """How the lengths of chosen and rejected answers differ.

    `longer_wins` is the accuracy of the rule "the longer answer is the preferred one" over the pairs of unequal
    length, with its 95 % Wilson interval: an interval that excludes .5 means that a model can lower its loss by
    learning length.
    """

    unit: str  # "tokens" or "characters"
    mean_chosen: float
    mean_rejected: float
    share_chosen_longer: float
    equal: int
    longer_wins: Interval | None  # None where all pairs are of equal length

    @property
    def biased(self) -> bool:
        """Whether length tells the preferred answer from the other better (or worse) than chance."""
        return self.longer_wins is not None and not self.longer_wins.low <= 0.5 <= self.longer_wins.high


@dataclass(frozen=True)
class LintReport:
    """Everything that lint found; `problems` make a dataset unusable, the rest is for a person to judge."""

    path: str
    description: str
    rows: int
    problems: list[Problem]
    duplicates: list[tuple[str, str]]  # (row, the earlier row that it repeats)
    same_prompt: int  # rows whose prompt has occurred before, with other answers
    identical: list[str]  # pairs whose two answers are the same
    distinct: dict[int, float]  # n -> distinct_n of the answers, for n that some answer is long enough for
    length_bias: LengthBias | None = None
    max_length: int | None = None
    truncated: list[str] = field(default_factory=list)  # rows longer than max_length
    longest: int | None = None  # tokens of the longest row

    @property
    def exit_code(self) -> int:
        """2 where a row cannot be used, else 0."""
        return 2 if self.problems else 0

    def format(self) -> str:
        """The report for a terminal: every bad row, then what there is to judge, rows named by their number."""

        def some(rows: Sequence[str], most: int = 5) -> str:
            listed = ", ".join(row.replace(f"{self.path}:", "") for row in rows[:most])
            return f": {listed}{', ...' if len(rows) > most else ''}" if rows else ""

        repeats = [f"{row} = {first}" for row, first in self.duplicates]
        lines = [*map(str, self.problems), *([""] if self.problems else [])]
        lines.append(f"{self.path}: {self.description}")
        lines.append(f"rows          {self.rows}, of which bad {_rows_of(self.problems)}")
        lines.append(f"duplicates    {len(repeats)}{some(repeats)}")
        lines.append(f"same prompt   {self.same_prompt} rows repeat the prompt of an earlier row with other answers")
        if self.length_bias:
            lines.append(f"identical     {len(self.identical)} pairs teach nothing{some(self.identical)}")
        if self.longest is not None:
            lines.append(f"longest       {self.longest} tokens")
        if self.max_length is not None:
            lines.append(f"truncated     {len(self.truncated)} are longer than {self.max_length}{some(self.truncated)}")
        if self.length_bias:
            lines += _length_lines(self.length_bias)
        if self.distinct:
            lines.append("distinct-n    " + ", ".join(f"{n}: {share:.3f}" for n, share in self.distinct.items()))
        return "\n".join(lines)


def lint(
    source: str | Path | Sequence[AnyRow],
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    max_length: int | None = None,
    *,
    kind: Kind | None = None,
    columns: Mapping[str, str] | None = None,
    prefer: int = 0,
) -> LintReport:
    """Examine a file (see `read` for its arguments) or rows already read.

    With a tokenizer, lengths are in tokens and rows that its chat template refuses are bad; with `max_length` too, so
    are rows whose prompt alone fills it, and the truncated ones are listed. Raises UserError only where the file as a
    whole cannot be read.
    """
    if max_length is not None and tokenizer is None:
        raise UserError("max_length is counted in tokens: name the model whose tokens are meant.")
    path, description, problems = "rows", "given as they are", list[Problem]()
    if isinstance(source, str | Path):
        reading = read(source, kind, columns=columns, prefer=prefer)
        path, description, source, problems = reading.path, reading.description, reading.rows, list(reading.problems)
    total = len(source) + _rows_of(problems)
    rows = _keep(source, _text_problem, problems)
    sizes: list[Size] = []
    if tokenizer is not None:
        rows = _keep(rows, lambda row: _size_problem(row, tokenizer, max_length, sizes), problems)
    pairs = [row for row in rows if isinstance(row, Pair)]
    duplicates, same_prompt = _repeats(rows)
    texts = [text for row in rows for text in answers(row)]
    return LintReport(
        path=path,
        description=description,
        rows=total,
        problems=problems,
        duplicates=duplicates,
        same_prompt=same_prompt,
        identical=[pair.source for pair in pairs if pair.chosen == pair.rejected],
        distinct={n: share for n in (1, 2, 3) if not isnan(share := distinct_n(texts, n))},
        length_bias=length_bias(pairs, sizes if len(sizes) == len(pairs) else None) if pairs else None,
        max_length=max_length,
        truncated=[row.source for row, one in zip(rows, sizes, strict=False) if one.truncated(max_length or one.total)],
        longest=max((one.total for one in sizes), default=None),
    )


def lint_file(
    path: str | Path,
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    max_length: int | None = None,
    *,
    kind: Kind | None = None,
    columns: Mapping[str, str] | None = None,
    prefer: int = 0,
) -> tuple[LintReport, int]:
    """Lint a file for the command line: (report, exit code 2 where a row is bad). Arguments and errors as `lint`."""
    report = lint(path, tokenizer, max_length, kind=kind, columns=columns, prefer=prefer)
    return report, report.exit_code


def length_bias(pairs: Sequence[Pair], sizes: Sequence[Size] | None = None) -> LengthBias:
    """Compare the lengths of the two answers, in tokens where their `sizes` are given, else in characters."""
    if sizes is None:
        lengths = [(len(pair.chosen), len(pair.rejected)) for pair in pairs]
    else:
        lengths = [(one.answers[0], one.answers[1]) for one in sizes]
    longer, equal = sum(chosen > rejected for chosen, rejected in lengths), sum(a == b for a, b in lengths)
    unequal = len(lengths) - equal
    return LengthBias(
        unit="characters" if sizes is None else "tokens",
        mean_chosen=fmean(chosen for chosen, _ in lengths),
        mean_rejected=fmean(rejected for _, rejected in lengths),
        share_chosen_longer=longer / len(lengths),
        equal=equal,
        longer_wins=wilson(longer, unequal) if unequal else None,
    )


def _keep(rows: Sequence[AnyRow], check: Any, problems: list[Problem]) -> list[AnyRow]:
    """Return the rows in which `check` finds no problem; the problems of the others join the list."""
    kept = []
    for row in rows:
        problem = check(row)
        if problem is None:
            kept.append(row)
        else:
            problems.append(problem)
    return kept


def _text_problem(row: AnyRow) -> Problem | None:
    """Rows that were made in memory have not been through a reader's checks."""
    try:
        for text in [*answers(row), opening(row)]:
            check_text(text, "answer" if text in answers(row) else "prompt")
    except BadField as error:
        return Problem(row.source, *error.args)
    return None


def _size_problem(
    row: AnyRow, tokenizer: "PreTrainedTokenizerBase", max_length: int | None, sizes: list[Size]
) -> Problem | None:
    try:
        one = size(row, tokenizer)
    except UserError as error:
        return Problem(
            row.source,
            "",
            f"is refused by the chat template ({str(error).rstrip('.')})",
            "mend the text or delete the row",
        )
    if max_length is not None and one.impossible(max_length):
        return too_long(row, one.prompt, max_length)
    sizes.append(one)
    return None


def _repeats(rows: Sequence[AnyRow]) -> tuple[list[tuple[str, str]], int]:
    first: dict[tuple[str, ...], str] = {}
    prompts: Counter[str] = Counter()
    duplicates = []
    for row in rows:
        messages = row.prompt if isinstance(row, Pair) else row.messages
        content = (*(f"{message['role']}\n{message['content']}" for message in messages), *answers(row))
        if content in first:
            duplicates.append((row.source, first[content]))
        else:
            first[content] = row.source
            prompts[opening(row)] += 1
    return duplicates, sum(count - 1 for count in prompts.values())


def _rows_of(problems: Sequence[Problem]) -> int:
    return len({problem.source for problem in problems})


def _length_lines(bias: LengthBias) -> list[str]:
    ratio = bias.mean_chosen / bias.mean_rejected
    lines = [
        f"length        chosen {bias.mean_chosen:.1f}, rejected {bias.mean_rejected:.1f} {bias.unit} "
        f"(ratio {ratio:.3f}); chosen longer in {bias.share_chosen_longer:.1%}, equal in {bias.equal}"
    ]
    if bias.longer_wins is not None:
        share, low, high = bias.longer_wins
        tendency = f"LENGTH BIAS: the {'longer' if share > 0.5 else 'shorter'} answer tends to be the chosen one"
        verdict = tendency if bias.biased else "no sign of length bias"
        lines.append(f"longer wins   {share:.3f} accurate (95 % interval {low:.3f} to {high:.3f}): {verdict}")
    return lines
