"""A language model that says what a test wants it to say: `from scripted import Scripted, scripted_job`.

    client = Scripted(lambda request: '{"answer": "..."}' if "traits" in request.prompt else "no")
    with scripted_job(tmp_path, client, language="ko") as job:
        rows = make_something(job, Something(...), people)
    assert len(client.asked) == 3

What the function raises (Busy, Lost, UserError) is raised by the client.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from personalign.clients import Answer, Request, Usage, ledger
from personalign.synthesis import Job


class Scripted:
    """A client whose answers are a function of the request; a text stands for a whole answer with a plausible usage.

    It costs nothing, unless it is given the name of a model that does (`openai:gpt-4o-mini`).
    """

    def __init__(self, answers: Callable[[Request], str | Answer], name: str = "local:scripted") -> None:
        self.name, self.answers = name, answers
        self.asked: list[Request] = []

    async def ask(self, request: Request) -> Answer:
        self.asked.append(request)
        await asyncio.sleep(0)  # others get their turn, as with a server
        found = self.answers(request)
        if isinstance(found, Answer):
            return found
        read = sum(len(message["content"]) for message in request.messages) // 4 + 1
        return Answer(
            found, "end", Usage(read, min(request.max_tokens, len(found) // 4 + 1)), f"scripted-{len(self.asked)}"
        )

    async def close(self) -> None:
        pass


@contextmanager
def scripted_job(folder: Path, client: Scripted, *, budget_usd: float | None = None, **settings: Any) -> Iterator[Job]:
    """A job in this folder with a ledger of its own; `settings` are the Job's (language, seed, limits, ...)."""
    with ledger(folder, budget_usd=budget_usd) as book:
        yield Job(client, book, folder, **settings)


def said(request: Request) -> str:
    """The last thing that was said to the model: the user's own words in most prompts."""
    return request.messages[-1]["content"]


def standing_in(monkeypatch: Any, answers: Callable[[Request], str | Answer]) -> list[Request]:
    """Let commands and recipes ask a scripted model, whatever it is called; what it was asked for, by all of them."""
    found: list[Request] = []

    def client(name: str) -> Scripted:
        made = Scripted(answers, name)
        made.asked = found
        return made

    monkeypatch.setattr("personalign.making.client", client)
    return found
