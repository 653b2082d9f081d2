"""PPO on tiny random models: right before fast, still where there is nothing to gain, the same after a kill."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from personalign.conversation import end_ids, prompt_ids
from personalign.errors import UserError
from personalign.models import adapter_disabled, add_adapter, load_adapter, save_adapter, use_adapter
from personalign.training import loop
from personalign.training import ppo as iterations
from personalign.training import roles as rooms
from personalign.training.learner import Learner
from personalign.training.methods import Job, template_hash, trained
from personalign.training.objectives import ppo_policy_loss, ppo_value_loss
from personalign.training.parallel import Processes
from personalign.training.ppo import Ppo, draw
from personalign.training.rlhf import train_ppo
from personalign.training.roles import Roles, row_policy, row_values, through
from personalign.training.settings import LoraSettings, PpoSettings
from personalign.trees import pack, plain_hidden, plain_logprobs, prompt_with_answers
from tiny import ARCHITECTURES, byte_tokenizer, tiny_model

TOKENIZER = byte_tokenizer()
QUESTIONS = ["hi", "hello you", "what is it?", "who", "a, b, c or d?"]
MESSAGES = [[{"role": "user", "content": text}] for text in QUESTIONS]
PROMPTS = [prompt_ids(TOKENIZER, messages) for messages in MESSAGES]
LORA = LoraSettings(rank=4, alpha=8)


def settings(**changes: Any) -> PpoSettings:
    """Short answers that differ in length, two steps of each role a pass."""
    usual = {
        "lora": LORA, "steps": 4, "batch": 3, "answers": 3, "minibatch": 2, "max_new_tokens": 6, "warmup": 0,
        "learning_rate": 1e-3, "value_learning_rate": 1e-3, "checkpoint_every": 1, "ignore_memory": True, "kl_bound": None,
    }  # fmt: skip
    return PpoSettings(**(usual | changes))


def share(trees: Any) -> list[list[float]]:
    """The share of an answer's tokens that are of the vocabulary's first half: the best answer has no others."""
    answers = [[tree.nodes[node].ids for node in tree.counted] for tree in trees]
    return [[sum(token < 128 for token in answer) / len(answer) for answer in each] for each in answers]


def always(score: float) -> Any:
    return lambda trees: [[score for _ in tree.counted] for tree in trees]


def zero_head() -> torch.nn.Linear:
    head = torch.nn.Linear(32, 1, bias=False)
    torch.nn.init.zeros_(head.weight)
    return head


def a_run(own: PpoSettings, scores: Any = share, prompts: Any = PROMPTS, architecture: str = "llama") -> Any:
    """Fresh adapters on a tiny model; its Ppo and Learner."""
    model = tiny_model(architecture, len(TOKENIZER)).requires_grad_(False)
    for seed, name in enumerate(("policy", "value")):
        model = add_adapter(model, name=name, rank=4, alpha=8, seed=seed)
    roles = Roles("policy", None, "value", zero_head(), scores)
    ppo = Ppo(model, prompts, roles, own, end_ids=end_ids(TOKENIZER), pad_id=TOKENIZER.pad_token_id)
    learner = Learner(
        "policy",
        {"policy": trained(model, "policy"), "value": trained(model, "value", roles.value_head)},
        own,
        Path("unused"),
        "d",
        save=lambda folder: None,
        steps=own.steps,
        rates={"value": own.value_learning_rate},
    )
    return SimpleNamespace(model=model, ppo=ppo, learner=learner, roles=roles, processes=Processes(model))


def iterate(run: Any) -> list[dict[str, float]]:
    """All iterations; what each reports."""
    found = []
    while run.learner.active:
        found.append(run.ppo.iteration(run.learner, run.processes))
        run.learner.step += 1
    return found


def shake(model: Any) -> None:
    """Adapters that matter, as after some training."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if ".lora_B." in name:
                parameter.normal_(0, 0.1, generator=generator)


def snapshot(run: Any) -> list[torch.Tensor]:
    return [p.detach().clone() for group in run.learner.groups.values() for p in group.values()]


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


# ---- it finds what is best


