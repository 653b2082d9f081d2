"""What is trained: one method, or a list of steps that build on one another (SFT, then a reward model, then PPO)."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, TypeAdapter

from personalign.checking import refusal
from personalign.sources import Data
from personalign.training.settings import DpoSettings, PpoSettings, RewardSettings, SftSettings, TrainSettings

METHOD = (
    "sft: learn the answers; dpo: prefer the chosen to the rejected ones; reward: give the better answers the higher "
    "reward; ppo: answer so that a reward model likes it"
)
OWN_DATA = "data of this step (in a list of steps); without a `source` the recipe's, but for what is said here"


class TrainSft(SftSettings):
    """Supervised fine-tuning on the preferred answers."""

    method: Literal["sft"] = Field("sft", description=METHOD)
    data: Data | None = Field(None, description=OWN_DATA)


class TrainDpo(DpoSettings):
    """Direct preference optimisation on the pairs."""

    method: Literal["dpo"] = Field("dpo", description=METHOD)
    data: Data | None = Field(None, description=OWN_DATA)


class TrainReward(RewardSettings):
    """A reward model from pairs or rankings."""

    method: Literal["reward"] = Field("reward", description=METHOD)
    data: Data | None = Field(None, description=OWN_DATA)


class TrainPpo(PpoSettings):
    """Proximal policy optimisation of a policy against a reward model, on prompts."""

    method: Literal["ppo"] = Field("ppo", description=METHOD)
    data: Data | None = Field(None, description=OWN_DATA)
    reward: str | None = Field(
        None, description="the reward model: an earlier step, an adapter folder or a run folder; the last reward step"
    )


Train = TrainSft | TrainDpo | TrainReward | TrainPpo
METHODS: dict[str, type[Train]] = {"sft": TrainSft, "dpo": TrainDpo, "reward": TrainReward, "ppo": TrainPpo}
SETTINGS: dict[str, type[TrainSettings]] = {
    "sft": SftSettings, "dpo": DpoSettings, "reward": RewardSettings, "ppo": PpoSettings
}  # fmt: skip


def by_method(value: Any) -> Any:
    """The method chooses the settings that are known, so that an error names the key and not a union.

    In a list, a step is told what it builds on unless it says so itself: a policy goes on from the policy before it,
    and PPO has the last reward model.
    """
    if isinstance(value, dict):
        found = _one(value)
        if found.data is not None:
            raise refusal("belongs to a list of steps; write it as the recipe's own `data`", "data")
        if isinstance(found, TrainPpo) and found.reward is None:
            raise refusal("is missing: name the folder of a reward model, or train it in a step before", "reward")
        return found
    if isinstance(value, Sequence) and not isinstance(value, str):
        if not value:
            raise refusal("names no step; write null to measure without training")
        return _STEPS.validate_python(_linked(value))
    return value


def step_names(methods: Sequence[str]) -> list[str]:
    """Name of each step, which is its folder: its method, with -2, -3 where that comes again."""
    return [
        method if not (before := methods[:at].count(method)) else f"{method}-{before + 1}"
        for at, method in enumerate(methods)
    ]


def _linked(steps: Sequence[Any]) -> list[Any]:
    methods = [step.get("method", "dpo") if isinstance(step, dict) else getattr(step, "method", "") for step in steps]
    linked: list[Any] = []
    policy = reward = None
    for step, method, name in zip(steps, methods, step_names(methods), strict=True):
        if isinstance(step, dict):
            own: dict[str, Any] = {} if policy is None or method == "reward" else {"start": policy}
            own |= {"reward": reward} if method == "ppo" and reward is not None else {}
            step = own | step
        linked.append(step)
        policy, reward = (policy, name) if method == "reward" else (name, reward)
    return linked


def _one(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    method = value.get("method", "dpo")
    if method not in METHODS:
        *most, last = METHODS
        raise refusal(f"{method!r} is unknown; write {', '.join(most)} or {last}", "method")
    for key in value:
        owners = [name for name, model in METHODS.items() if key in model.model_fields]
        if owners and method not in owners:
            raise refusal(f"belongs to the method {' and '.join(owners)}, and this is {method}; leave it out", key)
    return METHODS[method].model_validate(value)


def _step(value: Any) -> Any:
    found = _one(value)
    if isinstance(found, TrainPpo) and found.reward is None:
        raise refusal("is missing: put a reward step before this one, or name the folder of a reward model", "reward")
    return found


_STEPS: TypeAdapter[tuple[Train, ...]] = TypeAdapter(tuple[Annotated[Train, BeforeValidator(_step)], ...])
