"""The peak of memory that training needs, part by part, from a base's configuration alone: asked before it starts.

The counts follow the arithmetic of this program (trees/, models/lora.py) and of transformers' layers; bench/memory.py
holds them against measured peaks. What Python, PyTorch and a GPU's driver take for themselves is not in them.
"""

from dataclasses import dataclass
from typing import Any

from personalign.training.settings import PpoSettings, RewardSettings, TrainSettings
from personalign.trees.attention import QUERY_BLOCK
from personalign.trees.logprobs import CHUNK_ELEMENTS

SIZES = {"fp32": 4, "bf16": 2, "fp16": 2}
MOMENTS = {"adamw": 8.0, "sgd": 0.0, "paged_adamw_8bit": 2 + 8 / 256}  # bytes a trained parameter
SCRATCH = 48 << 20  # what matrix libraries work in
FOUR_NORMS = {"gemma2", "gemma3", "gemma3_text"}
HEAD_NORMS = {"qwen3", "gemma3", "gemma3_text"}


@dataclass(frozen=True)
class Shape:
    """What of a base memory depends on: sizes, and how its decoder layers are built."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    tied: bool = False
    norms: int = 2  # to a layer
    head_norms: bool = False  # queries and keys have norms of their own
    neox: bool = False  # one matrix for query, key and value, two in the MLP, biases, LayerNorm in the base's precision

    @property
    def queries(self) -> int:
        """Width of all queries."""
        return self.heads * self.head_dim

    @property
    def keys(self) -> int:
        """Width of all keys, and of all values."""
        return self.kv_heads * self.head_dim

    @property
    def matrices(self) -> dict[str, tuple[int, int]]:
        """Linear layers of a decoder layer by name: (out, in)."""
        hidden, inner, q, kv = self.hidden, self.intermediate, self.queries, self.keys
        if self.neox:
            return {
                "query_key_value": (3 * hidden, hidden), "dense": (hidden, hidden),
                "dense_h_to_4h": (inner, hidden), "dense_4h_to_h": (hidden, inner),
            }  # fmt: skip
        return {
            "q_proj": (q, hidden), "k_proj": (kv, hidden), "v_proj": (kv, hidden), "o_proj": (hidden, q),
            "gate_proj": (inner, hidden), "up_proj": (inner, hidden), "down_proj": (hidden, inner),
        }  # fmt: skip


def shape_of(config: Any) -> Shape:
    """The shape that a transformers configuration describes; what it does not say is taken as in Llama."""
    text = config.get_text_config()
    kind, heads = text.model_type, getattr(text, "num_attention_heads", None) or max(1, text.hidden_size // 64)
    return Shape(
        hidden=text.hidden_size,
        layers=text.num_hidden_layers,
        heads=heads,
        kv_heads=getattr(text, "num_key_value_heads", None) or heads,
        head_dim=getattr(text, "head_dim", None) or text.hidden_size // heads,
        intermediate=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
        vocabulary=text.vocab_size,
        tied=bool(text.tie_word_embeddings),
        norms=4 if kind in FOUR_NORMS else 2,
        head_norms=kind in HEAD_NORMS,
        neox=kind == "gpt_neox",
    )


def base_bytes(shape: Shape, precision: str, quantise: str | None = None) -> int:
    """Bytes of the base's weights; quantised are the linear layers of the decoder layers alone."""
    size = SIZES[precision]
    linear = sum(_matrix_bytes(out, width, size, quantise) for out, width in shape.matrices.values())
    small = shape.norms * shape.hidden + (2 * shape.head_dim if shape.head_norms else 0)
    if shape.neox:
        small += shape.norms * shape.hidden + sum(out for out, _ in shape.matrices.values())
    rest = shape.layers * small + shape.vocabulary * shape.hidden * (1 if shape.tied else 2)
    rest += shape.hidden * (2 if shape.neox else 1)
    return shape.layers * linear + rest * size


