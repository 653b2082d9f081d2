"""A tiny random model in place of a base: the same architecture, the real special tokens and template, milliseconds to make."""

from collections.abc import Sequence
from copy import deepcopy
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
import yaml
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from personalign.errors import UserError
from personalign.home import home
from personalign.models.embedded import EMBEDDED
from personalign.models.folders import HUB_ID

TEMPLATES = files("personalign.conversation") / "templates"
SMALL = ["*.json", "*.jinja", "*.model", "*.txt"]  # everything about a hub model but its weights
LAYERS = 3
SIZES = {
    "hidden_size": 64, "num_hidden_layers": LAYERS, "num_attention_heads": 4, "head_dim": 16, "intermediate_size": 128,
    "moe_intermediate_size": 64, "num_experts": 4, "num_local_experts": 4, "max_window_layers": 1, "sliding_window": 64,
    "query_pre_attn_scalar": 16, "max_position_embeddings": 8192,
}  # fmt: skip


def byte_tokenizer(
    template: str | None = "chatml",
    bos: str | None = None,
    eos: str | None = None,
    extra_special: Sequence[str] = (),
    adds_bos: bool = True,
    merges: Sequence[tuple[str, str]] = (),
) -> PreTrainedTokenizerFast:
    """A tokenizer whose tokens are the 256 bytes and a handful of special tokens.

    `template` is the name of a bundled template, Jinja text (anything with a "{"), or None. `eos` is by default the
    token that ends an answer in ChatML, "<|im_end|>"; "<|im_start|>" and "<pad>" are always there. With `bos`, a token
    that the tokenizer itself puts first (as those of Llama 3 and Gemma do), unless `adds_bos` is false. `merges` are
    pairs of byte-level tokens to join, such as ("Ċ", "Ċ") for two newlines.
    """
    eos = eos or "<|im_end|>"
    tokens = sorted(pre_tokenizers.ByteLevel.alphabet()) + ["".join(merge) for merge in merges]
    backend = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=list(merges)))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)  # type: ignore[assignment]
    backend.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    special = dict.fromkeys(["<pad>", *([bos] if bos else []), "<|im_start|>", eos, *extra_special])
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    if bos and adds_bos:
        backend.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, backend.token_to_id(bos))]
        )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=bos, eos_token=eos, pad_token="<pad>")
    if template is not None:
        is_text = "{" in template
        tokenizer.chat_template = template if is_text else (TEMPLATES / f"{template}.jinja").read_text(encoding="utf-8")
    return tokenizer


def real_config(name: str, trust_remote_code: bool = False) -> tuple[Any, Path | None]:
    """Configuration of the base `name`, without its weights, and the folder it lies in (None: known by heart).

    An embedded model that was not fetched, or a hub model of known.yaml, needs no network. Raises UserError where the
    hub does not give the configuration of another.
    """
    folder = Path(name).expanduser()
    fetched = home() / "models" / name
    if name in EMBEDDED and fetched.is_dir():
        folder = fetched
    elif name in _known():
        return AutoConfig.for_model(**_known()[name]["config"]), None
    elif not folder.is_dir():
        folder = _described(name)
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code), folder
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"--model {name}: transformers cannot read it ({str(error).strip().splitlines()[0]})."
        ) from error


def save_stand_in(name: str, config: Any, real: Path | None, folder: Path, trust_remote_code: bool = False) -> None:
    """Write a random model of `config`'s architecture and a tokenizer into `folder`: the real one, where it is at `real`.

    Otherwise one of bytes with the special tokens and the template of known.yaml.
    """
    if real is not None:
        tokenizer = AutoTokenizer.from_pretrained(real, trust_remote_code=trust_remote_code)
    else:
        facts = _known()[name]
        template = facts["template"] if facts["template"] != "none" else None
        tokenizer = byte_tokenizer(template, facts["bos"], facts["eos"], facts["special"])
    small = _tiny(config.get_text_config(), len(tokenizer))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = AutoModelForCausalLM.from_config(small, dtype=torch.float32, trust_remote_code=trust_remote_code)
    made.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _tiny(config: Any, vocabulary: int) -> Any:
    """The same configuration with all sizes small; kinds of layers, activations, caps and rotary shares as they were."""
    small = deepcopy(config)
    groups = getattr(config, "num_key_value_heads", None)
    for key, value in SIZES.items():
        if getattr(small, key, None) is not None:
            setattr(small, key, value)
    if groups is not None:
        small.num_key_value_heads = max(1, SIZES["num_attention_heads"] * groups // config.num_attention_heads)
    if kinds := getattr(config, "layer_types", None):
        small.layer_types = (list(dict.fromkeys(kinds)) * LAYERS)[:LAYERS]
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(small, key, None)
    small.vocab_size = vocabulary
    if getattr(small, "quantization_config", None) is not None:
        del small.quantization_config
    return small


def _described(name: str) -> Path:
    """Folder with everything about a hub model but its weights."""
    from huggingface_hub import snapshot_download

    if not HUB_ID.fullmatch(name):
        raise UserError(f"--model {name}: neither an embedded model ({', '.join(EMBEDDED)}) nor a folder nor a hub id.")
    try:
        return Path(snapshot_download(name, allow_patterns=SMALL))
    except Exception as error:  # the hub's errors are of many kinds
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"--model {name}: a dry run needs its config.json, and the hub did not give it ({first}). Check the name and the "
            "network, or give a local folder."
        ) from error


@cache
def _known() -> dict[str, Any]:
    text = (files("personalign.models") / "known.yaml").read_text(encoding="utf-8")
    bases: dict[str, Any] = yaml.safe_load(text)["bases"]
    return bases
