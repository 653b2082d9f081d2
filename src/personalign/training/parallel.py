"""Several processes under `accelerate launch`: rows of a step are shared out, gradients and figures are added up.

Only adapters are trained, so their gradients are small: they are summed over the processes once a step, after all rows, as
DDP would, but exactly however unevenly the rows fall. Under FSDP the frozen layers are sharded, the adapters are not.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, gather_object
from torch import nn

from personalign.errors import UserError

Item = TypeVar("Item")
Key = TypeVar("Key")
Value = TypeVar("Value")
KNOWN = {DistributedType.NO, DistributedType.MULTI_GPU, DistributedType.MULTI_CPU, DistributedType.FSDP}


class Processes:
    """This process among those that train together (mostly: the only one). `sharded`: the base is spread over them."""

    def __init__(self, model: Any, trackers: Sequence[str] = (), folder: str = "."):
        cpu = next(model.parameters()).device.type == "cpu"
        self.accelerator = Accelerator(cpu=cpu, log_with=list(trackers) or None, project_dir=folder)  # type: ignore[arg-type]
        kind = self.accelerator.distributed_type
        if self.accelerator.num_processes > 1 and kind not in KNOWN:
            raise UserError(
                f"training under {kind.value} is not built; launch with DDP (--multi_gpu) or with --use_fsdp."
            )
        self.count, self.index = self.accelerator.num_processes, self.accelerator.process_index
        self.main = self.accelerator.is_main_process
        # on a CPU accelerate does not call it by its name
        fsdp = kind == DistributedType.FSDP or os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"
        self.sharded = fsdp and self.count > 1
        if self.sharded:
            _shard(model)

    def share(self, items: Sequence[Item], index: int | None = None) -> list[Item]:
        """The items of one process (this one, if not given): every `count`-th."""
        return list(items[self.index if index is None else index :: self.count])

    def add_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace each gradient by its sum over the processes."""
        if self.count > 1:
            grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
            flat = self.accelerator.reduce(torch.cat([grad.flatten() for grad in grads]), reduction="sum")
            for parameter, part in zip(parameters, flat.split([grad.numel() for grad in grads]), strict=True):
                parameter.grad = part.view_as(parameter).clone()

    def add(self, sums: Sequence[dict[str, float]]) -> list[dict[str, float]]:
        """Each table of sums added over the processes, in their order."""
        if self.count == 1:
            return list(sums)
        gathered: list[dict[str, float]] = gather_object(list(sums))
        total: list[dict[str, float]] = [{} for _ in sums]
        for at, table in enumerate(gathered):
            into = total[at % len(sums)]
            for name, value in table.items():
                into[name] = into.get(name, 0.0) + value
        return total

    def union(self, found: dict[Key, Value]) -> dict[Key, Value]:
        """What all processes have found, each under keys of its own."""
        if self.count == 1:
            return found
        return {key: value for each in gather_object([found]) for key, value in each.items()}

    def any(self, flag: bool) -> bool:
        """Whether it is so in any process."""
        return flag if self.count == 1 else any(gather_object([flag]))

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            self.accelerator.wait_for_everyone()

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Say it plainly when another process is gone."""
        try:
            yield
        except (RuntimeError, torch.distributed.DistBackendError) as error:
            gone = ("connection", "timed out", "timeout", "socket", "recv", "peer")
            if self.count == 1 or not any(word in str(error).lower() for word in gone):
                raise
            raise UserError(
                f"another of the {self.count} processes ended ({str(error).splitlines()[0]}); start the same command again: "
                "it goes on from the last checkpoint."
            ) from error


def _shard(model: Any) -> None:
    """Spread the frozen weights of every decoder layer over the processes (FSDP2); adapters stay whole everywhere.

    Embeddings and head stay whole as well: log-probabilities are made from the head outside of any layer.
    """
    from torch.distributed.fsdp import fully_shard

    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    layers = next(module for module in inner.base_model.modules() if isinstance(module, nn.ModuleList))
    if any(type(weight).__name__ in {"Params4bit", "Int8Params"} for weight in inner.parameters()):
        raise UserError(
            "FSDP: a quantised base cannot be sharded here; launch with DDP, where each process holds it whole."
        )
    if os.environ.get("FSDP_VERSION", "2") == "1":
        raise UserError("FSDP: version 1 is not built; launch with --fsdp_version 2.")
    mesh = torch.distributed.init_device_mesh(
        next(model.parameters()).device.type, (torch.distributed.get_world_size(),)
    )
    for layer in layers:
        trained = {
            parameter for parameter in layer.parameters() if parameter.requires_grad or _adapter(parameter, layer)
        }
        fully_shard(layer, mesh=mesh, ignored_params=trained)


def _adapter(parameter: nn.Parameter, layer: nn.Module) -> bool:
    return any(parameter is own for name, own in layer.named_parameters() if ".lora_" in name)
