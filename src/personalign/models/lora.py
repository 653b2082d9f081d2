"""The arithmetic of a LoRA layer in one autograd function, under PEFT's own layers, weights and files.

PEFT adds `scaling * lora_B(lora_A(x))` through five tensor operations that each make a copy as wide as the layer, and
casts `x` to the adapter's precision. Here the low-rank product is accumulated into the layer's output in place, the
adapter's fp32 weights meet the base in the base's precision, and the backward pass keeps only what it needs.
"""

from typing import Any

import torch
from peft.tuners.lora.layer import Linear
from torch import nn


class _LoraLinear(torch.autograd.Function):
    """y = x W^T + b + scale (x A^T) B^T with W and b frozen; gradients for x, A and B (Hu et al. 2021, eq. 3)."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        a: torch.Tensor,
        b: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        flat, low_a, low_b = x.reshape(-1, x.shape[-1]), a.to(x.dtype), b.to(x.dtype)
        inner = flat @ low_a.t()
        out = nn.functional.linear(flat, weight, bias).addmm_(inner, low_b.t(), alpha=scale)
        ctx.save_for_backward(flat, inner, weight, low_a, low_b)
        ctx.scale, ctx.shape = scale, x.shape
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        flat, inner, weight, a, b = ctx.saved_tensors
        grad = grads[0].reshape(-1, grads[0].shape[-1])
        low = (grad @ b).mul_(ctx.scale)
        dx = None
        if ctx.needs_input_grad[0]:
            dx = (grad @ weight).addmm_(low, a).view(ctx.shape)
        da = low.t() @ flat
        db = (grad.t() @ inner).mul_(ctx.scale)
        return dx, None, None, da.float(), db.float(), None


def _forward(layer: Linear, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """The layer's forward pass where it is a plain LoRA on a frozen linear layer, else PEFT's own."""
    active = [name for name in layer.active_adapters if name in layer.lora_A]
    name = active[0] if len(active) == 1 else ""
    if (
        layer.disable_adapters
        or layer.merged
        or not name
        or name in layer.lora_variant
        or args
        or kwargs
        or torch.is_autocast_enabled(x.device.type)
        or (layer.training and not isinstance(layer.lora_dropout[name], nn.Identity))
        or layer.lora_A[name].weight.dtype != torch.float32
        or any(weight.requires_grad for weight in layer.base_layer.parameters())
        or layer.lora_B[name].bias is not None
    ):
        return type(layer).forward(layer, x, *args, **kwargs)
    base = layer.base_layer
    a, b, scale = layer.lora_A[name].weight, layer.lora_B[name].weight, layer.scaling[name]
    return _LoraLinear.apply(x, base.weight, base.bias, a, b, scale)


def speed_up(model: nn.Module) -> int:
    """Route every plain `peft` LoRA linear layer of `model` through the one function above; how many there were."""
    layers = [m for m in model.modules() if type(m) is Linear and type(m.base_layer) is nn.Linear]
    for layer in layers:
        layer.forward = _forward.__get__(layer)  # type: ignore[method-assign]
    return len(layers)
