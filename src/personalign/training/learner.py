"""One adapter that is trained: its data, optimiser, schedule, early stop, metrics and checkpoints.

Learners know nothing of one another: several that are trained in one pass (loop.py) end where each would alone, and one
may go on from a checkpoint that it wrote in other company.
"""

import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from personalign.errors import UserError
from personalign.files import write_whole
from personalign.training.checkpoint import read_checkpoint, remove_checkpoints, write_checkpoint
from personalign.training.environment import environment
from personalign.training.folder import read_lines, set_aside
from personalign.training.objectives import learning_rate_factor
from personalign.training.optimizers import make_optimizer
from personalign.training.settings import TrainSettings
from personalign.trees import Row, Tree

# (row, values, totals of the step) -> (its part of the loss, sums to report). The values are the log-probabilities of
# the row's counted tokens, or, of a learner with a head, the rewards of its answers
Objective = Callable[[Row, torch.Tensor, dict[str, int]], tuple[torch.Tensor, dict[str, float]]]


class Learner:
    """Everything about one adapter in training.

    `groups` are the parameters by role, each with an optimiser of its own ({"adapter": ...}; PPO has two), `rates` their
    peak learning rates where these are not the settings'. `save` writes the adapter into a folder. `digest` names
    everything that the result depends on. `state` and `load_state` are what a method keeps beside weights, as JSON.
    """

    def __init__(
        self,
        name: str,
        groups: Mapping[str, Mapping[str, nn.Parameter]],
        settings: TrainSettings,
        folder: Path,
        digest: str,
        *,
        save: Callable[[Path], None],
        trees: Sequence[Tree] = (),
        held_out: Sequence[Tree] = (),
        objective: Objective | None = None,
        held_out_objective: Objective | None = None,
        head: nn.Linear | None = None,
        steps: int | None = None,
        rates: Mapping[str, float] | None = None,
        facts: dict[str, Any] | None = None,
        fp16: bool = False,
    ):
        self.name, self.groups, self.settings, self.folder, self.digest = name, groups, settings, folder, digest
        self.trees, self.held_out, self.head, self.facts = trees, held_out, head, facts or {}
        self.objective, self.held_out_objective, self._save = objective, held_out_objective, save
        self.device = next(iter(next(iter(groups.values())).values())).device
        self.rates = {group: settings.learning_rate for group in groups} | dict(rates or {})
        self.optimizers = {
            group: make_optimizer(settings.optimizer, list(parameters.values()), settings, self.device)
            for group, parameters in groups.items()
        }
        self.scaler = torch.amp.GradScaler(self.device.type) if fp16 else None  # type: ignore[attr-defined]
        self.steps_per_epoch = max(1, math.ceil(len(trees) / settings.batch))
        planned = max(1, round(settings.epochs * self.steps_per_epoch)) if steps is None else steps
        self.steps = min(planned, settings.max_steps or planned)
        self.step, self.tokens, self.seconds = 0, 0, 0.0
        self.state: Callable[[], dict[str, Any]] = dict
        self.load_state: Callable[[dict[str, Any]], None] = lambda _: None
        self.metrics = folder / "metrics.jsonl"
        self._best: dict[str, torch.Tensor] = {}
        self._losses: list[float] = []  # of the held-out passes
        self._stop: str | None = None

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """Every trained parameter by name."""
        return {name: parameter for group in self.groups.values() for name, parameter in group.items()}

    @property
    def active(self) -> bool:
        """Whether there is a step left to do."""
        return self.step < self.steps and self._stopped() is None

    def batch(self) -> list[Tree]:
        """Examples of the step to come: a pure function of seed and step, so that data order needs no state."""
        epoch, at = divmod(self.step, self.steps_per_epoch)
        order = list(range(len(self.trees)))
        if self.settings.shuffle:
            seed = (self.settings.seed * 1_000_003 + epoch) % 2**63
            order = torch.randperm(len(order), generator=torch.Generator().manual_seed(seed)).tolist()
        return [self.trees[i] for i in order[at * self.settings.batch : (at + 1) * self.settings.batch]]

    def dropout_seed(self, row: int) -> int | None:
        """Seed of the dropout of the step's row number `row`; None without dropout."""
        if not self.settings.lora.dropout:
            return None
        return hash((self.settings.seed, self.step, row)) % 2**31

    def apply(self, group: str = "adapter") -> dict[str, float]:
        """Clip the gradients of a group, take the optimiser's step and clear them; learning rate and gradient norm.

        Raises UserError where the gradient is no number.
        """
        settings, optimizer = self.settings, self.optimizers[group]
        factor = learning_rate_factor(self.step, self.steps, settings.warmup, settings.schedule)
        for each in optimizer.param_groups:
            each["lr"] = self.rates[group] * factor
        if self.scaler is not None:
            self.scaler.unscale_(optimizer)
        norm = float(nn.utils.clip_grad_norm_(list(self.groups[group].values()), settings.clip))
        if self.scaler is not None:
            self.scaler.step(optimizer)  # leaves the step out where fp16 overflowed, and scales less
            self.scaler.update()
        elif not math.isfinite(norm):
            self.refuse(norm)
        else:
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return {"learning_rate": self.rates[group] * factor, "gradient_norm": norm}

    def refuse(self, value: float) -> None:
        """Raise UserError for a loss or gradient that is no number."""
        raise UserError(
            f"{self.folder}: the loss is no longer a number at step {self.step + 1} ({value}); lower learning_rate, or "
            "use precision fp32. The last checkpoint is whole."
        )

    def log(self, metrics: Mapping[str, float], split: str = "train") -> None:
        """One line of metrics.jsonl. A held-out loss also counts for the early stop."""
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": self.step, "split": split, **metrics}) + "\n")

    def held_out_loss(self, loss: float) -> None:
        """Count a pass over the held-out split for the early stop, and keep the adapter if it is the best so far."""
        if self.settings.patience is not None and loss < min(self._losses, default=math.inf):
            self._best = {name: p.detach().clone().cpu() for name, p in self.parameters.items()}
        self._losses.append(loss)

    def stop(self, why: str) -> None:
        """Let the step in progress be the last."""
        self._stop = why

    def _stopped(self) -> str | None:
        """Why the run ends before its last step, if it does."""
        since = len(self._losses) - 1 - self._losses.index(min(self._losses)) if self._losses else 0
        if self.settings.patience is not None and since >= self.settings.patience:
            return f"held-out loss no lower for {self.settings.patience} passes"
        return self._stop

    @property
    def due(self) -> bool:
        """Whether the held-out split is to be passed over after this step."""
        every = self.settings.evaluate_every or self.steps_per_epoch
        return bool(self.held_out) and (self.step % every == 0 or self.step == self.steps)

    def checkpoint(self) -> None:
        """Everything that the rest of the run depends on. Nothing is drawn from a state of random numbers."""
        tensors = {f"adapter.{name}": parameter.detach() for name, parameter in self.parameters.items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self._best.items()}
        for group, optimizer in self.optimizers.items():
            names = list(self.groups[group])
            for index, values in optimizer.state_dict()["state"].items():
                tensors |= {f"optimiser.{names[index]}.{key}": torch.as_tensor(v) for key, v in values.items()}
        write_checkpoint(
            self.folder,
            self.step,
            {name: tensor.cpu() for name, tensor in tensors.items()},
            {
                "step": self.step, "digest": self.digest, "tokens": self.tokens, "seconds": self.seconds,
                "held_out": self._losses, "scaler": self.scaler.state_dict() if self.scaler is not None else None,
                "method": self.state(), "environment": environment(self.device),
            },
        )  # fmt: skip

    def resume(self, main: bool = True) -> None:
        """Take up the newest checkpoint of the same digest; set aside what another run left. Only `main` writes."""
        found = read_checkpoint(self.folder)
        if found is None or found[1]["digest"] != self.digest:
            if main:
                self.folder.mkdir(parents=True, exist_ok=True)
                set_aside(self.folder)
            return
        tensors, state = found
        here = environment(self.device)
        if main and state["environment"] != here:
            changed = ", ".join(key for key in here if here[key] != state["environment"].get(key))
            print(
                f"continuing from step {state['step']}, not bit-exactly: {changed} changed since the checkpoint",
                file=sys.stderr,
            )
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(tensors[f"adapter.{name}"])
        self._best = {name[5:]: tensor for name, tensor in tensors.items() if name.startswith("best.")}
        for group, optimizer in self.optimizers.items():
            own = optimizer.state_dict()
            own["state"] = {
                index: values
                for index, name in enumerate(self.groups[group])
                if (values := _under(tensors, f"optimiser.{name}."))
            }
            optimizer.load_state_dict(own)
        if state["scaler"] is not None and self.scaler is not None:
            self.scaler.load_state_dict(state["scaler"])
        self.load_state(state["method"])
        self.step, self.tokens, self.seconds = state["step"], state["tokens"], state["seconds"]
        self._losses = state["held_out"]
        if main:
            kept = [line for line in read_lines(self.metrics) if line["step"] <= state["step"]]
            write_whole(self.metrics, "".join(json.dumps(line) + "\n" for line in kept))

    def finish(self, main: bool = True, **facts: Any) -> dict[str, Any]:
        """Write the adapter, then the summary that marks the run as finished, then drop the checkpoints."""
        if self._best:
            with torch.no_grad():
                for name, parameter in self.parameters.items():
                    parameter.copy_(self._best[name])
        rows = read_lines(self.metrics)
        last = {
            split: next((r for r in reversed(rows) if r["split"] == split), None) for split in ("train", "held_out")
        }
        summary = {
            "digest": self.digest, **self.facts, **facts, "steps": self.step, "examples": len(self.trees),
            "tokens": self.tokens, "seconds": round(self.seconds, 2), "last": last,
            "settings": self.settings.model_dump(mode="json"),
        }  # fmt: skip
        if self.step < self.steps:
            summary["stopped_early"] = self._stopped()
        if main:
            self._save(self.folder / "adapter")
            write_whole(self.folder / "training.json", json.dumps(summary, indent=1))
            remove_checkpoints(self.folder)
        return summary


def _under(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
