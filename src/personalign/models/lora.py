"""The arithmetic of LoRA layers in one autograd function, under PEFT's own layers, weights and files.

PEFT adds `scaling * lora_B(lora_A(x))` through five tensor operations that each make a copy as wide as the layer, and
casts `x` to the adapter's precision. Here the low-rank product is accumulated into the layer's output in place, the
adapter's fp32 weights meet the base in the base's precision, and the backward pass keeps only what it needs.

Within one forward pass different tokens may go through different adapters, or through none (`routed`): the frozen
matrices see all tokens at once, each adapter only its own.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from peft.tuners.lora.layer import LoraLayer
from torch import nn


class Part(NamedTuple):
    """Tokens [start, end) of a forward pass (end None: all that follow) and the adapter they go through (None: the base).

    `seed` draws the adapter's dropout; without one there is none. The mask is a pure function of seed and layer: the
    same however the pass is composed, when it is run again by gradient checkpointing, and after a resume.
    """

    start: int
    end: int | None
    adapter: str | None
    seed: int | None = None


class _Piece(NamedTuple):
    """A part as a layer sees it: its tokens, the scale of its update, its dropout and the seed of that."""

    tokens: slice
    scale: float
    dropout: float
    seed: int


class _LoraLinear(torch.autograd.Function):
    """y = x W^T + b + scale (drop(x) A^T) B^T, W and b frozen; gradients for x and each A and B (Hu et al. 2021, eq. 3).

    `weight` is called once forward and once backward, so that a quantised W never stays in memory whole. `matrices` are
    the A and B of each piece in turn.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: Callable[[], torch.Tensor],
        bias: torch.Tensor | None,
        pieces: Sequence[_Piece],
        *matrices: torch.Tensor,
    ) -> torch.Tensor:
        flat = x.reshape(-1, x.shape[-1])
        out = nn.functional.linear(flat, weight().to(x.dtype), bias)
        kept = []
        for piece, a, b in zip(pieces, matrices[::2], matrices[1::2], strict=True):
            low_a, low_b = a.to(x.dtype), b.to(x.dtype)
            inner = _dropped(flat[piece.tokens], piece) @ low_a.t()
            out[piece.tokens].addmm_(inner, low_b.t(), alpha=piece.scale)
            kept += [inner, low_a, low_b]
        ctx.save_for_backward(flat, *kept)
        ctx.weight, ctx.pieces, ctx.shape = weight, pieces, x.shape
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        flat, *kept = ctx.saved_tensors
        grad = grads[0].reshape(-1, grads[0].shape[-1])
        dx = grad @ ctx.weight().to(grad.dtype) if ctx.needs_input_grad[0] else None
        found = []
        for piece, inner, a, b in zip(ctx.pieces, kept[::3], kept[1::3], kept[2::3], strict=True):
            part = grad[piece.tokens]
            low = (part @ b).mul_(piece.scale)
            found += [
                (low.t() @ _dropped(flat[piece.tokens], piece)).float(),
                (part.t() @ inner).mul_(piece.scale).float(),
            ]
            if dx is not None and piece.dropout:
                dx[piece.tokens] += _dropped(low @ a, piece)
            elif dx is not None:
                dx[piece.tokens].addmm_(low, a)
        return dx.view(ctx.shape) if dx is not None else None, None, None, None, *found


def frozen_linear(x: torch.Tensor, weight: Callable[[], torch.Tensor], bias: torch.Tensor | None) -> torch.Tensor:
    """x W^T + b [..., out] for a frozen W [out, in] that is made when it is needed and not kept for the backward pass."""
    return _LoraLinear.apply(x, weight, bias, ())  # type: ignore[no-any-return]


def _dropped(x: torch.Tensor, piece: _Piece) -> torch.Tensor:
    """`x` [tokens, width] under the piece's dropout mask, the rest scaled up; the same mask for the same seed."""
    if not piece.dropout:
        return x
    generator = torch.Generator(x.device).manual_seed(piece.seed)
    kept = torch.rand(x.shape, generator=generator, device=x.device) >= piece.dropout
    return x * kept.to(x.dtype).div_(1 - piece.dropout)


