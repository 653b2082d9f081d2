"""The commands `make traits`, `make dialogues`, ...: a pipeline's settings, and a few options that all of them have.

Each is built when it is called for, so that nothing is imported but its own pipeline.
"""

from collections.abc import Callable
from copy import copy
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, create_model

from personalign.commands import Terms
from personalign.make import PIPELINES, Asked, OwnPrice, pipeline
from personalign.making import job
from personalign.personas import persona
from personalign.pipeline import prepare


class Common(Asked, Terms):
    """What every `make ...` takes beside its own settings."""

    price: OwnPrice | None = Field(None, description="the client's price, where our table has none or another")
    persona: tuple[str, ...] = Field(
        (),
        description="who speaks: one of the 16 types, a bundled example or a persona file, or several; if not given, the persona "
        "that `make traits` left in the run folder",
    )
    language: Literal["en", "ko"] = Field("en", description="language of what is made")
    seed: int = Field(0, ge=0, description="seed of everything random; another one asks anew")
    output: str = Field("runs/make", min_length=1, description="run folder: ledger.sqlite and made/ go there")


def __getattr__(name: str) -> Callable[[Any], None]:
    """The command of a pipeline: `make_commands.dialogues` is what `personalign make dialogues` calls."""
    if name not in PIPELINES:
        raise AttributeError(name)
    kind, _ = pipeline(name)
    fields: dict[str, Any] = {}
    for key, field in kind.model_fields.items():
        if field.is_required():  # the first of what must be given is written without its flag
            field = copy(field)
            field.json_schema_extra = {"positional": True}
            fields = {key: (field.annotation, field)}
            break
    options = create_model(f"Make{kind.__name__}", __base__=(kind, Common), **fields)

    def command(given: Any) -> None:
        _command(name, kind(**{key: getattr(given, key) for key in kind.model_fields}), given)

    command.__annotations__ = {"given": options}
    return command


def _command(name: str, own: Any, given: Common) -> None:
    """Run one pipeline in a run folder, and print where its rows are."""
    folder = Path(given.output)
    prepare(folder)
    given = given.model_copy(update={"options": {key: yaml.safe_load(text) for key, text in given.options.items()}})
    prices = {given.client: given.price.model_dump(exclude_none=True)} if given.price is not None else {}
    with job(given, folder, given.language, given.seed, prices) as work:
        left = work.folder / "persona.yaml"
        named = given.persona or ((str(left),) if left.is_file() else ())
        people = [persona(each, given.language) for each in named]
        if name == "traits":
            pipeline(name)[1](work, own)
            print(left)
        else:
            pipeline(name)[1](work, own, people)
            print(work.folder / f"{name}.jsonl")
