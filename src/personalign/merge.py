"""`personalign merge`: an adapter's weights in the base's own, for programs that know no adapters; and what that cost."""

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from personalign.commands import Terms
from personalign.conversation import Message
from personalign.recipe import Recipe
from personalign.runs import adapter_folder, recipe_of

Precision = Literal["fp32", "bf16", "fp16"]


class Merge(Terms):
    """Options of `merge`."""

    adapter: str = Field(description="trained adapter: a PEFT folder, or a run folder such as runs/demo")
    output: str = Field(description="folder for the merged model")
    model: str | None = Field(None, description="the base; that of the adapter's run, else smollm2, if not given")
    template: str | None = Field(None, description=Recipe.model_fields["template"].description)
    quantise: Literal["nf4", "int8"] | None = Field(
        None, description="how the base was kept in training; what the adapter's folder says, if not given"
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] | None = Field(
        None, description="precision of the base in training; that of the adapter's run, if not given"
    )
    save_precision: Precision | None = Field(
        None, description="precision of the merged weights; as in training if not given"
    )
    data: str | None = Field(
        None,
        description="texts to measure on, any dataset file; the run's held-out rows, else bundled answers, if not given",
    )
    texts: int = Field(64, ge=1, description="how many of them")
    language: Literal["en", "ko"] = Field("en", description="language of the bundled answers")
    trust_remote_code: bool = Field(False, description=Recipe.model_fields["trust_remote_code"].description)


def merge(options: Merge) -> None:
    """Merge, save, load again, measure, and say how far the merged model is from base + adapter."""
    from personalign.models import check_origin, fingerprint, merging, resolve
    from personalign.terminal import quiet_loading

    adapter = adapter_folder(options.adapter)
    own = recipe_of(adapter)
    name = options.model or (own.model if own else "smollm2")
    resolve(name)
    quiet_loading()
    quantise = options.quantise or quantised_in_training(adapter)
    check_origin(adapter, " ".join(filter(None, [fingerprint(name), quantise])))
    step = own.steps().get(adapter.parent.name) if own else None
    found = merging.merge(
        name,
        adapter,
        options.output,
        quantise=quantise,
        rows=_rows(options, adapter),
        precision=options.precision or (step.precision if step else "auto"),
        saved=options.save_precision,
        template=options.template or (own.template if own else None),
        trust_remote_code=options.trust_remote_code or bool(own and own.trust_remote_code),
    )
    print(f"{options.output}: {name} with {adapter} in its weights ({found['saved']})")
    print(f"over {found['tokens']} tokens of {found['texts']} texts, against base + adapter:")
    for key, words in (("merged", "merged"), ("into_original", f"merged into weights that are not {quantise}")):
        if key in found:
            print(f"  {words}: {_in_words(found[key])}")


def quantised_in_training(adapter: Path) -> Any:
    """How the base was kept when this adapter was trained ("nf4", "int8"), as its folder says; None: not quantised."""
    from personalign.models.adapters import ORIGIN

    path = adapter / ORIGIN
    base = json.loads(path.read_text(encoding="utf-8")).get("base") if path.is_file() else None
    return (base or "").partition(" ")[2] or None


def _rows(options: Merge, adapter: Path) -> list[list[Message]]:
    """Conversations to measure on, evenly spaced through what there is."""
    from personalign.datasets import Conversation, Pair, Ranking, chosen_conversation, read_conversations, type_pairs
    from personalign.rows import read_rows

    held_out = adapter.parent.parent / "data" / "held_out.jsonl"
    if options.data is not None:
        found = read_conversations(options.data)
    elif held_out.is_file():
        kept = read_rows(held_out)
        found = [
            row if isinstance(row, Conversation) else chosen_conversation(row)
            for row in kept
            if isinstance(row, (Conversation, Pair, Ranking))
        ]
    else:
        found = []
    found = found or [chosen_conversation(pair) for pair in type_pairs("ENFP", options.language, "held_out")]
    count = min(options.texts, len(found))
    return [found[at * len(found) // count].messages for at in range(count)]


def _in_words(measured: dict[str, float]) -> str:
    return (
        f"a token's log-probability differs by {measured['mean_difference']:.4f} nats on average, by "
        f"{measured['largest_difference']:.3f} at most; the likeliest token is the same for "
        f"{measured['same_likeliest']:.1%}"
    )
