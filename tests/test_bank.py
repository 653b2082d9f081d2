"""Many adapters in one pass: K trained together are K trained alone, whatever their data, schedules and dropout."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from personalign.datasets import Conversation, Pair
from personalign.models import Part, adapter_disabled, add_adapter, load_adapter, routed, use_adapter
from personalign.training import loop, reference
from personalign.training.methods import Job, train_dpo, train_sft
from personalign.training.settings import DpoSettings, LoraSettings, SftSettings
from personalign.trees import logprobs, pack, prompt_with_answers, row_logprobs, rows_logprobs
from test_training import TOKENIZER, WORDS, Killed, bare, dies_at
from tiny import ARCHITECTURES, tiny_model

PERSONAS = {"calm": 5, "loud": 8, "curt": 3}  # name -> rows: they finish their epochs at different steps


# several rows a step, so that two processes share each adapter's step (test_processes.py)
CHANGES: dict[str, Any] = {
    "optimizer": "sgd", "learning_rate": 0.1, "dropout": 0.2, "max_steps": 8, "batch": 3, "row_tokens": 32, "checkpoint_every": 2,
}  # fmt: skip


def own_pairs(name: str, count: int) -> list[Pair]:
    """Pairs in which the personas share prompts and answers: what one chooses another rejects."""
    turn = list(PERSONAS).index(name)
    pairs = []
    for i in range(count):
        answers = [f"I like {WORDS[(i + at) % 8]}." for at in (1, 2)]
        chosen, rejected = answers[:: 1 if (turn + i * (turn // 2)) % 2 else -1]
        pairs.append(
            Pair([{"role": "user", "content": f"What about {WORDS[i % 8]}?"}], chosen, rejected, f"{name}:{i}")
        )
    return pairs


def settings(**changes: Any) -> DpoSettings:
    lora = LoraSettings(rank=4, alpha=8, dropout=changes.pop("dropout", 0.0))
    return DpoSettings(
        **{
            "lora": lora,
            "epochs": 100,
            "max_steps": 20,
            "batch": 2,
            "learning_rate": 5e-3,
            "row_tokens": 256,
            **changes,
        }
    )


def jobs(folder: Path, **changes: Any) -> list[Job]:
    return [
        Job(name, own_pairs(name, count), own_pairs(name, 2), settings(seed=seed, **changes), folder / name)
        for seed, (name, count) in enumerate(PERSONAS.items())
    ]


def train(jobs: list[Job], architecture: str = "llama") -> list[dict[str, Any]]:
    return train_dpo(bare(architecture), TOKENIZER, jobs, base=architecture)


def adapter(job: Job) -> dict[str, torch.Tensor]:
    return load_file(job.folder / "adapter" / "adapter_model.safetensors")


def losses(job: Job, split: str = "train") -> list[float]:
    lines = map(json.loads, (job.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return [line["loss"] for line in lines if line["split"] == split]


def furthest(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    """Largest difference of a weight, relative to the largest weight of its matrix."""
    assert set(ours) == set(theirs)
    return max(float((ours[name] - theirs[name]).abs().max() / theirs[name].abs().max()) for name in theirs)


# ---- together and alone


@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("architecture", ["llama", "gemma3", "gpt_neox"])
def test_trained_together_under_sgd_they_are_the_weights_trained_alone(
    tmp_path: Path, architecture: str, dropout: float
) -> None:
    changes = {"optimizer": "sgd", "learning_rate": 0.1, "dropout": dropout, "schedule": "constant"}
    together, alone = jobs(tmp_path / "together", **changes), jobs(tmp_path / "alone", **changes)
    train(together, architecture)
    for job in alone:
        train([job], architecture)
    for a, b in zip(together, alone, strict=True):
        assert furthest(adapter(a), adapter(b)) < 1e-5
        assert float(max(w.abs().max() for name, w in adapter(b).items() if "lora_B" in name)) > 1e-3  # it moved
    assert furthest(adapter(together[0]), adapter(together[1])) > 1e-2  # and the personas differ


def test_trained_together_under_adamw_they_have_the_loss_curves_of_those_trained_alone(tmp_path: Path) -> None:
    together, alone = jobs(tmp_path / "together"), jobs(tmp_path / "alone")
    train(together)
    for job in alone:
        train([job])
    for a, b in zip(together, alone, strict=True):
        assert losses(a) == pytest.approx(losses(b), abs=1e-4) and len(losses(a)) == 20
        assert losses(a, "held_out") == pytest.approx(losses(b, "held_out"), abs=1e-4)
        assert losses(a)[-1] < losses(a)[0] - 0.1


def test_sft_trains_together_as_well(tmp_path: Path) -> None:
    def make(folder: Path) -> list[Job]:
        own = SftSettings(
            lora=LoraSettings(rank=4), epochs=4, batch=2, learning_rate=0.3, optimizer="sgd", row_tokens=256
        )
        talks = {
            name: [
                Conversation([*p.prompt, {"role": "assistant", "content": p.chosen}], p.source)
                for p in own_pairs(name, count)
            ]
            for name, count in PERSONAS.items()
        }
        return [Job(name, rows, [], own, folder / name) for name, rows in talks.items()]

    together, alone = make(tmp_path / "together"), make(tmp_path / "alone")
    train_sft(bare(), TOKENIZER, together, base="tiny")
    for job in alone:
        train_sft(bare(), TOKENIZER, [job], base="tiny")
    assert all(furthest(adapter(a), adapter(b)) < 1e-5 for a, b in zip(together, alone, strict=True))


def test_a_model_that_trees_do_not_fit_trains_together_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = jobs(tmp_path / "shared", optimizer="sgd", max_steps=3, learning_rate=0.5)
    train(shared)
    for module in (loop, reference):
        monkeypatch.setattr(module, "fits_trees", lambda model: False, raising=False)
    plain = jobs(tmp_path / "plain", optimizer="sgd", max_steps=3, learning_rate=0.5)
    train(plain)
    assert all(furthest(adapter(a), adapter(b)) < 1e-4 for a, b in zip(shared, plain, strict=True))


def test_several_seeds_of_one_persona_are_several_adapters(tmp_path: Path) -> None:
    rows = own_pairs("calm", 5)
    made = [Job(f"seed-{n}", rows, [], settings(seed=n, max_steps=3), tmp_path / str(n)) for n in range(3)]
    train(made)
    again = Job("seed-1", rows, [], settings(seed=1, max_steps=3), tmp_path / "again")
    train([again])
    assert furthest(adapter(made[1]), adapter(again)) < 1e-3 < furthest(adapter(made[0]), adapter(made[1]))


# ---- each has its own pace


def test_each_has_its_own_schedule_and_one_that_is_done_frees_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [
        Job(name, own_pairs(name, count), [], settings(max_steps=None, epochs=1, batch=1), tmp_path / name)
        for name, count in PERSONAS.items()
    ]
    at_work: list[int] = []
    plain = loop.gradient_step
    monkeypatch.setattr(loop, "gradient_step", lambda m, ls, p: (at_work.append(len(ls)), plain(m, ls, p))[1])
    summaries = train(made)
    assert [summary["steps"] for summary in summaries] == list(PERSONAS.values())
    assert at_work == [3, 3, 3, 2, 2, 1, 1, 1]
    rates = [json.loads(line)["learning_rate"] for line in (made[2].folder / "metrics.jsonl").read_text().splitlines()]
    assert rates == pytest.approx([5e-3, 5e-3 * 0.75, 5e-3 * 0.25])  # the cosine of its own three steps


def test_one_stops_early_and_keeps_its_best_adapter_while_the_others_go_on(tmp_path: Path) -> None:
    made = jobs(tmp_path, evaluate_every=1, learning_rate=1e-3)
    overfits = made[0].settings.model_copy(update={"patience": 3, "learning_rate": 5e-2, "schedule": "constant"})
    swapped = [Pair(p.prompt, p.rejected, p.chosen, p.source) for p in made[0].rows]  # held out: the opposite
    made[0] = Job("calm", made[0].rows, swapped, overfits, made[0].folder)
    first, *others = train(made)
    assert first["steps"] < 20 and "no lower for 3 passes" in first["stopped_early"]
    assert [other["steps"] for other in others] == [20, 20]
    best = losses(made[0], "held_out").index(min(losses(made[0], "held_out"))) + 1
    short = Job("calm", made[0].rows, swapped, overfits.model_copy(update={"max_steps": best}), tmp_path / "short")
    train([short])
    assert best == first["steps"] - 3 and furthest(adapter(made[0]), adapter(short)) < 1e-3


def test_killed_together_they_end_in_the_same_bytes_and_one_may_go_on_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"dropout": 0.2, "checkpoint_every": 2, "max_steps": 8, "evaluate_every": 2, "patience": 9}
    whole, cut = jobs(tmp_path / "whole", **changes), jobs(tmp_path / "cut", **changes)
    train(whole)
    dies_at(5, monkeypatch)
    with pytest.raises(Killed):
        train(cut)
    monkeypatch.undo()
    train(cut)
    for a, b in zip(whole, cut, strict=True):
        assert all(torch.equal(adapter(a)[name], adapter(b)[name]) for name in adapter(a))
        assert losses(a) == losses(b)
    other = jobs(tmp_path / "other", **changes)
    dies_at(5, monkeypatch)
    with pytest.raises(Killed):
        train(other)
    monkeypatch.undo()
    train([other[1]])  # in other company, where it was
    assert losses(other[1]) == pytest.approx(losses(whole[1]), abs=1e-4) and len(losses(other[1])) == 8


def test_what_is_finished_is_left_alone_and_a_new_persona_may_join(tmp_path: Path) -> None:
    made = jobs(tmp_path, max_steps=4)
    train(made[:2])
    before = [(job.folder / "training.json").read_bytes() for job in made[:2]]
    train(made)
    assert [(job.folder / "training.json").read_bytes() for job in made[:2]] == before
    assert (made[2].folder / "adapter" / "adapter_model.safetensors").is_file()


# ---- the base is asked once


def test_an_answer_that_several_personas_share_is_scored_by_the_base_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored: list[Any] = []
    plain = reference.logprobs
    monkeypatch.setattr(reference, "logprobs", lambda m, trees, n: (scored.extend(trees), plain(m, trees, n))[1])
    made = jobs(tmp_path, max_steps=1)
    train(made)
    answers = [(tuple(tree.nodes[0].ids), tuple(tree.nodes[index].ids)) for tree in scored for index in tree.counted]
    wanted = {
        (pair.prompt[0]["content"], text)
        for job in made
        for pair in [*job.rows, *job.held_out]
        for text in (pair.chosen, pair.rejected)
    }
    assert len(answers) == len(set(answers)) == len(wanted) < sum(2 * (len(j.rows) + len(j.held_out)) for j in made)


def test_policy_and_reference_begin_as_one_to_the_last_bit_even_in_bf16(tmp_path: Path) -> None:
    """Whichever answer a persona prefers, and whoever else is trained beside it."""
    made = [Job(j.name, j.rows, [], settings(max_steps=1, batch=9, row_tokens=4096), j.folder) for j in jobs(tmp_path)]
    train_dpo(bare().bfloat16(), TOKENIZER, made, base="tiny")
    for job in made:
        (line,) = map(json.loads, (job.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
        assert abs(line["margin"]) < 1e-5  # sums in fp64 and in fp32 of the same numbers


def test_the_reference_of_a_run_that_goes_on_from_an_adapter_is_that_adapter(tmp_path: Path) -> None:
    first = jobs(tmp_path / "first", max_steps=6)[0]
    train([first])
    start = str(first.folder / "adapter")
    second = Job("on", own_pairs("loud", 4), [], settings(start=start, max_steps=2, batch=4), tmp_path / "second")
    train([second])
    assert losses(second)[0] == pytest.approx(0.6931, abs=1e-3)  # log 2: policy and reference are one


# ---- the routing hook


def two_adapters(architecture: str, dropout: float = 0.0) -> Any:
    model = tiny_model(architecture, 200).requires_grad_(False)
    for seed, name in enumerate(("one", "two")):
        model = add_adapter(model, name=name, rank=2 + seed, alpha=8, dropout=dropout, seed=seed)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.2)
    return model


TREES = [prompt_with_answers([1, 2, 3 + n], [[4, 5 + n], [6, 7, 8 + n]]) for n in range(3)]


@pytest.mark.parametrize("architecture", list(ARCHITECTURES))
def test_rows_side_by_side_each_go_through_their_own_adapter(architecture: str) -> None:
    model = two_adapters(architecture)
    rows = [pack([tree], 1)[0] for tree in TREES]
    ends = [sum(row.length for row in rows[: n + 1]) for n in range(3)]
    parts = [Part(0, ends[0], "two"), Part(ends[0], ends[1], None), Part(ends[1], ends[2], "one")]
    with routed(model, parts):
        together = rows_logprobs(model, rows)
        sum(values.sum() * (n + 1) for n, values in enumerate(together)).backward()
    routed_grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    for n, (name, row) in enumerate(zip(("two", None, "one"), rows, strict=True)):
        if name is None:
            with adapter_disabled(model), torch.no_grad():
                expected = row_logprobs(model, row)
        else:
            use_adapter(model, name)
            expected = row_logprobs(model, row)  # PEFT's active adapter
            (expected.sum() * (n + 1)).backward()
        assert torch.allclose(together[n], expected, atol=1e-5)
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            assert torch.allclose(routed_grads[name], parameter.grad, atol=1e-4)
    assert not torch.allclose(together[0].sum(), rows_logprobs(model, rows)[0].sum(), atol=1e-3)


def test_dropout_drops_the_stated_share_and_is_the_same_for_the_same_seed_and_no_other() -> None:
    model = two_adapters("llama", dropout=0.3).train()
    row = pack(TREES[:1], 1)[0]

    def run(seed: int | None) -> torch.Tensor:
        with routed(model, [Part(0, None, "one", seed)]):
            return row_logprobs(model, row).detach()

    assert torch.equal(run(5), run(5)) and not torch.equal(run(5), run(6)) and torch.equal(run(None), run(None))
    average = torch.stack([run(seed).exp() for seed in range(400)]).mean(0)
    assert torch.allclose(average, run(None).exp(), atol=0.05)  # unbiased to first order


def test_dropouts_gradient_is_that_of_its_own_mask() -> None:
    model = two_adapters("llama", dropout=0.4).double().train()
    layer = model.base_model.model.model.layers[0].mlp.up_proj
    layer.lora_A["one"].float(), layer.lora_B["one"].float()
    x = torch.randn(1, 7, 32, requires_grad=True)
    a, b = layer.lora_A["one"].weight, layer.lora_B["one"].weight
    base = layer.base_layer.float()
    with routed(model, [Part(0, None, "one", 3)]):
        out = layer(x)
        out.square().sum().backward()
    with torch.no_grad():  # the mask, seen through an update of identity
        difference = out - base(x)
    assert difference.abs().max() > 0
    step = 1e-3
    for parameter in (a, b):
        flat, grad = parameter.data.view(-1), parameter.grad.view(-1)
        for index in range(0, flat.numel(), max(1, flat.numel() // 5)):
            values = []
            for sign in (1, -1):
                flat[index] += sign * step
                with routed(model, [Part(0, None, "one", 3)]), torch.no_grad():
                    values.append(float(layer(x).double().square().sum()))
                flat[index] -= sign * step
            assert (values[0] - values[1]) / (2 * step) == pytest.approx(float(grad[index]), rel=0.02, abs=0.05)


def test_an_adapter_of_the_bank_loads_in_peft_and_is_the_one_that_was_trained(tmp_path: Path) -> None:
    from peft import PeftModel

    made = jobs(tmp_path, max_steps=4)
    train(made)
    trees = [prompt_with_answers([1, 2, 3], [[4, 5], [6, 7, 8]])]
    for job in made:
        theirs = PeftModel.from_pretrained(tiny_model("llama", len(TOKENIZER)), str(job.folder / "adapter"))
        ours = load_adapter(bare(), job.folder / "adapter")
        for a, b in zip(logprobs(ours, trees)[0], logprobs(theirs, trees)[0], strict=True):
            assert torch.allclose(a, b, atol=1e-5)


def test_memory_and_names_do_not_leak_between_adapters(tmp_path: Path) -> None:
    names = ["E", "E.I", "lora_A", "q_proj", "나", "0"]  # each would be a trap in a name-matching scheme
    made = [
        Job(name, own_pairs("calm", 2), [], settings(seed=n, max_steps=2), tmp_path / str(n))
        for n, name in enumerate(names)
    ]
    train(made)
    alone = Job("x", own_pairs("calm", 2), [], settings(seed=3, max_steps=2), tmp_path / "alone")
    train([alone])
    assert furthest(adapter(made[3]), adapter(alone)) < 1e-3
    assert len({name for job in made for name in adapter(job)}) == len(adapter(alone))