def test_the_policy_reaches_the_best_answers() -> None:
    """With nothing to pay for leaving the reference, nearly every token is a good one; half of them are at the start."""
    own = settings(steps=30, batch=5, answers=8, minibatch=5, max_new_tokens=4, kl=0, missing_end_penalty=0,
                   learning_rate=1e-2, value_learning_rate=1e-2, row_tokens=2048, kl_stop=None)  # fmt: skip
    found = iterate(a_run(own))
    assert found[0]["score"] < 0.6
    assert sum(each["score"] for each in found[-5:]) / 5 > 0.95


def test_under_a_kl_penalty_the_policy_approaches_the_optimum_that_theory_gives() -> None:
    """For answers of one token the best policy is in proportion to reference * exp(score / coefficient)."""
    coefficient = 0.5
    own = settings(steps=35, batch=1, answers=64, minibatch=1, max_new_tokens=1, kl=coefficient, normalise_reward="off",
                   missing_end_penalty=0, learning_rate=2e-2, value_learning_rate=2e-2, schedule="linear", kl_stop=None,
                   row_tokens=4096, ppo_epochs=4)  # fmt: skip
    run = a_run(own, prompts=PROMPTS[:1])
    iterate(run)
    use_adapter(run.model, "policy")
    with torch.no_grad():
        policy = run.model(torch.tensor(PROMPTS[:1])).logits[0, -1].log_softmax(-1)
        with adapter_disabled(run.model):
            reference = run.model(torch.tensor(PROMPTS[:1])).logits[0, -1].log_softmax(-1)
    good = torch.arange(len(reference)) < 128
    best = (reference + good / coefficient).log_softmax(-1)

    def kl(one: torch.Tensor, other: torch.Tensor) -> float:
        return float((one.exp() * (one - other)).sum())

    assert kl(policy, best) < 0.5 * kl(reference, best)
    assert float(policy.exp()[good].sum()) == pytest.approx(float(best.exp()[good].sum()), abs=0.1)
    assert float(reference.exp()[good].sum()) < float(best.exp()[good].sum()) - 0.3


def test_a_larger_kl_coefficient_ends_nearer_to_the_reference() -> None:
    ends = []
    for coefficient in (0.0, 0.3, 2.0):
        own = settings(steps=12, batch=5, answers=6, minibatch=5, max_new_tokens=4, kl=coefficient,
                       missing_end_penalty=0, learning_rate=1e-2, row_tokens=2048, kl_stop=None)  # fmt: skip
        ends.append(sum(each["kl"] for each in iterate(a_run(own))[-4:]) / 4)
    assert ends[0] > 1.5 * ends[1] > 2 * ends[2] > 0


# ---- and stays where there is nothing to find


@pytest.mark.parametrize("coefficient", [0.0, 0.5])
@pytest.mark.parametrize("changes", [{}, {"normalise_reward": "off"}, {"whiten": False}], ids=str)
def test_a_reward_of_zero_leaves_every_weight_where_it_was(coefficient: float, changes: dict[str, Any]) -> None:
    """Bit for bit: rewards, values, advantages and gradients are exactly zero, and nothing blows that up to noise."""
    run = a_run(settings(kl=coefficient, missing_end_penalty=0, **changes), always(0))
    before = snapshot(run)
    for each in iterate(run):
        assert each["gradient_norm"] == each["value_gradient_norm"] == each["kl"] == 0
    assert same(snapshot(run), before)


def test_the_same_score_for_every_answer_leaves_every_weight_where_it_was() -> None:
    run = a_run(settings(missing_end_penalty=0), always(0.7))
    before = snapshot(run)
    iterate(run)
    assert same(snapshot(run), before)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_policy_that_is_the_reference_has_a_kl_of_exactly_0_and_first_ratios_of_exactly_1(architecture: str) -> None:
    """However the rows are packed."""
    for changes in ({"row_tokens": 60, "minibatch": 4}, {"row_tokens": 4096, "minibatch": 1}):
        run = a_run(settings(batch=4, **changes), architecture=architecture)
        answers = [[[7 * i % 256 + 1, 11, 13 + j] for j in range(2 + i % 3)] for i in range(4)]
        trees = [prompt_with_answers(prompt, each) for prompt, each in zip(PROMPTS, answers, strict=False)]
        old, reference, values = run.ppo._columns(0, trees, run.processes)
        assert torch.equal(old, reference) and (values == 0).all()
        shake(run.model)
        old, reference, _ = run.ppo._columns(0, trees, run.processes)
        assert not torch.equal(old, reference)
        rows = [row for members in run.ppo._minibatches(0, 0, 4) for row in run.ppo._rows(trees, members)]
        assert len(rows) > 1
        sizes = [sum(map(len, each)) for each in answers]
        for row, indices in rows:
            with through(run.model, "policy"):
                new = row_policy(run.model, row)
            assert new.requires_grad
            assert torch.equal(new.detach(), torch.cat([old.split(sizes)[index] for index in indices]))


