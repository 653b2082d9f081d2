"""4-bit and 8-bit bases: what their numbers stand for is what is computed with, forward, backward and in every mode."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

pytest.importorskip("bitsandbytes")

from personalign.errors import UserError
from personalign.models import Part, add_adapter, generate, load_model, routed
from personalign.models import quantised as quantising
from personalign.models.quantised import dequantised, is_quantised, quantised_kind
from personalign.training.budget import _estimate
from personalign.training.memory import base_bytes, shape_of
from personalign.training.methods import Job, train_dpo, train_sft
from personalign.training.optimizers import make_optimizer, paged_adamw_8bit
from personalign.training.settings import DpoSettings, LoraSettings, SftSettings
from personalign.trees import fits_trees, logprobs, pack, plain_logprobs, prompt_with_answers, row_logprobs
from test_bank import adapter, furthest, jobs, losses
from test_training import Killed, dies_at, dpo, pairs, settings
from tiny import byte_tokenizer, tiny_model

KINDS: list[Any] = ["nf4", "int8"]
TREES = [
    prompt_with_answers(range(20, 30), [range(30, 39), range(33, 40)]),
    prompt_with_answers(range(60, 66), [[7, 8]]),
]


def folder(path: Path, architecture: str = "llama") -> Path:
    """A tiny model with a tokenizer of bytes, as people save models."""
    tokenizer = byte_tokenizer("chatml")
    tiny_model(architecture, len(tokenizer), max_position_embeddings=1024).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(folder(tmp_path_factory.mktemp("quantised")))


def load(name: str, kind: Any = "nf4", precision: str = "fp32") -> Any:
    return load_model(name, precision=precision, quantise=kind)[0]


def plain_twin(model: Any) -> Any:
    """The same model with plain linear layers that hold what the quantised ones stand for."""
    twin = tiny_model(model.config.model_type, model.config.vocab_size)
    for path, layer in model.named_modules():
        for name, parameter in layer.named_parameters(recurse=False):
            weight = dequantised(layer) if name == "weight" and is_quantised(layer) else parameter
            setattr(twin.get_submodule(path), name, nn.Parameter(weight.detach().clone()))
    return twin.requires_grad_(False)


# ---- loading


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_linear_layers_are_quantised_head_embeddings_and_norms_are_not(tiny: str, kind: Any, precision: str) -> None:
    model = load(tiny, kind, precision)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    plain = [layer for layer in layers if not is_quantised(layer)]
    assert plain == [model.get_output_embeddings()] and type(plain[0]) is nn.Linear and len(layers) == 3 * 7 + 1
    rest = [p for p in model.parameters() if p.is_floating_point()]
    assert {p.dtype for p in rest} == {dtype} and not any(p.requires_grad for p in model.parameters())
    assert quantised_kind(model) == kind and quantised_kind(load(tiny, None)) is None


@pytest.mark.parametrize("kind", KINDS)
def test_the_estimate_knows_what_a_quantised_base_weighs(tiny: str, kind: Any) -> None:
    model = add_adapter(load(tiny, kind, "bf16"), rank=2)
    measured = _estimate(model, SftSettings(), 64, 1)["base"]
    assert measured == pytest.approx(base_bytes(shape_of(model.config), "bf16", kind), rel=1e-3)


def test_nf4_rounds_each_weight_to_one_of_sixteen_parts_of_its_blocks_largest(tiny: str) -> None:
    """Also where a block of 64 spans several rows, which bitsandbytes' own kernel for CPUs gets wrong."""
    layer, original = (load(tiny, kind).model.layers[0].mlp.up_proj for kind in ("nf4", None))
    blocks, before = dequantised(layer).view(-1, 64), original.weight.view(-1, 64)
    largest = before.abs().amax(1, keepdim=True)
    assert len((blocks / largest).mul(50).round().unique()) <= 2 * 16
    assert ((blocks - before).abs() / largest).max() < 0.16  # half of NF4's widest gap, and the rounding of the scale
    assert (blocks - before).abs().mean() > 0.05 * before.abs().mean()  # it did round


def test_a_base_that_cannot_be_quantised_here_is_refused_in_a_sentence(
    tiny: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    load(tiny).save_pretrained(tmp_path)
    byte_tokenizer("chatml").save_pretrained(tmp_path)
    with pytest.raises(UserError, match="its weights are quantised already; leave quantise out"):
        load(str(tmp_path))
    assert quantised_kind(load(str(tmp_path), None)) == "nf4"  # and goes on as it is
    monkeypatch.setattr("bitsandbytes.functional.quantize_4bit", lambda *a, **k: 1 / 0)
    with pytest.raises(
        UserError, match="bitsandbytes does not work on this machine's cpu .division by zero.; leave quanti"
    ):
        load(tiny)
    monkeypatch.setattr(quantising, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"bitsandbytes is not installed; `pip install 'personalign\[quantised\]'`"):
        load(tiny)


# ---- arithmetic


@pytest.mark.parametrize("kind", KINDS)
def test_a_pass_in_eval_mode_leaves_weights_and_gradients_as_they_were(tiny: str, kind: Any) -> None:
    """bitsandbytes' own forward pass repacks 4-bit weights on some processors, and rounds activations in 8 bits."""
    layer = load(tiny, kind).model.layers[0].self_attn.q_proj
    weight = dequantised(layer).clone()
    x = torch.randn(1, 40, 32, generator=torch.Generator().manual_seed(0))
    for _ in range(2):
        with torch.no_grad():
            assert torch.equal(layer.eval()(x), nn.functional.linear(x, weight))
    assert torch.equal(dequantised(layer), weight)
    inside = x.clone().requires_grad_()
    layer(inside).sum().backward()
    torch.testing.assert_close(inside.grad, weight.sum(0).expand_as(x))


@pytest.mark.parametrize("kind", KINDS)
def test_adapters_learn_as_on_a_plain_model_of_the_same_weights(tiny: str, kind: Any) -> None:
    model, row = load(tiny, kind), pack(TREES, 1000)[0]
    gradients = []
    for base in (plain_twin(model), model):
        adapted = add_adapter(base, rank=4, seed=3)
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(len(name)))
        with routed(adapted, [Part(0, None, "default")]):
            values = row_logprobs(adapted, row)
            values.sum().backward()
        gradients.append([values.detach(), *(p.grad for p in adapted.parameters() if p.grad is not None)])
    assert len(gradients[0]) == 1 + 2 * 3 * 7
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("architecture", ["llama", "gemma2", "gpt_neox"])
def test_trees_are_exact_on_a_quantised_base(tmp_path: Path, architecture: str, kind: Any) -> None:
    model = load(str(folder(tmp_path, architecture)), kind)
    with torch.no_grad():
        plain = [torch.cat(plain_logprobs(model, tree)) for tree in TREES]
    assert fits_trees(model)
    for ours, theirs in zip(logprobs(model, TREES), plain, strict=True):
        torch.testing.assert_close(torch.cat(ours), theirs, atol=1e-4, rtol=1e-4)


