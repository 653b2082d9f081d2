"""What is measured of reward models and of PPO's answers is what plain forward passes give."""

import copy

import pytest
import torch

from personalign.conversation import answer_ids, end_ids, prompt_ids
from personalign.datasets import Ranking
from personalign.errors import UserError
from personalign.evaluation.compare import before_after_rows
from personalign.evaluation.gate import read_gate
from personalign.evaluation.judge import judge
from personalign.models import adapter_parameters, add_adapter, load_adapter, save_adapter
from personalign.models.rollout import rollouts
from tiny import byte_tokenizer, tiny_model

TOKENIZER = byte_tokenizer("chatml")
PROMPTS = [[{"role": "user", "content": text}] for text in ("Tea?", "What now?", "Where to, and why?")]
LIMITS = {"max_new_tokens": 7, "max_length": 200, "row_tokens": 64}


@pytest.fixture(scope="module")
def base():
    return tiny_model("llama", len(TOKENIZER))


@pytest.fixture(scope="module")
def folders(base, tmp_path_factory):
    """Adapters that each do something else, the reward model's with a head."""
    found = {}
    head = torch.nn.Linear(32, 1, bias=False)
    for seed, name in enumerate(("policy", "reference", "reward")):
        model = add_adapter(copy.deepcopy(base), rank=4, seed=seed)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for path, parameter in adapter_parameters(model).items():
                if "lora_B" in path:
                    parameter.normal_(0, 0.2, generator=generator)
        found[name] = tmp_path_factory.mktemp(name)
        save_adapter(model, found[name], head=head if name == "reward" else None)
    return found | {"head": head}


def forward(base, folder, ids):
    """Final hidden states [tokens, width] and log-probabilities of tokens 1.. [tokens - 1], plainly."""
    model = load_adapter(copy.deepcopy(base), folder) if folder is not None else base
    with torch.no_grad():
        found = model(torch.tensor([ids]), output_hidden_states=True)
    logprobs = found.logits[0, :-1].log_softmax(-1).gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
    return found.hidden_states[-1][0], logprobs


@pytest.mark.parametrize("started", [True, False])
def test_rewards_kl_and_perplexity_are_those_of_plain_forward_passes(base, folders, started):
    reference = folders["reference"] if started else None
    rows = before_after_rows(
        copy.deepcopy(base), TOKENIZER, PROMPTS, policy=folders["policy"], reference=reference,
        reward=folders["reward"], seed=3, **LIMITS,
    )  # fmt: skip
    asked = [prompt_ids(TOKENIZER, prompt) for prompt in PROMPTS]
    for side, folder in (("before", reference), ("after", folders["policy"])):
        model = load_adapter(copy.deepcopy(base), folder) if folder is not None else base
        answers = rollouts(
            model, asked, 1, max_new_tokens=7, end_ids=end_ids(TOKENIZER), pad_id=TOKENIZER.pad_token_id, seed=3
        )
        for row, prompt, (answer,) in zip(rows, asked, answers, strict=True):
            ids, start = prompt + answer.ids, len(prompt) - 1
            assert row[f"tokens_{side}"] == len(answer.ids) and row[f"ended_{side}"] == answer.ended
            assert row[side] == TOKENIZER.decode(answer.ids, skip_special_tokens=True).strip()
            hidden, _ = forward(base, folders["reward"], ids)
            assert row[f"reward_{side}"] == pytest.approx(float(folders["head"](hidden[-1]).detach()), abs=1e-4)
            _, plain = forward(base, None, ids)
            assert row[f"perplexity_{side}"] == pytest.approx(float((-plain[start:].mean()).exp()), rel=1e-4)
            if side == "after":
                difference = forward(base, reference, ids)[1][start:] - forward(base, folders["policy"], ids)[1][start:]
                assert row["kl"] == pytest.approx(float((difference.exp() - 1 - difference).sum()), rel=1e-3)
    assert [row["before"] for row in rows] != [row["after"] for row in rows]


def test_a_policy_that_is_its_reference_has_not_moved(base, folders):
    rows = before_after_rows(
        copy.deepcopy(base), TOKENIZER, PROMPTS, policy=folders["policy"], reference=folders["policy"],
        reward=folders["reward"], **LIMITS,
    )  # fmt: skip
    assert all(row["kl"] == 0 and row["before"] == row["after"] for row in rows)
    assert all(row["reward_before"] == pytest.approx(row["reward_after"], abs=1e-5) for row in rows)


def test_a_prompt_without_room_for_an_answer_is_left_out(base, folders):
    rows = before_after_rows(
        copy.deepcopy(base), TOKENIZER, PROMPTS, policy=folders["policy"], reference=None, reward=folders["reward"],
        **LIMITS | {"max_length": len(prompt_ids(TOKENIZER, PROMPTS[1])) + 7},
    )  # fmt: skip
    assert [row["prompt"] for row in rows] == ["Tea?", "What now?"]


def test_a_gate_sees_the_rewards_and_lengths_of_every_pair(base, folders):
    rankings = [Ranking(prompt, ["No.", "Gladly, yes!"], [1, 0], "x:1") for prompt in PROMPTS]
    gate = judge(copy.deepcopy(base), TOKENIZER, folders["reward"], rankings, max_length=200, row_tokens=64)
    assert gate.items() <= read_gate(folders["reward"]).items() and (gate["pairs"], gate["prompts"]) == (3, 3)
    for prompt, point in zip(PROMPTS, gate["points"], strict=True):
        for text, tokens, reward in (("Gladly, yes!", *point[:2]), ("No.", *point[2:])):
            answer = answer_ids(TOKENIZER, prompt, text)
            hidden, _ = forward(base, folders["reward"], prompt_ids(TOKENIZER, prompt) + answer)
            assert tokens == len(answer) and reward == pytest.approx(
                float(folders["head"](hidden[-1]).detach()), abs=1e-4
            )


def test_an_adapter_without_a_head_is_no_reward_model(base, folders):
    with pytest.raises(UserError, match="no reward model there"):
        judge(copy.deepcopy(base), TOKENIZER, folders["policy"], [], max_length=200, row_tokens=64)
