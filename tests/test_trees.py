"""Trees equal the plain padded computation on every supported architecture, however they are packed and cut."""

import importlib
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from padded import (
    VOCABULARY,
    adapted,
    differences,
    fixed_trees,
    gradients,
    padded_logprobs,
    random_tree,
    shared_logprobs,
    trees,
)
from personalign.trees import Tree, attention, logprobs, pack, plain_logprobs, prompt_with_answers, row_logprobs
from tiny import ARCHITECTURES, tiny_model

scoring = importlib.import_module("personalign.trees.logprobs")  # the package's `logprobs` is the function
forests = st.lists(trees(), min_size=1, max_size=4)
models = cache(adapted)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@settings(max_examples=10, derandomize=True, deadline=None, database=None)
@given(forest=forests, budget=st.integers(1, 300))
def test_trees_equal_padding(architecture, forest, budget):
    """Log-probabilities and LoRA gradients, with PEFT's own layers and with ours."""
    plain = models(architecture)
    for ours in (plain, models(architecture, fused=True)):
        values, slopes = differences(ours, plain, forest, budget)
        assert values < 1e-4
        assert slopes < 1e-4


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@settings(max_examples=4, derandomize=True, deadline=None, database=None)
@given(forest=forests, budget=st.integers(1, 300))
def test_logprobs_and_plain_logprobs_answer_in_order(architecture, forest, budget):
    """One list a tree, one tensor a counted node, in the trees' order although rows are packed by size."""
    model = models(architecture)
    with torch.no_grad():
        expected = padded_logprobs(model, forest)
        plain = [plain_logprobs(model, tree) for tree in forest]
    for found in (logprobs(model, forest, budget), plain):
        assert [[len(part) for part in parts] for parts in found] == [
            [len(node.ids) for node in tree.nodes if node.counted] for tree in forest
        ]
        flat = torch.cat([part for parts in found for part in parts])
        assert flat.dtype == torch.float32
        torch.testing.assert_close(flat, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_tiny_models_can_tell(architecture):
    """Logits span about -10 to 10; every window and soft cap changes the result: the comparison above could fail."""
    usual = {"sliding_window": None, "attn_logit_softcapping": None, "final_logit_softcapping": None}
    forest = fixed_trees()
    bare = tiny_model(architecture, VOCABULARY, **{k: v for k, v in usual.items() if k.startswith("final")})
    with torch.no_grad():
        logits = bare(torch.arange(VOCABULARY)[None]).logits
        assert logits.max() > 8 and logits.min() < -8
        found = padded_logprobs(tiny_model(architecture, VOCABULARY), forest)
        for option in usual.keys() & ARCHITECTURES[architecture].keys():
            other = 512 if option == "sliding_window" else None
            changed = padded_logprobs(tiny_model(architecture, VOCABULARY, **{option: other}), forest)
            assert (changed - found).abs().max() > 0.1, option


@settings(max_examples=100, derandomize=True, deadline=None, database=None)
@given(forest=st.lists(trees(), min_size=1, max_size=8), budget=st.integers(1, 400))
def test_packing(forest, budget):
    rows = pack(forest, budget)
    held = [sorted({tree for tree, _ in row.answers}) for row in rows]
    assert sorted(index for indices in held for index in indices) == list(range(len(forest)))  # each in exactly one row
    for row, indices in zip(rows, held, strict=True):
        assert row.length <= budget or len(indices) == 1
        assert row.length == len(row.ids) == sum(len(forest[index]) for index in indices)  # no padding
        seen: list[int] = []
        for index, block in zip(indices, row.blocks, strict=True):
            ends: list[int] = []
            for at, node in enumerate(forest[index].nodes):  # positions restart where the parent ends
                first = 0 if node.parent is None else ends[node.parent]
                ends.append(first + len(node.ids))
                places = range(block.start + block.offsets[at], block.start + block.offsets[at] + len(node.ids))
                assert row.ids[places].tolist() == list(node.ids)
                assert row.positions[places].tolist() == list(range(first, ends[-1]))
                assert node.parent is None or block.offsets[node.parent] < block.offsets[at]  # causal
                seen += places
        assert sorted(seen) == list(range(row.length))  # nothing but the trees
        assert row.answers == [(index, node) for index in indices for node in forest[index].counted]
        for at, (index, node) in enumerate(row.answers):
            assert row.target[row.answer == at].tolist() == list(forest[index].nodes[node].ids)


def test_the_order_in_which_answers_are_named_changes_not_a_bit():
    """A prompt with the same answers is the same arithmetic, whichever of them comes first."""
    answers = [[4, 5], [6], [4, 2, 9]]
    one, other = (prompt_with_answers([1, 2, 3], found) for found in (answers, answers[::-1]))
    assert pack([one], 1)[0].ids.tolist() == pack([other], 1)[0].ids.tolist() == [1, 2, 3, 4, 2, 9, 4, 5, 6]
    model = tiny_model("llama", VOCABULARY).bfloat16()
    for ours, theirs in zip(logprobs(model, [one])[0], logprobs(model, [other])[0][::-1], strict=True):
        assert torch.equal(ours, theirs)


def test_packing_fills_rows():
    """First-fit decreasing: small trees fill what large ones leave."""
    forest = [prompt_with_answers([1] * size, [[2]]) for size in (9, 49, 39, 59)]  # 10, 50, 40 and 60 tokens
    assert sorted(row.length for row in pack(forest, 100)) == [60, 100]


def test_nothing_to_count():
    tree = Tree()
    tree.add([1, 2, 3])
    assert logprobs(models("llama"), [tree, prompt_with_answers([1], [])]) == [[], []]
    assert logprobs(models("llama"), []) == []


def test_trees_refuse_what_is_no_tree():
    tree = Tree()
    with pytest.raises(ValueError, match="root cannot be counted"):
        tree.add([1], counted=True)
    with pytest.raises(ValueError, match="at least one token"):
        tree.add([])
    tree.add([1, 2])
    for parent in (None, 1, -1):
        with pytest.raises(ValueError, match="not an earlier node"):
            tree.add([3], parent)


def values_and_gradients(model, budget=512):
    values = shared_logprobs(model, fixed_trees(), budget)
    return values.detach(), gradients(model, values)


class LargestLogits(TorchDispatchMode):
    """The most rows of any tensor as wide as the vocabulary."""

    rows = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(tensor, torch.Tensor) and tensor.ndim > 1 and tensor.shape[-1] == VOCABULARY:
                self.rows = max(self.rows, tensor.numel() // VOCABULARY)
        return out


@pytest.mark.parametrize("architecture", ["llama", "gemma2"])
def test_logits_never_stand_whole(architecture, monkeypatch):
    """Chunks of the output layer change no value and no gradient, and no [tokens, vocabulary] tensor is made."""
    model = models(architecture)
    expected, slopes = values_and_gradients(model)
    assert len(expected) > 90
    monkeypatch.setattr(scoring, "CHUNK_ELEMENTS", 7 * VOCABULARY)
    with LargestLogits() as largest:
        found, again = values_and_gradients(model)
    torch.testing.assert_close(found, expected, rtol=0, atol=5e-5)
    assert (again - slopes).norm() < 3e-5 * slopes.norm()
    width = model.config.hidden_size  # the transposed weight itself is [width, vocabulary]
    assert 7 <= largest.rows <= width
    monkeypatch.setattr(scoring, "CHUNK_ELEMENTS", 1)  # less than one row of logits: one token at a time
    assert (values_and_gradients(model)[1] - slopes).norm() < 3e-5 * slopes.norm()


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "gemma3"])
@pytest.mark.parametrize("block", [1, 3, 64])
def test_blocks_of_queries_change_nothing(architecture, block, monkeypatch):
    model = models(architecture)
    expected, slopes = values_and_gradients(model)
    monkeypatch.setattr(attention, "QUERY_BLOCK", block)
    found, again = values_and_gradients(model)
    torch.testing.assert_close(found, expected, rtol=0, atol=5e-5)
    assert (again - slopes).norm() < 3e-5 * slopes.norm()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_fused_kernel(architecture, monkeypatch):
    """What other devices than the CPU run (gemma2 apart: no fused kernel knows soft caps)."""
    monkeypatch.setattr(attention, "UNFUSED", set())
    if architecture != "gemma2":
        monkeypatch.setattr(attention, "_Attention", None)
    forest = [*fixed_trees(), random_tree([0, 1], [9, 5, 7], [True] * 3)]  # a chain needs no mask
    values, slopes = differences(models(architecture), models(architecture), forest, 512)
    assert values < 1e-4 and slopes < 1e-4


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "gpt_neox"])
def test_gradient_checkpointing(architecture, monkeypatch):
    """Layers run again in the backward pass, long after the forward pass, and still see trees."""
    expected, slopes = values_and_gradients(adapted(architecture))
    model = adapted(architecture).train()
    model.get_base_model().gradient_checkpointing_enable()
    calls = []
    weights = attention._Attention._weights
    monkeypatch.setattr(attention._Attention, "_weights", lambda *args: calls.append(1) or weights(*args))
    found, again = values_and_gradients(model)
    assert len(calls) == 3 * model.config.num_hidden_layers * len(fixed_trees())  # forward, again, backward
    torch.testing.assert_close(found, expected, rtol=0, atol=5e-5)
    assert (again - slopes).norm() < 3e-5 * slopes.norm()


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gemma2"])
def test_autocast(architecture):
    """fp32 weights under bf16 autocast: rotations and norms leave q and k in fp32, v is bf16."""
    model = adapted(architecture)
    expected, slopes = values_and_gradients(model)
    with torch.autocast("cpu", torch.bfloat16):
        values = shared_logprobs(model, fixed_trees(), 512)
    assert values.dtype == torch.float32
    assert 1e-4 < (values - expected).abs().max() < 0.5
    assert (gradients(model, values) - slopes).norm() < 0.2 * slopes.norm()


