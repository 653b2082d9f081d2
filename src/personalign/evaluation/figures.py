"""The figures of a report: each a function of the summary that returns SVG text.

The page, the README and the dashboard show the same ones. `language` is "en" or "ko", `width` is in CSS pixels.
"""

from collections.abc import Callable

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from personalign.evaluation.drawing import (
    INK,
    MUTED,
    NARROW,
    TINT,
    arm_rows,
    beside,
    canvas,
    colour,
    curves,
    dot,
    label_width,
    panel,
    percent_scale,
    side_by_side,
    svg,
)
from personalign.evaluation.inventory import KINDS, MAIN
from personalign.evaluation.views import (
    Summary,
    ahead,
    arm_label,
    arms,
    axes,
    axis_name,
    ends,
    excludes_zero,
    interval,
    labels,
    number,
    percent,
)


@svg("axes")
def axes_figure(summary: Summary, language: str = "en", width: int = 760) -> Figure:
    """Every axis as a scale from pole to pole, the target right; each arm a dot with its interval (open answers, percent)."""
    words, names, narrow = labels(language), arms(summary), width < NARROW
    left, right, row, head = label_width(summary, language, width), 44 if narrow else 108, 19, 44
    block = head + row * len(names)
    figure = canvas(width, block * len(axes(summary)) + 20)
    for index, (axis, numbers) in enumerate(axes(summary).items()):
        target = numbers["target"]
        scale = panel(figure, left, index * block + head - 20, width - left - right, row * len(names))
        scale.set(xlim=(0, 100), ylim=(len(names) - 0.5, -0.5), xticks=[0, 25, 50, 75, 100])
        if target:
            scale.axvspan(50, 100, color=TINT, linewidth=0)
        scale.axvline(50, color=MUTED, linewidth=0.8)
        (far, near), star = ends(axis, target), "★ " if target else ""
        start = -100 * left / (width - left - right) if narrow else 0  # both names do not fit over a narrow scale
        scale.text(start, -0.8, f"{far} {words[far]}", color=INK)
        scale.text(
            100, -0.8, f"{star}{near} {words[near]}", color=INK, ha="right", weight="bold" if target else "normal"
        )
        estimates = {name: ahead(axis, target, numbers["arms"][name][MAIN]["percent"], 100) for name in names}
        base = estimates.get("base", {}).get("value")
        if base is not None:
            scale.axvline(base, color=MUTED, linewidth=1, dashes=(2, 3))
        for place, estimate in enumerate(estimates.values()):
            dot(scale, estimate, place, place)
            whole = interval(estimate | {"spread": None}, unit="%")  # the spread between seeds stands in the tables
            shown = f"{number(estimate['value'])}%" if narrow else whole
            beside(scale, shown, 1, place, 9)
        arm_rows(scale, summary, language, names, list(range(len(names))))
        scale.tick_params(labelbottom=index == len(axes(summary)) - 1)
    scale.set_xlabel(words["axes_unit"], color=MUTED, fontsize=11)
    return figure


