"""What is wrong with a dataset, and what a model could learn from it that nobody meant to teach."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isnan
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from personalign.datasets.formats import BadField, check_ranks, check_text
from personalign.datasets.readers import Kind, read
from personalign.datasets.records import AnyRow, Conversation, Pair, Problem, Ranking, answers, opening
from personalign.datasets.sizes import Size, size, too_long
from personalign.errors import UserError
from personalign.statistics import Interval, distinct_n, wilson

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class LengthBias:
    """How the length of the chosen answer (of a ranking: the best) differs from that of the rejected (all others).

    `longer_wins` is the accuracy of the rule "the longest answer is the preferred one" over the rows in which one
    answer is the longest, with its 95 % Wilson interval: an interval that excludes `chance` means that a model can
    lower its loss by learning length.
    """

    unit: str  # "tokens" or "characters"
    mean_chosen: float
    mean_rejected: float
    share_chosen_longer: float
    equal: int  # rows in which no answer is longer than all others
    longer_wins: Interval | None  # None where all rows are such
    chance: float = 0.5  # accuracy of drawing an answer: the mean of 1/k over the rows that the rule decides
    rankings: bool = False

    @property
    def biased(self) -> bool:
        """Whether length tells the preferred answer from the other better (or worse) than chance."""
        return self.longer_wins is not None and not self.longer_wins.low <= self.chance <= self.longer_wins.high


@dataclass(frozen=True)
class LintReport:
    """Everything that lint found; `problems` make a dataset unusable, the rest is for a person to judge."""

    path: str
    description: str
    rows: int
    problems: list[Problem]
    duplicates: list[tuple[str, str]]  # (row, the earlier row that it repeats)
    same_prompt: int  # rows whose prompt has occurred before, with other answers
    identical: list[str]  # pairs whose two answers (rankings, two of whose answers) are the same
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
            teach = "rankings hold an answer twice" if self.length_bias.rankings else "pairs teach nothing"
            lines.append(f"identical     {len(self.identical)} {teach}{some(self.identical)}")
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
    ranked = [row for row in rows if not isinstance(row, Conversation)]
    duplicates, same_prompt = _repeats(rows)
    texts = [text for row in rows for text in answers(row)]
    return LintReport(
        path=path,
        description=description,
        rows=total,
        problems=problems,
        duplicates=duplicates,
        same_prompt=same_prompt,
        identical=[row.source for row in ranked if len(set(answers(row))) < len(answers(row))],
        distinct={n: share for n in (1, 2, 3) if not isnan(share := distinct_n(texts, n))},
        length_bias=length_bias(ranked, sizes if len(sizes) == len(ranked) else None) if ranked else None,
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


def length_bias(rows: Sequence[Pair | Ranking], sizes: Sequence[Size] | None = None) -> LengthBias:
    """Compare the lengths of the answers, in tokens where the rows' `sizes` are given, else in characters."""
    if sizes is None:
        lengths = [tuple(map(len, answers(row))) for row in rows]
    else:
        lengths = [one.answers for one in sizes]
    decided = [each for each in lengths if each.count(max(each)) == 1]
    longer = sum(best > max(others) for best, *others in lengths)
    return LengthBias(
        unit="characters" if sizes is None else "tokens",
        mean_chosen=fmean(each[0] for each in lengths),
        mean_rejected=fmean(fmean(each[1:]) for each in lengths),
        share_chosen_longer=longer / len(lengths),
        equal=len(lengths) - len(decided),
        longer_wins=wilson(longer, len(decided)) if decided else None,
        chance=fmean(1 / len(each) for each in decided) if decided else 0.5,
        rankings=any(isinstance(row, Ranking) for row in rows),
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
        if isinstance(row, Ranking):
            check_ranks(row.ranks, len(row.completions), "ranks")
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
        messages = row.messages if isinstance(row, Conversation) else row.prompt
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
    best, others, longer = ("best", "others", "longest") if bias.rankings else ("chosen", "rejected", "longer")
    lines = [
        f"length        {best} {bias.mean_chosen:.1f}, {others} {bias.mean_rejected:.1f} {bias.unit} "
        f"(ratio {bias.mean_chosen / bias.mean_rejected:.3f}); {best} {longer} in {bias.share_chosen_longer:.1%}, "
        f"equal in {bias.equal}"
    ]
    if bias.longer_wins is not None:
        share, low, high = bias.longer_wins
        verdict, chance = "no sign of length bias", ""
        if bias.rankings:
            chance = f"; by chance {bias.chance:.3f}"
            tends = f"LENGTH BIAS: the longest answer tends {'' if share > bias.chance else 'not '}to be the best"
        else:
            tends = (
                f"LENGTH BIAS: the {'longer' if share > bias.chance else 'shorter'} answer tends to be the chosen one"
            )
        if bias.biased:
            verdict = tends
        name = f"{longer} wins"
        lines.append(f"{name:<14}{share:.3f} accurate (95 % interval {low:.3f} to {high:.3f}{chance}): {verdict}")
    return lines
