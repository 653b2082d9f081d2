"""The methods: from rows of data to trees, and from log-probabilities to a loss; one job or many in one pass."""

import hashlib
import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import torch

from personalign.datasets import Conversation, Pair, Ranking
from personalign.files import file_hash
from personalign.models import adapter_parameters, add_adapter, check_origin, load_adapter, load_head, save_adapter
from personalign.training.budget import fit_memory
from personalign.training.examples import content, conversation_trees, pair_trees, ranking_trees
from personalign.training.folder import finished
from personalign.training.learner import Learner, Objective
from personalign.training.loop import train
from personalign.training.objectives import dpo_loss, reward_loss, sft_loss
from personalign.training.reference import reference_sums
from personalign.training.settings import NOT_IN_RESULTS, DpoSettings, RewardSettings, SftSettings, TrainSettings
from personalign.training.trackers import require_trackers
from personalign.trees import Row, Tree

Trees: TypeAlias = tuple[list[Tree], dict[str, int]]


@dataclass(frozen=True)
class Job:
    """One adapter to be trained: what to call it, its rows and those kept apart, its settings and its folder."""

    name: str
    rows: Sequence[Any]
    held_out: Sequence[Any]
    settings: Any
    folder: Path


@dataclass
class _Plan:
    """A job as trees, and what its result depends on."""

    job: Job
    adapter: str
    trees: list[Tree]
    held_out: list[Tree]
    facts: dict[str, Any]
    digest: str


def train_sft(
    model: Any, tokenizer: Any, jobs: Sequence[Job], *, base: str, model_name: str | None = None
) -> list[dict[str, Any]]:
    """Supervised fine-tuning of an adapter for each job, all in one pass over the frozen `model` (see loop.train).

    `base` is the base's fingerprint, `model_name` what the user calls it (written into the adapter's config). Returns
    each job's summary; raises UserError for rows that do not fit and whatever the loop refuses.
    """

    def trees(settings: SftSettings, rows: Sequence[Conversation], too_long: Any) -> Trees:
        return conversation_trees(tokenizer, rows, settings.max_length, too_long)

    def objective(row: Row, values: torch.Tensor, totals: dict[str, int]) -> tuple[torch.Tensor, dict[str, float]]:
        return sft_loss(values, totals["tokens"]), {}

    return _train(
        "sft", model, tokenizer, jobs, base, model_name, trees, lambda plans, _: [(objective, objective)] * len(plans)
    )


def train_dpo(
    model: Any, tokenizer: Any, jobs: Sequence[Job], *, base: str, model_name: str | None = None
) -> list[dict[str, Any]]:
    """Direct preference optimisation of an adapter for each job, all in one pass, as `train_sft`.

    The reference is the frozen base, or the adapter that a job goes on from (`start`); what several jobs share is scored
    once.
    """

    def trees(settings: DpoSettings, rows: Sequence[Pair], too_long: Any) -> Trees:
        return pair_trees(tokenizer, rows, settings.max_length, too_long)

    def objectives(plans: Sequence[_Plan], model: Any) -> list[tuple[Objective, Objective]]:
        references = [reference for plan in plans for reference in (plan.trees, plan.held_out)]
        sums: dict[int, list[float]] = {}
        starts = dict.fromkeys(plan.job.settings.start for plan in plans)
        for start in starts:
            mine = [plan for plan in plans if plan.job.settings.start == start]
            every = [tree for plan in mine for part in (plan.trees, plan.held_out) for tree in part]
            adapter = mine[0].adapter if start is not None else None
            key = base if start is None else f"{base} {folder_hash(start)}"
            found = reference_sums(model, key, every, mine[0].job.settings.row_tokens, adapter=adapter)
            sums |= {id(tree): values for tree, values in zip(every, found, strict=True)}
        assert len(sums) == sum(map(len, references))
        made = [dpo_objective(sums, plan.job.settings) for plan in plans]
        return [(each, each) for each in made]

    return _train("dpo", model, tokenizer, jobs, base, model_name, trees, objectives)


