"""Training: objectives by their formulas, packing that changes nothing, and runs that survive being stopped."""

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import PeftModel
from safetensors.torch import load_file

from personalign.datasets import Conversation, Pair
from personalign.errors import UserError
from personalign.models import add_adapter, choose_precision
from personalign.training import budget, learner, loop, parallel, reference, trackers
from personalign.training import checkpoint as checkpoints
from personalign.training.examples import conversation_trees, pair_trees
from personalign.training.learner import Learner
from personalign.training.methods import Job, train_dpo, train_sft, trained
from personalign.training.objectives import dpo_loss, learning_rate_factor, sft_loss
from personalign.training.settings import DpoSettings, LoraSettings, SftSettings
from personalign.trees import logprobs
from tiny import byte_tokenizer, tiny_model

TOKENIZER = byte_tokenizer()
WORDS = ["tea", "a walk", "a long book", "noise", "the quiet corner", "friends", "rain", "maps"]


def pairs(count: int = 6) -> list[Pair]:
    """Preference pairs of different lengths."""
    return [
        Pair(
            [{"role": "user", "content": f"What about {WORDS[i % 8]}?"}],
            f"I like {WORDS[(i + 1) % 8]}.",
            f"No, {WORDS[(i + 3) % 8]}!",
            f"t:{i}",
        )
        for i in range(count)
    ]


def adapted(dropout: float = 0.0, architecture: str = "llama") -> Any:
    """A tiny frozen model with a fresh adapter."""
    model = tiny_model(architecture, len(TOKENIZER)).requires_grad_(False)
    return add_adapter(model, rank=4, alpha=8, dropout=dropout, seed=1)


def bare(architecture: str = "llama") -> Any:
    """A tiny frozen model."""
    return tiny_model(architecture, len(TOKENIZER)).requires_grad_(False)


def settings(dropout: float = 0.0, **changes: Any) -> DpoSettings:
    """A short run in which the loss falls."""
    lora = LoraSettings(rank=4, alpha=8, dropout=dropout)
    return DpoSettings(
        **{"lora": lora, "epochs": 2, "batch": 3, "learning_rate": 5e-3, "checkpoint_every": 1, "seed": 1, **changes}
    )


def dpo(
    folder: Path, own: DpoSettings | None = None, *, model: Any = None, held_out: Any = (), data: Any = None
) -> dict[str, Any]:
    """Train one adapter by DPO; its summary."""
    job = Job("one", pairs() if data is None else data, held_out, own or settings(), folder)
    return train_dpo(model or bare(), TOKENIZER, [job], base="tiny")[0]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """The adapter that a run wrote."""
    return load_file(folder / "adapter" / "adapter_model.safetensors")


def a_learner(trees: Any, own: DpoSettings) -> Learner:
    """A learner that is not run."""
    groups = {"adapter": trained(adapted(), "default")}
    return Learner("default", groups, own, Path("unused"), "d", save=lambda folder: None, trees=trees)


def rows(folder: Path, split: str = "train") -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [row for row in map(json.loads, lines) if row["split"] == split]


# ---- objectives


def test_dpo_is_minus_log_sigmoid_of_beta_times_the_difference_of_log_ratios() -> None:
    loss = dpo_loss(*map(torch.tensor, ([-10.0], [-12.0], [-11.0], [-11.5])), beta=0.1)
    assert loss.item() == pytest.approx(-math.log(1 / (1 + math.exp(-0.1 * (1.0 + 0.5)))))


def test_label_smoothing_mixes_in_the_loss_of_the_swapped_pair() -> None:
    numbers = list(map(torch.tensor, ([-10.0], [-12.0], [-11.0], [-11.5])))
    straight, swapped = dpo_loss(*numbers, beta=0.3), dpo_loss(numbers[1], numbers[0], numbers[3], numbers[2], beta=0.3)
    assert dpo_loss(*numbers, beta=0.3, label_smoothing=0.2).item() == pytest.approx(
        0.8 * straight.item() + 0.2 * swapped.item()
    )


def test_hinge_is_zero_beyond_a_margin_of_one_and_ipo_is_least_at_its_target() -> None:
    far = dpo_loss(*map(torch.tensor, ([0.0], [-30.0], [0.0], [0.0])), beta=0.1, loss="hinge")
    near = dpo_loss(*map(torch.tensor, ([0.0], [-4.0], [0.0], [0.0])), beta=0.1, loss="hinge")
    assert far.item() == 0 and near.item() == pytest.approx(0.6)
    lengths = (torch.tensor([2.0]), torch.tensor([4.0]))
    ipo = dpo_loss(*map(torch.tensor, ([6.0], [-8.0], [0.0], [0.0])), beta=0.1, loss="ipo", lengths=lengths)
    assert ipo.item() == pytest.approx(0.0)  # 6 / 2 + 8 / 4 = 1 / (2 * .1)


