"""The recipe: what a user writes to have a persona made, trained and measured.

Every field's description is its documentation; `personalign init` writes a commented starter. A recipe with several
personas or training seeds stands for several ordinary ones, which `each` and `by_seed` give.
"""

import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, Field, TypeAdapter, ValidationError, model_validator

from personalign.checking import Strict, checked, refusal
from personalign.errors import UserError
from personalign.make import Make
from personalign.personas import TYPES, Persona, persona, poles, yamlfile
from personalign.sources import EVERYDAY, MADE, PLACE, Data
from personalign.steps import Train, TrainDpo, by_method, step_names

Arm = Literal["base", "prompted", "adapter", "adapter+prompt"]
ARMS: tuple[Arm, ...] = ("base", "prompted", "adapter", "adapter+prompt")
ALL = "all"


def _one_persona(value: Any) -> Any:
    if isinstance(value, str):
        checked(persona, value)
    return Persona.model_validate(value) if isinstance(value, dict) else value


_PEOPLE: TypeAdapter[tuple[str | Persona, ...]] = TypeAdapter(
    tuple[Annotated[str | Persona, BeforeValidator(_one_persona)], ...]
)


def _personas(value: Any) -> Any:
    if value == ALL:
        return TYPES
    if not isinstance(value, Sequence) or isinstance(value, str):
        return _one_persona(value)
    people = _PEOPLE.validate_python(list(value))
    labels = [label(each) for each in people]
    if twice := next((each for each in labels if labels.count(each) > 1), None):
        raise refusal(f"{twice} is named twice, and each has a folder of its own; keep one")
    if not people:
        raise refusal(f"names nobody; write one of the 16 types, a list of them, or `{ALL}`")
    return people


def label(who: str | Persona) -> str:
    """Short name of a persona, its folder where there are several: ENFP, a file's name, or the persona's own."""
    name = who.name if isinstance(who, Persona) else who.upper() if who.upper() in TYPES else Path(who).stem
    return re.sub(r"[^\w+-]+", "-", name)


def _poles(value: str | None) -> str | None:
    return "".join(checked(poles, value)) if value is not None else None


class Evaluate(Strict):
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


class Report(Strict):
    """The report that is written."""

    language: Literal["en", "ko"] | None = Field(None, description="language of the report; the recipe's if not given")