def _matrix_bytes(out: int, width: int, size: int, quantise: str | None) -> int:
    """Bytes of a weight matrix. NF4 has a scale of 8 bits for every 64 weights, and one in fp32 for 256 of these; int8
    has one in fp32 a row.
    """
    blocks = -(-out * width // 64)
    return {
        None: out * width * size, "nf4": -(-out * width // 2) + blocks + 4 * -(-blocks // 256),
        "int8": out * width + 4 * out,
    }[quantise]  # fmt: skip


def adapter_size(shape: Shape, rank: int, targets: tuple[str, ...] | None = None) -> int:
    """Parameters of one adapter on the named linear layers (all, if not given)."""
    wanted = shape.matrices if targets is None else {name: shape.matrices[name] for name in targets}
    return shape.layers * sum(rank * (out + width) for out, width in wanted.values())


def estimate(
    shape: Shape,
    settings: TrainSettings,
    *,
    precision: str,
    quantise: str | None = None,
    adapters: int = 1,
    live: int | None = None,
    longest: int | None = None,
    device: str = "cuda",
    base: int | None = None,
    adapter: int | None = None,
) -> dict[str, int]:
    """Bytes by part (base, adapters, gradients, optimiser, activations, logits, cache, scratch) and "peak", which is less than
    their sum: not all of them stand at once.

    The class of `settings` says the method. `adapters` are trained in one pass, the gradients of `live` of them stand at
    once (all, if not given). PPO has four adapters of which two are trained, in turn, and a KV cache while answers are
    sampled. `longest` is the longest tree in tokens (row_tokens, if not given). `base` (bytes) and `adapter` (parameters
    of one) replace what follows from the shape where a model is loaded.
    """
    size, lora = SIZES[precision], settings.lora
    ppo = isinstance(settings, PpoSettings)
    one = adapter if adapter is not None else adapter_size(shape, lora.rank, lora.targets)
    trained = (2 if ppo else adapters) * one
    graded = (1 if ppo else adapters if live is None else min(live, adapters)) * one
    longest = longest if longest is not None else settings.row_tokens
    row = max(longest, settings.row_tokens)
    kept = row * _kept(shape, size, lora.rank, device)
    casts = graded * size if size < 4 else 0  # of A and B in the base's precision
    if settings.gradient_checkpointing:
        through = row * shape.layers * shape.hidden * size + kept + casts // shape.layers
    else:
        through = shape.layers * kept + casts
    largest = max(out * width for out, width in shape.matrices.values())
    working = row * _transient(shape, size) + _attention(shape, size, longest, device)
    working += largest * (size + 4 if quantise else 0)
    # a logit in the base's precision, its fp32 and again for the derivative
    logits = 0 if isinstance(settings, RewardSettings) else min(CHUNK_ELEMENTS, row * shape.vocabulary) * (4 + size)
    ends = row * shape.hidden * (4 + 4 * size)  # embeddings, final norm, hidden states, their derivatives
    parts = {
        "base": base if base is not None else base_bytes(shape, precision, quantise),
        "adapters": (4 if ppo else adapters) * one * 4,
        "gradients": graded * 4,
        "optimiser": round(trained * MOMENTS[settings.optimizer]),
        "activations": through + ends + working,
        "logits": logits,
        "cache": _cache(shape, size, settings, longest) if isinstance(settings, PpoSettings) else 0,
        "scratch": SCRATCH,
    }
    standing = parts["base"] + parts["adapters"] + parts["optimiser"] + SCRATCH
    step = parts["gradients"] + through + ends + max(working, logits)
    return parts | {"peak": standing + max(step, parts["cache"])}


def _kept(shape: Shape, size: int, rank: int, device: str) -> int:
    """Bytes a token that a decoder layer keeps for its backward pass.

    What the norms see, in fp32; inputs of the adapted layers; rotated queries and keys, values; what the MLP multiplies;
    and the adapters' inner products.
    """
    q, kv, hidden = shape.queries, shape.keys, shape.hidden
    norms = shape.norms * hidden * (size if shape.neox else 4) + (4 * (q + kv) if shape.head_norms else 0)
    attention = 2 * q + 2 * kv + (2 * hidden if shape.neox else 0) + (q if device == "cuda" else 0)
    mlp = (2 if shape.neox else 4) * shape.intermediate
    return norms + size * (2 * hidden + attention + mlp + rank * len(shape.matrices))


def _transient(shape: Shape, size: int) -> int:
    """Bytes a token of the derivatives inside one layer while it is passed backwards."""
    return size * 3 * shape.intermediate + 12 * shape.hidden


def _attention(shape: Shape, size: int, longest: int, device: str) -> int:
    """Bytes of the scores of one block of queries and their derivatives (a GPU's kernel has none), and of the mask."""
    mask = longest**2
    return (
        mask * (1 + size) if device == "cuda" else mask + 4 * size * shape.heads * min(QUERY_BLOCK, longest) * longest
    )


def _cache(shape: Shape, size: int, settings: PpoSettings, longest: int) -> int:
    """Bytes of keys and values while answers are sampled, of a copy of one layer's, and of the drawing of tokens."""
    tokens = max(settings.cache_tokens, settings.answers * longest)
    sampled = max(1, tokens // longest) * settings.answers
    return tokens * 2 * shape.keys * size * (shape.layers + 1) + sampled * shape.vocabulary * 40
