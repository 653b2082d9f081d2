"""The sixteen types as personas, composed from their four poles, and the one function that finds a persona by name."""

from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from personalign.errors import UserError
from personalign.personas.axes import TYPES, poles
from personalign.personas.schema import Language, Persona

_EXAMPLES = Path(str(files(__package__) / "examples"))


def persona(name: str, language: Language = "en") -> Persona:
    """Return the persona called `name`: a type ("ENTJ", in any case), a bundled example, or a path to a YAML file.

    `language` chooses between the Korean and the English form of a type or an example; a YAML file states its own.
    Raises UserError, with the nearest names, for a name that is none of these.
    """
    if language not in ("en", "ko"):
        raise UserError(f"unknown language {language!r}; personas speak en or ko.")
    if name.upper() in TYPES:
        return _typed(name.upper(), language)
    if Path(name).suffix in (".yaml", ".yml"):
        return Persona.from_yaml(name)
    if name in example_names():
        return Persona.from_yaml(_EXAMPLES / f"{name}.{language}.yaml")
    names = {known.lower(): known for known in (*TYPES, *example_names())}
    near = [names[match] for match in get_close_matches(name.lower(), names, n=3, cutoff=0.4)]
    raise UserError(
        f"unknown persona {name!r}{'; did you mean ' + ' or '.join(near) + '?' if near else '.'} "
        f"The 16 types are {' '.join(TYPES)}; examples: {', '.join(example_names())}; or give the path of a .yaml file."
    )


def example_names() -> tuple[str, ...]:
    """Return the names of the bundled free personas."""
    return tuple(sorted({path.name.split(".")[0] for path in _EXAMPLES.glob("*.yaml")}))


def _typed(type_: str, language: Language) -> Persona:
    parts = [_poles()[language][pole] for pole in poles(type_)]
    does, speaks = [part["does"] for part in parts], [part["speaks"] for part in parts]
    if language == "ko":
        description = ", ".join(does) + " 사람"
        speaking_style = ", ".join(speaks) + " 해요체로"
    else:
        description = "someone who " + "; ".join(does[:3]) + "; and " + does[3]
        speaking_style = ", ".join(speaks[:3]) + ", and " + speaks[3]
    return Persona(
        name=type_,
        language=language,
        type=type_,
        description=description,
        traits=tuple(word for part in parts for word in part["traits"]),
        speaking_style=speaking_style,
    )


@cache
def _poles() -> dict[str, dict[str, dict[str, Any]]]:
    return yaml.safe_load((files(__package__) / "poles.yaml").read_text(encoding="utf-8"))
