"""The one training loop: rows of packed trees through the model, an objective over their log-probabilities, one step.

What a method is, it says in two functions (training/methods.py); devices, mixed precision and trackers are accelerate's.
A run killed at any moment and started again goes on from its last checkpoint and ends in the same weights, bit for bit,
on the same hardware, versions and thread count.
"""

import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from personalign.errors import UserError
from personalign.files import write_whole
from personalign.models import save_adapter
from personalign.progress import bar
from personalign.training.checkpoint import read_checkpoint, remove_checkpoints, write_checkpoint
from personalign.training.environment import environment
from personalign.training.folder import finished, read_lines, set_aside
from personalign.training.interrupt import deferred_interrupt
from personalign.training.memory import require_memory
from personalign.training.objectives import learning_rate_factor
from personalign.training.settings import TrainSettings
from personalign.training.trackers import flat, require_trackers
from personalign.trees import Row, Tree, fits_trees, pack, plain_logprobs, row_logprobs

# (row, log-probabilities of its counted tokens, totals of the step) -> (its part of the loss, sums to report)
Objective = Callable[[Row, torch.Tensor, dict[str, int]], tuple[torch.Tensor, dict[str, float]]]


def train(
    model: Any,
    trees: Sequence[Tree],
    objectives: Callable[[], tuple[Objective, Objective]],
    settings: TrainSettings,
    folder: Path,
    *,
    digest: str,
    held_out: Sequence[Tree] = (),
    facts: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Train the adapter of `model` on `trees`, one example each; write `folder`/adapter and `folder`/metrics.jsonl.

    `objectives` makes those of training and held-out data, once it is sure that there will be a run. `digest` names
    everything that the result depends on; a checkpoint of another digest is set aside, not continued, and a finished run
    of the same digest returns at once. `facts` go into training.json as they are. Ctrl-C and SIGTERM end the current
    step, write a checkpoint and raise KeyboardInterrupt.

    Returns what training.json holds: steps, seconds, tokens, the last rows of the metrics, and the facts.
    Raises UserError when memory will not do, a tracker is missing, the loss is no number, or the disk does not take a
    checkpoint.
    """
    done = finished(folder, digest)
    if done is not None:
        return done
    require_trackers(settings.trackers)
    if not settings.ignore_memory:
        longest = max(map(len, trees))
        require_memory(
            model, max(longest, min(settings.row_tokens, sum(map(len, trees)))), settings.gradient_checkpointing
        )
    objective, held_out_objective = objectives()
    run = _Run(model, trees, objective, settings, folder, digest)
    step, started = run.resume(), time.monotonic()
    run.start_trackers()
    evaluate_every = settings.evaluate_every or run.steps_per_epoch
    model.train()
    with (
        deferred_interrupt() as interrupted,
        bar(total=run.steps, initial=step, label="train", unit="step") as progress,
    ):
        while step < run.steps:
            metrics = run.step(step)
            step += 1
            run.log(step, metrics)
            progress.update()
            progress.set_postfix_str(_line(metrics), refresh=False)
            if held_out and (step % evaluate_every == 0 or step == run.steps):
                run.log(step, evaluate(model, held_out, held_out_objective, settings), split="held_out")
            if interrupted.is_set() or (step % settings.checkpoint_every == 0 and step < run.steps):
                run.checkpoint(step, time.monotonic() - started)
            if interrupted.is_set():
                raise KeyboardInterrupt
    model.eval()
    return run.finish(step, time.monotonic() - started, facts or {})


class _Run:
    """What changes while a run goes on: adapter, optimiser, random state, metrics."""

    def __init__(
        self,
        model: Any,
        trees: Sequence[Tree],
        objective: Objective,
        settings: TrainSettings,
        folder: Path,
        digest: str,
    ):
        self.model, self.trees, self.objective, self.settings = model, trees, objective, settings
        self.folder, self.digest = folder, digest
        self.adapter = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if not self.adapter:
            raise ValueError("the model has nothing to train: add an adapter first")
        self.shared = fits_trees(model)
        fp16 = next(p for p in model.parameters() if not p.requires_grad).dtype == torch.float16
        self.accelerator = Accelerator(
            mixed_precision="fp16" if fp16 else "no",
            cpu=model.device.type == "cpu",
            log_with=list(settings.trackers) or None,  # type: ignore[arg-type]
            project_dir=str(folder),
        )
        if self.accelerator.num_processes > 1:
            raise UserError(
                "training by several processes is not built: each would train an adapter of its own and write it to the "
                "same folder; start it without `accelerate launch`, or with --num_processes 1."
            )
        optimiser = torch.optim.AdamW(
            list(self.adapter.values()),
            lr=settings.learning_rate,
            betas=settings.betas,
            weight_decay=settings.weight_decay,
        )
        self.optimiser: Any = self.accelerator.prepare(optimiser)
        self.steps_per_epoch = math.ceil(len(trees) / settings.batch)
        self.steps = max(1, round(settings.epochs * self.steps_per_epoch))
        if settings.max_steps is not None:
            self.steps = min(self.steps, settings.max_steps)
        self.seconds_before = 0.0
        self.tokens = 0
        self.metrics = folder / "metrics.jsonl"
        if settings.gradient_checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        torch.manual_seed(settings.seed)

    def batch(self, step: int) -> list[Tree]:
        """Examples of a step: a pure function of seed and step, so that data order needs no state."""
        epoch, at = divmod(step, self.steps_per_epoch)
        seed = (self.settings.seed * 1_000_003 + epoch) % 2**63
        order = list(range(len(self.trees)))
        if self.settings.shuffle:
            order = torch.randperm(len(order), generator=torch.Generator().manual_seed(seed)).tolist()
        return [self.trees[i] for i in order[at * self.settings.batch : (at + 1) * self.settings.batch]]

    def step(self, step: int) -> dict[str, float]:
        """One optimiser step: the batch's rows one after another, gradients accumulated, clipped, applied."""
        started = time.monotonic()
        batch, settings = self.batch(step), self.settings
        rate = settings.learning_rate * learning_rate_factor(step, self.steps, settings.warmup, settings.schedule)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        totals, sums = step_totals(batch), dict[str, float]()
        for row in pack(batch, settings.row_tokens):
            with self.accelerator.autocast():
                values = scored(self.model, batch, row, self.shared)
            loss, reported = self.objective(row, values, totals)
            self.accelerator.backward(loss)
            sums["loss"] = sums.get("loss", 0.0) + float(loss.detach())
            for name, value in reported.items():
                sums[name] = sums.get(name, 0.0) + value
        norm = float(self.accelerator.clip_grad_norm_(list(self.adapter.values()), settings.clip))
        if not math.isfinite(sums["loss"]) or (not math.isfinite(norm) and self.accelerator.scaler is None):
            raise UserError(
                f"the loss is no longer a number at step {step + 1} (gradient norm {norm}); lower learning_rate, or use "
                "precision fp32. The last checkpoint is whole."
            )
        self.optimiser.step()
        self.optimiser.zero_grad()
        tokens = sum(map(len, batch))
        self.tokens += tokens
        seconds = time.monotonic() - started
        return {
            "epoch": round((step + 1) / self.steps_per_epoch, 4),
            **mean_metrics(sums, totals),
            "learning_rate": rate,
            "gradient_norm": norm,
            "tokens_per_second": round(tokens / seconds, 1),
        }

    def start_trackers(self) -> None:
        """Once the folder is this run's own: some trackers write into it."""
        if self.settings.trackers:
            self.accelerator.init_trackers("personalign", config=flat(self.settings.model_dump()))

    def log(self, step: int, metrics: dict[str, float], split: str = "train") -> None:
        """One line of metrics.jsonl, and the trackers."""
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "split": split, **metrics}) + "\n")
        if self.settings.trackers:
            self.accelerator.log({f"{split}/{name}": value for name, value in metrics.items()}, step=step)

    def checkpoint(self, step: int, seconds: float) -> None:
        """Everything that the rest of the run depends on."""
        tensors = {f"adapter.{name}": p.detach() for name, p in self.adapter.items()}
        state = self.optimiser.state_dict()
        names = list(self.adapter)
        for index, values in state["state"].items():
            tensors |= {f"optimiser.{names[index]}.{key}": torch.as_tensor(value) for key, value in values.items()}
        tensors["random.cpu"] = torch.get_rng_state()
        if self.model.device.type == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state(self.model.device)
        scaler = self.accelerator.scaler.state_dict() if self.accelerator.scaler is not None else None
        write_checkpoint(
            self.folder,
            step,
            {name: tensor.cpu() for name, tensor in tensors.items()},
            {
                "step": step,
                "digest": self.digest,
                "tokens": self.tokens,
                "seconds": self.seconds_before + seconds,
                "scaler": scaler,
                "environment": environment(self.model.device),
            },
        )

    def resume(self) -> int:
        """Take up the newest checkpoint of the same digest; the step to go on with (0 for a new run)."""
        self.folder.mkdir(parents=True, exist_ok=True)
        found = read_checkpoint(self.folder)
        if found is None or found[1]["digest"] != self.digest:
            set_aside(self.folder)
            return 0
        tensors, state = found
        here = environment(self.model.device)
        if state["environment"] != here:
            changed = ", ".join(key for key in here if here[key] != state["environment"].get(key))
            print(
                f"continuing from step {state['step']}, not bit-exactly: {changed} changed since the checkpoint",
                file=sys.stderr,
            )
        with torch.no_grad():
            for name, parameter in self.adapter.items():
                parameter.copy_(tensors[f"adapter.{name}"])
        own = self.optimiser.state_dict()
        own["state"] = {
            index: {key: tensors[f"optimiser.{name}.{key}"] for key in ("step", "exp_avg", "exp_avg_sq")}
            for index, name in enumerate(self.adapter)
        }
        self.optimiser.load_state_dict(own)
        torch.set_rng_state(tensors["random.cpu"])
        if "random.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random.cuda"], self.model.device)
        if state["scaler"] is not None and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.tokens, self.seconds_before = state["tokens"], state["seconds"]
        kept = [line for line in read_lines(self.metrics) if line["step"] <= state["step"]]
        write_whole(self.metrics, "".join(json.dumps(line) + "\n" for line in kept))
        return int(state["step"])

    def finish(self, step: int, seconds: float, facts: dict[str, Any]) -> dict[str, Any]:
        """Write the adapter, then the summary that marks the run as finished, then drop the checkpoints."""
        save_adapter(self.model, self.folder / "adapter")
        if self.settings.trackers:
            self.accelerator.end_training()
        rows = read_lines(self.metrics)
        last = {
            split: next((r for r in reversed(rows) if r["split"] == split), None) for split in ("train", "held_out")
        }
        summary = {
            "digest": self.digest,
            **facts,
            "steps": step,
            "examples": len(self.trees),
            "tokens": self.tokens,
            "seconds": round(self.seconds_before + seconds, 2),
            "shared_prompts": self.shared,
            "last": last,
            "settings": self.settings.model_dump(mode="json"),
        }
        write_whole(self.folder / "training.json", json.dumps(summary, indent=1))
        remove_checkpoints(self.folder)
        return summary


