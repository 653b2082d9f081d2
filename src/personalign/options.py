"""A command's options are the fields of a pydantic model: its descriptions are the help, its checks are the errors.

class Options(BaseModel):
    file: str = Field(description="what to read", json_schema_extra={"positional": True})
    batch: int = Field(8, ge=1, description="rows at once")                            # --batch 8
    lora: LoraSettings = Field(LoraSettings(), description="the adapter")              # --lora-rank 16 ...
    output: str = Field("out", validation_alias=AliasChoices("output", "output_dir"))  # --output or --output_dir
"""

import argparse
import types
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin

from pydantic import AliasChoices, BaseModel, ValidationError
from pydantic.fields import FieldInfo

from personalign.errors import UserError

Options = TypeVar("Options", bound=BaseModel)


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one sentence, with the nearest flag."""

    def error(self, message: str) -> NoReturn:
        """Raise UserError instead of printing the whole usage."""
        unknown = message.removeprefix("unrecognized arguments: ").split()[0].split("=")[0]
        near = get_close_matches(unknown, self._option_string_actions, n=1) if unknown.startswith("-") else []
        hint = f"did you mean `{near[0]}`?" if near else f"see `{self.prog} --help`."
        name = unknown.lstrip("-").replace("-", "_")
        if any(action.dest == name and not action.option_strings for action in self._actions):
            hint = f"it has no flag: `{self.prog} {name.upper()} ...`"
        raise UserError(f"{message}; {hint}")


def parse(model: type[Options], arguments: list[str], *, prog: str, description: str = "") -> Options:
    """Parse command-line `arguments` into `model`; `--help` prints the fields and leaves with SystemExit(0).

    Raises UserError naming the flag: an unknown one, a missing one, or a value that does not fit.
    """
    parser = Parser(prog=prog, description=description, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    _add(parser, model, ())
    given = vars(parser.parse_args(arguments))
    nested: dict[str, Any] = {}
    for dotted, value in given.items():
        *path, last = dotted.split(".")
        inside = nested
        for key in path:
            inside = inside.setdefault(key, {})
        is_mapping = isinstance(value, list) and isinstance(value[0], tuple)
        inside[last] = dict(value) if is_mapping else value
    try:
        return model.model_validate(nested)
    except ValidationError as error:
        raise UserError("\n".join(explain(error, model))) from None


def explain(error: ValidationError, model: type[BaseModel]) -> Iterator[str]:
    """Yield a sentence for each error, naming the flag and what was given."""
    for problem in error.errors(include_url=False):
        path = [str(part) for part in problem["loc"] if isinstance(part, str)]
        flag = _flag(model, path)
        message = problem["msg"].removeprefix("Value error, ").rstrip(".")
        if problem["type"] == "missing":
            yield f"{flag} {'is missing' if len(path) == len(problem['loc']) else 'needs more values'}."
        else:
            given = "" if problem["type"] == "refused" else f" {problem['input']}"
            yield f"{flag}{given}: {message}."


def _flag(model: type[BaseModel], path: list[str]) -> str:
    """The flag of the field at `path`, or its bare name where it is positional or no field."""
    field = next((f for name, f in model.model_fields.items() if path and path[0] in _names(name, f)), None)
    if field is not None and _positional(field):
        return path[0].upper()
    return "--" + "-".join(path).replace("_", "-")


def _add(parser: argparse.ArgumentParser, model: type[BaseModel], prefix: tuple[str, ...]) -> None:
    for name, field in model.model_fields.items():
        kind = _without_none(field.annotation)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            _add(parser, kind, (*prefix, name))
            continue
        names = _names(name, field)
        arguments: dict[str, Any] = {"help": _help(field)}
        if get_origin(kind) in (tuple, list, dict):
            arguments |= {"nargs": "+"}
        if kind is bool:
            arguments |= {"action": argparse.BooleanOptionalAction}
        elif get_origin(kind) is dict:
            arguments |= {"metavar": "KEY=VALUE", "type": _key_and_value}
        else:
            arguments |= {"metavar": _metavar(kind, name)}
        if _positional(field):
            arguments.setdefault("nargs", None if field.is_required() else "?")
            parser.add_argument(names[0], **arguments)
        else:
            flags = [_spelt(prefix, names[0]), *(f"--{alias}" for alias in names[1:])]
            parser.add_argument(*flags, dest=".".join((*prefix, names[0])), **arguments)


def _key_and_value(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not written as KEY=VALUE")
    return key, value


def _spelt(prefix: tuple[str, ...], name: str) -> str:
    return "--" + "-".join((*prefix, name)).replace("_", "-")


def _names(name: str, field: FieldInfo) -> list[str]:
    """The field's names, its own first; the others are flags exactly as they are written (those of another program)."""
    if isinstance(field.validation_alias, AliasChoices):
        return [str(choice) for choice in field.validation_alias.choices]
    return [name]


def _positional(field: FieldInfo) -> bool:
    return isinstance(field.json_schema_extra, dict) and bool(field.json_schema_extra.get("positional"))


def _without_none(annotation: Any) -> Any:
    """X of `X | None`, anything else as it is."""
    if get_origin(annotation) in (Union, types.UnionType):
        kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
        return kinds[0] if len(kinds) == 1 else annotation
    return annotation


def _metavar(kind: Any, name: str) -> str:
    if get_origin(kind) in (tuple, list):
        kind = get_args(kind)[0]
    if get_origin(kind) is Literal:
        return "|".join(str(value) for value in get_args(kind))
    return {int: "N", float: "X"}.get(kind, name.upper())


def _help(field: FieldInfo) -> str:
    default = field.get_default() if not field.is_required() else None
    shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
    said = shown not in (None, "", {}) and shown is not False
    text = (field.description or "") + (f" (default: {shown})" if said else "")
    return text.replace("%", "%%")
