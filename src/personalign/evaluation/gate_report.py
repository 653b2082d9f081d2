"""The verdict on a reward model for people: a table, and a figure of its calibration and of its reward against length."""

import math

from matplotlib.figure import Figure

from personalign.evaluation.drawing import INK, LINE, MARKERS, MUTED, PAPER, canvas, colour, panel, side_by_side, svg
from personalign.evaluation.gate import Gate, why
from personalign.evaluation.tables import Table, markdown
from personalign.evaluation.views import interval, labels, number


def gate_table(gate: Gate, language: str = "en") -> str:
    """The numbers of `reward_gate` as a Markdown table with the verdict above it, in "en" or "ko"."""
    words = labels(language)
    related, matched = gate["correlation"], gate["matched"]
    verdict = words["gate_passed" if gate["passes"] else "gate_failed"]
    length_matched = words["gate_matched"].format(n=matched["n"], within=number(100 * matched["within"]))
    rule = words[f"gate_{gate['length']['rule']}"]
    rows = [
        [words["gate_pairs"], f"{gate['pairs']} ({gate['prompts']})"],
        [words["gate_accuracy"], interval(gate["accuracy"], 3)],
        [words["gate_longer_wins"], interval(gate["length"]["longer"], 3)],
        [words["gate_difference"].format(rule=rule), interval(gate["difference"], 3, sign=True)],
        [length_matched, interval({**matched, "value": matched["rate"]}, 3)],
        [words["gate_correlation"], " / ".join(number(related[name], 2) for name in ("pearson", "spearman"))],
        [words["gate_within"], " / ".join(number(related[f"within_{name}"], 2) for name in ("pearson", "spearman"))],
        [words["gate_slope"], interval(gate["slope"], 4, sign=True)],
        [words["gate_ece"], number(gate["calibration"]["ece"], 3)],
        [words["gate_rewards"], f"{number(gate['rewards']['mean'], 2)} ({number(gate['rewards']['std'], 2)})"],
    ]
    table = Table(words["gate_title"], [words["gate_measure"], words["gate_value"]], rows)
    return f"**{verdict}**: {why(gate, language)}.\n\n{markdown(table)}"


@svg("gate")
def gate_figure(gate: Gate, language: str = "en", width: int = 760) -> Figure:
    """Left a reliability diagram (dots as large as their bins are full), right every answer's reward against its length."""
    words, head, down, foot = labels(language), 26, 190, 46
    (x, y, across), scatter_place = side_by_side(width, 2, 58, 64, head + down + foot)
    figure = canvas(width, scatter_place[1] + head + down + foot)
    reliability = panel(figure, x, y + head, across, down, words["gate_reliability"])
    reliability.plot([50, 100], [50, 100], color=MUTED, linewidth=1, dashes=(2, 3))
    for each in gate["calibration"]["bins"]:
        size = 4 + 14 * math.sqrt(each["n"] / gate["pairs"])
        reliability.plot(
            100 * each["confidence"], 100 * each["accuracy"], "o", color=colour(1), markersize=size, clip_on=False
        )
    reliability.set(xlim=(50, 100), ylim=(0, 100), xticks=[50, 75, 100], yticks=[0, 50, 100])
    *_, last = reliability.set_xticklabels(["50%", "75%", "100%"])
    last.set_horizontalalignment("right")  # within the panel
    zero, *_ = reliability.set_yticklabels(["0", "50", "100%"])
    zero.set_verticalalignment("bottom")
    reliability.set_xlabel(words["gate_confidence"], color=MUTED, fontsize=11)
    reliability.set_ylabel(words["gate_share"], color=MUTED, fontsize=11)
    x, y, across = scatter_place
    scatter = panel(figure, x, y + head, across, down, words["gate_scatter"])
    for at, name in ((2, "rejected"), (1, "chosen")):
        points = [pair[2:] if name == "rejected" else pair[:2] for pair in gate["points"]]
        tokens, rewards = zip(*points, strict=True)
        scatter.plot(
            tokens, rewards, MARKERS[at], color=colour(at), markersize=4, alpha=0.6, label=words[f"gate_{name}"]
        )
    scatter.set_xlabel(words["gate_tokens"], color=MUTED, fontsize=11)
    scatter.set_ylabel(words["reward"], color=MUTED, fontsize=11)
    scatter.legend(facecolor=PAPER, edgecolor=PAPER, fontsize=11, labelcolor=INK, loc="best")
    for axes in (reliability, scatter):
        axes.grid(True, axis="y", color=LINE, linewidth=0.6)
    return figure
