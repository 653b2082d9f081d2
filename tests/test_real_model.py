"""The embedded model itself: fetched once into the user's cache, then exact, trainable and able to talk."""

from pathlib import Path

import pytest
import torch

from personalign.conversation import answer_ids, prompt_ids
from personalign.datasets import type_pairs
from personalign.models import fingerprint, generate, load_model
from personalign.training.methods import Job, train_dpo
from personalign.training.settings import DpoSettings
from personalign.trees import logprobs, plain_logprobs, prompt_with_answers

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def smollm2():
    return load_model("smollm2", precision="fp32")


def test_it_answers(real_home, smollm2):
    (answer,) = generate(*smollm2, [[{"role": "user", "content": "What is the capital of France?"}]], max_new_tokens=12)
    assert "Paris" in answer


def test_trees_equal_the_plain_computation(real_home, smollm2):
    model, tokenizer = smollm2
    for pair in type_pairs("ENFP", "en", "held_out")[:3]:
        answers = [answer_ids(tokenizer, pair.prompt, text) for text in (pair.chosen, pair.rejected)]
        tree = prompt_with_answers(prompt_ids(tokenizer, pair.prompt), answers)
        (shared,) = logprobs(model, [tree])
        with torch.no_grad():
            plain = plain_logprobs(model, tree)
        for ours, theirs in zip(shared, plain, strict=True):
            assert torch.allclose(ours, theirs, atol=1e-3)


def test_dpo_learns_a_persona_from_the_bundled_data(real_home, smollm2, tmp_path: Path):
    model, tokenizer = load_model("smollm2")
    pairs = type_pairs("E", "en", "train")[:16]
    settings = DpoSettings(batch=8, epochs=3, learning_rate=5e-4, warmup=0)
    job = Job("E", pairs, [], settings, tmp_path)
    (done,) = train_dpo(model, tokenizer, [job], base=fingerprint("smollm2"), model_name="smollm2")
    assert done["shared_prompts"] and done["last"]["train"]["accuracy"] >= 0.75 and done["last"]["train"]["loss"] < 0.65
