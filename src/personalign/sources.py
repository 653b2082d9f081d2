"""Where the data of a recipe or of one of its steps come from, and which file is a persona's own."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from personalign.checking import Strict
from personalign.errors import UserError

EVERYDAY = "everyday"
MADE = "made"
ENDINGS = (".json", ".jsonl", ".csv", ".parquet")
PLACE = "{persona}"


def _listed(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


class Data(Strict):
    """Where the training data come from."""

    source: Annotated[tuple[str, ...], BeforeValidator(_listed)] = Field(
        (EVERYDAY,),
        min_length=1,
        description=f"`{EVERYDAY}` (the bundled situations, answered from each pole), `{MADE}` (what the recipe's `make` "
        f"makes), or one or more files (JSON, JSONL, CSV, Parquet) or hf:org/name:split; with {PLACE} in the name, or a "
        "folder: each persona's own file",
    )
    columns: dict[str, str] = Field({}, description="our field: the file's column, where a file has other names")
    prefer: int | None = Field(
        None, ge=0, le=1, description="which of two unlabelled answers (`output: [first, second]`) is preferred: 0 or 1"
    )
    held_out: float = Field(
        0.1, ge=0, lt=1, description=f"share of a file's rows kept for measuring; `{EVERYDAY}` has a split of its own"
    )
    portion: tuple[Annotated[float, Field(ge=0, le=1)], Annotated[float, Field(ge=0, le=1)]] = Field(
        (0.0, 1.0),
        description="use the prompts between these shares of a file, as [0, 0.7]: steps that divide one file share none",
    )
    limit: int | None = Field(None, ge=1, description="train on this many rows, drawn by the seed; all if not given")

    @property
    def names_source(self) -> bool:
        """Whether a source was given."""
        return "source" in self.model_fields_set

    def of(self, persona: str | None) -> "Data":
        """The same with the persona's own files in place of folders and of `{persona}`."""
        return self.model_copy(update={"source": tuple(own_file(each, persona) for each in self.source)})

    def once_made(self, file: str) -> "Data":
        """The same with this file in place of `made`."""
        if MADE not in self.source:
            return self
        return self.model_copy(update={"source": tuple(file if each == MADE else each for each in self.source)})


def own_file(source: str, persona: str | None) -> str:
    """The persona's own file: `{persona}` filled in, or in a folder the file that is named after it (or is alone there).

    A folder that does not exist is taken to hold <persona>.json, so that whoever reads it says what is missing. Raises
    UserError where a folder leaves open which file is meant.
    """
    if source in (EVERYDAY, MADE):
        return source
    source = source.replace(PLACE, persona or PLACE)
    path = Path(source)
    if path.is_dir():
        found = sorted(each for each in path.iterdir() if each.suffix.lower() in ENDINGS)
        own = [each for each in found if persona and persona.lower() in each.name.lower()]
        chosen = own if len(own) == 1 else found
        if len(chosen) != 1:
            names = ", ".join(each.name for each in found) or "none"
            raise UserError(
                f"{source}: which of its files{f' is that of {persona}' if persona else ' is meant'} ({names})? "
                "Give that one, or name one after each persona."
            )
        return str(chosen[0])
    if persona and not source.startswith("hf:") and path.suffix.lower() not in ENDINGS:
        return str(path / f"{persona}.json")
    return source
