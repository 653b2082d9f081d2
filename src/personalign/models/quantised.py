"""Bases in 4 bits (NF4 with double quantisation, as QLoRA: Dettmers et al. 2023) or 8, through bitsandbytes.

bitsandbytes quantises and keeps the weights. What is computed with them is ours: y = x W^T, with W made from its numbers
whenever it is needed, forward and backward, so that it never stays. Its own forward passes will not do: on a processor
with AVX512-BF16 one in eval mode repacks 4-bit weights and rounds their scales, after which the layer passes no gradient
on; and that of 8 bits rounds activations as well, with outliers chosen by all tokens of the pass.
"""

from copy import copy
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import nn

from personalign.errors import UserError
from personalign.models.lora import frozen_linear

Kind = Literal["nf4", "int8"]
_KINDS: dict[str, Kind] = {"Params4bit": "nf4", "Int8Params": "int8"}  # by the class of a layer's weight


def quantisation_config(kind: Kind, dtype: torch.dtype, device: torch.device) -> Any:
    """What `from_pretrained` takes to quantise while it loads; linear layers alone, neither head nor embeddings.

    Raises UserError where bitsandbytes is missing or does not work on the device (it is tried).
    """
    if find_spec("bitsandbytes") is None:
        raise UserError(
            f"quantise {kind}: bitsandbytes is not installed; `pip install 'personalign[quantised]'`, or leave quantise out."
        )
    try:
        from bitsandbytes import functional

        sample = torch.ones(64, dtype=dtype, device=device)
        functional.dequantize_4bit(*functional.quantize_4bit(sample, compress_statistics=True, quant_type="nf4"))
    except Exception as error:  # a missing CUDA library, an unknown device, another version: one remedy
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"quantise {kind}: bitsandbytes does not work on this machine's {device.type} ({first}); leave quantise out."
        ) from error
    from transformers import BitsAndBytesConfig

    if kind == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def quantised_kind(model: nn.Module) -> Kind | None:
    """How the base of `model` is quantised, if it is: part of what its log-probabilities depend on."""
    found = (_KINDS.get(type(parameter).__name__) for parameter in model.parameters())
    return next((kind for kind in found if kind is not None), None)


def is_quantised(layer: nn.Module) -> bool:
    """Whether it is a linear layer whose weight is quantised."""
    return type(getattr(layer, "weight", None)).__name__ in _KINDS


def dequantised(layer: nn.Module) -> torch.Tensor:
    """The weight [out, in] that a quantised linear layer stands for: exactly what training and generation compute with."""
    from bitsandbytes import functional

    weight: Any = layer.weight
    if _KINDS[type(weight).__name__] == "nf4":
        state = weight.quant_state
        if state.shape[-1] % state.blocksize:  # the CPU's kernel would have each row begin a block
            state = copy(state)
            state.shape = torch.Size([state.shape.numel()])
        return functional.dequantize_4bit(weight.data, state).view(weight.quant_state.shape)  # type: ignore[no-any-return]
    own: Any = layer.state  # where its own forward pass, if it ever ran, has put the scales
    scales = weight.SCB if weight.SCB is not None else own.SCB
    return functional.int8_vectorwise_dequant(weight.data, scales)  # type: ignore[no-any-return]


def take_over(model: nn.Module) -> None:
    """Give every quantised layer of `model` the forward pass described above."""
    for layer in model.modules():
        if is_quantised(layer):
            layer.forward = _forward.__get__(layer)


def _forward(layer: Any, x: torch.Tensor) -> torch.Tensor:
    return frozen_linear(x, lambda: dequantised(layer), layer.bias)
