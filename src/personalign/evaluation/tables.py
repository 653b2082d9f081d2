"""The numbers of a summary as tables, and a table as aligned Markdown that also reads well in a terminal."""

import unicodedata
from dataclasses import dataclass

from personalign.evaluation.findings import headline
from personalign.evaluation.inventory import KINDS, MAIN
from personalign.evaluation.views import (
    Estimate,
    Summary,
    ahead,
    arm_label,
    arms,
    axes,
    axis_name,
    ends,
    excludes_zero,
    hundredfold,
    interval,
    labels,
    number,
    percent,
)


@dataclass(frozen=True)
class Table:
    """A title, the columns' headings and rows of text; the first column names the row."""

    title: str
    head: list[str]
    rows: list[list[str]]


def table(summary: Summary, language: str = "en") -> str:
    """The compact tables that `personalign run` prints: axes by arm, differences from base, preference accuracies."""
    return (
        "\n\n".join([headline(summary, language), *(markdown(each) for each in short_tables(summary, language))]) + "\n"
    )


def short_tables(summary: Summary, language: str = "en") -> list[Table]:
    """The three tables that matter most, towards the persona's poles; those without numbers are left out."""
    words, names = labels(language), arms(summary)
    heads = [arm_label(name, language) for name in names]
    percents, margins = [], []
    for axis, numbers in axes(summary).items():
        target = numbers["target"]
        row = f"{axis_name(axis)} → {ends(axis, target)[1]}" + (" ★" if target else "")
        shares = [ahead(axis, target, numbers["arms"][name][MAIN]["percent"], 100) for name in names]
        percents.append([row, *(interval(share) for share in shares)])
        found = [numbers["differences"].get(f"{name} - base") for name in names if name != "base"]
        margins.append([row, *(starred(ahead(axis, target, each[MAIN]["margin"])) if each else "–" for each in found)])
    others = [arm_label(name, language) for name in names if name != "base"]
    tables = [Table(words["percent_table"], [words["axis"], *heads], percents)]
    tables.append(Table(words["margin_table"], [words["axis"], *others], margins))
    preference = summary.get("preference") or {}
    if preference.get("arms"):
        kinds = ("summed", "per_token", "reward")
        rows = [
            [arm_label(name, language), *(_share(preference["arms"][name].get(kind)) for kind in kinds)]
            for name in names
        ]
        title = words["preference_table"].format(n=preference["pairs"])
        tables.append(Table(title, [words["arm"], *(words[kind] for kind in kinds)], rows))
    return [each for each in tables if each.rows]


def all_tables(summary: Summary, language: str = "en") -> list[Table]:
    """Every number of the inventory, the types and the preferences, towards the first pole of each axis."""
    words, names = labels(language), arms(summary)
    inventory, differences = [], []
    for axis, numbers in axes(summary).items():
        row = f"{axis_name(axis)} → {axis[0]}"
        for name in names:
            for scoring in KINDS:
                one = numbers["arms"][name][scoring]
                shown = [interval(one["percent"], 1), interval(one["margin"], 3, sign=True)]
                shown += [number(one["alpha"], 2), number(one["order_gap"], 2, sign=True)]
                inventory.append([row, arm_label(name, language), words[scoring], *shown])
        for comparison, both in numbers["differences"].items():
            for scoring in KINDS:
                shown = [interval(both[scoring]["percent"], 1, sign=True), starred(both[scoring]["margin"], 3)]
                differences.append([row, _comparison(comparison, language), words[scoring], *shown])
    columns = [words["scoring"], words["percent"], words["margin_column"]]
    tables = [
        Table(
            words["inventory_table"],
            [words["axis"], words["arm"], *columns, words["alpha"], words["order_gap"]],
            inventory,
        ),
        Table(words["difference_table"], [words["axis"], words["difference"], *columns], differences),
    ]
    preference = summary.get("preference") or {"differences": {}, "arms": {}}
    rows = [
        [_comparison(comparison, language), *(starred(hundredfold(both[kind]), 1) for kind in ("summed", "per_token"))]
        for comparison, both in preference["differences"].items()
    ]
    tables.append(
        Table(words["preference_difference_table"], [words["difference"], words["summed"], words["per_token"]], rows)
    )
    by_axis = {name: measured.get("axes") or {} for name, measured in preference["arms"].items()}
    tables.append(
        Table(
            words["preference_axis_table"],
            [words["axis"], *(arm_label(name, language) for name in by_axis)],
            [
                [
                    f"{axis_name(axis)}, {words[kind]}",
                    *(_share(by_axis[name].get(axis, {}).get(kind)) for name in by_axis),
                ]
                for axis in dict.fromkeys(axis for measured in by_axis.values() for axis in measured)
                for kind in ("summed", "per_token")
            ],
        )
    )
    shares = (summary.get("inventory") or {}).get("type_probability") or {}
    types = list(shares[names[0]]) if shares else []
    rows = [[kind, *(number(100 * shares[name][kind], 1) for name in names)] for kind in types]
    tables.append(Table(words["types_table"], [words["type"], *(arm_label(name, language) for name in names)], rows))
    return [each for each in tables if each.rows]


def markdown(each: Table) -> str:
    """A table as Markdown, columns aligned also where Korean letters are two columns wide."""
    cells = [[_cell(text) for text in row] for row in [each.head, *each.rows]]
    widths = [max(_columns(text) for text in column) for column in zip(*cells, strict=True)]
    lines = [
        "| " + " | ".join(text + " " * (width - _columns(text)) for text, width in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([f"**{each.title}**", "", lines[0], rule, *lines[1:]])


def _columns(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _comparison(name: str, language: str) -> str:
    return " − ".join(arm_label(arm, language) for arm in name.split(" - "))


def starred(estimate: Estimate, digits: int = 2) -> str:
    """An estimate with its sign, starred where the interval excludes zero."""
    return interval(estimate, digits, sign=True) + (" *" if excludes_zero(estimate) else "")


def _share(share: Estimate | None) -> str:
    return interval(percent(share)) if share else "–"
