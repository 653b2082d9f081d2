"""Answers with a form: JSON, checked, and asked for once more where it is wrong."""

from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from personalign.clients.protocol import NoAnswer, Request
from personalign.clients.session import Session
from personalign.clients.tolerant import loads
from personalign.conversation import Message

M = TypeVar("M", bound=BaseModel)
AGAIN = {
    "en": "That is not in the form I asked for: {error}. Answer again with the whole JSON alone, nothing before or after it.",
    "ko": "요청한 형식이 아닙니다: {error}. 앞뒤에 아무것도 붙이지 말고 JSON 전체만 다시 답하세요.",
}
WITHHELD = "withheld by the provider's content filter"


@dataclass(frozen=True)
class Formed(Generic[M]):
    """What came of a request: the value, or why there is none; and the ids of the ledger's rows that it took."""

    value: M | None
    reason: str | None
    requests: tuple[int, ...]
    text: str


async def ask_for(session: Session, request: Request, form: type[M], language: str = "en") -> Formed[M]:
    """Ask for an answer of this form (also as the provider's JSON schema), and once more with the error if it is another.

    Never raises for an answer that is wrong or a request that gets none: it comes back with its reason.
    """
    request = replace(request, schema=strict(form.model_json_schema()))
    try:
        kept = await session.ask(request)
    except NoAnswer as why:
        return Formed(None, str(why), why.requests, "")
    used: tuple[int, ...] = (kept.id,)
    text = kept.answer.text
    if kept.answer.finish == "filter":
        return Formed(None, WITHHELD, used, text)
    value, error = formed(text, form)
    if value is not None:
        return Formed(value, None, used, text)
    if kept.answer.finish == "length":
        return Formed(None, f"cut off at {request.max_tokens} tokens", used, text)
    repair: list[Message] = [
        *request.messages,
        {"role": "assistant", "content": text.strip() or "-"},
        {"role": "user", "content": AGAIN[language].format(error=error)},
    ]
    try:
        again = await session.ask(replace(request, messages=tuple(repair), prompt=f"{request.prompt}+repair"))
    except NoAnswer as why:
        return Formed(None, f"not in form: {error}; then {why}", (*used, *why.requests), text)
    used, text = (*used, again.id), again.answer.text
    if again.answer.finish == "filter":
        return Formed(None, WITHHELD, used, text)
    value, second = formed(text, form)
    return Formed(value, None if value is not None else f"twice not in form: {error}; then {second}", used, text)


def formed(text: str, form: type[M]) -> tuple[M | None, str]:
    """The value in a text, or None and what is wrong with it in a sentence without the text itself."""
    try:
        found = loads(text)
    except ValueError as error:
        return None, f"no JSON ({error})"
    if isinstance(found, list) and len(form.model_fields) == 1:  # the list alone in place of {"items": [...]}
        found = {next(iter(form.model_fields)): found}
    try:
        return form.model_validate(found), ""
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        return None, f"{'.'.join(map(str, first['loc'])) or 'the whole'}: {first['msg']}"


def strict(schema: dict[str, Any]) -> dict[str, Any]:
    """A JSON schema as providers' strict modes want it: every object closed, every property required."""

    def close(node: Any) -> Any:
        if isinstance(node, list):
            return [close(each) for each in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:  # nothing may stand beside it
            return {"$ref": node["$ref"]}
        found = {
            key: close(value) for key, value in node.items() if key not in ("title", "default", "properties", "$defs")
        }
        for key in ("properties", "$defs"):  # what stands in these are names, though they read "title"
            if key in node:
                found[key] = {name: close(each) for name, each in node[key].items()}
        if "properties" in node:
            found |= {"additionalProperties": False, "required": list(node["properties"])}
        return found

    closed: dict[str, Any] = close(schema)
    return closed
