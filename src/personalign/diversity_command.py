"""`personalign data diversity`: does a dataset go on saying something new, and does it hold a benchmark's items?"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from personalign.errors import UserError
from personalign.sources import Data


class Diversity(BaseModel):
    """Options of `data diversity`."""

    model_config = ConfigDict(extra="forbid")

    files: tuple[str, ...] = Field(
        description="JSON, JSONL, CSV or Parquet files, or hf:org/name:split; several are looked at as one, in this order",
        json_schema_extra={"positional": True},
    )
    against: tuple[str, ...] = Field(
        (), description="files with a benchmark's questions: rows that hold or nearly equal one are named"
    )
    persona: str = Field(
        "persona", description="the column that says whose a row is; without it a file's rows are those of its name"
    )
    columns: dict[str, str] = Field({}, description=Data.model_fields["columns"].description)
    threshold: float = Field(0.7, gt=0, lt=1, description="a text repeats another if their ROUGE-L F is above this")
    language: Literal["en", "ko"] = Field("en", description="language of the report; texts may be in either or both")
    output: str | None = Field(
        None,
        description="folder for diversity.html, diversity.md, diversity.json and figures/; only printed, if not given",
    )


def diversity(options: Diversity) -> None:
    """Print what was found, and write the report where a folder is given."""
    from personalign.datasets.contamination import read_items
    from personalign.datasets.diversity import diversity, read_samples
    from personalign.evaluation.diversity_report import diversity_table, write_diversity

    against = {path: read_items(path) for path in options.against}
    samples, problems = read_samples(options.files, options.persona, columns=options.columns)
    if not samples:
        raise UserError(f"{problems[0]} No row can be read." if problems else f"{options.files[0]}: holds no rows.")
    summary = diversity(samples, against, threshold=options.threshold, problems=problems)
    print(diversity_table(summary, options.language))
    if options.output is not None:
        paths = write_diversity(summary, options.output, options.language)
        print(next(path for path in paths if path.suffix == ".html"))