@svg("differences")
def differences_figure(summary: Summary, language: str = "en", width: int = 760) -> Figure:
    """Forest plot: paired differences in the margin against the base, towards the target, in each way of asking."""
    words, names = labels(language), [name for name in arms(summary) if name != "base"]
    left, row, between, head, foot = label_width(summary, language, width) + 38, 19, 10, 26, 46
    rows = [(axis, name) for axis in axes(summary) for name in names]
    places = [at * row + at // len(names) * between for at in range(len(rows))]
    down = places[-1] + row
    places_of = side_by_side(width, len(KINDS), left, 26, head + down + foot)
    figure = canvas(width, places_of[-1][1] + head + down + foot)
    for at, scoring in enumerate(KINDS):
        x, y, across = places_of[at]
        forest = panel(figure, x, y + head, across, down, words[scoring])
        forest.axvline(0, color=MUTED, linewidth=0.8)
        reach = 0.02
        for (axis, name), place in zip(rows, places, strict=True):
            difference = axes(summary)[axis]["differences"].get(f"{name} - base")
            if difference is None:
                continue
            estimate = ahead(axis, axes(summary)[axis]["target"], difference[scoring]["margin"])
            dot(forest, estimate, place, arms(summary).index(name), filled=excludes_zero(estimate))
            limits = [estimate[key] for key in ("value", "low", "high")]
            reach = max([reach, *(abs(limit) for limit in limits if limit is not None)])
        # Zero stands in the middle: neither direction looks larger for want of room.
        forest.set(xlim=(-1.08 * reach, 1.08 * reach), ylim=(down - row / 2, -row / 2))
        forest.locator_params(axis="x", nbins=5)
        forest.set_xlabel(words[f"{scoring}_unit"], color=MUTED, fontsize=11)
        first = x == left
        arm_rows(forest, summary, language, [name for _, name in rows], places, shown=first)
        if first:
            middles = [places[at] + row * (len(names) - 1) / 2 for at in range(0, len(rows), len(names))]
            _axis_names(forest, summary, left, middles)
    return figure


def _axis_names(forest: Axes, summary: Summary, left: float, places: list[float]) -> None:
    for (axis, numbers), place in zip(axes(summary).items(), places, strict=True):
        target = numbers["target"]
        text = f"{axis_name(axis)}\n{'★' if target else '→'} {ends(axis, target)[1]}"
        beside(forest, text, 0, place, 2 - left, weight="bold")


@svg("preference")
def preference_figure(summary: Summary, language: str = "en", width: int = 760) -> Figure:
    """Preference accuracy of every arm with its Wilson interval: summed, per token, and the adapter's reward."""
    words, names, measured = labels(language), arms(summary), summary["preference"]["arms"]
    kinds = [kind for kind in ("summed", "per_token", "reward") if any(measured[name].get(kind) for name in names)]
    left, row, head, foot = label_width(summary, language, width), 22, 26, 26
    block = head + row * len(names) + foot
    places_of = side_by_side(width, len(kinds), left, 24, block)
    figure = canvas(width, places_of[-1][1] + block)
    for kind, (x, y, across) in zip(kinds, places_of, strict=True):
        shares = panel(figure, x, y + head, across, row * len(names), words[kind])
        shares.set_ylim(len(names) - 0.5, -0.5)
        percent_scale(shares)
        shares.axvline(50, color=MUTED, linewidth=1, dashes=(2, 3))
        for place, name in enumerate(names):
            share = measured[name].get(kind)
            if share:
                dot(shares, percent(share), place, place)
            else:
                shares.text(3, place, "–", va="center", color=MUTED)
        arm_rows(shares, summary, language, names, list(range(len(names))), shown=x == left)
    return figure


@svg("types")
def types_figure(summary: Summary, language: str = "en", width: int = 760) -> Figure:
    """P(type) as bars, one panel an arm (two by two where it is narrow), the persona's type marked."""
    names, own = arms(summary), summary["persona"].get("type")
    probability = summary["inventory"]["type_probability"]
    types = list(probability[names[0]])
    columns = min(2 if width < NARROW else 4, len(names))
    left, gap, row, head, foot = 60, 16, 15, 26, 26
    across, block = (width - left - 20 - gap * (columns - 1)) / columns, head + row * len(types) + foot
    figure = canvas(width, block * -(-len(names) // columns))
    for at, name in enumerate(names):
        down, column = divmod(at, columns)
        place = (left + column * (across + gap), down * block + head, across, row * len(types))
        bars = panel(figure, *place, arm_label(name, language), colour(at))
        bars.set_ylim(len(types) - 0.5, -0.5)
        percent_scale(bars)
        if own in types:
            bars.axhspan(types.index(own) - 0.5, types.index(own) + 0.5, color=TINT, linewidth=0)
        bars.barh(range(len(types)), [100 * probability[name][kind] for kind in types], height=0.72, color=colour(at))
        shown = [("★ " if kind == own else "") + kind if column == 0 else "" for kind in types]
        bars.set_yticks(range(len(types)), shown)
        for tick, kind in zip(bars.get_yticklabels(), types, strict=True):
            tick.set(color=INK if kind == own else MUTED, weight="bold" if kind == own else "normal", fontsize=11)
    return figure


@svg("training")
def training_figure(summary: Summary, language: str = "en", width: int = 760) -> Figure:
    """Loss, reward margin and reward accuracy over the steps: a line for training, dots for the held-out split."""
    curve = summary["training"]["curve"]
    kinds = [kind for kind in ("loss", "margin", "accuracy") if any(line.get(kind) is not None for line in curve)]
    return curves(curve, kinds, language, width)


FIGURES: dict[str, Callable[..., str]] = {
    "axes": axes_figure,
    "differences": differences_figure,
    "preference": preference_figure,
    "types": types_figure,
    "training": training_figure,
}


def figures_of(summary: Summary) -> list[str]:
    """Names in FIGURES that this summary has numbers for, in order."""
    kinds = ("loss", "margin", "accuracy")
    has = {
        "axes": bool(axes(summary)),
        "differences": any(numbers["differences"] for numbers in axes(summary).values()),
        "preference": bool((summary.get("preference") or {}).get("arms")),
        "types": bool((summary.get("inventory") or {}).get("type_probability")),
        "training": any(kind in row for row in (summary.get("training") or {}).get("curve", []) for kind in kinds),
    }
    return [name for name in FIGURES if has[name]]
