"""What a person wants to know first: what changed, and how sure that is, in sentences made from the summary alone."""

from typing import Any

from personalign.evaluation.inventory import KINDS, MAIN
from personalign.evaluation.views import (
    Estimate,
    Summary,
    ahead,
    arm_label,
    arms,
    axes,
    axis_name,
    excludes_zero,
    interval,
    labels,
    number,
    percent,
    treated,
)


def changes(summary: Summary, arm: str, scoring: str = MAIN) -> list[dict[str, Any]]:
    """Per axis, the arm's paired difference in the margin from the base towards the target (else the pole moved to).

    Each is {"axis", "target", "towards", "estimate", "verdict"}; "towards" is the pole moved to, and the verdict one of
    the labels intended_clear, ..., untargeted_unclear: "clear" where the interval excludes zero.
    """
    found = []
    for axis, numbers in axes(summary).items():
        difference = numbers["differences"].get(f"{arm} - base")
        if difference is None or difference[scoring]["margin"]["value"] is None:
            continue
        target, margin = numbers["target"], difference[scoring]["margin"]
        towards = axis[0] if margin["value"] > 0 else axis[1]
        estimate = ahead(axis, target or towards, margin)
        direction = "untargeted" if target is None else "intended" if estimate["value"] > 0 else "opposite"
        verdict = f"{direction}_{'clear' if excludes_zero(estimate) else 'unclear'}"
        found.append({"axis": axis, "target": target, "towards": towards, "estimate": estimate, "verdict": verdict})
    return found


def movement(summary: Summary, arm: str, language: str, scoring: str = MAIN) -> str:
    """One or two sentences: how many axes an arm moved the intended way, and on which the interval excludes zero."""
    words, found = labels(language), changes(summary, arm, scoring)
    aimed = [change for change in found if change["target"]]
    intended = [change for change in aimed if change["verdict"].startswith("intended")]
    clear = [axis_name(change["axis"]) for change in intended if change["verdict"] == "intended_clear"]
    wrong = [axis_name(change["axis"]) for change in aimed if change["verdict"] == "opposite_clear"]
    aside = [change for change in found if change["verdict"] == "untargeted_clear"]
    sentences, subject = [], arm_label(arm, language, subject=True)
    if aimed:
        key = "moved" if len(aimed) > 1 else "moved_one" if intended else "moved_none"
        facts = {"k": len(intended), "n": len(aimed), "axis": axis_name(aimed[0]["axis"])}
        if not intended:
            ending = "stayed"
        elif len(clear) == len(intended):
            ending = "clear_all" if len(clear) > 1 else "clear_one"
        else:
            ending = "clear_some" if clear else "clear_none"
        sentences.append(words[key].format(arm=subject, **facts) + words[ending].format(axes=_listed(clear, language)))
    if wrong:
        sentences.append(words["opposite"].format(axes=_listed(wrong, language)))
    if aside:
        moves = [words["towards"].format(axis=axis_name(change["axis"]), pole=change["towards"]) for change in aside]
        pattern = words["aside" if aimed else "moved_aside"]
        sentences.append(pattern.format(axes=_listed(moves, language), arm=subject))
    return " ".join(sentences)


def headline(summary: Summary, language: str = "en") -> str:
    """The first sentence of the report: what the adapter (or, without one, the prompt) moved, and how sure that is."""
    words, arm = labels(language), treated(summary)
    sentence = movement(summary, arm, language) if arm else ""
    return sentence or words["no_clear" if arm and changes(summary, arm) else "no_change"]


def findings(summary: Summary, language: str = "en") -> list[str]:
    """The sentences under the headline: the pairs, the type, the other ways of asking, and the prompt alone as the control."""
    words, arm = labels(language), treated(summary)
    if arm is None:
        return []
    said = []
    measured = (summary.get("preference") or {}).get("arms", {})
    if arm in measured and "base" in measured:
        share, base = measured[arm]["summed"], measured["base"]["summed"]
        facts = {key: number(part) for key, part in percent(share).items()} | {"base": number(100 * base["rate"])}
        said.append(words["preferred"].format(n=share["n"], arm=arm_label(arm, language, subject=True), **facts))
    own, probability = summary["persona"].get("type"), (summary.get("inventory") or {}).get("type_probability", {})
    if arm in probability and "base" in probability and own in probability[arm]:
        shares = {key: number(100 * probability[name][own]) for key, name in (("value", arm), ("base", "base"))}
        said.append(words["type_likely"].format(type=own, **shares))
    for kind in KINDS[1:]:
        moved = movement(summary, arm, language, kind)
        if moved:
            said.append(words[f"by_{kind}"].format(sentence=moved))
    control = movement(summary, "prompted", language) if arm != "prompted" and "prompted" in arms(summary) else ""
    if control:
        said.append(words["control"].format(sentence=control))
    return said


def tiles(summary: Summary, language: str = "en") -> list[dict[str, str]]:
    """Per axis what the page shows at its top: {"pole", "value", "around", "verdict", "state"}."""
    words, arm = labels(language), treated(summary)
    return [
        {
            "pole": f"{'★' if change['target'] else '→'} {right} {words[right]}",
            "value": number(change["estimate"]["value"], 2, sign=True),
            "around": _around(change["estimate"]),
            "verdict": words[change["verdict"]],
            "state": change["verdict"],
        }
        for change in (changes(summary, arm) if arm else [])
        for right in [change["target"] or change["towards"]]
    ]


def _around(estimate: Estimate) -> str:
    return interval(estimate, 2, sign=True).partition(" ")[2]


def _listed(names: list[str], language: str) -> str:
    if language == "ko" or len(names) < 2:
        return ", ".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"