def test_answers_are_scored_in_the_rows_that_they_are_first_learned_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the ratios would be 1 but for rounding: matrix products of other sizes may round otherwise."""
    seen: list[tuple[str, list[int]]] = []
    plain = iterations.row_policy

    def noted(model: Any, row: Any) -> torch.Tensor:
        seen.append(("learned" if torch.is_grad_enabled() else "scored", row.ids.tolist()))
        return plain(model, row)

    monkeypatch.setattr(iterations, "row_policy", noted)
    iterate(a_run(settings(batch=5, minibatch=2, steps=1, ppo_epochs=1, row_tokens=120)))
    scored, learned = ([ids for what, ids in seen if what == each] for each in ("scored", "learned"))
    assert scored[::2] == scored[1::2] == learned  # under policy and reference, then for the update
    assert len(learned) >= 3


# ---- each part against the plain computation


@pytest.fixture(params=[True, False], ids=["packed", "unshared"])
def packed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """With trees, and as for a model that they do not fit."""
    monkeypatch.setattr(rooms, "fits_trees", lambda model: request.param)
    return bool(request.param)


def test_log_probabilities_and_values_are_those_of_one_answer_after_another(packed: bool) -> None:
    run = a_run(settings())
    shake(run.model)
    head = torch.nn.Linear(32, 1, bias=False)
    trees = [prompt_with_answers(prompt, [[5, 6, 7, 8][: n + 1], [9, 1]]) for n, prompt in enumerate(PROMPTS[:3])]
    (row,) = pack(trees, 4096)
    for adapter in ("policy", "value", None):
        with torch.no_grad():
            with through(run.model, adapter):
                logprobs, values = row_policy(run.model, row), row_values(run.model, row, head)
            if adapter is None:
                with adapter_disabled(run.model):
                    plain = [plain_logprobs(run.model, tree) for tree in trees]
                    hidden = [part for tree in trees for part in plain_hidden(run.model, tree)]
            else:
                use_adapter(run.model, adapter)
                plain = [plain_logprobs(run.model, tree) for tree in trees]
                hidden = [part for tree in trees for part in plain_hidden(run.model, tree)]
        expected = torch.cat([part for parts in plain for part in parts])
        torch.testing.assert_close(logprobs, expected, rtol=0, atol=1e-4)
        # the value of a token is of the state before it: it has not been seen yet
        torch.testing.assert_close(values, torch.cat([head(part[:-1])[:, 0] for part in hidden]), rtol=0, atol=1e-5)


def test_gradients_of_an_update_are_those_of_the_formulas_on_unshared_sequences(
    packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first minibatch of an iteration, over several rows, against the same losses by transformers' own passes.

    The policy is taken to have moved since it wrote the answers, so that some ratios are cut.
    """
    run = a_run(settings(batch=4, minibatch=3, row_tokens=60, ppo_epochs=1, kl_stop=None))
    shake(run.model)
    torch.nn.init.normal_(run.roles.value_head.weight, generator=torch.Generator().manual_seed(0))
    seen: dict[str, Any] = {}
    made = run.ppo._experience

    def noted(*rest: Any) -> Any:
        found, figures = made(*rest)
        noise = torch.Generator().manual_seed(1)
        moved = [old + 0.3 * torch.randn(old.shape, generator=noise) for old in found.old]
        seen["experience"] = replace(found, old=moved)
        return seen["experience"], figures

    def noting(group: str) -> dict[str, float]:
        parameters = run.learner.groups[group]
        seen.setdefault(group, {name: p.grad.clone() for name, p in parameters.items()})
        for parameter in parameters.values():
            parameter.grad = None  # and no step: the second minibatch is of no interest
        return {"gradient_norm": 0.0}

    monkeypatch.setattr(run.ppo, "_experience", noted)
    monkeypatch.setattr(run.learner, "apply", noting)
    figures = run.ppo.iteration(run.learner, run.processes)
    assert 0.1 < figures["clip_fraction"] < 0.9
    experience, own = seen["experience"], run.ppo.settings
    members = run.ppo._minibatches(0, 0, 4)[0]
    assert not packed or len(run.ppo._rows(experience.trees, members)) > 1
    tokens = sum(len(experience.old[index]) for index in members)
    for index in members:
        use_adapter(run.model, "policy")
        logprobs = torch.cat(plain_logprobs(run.model, experience.trees[index]))
        ppo_policy_loss(
            logprobs, experience.old[index], experience.advantages[index], own.clip_policy, tokens
        ).backward()
        use_adapter(run.model, "value")
        states = torch.cat([part[:-1] for part in plain_hidden(run.model, experience.trees[index])])
        values = run.roles.value_head(states)[:, 0]
        ppo_value_loss(values, experience.values[index], experience.returns[index], own.clip_value, tokens).backward()
    for group, parameters in run.learner.groups.items():
        for name, parameter in parameters.items():
            torch.testing.assert_close(parameter.grad, seen[group][name], rtol=1e-3, atol=1e-5)
        assert any(gradient.abs().max() > 1e-3 for gradient in seen[group].values())


