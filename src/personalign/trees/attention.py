"""Attention within trees, as one of transformers' attention implementations.

The linear layers of a model run over a whole row at once; attention alone needs to know about trees. So it is all we
replace: each tree of the row attends within itself under its own small mask. Nothing of size [row, row] is ever made,
and what a layer asks for (sliding window, soft cap, scaling) arrives here as the layer passes it, for every
architecture alike.
"""

from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from personalign.trees.tree import Block

NAME = "personalign_trees"

QUERY_BLOCK = 256  # queries whose scores stand in memory at once
UNFUSED = {"cpu"}  # devices on which plain matrix products are faster than the fused kernel


class _Attention(torch.autograd.Function):
    """softmax(cap(scale q k^T) + mask) v by plain matrix products over blocks of queries; recomputed backwards.

    On a CPU this is more than twice as fast as the fused kernel (bench/dpo_vs_trl.py prints the whole step), and it
    knows soft caps, which no fused kernel there does. A block reads only keys up to its last query: a later token is
    never an ancestor. q is [kv heads, groups, n, dim], k and v are [kv heads, n, dim].
    """

    @staticmethod
    def _weights(
        q: torch.Tensor, k: torch.Tensor, mask: torch.Tensor | None, start: int, scale: float, softcap: float | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Weights [kv heads, groups, block, keys] of the block of queries from `start`, and the soft cap's slope."""
        heads, groups, n, dim = q.shape
        scores = torch.bmm(q.reshape(heads, groups * n, dim) * scale, k.transpose(1, 2)).view(heads, groups, n, -1)
        bend = None
        if softcap is not None:
            capped = torch.tanh(scores / softcap)
            bend, scores = 1 - capped**2, capped * softcap
        end = start + n
        if mask is None:
            seen = torch.ones(n, end, dtype=torch.bool, device=q.device).tril(start)
        else:
            seen = mask[start:end, :end]
        # added and not filled in: one vectorised pass instead of a copy and a slow one
        scores.add_(torch.zeros(n, end, dtype=scores.dtype, device=q.device).masked_fill_(~seen, float("-inf")))
        return scores.softmax(-1), bend

    @staticmethod
    def forward(
        ctx: Any,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        mask: torch.Tensor | None,
        scale: float,
        softcap: float | None,
    ) -> torch.Tensor:
        ctx.save_for_backward(q, k, v)
        ctx.options = (mask, scale, softcap)
        heads, groups, n, dim = q.shape
        out = torch.empty_like(q)
        for start in range(0, n, QUERY_BLOCK):
            end = min(start + QUERY_BLOCK, n)
            weights, _ = _Attention._weights(q[:, :, start:end], k[:, :end], mask, start, scale, softcap)
            out[:, :, start:end] = torch.bmm(weights.view(heads, -1, end), v[:, :end]).view(heads, groups, -1, dim)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        q, k, v = ctx.saved_tensors
        mask, scale, softcap = ctx.options
        heads, groups, n, dim = q.shape
        dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for start in range(0, n, QUERY_BLOCK):
            end = min(start + QUERY_BLOCK, n)
            part = q[:, :, start:end]
            weights, bend = _Attention._weights(part, k[:, :end], mask, start, scale, softcap)
            grad = grads[0][:, :, start:end].reshape(heads, -1, dim)
            flat = weights.view(heads, -1, end)
            dv[:, :end] += torch.bmm(flat.transpose(1, 2), grad)
            slope = torch.bmm(grad, v[:, :end].transpose(1, 2))
            slope = torch._softmax_backward_data(slope, flat, -1, flat.dtype)
            if bend is not None:
                slope = slope * bend.view(heads, -1, end)
            slope = slope * scale
            dq[:, :, start:end] = torch.bmm(slope, k[:, :end]).view(heads, groups, -1, dim)
            dk[:, :end] += torch.bmm(slope.transpose(1, 2), part.reshape(heads, -1, dim))
        return dq, dk, dv, None, None, None


def _attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, scale: float, softcap: float | None
) -> torch.Tensor:
    """Attention of one tree: q [heads, n, dim], k and v [kv heads, n, dim] -> [heads, n, dim]."""
    q, k = q.to(v.dtype), k.to(v.dtype)  # under autocast, rotations and norms leave them in fp32
    grouped = q.view(k.shape[0], -1, *q.shape[1:])
    return _Attention.apply(grouped, k, v, mask, scale, softcap).view_as(q)


def tree_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    blocks: list[Block] | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of one row [1, heads, length, dim] within each of its `blocks`; without blocks, transformers' own.

    Returns [1, length, heads, dim], as transformers expects.
    """
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    if blocks is None:
        if softcap is not None:  # gemma2 generating: transformers has only the eager path for it
            return _eager_softcap(query, key, value, attention_mask, scaling, softcap), None
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **kwargs)
    plain = query.device.type in UNFUSED or softcap is not None
    if plain and dropout:
        raise ValueError("attention dropout is not supported here; set attention_dropout to 0 in the model's config")
    outputs = []
    for block in blocks:
        q, k, v = (x[:, :, block.start : block.end] for x in (query, key, value))
        mask = block.mask(sliding_window, query.device)
        if plain:
            out = _attend(q[0], k[0], v[0], mask, scaling, softcap)[None]
        else:
            out = nn.functional.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=mask is None, scale=scaling, enable_gqa=True
            )
        outputs.append(out.transpose(1, 2))
    return torch.cat(outputs, 1), None


def _eager_softcap(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scale: float, softcap: float
) -> torch.Tensor:
    """transformers' eager attention with a soft cap, under a boolean mask; [batch, n, heads, dim].

    Without a mask (as in its sdpa) one query sees all keys, and several are causal from the first key on: a static
    cache is longer than what it holds.
    """
    groups = query.shape[1] // key.shape[1]
    scores = torch.tanh(query @ repeat_kv(key, groups).transpose(2, 3) * (scale / softcap)) * softcap
    n, m = scores.shape[-2:]
    if mask is None:
        mask = torch.ones(n, m, dtype=torch.bool, device=query.device).tril(m - 1 if n == 1 else 0)
    scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return (scores.softmax(-1, dtype=torch.float32).to(query.dtype) @ repeat_kv(value, groups)).transpose(1, 2)


AttentionInterface.register(NAME, tree_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