def test_a_quantised_base_generates(tiny: str) -> None:
    model, tokenizer = load_model(tiny, precision="fp32", quantise="nf4")
    asked = [{"role": "user", "content": "hello"}]
    twin = plain_twin(model)
    ours, theirs = (generate(each, tokenizer, [asked], max_new_tokens=8, temperature=0) for each in (model, twin))
    assert ours == theirs


# ---- training


def trained_on(model: Any, where: Path, own: DpoSettings) -> list[float]:
    dpo(where, own, model=model)
    return losses(Job("one", [], [], own, where))


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_falls(tiny: str, tmp_path: Path, kind: Any) -> None:
    curve = trained_on(load(tiny, kind), tmp_path, settings(epochs=8))
    assert curve[0] == pytest.approx(0.6931, abs=1e-3) and curve[-1] < 0.5 * curve[0]


def test_recomputing_activations_changes_nothing(tiny: str, tmp_path: Path) -> None:
    curves = [trained_on(load(tiny), tmp_path / str(on), settings(gradient_checkpointing=on)) for on in (False, True)]
    assert curves[0] == pytest.approx(curves[1], abs=1e-5)


def test_sft_on_a_quantised_base(tiny: str, tmp_path: Path) -> None:
    model, tokenizer = load_model(tiny, precision="fp32", quantise="nf4")
    from personalign.datasets import chosen_conversation

    own = SftSettings(lora=LoraSettings(rank=4), epochs=8, batch=3, learning_rate=5e-3)
    job = Job("one", [chosen_conversation(pair) for pair in pairs()], [], own, tmp_path)
    train_sft(model, tokenizer, [job], base="tiny nf4")
    assert losses(job)[-1] < 0.7 * losses(job)[0]


def test_adapters_trained_together_on_a_quantised_base_are_those_trained_alone(tiny: str, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"optimizer": "sgd", "learning_rate": 0.1, "max_steps": 4}
    together, alone = (jobs(tmp_path / name, **changes)[:2] for name in ("together", "alone"))
    tokenizer = byte_tokenizer()
    train_dpo(load(tiny), tokenizer, together, base="tiny")
    for job in alone:
        train_dpo(load(tiny), tokenizer, [job], base="tiny")
    for one, other in zip(together, alone, strict=True):
        assert furthest(adapter(one), adapter(other)) < 1e-5


# ---- the optimiser of 8 bits


def test_the_paged_optimiser_needs_a_gpu_and_the_remedy_is_named() -> None:
    weight = nn.Parameter(torch.zeros(2, 2))
    with pytest.raises(UserError, match="optimizer paged_adamw_8bit: it needs a CUDA GPU, .* use `optimizer: adamw`"):
        make_optimizer("paged_adamw_8bit", [weight], DpoSettings(), torch.device("cpu"))


@pytest.mark.filterwarnings("ignore:Paged optimizers")
def test_a_run_with_moments_of_8_bits_survives_a_kill_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def eight_bits(name: str, parameters: Any, own: Any, device: Any) -> Any:
        return paged_adamw_8bit(parameters, lr=own.learning_rate, betas=own.betas, weight_decay=0.0)

    monkeypatch.setattr("personalign.training.learner.make_optimizer", eight_bits)
    own = settings(lora=LoraSettings(rank=160, alpha=8))  # 160 x 32 weights: over the 4096 from which moments are bytes
    dpo(tmp_path / "whole", own)
    with monkeypatch.context() as patched:
        dies_at(2, patched)
        with pytest.raises(Killed):
            dpo(tmp_path / "killed", own)
    (checkpoint,) = (tmp_path / "killed").glob("checkpoint-*/tensors.safetensors")
    kept = load_file(checkpoint)
    assert {name.rpartition(".")[2] for name in kept if name.startswith("optimiser.")} == {
        "step", "state1", "state2", "absmax1", "absmax2"
    }  # fmt: skip
    assert torch.uint8 in {tensor.dtype for tensor in kept.values()}
    dpo(tmp_path / "killed", own)
    whole, killed = (
        load_file(tmp_path / name / "adapter" / "adapter_model.safetensors") for name in ("whole", "killed")
    )
    assert all(torch.equal(whole[name], killed[name]) for name in whole)
