"""A persona: who a model speaks as."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from personalign.personas import yamlfile
from personalign.personas.axes import TYPES

Language = Literal["en", "ko"]


class Example(BaseModel):
    """One exchange that shows how the persona talks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    user: str = Field(min_length=1, description="what is said to the persona")
    assistant: str = Field(min_length=1, description="what the persona replies")


def system_prompt(language: Language, description: str, traits: tuple[str, ...], speaking_style: str) -> str:
    """Compose the system prompt from a persona's parts, in its language.

    A description that ends with a full stop is used as written, any other continues "You are ..." ("당신은 ...입니다").
    The same holds for the speaking style and "You speak ..." ("... 말합니다").
    """
    if language == "ko":
        parts = [
            _sentence(description, "당신은 {}입니다."),
            f"당신을 나타내는 말은 {', '.join(traits)}입니다." if traits else "",
            _sentence(speaking_style, "{} 말합니다."),
            "모든 대답에서 이 사람이 되어 자신의 이야기로 말하세요.",
        ]
    else:
        listed = " and ".join(filter(None, [", ".join(traits[:-1]), *traits[-1:]]))
        parts = [
            _sentence(description, "You are {}."),
            f"You are {listed}." if traits else "",
            _sentence(speaking_style, "You speak {}."),
            "Stay this person in every answer and speak in the first person.",
        ]
    return " ".join(part for part in parts if part)


def _sentence(text: str, frame: str) -> str:
    text = text.strip()
    return text if not text or text.endswith((".", "!", "?")) else frame.format(text)


class Persona(BaseModel):
    """Who a model speaks as; immutable, written and read as YAML."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, description="what the persona is called")
    language: Language = Field(default="en", description="the language it speaks: en or ko")
    type: str | None = Field(default=None, description="one of the 16 types, such as ENTJ; none for a free persona")
    description: str = Field(
        min_length=1,
        description='who it is: a phrase that continues "You are ...", or whole sentences ending with a full stop',
    )
    traits: tuple[str, ...] = Field(default=(), description="words that describe it (adjectives in English)")
    speaking_style: str = Field(
        default="", description='how it talks: a phrase that continues "You speak ...", or whole sentences'
    )
    examples: tuple[Example, ...] = Field(default=(), description="exchanges that show how it talks")
    system_prompt: str = Field(
        default_factory=lambda parts: _compose(parts),
        min_length=1,
        description="what the model is told; composed from the others when left out",
    )

    @field_validator("type")
    @classmethod
    def _one_of_sixteen(cls, value: str | None) -> str | None:
        if value is not None and value.upper() not in TYPES:
            raise ValueError(f"{value!r} is none of the 16 types {', '.join(TYPES)}")
        return value and value.upper()

    @classmethod
    def from_yaml(cls, path: str | Path) -> "Persona":
        """Read a persona from a YAML file; raises UserError naming file, line and key."""
        return yamlfile.load(path, cls)

    def to_yaml(self, path: str | Path) -> None:
        """Write the persona as YAML; a system prompt that the other fields compose is left out."""
        data = self.model_dump(mode="json", exclude_defaults=True)
        parts = dict(self)
        if self.system_prompt == _compose(parts):
            data.pop("system_prompt", None)
        yamlfile.dump({"name": self.name, "language": self.language} | data, path)


def _compose(parts: dict[str, Any]) -> str:
    return system_prompt(parts["language"], parts["description"], parts["traits"], parts["speaking_style"])