@pytest.mark.parametrize(
    "changes", [{"row_tokens": 60}, {"cache_tokens": 1}, {"gradient_checkpointing": True}], ids=str
)
def test_what_saves_memory_does_not_change_the_run(changes: dict[str, Any]) -> None:
    plain, other = a_run(settings(steps=2)), a_run(settings(steps=2, **changes))
    if "gradient_checkpointing" in changes:
        other.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    for one, two in zip(iterate(plain), iterate(other), strict=True):
        for name in one.keys() - {"tokens_per_second", "rollout_tokens_per_second"}:
            assert two[name] == pytest.approx(one[name], rel=1e-3, abs=1e-4), name


# ---- the course of an iteration


def test_an_iteration_ends_where_the_policy_has_moved_too_far() -> None:
    many = {"ppo_epochs": 4, "batch": 4, "minibatch": 2, "learning_rate": 1e-2, "steps": 1}
    (free,) = iterate(a_run(settings(kl_stop=None, **many)))
    (stopped,) = iterate(a_run(settings(kl_stop=1e-9, **many)))
    assert free["updates"] == 8 and stopped["updates"] == 1  # the first step moves it, no second one follows
    assert stopped["update_kl"] == 0 < free["update_kl"]


def test_an_adaptive_coefficient_rises_where_the_kl_is_over_its_target_and_falls_below() -> None:
    for target, rises in ((1e-6, True), (1e6, False)):
        found = iterate(a_run(settings(kl_target=target, learning_rate=1e-2)))
        first, *_, last = (each["kl_coefficient"] for each in found)
        assert first == 0.05 and (last > first if rises else last < first)


def test_the_missing_end_is_paid_for() -> None:
    """Scores alike, answers of one token: those that are no end token lose, and the end token becomes likelier."""
    own = settings(steps=25, batch=5, answers=16, minibatch=5, max_new_tokens=1, kl=0, learning_rate=1e-2,
                   row_tokens=4096, kl_stop=None)  # fmt: skip
    run = a_run(own, always(0))
    run.ppo.end_ids = list(range(128))  # half of what it writes
    found = iterate(run)
    assert found[0]["ended"] < 0.75 and sum(each["ended"] for each in found[-5:]) / 5 > 0.8
    assert all(each["score"] == 0 and each["length"] == 1 for each in found)


def test_prompts_are_drawn_pass_after_pass() -> None:
    own = settings(batch=4)
    drawn = [index for step in range(7) for index in draw(7, own, step)]
    passes = [drawn[at : at + 7] for at in range(0, 28, 7)]
    assert all(sorted(each) == list(range(7)) for each in passes)
    assert len({tuple(each) for each in passes}) > 1
    assert draw(7, own, 5) == drawn[20:24]  # from the step alone
    assert draw(7, settings(batch=4, seed=1), 0) != draw(7, own, 0)
    assert draw(3, settings(batch=4, shuffle=False), 1) == [1, 2, 0, 1]


