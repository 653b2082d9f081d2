"""The recipe: what a user writes to have a persona made, trained and measured.

Every field's description is its documentation; `personalign init` writes a commented starter.
"""

from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from personalign.errors import UserError
from personalign.personas import Persona, persona, poles, yamlfile
from personalign.training.settings import DpoSettings, SftSettings

EVERYDAY = "everyday"
METHOD = "sft: learn the answers; dpo: prefer the chosen to the rejected ones"
Arm = Literal["base", "prompted", "adapter", "adapter+prompt"]
ARMS: tuple[Arm, ...] = ("base", "prompted", "adapter", "adapter+prompt")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _refusal(why: str, *location: str) -> ValidationError:
    """An error of the key at `location`, which pydantic joins to the others; the loader adds file and line."""
    kind = PydanticCustomError("refused", "{why}", {"why": why.rstrip(".")})
    return ValidationError.from_exception_data("recipe", [{"type": kind, "loc": location, "input": None}])


def _checked(call: Any, *arguments: Any) -> Any:
    """Call a function that raises UserError, and make it an error of the key being validated."""
    try:
        return call(*arguments)
    except UserError as error:
        raise _refusal(str(error)) from None


def _listed(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _persona(value: Any) -> Any:
    if isinstance(value, str):
        _checked(persona, value)
    return Persona.model_validate(value) if isinstance(value, dict) else value


def _poles(value: str | None) -> str | None:
    return "".join(_checked(poles, value)) if value is not None else None


class Data(_Strict):
    """Where the training data come from."""

    source: Annotated[tuple[str, ...], BeforeValidator(_listed)] = Field(
        (EVERYDAY,),
        min_length=1,
        description=f"`{EVERYDAY}` (the bundled situations, answered from each pole), or one or more files (JSON, "
        "JSONL, CSV, Parquet) or hf:org/name:split",
    )
    columns: dict[str, str] = Field({}, description="our field: the file's column, where a file has other names")
    prefer: int | None = Field(
        None, ge=0, le=1, description="which of two unlabelled answers (`output: [first, second]`) is preferred: 0 or 1"
    )
    held_out: float = Field(
        0.1, ge=0, lt=1, description=f"share of a file's rows kept for measuring; `{EVERYDAY}` has a split of its own"
    )
    limit: int | None = Field(None, ge=1, description="train on this many rows, drawn by the seed; all if not given")


class TrainSft(SftSettings):
    """Supervised fine-tuning on the preferred answers."""

    method: Literal["sft"] = Field("sft", description=METHOD)


class TrainDpo(DpoSettings):
    """Direct preference optimisation on the pairs."""

    method: Literal["dpo"] = Field("dpo", description=METHOD)


METHODS: dict[str, type[TrainSft] | type[TrainDpo]] = {"sft": TrainSft, "dpo": TrainDpo}


def _by_method(value: Any) -> Any:
    """The method chooses the settings that are known, so that an error names the key and not a union."""
    if not isinstance(value, dict):
        return value
    method = value.get("method", "dpo")
    if method not in METHODS:
        raise _refusal(f"{method!r} is unknown; write {' or '.join(METHODS)}", "method")
    for key in value:
        owner = next((name for name, model in METHODS.items() if key in model.model_fields), method)
        if key not in METHODS[method].model_fields and owner != method:
            raise _refusal(f"belongs to the method {owner}, and this is {method}; leave it out", key)
    return METHODS[method].model_validate(value)


class Evaluate(_Strict):
    """What is measured, and how much of it."""

    arms: tuple[Arm, ...] = Field(
        ARMS,
        description="what is compared: the base, the base with the persona as its system prompt, the adapter, both; "
        "the first two are the controls and always there",
    )
    poles: Annotated[str | None, BeforeValidator(_poles)] = Field(
        None, description="the poles that training aims at, such as ENFP or E; those of the persona's type if not given"
    )
    share: float = Field(1.0, gt=0, le=1, description="share of the inventory's items to ask; the report states it")
    pairs: int | None = Field(None, ge=0, description="held-out pairs whose preference is measured; all if not given")
    answers: int = Field(5, ge=0, description="held-out prompts that every arm answers, to be read side by side")


class Report(_Strict):
    """The report that is written."""

    language: Literal["en", "ko"] | None = Field(None, description="language of the report; the recipe's if not given")


class Recipe(_Strict):
    """One file from a persona to a measured model."""

    name: str = Field(pattern=r"^[\w][\w.+-]*$", description="what this run is called; its folder is runs/<name>")
    persona: Annotated[str | Persona, BeforeValidator(_persona)] = Field(
        description="one of the 16 types (ENFP), a bundled example, a persona file, or a persona written here"
    )
    language: Literal["en", "ko"] = Field("en", description="language of the persona, the data and the inventory")
    model: str = Field("smollm2", min_length=1, description="the base: an embedded model, a local folder or a hub id")
    template: str | None = Field(
        None,
        description="chat template where the model has none: chatml, gemma, llama3, plain, plain-ko or a .jinja file",
    )
    trust_remote_code: bool = Field(False, description="run Python code that comes with a hub model that you trust")
    adapter: str | None = Field(None, description="measure this adapter instead of training one (`train: null`)")
    seed: int = Field(0, ge=0, description="seed of everything random")
    output: str | None = Field(None, min_length=1, description="run folder; runs/<name> if not given")
    data: Data = Field(Data(), description="what is learned from")
    train: Annotated[TrainDpo | TrainSft | None, BeforeValidator(_by_method)] = Field(
        TrainDpo(), description="the method and its settings; null measures without training"
    )
    evaluate: Evaluate | None = Field(Evaluate(), description="what is measured; null trains only")
    report: Report = Field(Report(), description="the report")

    @model_validator(mode="before")
    @classmethod
    def _one_seed(cls, value: Any) -> Any:
        """Training has the recipe's seed unless it is given one of its own."""
        seed, train = (value.get("seed", 0), value.get("train", {})) if isinstance(value, dict) else (None, None)
        if isinstance(seed, int) and isinstance(train, dict):
            return {**value, "train": {"seed": seed, **train}}
        return value

    @model_validator(mode="after")
    def _whole(self) -> "Recipe":
        who = self.who()
        if who.language != self.language:
            raise _refusal(f"is {self.language}, and the persona speaks {who.language}; make them the same", "language")
        if self.adapter is not None and self.train is not None:
            raise _refusal("is measured as it is: set `train: null`, or leave `adapter` out", "adapter")
        if EVERYDAY in self.data.source and self.data.source != (EVERYDAY,):
            raise _refusal("is either everyday or files, not both", "data", "source")
        if EVERYDAY in self.data.source and not self.poles() and self.train is not None:
            raise _refusal(
                f"{who.name} is none of the 16 types, so the bundled data hold no answers for it: give `data.source` a "
                "file of its own, or name the poles that it stands for in `evaluate.poles`",
                *(("data", "source") if "source" in self.data.model_fields_set else ("persona",)),
            )
        return self

    def who(self) -> Persona:
        """The persona, in the recipe's language where it has both."""
        return _checked(persona, self.persona, self.language) if isinstance(self.persona, str) else self.persona

    def poles(self) -> str:
        """The poles that training aims at ("ENFP", "E"), "" for a free persona that stands for none."""
        stated = self.evaluate.poles if self.evaluate is not None else None
        return stated or self.who().type or ""

    def folder(self) -> Path:
        """The run directory."""
        return Path(self.output) if self.output is not None else Path("runs") / self.name


def load(path: str | Path, overrides: dict[str, str] | None = None) -> Recipe:
    """Read a recipe, then set `overrides` ({"train.beta": "0.2"}; values are YAML).

    Raises UserError naming file, line and key, or the override.
    """
    recipe = yamlfile.load(path, Recipe)
    if not overrides:
        return recipe
    data = recipe.model_dump(mode="json", exclude_unset=True)
    if recipe.train is not None and recipe.train.seed == recipe.seed:
        del data["train"]["seed"]  # so that it follows an override of the recipe's
    for dotted, text in overrides.items():
        try:
            _set(data, dotted, yaml.safe_load(text))
        except yaml.YAMLError:
            raise UserError(f"--set {dotted}={text}: the value is not valid YAML; quote it.") from None
    return build(data, "--set ")


def build(data: dict[str, Any], where: str = "") -> Recipe:
    """Check a recipe that was made in memory. Raises UserError, a line an error, each headed by `where` and the key."""
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        raise UserError("\n".join(where + line for line in _explain(error))) from None


def dump(recipe: Recipe, path: Path) -> None:
    """Write the whole recipe, every default filled in, so that it makes the same run under later defaults."""
    text = yaml.safe_dump(recipe.model_dump(mode="json"), allow_unicode=True, sort_keys=False, width=120)
    path.write_text(f"# personalign run {path}\n{text}", encoding="utf-8", newline="\n")


def _set(data: dict[str, Any], dotted: str, value: Any) -> None:
    *path, last = dotted.split(".")
    for key in path:
        inside = data.get(key)
        data[key] = inside if isinstance(inside, dict) else {}
        data = data[key]
    data[last] = value


def _explain(error: ValidationError) -> list[str]:
    lines = []
    for problem in error.errors(include_url=False):
        key = ".".join(map(str, problem["loc"]))
        if problem["type"] == "extra_forbidden":
            near = get_close_matches(str(problem["loc"][-1]), _keys(Recipe), n=1)
            lines.append(f"{key}: unknown key" + (f"; did you mean `{near[0]}`?" if near else "."))
        else:
            lines.append(f"{key or 'recipe'}: {problem['msg']}.")
    return lines


def _keys(model: type[BaseModel]) -> list[str]:
    schema = model.model_json_schema()
    return [key for part in [schema, *schema.get("$defs", {}).values()] for key in part.get("properties", {})]
