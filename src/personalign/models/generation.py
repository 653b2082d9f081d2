"""Answers from a model: a batch at once, or streamed token by token."""

from collections.abc import Iterator, Sequence
from threading import Event, Thread
from typing import Any

import torch

from personalign.conversation import Message, end_ids, prompt_ids


def _options(tokenizer: Any, max_new_tokens: int, temperature: float, top_p: float) -> dict[str, Any]:
    """Arguments of transformers' generate; everything else of the model's own generation config is overridden."""
    options: dict[str, Any] = {
        "max_new_tokens": max_new_tokens,
        "do_sample": temperature > 0,
        "eos_token_id": end_ids(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "temperature": None,
        "top_p": None,
        "top_k": None,
        "repetition_penalty": 1.0,
    }
    if temperature > 0:
        options |= {"temperature": temperature, "top_p": top_p, "top_k": 0}
    return options


@torch.no_grad()
def generate(
    model: Any,
    tokenizer: Any,
    conversations: Sequence[Sequence[Message]],
    *,
    max_new_tokens: int = 128,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
) -> list[str]:
    """One answer to each conversation (which ends in a user turn), greedy at temperature 0, in one left-padded batch."""
    prompts = [prompt_ids(tokenizer, list(messages)) for messages in conversations]
    longest = max(map(len, prompts))
    padding = [longest - len(ids) for ids in prompts]
    ids = torch.tensor([[tokenizer.pad_token_id] * n + p for n, p in zip(padding, prompts, strict=True)])
    mask = torch.tensor([[0] * n + [1] * len(p) for n, p in zip(padding, prompts, strict=True)])
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        out = model.generate(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            **_options(tokenizer, max_new_tokens, temperature, top_p),
        )
    return [text.strip() for text in tokenizer.batch_decode(out[:, longest:], skip_special_tokens=True)]


def stream(
    model: Any,
    tokenizer: Any,
    messages: Sequence[Message],
    *,
    max_new_tokens: int = 256,
    temperature: float = 0.7,
    top_p: float = 0.95,
    seed: int | None = None,
) -> Iterator[str]:
    """Pieces of text of one answer as they are made. Closing the iterator stops the generation."""
    from transformers import StoppingCriteria, StoppingCriteriaList, TextIteratorStreamer

    stopped = Event()

    class Stopped(StoppingCriteria):
        def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
            return torch.full((len(input_ids),), stopped.is_set(), device=input_ids.device)

    ids = torch.tensor([prompt_ids(tokenizer, list(messages))], device=model.device)
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
    failure: list[BaseException] = []

    def work() -> None:
        try:
            if seed is not None:
                torch.manual_seed(seed)
            with torch.no_grad():
                model.generate(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    streamer=streamer,
                    stopping_criteria=StoppingCriteriaList([Stopped()]),
                    **_options(tokenizer, max_new_tokens, temperature, top_p),
                )
        except BaseException as error:  # raised again in the reader's thread
            failure.append(error)
            streamer.end()

    thread = Thread(target=work, daemon=True)
    thread.start()
    try:
        for piece in streamer:
            if piece:
                yield piece
    finally:
        stopped.set()
        thread.join()
    if failure:
        raise failure[0]