@given(st.lists(st.floats(-20, 0), min_size=1, max_size=20), st.data())
def test_sft_gives_each_token_the_same_weight_however_the_step_is_cut(values: list[float], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(values)))
    whole = torch.tensor(values, dtype=torch.float64)
    parts = sft_loss(whole[:cut], len(values)) + sft_loss(whole[cut:], len(values))
    assert parts.item() == pytest.approx(-sum(values) / len(values))


def test_the_learning_rate_rises_then_falls_as_the_schedule_says() -> None:
    cosine = [learning_rate_factor(step, 100, 0.1, "cosine") for step in range(100)]
    assert (
        cosine[0] == pytest.approx(0.1) and cosine[9] == 1.0 and cosine[55] == pytest.approx(0.5) and cosine[-1] < 0.01
    )
    assert learning_rate_factor(55, 100, 0.1, "linear") == pytest.approx(0.5)
    assert learning_rate_factor(99, 100, 0.1, "constant") == 1.0


# ---- the loop


def test_dpo_lowers_the_loss_and_peft_loads_the_result(tmp_path: Path) -> None:
    model = bare()
    dpo(tmp_path, settings(epochs=6), model=model, held_out=pairs(3))
    losses = [row["loss"] for row in rows(tmp_path)]
    assert losses[0] == pytest.approx(math.log(2), abs=1e-4) and losses[-1] < losses[0] - 0.1
    assert rows(tmp_path, "held_out")[-1]["accuracy"] == 1.0
    fresh = PeftModel.from_pretrained(tiny_model("llama", len(TOKENIZER)), str(tmp_path / "adapter"))
    trees, _ = pair_trees(TOKENIZER, pairs(2), 100, "drop")
    for ours, theirs in zip(logprobs(model, trees), logprobs(fresh, trees), strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert torch.allclose(a, b, atol=1e-5)


def test_sft_learns_every_answer_of_a_conversation(tmp_path: Path) -> None:
    talk = Conversation(
        [
            {"role": r, "content": c}
            for r, c in (("user", "Hi"), ("assistant", "Hello!"), ("user", "Tea?"), ("assistant", "Yes."))
        ],
        "t:1",
    )
    trees, _ = conversation_trees(TOKENIZER, [talk], 100, "drop")
    counted = [TOKENIZER.decode(list(trees[0].nodes[i].ids)) for i in trees[0].counted]
    assert counted == ["Hello!<|im_end|>", "Yes.<|im_end|>"]
    job = Job("one", [talk], [], SftSettings(epochs=8, learning_rate=1e-2), tmp_path)
    train_sft(bare(), TOKENIZER, [job], base="tiny")
    assert rows(tmp_path)[-1]["loss"] < rows(tmp_path)[0]["loss"] - 0.5


@pytest.mark.parametrize("architecture", ["llama", "gemma2"])
def test_row_tokens_change_memory_and_not_the_run(tmp_path: Path, architecture: str) -> None:
    runs = []
    for row_tokens in (16, 4096):
        folder = tmp_path / str(row_tokens)
        dpo(folder, settings(row_tokens=row_tokens), model=bare(architecture))
        runs.append([row["loss"] for row in rows(folder)])
    assert runs[0] == pytest.approx(runs[1], abs=1e-4)


def test_gradient_checkpointing_changes_memory_and_not_the_run(tmp_path: Path) -> None:
    runs = []
    for on in (False, True):
        dpo(tmp_path / str(on), settings(gradient_checkpointing=on, dropout=0.2))
        runs.append([row["loss"] for row in rows(tmp_path / str(on))])
    assert runs[0] == pytest.approx(runs[1], abs=1e-5)


def test_every_epoch_sees_every_example_once_in_another_order() -> None:
    trees, _ = pair_trees(TOKENIZER, pairs(7), 100, "drop")
    run, epochs = a_learner(trees, settings()), []
    for epoch in range(2):
        epochs.append([])
        for step in range(3):
            run.step = epoch * 3 + step
            epochs[-1] += [id(tree) for tree in run.batch()]
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(map(id, trees)) and epochs[0] != epochs[1]


def test_shuffle_off_keeps_the_order_of_the_data() -> None:
    trees, _ = pair_trees(TOKENIZER, pairs(4), 100, "drop")
    run = a_learner(trees, settings(shuffle=False))
    first = run.batch()
    run.step = 1
    assert [id(tree) for tree in first + run.batch()] == list(map(id, trees))


# ---- stopping and going on


class Killed(Exception):
    """Stands for the process's death: nothing after it runs (a real SIGKILL is in test_training_kill.py)."""


def dies_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the process die before a step."""
    plain = loop.gradient_step

    def dying(model: Any, learners: Any, processes: Any) -> Any:
        if learners[0].step == step:
            raise Killed
        return plain(model, learners, processes)

    monkeypatch.setattr(loop, "gradient_step", dying)


@pytest.mark.parametrize("kind", ["the system refuses", "the GPU is full"])
def test_out_of_memory_in_the_middle_of_an_epoch_leaves_the_checkpoint_and_says_what_to_do(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = loop.gradient_step

    def hungry(model: Any, learners: Any, processes: Any) -> Any:
        metrics = plain(model, learners, processes)
        if learners[0].step == 2:  # in the third step, when weights have changed already
            if kind == "the GPU is full":
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            torch.empty(1 << 60)
        return metrics

    monkeypatch.setattr(loop, "gradient_step", hungry)
    with pytest.raises(UserError, match="out of memory; the last checkpoint is safe.*row_tokens"):
        dpo(tmp_path / "cut", settings(checkpoint_every=2))
    assert [path.name for path in (tmp_path / "cut").glob("checkpoint-*")] == ["checkpoint-00000002"]
    monkeypatch.setattr(loop, "gradient_step", plain)
    dpo(tmp_path / "cut", settings(checkpoint_every=2))
    dpo(tmp_path / "whole", settings())
    adapter = Path("adapter") / "adapter_model.safetensors"
    assert (tmp_path / "cut" / adapter).read_bytes() == (tmp_path / "whole" / adapter).read_bytes()


@pytest.mark.parametrize("method", ["dpo", "sft"])
@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_run_that_was_stopped_ends_in_the_same_weights_bit_for_bit(
    tmp_path: Path, method: str, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def go(folder: Path) -> dict[str, torch.Tensor]:
        if method == "dpo":
            dpo(folder, settings(dropout=0.2))  # what dropout draws must come out the same
        else:
            talks = [Conversation([*p.prompt, {"role": "assistant", "content": p.chosen}], p.source) for p in pairs()]
            own = SftSettings(**settings(dropout=0.2).model_dump(exclude={"beta", "loss", "label_smoothing"}))
            train_sft(bare(), TOKENIZER, [Job("one", talks, [], own, folder)], base="tiny")
        return weights(folder)

    undisturbed = go(tmp_path / "whole")
    dies_at(at, monkeypatch)
    with pytest.raises(Killed):
        go(tmp_path / "cut")
    monkeypatch.undo()
    torch.rand(17)  # whatever else drew random numbers meanwhile
    resumed = go(tmp_path / "cut")
    assert all(torch.equal(undisturbed[name], resumed[name]) for name in undisturbed)
    assert [row["step"] for row in rows(tmp_path / "cut")] == [1, 2, 3, 4]
    assert [row["loss"] for row in rows(tmp_path / "cut")] == [row["loss"] for row in rows(tmp_path / "whole")]


def test_in_fp16_a_gradient_scaler_keeps_small_gradients_and_survives_a_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = settings(epochs=6)
    dpo(tmp_path / "whole", own, model=bare().half())
    losses = [row["loss"] for row in rows(tmp_path / "whole")]
    assert losses[0] == pytest.approx(math.log(2), abs=0.02) and losses[-1] < losses[0] - 0.1
    dies_at(4, monkeypatch)
    with pytest.raises(Killed):
        dpo(tmp_path / "cut", own, model=bare().half())
    monkeypatch.undo()
    scaler = json.loads(next((tmp_path / "cut").glob("checkpoint-*/state.json")).read_text(encoding="utf-8"))["scaler"]
    assert scaler["scale"] >= 1
    dpo(tmp_path / "cut", own, model=bare().half())
    whole, cut = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


def test_a_finished_run_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = dpo(tmp_path)
    monkeypatch.setattr(loop, "gradient_step", lambda *a: pytest.fail("trained again"))
    assert dpo(tmp_path)["seconds"] == first["seconds"]


def test_a_run_with_other_settings_sets_the_earlier_one_aside(tmp_path: Path) -> None:
    dpo(tmp_path)
    dpo(tmp_path, settings(beta=0.5))
    assert (tmp_path / "earlier-1" / "adapter" / "adapter_model.safetensors").is_file()
    assert json.loads((tmp_path / "training.json").read_text(encoding="utf-8"))["settings"]["beta"] == 0.5


def test_a_run_killed_before_its_first_checkpoint_starts_anew_without_a_word_about_other_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dies_at(2, monkeypatch)
    with pytest.raises(Killed):
        dpo(tmp_path, settings(checkpoint_every=99))
    monkeypatch.undo()
    dpo(tmp_path, settings(checkpoint_every=99))
    assert [row["step"] for row in rows(tmp_path)] == [1, 2, 3, 4]
    assert not (tmp_path / "earlier-1").exists() and "other settings" not in capsys.readouterr().err


def test_resume_on_another_machine_works_and_says_that_it_is_not_exact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dies_at(2, monkeypatch)
    with pytest.raises(Killed):
        dpo(tmp_path)
    monkeypatch.undo()
    here = learner.environment(torch.device("cpu"))
    monkeypatch.setattr(learner, "environment", lambda device: here | {"torch": "9.9"})
    dpo(tmp_path)
    assert "not bit-exactly: torch changed" in capsys.readouterr().err


FULL_DISK = """
import resource, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import torch
from personalign.cli import main
from personalign import cli, commands
from personalign.models import save_adapter
from personalign.training import checkpoint, reference
from test_training import adapted

what, folder = sys.argv[1], Path(sys.argv[2])
model = adapted()
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # from here on no file grows beyond 1,000 bytes
tensor = torch.zeros(1000)
def write(options: commands.Models) -> None:
    if what == "checkpoint":
        checkpoint.write_checkpoint(folder, 4, {{"x": tensor}}, {{"step": 4}})
    elif what == "adapter":
        save_adapter(model, folder / "adapter")
    else:
        reference._keep(folder / "reference.safetensors", tensor)
commands.models = write
sys.exit(main(["models"]))
"""


@pytest.mark.parametrize("what", ["checkpoint", "adapter", "reference"])
def test_a_full_disk_is_one_sentence_and_leaves_the_checkpoint_before(tmp_path: Path, what: str) -> None:
    checkpoints.write_checkpoint(tmp_path, 3, {"x": torch.ones(2)}, {"step": 3})
    script = FULL_DISK.format(tests=str(Path(__file__).parent))
    done = subprocess.run([sys.executable, "-c", script, what, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 2 and "File too large" in done.stderr and "Traceback" not in done.stderr
    assert "run the same command again" in done.stderr
    found = checkpoints.read_checkpoint(tmp_path)
    assert found is not None and found[1]["step"] == 3 and torch.equal(found[0]["x"], torch.ones(2))


@pytest.mark.parametrize("file", ["state.json", "tensors.safetensors"])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, file: str) -> None:
    checkpoints.write_checkpoint(tmp_path, 3, {"x": torch.ones(200)}, {"step": 3})
    damaged = tmp_path / "checkpoint-00000003" / file
    damaged.write_bytes(damaged.read_bytes()[:10])
    with pytest.raises(UserError, match="checkpoint-00000003: the checkpoint is damaged .* remove that folder"):
        checkpoints.read_checkpoint(tmp_path)


def test_a_checkpoint_cut_before_its_rename_is_not_taken_for_whole(tmp_path: Path) -> None:
    checkpoints.write_checkpoint(tmp_path, 3, {"x": torch.ones(2)}, {"step": 3})
    shutil.copytree(tmp_path / "checkpoint-00000003", tmp_path / ".checkpoint-00000004.partial")
    (tmp_path / ".checkpoint-00000004.partial" / "state.json").write_text('{"st', encoding="utf-8")
    found = checkpoints.read_checkpoint(tmp_path)
    assert found is not None and found[1]["step"] == 3


def test_reference_log_probabilities_are_made_once_for_a_dataset(monkeypatch: pytest.MonkeyPatch) -> None:
    model = adapted()
    trees, _ = pair_trees(TOKENIZER, pairs(), 100, "drop")
    first = reference.reference_sums(model, "tiny", trees, 512)
    monkeypatch.setattr(reference, "logprobs", lambda *a: pytest.fail("scored again"))
    assert reference.reference_sums(model, "tiny", trees, 512) == first
    monkeypatch.undo()
    expected = [
        [float(node.sum()) for node in nodes] for nodes in logprobs(model, trees)
    ]  # B = 0: the adapter is the base
    assert [x for sums in first for x in sums] == pytest.approx([x for sums in expected for x in sums], abs=1e-3)


def test_the_reference_is_the_base_even_when_the_adapter_has_moved() -> None:
    model = adapted()
    trees, _ = pair_trees(TOKENIZER, pairs(), 100, "drop")
    before = reference.reference_sums(model, "a", trees, 512)
    for name, p in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p)
    assert reference.reference_sums(model, "b", trees, 512) == before


# ---- refusals


def test_memory_and_trackers_are_asked_about_before_the_reference_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "logprobs", lambda *a: pytest.fail("scored in vain"))
    monkeypatch.setattr(budget, "available", lambda device: 1 << 20)
    with pytest.raises(UserError, match="MiB are free"):
        dpo(tmp_path)
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="trackers: mlflow is not installed; `pip install mlflow`"):
        dpo(tmp_path, settings(trackers=("mlflow",)))


def test_a_tracker_that_writes_into_the_run_folder_is_not_taken_for_an_earlier_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged = []

    def start(accelerator: Any, project: str, config: dict[str, Any]) -> None:
        assert config["lora.rank"] == 4
        (Path(accelerator.project_dir) / project).mkdir()

    monkeypatch.setattr(trackers, "find_spec", lambda name: name)
    monkeypatch.setattr(parallel.Accelerator, "init_trackers", start)
    monkeypatch.setattr(parallel.Accelerator, "log", lambda self, values, step: logged.append((step, set(values))))
    dpo(tmp_path, settings(trackers=("tensorboard",)), held_out=pairs(2))
    assert (tmp_path / "personalign").is_dir() and not (tmp_path / "earlier-1").exists()
    assert [step for step, _ in logged] == [1, 2, 2, 3, 4, 4]  # a held-out pass after each epoch of two steps
    assert "train/loss" in logged[0][1] and "held_out/accuracy" in logged[2][1]


def test_a_loss_that_is_no_number_stops_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no longer a number at step"):
        dpo(tmp_path, settings(epochs=30, learning_rate=1e30, warmup=0, clip=1e30))


def test_a_pair_that_cannot_fit_is_named_and_one_too_long_is_dropped_cut_or_refused() -> None:
    long = Pair([{"role": "user", "content": "Why?"}], "because " * 20, "no", "file.jsonl:7")
    with pytest.raises(UserError, match=r"file\.jsonl:7: its prompt takes \d+ tokens.*max_length 8"):
        pair_trees(TOKENIZER, [long], 8, "drop")
    with pytest.raises(UserError, match=r"file\.jsonl:7: prompt and answer take \d+ tokens, over max_length 60"):
        pair_trees(TOKENIZER, [long], 60, "refuse")
    cut, counts = pair_trees(TOKENIZER, [long], 60, "truncate")
    assert (
        counts == {"dropped": 0, "truncated": 1}
        and max(len(cut[0].nodes[0].ids) + len(n.ids) for n in cut[0].nodes[1:]) == 60
    )
    kept, counts = pair_trees(TOKENIZER, [long, *pairs(2)], 60, "drop")
    assert len(kept) == 2 and counts == {"dropped": 1, "truncated": 0}
    with pytest.raises(UserError, match="no row of 1 fits within max_length 60"):
        pair_trees(TOKENIZER, [long], 60, "drop")


def test_the_head_is_not_adapted_and_an_unknown_target_is_named() -> None:
    model = tiny_model("llama", len(TOKENIZER))
    with pytest.raises(UserError, match="lm_head cannot be adapted"):
        add_adapter(model, targets=("q_proj", "lm_head"))
    with pytest.raises(UserError, match="lora.targets: .*nonsense"):
        add_adapter(model, targets=("nonsense",))
    assert not any("lm_head" in name for name, p in adapted().named_parameters() if p.requires_grad)


def test_precision_follows_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (7, 5))  # a T4
    assert choose_precision("auto", cuda, "llama") == "fp16"
    assert choose_precision("auto", cuda, "gemma2") == "fp32"  # overflows in fp16
    with pytest.raises(UserError, match="gemma overflows"):
        choose_precision("fp16", cuda, "gemma")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (8, 0))
    assert choose_precision("auto", cuda, "gemma2") == "bf16"


def test_lora_settings_reach_the_adapter() -> None:
    chosen = LoraSettings(rank=3, alpha=6, targets=("q_proj",))
    model = add_adapter(tiny_model("llama", 300), rank=chosen.rank, alpha=chosen.alpha, targets=chosen.targets)
    shapes = {tuple(p.shape) for name, p in model.named_parameters() if "lora_A" in name}
    assert shapes == {(3, 32)} and all("q_proj" in n for n, p in model.named_parameters() if p.requires_grad)
