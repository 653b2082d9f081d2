"""How much memory a training step will take, asked before it starts."""

from pathlib import Path
from typing import Any

import psutil
import torch

from personalign.errors import UserError
from personalign.trees.logprobs import CHUNK_ELEMENTS


def estimate(model: Any, row_tokens: int, gradient_checkpointing: bool) -> int:
    """Bytes that training adds to a loaded model: adapter with gradient and AdamW's moments, activations, logits.

    Activations that a decoder layer keeps for its backward pass, a token: about 8 tensors as wide as the model in fp32
    (the norms) or the model's precision, and 4 as wide as the MLP. Checked against measured peaks in the tests.
    """
    config = model.config.get_text_config() if hasattr(model.config, "get_text_config") else model.config
    adapter = sum(p.numel() for p in model.parameters() if p.requires_grad)
    size = next(model.parameters()).element_size()
    hidden, layers = config.hidden_size, config.num_hidden_layers
    token = hidden * (4 * 4 + 8 * size) + config.intermediate_size * 4 * size
    kept = token + layers * hidden * size if gradient_checkpointing else token * layers
    return adapter * 16 + row_tokens * kept + CHUNK_ELEMENTS * 4 * 3


def available(device: torch.device, group: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes free on the device; on the CPU also within the control group (a container's limit)."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = psutil.virtual_memory().available
    limit, used = group / "memory.max", group / "memory.current"
    if limit.is_file() and used.is_file() and (text := limit.read_text().strip()).isdigit():
        free = min(free, int(text) - int(used.read_text()) + _cached(group / "memory.stat"))
    return int(free)


def _cached(path: Path) -> int:
    """Bytes of files (the model's, just read) that the control group counts and would give back."""
    lines = path.read_text().splitlines() if path.is_file() else []
    return next((int(line.split()[1]) for line in lines if line.startswith("inactive_file ")), 0)


def require_memory(model: Any, row_tokens: int, gradient_checkpointing: bool) -> None:
    """Raise UserError if the estimate exceeds what the model's device has free."""
    need, free = estimate(model, row_tokens, gradient_checkpointing), available(next(model.parameters()).device)
    if need > free:
        raise UserError(
            f"this training step needs about {need / 2**30:.1f} GiB beside the model and {free / 2**30:.1f} GiB are free; "
            "lower row_tokens or max_length, set gradient_checkpointing, or start anyway with ignore_memory."
        )
