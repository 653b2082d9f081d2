"""The plain padded computation, written without personalign.trees: what packed trees must equal. And random trees."""

import torch
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel, get_peft_model

from personalign.models.lora import speed_up
from personalign.trees import Tree, pack, row_logprobs
from tiny import tiny_model

VOCABULARY = 97


def adapted(architecture: str, *, fused: bool = False, **overrides) -> PeftModel:
    """A tiny model with LoRA on every attention and MLP layer, B random; the same weights with and without `fused`."""
    model = tiny_model(architecture, VOCABULARY, **overrides)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", init_lora_weights=False)
        model = get_peft_model(model, config)
    if fused:
        assert speed_up(model) > 0
    return model.eval()


def random_tree(parents: list[int], lengths: list[int], counted: list[bool], seed: int = 0) -> Tree:
    """Node i > 0 hangs under node parents[i - 1]; nodes without children are always counted."""
    generator = torch.Generator().manual_seed(seed)
    tree = Tree()
    for index, length in enumerate(lengths):
        ids = torch.randint(VOCABULARY, (length,), generator=generator).tolist()
        parent = parents[index - 1] if index else None
        tree.add(ids, parent, index > 0 and (counted[index] or index not in parents))
    return tree


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    """A tree of 2 to 8 nodes of 1 to 30 tokens, at most 4 deep, branching anywhere, sometimes counted inside."""
    size = draw(st.integers(2, 8))
    parents: list[int] = []
    depth = [1]
    for index in range(1, size):
        parents.append(draw(st.sampled_from([at for at in range(index) if depth[at] < 4])))
        depth.append(depth[parents[-1]] + 1)
    lengths = draw(st.lists(st.integers(1, 30), min_size=size, max_size=size))
    counted = draw(st.lists(st.booleans(), min_size=size, max_size=size))
    return random_tree(parents, lengths, counted, seed=draw(st.integers(0, 2**16)))


def fixed_trees() -> list[Tree]:
    """Two trees of three levels whose answers are longer than a window of 8, and which fit into one row of 512."""
    return [
        random_tree([0, 0, 1, 1, 2, 2], [14, 5, 9, 12, 11, 10, 13], [False] * 7, seed=1),
        random_tree([0, 1, 1, 1, 0], [11, 6, 10, 12, 9, 14], [False] * 6, seed=2),
    ]


def padded_logprobs(model: torch.nn.Module, forest: list[Tree]) -> torch.Tensor:
    """Log-probabilities of all counted tokens, trees and nodes in order, by transformers' eager attention.

    Every path from the root is a sequence of its own in one right-padded batch.
    """
    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    inner.set_attn_implementation("eager")
    sequences, lengths = [], []
    for tree in forest:
        for node in tree.nodes:
            if node.counted:
                ids, at = list(node.ids), node.parent
                while at is not None:
                    ids, at = [*tree.nodes[at].ids, *ids], tree.nodes[at].parent
                sequences.append(ids)
                lengths.append(len(node.ids))
    width = max(map(len, sequences))
    batch = torch.tensor([ids + [0] * (width - len(ids)) for ids in sequences])
    seen = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids in sequences])
    values = model(input_ids=batch, attention_mask=seen).logits.log_softmax(-1)
    return torch.cat(
        [
            values[index, range(len(ids) - count - 1, len(ids) - 1), ids[-count:]]
            for index, (ids, count) in enumerate(zip(sequences, lengths, strict=True))
        ]
    )


def shared_logprobs(model: torch.nn.Module, forest: list[Tree], budget: int) -> torch.Tensor:
    """The same, packed; differentiable (`trees.logprobs` is not)."""
    found = {}
    for row in pack(forest, budget):
        counts = torch.bincount(row.answer, minlength=len(row.answers)).tolist()
        found.update(zip(row.answers, row_logprobs(model, row).split(counts), strict=True))
    return torch.cat([found[index, node] for index, tree in enumerate(forest) for node in tree.counted])


def gradients(model: torch.nn.Module, values: torch.Tensor) -> torch.Tensor:
    """Gradients, flattened into one vector, of a loss that weighs every token differently, some against the others."""
    weights = torch.cos(torch.arange(len(values)) * 1.7) + 0.3
    parameters = [weight for weight in model.parameters() if weight.requires_grad]
    return torch.cat([grad.flatten() for grad in torch.autograd.grad((weights * values).sum(), parameters)])


def differences(ours: torch.nn.Module, plain: torch.nn.Module, forest: list[Tree], budget: int) -> tuple[float, float]:
    """How far trees on `ours` are from padding on `plain`: max |log p - log p'|, and ||g - g'|| / ||g'||."""
    expected = padded_logprobs(plain, forest)
    target = gradients(plain, expected)
    values = shared_logprobs(ours, forest, budget)
    slopes = gradients(ours, values)
    return (values - expected).abs().max().item(), ((slopes - target).norm() / target.norm()).item()