class _Routing:
    """What `routed` sets and every layer of a model reads."""

    parts: Sequence[Part] | None = None


@contextmanager
def routed(model: nn.Module, parts: Sequence[Part]) -> Iterator[None]:
    """Send the tokens of forward passes of batch 1 inside the block through the adapters that `parts` name.

    The backward pass belongs inside as well: gradient checkpointing runs layers again. Outside the block PEFT's active
    adapter counts.
    """
    routing: Any = getattr(model, "_personalign_routing", None)
    if routing is None:
        if any(part.adapter is not None for part in parts):
            raise ValueError("this model has no adapters: add one first")
        yield  # the bare base
        return
    before, routing.parts = routing.parts, parts
    try:
        yield
    finally:
        routing.parts = before


def _forward(layer: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """The layer's forward pass where it is a plain LoRA on a frozen linear layer, else PEFT's own."""
    parts, base = layer._personalign_routing.parts, layer.base_layer
    if parts is None:
        active = [name for name in layer.active_adapters if name in layer.lora_A]
        drops = layer.training and any(not isinstance(layer.lora_dropout[name], nn.Identity) for name in active)
        if args or kwargs or layer.merged or len(active) > 1 or drops or torch.is_autocast_enabled(x.device.type):
            return type(layer).forward(layer, x, *args, **kwargs)
        if layer.disable_adapters or not active:
            return base(x)  # type: ignore[no-any-return]
        parts = [Part(0, None, active[0])]
    pieces: list[_Piece] = []
    matrices: list[torch.Tensor] = []
    for part in parts:
        name = part.adapter
        if name is None or name not in layer.lora_A:
            continue
        if not _plain(layer, name):
            if layer._personalign_routing.parts is not None:
                raise ValueError(f"adapter {name}: only plain LoRA on frozen linear layers can be routed")
            return type(layer).forward(layer, x, *args, **kwargs)
        drop = layer.lora_dropout[name]
        rate = 0.0 if part.seed is None or isinstance(drop, nn.Identity) else drop.p
        seed = ((part.seed or 0) * 1_000_003 + layer._personalign_index) % 2**63
        pieces.append(_Piece(slice(part.start, part.end), layer.scaling[name], rate, seed))
        matrices += [layer.lora_A[name].weight, layer.lora_B[name].weight]
    if not pieces and type(base) is nn.Linear:
        return base(x)  # type: ignore[no-any-return]
    return _LoraLinear.apply(x, lambda: _frozen(base), base.bias, pieces, *matrices)  # type: ignore[no-any-return]


def _plain(layer: Any, name: str) -> bool:
    """Whether the adapter `name` of the layer is LoRA as in the paper, in fp32, on frozen weights."""
    return (
        name not in layer.lora_variant
        and layer.lora_A[name].weight.dtype == torch.float32
        and layer.lora_B[name].bias is None
        and not any(weight.requires_grad for weight in layer.base_layer.parameters())
    )


def _frozen(base: nn.Linear) -> torch.Tensor:
    """The weight [out, in] of a frozen layer; of a quantised one what its numbers stand for."""
    if type(base) is nn.Linear:
        return base.weight
    from personalign.models.quantised import dequantised

    return dequantised(base)


def speed_up(model: nn.Module) -> int:
    """Route every `peft` LoRA layer on a linear layer of `model` through the one function above; how many there are.

    To be called again whenever adapters were added.
    """
    routing = getattr(model, "_personalign_routing", None) or _Routing()
    object.__setattr__(model, "_personalign_routing", routing)
    layers = [m for m in model.modules() if isinstance(m, LoraLayer) and isinstance(m.base_layer, nn.Linear)]
    for index, layer in enumerate(layers):
        layer._personalign_routing, layer._personalign_index = routing, index  # type: ignore[assignment]
        layer.forward = _forward.__get__(layer)  # type: ignore[method-assign]
    return len(layers)
