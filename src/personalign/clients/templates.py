"""Prompts as versioned files: <name>.<language>.yaml in a room's folder `prompts`, rendered in jinja's sandbox.

    version: 1
    max_tokens: 800
    temperature: 1.0
    messages:
      - {role: system, content: ...}
      - {role: user, content: "... {{ description }} ..."}

A recipe may name a folder of its own (make.prompts) with files of the same names: those go first. Whoever changes a text
changes its version: name, language and version stand beside every request in the ledger, and in every row.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal

import jinja2
import yaml
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from personalign.clients.protocol import Request
from personalign.conversation import Message
from personalign.errors import UserError


class _Said(BaseModel):
    model_config = ConfigDict(extra="forbid")
    role: Literal["system", "user", "assistant"]
    content: str = Field(min_length=1)

    @field_validator("content")
    @classmethod
    def _is_a_template(cls, value: str) -> str:
        try:
            _compiled(value)
        except jinja2.TemplateSyntaxError as error:
            raise ValueError(f"line {error.lineno} of the text: {error.message}") from None
        return value


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")
    version: int = Field(ge=1)
    max_tokens: int = Field(ge=1)
    temperature: float = Field(1.0, ge=0, allow_inf_nan=False)
    top_p: float = Field(1.0, gt=0, le=1)
    rubric: str = ""  # by what the answers to it are judged, where they are
    messages: list[_Said] = Field(min_length=1)


@dataclass(frozen=True)
class Template:
    """A prompt. `id` is its name, language and version: "traits.en@1", of a user's own file "own/traits.en@1".

    `where` names its file in errors; `options` go to the provider with every request.
    """

    id: str
    file: _File
    where: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    def request(self, draw: int = 0, seed: int | None = None, **fields: Any) -> Request:
        """The request that it makes of these fields; a message that comes out empty is left out.

        Raises UserError for a field that it names and that is not there, and for a text that cannot be rendered.
        """
        messages: list[Message] = []
        for number, said in enumerate(self.file.messages):
            try:
                text = _compiled(said.content).render(fields).strip()
            except Exception as error:  # the sandbox keeps a template from harm, not from dividing by zero
                raise UserError(f"{self.where or self.id}: messages.{number}: {error}; mend the prompt.") from None
            if text:
                messages.append({"role": said.role, "content": text})
        if not any(message["role"] == "user" for message in messages):
            raise UserError(f"{self.where or self.id}: asks nothing: no message of the user's has a text.")
        return Request(
            tuple(messages), self.id, max_tokens=self.file.max_tokens, temperature=self.file.temperature,
            top_p=self.file.top_p, seed=seed, draw=draw, options=self.options,
        )  # fmt: skip


def read_template(ours: Traversable, name: str, language: str, own: Path | None = None) -> Template:
    """The prompt of a name in a language, from the folder `own` if it is there, else from the folder `ours`.

    Raises UserError, naming file and key, for a file that is no prompt, and for one in `own` whose name is nearly one of ours.
    """
    file = f"{name}.{language}.yaml"
    if own is not None:
        _check_names(own, {each.name for each in ours.iterdir()})
    mine = own / file if own is not None and (own / file).is_file() else None
    where = str(mine or f"prompts/{file}")
    try:
        read = _File.model_validate(yaml.safe_load((mine or ours / file).read_text(encoding="utf-8")))
    except OSError as error:
        raise UserError(f"{where}: cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: is not UTF-8 text (byte {error.start}); save it as UTF-8.") from None
    except yaml.YAMLError as error:
        raise UserError(f"{where}: is not valid YAML ({' '.join(str(error).split())[:120]}).") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise UserError(f"{where}: {'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']}.") from None
    return Template(f"{'own/' if mine is not None else ''}{name}.{language}@{read.version}", read, where)


def _check_names(own: Path, known: set[str]) -> None:
    if not own.is_dir():
        raise UserError(f"{own}: there is no such folder of prompts; mend make.prompts.")
    for path in sorted(own.glob("*.y*ml")):
        near = get_close_matches(path.name, known, n=1, cutoff=0.85)
        if near and path.name not in known:  # else it would lie there and never be asked
            raise UserError(f"{path}: there is no prompt of this name; did you mean {near[0]}?")


@cache
def _compiled(content: str) -> jinja2.Template:
    return _environment().from_string(content)


@cache
def _environment() -> ImmutableSandboxedEnvironment:
    return ImmutableSandboxedEnvironment(
        undefined=jinja2.StrictUndefined, autoescape=False, trim_blocks=True, lstrip_blocks=True
    )
