"""A model on this machine as a client: the embedded one, a folder, a hub id, with or without an adapter.

What is asked at the same time is answered in one batch; an answer does not depend on the others but for rounding.
"""

import asyncio
import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from personalign.clients.protocol import Answer, NoAnswer, Request, Usage, check_options
from personalign.errors import UserError
from personalign.files import file_hash

BATCH = 16  # requests answered together, as long as their keys and values fit
CACHE_TOKENS = 16_384


class _GivenUp(Exception):
    """Nobody waits for the answers any more."""


class Local:
    """`local:smollm2`, `local:path/to/model`; an adapter folder after a plus sign: `local:smollm2+runs/demo/train/adapter`.

    Of a folder, `name` says what is in it as well ("local:smollm2+runs/demo/train/adapter@1f3a5c7e"): once it is trained
    again it is another model, and the ledger's answers are not its own.
    """

    def __init__(self, name: str, model: str, adapter: str | None = None) -> None:
        self.written, self.model, self.adapter = name, model, adapter
        self._loaded: tuple[Any, Any] | None = None
        self._waiting: list[tuple[Request, asyncio.Future[Answer]]] = []
        self._worker: asyncio.Task[None] | None = None
        self._given_up = False

    @cached_property
    def name(self) -> str:
        """As users write it, and what is in the folders that it names."""
        folders = [each for each in (self.model, self.adapter) if each is not None and Path(each).is_dir()]
        return f"{self.written}@{_content(folders)}" if folders else self.written

    async def ask(self, request: Request) -> Answer:
        """See Client.ask. A schema is not enforced."""
        check_options(self.name, request.options, ())
        if request.top_p != 1:
            raise UserError(f"{self.name}: a local model samples from its whole distribution; leave top_p out.")
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, future))
        if self._worker is None or self._worker.done():
            self._given_up = False
            self._worker = asyncio.create_task(self._work())
        return await future

    async def close(self) -> None:
        """See Client.close. The model stays loaded; what is being written stops at the next token."""
        self._given_up = True
        self._waiting.clear()
        if self._worker is not None:
            self._worker.cancel()
            self._worker = None

    async def _work(self) -> None:
        while self._waiting:
            await asyncio.sleep(0.01)  # let all who are about to ask do so
            batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
            outcomes: Sequence[Answer | Exception]
            try:
                outcomes = await asyncio.to_thread(self._answers, [request for request, _ in batch])
            except Exception as error:
                outcomes = [error] * len(batch)
            for (_, future), outcome in zip(batch, outcomes, strict=True):
                if future.done():
                    continue
                if isinstance(outcome, Exception):
                    future.set_exception(outcome)
                else:
                    future.set_result(outcome)

    def _answers(self, requests: Sequence[Request]) -> list[Answer | Exception]:
        """To each request the answer, or why there is none: what is wrong with one does not concern the others.

        Raises UserError where the model cannot be loaded, or memory does not suffice.
        """
        import torch

        from personalign.conversation import end_ids, prompt_ids
        from personalign.models.rollout import rollouts

        model, tokenizer = self._load()
        room = model.config.get_text_config().max_position_embeddings
        found: dict[int, Answer | Exception] = {}
        prompts: dict[int, list[int]] = {}
        alike: dict[tuple[int, float], list[int]] = {}  # one call for those that are sampled alike
        for at, request in enumerate(requests):
            try:
                prompts[at] = prompt_ids(tokenizer, request.messages)
            except UserError as error:  # the template's control tokens in a text
                found[at] = NoAnswer(f"cannot be asked: {self.name}: {error}")
                continue
            most = min(request.max_tokens, room - len(prompts[at]))
            if most < 1:
                found[at] = NoAnswer(f"too long: {len(prompts[at])} tokens leave no room in {room} of {self.name}.")
            else:
                alike.setdefault((most, request.temperature), []).append(at)
        for (most, temperature), members in alike.items():
            try:
                made = rollouts(
                    model, [prompts[at] for at in members], 1, max_new_tokens=most, end_ids=end_ids(tokenizer),
                    pad_id=tokenizer.pad_token_id, temperature=temperature, cache_tokens=CACHE_TOKENS,
                    # an answer's random numbers are its request's own, whatever else is in the batch
                    numbers=[int(requests[at].hashed(self.name)[:12], 16) for at in members],
                )  # fmt: skip
            except torch.OutOfMemoryError:
                raise UserError(
                    f"{self.name}: the GPU has no memory for {len(members)} requests at once; set limits.concurrency "
                    f"below that (--limits-concurrency {len(members) // 2 or 1}), or ask a smaller model."
                ) from None
            for at, (rollout,) in zip(members, made, strict=True):
                text = str(tokenizer.decode(rollout.ids, skip_special_tokens=True)).strip()
                usage = Usage(len(prompts[at]), len(rollout.ids))
                found[at] = Answer(text, "end" if rollout.ended else "length", usage)
        return [found[at] for at in range(len(requests))]

    def _load(self) -> tuple[Any, Any]:
        if self._loaded is None:
            from personalign.models import load_adapter, load_model

            model, tokenizer = load_model(self.model)
            if self.adapter is not None:
                model = load_adapter(model, Path(self.adapter))
            model.register_forward_pre_hook(self._check)
            self._loaded = model.eval(), tokenizer
        return self._loaded

    def _check(self, *_: Any) -> None:
        if self._given_up:
            raise _GivenUp


def _content(folders: Sequence[str]) -> str:
    """Eight hex digits for the weights, configuration and tokenizer that lie in these folders."""
    paths = [path for folder in folders for path in sorted(Path(folder).iterdir())]
    wanted = [path for path in paths if path.suffix in {".safetensors", ".json", ".jinja", ".model"}]
    return hashlib.sha256("".join(path.name + file_hash(path) for path in wanted).encode()).hexdigest()[:8]
