"""How diverse a dataset is: repetition as it grows, clusters, words by persona, lengths, languages, copies of benchmarks.

Numbers only, as a dict that JSON can hold; `evaluation/diversity_report.py` makes the page of it.
"""

import math
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from personalign.datasets.contamination import Item, copies
from personalign.datasets.files import Rows, read_rows
from personalign.datasets.formats import BadField, detect, question
from personalign.datasets.growth import ALIKE, CLOSE, Growth, Stretch, collapse, curve, growth
from personalign.datasets.readers import Columns, read, rename, theirs
from personalign.datasets.records import AnyRow, Conversation, Problem, Prompt, answers
from personalign.datasets.similarity import tokens
from personalign.datasets.topics import script, top_words
from personalign.statistics import distinct_n

PARTS = ("prompt", "answer")
SHOWN = 5  # examples of each kind
CLASSES = ("ko", "en", "mixed", "other")


@dataclass(frozen=True)
class Sample:
    """What is looked at in a row: whose it is, what the user says last, what is answered (the preferred answer), and
    every message of it."""

    source: str
    persona: str
    prompt: str
    answer: str
    messages: tuple[str, ...]


def read_samples(
    paths: Sequence[str | Path], persona: str = "persona", *, columns: Columns | None = None
) -> tuple[list[Sample], list[Problem]]:
    """Read the rows of files in any form that `read` or `read_prompts` knows, in order, and the rows that cannot be read.

    A row belongs to the persona that its column `persona` names (a text, or an object with a `name`), else to the one
    that its file is called after. Raises UserError for a file that cannot be read and for a form that is not known.
    """
    samples: list[Sample] = []
    problems: list[Problem] = []
    for path in paths:
        raw, bad = read_rows(path)
        whose = {place: row.get(persona) for place, row in raw}
        stem = str(path) if str(path).startswith("hf:") else Path(path).stem
        rows = _prompts(path, raw, bad, columns or {})
        if rows is None:
            reading = read(path, columns=columns)
            rows, bad = reading.rows, reading.problems
        problems += bad
        for row in rows:
            who = whose[row.source]
            who = who.get("name") if isinstance(who, dict) else who
            samples.append(_sample(row, who.strip() if isinstance(who, str) and who.strip() else stem))
    return samples, problems


def _prompts(
    path: str | Path, raw: Rows, problems: list[Problem], columns: Columns
) -> Sequence[AnyRow | Prompt] | None:
    """The rows of a file that has nothing but prompts, also those that repeat; None for a file of another form."""
    rows = rename([row for _, row in raw], columns, path)
    if detect(rows) is not None or not any({"prompt", "instruction"} & set(row) for row in rows):
        return None
    found = []
    for (source, _), row in zip(raw, rows, strict=True):
        try:
            found.append(Prompt(question(row), source))
        except BadField as error:
            field, problem, remedy = error.args
            problems.append(Problem(source, theirs(field, columns), problem, remedy))
    return found


def _sample(row: AnyRow | Prompt, persona: str) -> Sample:
    if isinstance(row, Conversation):
        asked = [message["content"] for message in row.messages if message["role"] == "user"]
        said = [message["content"] for message in row.messages if message["role"] != "system"]
        return Sample(row.source, persona, "\n".join(asked), "\n".join(answers(row)), tuple(said))
    given = [message["content"] for message in row.prompt if message["role"] != "system"]
    replies = [] if isinstance(row, Prompt) else answers(row)
    return Sample(row.source, persona, given[-1], replies[0] if replies else "", (*given, *replies))