def scored(model: Any, trees: Sequence[Tree], row: Row, shared: bool) -> torch.Tensor:
    """Log-probabilities of the row's counted tokens: packed, or one unshared sequence an answer where trees do not fit."""
    if shared:
        return row_logprobs(model, row)
    members = dict.fromkeys(index for index, _ in row.answers)
    return torch.cat([part for index in members for part in plain_logprobs(model, trees[index])])


def step_totals(trees: Sequence[Tree]) -> dict[str, int]:
    """Examples and counted tokens of a whole optimiser step: what its sums are divided by."""
    return {
        "examples": len(trees),
        "tokens": sum(len(tree.nodes[index].ids) for tree in trees for index in tree.counted),
    }


def mean_metrics(sums: dict[str, float], totals: dict[str, int]) -> dict[str, float]:
    """The loss (already a mean) beside the means over examples of whatever the objective summed."""
    return {name: round(value if name == "loss" else value / totals["examples"], 6) for name, value in sums.items()}


@torch.no_grad()
def evaluate(model: Any, trees: Sequence[Tree], objective: Objective, settings: TrainSettings) -> dict[str, float]:
    """Loss and metrics of the whole held-out split, dropout off."""
    model.eval()
    totals, sums = step_totals(trees), dict[str, float]()
    shared = fits_trees(model)
    for row in pack(trees, settings.row_tokens):
        loss, reported = objective(row, scored(model, trees, row, shared), totals)
        for name, value in {"loss": float(loss), **reported}.items():
            sums[name] = sums.get(name, 0.0) + value
    model.train()
    return mean_metrics(sums, totals)


def _line(metrics: dict[str, float]) -> str:
    """The figures beside the progress bar."""
    shown = {
        "loss": "loss {:.3f}",
        "margin": "margin {:+.2f}",
        "accuracy": "accuracy {:.2f}",
        "tokens_per_second": "{:.0f} tokens/s",
    }
    return ", ".join(form.format(metrics[name]) for name, form in shown.items() if name in metrics)