def train_reward(
    model: Any, tokenizer: Any, jobs: Sequence[Job], *, base: str, model_name: str | None = None
) -> list[dict[str, Any]]:
    """A reward model for each job, adapter and scalar head, from rankings of answers; as `train_sft`.

    The reward of an answer is the head's value at its last token, the end of its turn.
    """

    def trees(settings: RewardSettings, rows: Sequence[Ranking], too_long: Any) -> Trees:
        return ranking_trees(tokenizer, rows, settings.max_length, too_long)

    def objectives(plans: Sequence[_Plan], model: Any) -> list[tuple[Objective, Objective]]:
        made = [reward_objective(plan.job.settings) for plan in plans]
        return [(each, each) for each in made]

    return _train("reward", model, tokenizer, jobs, base, model_name, trees, objectives)


def dpo_objective(reference: dict[int, list[float]], settings: DpoSettings) -> Objective:
    """DPO over rows of trees (each a prompt with chosen, then rejected); `reference` holds each tree's two sums by id."""

    def objective(row: Row, values: torch.Tensor, totals: dict[str, int]) -> tuple[torch.Tensor, dict[str, float]]:
        sums = values.new_zeros(len(row.answers)).index_add(0, row.answer.to(values.device), values)
        policy = sums.view(-1, 2)
        base_sums = torch.tensor([reference[id(tree)] for tree in row.trees], dtype=values.dtype, device=values.device)
        lengths = torch.bincount(row.answer, minlength=len(row.answers)).view(-1, 2).to(values)
        losses = dpo_loss(
            policy[:, 0],
            policy[:, 1],
            base_sums[:, 0],
            base_sums[:, 1],
            beta=settings.beta,
            loss=settings.loss,
            label_smoothing=settings.label_smoothing,
            lengths=(lengths[:, 0], lengths[:, 1]),
        )
        ratio = (policy - base_sums).detach()
        margin = settings.beta * (ratio[:, 0] - ratio[:, 1])
        # a tie is no success: at the start, where policy and base are one, the accuracy is 0 and not 1/2
        return losses.sum() / totals["examples"], {"margin": float(margin.sum()), "accuracy": float((margin > 0).sum())}

    return objective


def reward_objective(settings: RewardSettings) -> Objective:
    """Bradley-Terry over rows of trees, each a prompt with its answers from the best down; values are their rewards."""

    def objective(row: Row, values: torch.Tensor, totals: dict[str, int]) -> tuple[torch.Tensor, dict[str, float]]:
        groups = values.split([len(tree.counted) for tree in row.trees])
        loss = torch.stack([reward_loss(group, centering=settings.centering) for group in groups]).sum()
        margin = accuracy = 0.0
        for group in groups:
            found = group.detach()
            upper = torch.ones(len(found), len(found), dtype=torch.bool, device=found.device).triu(1)
            differences = (found[:, None] - found[None, :])[upper]
            margin += float(differences.mean())
            accuracy += float((differences > 0).float().mean())
        return loss / totals["examples"], {"margin": margin, "accuracy": accuracy}

    return objective


def _train(
    method: str,
    model: Any,
    tokenizer: Any,
    jobs: Sequence[Job],
    base: str,
    model_name: str | None,
    trees: Callable[[Any, Sequence[Any], Any], Trees],
    objectives: Callable[[Sequence[_Plan], Any], list[tuple[Objective, Objective]]],
) -> list[dict[str, Any]]:
    """Jobs that are finished are left alone; the others become learners, and are trained together."""
    plans = []
    for number, job in enumerate(jobs):
        settings = job.settings
        learned, counts = trees(settings, job.rows, settings.too_long)
        unseen, cut = trees(settings, job.held_out, "truncate") if job.held_out else ([], {})
        adapter = "default" if len(jobs) == 1 else f"job{number}_{re.sub(r'[^A-Za-z0-9]', '_', job.name)}"
        facts = {"method": method, "name": job.name} | _too_long(counts, cut, settings)
        plans.append(_Plan(job, adapter, learned, unseen, facts, run_digest(method, base, settings, learned, unseen)))
    todo = [plan for plan in plans if finished(plan.job.folder, plan.digest) is None]
    made: dict[int, dict[str, Any]] = {}
    if todo:
        template = template_hash(tokenizer)
        heads = []
        for plan in todo:
            settings, start = plan.job.settings, plan.job.settings.start
            head = None
            if start is not None:
                check_origin(start, base, template)
                model = load_adapter(model, start, name=plan.adapter, trainable=True)
                head = load_head(start)
            else:
                lora = settings.lora
                model = add_adapter(
                    model, name=plan.adapter, rank=lora.rank, alpha=lora.alpha, dropout=lora.dropout,
                    targets=lora.targets, seed=settings.seed, base=model_name,
                )  # fmt: skip
            heads.append((head or new_head(model, settings.seed)) if method == "reward" else None)
        first = todo[0].job.settings
        require_trackers(first.trackers)
        lengths = [len(tree) for plan in todo for tree in plan.trees]
        fit = fit_memory(model, first, longest=max(lengths), tokens=sum(lengths), adapters=len(todo))
        for plan in todo:
            plan.job = replace(plan.job, settings=plan.job.settings.model_copy(update=fit))
        learners = []
        for plan, head, (learn, measure) in zip(todo, heads, objectives(todo, model), strict=True):
            origin = {"base": base, "name": model_name, "template": template, "method": method}
            learners.append(
                Learner(
                    plan.adapter,
                    {"adapter": trained(model, plan.adapter, head)},
                    plan.job.settings,
                    plan.job.folder,
                    plan.digest,
                    save=_saver(model, plan.adapter, head, origin),
                    trees=plan.trees,
                    held_out=plan.held_out,
                    objective=learn,
                    held_out_objective=measure,
                    head=head,
                    facts=plan.facts,
                    fp16=base_precision(model) == torch.float16,
                )
            )
        made = dict(zip((id(plan) for plan in todo), train(model, learners), strict=True))
    return [made.get(id(plan)) or finished(plan.job.folder, plan.digest) or {} for plan in plans]


