"""Arms: what a comparison compares. All of them get the same items, system prompt policy and decoding."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from personalign.conversation import Message
from personalign.errors import UserError


@dataclass(frozen=True)
class Arm:
    """A way to get the persona: by its system prompt, by the adapter, by both, or (base) not at all."""

    name: str
    prompted: bool
    adapter: bool


CONTROLS = (Arm("base", prompted=False, adapter=False), Arm("prompted", prompted=True, adapter=False))
"""Always part of a comparison: what the model does anyway, and what a prompt alone does."""

ARMS = (*CONTROLS, Arm("adapter", prompted=False, adapter=True), Arm("adapter+prompt", prompted=True, adapter=True))


def with_controls(arms: Sequence[Arm]) -> tuple[Arm, ...]:
    """The controls, then the other arms. Raises UserError for two arms of one name or one meaning."""
    found = (*CONTROLS, *(arm for arm in arms if arm not in CONTROLS))
    for seen in ([arm.name for arm in found], [(arm.prompted, arm.adapter) for arm in found]):
        if len(set(seen)) < len(seen):
            names = ", ".join(arm.name for arm in found)
            raise UserError(f"evaluation.arms: {names}: two of them are the same; give each arm once.")
    return found


def comparisons(arms: Sequence[Arm]) -> dict[str, tuple[Arm, Arm]]:
    """The differences that are reported: every arm against base, and every arm with the adapter against prompted.

    {"adapter - base": (adapter, base), ...}, in the order of the arms.
    """
    base, prompted = CONTROLS
    found = [(arm, base) for arm in arms if arm != base] + [(arm, prompted) for arm in arms if arm.adapter]
    return {f"{arm.name} - {against.name}": (arm, against) for arm, against in found}


def reference(arm: Arm) -> Arm:
    """The control that differs from this arm by the adapter alone."""
    return CONTROLS[arm.prompted]


def activated(model: Any, arm: Arm) -> AbstractContextManager[Any]:
    """The model as this arm has it, inside the block. Raises UserError for an adapter's arm on a model without one."""
    from personalign.models import adapter_disabled

    if not arm.adapter:
        return adapter_disabled(model)
    if not hasattr(model, "peft_config"):
        raise UserError(f"evaluation.arms: {arm.name} needs an adapter and the model has none; load one first.")
    return nullcontext()


def addressed(messages: Sequence[Message], arm: Arm, system_prompt: str) -> list[Message]:
    """The conversation as this arm puts it to the model.

    Prompted arms have the persona's system prompt, before a system prompt of the conversation's own. The others have
    the conversation as it is, with whatever the chat template writes in place of a missing system prompt.
    """
    if not arm.prompted:
        return list(messages)
    own = [message["content"] for message in messages if message["role"] == "system"]
    rest = [message for message in messages if message["role"] != "system"]
    return [Message(role="system", content="\n\n".join([system_prompt, *own])), *rest]