def diversity(
    samples: Sequence[Sample],
    against: Mapping[str, Sequence[Item]] | None = None,
    *,
    threshold: float = ALIKE,
    problems: Sequence[Problem] = (),
) -> dict[str, Any]:
    """Everything about the set, as {"rows", "unreadable", "threshold", "personas", "parts", "against"}.

    A text is compared with those of its own persona only: several personas that answer the same prompt are meant to.
    `threshold` is the ROUGE-L F above which a text repeats another; `against` is the items of benchmarks by file.
    Raises ValueError for no samples.
    """
    if not samples:
        raise ValueError("there are no samples to look at")
    by_persona: defaultdict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        by_persona[sample.persona].append(sample)
    return {
        "rows": len(samples),
        "unreadable": {
            "rows": len({problem.source for problem in problems}),
            "first": [str(problem) for problem in problems[:SHOWN]],
        },
        "threshold": threshold,
        "personas": _personas(by_persona),
        "parts": {
            part: _part(by_persona, part, threshold)
            for part in PARTS
            if any(getattr(sample, part) for sample in samples)
        },
        "against": _against(samples, against) if against else None,
    }


def _personas(by_persona: Mapping[str, Sequence[Sample]]) -> dict[str, Any]:
    """Rows, words and repetition of each persona; `evenness` is Pielou's (1 where all have as many rows)."""
    topics = top_words({name: [f"{each.prompt}\n{each.answer}" for each in own] for name, own in by_persona.items()})
    said = {name: [each.answer or each.prompt for each in own] for name, own in by_persona.items()}
    fewest = min(sum(len(text.split()) for text in texts) for texts in said.values())
    total = sum(map(len, by_persona.values()))
    shares = [len(own) / total for own in by_persona.values()]
    entropy = -sum(share * math.log(share) for share in shares)
    return {
        "evenness": entropy / math.log(len(shares)) if len(shares) > 1 else None,
        "words_compared": fewest,
        "each": [
            {
                "name": name,
                "rows": len(own),
                # distinct-n falls with the amount of text: all personas are cut to that of the one that says least
                "distinct_2": _number(distinct_n(_drawn(said[name], fewest), 2)),
                "language": _languages(said[name]),
                "topics": [{"word": word, "share": share} for word, share in topics[name]],
            }
            for name, own in by_persona.items()
        ],
    }


def _drawn(texts: Sequence[str], most: int) -> list[str]:
    """Texts drawn from all over the set, always the same, up to `most` words; the last one is cut."""
    kept = []
    for text in random.Random(0).sample(texts, len(texts)):
        kept.append(" ".join(text.split()[:most]))
        most -= len(text.split())
        if most <= 0:
            break
    return kept


def _part(by_persona: Mapping[str, Sequence[Sample]], part: str, threshold: float) -> dict[str, Any]:
    texts: list[str] = []
    grown, clusters, nearest, identical = [], list[dict[str, Any]](), list[float](), 0
    for name, own in by_persona.items():
        rows = [(sample.source, getattr(sample, part)) for sample in own if getattr(sample, part)]
        said = [text for _, text in rows]
        texts += said
        found = growth(said, threshold)
        for at, count in Counter(found.cluster.tolist()).items():
            clusters.append({"rows": count, "persona": name, "source": rows[at][0], "text": said[at]})
        if len(rows) > 1:
            nearest += found.nearest[1:].tolist()
            identical += len(said) - len(set(said))
            grown.append({"persona": name, "texts": len(rows), **_grown(rows, found, threshold)})
    clusters.sort(key=lambda cluster: -cluster["rows"])
    return {
        "texts": len(texts),
        "identical": identical,
        "uncompared": sum(not tokens(text) for text in texts),
        "distinct": {str(n): _number(distinct_n(texts, n)) for n in (1, 2, 3)},
        "nearest": float(np.mean(nearest)) if nearest else None,
        "repeats": float(np.mean(np.array(nearest) > threshold)) if nearest else None,
        "growth": grown,
        "clusters": {
            "count": len(clusters),
            "sizes": {str(size): n for size, n in sorted(Counter(each["rows"] for each in clusters).items())},
            "largest": [each for each in clusters[:SHOWN] if each["rows"] > 1],
        },
        "length": {
            "words": _spans([len(text.split()) for text in texts]),
            "characters": _spans([len(text) for text in texts]),
        },
        "language": _languages(texts),
    }


