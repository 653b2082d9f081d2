"""What a language model makes before anything is learned: the `make` of a recipe, pipelines one after another.

    make:
      client: openai:gpt-4o-mini
      budget_usd: 2
      steps: [traits, {situations: {count: 20}}, dialogues, rejections, dedupe]

A pipeline is personalign.synthesis.<name>, with its settings <Name> and make_<name>(job, settings, people).
"""

from collections.abc import Callable
from difflib import get_close_matches
from importlib import import_module
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field, TypeAdapter

from personalign.checking import Strict, checked, refusal
from personalign.clients import Limits, client
from personalign.clients.names import FORMS

# in the order in which they may follow one another
PIPELINES = (
    "traits", "imitate", "situations", "dialogues", "rejections", "restyle", "roleplay", "instruct", "knowledge", "dedupe"
)  # fmt: skip
PEOPLE = ("traits", "imitate")  # make a persona
NO_ROWS = ("traits", "situations")  # make nothing that is trained on


def pipeline(name: str) -> tuple[type[BaseModel], Callable[..., Any]]:
    """(settings, function) of a pipeline; nothing of the others is imported."""
    module = import_module(f"personalign.synthesis.{name}")
    return getattr(module, name.capitalize()), getattr(module, f"make_{name}")


# settings that a step has from the recipe where it is given none: from its persona, its personas, or the step before
FROM_RECIPE: dict[str, tuple[str, ...]] = {
    "traits": ("name", "description"), "imitate": ("name",), "dialogues": ("together",), "dedupe": ("file",)
}  # fmt: skip


def settings(name: str, given: dict[str, Any], own: dict[str, Any]) -> BaseModel:
    """The settings of a step; `own` are those that it has from the recipe where it is given none."""
    said = {key: value for key, value in given.items() if value is not None}
    return pipeline(name)[0].model_validate({key: own[key] for key in FROM_RECIPE.get(name, ()) if key in own} | said)


def _step(value: Any) -> Any:
    """`dialogues` or `{dialogues: {turns: 6}}`, as the name with all its settings."""
    if isinstance(value, str):
        value = {value: {}}
    if not isinstance(value, dict) or len(value) != 1:
        raise refusal("is no step; write a pipeline's name, or {name: {setting: value}}")
    ((name, given),) = value.items()
    if name not in PIPELINES:
        near = get_close_matches(str(name), PIPELINES, n=1)
        raise refusal(
            f"{name!r} is no pipeline; {f'did you mean {near[0]}' if near else 'there are ' + ', '.join(PIPELINES)}"
        )
    kind, given = pipeline(name)[0], given or {}
    if not isinstance(given, dict):
        raise refusal("are no settings; write {setting: value}", name)
    for key in given:
        if key not in kind.model_fields:
            near = get_close_matches(str(key), kind.model_fields, n=1)
            known = f"did you mean {near[0]}" if near else f"there are {', '.join(kind.model_fields)}"
            raise refusal(f"is no setting of {name}; {known}", name, key)
    own = {"description": "..."} if name == "traits" else {}
    # through a dict, so that an error names the step
    found: BaseModel = TypeAdapter(dict[str, kind]).validate_python({name: own | given})[name]  # type: ignore[valid-type]
    return {name: found.model_dump(mode="json", exclude={*FROM_RECIPE.get(name, ())} - {*given})}


def _client(value: str) -> str:
    checked(client, value)
    return value


def _some(value: Any) -> Any:
    if not value:
        raise refusal(f"names no step; write one or more of {', '.join(PIPELINES)}")
    return value


Step = Annotated[dict[str, dict[str, Any]], BeforeValidator(_step)]


class Asked(Strict):
    """Who is asked, and what it may cost: of the recipe's `make`, and of the commands `make ...`."""

    client: Annotated[str, BeforeValidator(_client)] = Field("local:smollm2", description=f"who is asked: {FORMS}")
    budget_usd: float | None = Field(
        None,
        ge=0,
        description="dollars that the run's ledger may ever reach; the request that could exceed it is not sent",
    )
    budget_tokens: int | None = Field(None, ge=0, description="the same in tokens, read and written")
    limits: Limits = Field(Limits(), description="how fast it may be asked, and how patiently")
    prompts: str | None = Field(
        None, description="a folder of your own prompts (dialogues.ko.yaml, ...); those that are not in it are ours"
    )
    options: dict[str, Any] = Field(
        {}, description="go to the provider with every request as they are: {safety: BLOCK_NONE} to Gemini"
    )


class OwnPrice(Strict):
    """A price that goes before that of our table."""

    input: float = Field(ge=0, description="dollars per million tokens read")
    output: float = Field(ge=0, description="dollars per million tokens written")
    cached: float | None = Field(None, ge=0, description="read from the provider's cache; as `input` if not given")
    cache_written: float | None = Field(None, ge=0, description="put into it; as `input` if not given")


class Make(Asked):
    """Data made by a language model."""

    prices: dict[str, OwnPrice] = Field(
        {}, description="dollars per million tokens, by the model's name: {openai:my-model: {input: 0.1, output: 0.4}}"
    )
    steps: Annotated[tuple[Step, ...], BeforeValidator(_some)] = Field(
        description=f"what is made, one after another, each with its settings: {', '.join(PIPELINES)}"
    )

    def names(self) -> list[str]:
        """Names of the steps, in order."""
        return [name for step in self.steps for name in step]

    @property
    def makes_people(self) -> bool:
        """Whether the personas that are trained are those that it made."""
        return any(name in PEOPLE for name in self.names())

    @property
    def makes_rows(self) -> bool:
        """Whether something to learn from comes of it."""
        return any(name not in NO_ROWS for name in self.names())

    def prices_by_model(self) -> dict[str, dict[str, Any]]:
        """As clients read them."""
        return {model: price.model_dump(exclude_none=True) for model, price in self.prices.items()}
