"""The report before and after RLHF for people: sentences, tables, figures, and the page and the Markdown made of them."""

from collections.abc import Callable
from functools import partial
from typing import Any

from personalign.evaluation.gate import why
from personalign.evaluation.pages import WIDE, bullets, fenced, page, plain_line
from personalign.evaluation.tables import Table, markdown, starred
from personalign.evaluation.views import (
    Estimate,
    Summary,
    excludes_zero,
    hundredfold,
    interval,
    labels,
    number,
    percent,
)

SIDES = ("before", "after")
SIGNS = ("gate", "length", "kl", "beyond_judged", "distinct", "opening", "perplexity", "unfinished")
"""Every sign of reward hacking that is looked for."""


def before_after_table(summary: Summary, language: str = "en") -> str:
    """What the terminal shows: the headline, the tables, and the signs of reward hacking."""
    words = labels(language)
    parts = [headline(summary, language), *(markdown(each) for each in tables(summary, language))]
    return "\n\n".join([*parts, f"{words['rlhf_signs']}:\n{bullets(signs(summary, language))}"]) + "\n"


def before_after_files(summary: Summary, language: str = "en") -> dict[str, str]:
    """The page, the Markdown and the figures, by name of the file."""
    from personalign.evaluation.before_after_figures import curve_figure, curves_of, rewards_figure

    drawn: dict[str, Callable[[int], str]] = {"rlhf_rewards": partial(rewards_figure, summary, language)}
    if curves_of(summary):
        drawn["rlhf_curve"] = partial(curve_figure, summary, language)
    said = _contents(summary, language)
    return {
        "before-after.md": _markdown(said, list(drawn)),
        "before-after.html": page("before-after.html.jinja", said, drawn, language),
        **{f"figures/{name}.svg": draw(WIDE) for name, draw in drawn.items()},
    }


def headline(summary: Summary, language: str = "en") -> str:
    """The first sentence: whether the reward rose, and how sure that is."""
    mean = summary["reward"]["mean"]
    difference = mean["difference"]
    if not any(row["reward_after"] != row["reward_before"] for row in summary["rows"]):
        case = "none"
    else:
        case = ("rose" if difference["value"] > 0 else "fell") if excludes_zero(difference) else "unclear"
    return labels(language)[f"rlhf_{case}"].format(n=summary["prompts"], **_going(mean, 2))


def findings(summary: Summary, language: str = "en") -> list[str]:
    """The sentences under the headline: how many prompts, how far, what of it is length, and how fluent."""
    words, improved, by_length = labels(language), percent(summary["reward"]["improved"]), summary["by_length"]
    said = [
        words["rlhf_improved"].format(
            **{key: number(value) for key, value in improved.items()}, **_going(summary["reward"]["median"], 2)
        )
    ]
    said.append(words[f"rlhf_kl_{_kl_case(summary)}"].format(**_kl(summary)))
    length = words["rlhf_length"].format(**_going(summary["length"], 1))
    if by_length is None:
        length += " " + words["rlhf_unexplained"]
    else:
        facts = {
            "slope": number(by_length["slope"], 4, sign=True),
            "beyond": interval(by_length["beyond"], 2, sign=True),
        }
        explained = number(by_length["explained"], 2, sign=True)
        length += " " + words["rlhf_explained"].format(explained=explained, **facts)
    said.append(length)
    ended = {
        key: number(100 * summary["ended"][side]["rate"])
        for key, side in (("ended", "after"), ("ended_before", "before"))
    }
    said.append(words["rlhf_fluency"].format(ratio=interval(summary["perplexity"]["ratio"], 2), **ended))
    return said


