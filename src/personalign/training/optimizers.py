"""The optimisers a user may choose."""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from personalign.errors import UserError
from personalign.training.settings import TrainSettings


def make_optimizer(name: str, parameters: Sequence[nn.Parameter], settings: TrainSettings, device: torch.device) -> Any:
    """AdamW (Loshchilov and Hutter 2019), SGD without momentum, or AdamW with moments in 8 bits (Dettmers et al. 2022).

    Raises UserError for the last where there is no CUDA or no bitsandbytes.
    """
    if name == "sgd":
        return torch.optim.SGD(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    options: dict[str, Any] = {
        "lr": settings.learning_rate, "betas": settings.betas, "weight_decay": settings.weight_decay
    }  # fmt: skip
    if name == "adamw":
        return torch.optim.AdamW(parameters, fused=True, **options)
    if device.type != "cuda":
        raise UserError(
            f"optimizer {name}: it needs a CUDA GPU, and this is the {device.type}; use `optimizer: adamw`."
        )
    if find_spec("bitsandbytes") is None:
        raise UserError(
            f"optimizer {name}: bitsandbytes is not installed; `pip install 'personalign[quantised]'`, or use "
            "`optimizer: adamw`."
        )
    return paged_adamw_8bit(parameters, **options)


def paged_adamw_8bit(parameters: Sequence[nn.Parameter], **options: Any) -> Any:
    """bitsandbytes' PagedAdamW8bit with a state as plain as that of torch's optimisers, so that it can be checkpointed.

    A parameter's state is `step`, `state1` and `state2` (the moments) and, from 4096 elements on, where these are bytes,
    `absmax1` and `absmax2`, the scale of every 256. It is taken up again bit for bit, and in pages.
    """
    from bitsandbytes import optim

    class Optimizer(optim.PagedAdamW8bit):  # type: ignore[misc]
        def state_dict(self) -> dict[str, Any]:
            state = torch.optim.Optimizer.state_dict(self)  # bitsandbytes' own nests what FSDP must not gather
            kept = {
                index: {key: value for key, value in values.items() if not key.startswith("qmap")}  # constant tables
                for index, values in state["state"].items()
            }
            return {**state, "state": kept}

        def load_state_dict(self, state: dict[str, Any], move_to_device: bool = True) -> None:
            places = [
                (number, at, group, parameter)
                for number, group in enumerate(self.param_groups)
                for at, parameter in enumerate(group["params"])
            ]
            for index, (number, at, group, parameter) in enumerate(places):
                if index not in state["state"]:
                    continue
                self.init_state(group, parameter, number, at)
                own, saved = self.state[parameter], state["state"][index]
                own["step"] = int(saved["step"])
                for key in own.keys() & saved.keys() - {"step"}:
                    own[key].copy_(saved[key])

    return Optimizer(parameters, **options)
