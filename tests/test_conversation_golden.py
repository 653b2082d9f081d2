"""Chat templates of real models, rendered with a tokenizer of bytes, against the renderings of the real tokenizers."""

import json
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from personalign.conversation import conversation_sequences, prompt_ids, render
from tiny import byte_tokenizer

GOLDEN = Path(__file__).parent / "golden" / "conversation"
SHAPES = json.loads((GOLDEN / "shapes.json").read_text(encoding="utf-8"))
CASES = sorted(path.stem for path in GOLDEN.glob("*.json") if path.stem != "shapes")


def golden(case: str) -> dict:
    return json.loads((GOLDEN / f"{case}.json").read_text(encoding="utf-8"))


def stand_in(case: str) -> PreTrainedTokenizerFast:
    """A tokenizer of bytes with the template and the special tokens of the real one."""
    real = golden(case)["tokenizer"]
    template = real["template"] or (GOLDEN / "templates" / f"{case}.jinja").read_text(encoding="utf-8")
    return byte_tokenizer(template, real["bos"], real["eos"], real["special"], adds_bos=real["adds_bos"])


def test_every_family_has_goldens():
    llama, gemma, qwen = {"llama3", "llama3_2"}, {"gemma", "gemma3"}, {"qwen2_5", "qwen3"}
    assert set(CASES) == llama | gemma | qwen | {"smollm2", "chatml", "mistral_nemo", "plain-ko"}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("case", CASES)
def test_texts_and_counted_spans_are_those_of_the_real_tokenizer(case, shape):
    tokenizer, messages, expected = stand_in(case), SHAPES[shape], golden(case)["shapes"][shape]
    is_answered = messages[-1]["role"] == "assistant"
    before = messages[:-1] if is_answered else messages

    assert render(tokenizer, before, add_generation_prompt=True) == expected["prompt"]
    assert tokenizer.decode(prompt_ids(tokenizer, before)) == expected["prompt"]
    if is_answered:
        assert render(tokenizer, messages) == expected["text"]
        found = [
            {"text": tokenizer.decode(ids), "counted": counted_texts(tokenizer, ids, counts)}
            for ids, counts in conversation_sequences(tokenizer, messages)
        ]
        assert found == [{key: one[key] for key in ("text", "counted")} for one in expected["sequences"]]


def counted_texts(tokenizer: PreTrainedTokenizerFast, ids: list[int], counts: list[bool]) -> list[str]:
    """The runs of counted tokens, each as text."""
    runs: list[list[int]] = []
    for index, (token, count) in enumerate(zip(ids, counts, strict=True)):
        if count and (index == 0 or not counts[index - 1]):
            runs.append([])
        if count:
            runs[-1].append(token)
    return [tokenizer.decode(run) for run in runs]


ANSWERED = [shape for shape, messages in SHAPES.items() if messages[-1]["role"] == "assistant"]


@pytest.mark.parametrize("shape", ANSWERED)
@pytest.mark.parametrize(("bundled", "own"), [("llama3", "llama3_2"), ("gemma", "gemma3"), ("chatml", "qwen2_5")])
def test_bundled_templates_write_what_the_models_own_templates_write(bundled, own, shape):
    """From the first user message on: before it, Llama 3.2 writes dates and Qwen2.5 a system prompt of its own."""
    messages, real = SHAPES[shape], golden(own)["tokenizer"]
    tokenizer = byte_tokenizer(bundled, real["bos"], real["eos"], real["special"])
    first = next(message["content"].strip() for message in messages if message["role"] == "user")

    ours, theirs = render(tokenizer, messages), golden(own)["shapes"][shape]["text"]
    assert ours.partition(first)[1:] == theirs.partition(first)[1:]
