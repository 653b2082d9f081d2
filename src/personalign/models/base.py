"""Base models, loaded frozen, in the precision that the device does well."""

from typing import Any

import torch
from safetensors import SafetensorError

from personalign.conversation import preflight, use_template
from personalign.errors import UserError
from personalign.models.folders import resolve
from personalign.models.quantised import Kind, quantisation_config, take_over

OVERFLOWS_IN_FP16 = {"gemma", "gemma2", "gemma3_text", "gemma3"}


def choose_device(device: str = "auto") -> torch.device:
    """CUDA or Apple's GPU where there is one, else the CPU."""
    if device != "auto":
        return torch.device(device)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def choose_precision(precision: str, device: torch.device, model_type: str) -> str:
    """Resolve "auto" to "bf16", "fp16" or "fp32" for the device, and refuse fp16 where the architecture overflows in it.

    bf16 needs compute capability 8.0 on NVIDIA and AVX512-BF16 or AMX on a CPU (without them it is emulated, slowly).
    """
    if precision == "auto":
        if device.type == "cuda":
            modern = torch.cuda.get_device_capability(device) >= (8, 0)
            precision = "bf16" if modern else "fp32" if model_type in OVERFLOWS_IN_FP16 else "fp16"
        elif device.type == "cpu":
            fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
            precision = "bf16" if fast else "fp32"
        else:
            precision = "fp32"
    if precision == "fp16" and model_type in OVERFLOWS_IN_FP16:
        raise UserError(
            f"precision fp16: {model_type} overflows in it; use `precision: fp32` (or bf16 on a newer GPU)."
        )
    return precision


def load_model(
    name: str,
    *,
    precision: str = "auto",
    device: str = "auto",
    quantise: Kind | None = None,
    template: str | None = None,
    trust_remote_code: bool = False,
) -> tuple[Any, Any]:
    """The base `name`, frozen and in eval mode, and its tokenizer with a chat template that passed preflight.

    `quantise` keeps its linear layers in 4 bits ("nf4") or 8 ("int8"); head, embeddings and arithmetic are in `precision`.

    Raises:
        UserError: as `resolve`; a folder that transformers cannot read; a template that cannot be trained on; a base
            that cannot be quantised here.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    folder = resolve(name)
    where = choose_device(device)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
        chosen = choose_precision(precision, where, config.get_text_config().model_type)
        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[chosen]
        if getattr(config.get_text_config(), "attention_dropout", 0):
            config.get_text_config().attention_dropout = 0.0  # the adapter has a dropout of its own
        placed = {}
        if quantise is not None:
            if getattr(config, "quantization_config", None) is not None:
                raise UserError(f"--model {name}: its weights are quantised already; leave quantise out.")
            placed = {"quantization_config": quantisation_config(quantise, dtype, where), "device_map": {"": where}}
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder, config=config, dtype=dtype, use_safetensors=True, trust_remote_code=trust_remote_code, **placed
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise UserError(
            f"--model {name}: transformers cannot load it ({str(error).strip().splitlines()[0]})."
        ) from error
    if template is not None:
        use_template(tokenizer, template)
    preflight(tokenizer)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.requires_grad_(False)
    take_over(model)
    return (model if placed else model.to(where)).eval(), tokenizer