def test_attention_dropout_is_refused():
    """Its random numbers could not be the padded computation's, and ours draws none: no silent difference."""
    model = tiny_model("llama", VOCABULARY, attention_dropout=0.1).train()
    with pytest.raises(ValueError, match="attention dropout"):
        row_logprobs(model, pack(fixed_trees(), 512)[0])


@pytest.mark.parametrize("cache_kind", ["dynamic", "static"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_generation_after_trees(architecture, cache_kind):
    """Greedy decoding of a left-padded batch, past the window, is that of transformers' eager attention."""
    model = tiny_model(architecture, VOCABULARY)
    prompts = torch.randint(1, VOCABULARY, (2, 9), generator=torch.Generator().manual_seed(3))
    seen = torch.ones_like(prompts)
    seen[1, :4] = 0
    options = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0, "cache_implementation": cache_kind}
    if cache_kind == "static":
        options["disable_compile"] = True
    batches = [(prompts, seen), (prompts[:1], seen[:1])]  # a batch without padding comes without a mask
    model.set_attn_implementation("eager")
    expected = [model.generate(ids, attention_mask=mask, **options) for ids, mask in batches]
    logprobs(model, [random_tree([0, 0], [9, 5, 7], [False] * 3)])
    assert model.config._attn_implementation == attention.NAME
    for (ids, mask), text in zip(batches, expected, strict=True):
        assert model.generate(ids, attention_mask=mask, **options).tolist() == text.tolist()