def test_every_pass_over_an_iteration_takes_every_prompt_once() -> None:
    ppo = a_run(settings(minibatch=2)).ppo
    passes = [ppo._minibatches(step, epoch, 5) for step in (0, 1) for epoch in (0, 1)]
    for each in passes:
        assert [len(members) for members in each] == [2, 2, 1]
        assert sorted(index for members in each for index in members) == list(range(5))
    assert len({str(each) for each in passes}) > 1


# ---- as a method: folders, checkpoints, refusals


def reward_model(folder: Path, base: str = "tiny", head: bool = True) -> Path:
    """A reward model's folder, with weights as if it had been trained."""
    model = add_adapter(
        tiny_model("llama", len(TOKENIZER)).requires_grad_(False), name="reward", rank=4, alpha=8, seed=7
    )
    shake(model)
    score = torch.nn.Linear(32, 1, bias=False)
    torch.nn.init.normal_(score.weight, generator=torch.Generator().manual_seed(7))
    origin = {"base": base, "template": template_hash(TOKENIZER), "method": "reward"}
    save_adapter(model, folder, "reward", head=score if head else None, origin=origin)
    return folder


def learn(folder: Path, reward: Path, own: PpoSettings | None = None, prompts: Any = MESSAGES) -> dict[str, Any]:
    model = tiny_model("llama", len(TOKENIZER)).requires_grad_(False)
    return train_ppo(model, TOKENIZER, Job("one", prompts, [], own or settings(), folder), reward, base="tiny")


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter" / "adapter_model.safetensors")


def test_a_reward_model_is_climbed(tmp_path: Path) -> None:
    """Four adapters on one base: the score rises, KL is paid, and the policy alone is written, to be loaded as any."""
    own = settings(steps=20, batch=5, answers=6, learning_rate=1e-2, value_learning_rate=1e-2, kl=0.01)
    summary = learn(tmp_path / "run", reward_model(tmp_path / "reward"), own)
    found = lines(tmp_path / "run")
    assert summary["method"] == "ppo" and summary["steps"] == 20 and summary["examples"] == 5
    means = [sum(row["score"] for row in part) / 4 for part in (found[:4], found[-4:])]
    assert means[1] > means[0] + 1
    assert found[0]["kl"] == 0 < found[-1]["kl"]
    assert found[0]["explained_variance"] == 0  # at first the value model says nothing
    model = load_adapter(tiny_model("llama", len(TOKENIZER)), tmp_path / "run" / "adapter")
    assert not any("score" in name for name in weights(tmp_path / "run"))
    assert model.peft_config["default"].task_type == "CAUSAL_LM"


class Killed(Exception):
    """Stands for the process's death: nothing after it runs."""


