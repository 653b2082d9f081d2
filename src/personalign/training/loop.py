"""The one training loop: rows of packed trees through one frozen base, each through its own adapter, and steps.

Several learners (learner.py) are trained in one pass: the rows of their batches stand side by side in a forward pass, and
each learner's objective, clipping and step see its own rows alone, so that K together end where each would alone. One
learner is the ordinary case. Several processes (parallel.py) share the rows of a step and add up the gradients.
A run killed at any moment and started again goes on from its last checkpoint and ends in the same weights, bit for bit,
on the same hardware, versions and thread count.
"""

import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from personalign.models import Part, routed
from personalign.progress import bar
from personalign.training.budget import give_back_freed_memory, memory_errors
from personalign.training.folder import finished
from personalign.training.interrupt import deferred_interrupt
from personalign.training.learner import Learner
from personalign.training.parallel import Processes
from personalign.training.trackers import flat
from personalign.trees import Row, Tree, fits_trees, pack, plain_hidden, plain_logprobs, rows_hidden, token_logprobs

Metrics = Mapping[str, Mapping[str, float]]  # by learner
Step = Callable[[Sequence[Learner], Processes], Metrics]


class Work(NamedTuple):
    """A packed row of one learner, the trees of the whole step that it is part of, and its number there."""

    learner: Learner
    row: Row
    trees: Sequence[Tree]
    number: int


def train(model: Any, learners: Sequence[Learner], step: Step | None = None) -> list[dict[str, Any]]:
    """Train every learner's adapter of `model`; write adapter/, metrics.jsonl and training.json into its folder.

    `step` does one step of the learners that are not done and returns their metrics: by default that of `gradient_step`.
    A finished run of the same digest is left as it is. Ctrl-C and SIGTERM end the current step, write checkpoints and
    raise KeyboardInterrupt.

    Returns for each learner what training.json holds: steps, seconds, tokens, the last rows of the metrics, and facts.
    Raises UserError when a tracker is missing, a loss is no number, or the disk does not take a checkpoint.
    """
    done = [finished(learner.folder, learner.digest) for learner in learners]
    todo = [learner for learner, summary in zip(learners, done, strict=True) if summary is None]
    if todo:
        made = iter(_train(model, todo, step))
        done = [next(made) if summary is None else summary for summary in done]
    return [summary for summary in done if summary is not None]


def _train(model: Any, learners: Sequence[Learner], step: Step | None) -> list[dict[str, Any]]:
    settings = learners[0].settings
    if settings.gradient_checkpointing:
        give_back_freed_memory()
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    processes = Processes(model, settings.trackers, str(learners[0].folder))
    advance = step or (lambda active, processes: gradient_step(model, active, processes))
    for learner in learners:
        learner.resume(processes.main)
    processes.wait()
    if settings.trackers:
        processes.accelerator.init_trackers("personalign", config=flat(settings.model_dump()))
    model.train()
    started, before = time.monotonic(), {learner.name: learner.seconds for learner in learners}
    summaries: dict[str, dict[str, Any]] = {}
    with (
        deferred_interrupt() as interrupted,
        processes.guarded(),
        memory_errors(),
        bar(
            total=sum(learner.steps for learner in learners),
            initial=sum(learner.step for learner in learners),
            label="train" if len(learners) == 1 else f"train {len(learners)} adapters",
            unit="step",
        ) as progress,
    ):
        while True:
            for learner in learners:
                if not learner.active and learner.name not in summaries:
                    summaries[learner.name] = learner.finish(
                        processes.main, trained_together=len(learners), shared_prompts=fits_trees(model)
                    )
            active = [learner for learner in learners if learner.active]
            if not active:
                break
            metrics = advance(active, processes)
            for learner in active:
                learner.step += 1
                learner.seconds = before[learner.name] + time.monotonic() - started
            _record(learners, metrics, "train", processes)
            if due := [learner for learner in active if learner.due]:
                _record(learners, evaluate(model, due, processes), "held_out", processes)
            progress.update(len(active))
            progress.set_postfix_str(_line(metrics), refresh=False)
            stop = processes.any(interrupted.is_set())
            for learner in active if processes.main else ():
                if learner.active and (stop or learner.step % learner.settings.checkpoint_every == 0):
                    learner.checkpoint()
            if stop and any(learner.active for learner in learners):
                raise KeyboardInterrupt
        processes.wait()
    if settings.trackers:
        processes.accelerator.end_training()
    model.eval()
    return [summaries[learner.name] for learner in learners]


