"""Sentence embeddings for de-duplication by meaning: a small English model inside a package, or any encoder."""

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from personalign.errors import UserError
from personalign.progress import bar

PACKAGED = "wordllama"  # English; 16 MB with its weights (MIT)
BATCH = 64
HANGUL = re.compile("[가-힣]")
LONGEST = 512  # tokens of a text that an encoder reads


def embed(texts: Sequence[str], model: str = PACKAGED) -> np.ndarray:
    """An embedding of each text, [texts, size] in fp32, not normalised.

    `model` is "wordllama" (the extra `embeddings`; no network), or the folder or hub id of a sentence encoder, whose last
    hidden states are averaged over a text's tokens, as multilingual-e5 and its like are made for.

    Raises UserError where the package is not installed or the encoder cannot be loaded, and for wordllama where more than
    half of the texts are Korean, which it does not know: two Korean texts on different matters have a cosine above .7.
    """
    if model == PACKAGED:
        if 2 * sum(bool(HANGUL.search(text)) for text in texts) > len(texts):
            raise UserError(
                "--embeddings wordllama: it knows English only, and most of these texts are Korean; give the folder or hub id of "
                "a multilingual sentence encoder, such as intfloat/multilingual-e5-small."
            )
        return np.asarray(_wordllama().embed(list(texts)), dtype=np.float32)
    return _encoder(list(texts), model)


def _wordllama() -> Any:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        import wordllama
    except ImportError:
        raise UserError(
            "--embeddings wordllama: the package is not installed; pip install 'personalign[embeddings]', or give the folder "
            "of a sentence encoder."
        ) from None
    finally:  # it has every library log to the terminal from its import on
        root.handlers[:] = handlers
        root.setLevel(level)
    try:
        # its weights and its tokenizer lie inside the package; it looks for the latter in a folder of another name
        inside = Path(wordllama.__file__).parent
        return wordllama.WordLlama.load(cache_dir=inside, disable_download=True)
    except Exception as error:  # whatever fails here, the installation is broken
        raise UserError(f"--embeddings wordllama: cannot be loaded ({error}); install it anew.") from None


def _encoder(texts: list[str], name: str) -> np.ndarray:
    from personalign.models import resolve

    try:
        folder = resolve(name)
    except UserError as error:
        raise UserError(str(error).replace("--model", "--embeddings")) from None
    import torch
    from transformers import AutoModel, AutoTokenizer

    try:
        tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise UserError(f"--embeddings {name}: transformers cannot load it ({str(error).splitlines()[0]}).") from None
    model.eval()
    order = sorted(range(len(texts)), key=lambda at: len(texts[at]))  # texts of a like length need little padding
    found = np.empty((len(texts), model.config.hidden_size), dtype=np.float32)
    for begin in bar(range(0, len(texts), BATCH), "embeddings", disable=len(texts) < 10 * BATCH):
        some = order[begin : begin + BATCH]
        read = tokenizer(
            [texts[at] for at in some], padding=True, truncation=True, max_length=LONGEST, return_tensors="pt"
        )
        with torch.inference_mode():
            hidden = model(**read).last_hidden_state.float()
        counts = read["attention_mask"].unsqueeze(-1)
        found[some] = ((hidden * counts).sum(1) / counts.sum(1).clamp(min=1)).numpy()
    return found
