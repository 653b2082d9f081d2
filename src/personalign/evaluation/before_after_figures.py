"""The figures of the report before and after RLHF."""

from matplotlib.figure import Figure

from personalign.evaluation.drawing import LINE, MUTED, canvas, colour, curves, panel, side_by_side, svg
from personalign.evaluation.views import Summary, labels

CURVES = ("score", "kl", "length", "entropy")


@svg("rlhf_rewards")
def rewards_figure(summary: Summary, language: str = "en", width: int = 760) -> Figure:
    """Left every prompt's reward after against before, right its gain against the change in its answer's length."""
    words, rows, head, down, foot = labels(language), summary["rows"], 26, 240, 46
    first, second = side_by_side(width, 2, 58, 64, head + down + foot)
    figure = canvas(width, second[1] + head + down + foot)
    plot = panel(figure, first[0], first[1] + head, first[2], down, words["rlhf_rewards_both"])
    before, after = ([row[f"reward_{side}"] for row in rows] for side in ("before", "after"))
    around = [min(before + after), max(before + after)]
    plot.plot(around, around, color=MUTED, linewidth=1, dashes=(2, 3))
    plot.plot(before, after, "o", color=colour(1), markersize=5, alpha=0.7)
    plot.set_xlabel(words["rlhf_rewards_before"], color=MUTED, fontsize=11)
    plot.set_ylabel(words["rlhf_rewards_after"], color=MUTED, fontsize=11)
    gains = panel(figure, second[0], second[1] + head, second[2], down, words["rlhf_rewards_gain"])
    longer = [row["tokens_after"] - row["tokens_before"] for row in rows]
    gains.axhline(0, color=MUTED, linewidth=0.8)
    gains.axvline(0, color=MUTED, linewidth=0.8)
    gains.plot(
        longer, [a - b for a, b in zip(after, before, strict=True)], "o", color=colour(1), markersize=5, alpha=0.7
    )
    if summary["by_length"] is not None:
        ends = [min([*longer, 0]), max([*longer, 0])]
        gains.plot(ends, [summary["by_length"]["slope"] * end for end in ends], color=MUTED, linewidth=1, dashes=(2, 3))
    gains.set_xlabel(words["rlhf_rewards_tokens"], color=MUTED, fontsize=11)
    gains.set_ylabel(words["rlhf_rewards_change"], color=MUTED, fontsize=11)
    for axes in (plot, gains):
        axes.grid(True, axis="y", color=LINE, linewidth=0.6)
        axes.locator_params(nbins=5)
    return figure


@svg("rlhf_curve")
def curve_figure(summary: Summary, language: str = "en", width: int = 760) -> Figure:
    """Score, KL with its bound, length and entropy over the steps of training."""
    rows = summary["training"]["curve"]
    return curves(rows, curves_of(summary), language, width, {"kl": summary["kl"]["bound"]})


def curves_of(summary: Summary) -> list[str]:
    """Which of the curves this training's metrics hold."""
    rows = summary["training"].get("curve") or []
    return [kind for kind in CURVES if any(row.get(kind) is not None for row in rows)]
