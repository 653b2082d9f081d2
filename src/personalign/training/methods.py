"""The methods: from rows of data to trees, and from log-probabilities to a loss."""

import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from personalign.datasets import Conversation, Pair
from personalign.training.examples import content, conversation_trees, pair_trees
from personalign.training.loop import Objective, train
from personalign.training.objectives import dpo_loss, sft_loss
from personalign.training.reference import reference_sums
from personalign.training.settings import DpoSettings, SftSettings, TrainSettings
from personalign.trees import Row, Tree


def train_sft(
    model: Any,
    tokenizer: Any,
    conversations: Sequence[Conversation],
    held_out: Sequence[Conversation],
    settings: SftSettings,
    folder: Path,
    *,
    base: str,
) -> dict[str, Any]:
    """Supervised fine-tuning of the model's adapter (see loop.train); `base` is the base's fingerprint."""
    trees, counts = conversation_trees(tokenizer, conversations, settings.max_length, settings.too_long)
    unseen, cut = conversation_trees(tokenizer, held_out, settings.max_length, "truncate") if held_out else ([], {})

    def objective(row: Row, values: torch.Tensor, totals: dict[str, int]) -> tuple[torch.Tensor, dict[str, float]]:
        return sft_loss(values, totals["tokens"]), {}

    return train(
        model,
        trees,
        lambda: (objective, objective),
        settings,
        folder,
        digest=_digest("sft", base, settings, trees, unseen),
        held_out=unseen,
        facts={"method": "sft"} | _too_long(counts, cut, settings),
    )


def train_dpo(
    model: Any,
    tokenizer: Any,
    pairs: Sequence[Pair],
    held_out: Sequence[Pair],
    settings: DpoSettings,
    folder: Path,
    *,
    base: str,
) -> dict[str, Any]:
    """Direct preference optimisation of the model's adapter (see loop.train) against the base with the adapter off."""
    trees, counts = pair_trees(tokenizer, pairs, settings.max_length, settings.too_long)
    unseen, cut = pair_trees(tokenizer, held_out, settings.max_length, "truncate") if held_out else ([], {})
    return train(
        model,
        trees,
        lambda: (dpo_objective(model, base, trees, settings), dpo_objective(model, base, unseen, settings)),
        settings,
        folder,
        digest=_digest("dpo", base, settings, trees, unseen),
        held_out=unseen,
        facts={"method": "dpo"} | _too_long(counts, cut, settings),
    )


def dpo_objective(model: Any, base: str, trees: Sequence[Tree], settings: DpoSettings) -> Objective:
    """DPO over rows of these trees (each a prompt with chosen, then rejected), reference log-probabilities from the cache."""
    references = reference_sums(model, base, trees, settings.row_tokens)
    reference = {id(tree): sums for tree, sums in zip(trees, references, strict=True)}

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


def _digest(method: str, base: str, settings: TrainSettings, *splits: Sequence[Tree]) -> str:
    """Hash of everything that the trained weights depend on."""
    digest = hashlib.sha256(f"{method} {base}".encode())
    kept = settings.model_dump(mode="json", exclude={"checkpoint_every", "trackers", "ignore_memory"})
    digest.update(json.dumps(kept, sort_keys=True).encode())
    for trees in splits:
        digest.update(content(trees))
    return digest.hexdigest()[:16]