def _record(learners: Sequence[Learner], metrics: Metrics, split: str, processes: Processes) -> None:
    """Tell each learner, its metrics.jsonl and the trackers."""
    for learner in learners:
        if learner.name not in metrics:
            continue
        found = metrics[learner.name]
        if split == "held_out":
            learner.held_out_loss(found["loss"])
        if processes.main:
            learner.log(found, split)
        if learner.settings.trackers:
            prefix = f"{split}/" if len(learners) == 1 else f"{learner.name}/{split}/"
            processes.accelerator.log({prefix + name: value for name, value in found.items()}, step=learner.step)


def gradient_step(model: Any, learners: Sequence[Learner], processes: Processes) -> dict[str, dict[str, float]]:
    """One optimiser step of each learner on its batch: rows through the model, gradients accumulated, clipped, applied."""
    started = time.monotonic()
    batches = {learner.name: learner.batch() for learner in learners}
    work = [each for learner in learners for each in _work(learner, batches[learner.name])]
    left = Counter(each.learner.name for each in work)
    sums: dict[str, dict[str, float]] = {learner.name: {} for learner in learners}
    metrics: dict[str, dict[str, float]] = {}

    def apply(learner: Learner) -> None:
        found, batch = sums[learner.name], batches[learner.name]
        if not math.isfinite(found["loss"]):
            learner.refuse(found["loss"])
        metrics[learner.name] = {
            "epoch": round((learner.step + 1) / learner.steps_per_epoch, 4),
            **_means(found, step_totals(batch)),
            **learner.apply(),
        }
        learner.tokens += sum(map(len, batch))

    for name, reported in _through(model, work, processes, backward=True):
        for key, value in reported.items():
            sums[name][key] = sums[name].get(key, 0.0) + value
        left[name] -= 1
        if processes.count == 1 and not left[name]:  # at once: its gradients need not wait for the others'
            apply(next(learner for learner in learners if learner.name == name))
    if processes.count > 1:
        processes.add_gradients([p for learner in learners for p in learner.parameters.values()])
        sums = dict(zip(sums, processes.add(list(sums.values())), strict=True))
        for learner in learners:
            apply(learner)
    seconds = time.monotonic() - started
    for name, batch in batches.items():
        metrics[name]["tokens_per_second"] = round(sum(map(len, batch)) / seconds, 1)
    return metrics


@torch.no_grad()
def evaluate(model: Any, learners: Sequence[Learner], processes: Processes) -> dict[str, dict[str, float]]:
    """Loss and metrics of each learner's whole held-out split, dropout off."""
    training = model.training
    model.eval()
    sums: dict[str, dict[str, float]] = {learner.name: defaultdict(float) for learner in learners}
    work = [each for learner in learners for each in _work(learner, learner.held_out)]
    for name, reported in _through(model, work, processes, backward=False):
        for key, value in reported.items():
            sums[name][key] += value
    model.train(training)
    added = processes.add([dict(found) for found in sums.values()])
    return {
        learner.name: _means(found, step_totals(learner.held_out))
        for learner, found in zip(learners, added, strict=True)
    }


def _work(learner: Learner, trees: Sequence[Tree]) -> list[Work]:
    return [Work(learner, row, trees, n) for n, row in enumerate(pack(trees, learner.settings.row_tokens))]


