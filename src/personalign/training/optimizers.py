"""The optimisers a user may choose."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from personalign.training.settings import TrainSettings


def make_optimizer(name: str, parameters: Sequence[nn.Parameter], settings: TrainSettings, device: torch.device) -> Any:
    """AdamW (Loshchilov and Hutter 2019), or SGD without momentum."""
    if name == "sgd":
        return torch.optim.SGD(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    return torch.optim.AdamW(
        parameters, lr=settings.learning_rate, betas=settings.betas, weight_decay=settings.weight_decay
    )
