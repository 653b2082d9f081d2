"""Errors of the keys that a user wrote, raised where pydantic joins them; the loader adds file and line."""

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import PydanticCustomError

from personalign.errors import UserError


class Strict(BaseModel):
    """A part of a recipe: no unknown keys, never changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def refusal(why: str, *location: str | int) -> ValidationError:
    """An error of the key at `location`, seen from the key that is being validated."""
    kind = PydanticCustomError("refused", "{why}", {"why": why.rstrip(".")})
    return ValidationError.from_exception_data("recipe", [{"type": kind, "loc": location, "input": None}])


def checked(call: Any, *arguments: Any) -> Any:
    """Call a function that raises UserError, and make it an error of the key being validated."""
    try:
        return call(*arguments)
    except UserError as error:
        raise refusal(str(error)) from None
