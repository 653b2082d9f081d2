"""Tiny stand-ins for real tokenizers and models: no network, milliseconds to build.

`from tiny import byte_tokenizer, tiny_model` works in every test file, since pytest puts tests/ on the import path.
"""

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from personalign.models.stand_in import byte_tokenizer as byte_tokenizer

# Sliding windows of 8 positions and soft caps low enough to bite in a prompt of a dozen tokens.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {},
    "gemma": {},
    "gemma2": {
        "sliding_window": 8,
        "attn_logit_softcapping": 5.0,
        "final_logit_softcapping": 8.0,
        "query_pre_attn_scalar": 2,
        "attn_implementation": "eager",  # transformers 5.17 would take SDPA, which leaves the soft cap out
    },
    "gemma3": {
        "model_type": "gemma3_text",
        "sliding_window": 8,
        "query_pre_attn_scalar": 8,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
    "qwen2": {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
    "qwen3": {},
    "mistral": {"sliding_window": 8},
    "gpt_neox": {},
}


def tiny_model(architecture: str, vocab_size: int, seed: int = 0, **overrides: Any) -> PreTrainedModel:
    """A random causal language model of `architecture` (a key of ARCHITECTURES), fp32, in eval mode, the same for the
    same seed.

    Three layers, hidden size 32. Its weights are drawn so that everything matters: attention is far from uniform
    (scores with a standard deviation of about 2, on gemma2 about 4, so its cap of 5 bites), norms and biases are
    random, logits span about -10 to 10. More would amplify rounding: fp32 and fp64 log-probabilities differ by up to
    about 3e-5 as it is. `overrides` are fields of its configuration."""
    settings: dict[str, Any] = {
        "vocab_size": vocab_size,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": 512,
        "tie_word_embeddings": False,
        "pad_token_id": None,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    if architecture != "gpt_neox":
        settings |= {"num_key_value_heads": 2, "head_dim": 8}
    settings |= {"model_type": architecture} | ARCHITECTURES[architecture] | overrides
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**settings), dtype=torch.float32)
    _draw_weights(model, torch.Generator().manual_seed(seed))
    return model.eval()


@torch.no_grad()
def _draw_weights(model: PreTrainedModel, generator: torch.Generator) -> None:
    """Weights under which every part of the model shows in its logits (the usual 0.02 leaves it nearly linear)."""
    head = model.get_output_embeddings().weight
    embedding = model.get_input_embeddings().weight
    for name, weight in sorted(model.named_parameters()):
        noise = torch.randn(weight.shape, generator=generator)
        if weight.ndim == 1:  # norms and biases: near their neutral value, not at it
            weight.add_(noise, alpha=0.2)
            if "q_norm" in name or "k_norm" in name:
                weight.add_(0.4)
        else:
            attention = any(part in name for part in ("q_proj", "k_proj", "query_key_value"))
            gain = 2.5 if weight is head or weight is embedding else 1.5 if attention else 1.0
            weight.copy_(noise * gain / weight.shape[1] ** 0.5)
