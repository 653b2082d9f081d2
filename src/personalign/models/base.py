"""Base models: by name, local folder or hub id; loaded frozen, in the precision that the device does well."""

import hashlib
import re
from pathlib import Path
from typing import Any

import torch

from personalign.conversation import preflight, use_template
from personalign.errors import UserError
from personalign.models.embedded import EMBEDDED, embedded_folder
from personalign.trees import attention

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
OVERFLOWS_IN_FP16 = {"gemma", "gemma2", "gemma3_text", "gemma3"}
WANTED_FILES = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "tokenizer.model", "*.txt"]


def resolve(name: str) -> Path:
    """Local folder of the base `name`: an embedded model, an existing folder, or a hub id (fetched into the hub's cache).

    Raises:
        UserError: an unknown name, a path that climbs (`../`), a folder without config or without safetensors.
    """
    if name in EMBEDDED:
        return embedded_folder(name)
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UserError(f"--model {name}: no config.json in this folder; give the folder that save_pretrained wrote.")
        if not list(folder.glob("*.safetensors")):
            raise UserError(
                f"--model {name}: no weights (*.safetensors) in this folder; other formats can run code when read "
                "and are refused: convert them once with save_pretrained."
            )
        return folder
    if ".." in name or not HUB_ID.fullmatch(name):
        raise UserError(
            f"--model {name}: neither an embedded model ({', '.join(EMBEDDED)}) nor a folder here nor a hub id (org/name)."
        )
    from huggingface_hub import snapshot_download

    try:
        fetched = Path(snapshot_download(name, allow_patterns=WANTED_FILES))
    except Exception as error:  # the hub's errors are of many kinds; each ends in the same two remedies
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"--model {name}: the hub did not give it ({first}). Check the name, the network and, for a gated model, "
            "`hf auth login`; or give a local folder."
        ) from error
    if not list(fetched.glob("*.safetensors")):
        raise UserError(f"--model {name}: it has no safetensors weights, and other formats are refused.")
    return fetched


def fingerprint(name: str) -> str:
    """SHA-256 (16 hex digits) over the content of the base's config, tokenizer, template and weights."""
    digest = hashlib.sha256()
    for path in sorted(resolve(name).iterdir()):
        if path.suffix in {".safetensors", ".json", ".jinja", ".model"}:
            digest.update(path.name.encode())
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


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
        raise UserError(f"precision fp16: {model_type} overflows in it; use `precision: fp32` (or bf16 on a newer GPU).")
    return precision


def load_model(
    name: str,
    *,
    precision: str = "auto",
    device: str = "auto",
    template: str | None = None,
    trust_remote_code: bool = False,
) -> tuple[Any, Any]:
    """The base `name`, frozen and in eval mode, and its tokenizer with a chat template that passed preflight.

    Raises:
        UserError: as `resolve`; a folder that transformers cannot read; a template that cannot be trained on.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    folder = resolve(name)
    where = choose_device(device)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
        chosen = choose_precision(precision, where, config.get_text_config().model_type)
        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[chosen]
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, trust_remote_code=trust_remote_code
        )
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"--model {name}: transformers cannot load it ({str(error).strip().splitlines()[0]}).") from error
    if template is not None:
        use_template(tokenizer, template)
    preflight(tokenizer)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.config.get_text_config()._attn_implementation = attention.NAME
    model.requires_grad_(False)
    return model.to(where).eval(), tokenizer
