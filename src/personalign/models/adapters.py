"""LoRA adapters through PEFT: made, loaded and saved in its file format, several on one base."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from personalign.errors import UserError, disk_errors
from personalign.files import write_whole
from personalign.models.lora import speed_up

NEVER_ADAPTED = {"lm_head", "embed_tokens", "embed_out", "embed_in", "wte"}
WEIGHTS, ORIGIN = "adapter_model.safetensors", "personalign.json"
SCORE = "base_model.model.score.weight"  # PEFT's key for the head of AutoModelForSequenceClassification


def add_adapter(
    model: Any,
    *,
    name: str = "default",
    rank: int = 16,
    alpha: float = 32,
    dropout: float = 0.0,
    targets: tuple[str, ...] | None = None,
    seed: int = 0,
    base: str | None = None,
) -> PeftModel:
    """Give the frozen `model` (bare, or with adapters already) a fresh trainable adapter in fp32 (B = 0: the base itself).

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
        target_modules=list(targets) if targets else _linear_layers(model),
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            wrapped = _wrapped(model, config, name)
        except ValueError as error:
            raise UserError(f"lora.targets: {str(error).splitlines()[0]}") from error
    if base is not None:
        wrapped.peft_config[name].base_model_name_or_path = base
    return wrapped


def load_adapter(model: Any, folder: str | Path, *, name: str = "default", trainable: bool = False) -> PeftModel:
    """Give `model` (bare, or with adapters already) the adapter in a PEFT folder; a reward model's head is left out.

    Raises:
        UserError: no adapter there, weights that are not safetensors, or an adapter for another shape of model.
    """
    path = Path(folder)
    if not (path / "adapter_config.json").is_file():
        raise UserError(
            f"--adapter {folder}: no adapter_config.json there; give the folder that training wrote (.../adapter)."
        )
    if not (path / WEIGHTS).is_file():
        raise UserError(f"--adapter {folder}: no {WEIGHTS} there; other formats are refused.")
    try:
        json.loads((path / "adapter_config.json").read_text(encoding="utf-8"))
        config = PeftConfig.from_pretrained(str(path))
        config.inference_mode = not trainable
        state = load_file(path / WEIGHTS)
        if state.pop(SCORE, None) is not None:
            config.task_type, config.modules_to_save = "CAUSAL_LM", None  # type: ignore[attr-defined]
        wrapped = _wrapped(model, config, name)
        loaded: Any = set_peft_model_state_dict(wrapped, state, adapter_name=name)
        unknown = loaded.unexpected_keys
        known = set(get_peft_model_state_dict(wrapped, adapter_name=name, save_embedding_layers=False))
        if unknown or known - set(state):
            raise ValueError(f"it adapts other layers: {sorted(unknown or known - set(state))[0]}")
    except (ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        raise UserError(
            f"--adapter {folder}: it does not fit this base ({str(error).strip().splitlines()[0]}); "
            "load it on the model that it was trained on."
        ) from error
    for parameter in adapter_parameters(wrapped, name).values():
        parameter.requires_grad_(trainable)
    return wrapped if trainable else wrapped.eval()


def _wrapped(model: Any, config: PeftConfig, name: str) -> PeftModel:
    """The model with one more adapter; those it had keep what they were (PEFT would freeze them)."""
    if isinstance(model, PeftModel):
        with _trainable_as_it_was(model):
            model.add_adapter(name, config)
        for parameter in adapter_parameters(model, name).values():
            parameter.requires_grad_(True)
            parameter.data = parameter.data.float()
    else:
        model = get_peft_model(model, config, adapter_name=name)
    speed_up(model)
    return model


def _linear_layers(model: Any) -> list[str]:
    """Names of the linear layers of a model but for its head, as PEFT's "all-linear", with or without adapters."""
    inner: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    head = inner.get_output_embeddings()
    names = {
        path.removesuffix(".base_layer").rpartition(".")[2]
        for path, module in inner.named_modules()
        if isinstance(module, nn.Linear) and module is not head and ".lora_" not in path
    }
    return sorted(names)


def adapter_parameters(model: Any, name: str = "default") -> dict[str, nn.Parameter]:
    """Name -> parameter of the adapter called `name`."""
    own = re.compile(rf"\.lora_\w+\.{re.escape(name)}(\.|$)")
    return {path: parameter for path, parameter in model.named_parameters() if own.search(path)}


def use_adapter(model: PeftModel, name: str) -> None:
    """Make `name` the active adapter, for generation; what is trainable stays so (PEFT would change that)."""
    with _trainable_as_it_was(model):
        model.set_adapter(name)


def save_adapter(
    model: PeftModel,
    folder: str | Path,
    name: str = "default",
    *,
    head: nn.Linear | None = None,
    origin: dict[str, Any] | None = None,
) -> None:
    """Write the adapter `name` as a PEFT folder (adapter_config.json, adapter_model.safetensors).

    With a scalar `head` in PEFT's form for sequence classification, which transformers' reward models are; `origin`
    (base, template, method) goes into personalign.json beside it.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = deepcopy(model.peft_config[name])
    config.inference_mode = True
    # embeddings are never adapted; left to find that out, PEFT would ask the hub for the base's config
    state = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    if head is not None:
        config.task_type, config.modules_to_save = "SEQ_CLS", ["score"]  # type: ignore[attr-defined]
        state[SCORE] = head.weight
    with disk_errors(folder):
        tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in state.items()}
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
        config.save_pretrained(str(folder))
    if origin is not None:
        write_whole(folder / ORIGIN, json.dumps(origin, indent=1) + "\n")


def load_head(folder: str | Path) -> nn.Linear | None:
    """The scalar head of a reward or value model [1, hidden] in fp32, trainable; None for another adapter."""
    path = Path(folder) / WEIGHTS
    weight = load_file(path).get(SCORE) if path.is_file() else None
    if weight is None:
        return None
    head = nn.Linear(weight.shape[1], 1, bias=False, dtype=torch.float32)
    with torch.no_grad():
        head.weight.copy_(weight)
    return head


def check_origin(folder: str | Path, base: str, template: str | None = None) -> None:
    """Raise UserError if the adapter's folder says that it was trained on another base, or under another template.

    `base` is the base's fingerprint, and after a blank how it is quantised ("nf4"), `template` the hash of its chat
    template. A folder of another program says nothing, and is taken at its word.
    """
    path = Path(folder) / ORIGIN
    if not path.is_file():
        return
    origin = json.loads(path.read_text(encoding="utf-8"))
    if origin.get("base") not in (None, base):
        weights, _, kept = origin["base"].partition(" ")
        if weights == base.partition(" ")[0]:
            how = f"with `quantise: {kept}`" if kept else "without `quantise`"
            raise UserError(f"{folder}: this adapter was trained on this base {how}; load it so, or train it again.")
        raise UserError(
            f"{folder}: this adapter was trained on another base ({origin.get('name') or origin['base']}); "
            "give that one as the model, or train it again on this one."
        )
    if template is not None and origin.get("template") not in (None, template):
        raise UserError(
            f"{folder}: this adapter was trained under another chat template; give the same template, or train it again."
        )


@contextmanager
def adapter_disabled(model: Any) -> Iterator[None]:
    """The base's own behaviour inside the block; nothing to do for a bare model."""
    if isinstance(model, PeftModel):
        with _trainable_as_it_was(model), model.disable_adapter():
            yield
    else:
        yield


@contextmanager
def _trainable_as_it_was(model: PeftModel) -> Iterator[None]:
    """PEFT freezes every adapter but the active one whenever adapters are added, chosen or switched back on."""
    before = {parameter: parameter.requires_grad for parameter in model.parameters()}
    try:
        yield
    finally:
        for parameter, trains in before.items():
            parameter.requires_grad_(trains)
