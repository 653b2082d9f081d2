"""What a conversation is, and when a list of messages is one."""

from collections.abc import Sequence
from typing import Literal, TypedDict

from personalign.errors import UserError

Role = Literal["system", "user", "assistant"]


class Message(TypedDict):
    """One message, in the form that `messages` files and chat templates use."""

    role: Role
    content: str


def validate(messages: Sequence[Message]) -> None:
    """Check that these messages are a conversation: at most one system prompt, first; then user and assistant in turn.

    Raises UserError naming the first message that is wrong, counted from 1.
    """
    if not messages:
        raise UserError("The conversation has no messages: it needs at least one from the user.")
    system = 0
    for position, message in enumerate(messages, 1):
        role = message.get("role") if isinstance(message, dict) else None
        if role not in ("system", "user", "assistant"):
            raise UserError(f"Message {position} has the role {role!r}: it must be system, user or assistant.")
        content = message.get("content")
        if not isinstance(content, str):
            raise UserError(f"{name(position, role)} has no text: its content must be a string.")
        if not content.strip():
            raise UserError(f"{name(position, role)} is empty: give it a text or remove it.")
        if role == "system":
            if position > 1:
                raise UserError(f"{name(position, role)} comes too late: a system prompt must be the first message.")
            system = 1
        elif role != ("user" if (position - system) % 2 else "assistant"):
            raise UserError(
                f"{name(position, role)} is out of turn: after the system prompt, if any, "
                "user and assistant must alternate and the user begins."
            )
    if len(messages) == system:
        raise UserError("The conversation has only a system prompt: it needs at least one message from the user.")


def name(position: int, role: str) -> str:
    """How errors name a message: "Message 2 (user)"."""
    return f"Message {position} ({role})"


def fold_system(messages: Sequence[Message]) -> list[Message]:
    """The same conversation with its system prompt, if any, set before the first user message, a blank line between.

    It is what Gemma's documentation asks for: its format has no system role.
    """
    if messages[0]["role"] != "system":
        return list(messages)
    system, user, *rest = messages
    return [Message(role="user", content=system["content"] + "\n\n" + user["content"]), *rest]
