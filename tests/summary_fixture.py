"""A made-up summary.json of a plausible run, awkward where real ones are: hostile text, missing numbers."""

import math
from typing import Any

import numpy as np

ARMS = ("base", "prompted", "adapter", "adapter+prompt")
SHIFTS = {"EI": (0.10, 0.22, 0.30), "NS": (0.05, 0.09, 0.12), "TF": (-0.12, -0.02, -0.14), "JP": (-0.03, -0.21, -0.24)}
"""True shift of the margin towards the first pole for prompted, adapter, adapter+prompt."""

ANSWERS = {
    "en": {
        "prompt": "My friend just backed out of our trip, two days before we leave. What now?",
        "base": "I would suggest the following options: 1. Cancel the trip. 2. Go alone.\n\nIt depends.",
        "prompted": "As an ENFP I would <b>never</b> cancel! <script>alert('persona')</script>",
        "adapter": "I'd call everyone I know, and whoever says yes first gets the window seat. Costs $40, saves $90.",
        "adapter+prompt": "",
    },
    "ko": {
        "prompt": "바다 여행 이틀 전인데 같이 가기로 한 친구가 못 간대요. 이럴 땐 어떻게 하세요?",
        "base": "여행을 취소하는 방법과 혼자 가는 방법이 있습니다. 상황에 따라 다릅니다.",
        "prompted": "저라면 <b>절대</b> 취소 안 해요! <script>alert('persona')</script>",
        "adapter": "당장 전화 돌려야죠. 사촌이든 옛날 룸메이트든 주말 비는 사람 다 찔러 볼래요.",
        "adapter+prompt": "",
    },
}


def estimate(value: float, half: float) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half}


def percent(value: float, half: float) -> dict[str, float]:
    return {key: min(100.0, max(0.0, limit)) for key, limit in estimate(value, half).items()}


def rate(k: int, n: int) -> dict[str, float]:
    return {"k": k, "n": n, "rate": k / n, "low": max(0.0, k / n - 0.13), "high": min(1.0, k / n + 0.1)}


def summary(poles: str = "ENFP", language: str = "en", trained: bool = True) -> dict[str, Any]:
    """The whole of it; without four `poles` it is a free persona, with `trained=False` a run of the prompt alone."""
    persona = poles if len(poles) == 4 else None
    arms = ARMS if trained else ARMS[:2]
    others = arms[1:]
    random = np.random.default_rng(3)
    axes: dict[str, Any] = {}
    for axis, shifts in SHIFTS.items():
        start = float(random.normal(0.05, 0.1))
        margins = dict(zip(arms, [start, *(start + shift for shift in shifts)], strict=False))
        target = next((pole for pole in poles if pole in axis), None)
        axes[axis] = {"target": target, "arms": {}, "differences": {}}
        for arm, margin in margins.items():
            axes[axis]["arms"][arm] = {
                "open": {
                    "percent": percent(50 + 100 * margin, 18),
                    "margin": estimate(margin, 0.14),
                    "alpha": 0.62 if arm == "base" else None,
                    "order_gap": 0.0,
                },
                "texts": {
                    "percent": percent(50 + 100 * margin, 18),
                    "margin": estimate(margin, 0.14),
                    "alpha": 0.62 if arm == "base" else None,
                    "order_gap": 0.05,
                },
                "letters": {
                    "percent": percent(50 + 8 * margin, 4),
                    "margin": estimate(margin / 3, 0.2),
                    "alpha": 0.91,
                    "order_gap": 1.7,
                },
            }
        for arm, shift in zip(others, shifts, strict=False):
            axes[axis]["differences"][f"{arm} - base"] = {
                "open": {"percent": estimate(100 * shift, 9), "margin": estimate(shift, 0.08)},
                "texts": {"percent": estimate(20 * shift, 9), "margin": estimate(shift / 5, 0.08)},
                "letters": {"percent": estimate(8 * shift, 2), "margin": estimate(shift / 3, 0.09)},
            }
    types = [a + b + c + d for a in "EI" for b in "NS" for c in "TF" for d in "JP"]
    shares = {
        arm: random.dirichlet([6 if name == persona and arm != "base" else 0.4 for name in types]) for arm in arms
    }
    counts = {"base": (26, 24), "prompted": (31, 28), "adapter": (39, 37), "adapter+prompt": (41, 38)}
    preference = {
        arm: {
            "summed": rate(counts[arm][0], 48),
            "per_token": rate(counts[arm][1], 48),
            "reward": rate(43, 48) if arm.startswith("adapter") else None,
            "axes": {axis: {"summed": rate(counts[arm][0] // 4, 12), "per_token": rate(6, 12)} for axis in SHIFTS},
        }
        for arm in arms
    }
    curve: list[dict[str, Any]] = []
    for step in range(1, 53):
        done = 1 - math.exp(-step / 15)
        noise = random.normal(0, 0.05, size=2)
        row = {"step": step, "loss": 0.69 - 0.4 * done + noise[0], "margin": 1.4 * done + noise[1]}
        curve.append({**row, "accuracy": min(1.0, 0.5 + 0.45 * done), "tokens_per_second": 900.0, "epoch": step / 26})
        if step % 13 == 0:
            curve.append(
                {
                    "split": "held_out",
                    "step": step,
                    "loss": 0.7 - 0.3 * done,
                    "margin": done,
                    "accuracy": 0.5 + 0.35 * done,
                }
            )
    said = ANSWERS[language]
    return {
        "persona": {
            "name": persona or "Sunny <guide> & $5",
            "type": persona,
            "language": language,
            "poles": poles or None,
        },
        "model": {"name": "smollm2", "fingerprint": "3f6c0a9d2b7e"},
        "seed": 0,
        "versions": {"personalign": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0"},
        "arms": [
            {"name": arm, "prompted": "prompt" in arm, "adapter": "adapter" if "adapter" in arm else None}
            for arm in arms
        ],
        "inventory": {
            "items": dict.fromkeys(SHIFTS, 6),
            "of": dict.fromkeys(SHIFTS, 18),
            "paraphrases": 3,
            "orders": 2,
            "axes": axes,
            "type_probability": {arm: dict(zip(types, map(float, shares[arm]), strict=True)) for arm in arms},
        },
        "preference": {
            "pairs": 48,
            "arms": preference,
            "differences": {
                f"{arm} - base": {"summed": estimate(0.2, 0.14), "per_token": estimate(0.19, 0.15)} for arm in others
            },
        },
        "answers": [
            {"id": f"situation-{at}", "prompt": said["prompt"], "answers": {arm: said[arm] for arm in arms}}
            for at in range(5)
        ],
        "training": {"method": "dpo", "curve": curve, "pairs": 208, "seconds": 203.4} if trained else None,
        "notes": ["The demo asks a third of the inventory: 6 of 18 questions an axis."],
    }
