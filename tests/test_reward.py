"""The reward model: its head is trained, saved and loaded, in a form that transformers reads as a reward model."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from personalign.conversation import answer_ids, prompt_ids
from personalign.datasets import Ranking
from personalign.errors import UserError
from personalign.models import check_origin, load_adapter, load_head
from personalign.training import loop
from personalign.training.examples import ranking_trees
from personalign.training.methods import Job, template_hash, train_reward
from personalign.training.rewards import rewards_of
from personalign.training.settings import LoraSettings, RewardSettings
from test_training import TOKENIZER, WORDS, bare
from tiny import tiny_model

SETTINGS = RewardSettings(
    lora=LoraSettings(rank=4, alpha=8), epochs=6, batch=3, learning_rate=5e-3, row_tokens=256, checkpoint_every=2
)


def rankings(count: int = 6) -> list[Ranking]:
    """Three answers each, the kindest first."""
    return [
        Ranking(
            [{"role": "user", "content": f"What about {WORDS[i % 8]}?"}],
            ["No!", f"I love {WORDS[(i + 1) % 8]}.", "Hm, well."],
            [3, 1, 2],
            f"r:{i}",
        )
        for i in range(count)
    ]


def train(folder: Path, **changes: Any) -> dict[str, Any]:
    job = Job("kind", rankings(), rankings(2), SETTINGS.model_copy(update=changes), folder)
    return train_reward(bare(), TOKENIZER, [job], base="tiny", model_name="tiny-llama")[0]


def test_it_learns_the_ranking_and_its_head_with_it(tmp_path: Path) -> None:
    summary = train(tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    losses = [line["loss"] for line in lines if line["split"] == "train"]
    assert losses[-1] < losses[0] - 0.3 and summary["last"]["held_out"]["accuracy"] == 1.0
    fresh = train(tmp_path / "untrained", max_steps=1, learning_rate=1e-12)
    assert fresh["steps"] == 1
    trained, start = load_head(tmp_path / "adapter"), load_head(tmp_path / "untrained" / "adapter")
    assert trained is not None and start is not None
    assert float((trained.weight - start.weight).detach().abs().max()) > 1e-3  # the head is not left where it began


def test_transformers_and_peft_read_it_as_the_reward_model_that_it_is(tmp_path: Path) -> None:
    train(tmp_path / "run")
    tiny_model("llama", len(TOKENIZER)).save_pretrained(tmp_path / "base")
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=1)
    theirs.config.pad_token_id = TOKENIZER.pad_token_id
    theirs = PeftModel.from_pretrained(theirs, str(tmp_path / "run" / "adapter")).eval()
    model = load_adapter(bare(), tmp_path / "run" / "adapter", name="reward")
    head = load_head(tmp_path / "run" / "adapter")
    assert head is not None
    held = rankings(2)
    trees, _ = ranking_trees(TOKENIZER, held, 200, "drop")
    ours = rewards_of(model, trees, "reward", head, 100)
    for ranking, rewards in zip(held, ours, strict=True):
        prompt = prompt_ids(TOKENIZER, ranking.prompt)
        for text, reward in zip((ranking.completions[i] for i in (1, 2, 0)), rewards, strict=True):
            ids = prompt + answer_ids(TOKENIZER, ranking.prompt, text)
            with torch.no_grad():
                assert theirs(torch.tensor([ids])).logits.item() == pytest.approx(reward, abs=1e-4)


def test_a_group_is_scored_in_one_tree_and_equals_its_answers_scored_alone(tmp_path: Path) -> None:
    train(tmp_path)
    model = load_adapter(bare(), tmp_path / "adapter", name="reward")
    head = load_head(tmp_path / "adapter")
    assert head is not None
    trees, _ = ranking_trees(TOKENIZER, rankings(3), 200, "drop")
    together = rewards_of(model, trees, "reward", head, 1000)
    one_by_one = rewards_of(model, trees, "reward", head, 16)
    for a, b in zip(together, one_by_one, strict=True):
        assert a == pytest.approx(b, abs=1e-5)


def test_where_trees_do_not_fit_the_rewards_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path / "shared", max_steps=2)
    monkeypatch.setattr(loop, "fits_trees", lambda model: False)
    monkeypatch.setattr("personalign.training.rewards.fits_trees", lambda model: False)
    train(tmp_path / "plain", max_steps=2)
    a, b = (load_file(tmp_path / name / "adapter" / "adapter_model.safetensors") for name in ("shared", "plain"))
    assert all(torch.allclose(a[name], b[name], atol=1e-3) for name in a)


def test_it_resumes_bit_for_bit_head_included(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from test_training import Killed, dies_at

    train(tmp_path / "whole")
    dies_at(5, monkeypatch)
    with pytest.raises(Killed):
        train(tmp_path / "cut")
    monkeypatch.undo()
    train(tmp_path / "cut")
    a, b = (load_file(tmp_path / name / "adapter" / "adapter_model.safetensors") for name in ("whole", "cut"))
    assert "base_model.model.score.weight" in a and all(torch.equal(a[name], b[name]) for name in a)


def test_it_says_on_which_base_and_under_which_template_it_was_trained(tmp_path: Path) -> None:
    train(tmp_path, max_steps=1)
    template = template_hash(TOKENIZER)
    check_origin(tmp_path / "adapter", "tiny", template)
    with pytest.raises(UserError, match=r"trained on another base \(tiny-llama\); give that one as the model"):
        check_origin(tmp_path / "adapter", "another", template)
    with pytest.raises(UserError, match="trained under another chat template"):
        check_origin(tmp_path / "adapter", "tiny", "another")


def test_an_ordinary_adapter_has_no_head(tmp_path: Path) -> None:
    from test_training import dpo

    dpo(tmp_path)
    assert load_head(tmp_path / "adapter") is None