class Recipe(Strict):
    """One file from a persona to a measured model."""

    name: str = Field(pattern=r"^[\w][\w.+-]*$", description="what this run is called; its folder is runs/<name>")
    persona: Annotated[str | Persona | tuple[str | Persona, ...], BeforeValidator(_personas)] = Field(
        description="one of the 16 types (ENFP), a bundled example, a persona file, or a persona written here; or a list "
        f"of them ([ENFP, INTJ]), or `{ALL}` 16 types, trained in one pass, each in a subfolder"
    )
    language: Literal["en", "ko"] = Field("en", description="language of the persona, the data and the inventory")
    model: str = Field("smollm2", min_length=1, description="the base: an embedded model, a local folder or a hub id")
    quantise: Literal["nf4", "int8"] | None = Field(
        None, description="keep the base in 4 bits (nf4, as QLoRA does) or in 8 (int8), through bitsandbytes"
    )
    template: str | None = Field(
        None,
        description="chat template where the model has none: chatml, gemma, llama3, plain, plain-ko or a .jinja file",
    )
    trust_remote_code: bool = Field(False, description="run Python code that comes with a hub model that you trust")
    adapter: str | None = Field(None, description="measure this adapter instead of training one (`train: null`)")
    seed: int = Field(0, ge=0, description="seed of everything random")
    output: str | None = Field(None, min_length=1, description="run folder; runs/<name> if not given")
    make: Make | None = Field(
        None,
        description="data that a language model makes first: `client`, `budget_usd`, and `steps` such as [traits, situations, "
        "dialogues, rejections]; with `data.source: made` that is what is learned from (docs/making-data.md)",
    )
    data: Data = Field(Data(), description="what is learned from")
    train: Annotated[Train | tuple[Train, ...] | None, BeforeValidator(by_method)] = Field(
        TrainDpo(),
        description="the method and its settings; a list of them is done step by step, each in a folder of its own and with "
        "`data` of its own where it says so; null measures without training",
    )
    evaluate: Evaluate | None = Field(Evaluate(), description="what is measured; null trains only")
    report: Report = Field(Report(), description="the report")

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, value: Any) -> Any:
        """Training has the recipe's seed unless it is given one of its own, and what is measured the last policy's data."""
        if not isinstance(value, dict) or not isinstance(seed := value.get("seed", 0), int):
            return value
        train = value.get("train", {})
        if isinstance(train, dict):
            return {**value, "train": {"seed": seed, **train}}
        if isinstance(train, list):
            train = [{"seed": seed, **step} if isinstance(step, dict) else step for step in train]
            policies = [step for step in train if isinstance(step, dict) and step.get("method") != "reward"]
            own = policies[-1].get("data") if policies else None
            return {"data": own, **value, "train": train} if own else {**value, "train": train}
        return value

    @model_validator(mode="after")
    def _whole(self) -> "Recipe":
        if self.adapter is not None and self.train is not None:
            raise refusal("is measured as it is: set `train: null`, or leave `adapter` out", "adapter")
        if self.evaluate is not None and self.train is not None and self.policy() is None:
            raise refusal(
                "a reward model is no policy to measure: set `evaluate: null`; its gate judges it", "evaluate"
            )
        if len({step.seeds for step in self.steps().values()}) > 1:
            raise refusal("the steps differ in `seeds`; give all of them the same", "train")
        for place, data, _ in [*self._learned(), (("data",), self.data, "")]:
            if EVERYDAY in data.source and data.source != (EVERYDAY,):
                raise refusal("is either everyday or files, not both", *place, "source")
            if MADE in data.source and (self.make is None or not self.make.makes_rows):
                raise refusal(
                    f"{MADE} is what `make` makes, and {'no step of it makes rows' if self.make else 'there is no `make` here'} "
                    f"to learn from; write ./{MADE} for a folder of that name",
                    *place, "source",
                )  # fmt: skip
        if isinstance(self.persona, tuple):
            self._several(self.persona)
        else:
            self._single(self.who())
        return self

    def _single(self, who: Persona) -> None:
        if who.language != self.language:
            raise refusal(f"is {self.language}, and the persona speaks {who.language}; make them the same", "language")
        for place, data, method in self._learned():
            if data.source == (EVERYDAY,) and method != "ppo" and not self.poles():
                raise refusal(
                    f"{who.name} is none of the 16 types, so the bundled data hold no answers for it: give `data.source` "
                    f"{f'{MADE}, or ' if self.make is not None else ''}a file of its own, or name the poles that it stands for "
                    "in `evaluate.poles`",
                    *((*place, "source") if "source" in data.model_fields_set else ("persona",)),
                )

    def _several(self, people: Sequence[str | Persona]) -> None:
        if self.adapter is not None:
            raise refusal("is one persona's; name that one as `persona`", "adapter")
        if self.evaluate is not None and self.evaluate.poles is not None:
            raise refusal("are one persona's; leave them out, each type has its own", "evaluate", "poles")
        for place, data, method in self._learned():
            found = [checked(data.of, label(who)).source for who in people]
            if not {EVERYDAY, MADE} & {*data.source} and method != "ppo" and len(set(found)) < len(people):
                raise refusal(
                    "several personas would learn the same from it: give a folder with a file for each persona, or a name "
                    f"with {{persona}} in it (data/{{persona}}.json), or `{EVERYDAY}`",
                    *place, "source",
                )  # fmt: skip
        if self.make is not None and len({who.name for who in self.people().values()}) < len(people):
            raise refusal("two have the same name, by which `make` tells their rows apart; rename one", "persona")
        self._each()

    def _learned(self) -> list[tuple[tuple[str | int, ...], Data, str]]:
        """Of each step: the place of its data in the recipe, the data, and the method."""
        return [
            (("train", at, "data") if step.data is not None else ("data",), self.data_of(step), step.method)
            for at, step in enumerate(self.steps().values())
        ]

    def data_of(self, step: Train) -> Data:
        """What a step learns from: its own data, which without a source are the recipe's but for what they say."""
        if step.data is None:
            return self.data
        said = {name: getattr(step.data, name) for name in step.data.model_fields_set}
        return step.data if step.data.names_source else self.data.model_copy(update=said)

    def steps(self) -> dict[str, Train]:
        """What is trained, in order, by the name of its folder: "train" where it is one thing, else by method."""
        if self.train is None:
            return {}
        if not isinstance(self.train, tuple):
            return {"train": self.train}
        return dict(zip(step_names([step.method for step in self.train]), self.train, strict=True))

    def policy(self) -> str | None:
        """Name of the last step that trains a policy: whose adapter is measured, and talked to."""
        return next((name for name, step in reversed(self.steps().items()) if step.method != "reward"), None)

    def each(self) -> dict[str, "Recipe"]:
        """The recipe of each persona alone, by its subfolder of the run folder; "" where the recipe names but one.

        They have no `make`: what it makes is, for them, a file.
        """
        return self._once_made()._each()

    def _once_made(self) -> "Recipe":
        """The recipe of what comes after `make`, which leaves made/personas/<persona>.jsonl and, where it makes them, .yaml."""
        if self.make is None:
            return self
        made = self.folder() / "made" / "personas"

        def own(step: Train) -> Train:
            return step.model_copy(update={"data": step.data.once_made(rows)}) if step.data is not None else step

        def person(who: str | Persona) -> str | Persona:
            file = made / f"{label(who)}.yaml"
            return str(file) if self.make is not None and self.make.makes_people and file.is_file() else who

        rows = str(made / f"{PLACE}.jsonl")
        return self._with(
            make=None,
            data=self.data.once_made(rows),
            train=tuple(map(own, self.train)) if isinstance(self.train, tuple) else self.train,
            persona=tuple(map(person, self.persona)) if isinstance(self.persona, tuple) else person(self.persona),
        )

    def _each(self) -> dict[str, "Recipe"]:
        if not isinstance(self.persona, tuple):
            return {"": self._for(self.persona)}
        return {
            name: self._for(who, name=f"{self.name}-{name}", persona=who, output=str(self.folder() / name))
            for who in self.persona
            for name in [label(who)]
        }

    def _for(self, who: str | Persona, **changes: Any) -> "Recipe":
        name = label(who)
        steps = [
            step.model_copy(update={"data": step.data.of(name)}) if step.data and step.data.names_source else step
            for step in self.steps().values()
        ]
        train = tuple(steps) if isinstance(self.train, tuple) else self.train
        return self._with(data=self.data.of(name), train=train, **changes)

    def by_seed(self) -> dict[str, "Recipe"]:
        """The recipe of each training seed, by its subfolder; "" where there is but one. For one persona."""
        count = max((step.seeds for step in self.steps().values()), default=1)
        if count == 1:
            return {"": self}
        found = {}
        for at in range(count):
            steps = [step.model_copy(update={"seed": step.seed + at, "seeds": 1}) for step in self.steps().values()]
            name = f"seed-{steps[0].seed}"
            train = tuple(steps) if isinstance(self.train, tuple) else steps[0]
            found[name] = self._with(name=f"{self.name}-{name}", train=train, output=str(self.folder() / name))
        return found

    def _with(self, **changes: Any) -> "Recipe":
        return Recipe.model_validate(dict(self) | changes)

    def people(self) -> dict[str, Persona]:
        """Each persona by its label, in the recipe's language where it has both."""
        named = self.persona if isinstance(self.persona, tuple) else (self.persona,)
        return {label(who): checked(persona, who, self.language) if isinstance(who, str) else who for who in named}

    def who(self) -> Persona:
        """The persona; of several see `people`."""
        (found,) = self.people().values()
        return found

    def poles(self) -> str:
        """The poles that training aims at ("ENFP", "E"), "" for a free persona that stands for none."""
        stated = self.evaluate.poles if self.evaluate is not None else None
        return stated or self.who().type or ""

    def folder(self) -> Path:
        """The run directory."""
        return Path(self.output) if self.output is not None else Path("runs") / self.name


