"""The measurement of a persona: every arm on the inventory, the held-out pairs and a few situations."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from pathlib import Path
from platform import python_version
from typing import TYPE_CHECKING, Any, NamedTuple

from personalign.conversation import Message, prompt_ids
from personalign.datasets import Pair, Situation
from personalign.errors import UserError
from personalign.evaluation.arms import ARMS, Arm, activated, addressed, with_controls
from personalign.evaluation.inventory import Item, inventory_summary, item_unit, load_items
from personalign.evaluation.notes import notes
from personalign.evaluation.preference import pair_unit, preference_summary
from personalign.evaluation.results import lines, plain, resume
from personalign.evaluation.score import Row, Unit, digest, score
from personalign.evaluation.seeds import seeded
from personalign.files import write_whole
from personalign.personas import Persona
from personalign.progress import bar

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ANSWER_TOKENS = 96  # of a shown answer: three sentences and some room


def measure(
    model: Any,
    tokenizer: "PreTrainedTokenizerBase",
    persona: Persona,
    pairs: Sequence[Pair],
    *,
    base: dict[str, str],
    folder: str | Path,
    arms: Sequence[Arm] = ARMS,
    poles: str | None = None,
    language: str | None = None,
    share: float = 1.0,
    situations: Sequence[Situation] = (),
    training: dict[str, Any] | None = None,
    seeds: Mapping[str, str | Path] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> dict[str, Any]:
    """Measure every arm (and the controls) and return what summary.json then holds.

    `model` is the base, wrapped with its adapter if an arm has one; `base` is {"name", "fingerprint"} of the base.
    `poles` are those that the persona aims at (default: its type's; a free persona has none), `language` is that of the
    inventory (default: the persona's), `share` the part of its items that is asked. `situations` are answered greedily
    by every arm, to be read. `training` is kept in the summary as it is.

    `seeds` are adapters of one persona that differ in the seed of their training, its name -> the adapter's folder. Every
    arm with an adapter is then measured with each of them: an item counts with its mean over the seeds, and every
    interval is for other seeds, too (`estimate` in seeds.py). Questions are answered with the first seed's. One seed gives
    the numbers of that adapter loaded on `model`.

    In `folder`, results.jsonl gets one line for each presentation of an item, each pair and each answer of each arm, as
    soon as it is there. A later call finds by content what is done (same base, adapter, precision, tokens), so a killed
    one continues; a half line is ignored. summary.json comes last.

    Raises UserError for an arm with an adapter on a model without one, for a seed whose folder holds no adapter of this
    base or the adapter of another seed, and for a folder that cannot be written.
    """
    arms = with_controls(arms)
    language = language or persona.language
    poles = (persona.type or "") if poles is None else poles
    items = load_items(language, share)
    model.eval()
    with seeded(model, base["fingerprint"], seeds or {}) as (model, names):
        plans = []
        for arm in arms:
            for at, trained in enumerate(list(names) if arm.adapter and names else [""]):
                with _as_planned(model, arm, names.get(trained)):
                    identity = _identity(model, base, arm, trained)
                asked = situations if at == 0 else ()
                plans.append(_plan(tokenizer, arm, identity, persona.system_prompt, items, language, pairs, asked))
        adapters = _adapters(plans)
        rows = _carry_out(model, tokenizer, plans, names, Path(folder) / "results.jsonl", progress)
    answers = {(row["situation"], row["arm"]): row["answer"] for row in rows if row["kind"] == "answer"}
    summary = plain(
        {
            "persona": {"name": persona.name, "type": persona.type, "language": language, "poles": poles or None},
            "model": base,
            "seed": seed,
            "versions": _versions(),
            "arms": [asdict(arm) | {"adapter": adapters[arm.name]} for arm in arms],
            **({"seeds": list(seeds)} if seeds else {}),
            "inventory": inventory_summary(rows, items, arms, poles, seed),
            "preference": preference_summary(rows, pairs, arms, seed),
            "answers": [
                {"id": each.id, "prompt": each.text, "answers": {arm.name: answers[each.id, arm.name] for arm in arms}}
                for each in situations
            ],
            "training": training,
            "notes": notes(language, len(items), len(pairs), bool(poles), list(seeds or {})),
        }
    )
    write_whole(
        Path(folder) / "summary.json", json.dumps(summary, ensure_ascii=False, indent=1, allow_nan=False) + "\n"
    )
    return summary


class Plan(NamedTuple):
    """What one arm, with one seed's adapter, has to do, by key: units to score, and questions (a situation's id, the
    conversation) to answer. Its numbers depend on `identity` and the tokens."""

    arm: Arm
    identity: dict[str, Any]
    units: dict[str, Unit]
    questions: dict[str, tuple[str, list[Message]]]


def _plan(
    tokenizer: "PreTrainedTokenizerBase",
    arm: Arm,
    identity: dict[str, Any],
    system_prompt: str,
    items: Sequence[Item],
    language: str,
    pairs: Sequence[Pair],
    situations: Sequence[Situation],
) -> Plan:
    units = [item_unit(tokenizer, item, language, arm, system_prompt) for item in items]
    units += [pair_unit(tokenizer, pair, arm, system_prompt) for pair in pairs]
    questions = {}
    for situation in situations:
        messages = addressed([Message(role="user", content=situation.text)], arm, system_prompt)
        key = digest([identity, ANSWER_TOKENS, situation.id, prompt_ids(tokenizer, messages)])
        questions[key] = (situation.id, messages)
    return Plan(arm, identity, {digest([identity, unit.prompts]): unit for unit in units}, questions)


def _carry_out(
    model: Any,
    tokenizer: "PreTrainedTokenizerBase",
    plans: Sequence[Plan],
    names: Mapping[str, str],
    path: Path,
    progress: bool,
) -> list[Row]:
    """Do what the file at `path` does not hold yet, adding to it; all rows, in the order of the plans.

    `names` are PEFT's, of the seeds' adapters.
    """
    sizes = {key: unit.size for plan in plans for key, unit in plan.units.items()}
    sizes |= {key: 1 for plan in plans for key in plan.questions}
    work = {key: len(unit.tree) for plan in plans for key, unit in plan.units.items()}  # in tokens, for the bar
    work |= {key: ANSWER_TOKENS for plan in plans for key in plan.questions}
    done = resume(path, sizes)
    already = sum(work[key] for key in done)
    total = sum(work.values())
    shown = bar(total=total, initial=already, unit="tok", unit_scale=True, disable=not progress)
    with path.open("a", encoding="utf-8") as file, shown:
        for arm, identity, units, questions in plans:
            own = {"seed": identity["seed"]} if "seed" in identity else {}
            shown.set_description(" ".join(["measuring", arm.name, *own.values()]))
            todo = {key: unit for key, unit in units.items() if key not in done}
            asked = {key: question for key, question in questions.items() if key not in done}
            with _as_planned(model, arm, names.get(own.get("seed", ""))):
                scored = zip(todo, score(model, list(todo.values())), strict=True)
                for key, rows in chain(scored, _answers(model, tokenizer, arm, asked)):
                    done[key] = [{"key": key} | own | row for row in rows]
                    file.write(lines(done[key]))
                    file.flush()
                    shown.update(work[key])
    return [row for key in sizes for row in done[key]]


def _answers(
    model: Any, tokenizer: "PreTrainedTokenizerBase", arm: Arm, questions: dict[str, tuple[str, list[Message]]]
) -> Iterator[tuple[str, list[Row]]]:
    """Key and row of one arm's greedy answer to each question."""
    from personalign.models import generate

    if not questions:
        return
    conversations = [messages for _, messages in questions.values()]
    answers = generate(model, tokenizer, conversations, max_new_tokens=ANSWER_TOKENS)
    for (key, (situation, _)), answer in zip(questions.items(), answers, strict=True):
        yield key, [{"kind": "answer", "arm": arm.name, "situation": situation, "answer": answer}]


def _as_planned(model: Any, arm: Arm, name: str | None) -> AbstractContextManager[Any]:
    """The model as an arm has it, inside the block, with the adapter that PEFT calls `name` (None: the one it has)."""
    from personalign.models import use_adapter

    if name is not None:
        use_adapter(model, name)
    return activated(model, arm)


def _identity(model: Any, base: dict[str, str], arm: Arm, seed: str) -> dict[str, Any]:
    """What an arm's numbers depend on, the tokens apart; `seed` is "" where there are none."""
    return {
        "arm": arm.name,
        "base": base["fingerprint"],
        "precision": str(next(model.parameters()).dtype),
        "adapter": _adapter_fingerprint(model) if arm.adapter else None,
        **({"seed": seed} if seed else {}),
    }


def _adapters(plans: Sequence[Plan]) -> dict[str, Any]:
    """Fingerprint of each arm's adapter, by seed where there are seeds. Raises UserError for two seeds with the same one."""
    found: dict[str, Any] = {}
    for arm, identity, *_ in plans:
        seed, adapter = identity.get("seed"), identity["adapter"]
        if seed is None:
            found[arm.name] = adapter
            continue
        own = found.setdefault(arm.name, {})
        if adapter in own.values():
            first = next(name for name, other in own.items() if other == adapter)
            raise UserError(
                f"seeds {first} and {seed} hold the same adapter; give the adapter of each training seed once."
            )
        own[seed] = adapter
    return found


def _adapter_fingerprint(model: Any) -> str:
    """Hash of the active adapter's weights and scaling: the same for an adapter trained just now and one loaded."""
    from peft import get_peft_model_state_dict

    name = model.active_adapter
    config = model.peft_config[name]
    whole = sha256(json.dumps([config.r, config.lora_alpha, config.use_rslora]).encode())
    weights = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    for key, weight in sorted(weights.items()):
        whole.update(key.encode())
        whole.update(weight.detach().float().cpu().numpy().tobytes())
    return whole.hexdigest()[:16]


def _versions() -> dict[str, str]:
    found = {"python": python_version()}
    for package in ("personalign", "torch", "transformers", "peft"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # run from its source folder
            found[package] = "source"
    return found
