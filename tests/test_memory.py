"""Memory: the estimate counts what is there, max_memory picks what fits, and what cannot fit is refused in a sentence."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from personalign.errors import UserError
from personalign.models import add_adapter
from personalign.training import budget
from personalign.training.budget import available, fit_memory, in_words, memory_limit
from personalign.training.examples import pair_trees
from personalign.training.memory import Shape, adapter_size, base_bytes, estimate, shape_of
from personalign.training.settings import DpoSettings, LoraSettings, PpoSettings, RewardSettings, SftSettings
from personalign.trees import pack, row_logprobs
from test_training import TOKENIZER, adapted, bare, dpo, pairs, settings
from tiny import ARCHITECTURES, tiny_model

LLAMA3 = Shape(4096, 32, 32, 8, 128, 14336, 128256)
CPU = torch.device("cpu")
GIB = 2**30


def peak(own: Any = None, shape: Shape = LLAMA3, **changes: Any) -> int:
    return estimate(shape, own or DpoSettings(), **{"precision": "bf16", **changes})["peak"]


# ---- the estimate


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("tied", [False, True])
def test_the_base_is_counted_to_the_last_weight(architecture: str, tied: bool) -> None:
    model = tiny_model(architecture, 300, tie_word_embeddings=tied)
    biases = sum(p.numel() for n, p in model.named_parameters() if "bias" in n) if architecture == "qwen2" else 0
    counted = sum(p.numel() for p in model.parameters())
    assert base_bytes(shape_of(model.config), "fp32") == 4 * (counted - biases)
    assert base_bytes(shape_of(model.config), "bf16") == 2 * (counted - biases)


def test_llama_3_8b_has_the_parameters_that_it_is_known_for() -> None:
    assert base_bytes(LLAMA3, "bf16") == 2 * 8_030_261_248


@pytest.mark.parametrize("architecture", ["llama", "gpt_neox"])
@pytest.mark.parametrize("targets", [None, 2])
def test_the_adapter_is_counted_to_the_last_weight(architecture: str, targets: int | None) -> None:
    model, shape = bare(architecture), shape_of(tiny_model(architecture, 300).config)
    names = tuple(shape.matrices)[:targets] if targets else None
    adapted = add_adapter(model, rank=5, targets=names)
    assert adapter_size(shape, 5, names) == sum(p.numel() for p in adapted.parameters() if p.requires_grad)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_activations_hold_what_the_backward_pass_keeps_and_little_more(architecture: str, precision: str) -> None:
    sizes = {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 6, "layer_types": None}
    model = tiny_model(
        architecture, len(TOKENIZER), **(sizes | ({"head_dim": 32} if architecture != "gpt_neox" else {}))
    )
    model = model.to({"fp32": torch.float32, "bf16": torch.bfloat16}[precision]).requires_grad_(False)
    model = add_adapter(model, rank=8).train()
    trees, _ = pair_trees(TOKENIZER, pairs(24), 400, "drop")
    (row,) = pack(trees, 10_000)
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in parameters:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        assert row_logprobs(model, row).requires_grad
    own = SftSettings(lora=LoraSettings(rank=8), row_tokens=row.length)
    found = estimate(shape_of(model.config), own, precision=precision, longest=max(map(len, trees)), device="cpu")
    saved = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    assert saved <= found["activations"] <= 1.35 * saved


def test_with_gradient_checkpointing_layers_keep_their_inputs_and_one_layer_the_rest() -> None:
    sft = SftSettings(row_tokens=1024)
    plain, recomputed = (
        estimate(LLAMA3, sft.model_copy(update={"gradient_checkpointing": on}), precision="bf16")["activations"]
        for on in (False, True)
    )
    inputs = 1024 * 32 * 4096 * 2
    assert inputs < recomputed < inputs + plain / 8


def test_each_further_adapter_costs_its_weights_gradients_and_moments() -> None:
    one, four = (estimate(LLAMA3, SftSettings(), precision="fp32", adapters=count) for count in (1, 4))
    assert four["peak"] - one["peak"] == 3 * 16 * adapter_size(LLAMA3, 16)
    waiting = estimate(LLAMA3, SftSettings(), precision="fp32", adapters=4, live=1)
    assert four["peak"] - waiting["peak"] == 3 * 4 * adapter_size(LLAMA3, 16)


def test_what_saves_memory_saves_it_in_the_estimate() -> None:
    assert peak(quantise="nf4") < peak(quantise="int8") < peak() < peak(precision="fp32")
    assert peak(SftSettings(optimizer="sgd")) < peak(SftSettings(optimizer="paged_adamw_8bit")) < peak(SftSettings())
    assert peak(SftSettings(gradient_checkpointing=True)) < peak(SftSettings(row_tokens=512)) < peak(SftSettings())
    assert estimate(LLAMA3, RewardSettings(), precision="bf16")["logits"] == 0
    assert 4.5 * GIB < base_bytes(LLAMA3, "bf16", "nf4") < 5.5 * GIB


def test_ppo_has_four_adapters_two_of_them_trained_in_turn_and_a_cache_while_it_samples() -> None:
    one = adapter_size(LLAMA3, 16)
    found = estimate(LLAMA3, PpoSettings(cache_tokens=8192), precision="bf16", longest=512)
    assert (found["adapters"], found["gradients"], found["optimiser"]) == (4 * 4 * one, 4 * one, 2 * 8 * one)
    keys_and_values = 8192 * 32 * 2 * 8 * 128 * 2
    assert keys_and_values < found["cache"] < 2 * keys_and_values
    least = estimate(LLAMA3, PpoSettings(cache_tokens=1, row_tokens=16), precision="bf16", longest=512)
    assert least["cache"] > 0.9 * found["cache"] * PpoSettings().answers * 512 / 8192  # one prompt's answers, at least


@given(st.integers(16, 4096), st.integers(16, 4096), st.booleans())
def test_longer_rows_never_need_less(tokens: int, more: int, checkpointing: bool) -> None:
    short, long = (
        peak(SftSettings(row_tokens=n, gradient_checkpointing=checkpointing), longest=16)
        for n in (tokens, tokens + more)
    )
    assert short < long


def test_a_loaded_model_is_weighed_and_not_guessed() -> None:
    model = adapted()
    found = budget._estimate(model, SftSettings(row_tokens=64), 64, 1)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert found["base"] == sum(4 * p.numel() for p in model.parameters() if not p.requires_grad)
    assert (found["adapters"], found["gradients"], found["optimiser"]) == (4 * trained, 4 * trained, 8 * trained)


# ---- max_memory


def limited(limit: int, own: DpoSettings, monkeypatch: pytest.MonkeyPatch, **given: Any) -> dict[str, Any]:
    monkeypatch.setattr(budget, "memory_limit", lambda text, device: limit)
    return fit_memory(adapted(), own.model_copy(update={"max_memory": "some"}), **given)


def test_max_memory_keeps_the_settings_that_fit_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert limited(GIB, settings(), monkeypatch, longest=50) == {"row_tokens": 1280, "gradient_checkpointing": False}
    said = capsys.readouterr().err
    assert said.startswith("max_memory some: row_tokens 1280, gradient_checkpointing off (about ")
    assert said.endswith(" MiB)\n") and "activations " in said


def test_less_memory_means_shorter_rows_then_recomputation_then_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    def need(row_tokens: int, checkpointing: bool) -> int:
        own = settings(row_tokens=row_tokens, gradient_checkpointing=checkpointing)
        return budget._estimate(adapted(), own, 50, 1)["peak"]

    own = settings()
    half = limited(need(512, False), own, monkeypatch, longest=50)
    assert half == {"row_tokens": 512, "gradient_checkpointing": False}
    just_short = limited(need(512, False) - 1, own, monkeypatch, longest=50)
    assert just_short == {"row_tokens": 448, "gradient_checkpointing": False}
    least_plain = limited(need(50, False), own, monkeypatch, longest=50)
    assert least_plain == {"row_tokens": 50, "gradient_checkpointing": False}
    recomputed = limited(need(50, False) - 1, own, monkeypatch, longest=50)
    assert recomputed["gradient_checkpointing"] and recomputed["row_tokens"] >= 50
    assert need(recomputed["row_tokens"], True) < need(50, False)
    with pytest.raises(
        UserError, match=r"max_memory some: the longest example \(50 tokens\) alone, with gradient_check"
    ):
        limited(need(50, True) - 1, own, monkeypatch, longest=50)


def test_recomputation_that_is_asked_for_stays_on(monkeypatch: pytest.MonkeyPatch) -> None:
    own = settings(gradient_checkpointing=True)
    assert limited(GIB, own, monkeypatch, longest=50)["gradient_checkpointing"] is True


def test_without_max_memory_nothing_is_changed() -> None:
    assert fit_memory(adapted(), settings(), longest=50) == {}


def test_what_was_picked_is_used_and_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = budget._estimate(adapted(), settings(row_tokens=128), 60, 1)["peak"]
    monkeypatch.setattr(budget, "memory_limit", lambda text, device: limit)
    dpo(tmp_path / "small", settings(max_memory="some", row_tokens=4096), data=pairs(24))
    written = json.loads((tmp_path / "small" / "training.json").read_text(encoding="utf-8"))["settings"]
    assert 60 <= written["row_tokens"] <= 192 and written["max_memory"] == "some"


@pytest.mark.parametrize(
    ("text", "size"), [("12GiB", 12 * GIB), ("1.5 gib", 1.5 * GIB), ("800MB", 8e8), ("2TiB", 2**41), ("50%", 500)]
)
def test_max_memory_is_an_amount_or_a_share_of_all_there_is(
    text: str, size: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "capacity", lambda device: 1000)
    assert memory_limit(text, CPU) == size


@pytest.mark.parametrize("text", ["12", "lots", "0GiB", "-1GiB", "120%", "", "1e3GiB"])
def test_any_other_max_memory_is_refused(text: str) -> None:
    with pytest.raises(
        UserError, match="max_memory .*: write an amount such as 12GiB or 800MiB, or a share such as 80%"
    ):
        memory_limit(text, CPU)


# ---- what there is


def test_an_estimate_over_the_machine_is_refused_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "available", lambda device: 1 << 20)
    with pytest.raises(UserError, match="needs about .* MiB beside the model and 1 MiB are free; lower row_tokens"):
        dpo(tmp_path)
    dpo(tmp_path, settings(ignore_memory=True))


def test_files_that_the_container_would_give_back_count_as_free_memory(tmp_path: Path) -> None:
    for name, text in (("max", "1000"), ("current", "900"), ("stat", "anon 300\ninactive_file 500\n")):
        (tmp_path / f"memory.{name}").write_text(text)
    assert available(CPU, tmp_path) == 600


def test_parts_are_told_from_the_largest_down() -> None:
    assert in_words({"base": GIB, "cache": 0, "logits": 2 * GIB, "adapters": 5 << 20, "peak": 9 * GIB}) == (
        "logits 2.0 GiB, base 1.0 GiB, adapters 5 MiB"
    )