def load(path: str | Path, overrides: dict[str, str] | None = None) -> Recipe:
    """Read a recipe, then set `overrides` ({"train.beta": "0.2", "train.sft.epochs": "1"}; values are YAML).

    Raises UserError naming file, line and key, or the override.
    """
    recipe = yamlfile.load(path, Recipe)
    if not overrides:
        return recipe
    data = recipe.model_dump(mode="json", exclude_unset=True)
    for step in data.get("train", []) if isinstance(recipe.train, tuple) else filter(None, [data.get("train")]):
        if step.get("seed") == recipe.seed:
            del step["seed"]  # so that it follows an override of the recipe's
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
    plain = recipe.model_dump(mode="json")
    for step, said in zip(recipe.steps().values(), plain["train"], strict=True) if _steps(plain["train"]) else ():
        if step.data is not None:
            said["data"] = recipe.data_of(step).model_dump(mode="json")
    text = yaml.safe_dump(plain, allow_unicode=True, sort_keys=False, width=120)
    path.write_text(f"# personalign run {path}\n{text}", encoding="utf-8", newline="\n")


def _set(data: dict[str, Any], dotted: str, value: Any) -> None:
    node: Any = data
    keys = dotted.split(".")
    for place, key in enumerate(keys):
        at: Any = key
        if isinstance(node, list):  # steps, by their names
            made = keys[0] == "make"
            names = [next(iter(step)) for step in node] if made else step_names([s.get("method", "dpo") for s in node])
            if key not in names:
                raise UserError(f"--set {dotted}: there is no step `{key}`; the steps are {', '.join(names)}.")
            node, at = (node[names.index(key)], key) if made else (node, names.index(key))
        elif place < len(keys) - 1 and not (isinstance(node.get(key), dict) or _steps(node.get(key))):
            node[key] = {}
        if place == len(keys) - 1:
            node[at] = value
        else:
            node = node[at]


def _steps(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(step, dict) for step in value)


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