@pytest.mark.parametrize("at", [1, 3])
def test_a_run_that_was_stopped_ends_in_the_same_weights_bit_for_bit(
    tmp_path: Path, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both roles, both optimisers, the adaptive coefficient and the running moments of the scores."""
    reward, own = reward_model(tmp_path / "reward"), settings(kl_target=0.1)
    learn(tmp_path / "whole", reward, own)
    plain = Ppo.iteration

    def dying(ppo: Ppo, learner: Learner, processes: Processes) -> dict[str, float]:
        if learner.step == at:
            raise Killed
        return plain(ppo, learner, processes)

    monkeypatch.setattr(Ppo, "iteration", dying)
    with pytest.raises(Killed):
        learn(tmp_path / "cut", reward, own)
    monkeypatch.undo()
    torch.rand(17)  # whatever else drew random numbers meanwhile
    learn(tmp_path / "cut", reward, own)
    whole, cut = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    timed = {"tokens_per_second", "rollout_tokens_per_second"}
    found = [
        [{k: v for k, v in row.items() if k not in timed} for row in lines(tmp_path / n)] for n in ("whole", "cut")
    ]
    assert found[0] == found[1] and len(found[0]) == 4
    assert len({row["kl_coefficient"] for row in found[0]}) > 1


def test_the_adapter_to_go_on_from_is_the_reference_too(tmp_path: Path) -> None:
    start = reward_model(tmp_path / "start", head=False)  # any adapter
    reward = reward_model(tmp_path / "reward")
    still = settings(start=str(start), learning_rate=1e-12, value_learning_rate=1e-12, steps=1)
    learn(tmp_path / "run", reward, still)
    assert lines(tmp_path / "run")[0]["kl"] == 0
    begun, ended = load_file(start / "adapter_model.safetensors"), weights(tmp_path / "run")
    for name, weight in begun.items():
        torch.testing.assert_close(ended[name], weight, rtol=0, atol=1e-9)


def test_beyond_its_kl_bound_the_run_ends_with_the_adapter_that_it_has(tmp_path: Path) -> None:
    reward = reward_model(tmp_path / "reward")
    own = settings(steps=6, learning_rate=0.05, kl=0.0, kl_stop=None, kl_bound=0.5, batch=4, minibatch=2)
    summary = learn(tmp_path / "run", reward, own)
    kls = [line["kl"] for line in lines(tmp_path / "run")]
    assert summary["steps"] == len(kls) < 6 and "over kl_bound 0.5" in summary["stopped_early"]
    assert kls[-1] > 0.5 and all(kl <= 0.5 for kl in kls[:-1]) and "policy_loss" not in lines(tmp_path / "run")[-1]
    assert weights(tmp_path / "run")


def test_a_finished_run_is_not_run_again_and_another_reward_model_is_another_run(tmp_path: Path) -> None:
    reward, own = reward_model(tmp_path / "reward"), settings(steps=1)
    first = learn(tmp_path / "run", reward, own)
    assert learn(tmp_path / "run", reward, own)["seconds"] == first["seconds"]
    assert learn(tmp_path / "run", reward, settings(steps=1, ignore_gate=True))["digest"] == first["digest"]
    path = reward / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    assert learn(tmp_path / "run", reward, own)["digest"] != first["digest"]


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
import torch
torch.set_num_threads(1)
from pathlib import Path
from test_ppo import SHARED, learn
learn(Path(sys.argv[1]), Path(sys.argv[2]), SHARED)
"""
# plain SGD, for AdamW would blow the rounding of sums up
SHARED = settings(steps=3, batch=5, optimizer="sgd", learning_rate=0.1, value_learning_rate=0.1, row_tokens=60)


def test_two_processes_share_the_work_and_end_in_the_weights_of_one(tmp_path: Path) -> None:
    """`accelerate launch` with DDP (gloo): prompts, scores and rows are shared out; five prompts, so not evenly."""
    reward = reward_model(tmp_path / "reward")
    learn(tmp_path / "one", reward, SHARED)
    script = tmp_path / "two.py"
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parent)), encoding="utf-8")
    launch = "-m accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no"
    launch += " --dynamo_backend no --main_process_port 0"
    environment = {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, *launch.split(), str(script), str(tmp_path / "two"), str(reward)],
        capture_output=True, text=True, env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=0, atol=1e-5)
    assert any(two[name].abs().max() > 1e-3 for name in two if "lora_B" in name)  # it has learned something
    for ours, theirs in zip(lines(tmp_path / "two"), lines(tmp_path / "one"), strict=True):
        for name in ("score", "kl", "policy_loss", "value_loss", "update_kl", "entropy", "length"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-3, abs=1e-4), name


def test_a_sharded_base_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Sharded(Processes):
        def __init__(self, *rest: Any):
            super().__init__(*rest)
            self.sharded = True

    monkeypatch.setattr(loop, "Processes", Sharded)
    with pytest.raises(UserError, match="launch with DDP"):
        learn(tmp_path / "run", reward_model(tmp_path / "reward"))


def test_refusals_are_one_sentence(tmp_path: Path) -> None:
    reward = reward_model(tmp_path / "reward")
    with pytest.raises(UserError, match="no prompts"):
        learn(tmp_path / "run", reward, prompts=[])
    with pytest.raises(UserError, match="no reward model there"):
        learn(tmp_path / "run", reward_model(tmp_path / "plain", head=False))
    with pytest.raises(UserError, match="another base"):
        learn(tmp_path / "run", reward_model(tmp_path / "other", base="someone else's"))
    with pytest.raises(UserError, match="no room"):
        learn(tmp_path / "run", reward, settings(max_length=20))
    with pytest.raises(UserError, match="1 of 6 prompts leave no room"):
        long = [*MESSAGES, [{"role": "user", "content": "long " * 40}]]
        learn(tmp_path / "run", reward, settings(max_length=100, too_long="refuse"), long)
    assert learn(tmp_path / "run", reward, settings(max_length=100, steps=1), long)["dropped"] == 1
