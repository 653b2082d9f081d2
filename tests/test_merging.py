"""Merging: the saved model is base + adapter, as it was trained; how near is measured on what is loaded again."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from personalign.cli import main
from personalign.errors import UserError
from personalign.models import add_adapter, load_adapter, load_model, save_adapter
from personalign.models.merging import Seen, compare, fold, look, merge
from personalign.training.methods import new_head
from test_quantised import folder, plain_twin

ROWS: Any = [
    [{"role": "user", "content": f"hello {n}"}, {"role": "assistant", "content": f"I say {n * 7}"}] for n in range(4)
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(folder(tmp_path_factory.mktemp("base")))


@pytest.fixture(scope="module")
def adapter(base: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that moves every layer, saved as training does."""
    where = tmp_path_factory.mktemp("adapter") / "adapter"
    model = add_adapter(load_model(base, precision="fp32")[0], rank=4)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.05, generator=torch.Generator().manual_seed(len(name)))
    save_adapter(model, where)
    return where


# ---- what is saved


@pytest.mark.parametrize("kind", [None, "nf4", "int8"])
def test_the_saved_model_is_base_and_adapter_as_they_were_trained(
    base: str, adapter: Path, tmp_path: Path, kind: Any
) -> None:
    found = merge(base, adapter, tmp_path / "merged", quantise=kind, rows=ROWS, precision="fp32")
    assert found["merged"]["largest_difference"] < 1e-4 and found["merged"]["same_likeliest"] == 1
    model, tokenizer = load_model(base, precision="fp32", quantise=kind)
    prompt = torch.tensor([tokenizer("what now?")["input_ids"]])
    with torch.no_grad():
        wanted = load_adapter(plain_twin(model), adapter)(prompt).logits
        torch.testing.assert_close(
            AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)(prompt).logits,
            wanted, atol=1e-4, rtol=1e-4,
        )  # fmt: skip
    assert AutoTokenizer.from_pretrained(tmp_path / "merged").chat_template == tokenizer.chat_template
    config = json.loads((tmp_path / "merged" / "config.json").read_text(encoding="utf-8"))
    assert "quantization_config" not in config and config["dtype"] == "float32"


def test_weights_are_summed_in_fp32_and_rounded_once(base: str, adapter: Path) -> None:
    exact = fold(load_adapter(load_model(base, precision="fp32")[0], adapter), torch.float32)
    rounded = fold(load_adapter(load_model(base, precision="fp32")[0], adapter), torch.bfloat16)
    for one, other in zip(exact.parameters(), rounded.parameters(), strict=True):
        assert other.dtype == torch.bfloat16 and torch.equal(one.to(torch.bfloat16), other)


# ---- what is measured


def test_merging_into_the_weights_before_quantisation_is_shown_to_be_wrong(
    base: str, adapter: Path, tmp_path: Path
) -> None:
    found = merge(base, adapter, tmp_path / "merged", quantise="nf4", rows=ROWS, precision="fp32")
    assert found["into_original"]["mean_difference"] > 1000 * found["merged"]["mean_difference"]
    assert json.loads((tmp_path / "merged" / "merge.json").read_text(encoding="utf-8")) == found
    assert (found["quantise"], found["saved"], found["texts"]) == ("nf4", "fp32", 4)


def test_the_rounding_of_what_is_saved_shows(base: str, adapter: Path, tmp_path: Path) -> None:
    found = merge(base, adapter, tmp_path / "merged", rows=ROWS, precision="fp32", saved="bf16")
    assert 1e-3 < found["merged"]["mean_difference"] < 0.2 and "into_original" not in found
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "merged").dtype == torch.bfloat16


def test_differences_are_of_log_probabilities_and_of_the_likeliest_tokens() -> None:
    one = Seen(torch.tensor([-1.0, -2.0, -3.0, -4.0]), torch.tensor([1, 2, 3, 4]))
    other = Seen(torch.tensor([-1.0, -2.5, -2.0, -4.0]), torch.tensor([1, 2, 3, 9]))
    assert compare(one, other) == {"mean_difference": 0.375, "largest_difference": 1.0, "same_likeliest": 0.75}


def test_only_the_counted_tokens_are_looked_at(base: str) -> None:
    model, _ = load_model(base, precision="fp32")
    ids, counts = [5, 9, 11, 60, 61, 62, 63], [False, False, True, False, True, True, False]
    with torch.no_grad():
        table = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    found = look(model, [(ids, counts), (ids, counts)])
    expected = torch.stack([table[at - 1, ids[at]] for at in (2, 4, 5)])
    torch.testing.assert_close(found.logprobs, expected.repeat(2), atol=1e-5, rtol=1e-5)
    assert found.likeliest.tolist() == table[[1, 3, 4]].argmax(-1).tolist() * 2


# ---- refusals


def test_what_cannot_be_merged_is_refused_in_a_sentence(base: str, adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--output .*: exists already; name another folder"):
        merge(base, adapter, tmp_path, rows=ROWS)
    model, _ = load_model(base, precision="fp32")
    reward = add_adapter(model, rank=2)
    save_adapter(reward, tmp_path / "reward", head=new_head(reward, 0))
    with pytest.raises(UserError, match="reward: a reward model; its head has no place"):
        merge(base, tmp_path / "reward", tmp_path / "merged", rows=ROWS)
    for changes in ({"use_dora": True}, {"modules_to_save": ["embed_tokens"]}, {"target_modules": ["lm_head"]}):
        other = get_peft_model(load_model(base)[0], LoraConfig(**{"target_modules": ["q_proj"], **changes}))  # type: ignore[arg-type]
        with pytest.raises(UserError, match="only plain LoRA on the decoder's linear layers can be merged here"):
            fold(other, torch.float32)
    assert not (tmp_path / "merged").exists()


# ---- the command


def test_the_command_merges_and_says_what_it_measured(
    base: str, adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (
        f"merge --model {base} --adapter {adapter} --output {tmp_path / 'merged'} --quantise nf4 --texts 3".split()
    )
    assert main([*arguments, "--precision", "fp32"]) == 0
    said = capsys.readouterr().out
    assert (
        "with " in said
        and "of 3 texts, against base + adapter:\n  merged: a token's log-probability differs by 0.0000" in said
    )
    assert "merged into weights that are not nf4: " in said
    assert (tmp_path / "merged" / "model.safetensors").is_file()


def test_an_adapter_says_how_its_base_was_kept_and_another_base_is_refused(
    base: str, adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from personalign.models import fingerprint

    model = add_adapter(load_model(base, precision="fp32")[0], rank=2)
    save_adapter(model, tmp_path / "own", origin={"base": f"{fingerprint(base)} nf4"})
    save_adapter(model, tmp_path / "other", origin={"base": "0123456789abcdef", "name": "another"})
    common = ["--model", base, "--precision", "fp32", "--texts", "1", "--output"]
    assert main(["merge", "--adapter", str(tmp_path / "own"), *common, str(tmp_path / "merged")]) == 0
    assert json.loads((tmp_path / "merged" / "merge.json").read_text(encoding="utf-8"))["quantise"] == "nf4"
    other_bits = ["merge", "--adapter", str(tmp_path / "own"), "--quantise", "int8", *common, str(tmp_path / "no")]
    assert main(other_bits) == 2
    assert "trained on this base with `quantise: nf4`; load it so" in capsys.readouterr().err
    assert main(["merge", "--adapter", str(tmp_path / "other"), *common, str(tmp_path / "no")]) == 2
    assert "was trained on another base (another)" in capsys.readouterr().err