def _grown(rows: Sequence[tuple[str, str]], found: Growth, threshold: float) -> dict[str, Any]:
    """How one persona's texts grew: the curve, each text's score, and the collapse where there is one."""
    # where texts do not repeat earlier ones they may still come close to them
    stretches = ((level, collapse(found.nearest > level)) for level in (threshold, CLOSE))
    level, stretch = next(((level, each) for level, each in stretches if each), (threshold, None))
    return {
        "average": float(found.average[1:].mean()),
        "curve": curve(found, threshold),
        "nearest": [round(float(score), 3) for score in found.nearest],
        "collapse": None if stretch is None else asdict(stretch) | _told(rows, found, stretch, level),
    }


def _told(rows: Sequence[tuple[str, str]], found: Growth, stretch: Stretch, level: float) -> dict[str, Any]:
    """Where a collapse begins and ends in the files, how much of it is exact copies, and examples from all over it."""
    inside = range(stretch.start, stretch.end)
    before = {text for _, text in rows[: stretch.start]}
    fresh = {text for _, text in rows[stretch.start : stretch.end]} - before
    alike = [at for at in inside if found.nearest[at] > level]
    shown = np.linspace(0, len(alike) - 1, min(SHOWN, len(alike))).round().astype(int)
    return {
        "threshold": level,
        "row": stretch.start + 1,
        "source": rows[stretch.start][0],
        "last": rows[stretch.end - 1][0],
        "to_the_end": len(rows) - stretch.end < 10,
        "verbatim": 1 - len(fresh) / len(inside),
        "examples": [
            {"source": source, "text": text, "earlier_source": earlier[0], "earlier": earlier[1], "score": score}
            for at in (alike[place] for place in shown)
            for (source, text), earlier, score in [(rows[at], rows[found.place[at]], float(found.nearest[at]))]
        ],
    }


def _spans(values: Sequence[int]) -> dict[str, Any]:
    """Mean and quantiles, and how many values lie between each two of the `edges` (the last bin also holds all above)."""
    p5, median, p95 = (float(each) for each in np.percentile(values, (5, 50, 95)))
    width = max(1, math.ceil(float(np.percentile(values, 99)) / 20))
    edges = np.arange(21) * width
    counts = np.bincount(np.minimum(np.asarray(values) // width, 19), minlength=20)
    return {
        "mean": float(np.mean(values)),
        "p5": p5,
        "median": median,
        "p95": p95,
        "edges": edges.tolist(),
        "counts": counts.tolist(),
    }


def _languages(texts: Sequence[str]) -> dict[str, Any]:
    """Mean shares of letters, and how many texts are Korean, English (Latin script, rather), mixed or anything else."""
    shares = [script(text) for text in texts]
    kinds = Counter(_language(*each) for each in shares)
    hangul, latin = (float(np.mean([each[at] for each in shares])) for at in (0, 1))
    return {"hangul": hangul, "latin": latin, "texts": {kind: kinds[kind] for kind in CLASSES}}


def _language(hangul: float, latin: float) -> str:
    if hangul + latin < 0.5:
        return "other"
    return "ko" if hangul >= 0.8 else "en" if latin >= 0.8 else "mixed"


def _against(samples: Sequence[Sample], against: Mapping[str, Sequence[Item]]) -> dict[str, Any]:
    rows = [(sample.source, sample.messages) for sample in samples]
    found = {path: copies(rows, items) for path, items in against.items()}
    return {
        "files": [
            {
                "file": path,
                "items": len(items),
                "rows": len({copy.row for copy in found[path]}),
                "items_found": len({copy.item for copy in found[path]}),
            }
            for path, items in against.items()
        ],
        "rows": len({copy.row for each in found.values() for copy in each}),
        "copies": [asdict(copy) for each in found.values() for copy in sorted(each, key=lambda copy: -copy.score)],
    }


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