def _through(
    model: Any, work: Sequence[Work], processes: Processes, backward: bool
) -> Iterator[tuple[str, dict[str, float]]]:
    """Every row of this process through the model and its learner's objective: (learner, sums to report) of each.

    Neighbouring rows share a forward pass as far as row_tokens goes. Processes that share a sharded base make the same
    number of passes: one that has no rows left repeats a row for nothing.
    """
    shared = fits_trees(model)
    budget = work[0].learner.settings.row_tokens if shared else 1
    mine = _passes(processes.share(work), budget)
    rounds = len(mine)
    if processes.sharded:
        rounds = max(len(_passes(processes.share(work, index), budget)) for index in range(processes.count))
    for at in range(rounds):
        idle = at >= len(mine)
        together = [work[0]] if idle else mine[at]
        results = []
        with routed(model, _parts(together, shared, backward)):
            losses = []
            for each, values in zip(together, _values(model, together, shared), strict=True):
                learner = each.learner
                objective = learner.objective if backward else learner.held_out_objective
                assert objective is not None
                loss, reported = objective(each.row, values, step_totals(each.trees))
                results.append((learner.name, {"loss": float(loss.detach()), **reported}))
                losses.append(learner.scaler.scale(loss) if learner.scaler is not None else loss)
            if backward:
                total = torch.stack(losses).sum()
                (total * 0 if idle else total).backward()
        if not idle:
            yield from results


def _parts(together: Sequence[Work], shared: bool, training: bool) -> list[Part]:
    """Which adapter each token of a pass goes through; neighbours of one adapter as one part where no dropout differs."""
    parts: list[Part] = []
    at = 0
    for each in together:
        end = at + each.row.length if shared else None
        seed = each.learner.dropout_seed(each.number) if training else None
        if parts and seed is None and parts[-1].seed is None and parts[-1].adapter == each.learner.name:
            parts[-1] = parts[-1]._replace(end=end)
        else:
            parts.append(Part(at, end, each.learner.name, seed))
        at += each.row.length
    return parts


def _values(model: Any, together: Sequence[Work], shared: bool) -> list[torch.Tensor]:
    """What each row's objective looks at: log-probabilities of its counted tokens, or the rewards of its answers."""
    if not shared:  # one row a pass, one unshared sequence an answer
        (work,) = together
        trees = [work.trees[index] for index in dict.fromkeys(index for index, _ in work.row.answers)]
        if work.learner.head is None:
            return [torch.cat([part for tree in trees for part in plain_logprobs(model, tree)])]
        ends = torch.stack([hidden[-1] for tree in trees for hidden in plain_hidden(model, tree)])
        return [work.learner.head(ends.float()).squeeze(-1)]
    found = []
    for work, hidden in zip(together, rows_hidden(model, [work.row for work in together]), strict=True):
        row, head = work.row, work.learner.head
        if head is None:
            found.append(token_logprobs(model, hidden[row.source.to(hidden.device)], row.target.to(hidden.device)))
        else:
            found.append(head(hidden[row.last.to(hidden.device)].float()).squeeze(-1))
    return found


def _passes(work: Sequence[Work], budget: int) -> list[list[Work]]:
    """Neighbouring rows together as far as the budget of tokens goes."""
    passes: list[list[Work]] = []
    for each in work:
        if passes and sum(other.row.length for other in passes[-1]) + each.row.length <= budget:
            passes[-1].append(each)
        else:
            passes.append([each])
    return passes


def step_totals(trees: Sequence[Tree]) -> dict[str, int]:
    """Examples and counted tokens of a whole optimiser step: what its sums are divided by."""
    return {
        "examples": len(trees),
        "tokens": sum(len(tree.nodes[index].ids) for tree in trees for index in tree.counted),
    }


def _means(sums: Mapping[str, float], totals: Mapping[str, int]) -> dict[str, float]:
    """The loss (already a mean) beside the means over examples of whatever the objective summed."""
    return {name: round(value if name == "loss" else value / totals["examples"], 6) for name, value in sums.items()}


def _line(metrics: Metrics) -> str:
    """The figures beside the progress bar: means over the learners."""
    shown = {
        "loss": "loss {:.3f}",
        "margin": "margin {:+.2f}",
        "accuracy": "accuracy {:.2f}",
        "score": "score {:+.2f}",
        "kl": "KL {:.2f}",
        "tokens_per_second": "{:.0f} tokens/s",
    }
    found = {}
    for name in shown:
        values = [each[name] for each in metrics.values() if name in each]
        if values:
            found[name] = sum(values) if name == "tokens_per_second" else sum(values) / len(values)
    return ", ".join(shown[name].format(value) for name, value in found.items())
