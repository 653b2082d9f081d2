"""The report of a run: summary.json as one self-contained page, as Markdown, and as the JSON behind both."""

import json
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from personalign.evaluation.findings import findings, headline, tiles
from personalign.evaluation.pages import WIDE, bullets, fenced, known_language, page, plain_line, write_texts
from personalign.evaluation.tables import all_tables, markdown, short_tables, table
from personalign.evaluation.views import Summary, arm_label, arms, axes, axis_name, labels, number, treated, without_nan

__all__ = ["report_html", "report_markdown", "table", "write_report"]


def write_report(summary: Summary, folder: str | Path, language: str = "en") -> list[Path]:
    """Write report.json, report.md, report.html and figures/*.svg into `folder`; return their paths.

    `summary` is what summary.json holds; nan in it becomes null. Raises UserError for a language other than "en" and
    "ko" and for a folder that cannot be written.
    """
    from personalign.evaluation.figures import FIGURES, figures_of

    known_language(language)
    summary = without_nan(summary)
    texts = {
        "report.json": json.dumps(summary, ensure_ascii=False, indent=1, allow_nan=False) + "\n",
        "report.md": report_markdown(summary, language),
        "report.html": report_html(summary, language),
        **{f"figures/{name}.svg": FIGURES[name](summary, language, WIDE) for name in figures_of(summary)},
    }
    return write_texts(Path(folder), texts)


def report_html(summary: Summary, language: str = "en") -> str:
    """The page, with figures for wide and for narrow screens."""
    from personalign.evaluation.figures import FIGURES, figures_of

    figures = {name: partial(FIGURES[name], summary, language) for name in figures_of(summary)}
    return page("report.html.jinja", _contents(summary, language), figures, language)


def report_markdown(summary: Summary, language: str = "en") -> str:
    """The report as Markdown; it shows the figures that lie beside it in figures/."""
    from personalign.evaluation.figures import figures_of

    said = _contents(summary, language)
    words = said["words"]
    shown = {}
    for name in figures_of(summary):
        title = words[f"{name}_title"]
        shown[name] = [f"## {title}", f"![{title}](figures/{name}.svg)", said["captions"][name]]
    training = shown.pop("training", [])
    parts = [f"# {plain_line(said['title'])}", plain_line(said["subtitle"]), f"**{said['headline']}**"]
    parts += [bullets(said["findings"]), *chain.from_iterable(shown.values())]
    parts += [markdown(each) for each in said["short"]]
    if said["answers"]:
        parts += [f"## {words['answers_title']}", words["answers_caption"]]
    for answer in said["answers"]:
        parts += [f"### {plain_line(answer['prompt'])}"]
        for arm, text in answer["answers"].items():
            parts += [f"{arm_label(arm, language)}:", fenced(text) if text.strip() else words["empty_answer"]]
    parts += [*training, f"## {words['methods_title']}", bullets(said["methods"])]
    if said["notes"]:
        parts += [f"{words['notes']}:", bullets([plain_line(note) for note in said["notes"]])]
    parts += [bullets([plain_line(fact) for fact in said["provenance"]])]
    parts += [f"## {words['numbers_title']}", *(markdown(each) for each in said["tables"])]
    return "\n\n".join(part for part in parts if part) + "\n"


def _contents(summary: Summary, language: str) -> dict[str, Any]:
    """What both renderings show."""
    words, arm = labels(language), treated(summary)
    training, preference = summary.get("training") or {}, summary.get("preference") or {}
    facts = {"pairs": preference.get("pairs"), "name": summary["persona"]["name"], "model": summary["model"]["name"]}
    seeds = summary.get("seeds") or []
    captions = {name: words[f"{name}_caption"] for name in ("axes", "differences", "preference", "types", "training")}
    captions["preference"] = captions["preference"].format(n=facts["pairs"])
    if training.get("method"):
        made = {"method": training["method"].upper(), "pairs": number(training.get("pairs"))}
        made["seconds"] = number(training.get("seconds"))
        made |= {key: number(training.get(key, 0)) for key in ("dropped", "truncated")}
        captions["training"] = f"{words['training_facts'].format(**made)} {captions['training']}"
    return {
        "words": words,
        "title": words["title"].format(**facts),
        "subtitle": words["subtitle"].format(**facts, seed=summary["seed"])
        + (words["subtitle_seeds"].format(n=len(seeds)) if len(seeds) > 1 else ""),
        "headline": headline(summary, language),
        "findings": findings(summary, language),
        "tiles": tiles(summary, language),
        "versus": words["versus_base"].format(arm=arm_label(arm, language)) if arm else "",
        "captions": captions,
        "short": short_tables(summary, language),
        "tables": all_tables(summary, language),
        "methods": _methods(summary, language),
        "provenance": _provenance(summary, language),
        "notes": summary.get("notes") or [],
        "answers": summary.get("answers") or [],
        "answer_language": summary["persona"].get("language") or language,
        "arms": [(name, arm_label(name, language)) for name in arms(summary)],
    }


def _methods(summary: Summary, language: str) -> list[str]:
    words, inventory = labels(language), summary.get("inventory") or {}
    said = []
    if axes(summary):
        items = ", ".join(f"{axis_name(axis)} {count}" for axis, count in inventory["items"].items())
        whole = sum(inventory["of"].values())
        kinds = {"paraphrases": inventory["paraphrases"], "orders": inventory["orders"]}
        said.append(words["method_items"].format(items=items, of=whole, **kinds))
        said += [words[f"method_{name}"] for name in ("open", "texts", "letters", "alpha", "order", "types")]
    if (summary.get("preference") or {}).get("arms"):
        said.append(words["method_preference"])
    said.append(words["method_intervals"])
    seeds = summary.get("seeds") or []
    return [*said, words["method_seeds"].format(n=len(seeds), names=", ".join(seeds))] if len(seeds) > 1 else said


def _provenance(summary: Summary, language: str) -> list[str]:
    words = labels(language)
    versions = ", ".join(f"{name} {version}" for name, version in (summary.get("versions") or {}).items())
    return [f"{words['versions']}: {versions}", f"{words['fingerprint']}: {summary['model'].get('fingerprint') or '–'}"]