def signs(summary: Summary, language: str = "en") -> list[str]:
    """The signs of reward hacking that show, a sentence each; or the sentence that none does."""
    words, gate = labels(language), summary["gate"]
    distinct, opening, ended = summary["distinct"], summary["opening"], summary["ended"]
    facts: dict[str, dict[str, str]] = {
        "gate": {"why": why(gate, language)} if gate is not None else {},
        "length": {"share": number(100 * ((summary["by_length"] or {}).get("share") or 0))},
        "kl": _kl(summary),
        "beyond_judged": {"after": number(summary["reward"]["mean"]["after"]["value"], 2)},
        "distinct": {side: number(distinct[side]["2"], 2) for side in SIDES},
        "opening": {side: number(100 * opening[side]["share"]) for side in SIDES} | {"words": opening["after"]["words"]},
        "perplexity": {"ratio": interval(summary["perplexity"]["ratio"], 2)},
        "unfinished": {side: number(100 * ended[side]["rate"]) for side in SIDES},
    }  # fmt: skip
    names = {"gate": "ungated"} if gate is None else {}
    told = [words[f"rlhf_sign_{names.get(name, name)}"].format(**facts[name]) for name in summary["signs"]]
    return told or [words["rlhf_no_signs"].format(n=len(SIGNS))]


def tables(summary: Summary, language: str = "en") -> list[Table]:
    """All numbers: what can be compared before and after, and the price of the gain."""
    words, reward, by_length = labels(language), summary["reward"], summary["by_length"]
    rows = [
        [
            words[f"rlhf_{kind}"],
            *(interval(reward[kind][side], 2) for side in SIDES),
            starred(reward[kind]["difference"]),
        ]
        for kind in ("mean", "median")
    ]
    length, perplexity, ended = summary["length"], summary["perplexity"], summary["ended"]
    rows += [
        [words["rlhf_row_tokens"], *(interval(length[side], 1) for side in SIDES), starred(length["difference"], 1)],
        [
            words["rlhf_row_perplexity"],
            *(number(perplexity[side], 2) for side in SIDES),
            "×" + interval(perplexity["ratio"], 2),
        ],
        [
            words["rlhf_row_ended"],
            *(interval(percent(ended[side])) for side in SIDES),
            starred(hundredfold(ended["difference"]), 0),
        ],
    ]
    for n in ("1", "2"):
        shares = [number(summary["distinct"][side][n], 2) for side in SIDES]
        rows.append([words["rlhf_row_distinct"].format(n=n), *shares, "–"])
    rows.append([words["rlhf_row_opening"], *(number(100 * summary["opening"][side]["share"]) for side in SIDES), "–"])
    head = [words["rlhf_measure"], *(words[f"rlhf_{side}"] for side in SIDES), words["difference"]]
    price = [[words["rlhf_row_improved"], interval(percent(reward["improved"]))]]
    price.append([words["rlhf_row_kl"], interval(summary["kl"]["mean"], 2)])
    price.append([words["rlhf_row_bound"], number(summary["kl"]["bound"], 2)])
    if by_length is not None:
        share = by_length["share"]
        price += [
            [words["rlhf_row_slope"], number(by_length["slope"], 4, sign=True)],
            [words["rlhf_row_explained"], number(by_length["explained"], 2, sign=True)],
            [words["rlhf_row_share"], number(None if share is None else 100 * share)],
            [words["rlhf_row_beyond"], starred(by_length["beyond"])],
        ]
    if summary["gate"] is not None:
        accuracy, longer = summary["gate"]["accuracy"], summary["gate"]["length"]["longer"]
        price += [
            [words["rlhf_row_accuracy"], interval(hundredfold(accuracy))],
            [words["rlhf_row_longer"], interval(hundredfold(longer))],
        ]
    return [
        Table(words["rlhf_table"], head, rows),
        Table(words["rlhf_table_price"], [words["rlhf_measure"], words["rlhf_value"]], price),
    ]


def _contents(summary: Summary, language: str) -> dict[str, Any]:
    """What both renderings show."""
    words, training = labels(language), summary["training"]
    facts = {"model": training.get("model") or "–", "steps": number(training.get("steps")), "n": summary["prompts"]}
    return {
        "words": words,
        "title": words["rlhf_title"],
        "subtitle": words["rlhf_subtitle"].format(**facts),
        "headline": headline(summary, language),
        "findings": findings(summary, language),
        "signs": signs(summary, language),
        "tiles": _tiles(summary, language),
        "captions": {name: words[f"{name}_caption"] for name in ("rlhf_rewards", "rlhf_curve")},
        "tables": tables(summary, language),
        "methods": [
            words[f"rlhf_method_{name}"] for name in ("paired", "kl", "length", "perplexity", "distinct", "signs")
        ],
        "arms": [(side, words[f"rlhf_{side}"]) for side in SIDES],
        "answers": [_answer(row, words) for row in summary["rows"]],
        "answer_language": training.get("language") or language,
    }


