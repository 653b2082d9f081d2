"""A reward model put to the test: its rewards of held-out rankings, and the verdict on them beside its adapter."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from personalign.datasets import Ranking
from personalign.errors import UserError
from personalign.evaluation.gate import Gate, gate_rows, reward_gate, write_gate

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def judge(
    model: Any,
    tokenizer: "PreTrainedTokenizerBase",
    folder: Path,
    rankings: Sequence[Ranking],
    *,
    max_length: int,
    row_tokens: int,
    seed: int = 0,
    language: str = "en",
) -> Gate:
    """Judge the reward model in the adapter `folder` by rankings that it has not learned; write gate.{json,md,svg} there.

    `model` is the bare base. Answers are cut at `max_length` as in training, which drops none. Raises UserError where the
    folder holds no reward model.
    """
    from personalign.models import load_adapter, load_head
    from personalign.training.examples import ranking_trees
    from personalign.training.rewards import rewards_of

    head = load_head(folder)
    if head is None:
        raise UserError(f"{folder}: no reward model there; give the adapter folder that `train reward` wrote.")
    model = load_adapter(model, folder, name="judged")
    head = head.to(model.get_input_embeddings().weight.device)
    trees, _ = ranking_trees(tokenizer, rankings, max_length, "truncate")
    pairs = []
    found = rewards_of(model, trees, "judged", head, row_tokens, progress=True)
    for ranking, tree, rewards in zip(rankings, trees, found, strict=True):
        lengths = [len(tree.nodes[node].ids) for node in tree.counted]
        pairs += gate_rows(repr(ranking.prompt), rewards, lengths)
    gate = reward_gate(pairs, seed)
    write_gate(folder, gate, language)
    return gate
