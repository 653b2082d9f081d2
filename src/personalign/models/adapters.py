"""LoRA adapters through PEFT: made, loaded and saved in its file format."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import SafetensorError

from personalign.errors import UserError, disk_errors
from personalign.models.lora import speed_up

NEVER_ADAPTED = {"lm_head", "embed_tokens", "embed_out", "embed_in", "wte"}


def add_adapter(
    model: Any,
    *,
    rank: int = 16,
    alpha: float = 32,
    dropout: float = 0.0,
    targets: tuple[str, ...] | None = None,
    seed: int = 0,
    base: str | None = None,
) -> PeftModel:
    """Wrap the frozen `model` with a fresh trainable adapter in fp32 (B = 0, so it starts as the base).

    `targets` are names of linear layers (default: all but the head); `base` is written into the adapter's config as the
    model it belongs to. Raises UserError for a target that does not exist, or for the head and embeddings.
    """
    if targets and NEVER_ADAPTED & set(targets):
        raise UserError(
            f"lora.targets: {', '.join(sorted(NEVER_ADAPTED & set(targets)))} cannot be adapted: such an adapter does not "
            "survive conversion to GGUF; name attention and MLP projections."
        )
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # PEFT scales by any number
        lora_dropout=dropout,
        target_modules=list(targets) if targets else "all-linear",
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            wrapped = get_peft_model(model, config, adapter_name="default")
        except ValueError as error:
            raise UserError(f"lora.targets: {str(error).splitlines()[0]}") from error
    if base is not None:
        wrapped.peft_config["default"].base_model_name_or_path = base
    speed_up(wrapped)
    return wrapped


def load_adapter(model: Any, folder: str | Path, *, trainable: bool = False) -> PeftModel:
    """Wrap `model` with the adapter in a PEFT folder.

    Raises:
        UserError: no adapter there, weights that are not safetensors, or an adapter for another shape of model.
    """
    path = Path(folder)
    if not (path / "adapter_config.json").is_file():
        raise UserError(
            f"--adapter {folder}: no adapter_config.json there; give the folder that training wrote (.../adapter)."
        )
    if not (path / "adapter_model.safetensors").is_file():
        raise UserError(f"--adapter {folder}: no adapter_model.safetensors there; other formats are refused.")
    try:
        json.loads((path / "adapter_config.json").read_text(encoding="utf-8"))
        wrapped = PeftModel.from_pretrained(model, str(path), is_trainable=trainable, use_safetensors=True)
    except (ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise UserError(
            f"--adapter {folder}: it does not fit this base ({str(error).strip().splitlines()[0]}); "
            "load it on the model that it was trained on."
        ) from error
    speed_up(wrapped)
    return wrapped if trainable else wrapped.eval()


def save_adapter(model: PeftModel, folder: str | Path) -> None:
    """Write the adapter as a PEFT folder (adapter_config.json, adapter_model.safetensors).

    Embeddings are never adapted; left to find that out, PEFT would ask the hub for the base's config.
    """
    with disk_errors(Path(folder)):
        model.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False)


@contextmanager
def adapter_disabled(model: Any) -> Iterator[None]:
    """The base's own behaviour inside the block; nothing to do for a bare model."""
    if isinstance(model, PeftModel):
        with model.disable_adapter():
            yield
    else:
        yield
