"""Which models trees fit: the tested ones, those that pass a small comparison; all others are computed plainly."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from padded import VOCABULARY, adapted, differences, fixed_trees, padded_logprobs
from personalign.trees import attention, fits_trees, logprobs, pack, plain_logprobs, row_logprobs
from tiny import ARCHITECTURES, tiny_model


def other(model_type: str, **options) -> torch.nn.Module:
    """A tiny model of an architecture that is not in the tested list."""
    return tiny_model("llama", VOCABULARY, model_type=model_type, **options)


def falls_back(model: torch.nn.Module) -> bool:
    """Whether `logprobs` gives exactly the unshared values, to the last bit."""
    forest = fixed_trees()
    found = logprobs(model, forest)
    with torch.no_grad():
        plain = [plain_logprobs(model, tree) for tree in forest]
    return all(torch.equal(a, b) for x, y in zip(found, plain, strict=True) for a, b in zip(x, y, strict=True))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_tested_architectures_fit(architecture):
    assert fits_trees(tiny_model(architecture, VOCABULARY))
    assert fits_trees(adapted(architecture))


@pytest.mark.parametrize(
    "model_type, options",
    [
        ("granite", {"logits_scaling": 8.0}),  # logits divided after the output layer
        ("cohere", {}),  # likewise, and the attention's rotation is its own
        ("gptj", {"n_head": 4, "rotary_dim": 4}),  # attention of its own, which never asks for ours
        ("bloom", {"n_head": 4}),  # distances from a mask, not from positions
        ("smollm3", {}),  # layers of several kinds: windows could hide from a small comparison
        ("starcoder2", {"sliding_window": 8}),
    ],
)
def test_others_fall_back(model_type, options):
    model = other(model_type, **options)
    before = model.config._attn_implementation
    assert not fits_trees(model)
    assert model.config._attn_implementation == before
    assert falls_back(model)


@pytest.mark.parametrize("model_type", ["granite", "phi", "gpt2"])
def test_another_architecture_that_fits(model_type):
    """Asked by comparison, and indeed equal (phi's output layer has a bias, gpt2's positions are learned)."""
    model = other(model_type, **({"n_embd": 32, "n_head": 4, "n_layer": 3} if model_type == "gpt2" else {})).train()
    assert fits_trees(model)
    assert model.training  # asked in eval mode, given back as it was
    model.eval()
    assert not falls_back(model)
    model.requires_grad_(False)
    layers = {"granite": "all-linear", "phi": ["q_proj", "v_proj", "fc1"], "gpt2": ["c_attn", "c_fc"]}[model_type]
    ours = get_peft_model(model, LoraConfig(r=4, target_modules=layers, init_lora_weights=False)).eval()
    values, slopes = differences(ours, ours, fixed_trees(), 512)
    assert values < 1e-4 and slopes < 1e-4


def test_a_model_with_another_attention_is_asked_by_its_own():
    """An attention that does more than ours (here: halves the scores) must not be replaced before the comparison."""

    def halved(module, query, key, value, mask, scaling=None, blocks=None, **kwargs):
        return sdpa_attention_forward(module, query, key, value, mask, scaling=scaling / 2, **kwargs)

    AttentionInterface.register("halved", halved)
    model = other("granite")
    model.set_attn_implementation("halved")
    assert not fits_trees(model)
    assert model.config._attn_implementation == "halved"
    assert falls_back(model)


def test_the_answer_is_remembered(monkeypatch):
    model = other("phi")
    assert fits_trees(model)
    monkeypatch.setattr("personalign.trees.attention._Attention", None)  # a second comparison would fail
    assert fits_trees(model)


def test_an_adapter_on_the_output_layer():
    """Ours computes the output layer itself, so an adapter there would be left out: fall back, refuse to train."""
    model = tiny_model("llama", VOCABULARY)
    config = LoraConfig(r=4, target_modules=["q_proj", "lm_head"], init_lora_weights=False)
    model = get_peft_model(model, config).eval()
    assert not fits_trees(model)
    assert falls_back(model)
    found = torch.cat([part for parts in logprobs(model, fixed_trees()) for part in parts])
    torch.testing.assert_close(found, padded_logprobs(model, fixed_trees()), rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match="output layer"):
        row_logprobs(model, pack(fixed_trees(), 512)[0])


def test_a_trained_output_layer_is_refused():
    model = tiny_model("llama", VOCABULARY)  # nothing frozen
    with pytest.raises(ValueError, match="output layer"):
        row_logprobs(model, pack(fixed_trees(), 512)[0])
    with torch.no_grad():
        row_logprobs(model, pack(fixed_trees(), 512)[0])
    assert model.config._attn_implementation == attention.NAME