def _answer(row: dict[str, Any], words: dict[str, str]) -> dict[str, Any]:
    facts = {}
    for side in SIDES:
        shown = {
            key: number(row[f"{key}_{side}"], digits)
            for key, digits in (("reward", 2), ("tokens", 0), ("perplexity", 1))
        }
        facts[side] = words["rlhf_facts"].format(**shown)
        facts[side] += words["rlhf_kl_of"].format(kl=number(row["kl"], 1)) if side == "after" else ""
        facts[side] += "" if row[f"ended_{side}"] else words["rlhf_cut_off"]
    return {"prompt": row["prompt"], "answers": {side: row[side] for side in SIDES}, "facts": facts}


def _markdown(said: dict[str, Any], figures: list[str]) -> str:
    words = said["words"]
    parts = [f"# {said['title']}", plain_line(said["subtitle"]), f"**{said['headline']}**", bullets(said["findings"])]
    parts += [f"## {words['rlhf_signs']}", bullets([plain_line(line) for line in said["signs"]])]
    for name in figures:
        title = words[f"{name}_title"]
        parts += [f"## {title}", f"![{title}](figures/{name}.svg)", said["captions"][name]]
    parts += [f"## {words['numbers_title']}", *(markdown(each) for each in said["tables"])]
    parts += [f"## {words['answers_title']}", words["rlhf_answers_caption"]]
    for answer in said["answers"]:
        parts.append(f"### {plain_line(answer['prompt'])}")
        for side, label in said["arms"]:
            text = answer["answers"][side]
            parts += [f"{label} ({answer['facts'][side]}):", fenced(text) if text.strip() else words["empty_answer"]]
    return "\n\n".join([*parts, f"## {words['methods_title']}", bullets(said["methods"])]) + "\n"


def _tiles(summary: Summary, language: str) -> list[dict[str, str]]:
    """What the page shows at its top; {"pole", "value", "around", "verdict", "state"} as in the persona's report."""
    words, kl, ratio = labels(language), summary["kl"]["mean"], summary["perplexity"]["ratio"]
    gain, length = summary["reward"]["mean"]["difference"], summary["length"]["difference"]
    case = _kl_case(summary)
    rise = ratio | {key: None if limit is None else limit - 1 for key, limit in ratio.items()}
    rising = "opposite_clear" if "perplexity" in summary["signs"] else ""
    found = [
        ("reward", interval(gain, 2, sign=True), _direction(gain), {"up": "intended_clear", "down": "opposite_clear"}),
        ("kl", interval(kl, 1), case, {"below": "intended_clear", "above": "opposite_clear"}),
        ("length", interval(length, 1, sign=True), _direction(length), {}),
        ("perplexity", "×" + interval(ratio, 2), _direction(rise), {"up": rising}),
    ]  # fmt: skip
    return [
        {
            "pole": words[f"rlhf_tile_{name}"], "value": value, "around": around, "state": states.get(verdict, ""),
            "verdict": words[f"rlhf_verdict_{verdict}"].format(bound=_kl(summary)["bound"]),
        }
        for name, shown, verdict, states in found
        for value, _, around in [shown.partition(" ")]
    ]  # fmt: skip


def _direction(estimate: Estimate) -> str:
    return ("up" if estimate["value"] > 0 else "down") if excludes_zero(estimate) else "unclear"


def _going(measure: dict[str, Estimate], digits: int) -> dict[str, str]:
    """From, to and by how much, as text."""
    ends = {side: number(measure[side]["value"], digits) for side in SIDES}
    return ends | {"difference": interval(measure["difference"], digits, sign=True)}


def _kl(summary: Summary) -> dict[str, str]:
    return {"kl": interval(summary["kl"]["mean"], 1), "bound": number(summary["kl"]["bound"], 1)}


def _kl_case(summary: Summary) -> str:
    bound = summary["kl"]["bound"]
    return "free" if bound is None else "above" if summary["kl"]["mean"]["value"] > bound else "below"
