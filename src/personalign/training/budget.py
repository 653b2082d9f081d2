"""What memory there is, held against what training needs (memory.py), before the first step."""

import ctypes
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import torch

from personalign.errors import UserError
from personalign.models.quantised import quantised_kind
from personalign.training.memory import estimate, shape_of
from personalign.training.settings import PpoSettings, TrainSettings

GROUP = Path("/sys/fs/cgroup")
UNITS = {"mib": 2**20, "gib": 2**30, "tib": 2**40, "mb": 10**6, "gb": 10**9, "tb": 10**12}
STEP = 64  # tokens by which a row budget is tried


def fit_memory(
    model: Any, settings: TrainSettings, *, longest: int, tokens: int | None = None, adapters: int = 1
) -> dict[str, Any]:
    """What to change in the settings so that training `model`, which has its adapters, stays in max_memory, if that is set.

    Rows (`row_tokens`) are as long as they can be, down from the settings' and never shorter than the `longest` tree;
    `gradient_checkpointing` is switched on only where they do not fit without. The same model, settings and data give
    the same values. `tokens` is what all trees have, `adapters` how many are trained in one pass.

    Raises UserError if nothing fits, and, unless ignore_memory is set, if the device has less free than is needed.
    """
    device = next(model.parameters()).device

    def need(row_tokens: int, checkpointing: bool) -> dict[str, int]:
        there = min(row_tokens, tokens or row_tokens)
        changed = {"row_tokens": there, "gradient_checkpointing": checkpointing}
        return _estimate(model, settings.model_copy(update=changed), longest, adapters)

    chosen, changes = (settings.row_tokens, settings.gradient_checkpointing), {}
    if settings.max_memory is not None:
        limit = memory_limit(settings.max_memory, device)
        lengths = range(max(longest, settings.row_tokens), longest, -STEP)
        tried = [
            (row_tokens, checkpointing)
            for checkpointing in sorted({settings.gradient_checkpointing, True})
            for row_tokens in (*lengths, longest)
        ]
        fitting = next((each for each in tried if need(*each)["peak"] <= limit), None)
        if fitting is None:
            least = need(longest, True)
            raise UserError(
                f"max_memory {settings.max_memory}: the longest example ({longest} tokens) alone, with "
                f"gradient_checkpointing, needs about {gib(least['peak'])} ({in_words(least)}); raise max_memory, lower "
                "max_length, or give `quantise: nf4`."
            )
        chosen, parts = fitting, need(*fitting)
        changes = {"row_tokens": chosen[0], "gradient_checkpointing": chosen[1]}
        print(
            f"max_memory {settings.max_memory}: row_tokens {chosen[0]}, gradient_checkpointing "
            f"{'on' if chosen[1] else 'off'} (about {gib(parts['peak'])}: {in_words(parts)})",
            file=sys.stderr,
        )
    if not settings.ignore_memory:
        parts = need(*chosen)
        more, free = parts["peak"] - parts["base"] - parts["adapters"], available(device)
        if more > free:
            raise UserError(
                f"this training step needs about {gib(more)} beside the model and {gib(free)} are free; lower row_tokens or "
                "max_length, set gradient_checkpointing (max_memory chooses both), or start anyway with ignore_memory."
            )
    return changes


def _estimate(model: Any, settings: TrainSettings, longest: int, adapters: int) -> dict[str, int]:
    """`estimate` with what the loaded model weighs."""
    weights = list(model.named_parameters())
    base = sum(weight_bytes(parameter) for name, parameter in weights if ".lora_" not in name)
    trained = sum(parameter.numel() for _, parameter in weights if parameter.requires_grad)
    dtype = model.get_input_embeddings().weight.dtype
    return estimate(
        shape_of(model.config),
        settings,
        precision={torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}[dtype],
        quantise=quantised_kind(model),
        adapters=adapters,
        longest=longest,
        device=next(model.parameters()).device.type,
        base=base,
        adapter=trained // (2 if isinstance(settings, PpoSettings) else adapters),
    )


