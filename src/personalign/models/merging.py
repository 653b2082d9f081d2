"""An adapter merged into its base, and what that did to the log-probabilities: measured, not assumed.

Weights are summed in fp32 and rounded once, to the precision in which they are saved. A quantised base is merged as it was
trained: the adapter learned beside the weights that the 4 or 8 bits stand for, and not beside those they were made from.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import PeftModel
from peft.tuners.lora.layer import LoraLayer
from torch import nn

from personalign.conversation import Message, conversation_sequences
from personalign.errors import UserError
from personalign.files import write_whole
from personalign.models.adapters import load_adapter, load_head
from personalign.models.base import load_model
from personalign.models.quantised import Kind, dequantised, is_quantised

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
MEASURED = "merge.json"


class Seen(NamedTuple):
    """What a model says of the counted tokens of some texts: log-probabilities, and its likeliest tokens [tokens]."""

    logprobs: torch.Tensor
    likeliest: torch.Tensor


def merge(
    model_name: str,
    adapter: str | Path,
    output: str | Path,
    *,
    quantise: Kind | None = None,
    rows: Sequence[Sequence[Message]],
    precision: str = "auto",
    saved: str | None = None,
    template: str | None = None,
    trust_remote_code: bool = False,
) -> dict[str, Any]:
    """Merge the PEFT folder `adapter` into the base, save model, tokenizer and template in `output`, and measure it there.

    `precision` is that of training, `saved` that of the merged weights (the same, if not given). The saved model is
    loaded again and compared with base + adapter over the answers in `rows` (conversations); for a quantised base also
    with what comes of merging into the original weights. Returns what merge.json beside the weights holds.

    Raises UserError for an output that exists, an adapter that is more than LoRA, and as load_model and load_adapter.
    """
    output = Path(output)
    if output.exists():
        raise UserError(f"--output {output}: exists already; name another folder, or remove it first.")
    options: dict[str, Any] = {"template": template, "trust_remote_code": trust_remote_code}
    model, tokenizer = load_model(model_name, precision=precision, quantise=quantise, **options)
    texts = [sequence for row in rows for sequence in conversation_sequences(tokenizer, row)]
    precision = next(name for name, dtype in DTYPES.items() if dtype == model.get_input_embeddings().weight.dtype)
    saved = saved or precision
    if load_head(adapter) is not None:
        raise UserError(f"--adapter {adapter}: a reward model; its head has no place in a language model.")
    wrapped = load_adapter(model, adapter)
    before = look(wrapped, texts)
    merged = fold(wrapped, DTYPES[saved])
    work = output.with_name(output.name + ".partial")
    shutil.rmtree(work, ignore_errors=True)
    merged.save_pretrained(work)
    tokenizer.save_pretrained(work)
    del model, wrapped, merged
    found: dict[str, Any] = {
        "model": model_name, "adapter": str(adapter), "quantise": quantise, "precision": precision, "saved": saved,
        "texts": len(texts), "tokens": len(before.logprobs),
        "merged": compare(before, look(load_model(str(work), precision=saved)[0], texts)),
    }  # fmt: skip
    if quantise is not None:
        original = load_adapter(load_model(model_name, precision=precision, **options)[0], adapter)
        found["into_original"] = compare(before, look(fold(original, DTYPES[saved]), texts))
    write_whole(work / MEASURED, json.dumps(found, indent=1) + "\n")
    work.rename(output)
    return found


def fold(wrapped: PeftModel, dtype: torch.dtype) -> Any:
    """The base inside, every linear layer plain and in `dtype`, with the active adapter in its weights. `wrapped` is used up.

    Layer by layer, so that a quantised model never stands in memory beside a whole one. Raises UserError for an adapter
    that holds more than LoRA matrices.
    """
    name = wrapped.active_adapter
    config: Any = wrapped.peft_config[name]
    inner: Any = wrapped.get_base_model()
    head = inner.get_output_embeddings()
    layers = [module for module in inner.modules() if isinstance(module, LoraLayer)]
    plain = all(isinstance(layer.base_layer, nn.Linear) and layer is not head for layer in layers)
    if config.modules_to_save or config.use_dora or config.bias != "none" or not plain:
        raise UserError(
            "--adapter: only plain LoRA on the decoder's linear layers can be merged here (no DoRA, no trained biases, "
            "embeddings or head)."
        )
    for path, module in list(inner.named_modules()):
        adapted = isinstance(module, LoraLayer)
        if not adapted and (path.endswith(".base_layer") or not is_quantised(module)):
            continue
        base: Any = module.base_layer if adapted else module
        weight = (dequantised(base) if is_quantised(base) else base.weight.data).float()
        if adapted:
            weight += module.get_delta_weight(name).float()  # type: ignore[operator]
        if is_quantised(base):
            bias, base = base.bias, nn.Linear(base.in_features, base.out_features, bias=False, device="meta")
            base.bias = bias
        base.weight = nn.Parameter(weight.to(dtype), requires_grad=False)
        inner.set_submodule(path, base)
    _forget_quantisation(inner)
    return inner.to(dtype)


def _forget_quantisation(model: Any) -> None:
    """Take off what transformers notes of a quantised model: it is none any more."""
    for mark in ("hf_quantizer", "quantization_method", "is_loaded_in_4bit", "is_loaded_in_8bit", "is_quantized"):
        if mark in vars(model):
            delattr(model, mark)
    for config in (model.config, model.config.get_text_config()):
        if hasattr(config, "quantization_config"):
            del config.quantization_config


@torch.no_grad()
def look(model: Any, texts: Sequence[tuple[Sequence[int], Sequence[bool]]]) -> Seen:
    """What `model` says of the counted tokens of texts (token ids, and which of them count), by its own forward pass."""
    device = model.get_input_embeddings().weight.device
    logprobs, likeliest = [], []
    for ids, counts in texts:
        first = list(counts).index(True)
        whole = torch.tensor([list(ids)], device=device)
        logits = model(input_ids=whole, use_cache=False, logits_to_keep=len(ids) - first + 1).logits[0, :-1].float()
        counted = torch.tensor(list(counts[first:]), device=device)
        found = logits.log_softmax(-1)[counted]
        logprobs.append(found.gather(1, whole[0, first:][counted][:, None])[:, 0].cpu())
        likeliest.append(found.argmax(-1).cpu())
    return Seen(torch.cat(logprobs), torch.cat(likeliest))


def compare(one: Seen, other: Seen) -> dict[str, float]:
    """Mean and largest |difference| of a token's log-probability (nats), and the share whose likeliest token is the same."""
    difference = (one.logprobs - other.logprobs).double().abs()
    return {
        "mean_difference": round(float(difference.mean()), 6),
        "largest_difference": round(float(difference.max()), 6),
        "same_likeliest": round(float((one.likeliest == other.likeliest).double().mean()), 6),
    }
