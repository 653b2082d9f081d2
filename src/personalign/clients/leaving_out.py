"""Asking a model without what it does not take: schemas on some servers, temperatures where a model thinks first."""

import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from personalign.clients.protocol import Answer, NoAnswer

SCHEMA = "schema"


class LeavingOut:
    """What a model turned out not to take is left out from then on; said once, on stderr."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.parts: set[str] = set()

    async def ask(
        self, send: Callable[[dict[str, Any]], Awaitable[Answer]], whole: Mapping[str, Any], **parts: Mapping[str, Any]
    ) -> Answer:
        """Send `whole` and these parts of a request together; where it is turned away, without the part that is to blame.

        Raises NoAnswer where it is turned away for another reason.
        """
        left_out = set(self.parts)
        while True:
            body = dict(whole)
            for name, part in parts.items():
                if name not in left_out:
                    body |= part
            try:
                answer = await send(body)
            except NoAnswer as error:
                sent = {name: part for name, part in parts.items() if part and name not in left_out}
                blamed = to_blame(str(error), sent)
                if blamed is None:
                    raise
                left_out.add(blamed)
                continue
            for name in left_out - self.parts:
                print(f"{self.model}: takes no {name}; it is asked without", file=sys.stderr)
            self.parts |= left_out
            return answer


def to_blame(said: str, parts: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The part of a request whose fields the provider's message names; else the schema: every server words that otherwise."""
    named = (name for name, part in parts.items() if name != SCHEMA and any(field in said for field in part))
    return next(named, SCHEMA if SCHEMA in parts else None)