def _saver(model: Any, adapter: str, head: Any, origin: dict[str, Any]) -> Callable[[Path], None]:
    return lambda folder: save_adapter(model, folder, adapter, head=head, origin=origin)


def trained(model: Any, adapter: str, head: torch.nn.Linear | None = None) -> dict[str, torch.nn.Parameter]:
    """Name -> parameter of an adapter, without the adapter's own name in it, and of its head."""
    found = {name.replace(f".{adapter}.", "."): p for name, p in adapter_parameters(model, adapter).items()}
    if head is not None:
        found["score.weight"] = head.weight  # type: ignore[assignment]
    return found


def new_head(model: Any, seed: int) -> torch.nn.Linear:
    """A scalar head [1, hidden] in fp32 on the model's device, drawn with variance 1 / (hidden + 1) (Stiennon et al. 2020)."""
    embedding = model.get_input_embeddings()
    width = model.config.get_text_config().hidden_size
    head = torch.nn.Linear(width, 1, bias=False, dtype=torch.float32)
    with torch.no_grad():
        head.weight.normal_(0, (width + 1) ** -0.5, generator=torch.Generator().manual_seed(seed))
    return head.to(embedding.weight.device)


def base_precision(model: Any) -> torch.dtype:
    """Precision that the base computes in."""
    dtype: torch.dtype = model.get_input_embeddings().weight.dtype
    return dtype


def template_hash(tokenizer: Any) -> str:
    """What the chat template is, by content."""
    return hashlib.sha256(str(tokenizer.chat_template).encode()).hexdigest()[:16]


def _too_long(counts: dict[str, int], cut: dict[str, int], settings: TrainSettings) -> dict[str, int]:
    """How many examples did not fit, told to the user as well: none is left out in silence."""
    facts = {**counts, "held_out_truncated": cut.get("truncated", 0)}
    if any(facts.values()):
        print(
            f"over max_length {settings.max_length}: {facts['dropped']} examples dropped, {facts['truncated']} truncated; "
            f"{facts['held_out_truncated']} of the held-out ones truncated",
            file=sys.stderr,
        )
    return facts


def run_digest(method: str, base: str, settings: TrainSettings, *splits: Sequence[Tree]) -> str:
    """Hash of everything that the trained weights depend on: the company that an adapter is trained in is no part of it."""
    digest = hashlib.sha256(f"{method} {base}".encode())
    kept = settings.model_dump(mode="json", exclude=NOT_IN_RESULTS | {"start"})
    digest.update(json.dumps(kept, sort_keys=True).encode())
    if settings.start is not None:
        digest.update(folder_hash(settings.start).encode())
    for trees in splits:
        digest.update(content(trees))
    return digest.hexdigest()[:16]


def folder_hash(folder: str) -> str:
    """What an adapter's weights are, by content."""
    return file_hash(Path(folder) / "adapter_model.safetensors")[:16]
