"""The starter recipe, written from the recipe's own fields: its comments are their descriptions."""

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from personalign.recipe import Recipe

FIRST = {"name": "my-persona", "persona": "ENFP"}  # the two keys without a default


def starter(path: Path) -> str:
    """The text of a recipe with every key, its default and what it means."""
    return "\n".join([f"# personalign run {path}", "", *_keys(Recipe, 0)]) + "\n"


def _keys(model: type[BaseModel], indent: int) -> Iterator[str]:
    margin = " " * indent
    fields = {name: field for name, field in model.model_fields.items() if not (indent and name in ("seed", "data"))}
    for name, field in sorted(fields.items(), key=lambda item: item[0] != "method"):
        comment = f"{margin}# "
        yield from textwrap.wrap(field.description or "", 110, initial_indent=comment, subsequent_indent=comment)
        value = FIRST[name] if field.is_required() else field.get_default()
        if isinstance(value, BaseModel):
            yield f"{margin}{name}:"
            yield from _keys(type(value), indent + 2)
        else:
            yield f"{margin}{name}: {_flow(value)}"
        if not indent:
            yield ""


def _flow(value: Any) -> str:
    """A value on one line of YAML."""
    plain = list(value) if isinstance(value, tuple) else value
    return yaml.safe_dump(plain, default_flow_style=True, allow_unicode=True, width=1000).removesuffix("...\n").strip()
