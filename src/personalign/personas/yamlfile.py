"""YAML files that people write by hand, checked by pydantic; every error names the file, the line and the key."""

from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from personalign.errors import UserError

Model = TypeVar("Model", bound=BaseModel)
Location = tuple[str | int, ...]


def load(path: str | Path, model: type[Model]) -> Model:
    """Read one YAML document into `model`.

    Raises UserError, one line an error, for a missing or unreadable file, broken YAML, a key written twice, an
    unknown key (with the nearest known one), a missing key, or a value that does not fit.
    """
    path = Path(path)
    data, lines = _parse(path)
    if not isinstance(data, dict):
        raise UserError(f"{path}:1: holds no `key: value` lines; the keys are {', '.join(model.model_fields)}.")
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise UserError("\n".join(_explain(path, error, lines, model))) from None


def dump(data: dict[str, Any], path: str | Path) -> None:
    """Write `data` as YAML in its own key order, Korean readable as it stands."""
    text = yaml.dump(data, Dumper=_Dumper, allow_unicode=True, sort_keys=False, width=100)
    Path(path).write_text(text, encoding="utf-8", newline="\n")


class _Dumper(yaml.SafeDumper):
    """Writes in "double quotes" what PyYAML would otherwise write raw and read back as a line break."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    breaks = any(char in text for char in "\x85\u2028\u2029\ufeff")
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if breaks else None)


_Dumper.add_representer(str, _text)


def _parse(path: Path) -> tuple[Any, dict[Location, int]]:
    try:
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
        node = loader.get_single_node()
        lines = dict(_lines(node, (), path)) if node else {}
        return (loader.construct_document(node) if node else None), lines
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text (byte {error.start}); save it as UTF-8.") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise UserError(f"{path}:{mark.line + 1 if mark else 1}: is not valid YAML: {error.problem}.") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2024-13-40
        raise UserError(f"{path}: is not valid YAML: {error}.") from None


def _lines(node: yaml.Node, location: Location, path: Path) -> Iterator[tuple[Location, int]]:
    """Yield each value's location with the line of its key, counted from one."""
    yield location, node.start_mark.line + 1
    if isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            yield from _lines(child, (*location, index), path)
    elif isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, child in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if name in seen:
                raise UserError(f"{path}:{line}: `{name}` is written twice (first on line {seen[name]}); keep one.")
            seen[name] = line
            yield from _lines(child, (*location, name), path)
            yield (*location, name), line


def _explain(path: Path, error: ValidationError, lines: dict[Location, int], model: type[BaseModel]) -> Iterator[str]:
    schema = model.model_json_schema()
    known = [key for part in [schema, *schema.get("$defs", {}).values()] for key in part.get("properties", {})]
    for problem in error.errors(include_url=False):
        location, kind = problem["loc"], problem["type"]
        if kind == "default_factory_not_called":  # only says that another key failed, which has its own error
            continue
        key = ".".join(str(part) for part in location)
        line = next(lines[location[:n]] for n in range(len(location), -1, -1) if location[:n] in lines)
        if kind == "extra_forbidden":
            near = get_close_matches(str(location[-1]), known, n=1)
            advice = f"did you mean `{near[0]}`?" if near else f"the keys are {', '.join(dict.fromkeys(known))}."
            yield f"{path}:{line}: unknown key `{key}`; {advice}"
        elif kind == "missing":
            yield f"{path}:{line}: the key `{key}` is missing."
        else:
            yield f"{path}:{line}: `{key}`: {problem['msg']}."