def weight_bytes(parameter: torch.nn.Parameter) -> int:
    """A weight's bytes, with the scales of a quantised one."""
    state = getattr(parameter, "quant_state", None)
    scales = [state.absmax, *([state.state2.absmax] if state.nested else [])] if state is not None else []
    scales += [scale for scale in [getattr(parameter, "SCB", None)] if scale is not None]
    return sum(tensor.numel() * tensor.element_size() for tensor in [parameter, *scales])


def memory_limit(text: str, device: torch.device) -> int:
    """Bytes that max_memory stands for: "12GiB", "800MB", or a share of all that the device has ("80%").

    Raises UserError for anything else.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(%|[mgt]i?b)", text.strip().lower())
    if found is None or float(found[1]) == 0 or (found[2] == "%" and float(found[1]) > 100):
        raise UserError(f"max_memory {text!r}: write an amount such as 12GiB or 800MiB, or a share such as 80%.")
    return int(float(found[1]) * (capacity(device) / 100 if found[2] == "%" else UNITS[found[2]]))


def capacity(device: torch.device) -> int:
    """Bytes of memory that the device has; on the CPU within the control group (a container's limit)."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[1])
    return min(int(psutil.virtual_memory().total), _group_limit(GROUP) or sys.maxsize)


def available(device: torch.device, group: Path = GROUP) -> int:
    """Bytes free on the device; on the CPU also within the control group."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free, limit, used = int(psutil.virtual_memory().available), _group_limit(group), group / "memory.current"
    if limit is not None and used.is_file():
        free = min(free, limit - int(used.read_text()) + _cached(group / "memory.stat"))
    return free


def _group_limit(group: Path) -> int | None:
    path = group / "memory.max"
    return int(text) if path.is_file() and (text := path.read_text().strip()).isdigit() else None


def _cached(path: Path) -> int:
    """Bytes of files (the model's, just read) that the control group counts and would give back."""
    lines = path.read_text().splitlines() if path.is_file() else []
    return next((int(line.split()[1]) for line in lines if line.startswith("inactive_file ")), 0)


@contextmanager
def memory_errors() -> Iterator[None]:
    """Running out of memory while training becomes a UserError with the remedy.

    On a CPU it is known only where the system refuses memory; where it kills the process instead, nobody can say a word,
    and the rerun goes on just the same.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        refused = "can't allocate memory" in str(error) or "not enough memory" in str(error)
        if not (refused or isinstance(error, (MemoryError, torch.OutOfMemoryError))):
            raise
        raise UserError(
            "out of memory; the last checkpoint is safe, and the same command goes on from there, also with a lower row_tokens "
            "or with gradient_checkpointing (max_memory chooses both), which change results by rounding alone."
        ) from error


def give_back_freed_memory() -> None:
    """Have glibc return freed blocks of a MiB and more to the system at once; with another libc nothing happens.

    It would keep those of up to 32 MiB, and gradients, which stay, would come to lie between them: recomputation then
    saves little on a CPU (bench/memory.py).
    """
    try:
        ctypes.CDLL("libc.so.6").mallopt(-3, 1 << 20)  # M_MMAP_THRESHOLD
    except (OSError, AttributeError):
        pass


def in_words(parts: Mapping[str, int]) -> str:
    """The parts of an estimate that are there, largest first: "base 5.3 GiB, activations 2.1 GiB"."""
    shown = sorted(((size, part) for part, size in parts.items() if part != "peak" and size), reverse=True)
    return ", ".join(f"{part} {gib(size)}" for size, part in shown)


def gib(size: int) -> str:
    """Bytes as GiB, as MiB below a tenth of one."""
    return f"{size / 2**30:.1f} GiB" if size > 0.1 * 2**30 else f"{size / 2**20:.0f} MiB"
