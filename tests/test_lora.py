"""The fused LoRA layer computes what PEFT's own does, and steps aside where it would not."""

import copy
from contextlib import nullcontext

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from padded import adapted
from personalign.models import lora
from personalign.models.lora import speed_up


class Net(nn.Module):
    """Two linear layers around a bend, one with a bias."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(12, 20), nn.Linear(20, 6, bias=False)

    def forward(self, x):
        return self.down(torch.tanh(self.up(x)))


def wrapped(dtype: torch.dtype = torch.float32, **options) -> PeftModel:
    torch.manual_seed(0)
    settings = {"r": 4, "lora_alpha": 10, "target_modules": ["up", "down"], "init_lora_weights": False} | options
    return get_peft_model(Net().to(dtype), LoraConfig(**settings)).eval()


def inputs(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(3, 5, 12, generator=torch.Generator().manual_seed(1)).to(dtype)


def outcome(model: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The output, and the gradients of x and of every trainable weight, for an uneven loss."""
    x = x.clone().requires_grad_()
    model.zero_grad()
    torch.manual_seed(2)  # dropout draws the same
    out = model(x)
    (out.float() * torch.cos(torch.arange(out.numel()).view_as(out))).sum().backward()
    found = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    return out.detach(), {"x": x.grad, **found}


@pytest.fixture
def uses(monkeypatch):
    """A list that grows by one for every layer that goes through the fused function."""
    calls = []
    apply = lora._LoraLinear.apply
    monkeypatch.setattr(lora._LoraLinear, "apply", lambda *args: calls.append(1) or apply(*args))
    return calls


def compare(model: PeftModel, x: torch.Tensor, context=lambda model: nullcontext()) -> None:
    """Output within 1e-5 and gradients (the same ones) within 1e-5 of PEFT's own, in `context`."""
    plain, fused = copy.deepcopy(model), model
    for module in plain.modules():
        vars(module).pop("forward", None)  # where an earlier comparison has made it fast
    assert speed_up(fused) == 2
    results = []
    for each in (plain, fused):
        with context(each):
            results.append(outcome(each, x))
    (expected, slopes), (found, again) = results
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert again.keys() == slopes.keys()
    for name in slopes:
        torch.testing.assert_close(again[name], slopes[name], rtol=1e-5, atol=1e-5, msg=name)


@pytest.mark.parametrize("options", [{}, {"use_rslora": True}, {"r": 1}], ids=str)
def test_equals_peft(options, uses):
    """A base with a bias or without, any rank and scaling."""
    compare(wrapped(**options).train(), inputs())
    assert len(uses) == 2


def test_dropout_drops_nothing_in_eval_mode(uses):
    compare(wrapped(lora_dropout=0.5).eval(), inputs())
    assert len(uses) == 2


@pytest.mark.parametrize(
    "options",
    [{"lora_dropout": 0.5}, {"use_dora": True}, {"lora_bias": True}, {"bias": "all"}, {"bias": "lora_only"}],
    ids=str,
)
def test_steps_aside_for_what_it_does_not_know(options, uses):
    """In training mode: dropout, DoRA, a bias in B, trained biases of the base (a layer without any is fused)."""
    compare(wrapped(**options).train(), inputs())
    assert len(uses) == (1 if "bias" in options else 0)


def test_disabled_adapter(uses):
    model = wrapped()
    compare(model, inputs(), lambda each: each.disable_adapter())
    assert len(uses) == 0
    with model.disable_adapter():
        torch.testing.assert_close(model(inputs()), model.get_base_model()(inputs()), rtol=0, atol=0)
    assert outcome(model, inputs())[1].keys() > {"x"}  # and it is back afterwards
    assert len(uses) == 2


def test_merged_and_unmerged(uses):
    model = wrapped()
    speed_up(model)
    expected, _ = outcome(model, inputs())
    model.merge_adapter()
    torch.testing.assert_close(outcome(model, inputs())[0], expected, rtol=1e-5, atol=1e-5)
    assert len(uses) == 2  # not while merged
    model.unmerge_adapter()
    torch.testing.assert_close(outcome(model, inputs())[0], expected, rtol=1e-5, atol=1e-5)
    assert len(uses) == 4
    torch.testing.assert_close(model.merge_and_unload()(inputs()), expected, rtol=1e-5, atol=1e-5)


def test_several_adapters(uses):
    model = wrapped()
    model.add_adapter("other", LoraConfig(r=2, lora_alpha=3, target_modules=["up"], init_lora_weights=False))
    compare(model, inputs())  # one of two
    model.set_adapter("other")
    compare(model, inputs())  # the other, which leaves a layer alone
    assert len(uses) == 3
    model.base_model.set_adapter(["default", "other"])
    compare(model, inputs())  # both at once: fused only where there is one
    assert len(uses) == 4


def test_trained_base_weights():
    model = wrapped()
    model.requires_grad_(True)
    compare(model, inputs())


def test_frozen_adapter_and_no_gradient(uses):
    model = wrapped()
    model.requires_grad_(False)
    compare(model, inputs())
    with torch.no_grad():
        model(inputs())
    assert len(uses) == 4


def test_bf16_base_with_fp32_adapter():
    """As near the exact result as PEFT's own layer, and fp32 gradients for the adapter."""
    model = wrapped(torch.bfloat16)
    assert model.base_model.model.up.lora_A["default"].weight.dtype == torch.float32
    exact, slopes = outcome(copy.deepcopy(model).double(), inputs(torch.bfloat16).double())
    errors = []
    for each in (copy.deepcopy(model), model):
        if each is model:
            speed_up(each)
        out, grads = outcome(each, inputs(torch.bfloat16))
        assert out.dtype == torch.bfloat16
        assert all(grad.dtype == torch.float32 for name, grad in grads.items() if name != "x")
        errors.append(
            [((out - exact).norm() / exact.norm()).item()]
            + [((grads[name] - slopes[name]).norm() / slopes[name].norm()).item() for name in slopes]
        )
    for theirs, ours in zip(*errors, strict=True):
        assert ours < max(2 * theirs, 0.01)


def test_half_precision_adapters_and_autocast_are_left_to_peft(uses):
    model = wrapped().to(torch.bfloat16)
    compare(model, inputs(torch.bfloat16))
    compare(wrapped(), inputs(), lambda each: torch.autocast("cpu", torch.bfloat16))
    assert len(uses) == 0


def test_every_layer_of_a_model(uses):
    """Attention and MLP layers of a whole model, in one forward pass."""
    model = adapted("qwen2", fused=True)
    model(torch.arange(9)[None])
    assert len(uses) == 7 * model.config.num_hidden_layers
    assert speed_up(model.get_base_model().lm_head) == 0
