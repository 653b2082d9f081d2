"""The stand-ins themselves: models in which every part matters, and tokenizers that lose nothing."""

import pytest
import torch

from tiny import ARCHITECTURES, byte_tokenizer, tiny_model


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logits_span_ten_and_are_computed_well_enough_to_compare(architecture):
    ids = torch.randint(0, 300, (4, 48), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        model = tiny_model(architecture, 300)
        logits = model(ids).logits
        exact = model.double()(ids).logits
    largest = logits.abs().max()
    assert 6 < largest < 8 if architecture == "gemma2" else 8 < largest < 16
    assert (logits.log_softmax(-1) - exact.log_softmax(-1)).abs().max() < 5e-5


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_same_seed_gives_the_same_model(architecture):
    ids = torch.arange(20)[None]
    with torch.no_grad():
        first, again, other = (tiny_model(architecture, 300, seed)(ids).logits for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize("architecture", ["gemma2", "gemma3", "mistral", "qwen2"])
def test_windows_bite(architecture):
    ids = torch.arange(40)[None]
    with torch.no_grad():
        windowed = tiny_model(architecture, 300)(ids).logits
        unbounded = tiny_model(architecture, 300, sliding_window=64)(ids).logits
    difference = (windowed - unbounded).abs().amax(-1)[0]
    assert difference[:8].max() == pytest.approx(0, abs=1e-4) and difference[8:].max() > 0.5


@pytest.mark.parametrize("cap", ["attn_logit_softcapping", "final_logit_softcapping"])
def test_soft_caps_bite(cap):
    ids = torch.arange(40)[None]
    with torch.no_grad():
        assert (
            tiny_model("gemma2", 300)(ids).logits - tiny_model("gemma2", 300, **{cap: None})(ids).logits
        ).abs().max() > 1


def test_bytes_come_back_as_they_were():
    tokenizer = byte_tokenizer(bos="<s>")
    text = "안녕\t café 😀<|im_end|>\n"
    assert tokenizer.decode(tokenizer(text).input_ids) == "<s>" + text
    assert len(tokenizer) == 256 + len(["<pad>", "<s>", "<|im_start|>", "<|im_end|>"])
