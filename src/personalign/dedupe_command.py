"""`personalign data dedupe`: rows without their near copies, and the near copies beside them with the row that each repeats."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from personalign.datasets.records import Row
from personalign.errors import UserError
from personalign.sources import Data
from personalign.terminal import one_line

SHOWN = 3  # dropped rows that are shown
CLIP = 48  # characters of each


class Dedupe(BaseModel):
    """Options of `data dedupe`."""

    model_config = ConfigDict(extra="forbid")

    files: tuple[str, ...] = Field(
        description="JSON, JSONL, CSV or Parquet files, or hf:org/name:split; several are gone through as one, in this order",
        json_schema_extra={"positional": True},
    )
    against: tuple[str, ...] = Field(
        (),
        description="files of rows kept earlier: what is near one of theirs is dropped, they themselves stay as they are",
    )
    threshold: float = Field(0.7, gt=0, lt=1, description="drop what has a ROUGE-L F above this with a kept row")
    language: Literal["en", "ko"] = Field(
        "ko",
        description="what ROUGE-L compares: en its own words, a-z and 0-9, as Alpaca does; ko Hangul syllables as well, "
        "which is the same on text without Hangul",
    )
    embeddings: str | None = Field(
        None,
        description="drop by the cosine of embeddings, too: wordllama (English; needs the extra `embeddings`), or the folder or "
        "hub id of a sentence encoder",
    )
    cosine: float = Field(
        0.9,
        gt=0,
        lt=1,
        description="with --embeddings: drop what has a cosine above this; by wordllama different requests of one form reach .83",
    )
    field: str | None = Field(
        None,
        description="the column that is compared, such as instruction, output or chosen; what the user says first, if not given",
    )
    columns: dict[str, str] = Field({}, description=Data.model_fields["columns"].description)
    neighbours: int = Field(
        10, ge=0, description="most similar rows to note with each kept row, and its mean similarity; 0 for none"
    )
    output: str | None = Field(
        None,
        description="JSONL for the kept rows, with the dropped ones beside it in NAME.dropped.jsonl; "
        "NAME.deduped.jsonl beside the first file, if not given",
    )


@dataclass(frozen=True)
class Text:
    """What is compared of a row, where the row stands, and the row as the file has it."""

    text: str
    source: str
    row: Row


def dedupe(options: Dedupe) -> None:
    """Write the kept and the dropped rows and say how many there are of each."""
    from personalign.datasets.dedupe import dedupe
    from personalign.files import write_whole

    kept_file, dropped_file = _outputs(options)
    earlier = [text for path in options.against for text in read_texts(path, options.field, options.columns)]
    new = [text for path in options.files for text in read_texts(path, options.field, options.columns)]
    everything = [*earlier, *new]
    vectors = None
    if options.embeddings is not None:
        from personalign.datasets.embeddings import embed

        vectors = embed([text.text for text in everything], options.embeddings)
    found = dedupe(
        [text.text for text in new],
        [text.text for text in earlier],
        threshold=options.threshold,
        language=options.language,
        most=options.neighbours,
        vectors=vectors,
        cosine=options.cosine,
    )
    kept = []
    for index, near in found.kept.items():
        row = dict(new[index].row)
        if near is not None:
            row["most_similar"] = [{"source": everything[at].source, "score": score} for at, score in near.nearest]
            row["mean_similarity"] = near.mean
        kept.append(row)
    dropped = []
    for index, match in found.dropped.items():
        other = everything[match.index]
        repeats = {"source": other.source, "text": other.text, "score": match.score, "measure": match.measure}
        dropped.append({**new[index].row, "source_row": new[index].source, "repeats": repeats})
    write_whole(kept_file, _lines(kept))
    write_whole(dropped_file, _lines(dropped))

    measures = Counter(match.measure for match in found.dropped.values())
    limits = {"rouge-l": f"ROUGE-L above {options.threshold}", "cosine": f"cosine above {options.cosine}"}
    why = ", ".join(f"{number} by {limits[measure]}" for measure, number in measures.items())
    against = f" and {len(earlier)} kept earlier" if earlier else ""
    print(f"rows          {len(new)}{against}")
    print(f"kept          {len(kept)}: {kept_file}")
    print(f"dropped       {len(dropped)}{f' ({why})' if why else ''}: {dropped_file}")
    for index, match in list(found.dropped.items())[:SHOWN]:
        print(
            f"              {match.score:.2f}  {one_line(new[index].text, CLIP)} ~ {one_line(everything[match.index].text, CLIP)}"
        )
    means = [near.mean for near in found.kept.values() if near is not None and near.mean is not None]
    if means:
        print(f"similarity    {fmean(means):.3f} on average between a kept row and those before it (ROUGE-L)")
    if found.without_tokens:
        named = ", ".join(new[index].source for index in found.without_tokens[:5])
        hint = " --language ko counts Hangul." if options.language == "en" else ""
        print(f"not compared  {len(found.without_tokens)} hold nothing that ROUGE-L compares: {named}.{hint}")


def read_texts(path: str, field: str | None = None, columns: dict[str, str] | None = None) -> list[Text]:
    """Read any dataset file, of each row `field`, or what the user says first.

    Raises UserError naming the bad rows, and for a file that has no such column or no prompts.
    """
    from personalign.datasets.files import read_rows
    from personalign.datasets.formats import FORMATS, BadField, check_text, detect
    from personalign.datasets.readers import refuse, rename, theirs
    from personalign.datasets.records import Problem

    raw, problems = read_rows(path)
    rows = rename([row for _, row in raw], columns or {}, path)
    form = FORMATS.get(detect(rows) or "")
    seen = dict.fromkeys(str(column) for row in rows for column in row)
    if rows and field is not None and field not in seen:
        raise UserError(f"{path}: --field {field}: there is no such column; there are {', '.join(seen) or 'none'}.")
    if rows and field is None and form is None and not {"prompt", "instruction"} & set(seen):
        raise UserError(f"{path}: nothing in its columns ({', '.join(seen)}) is a prompt; choose one with --field.")
    texts = []
    for (source, original), row in zip(raw, rows, strict=True):
        try:
            if field is not None and row.get(field) is None:
                raise BadField(field, "is missing", "add it, or delete the row")
            text = check_text(row[field], field) if field is not None else _opening(row, form)
            texts.append(Text(text, source, original))
        except BadField as error:
            name, problem, remedy = error.args
            problems.append(Problem(source, theirs(name, columns or {}), problem, remedy))
    refuse(path, problems)
    return texts


def _opening(row: Row, form: Any) -> str:
    from personalign.datasets.formats import question
    from personalign.datasets.records import Prompt, opening

    if form is None:
        return opening(Prompt(question(row), ""))
    return opening(Prompt(form.messages(row)[:-1] if form.messages is not None else form.ranked(row, 0)[0], ""))


def _outputs(options: Dedupe) -> tuple[Path, Path]:
    """Where the kept and the dropped rows go; never over a file that is read."""
    first = options.files[0]
    beside = Path("data.jsonl") if first.startswith("hf:") else Path(first)
    kept = Path(options.output) if options.output is not None else beside.with_name(f"{beside.stem}.deduped.jsonl")
    dropped = kept.with_name(f"{kept.stem}.dropped.jsonl")
    for path in (*options.files, *options.against):
        if Path(path).resolve() in (kept.resolve(), dropped.resolve()):
            raise UserError(f"--output {kept}: {path} would be written over; name another file.")
    return kept, dropped


def _lines(rows: Sequence[Row]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)
