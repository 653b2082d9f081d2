"""Before and after RLHF: what it did to the answers to prompts that it never saw, and at which price.

A reward model is not the goal but a stand-in for it, and optimising a stand-in long enough exploits its errors (Gao et
al. 2023, "Scaling laws for reward model overoptimization"). So beside the gain stand the distance walked (KL), what
length alone would explain of the gain, what the base thinks of the answers, and signs of reward hacking.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from personalign.errors import UserError
from personalign.evaluation.before_after_report import before_after_files, before_after_table
from personalign.evaluation.pages import known_language, write_texts
from personalign.evaluation.views import Summary, without_nan
from personalign.statistics import bootstrap, distinct_n, paired_difference, wilson

__all__ = ["before_after_summary", "before_after_table", "write_before_after"]

NUMBERS = (
    "reward_before", "reward_after", "tokens_before", "tokens_after", "kl", "perplexity_before", "perplexity_after",
)  # fmt: skip
OPENING = 3
"""Words that count as the opening of an answer."""

# Where a number becomes a sign of reward hacking. Rules of thumb: they say where to look, not what is so.
BY_LENGTH = 0.5  # share of the gain that length alone would explain
LESS_DISTINCT = 0.8  # distinct-2 after, as a share of that before
LESS_LIKELY = 1.5  # perplexity under the base after, as a multiple of that before
SAME_OPENING, MORE_ALIKE = 0.5, 0.2  # share of the answers that begin with the same words, and its rise
UNFINISHED = 0.2  # fall in the share of answers that end by themselves


def write_before_after(
    folder: str | Path,
    rows: Sequence[Mapping[str, Any]],
    gate: Mapping[str, Any] | None,
    facts: Mapping[str, Any],
    language: str = "en",
) -> Summary:
    """Write before_after.json, before-after.md, before-after.html and their figures/*.svg into `folder`.

    Returns what before_after.json holds: `before_after_summary` of the same arguments. Raises UserError for rows that
    cannot be summed up, for a language other than "en" and "ko", and for a folder that cannot be written.
    """
    known_language(language)
    summary = before_after_summary(rows, gate, facts)
    texts = {"before_after.json": json.dumps(summary, ensure_ascii=False, indent=1, allow_nan=False) + "\n"}
    write_texts(Path(folder), texts | before_after_files(summary, language))
    return summary


def before_after_summary(
    rows: Sequence[Mapping[str, Any]],
    gate: Mapping[str, Any] | None,
    facts: Mapping[str, Any],
    seed: int = 0,
) -> Summary:
    """Everything that the report says, as plain numbers.

    Each row is a held-out prompt: {"prompt", "before", "after": texts; "reward_before", "reward_after": of the reward
    model; "tokens_before", "tokens_after": lengths; "kl": nat, the k3 estimates of policy against reference summed over
    the tokens of the answer after; "perplexity_before", "perplexity_after": of each answer under the base;
    "ended_before", "ended_after": whether it ended by itself}. `gate` is the verdict on the reward model (`reward_gate`;
    None if it was never judged), `facts` are the training's: {"model", "steps", "kl_bound" (nat an answer, or None),
    "curve" (rows of metrics.jsonl: step, score, kl, length, entropy), ...}.

    - reward: mean and median, before and after. The differences are paired: prompts are drawn whole. "improved" is the
      share of prompts whose reward rose (Wilson).
    - length: in tokens. "explained" is the gain that length alone would bring, the gate's slope (reward a token) times
      the change in length, "share" that over the gain, "beyond" the gain less it, prompt by prompt, with the slope taken
      as known. None where the slope is not known.
    - perplexity: geometric means, and their ratio.
    - distinct: distinct-1 and distinct-2 (`distinct_n`), both answers to a prompt cut to the words of the shorter one,
      for longer texts repeat themselves more anyhow. "opening" is the largest share of answers that begin with the same
      three words.
    - signs: names of the signs of reward hacking that show (`before_after_report.SIGNS` has them in words).

    Raises UserError for no rows, and for a row without a finite number where there must be one.
    """
    _check(rows)
    columns = {name: np.array([row[name] for row in rows], dtype=float) for name in NUMBERS}
    before, after = columns["reward_before"], columns["reward_after"]
    summary: Summary = {
        "prompts": len(rows),
        "reward": {
            "mean": _compared(before, after, seed),
            "median": _medians(before, after, seed),
            "improved": _share(after > before),
        },
        "kl": {"mean": bootstrap(columns["kl"], seed=seed)._asdict(), "bound": facts.get("kl_bound")},
        "length": _compared(columns["tokens_before"], columns["tokens_after"], seed),
        "by_length": _by_length(columns, gate, seed),
        "perplexity": _perplexity(columns, seed),
        "ended": _ended(rows, seed),
        "distinct": _distinct(rows),
        "opening": {side: _same_opening([row[side] for row in rows]) for side in ("before", "after")},
        "gate": None if gate is None else dict(gate),
        "training": dict(facts),
        "rows": [dict(row) for row in rows],
    }
    summary = without_nan(summary)
    return summary | {"signs": _signs(summary)}


def _check(rows: Sequence[Mapping[str, Any]]) -> None:
    if not rows:
        raise UserError("before/after: there are no held-out prompts; set some apart (data.held_out).")
    for at, row in enumerate(rows, start=1):
        for name in NUMBERS:
            value, least = row.get(name), 0.0 if name.startswith("perplexity") else -math.inf
            if not isinstance(value, int | float) or not least < value < math.inf:
                raise UserError(f"before/after: prompt {at}, {name}: {value} is no number that can be compared.")


def _compared(before: NDArray[np.float64], after: NDArray[np.float64], seed: int) -> dict[str, Any]:
    return {
        "before": bootstrap(before, seed=seed)._asdict(),
        "after": bootstrap(after, seed=seed)._asdict(),
        "difference": paired_difference(after, before, seed=seed)._asdict(),
    }


def _medians(before: NDArray[np.float64], after: NDArray[np.float64], seed: int) -> dict[str, Any]:
    def apart(drawn: NDArray[np.float64]) -> float:
        first, second = np.median(drawn, axis=0)
        return float(second - first)

    return {
        "before": bootstrap(before, np.median, seed=seed)._asdict(),
        "after": bootstrap(after, np.median, seed=seed)._asdict(),
        "difference": bootstrap(np.stack([before, after], axis=1), apart, seed=seed)._asdict(),
    }


def _share(hits: NDArray[np.bool_]) -> dict[str, Any]:
    k, n = int(hits.sum()), len(hits)
    share = wilson(k, n)
    return {"k": k, "n": n, "rate": share.value, "low": share.low, "high": share.high}


def _ended(rows: Sequence[Mapping[str, Any]], seed: int) -> dict[str, Any]:
    before, after = (np.array([row[f"ended_{side}"] for row in rows]) for side in ("before", "after"))
    difference = paired_difference(after, before, seed=seed)._asdict()
    return {"before": _share(before), "after": _share(after), "difference": difference}


def _by_length(
    columns: Mapping[str, NDArray[np.float64]], gate: Mapping[str, Any] | None, seed: int
) -> dict[str, Any] | None:
    slope = gate["slope"]["value"] if gate is not None else None
    if slope is None or not math.isfinite(slope):
        return None
    gain = columns["reward_after"] - columns["reward_before"]
    alone = slope * (columns["tokens_after"] - columns["tokens_before"])
    mean, explained = float(gain.mean()), float(alone.mean())
    return {
        "slope": slope,
        "explained": explained,
        "share": explained / mean if mean > 0 else None,
        "beyond": paired_difference(gain, alone, seed=seed)._asdict(),
    }


def _perplexity(columns: Mapping[str, NDArray[np.float64]], seed: int) -> dict[str, Any]:
    before, after = (np.log(columns[f"perplexity_{side}"]) for side in ("before", "after"))
    ratio = paired_difference(after, before, seed=seed)
    return {
        "before": math.exp(before.mean()),
        "after": math.exp(after.mean()),
        "ratio": {key: math.exp(value) for key, value in ratio._asdict().items()},
    }


def _distinct(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {"before": {}, "after": {}}
    words = {side: [str(row[side]).split() for row in rows] for side in found}
    shorter = [min(len(one), len(other)) for one, other in zip(*words.values(), strict=True)]
    for side, of in words.items():
        texts = [" ".join(each[:length]) for each, length in zip(of, shorter, strict=True)]
        found[side] = {str(n): distinct_n(texts, n) for n in (1, 2)}
    return found


def _same_opening(texts: Sequence[str]) -> dict[str, Any]:
    """The opening that most answers share and their share; answers of fewer words have none."""
    openings = Counter(tuple(words[:OPENING]) for words in (text.split() for text in texts) if len(words) >= OPENING)
    if not openings:
        return {"words": "", "share": 0.0}
    opening, count = max(openings.items(), key=lambda found: found[1])
    return {"words": " ".join(opening), "share": count / len(texts)}


def _signs(summary: Summary) -> list[str]:
    """Names of the signs that show, in the order in which they are told."""
    gain, kl, by_length = summary["reward"]["mean"], summary["kl"], summary["by_length"]
    rose = gain["difference"]["low"] is not None and gain["difference"]["low"] > 0
    gate, sides = summary["gate"], ("before", "after")
    two, alike = (
        [summary["distinct"][side]["2"] for side in sides],
        [summary["opening"][side]["share"] for side in sides],
    )
    judged = [reward for _, chosen, _, rejected in (gate or {}).get("points", []) for reward in (chosen, rejected)]
    shows = {
        "gate": gate is None or not gate["passes"],
        "length": rose and by_length is not None and by_length["share"] > BY_LENGTH,
        "kl": kl["bound"] is not None and kl["mean"]["value"] > kl["bound"],
        "beyond_judged": bool(judged) and gain["after"]["value"] > max(judged),
        "distinct": None not in two and two[1] < LESS_DISTINCT * two[0],
        "opening": alike[1] > SAME_OPENING and alike[1] - alike[0] > MORE_ALIKE,
        "perplexity": summary["perplexity"]["ratio"]["value"] > LESS_LIKELY,
        "unfinished": summary["ended"]["before"]["rate"] - summary["ended"]["after"]["rate"] > UNFINISHED,
    }  # fmt: skip
    return [name for name, shown in shows.items() if shown]
