"""Whether the two answers of pairs are matched: length and content measured, what is off set apart, both sides balanced."""

import math
import statistics
import sys
from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict, Field

from personalign.statistics import wilson
from personalign.synthesis.job import Made, Row

# characters that two answers may always differ in: "Sure." and "Not for me." are no pair of unequal lengths
SLACK = 10


class Matched(BaseModel):
    """When a pair is matched."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    length: tuple[float, float] = Field(
        (0.67, 1.5), description="characters of the rejected answer by those of the chosen, within"
    )
    similarity: tuple[float, float] = Field(
        (0.15, 0.9), description="ROUGE-L F of the two answers, within; a pair below is flagged, one above is set apart"
    )
    balance: bool = Field(
        True, description="set pairs apart until the length of an answer no longer tells which is chosen"
    )


def off(row: Row, bounds: Matched) -> str | None:
    """What is wrong with a pair: "length", "alike" (nearly the same), "apart" (little in common), or None."""
    (shortest, longest), (least, most) = bounds.length, bounds.similarity
    if not shortest <= row["length_ratio"] <= longest and abs(len(row["chosen"]) - len(row["rejected"])) > SLACK:
        return "length"
    if row["similarity"] > most:
        return "alike"
    return "apart" if row["similarity"] < least else None


def balance(ratios: Sequence[float]) -> list[int]:
    """Which pairs to leave out so that length no longer tells chosen from rejected: places, the most extreme first.

    `ratios` are lengths of the rejected answer by those of the chosen. Told is it while the 95 % Wilson interval of the share of
    pairs in which the chosen answer is longer (equal ones left aside) excludes one half.
    """
    sides = {sign: [at for at, ratio in enumerate(ratios) if (ratio > 1) - (ratio < 1) == sign] for sign in (-1, 1)}
    more = max(sides, key=lambda sign: len(sides[sign]))
    surplus = sorted(sides[more], key=lambda at: -abs(math.log(ratios[at])))
    few, out = len(sides[-more]), 0
    while len(surplus) - out > few and wilson(len(surplus) - out, len(surplus) - out + few).low > 0.5:
        out += 1
    return surplus[:out]


def hints(rows: Mapping[int, Row], bounds: Matched) -> dict[int, str]:
    """What to ask for once more, by place, and why: pairs that are off, and half of those by which one side is the longer.

    "length", "alike" and "apart" see `off`; "shorter" and "longer" is how the rejected answer shall become.
    """
    found = {at: why for at, row in rows.items() if (why := off(row, bounds))}
    good = {at: row["length_ratio"] for at, row in rows.items() if at not in found}
    if bounds.balance and balance(list(good.values())):
        excess = sum((ratio > 1) - (ratio < 1) for ratio in good.values())
        side = [at for at, ratio in good.items() if (ratio - 1) * excess > 0]
        side.sort(key=lambda at: abs(math.log(good[at])))  # the nearest turn to the other side with the least change
        found |= {at: "shorter" if excess > 0 else "longer" for at in side[: abs(excess) // 2]}
    return dict(sorted(found.items()))


def better(first: Made, second: Made, hint: str, bounds: Matched) -> Made:
    """The second try where it is no worse and did what was asked, else the first, with what both have cost."""
    old = first.rows[0] | {"redone": True}
    if not second.rows:
        return Made([old | {"requests": list(dict.fromkeys([*old["requests"], *second.quarantined[0]["requests"]]))}])
    new = second.rows[0]
    worse = {None: 0, "apart": 1, "length": 2, "alike": 2}
    turned = hint not in ("shorter", "longer") or (new["length_ratio"] < 1) == (hint == "shorter")
    mended = turned and worse[off(new, bounds)] <= worse[off(old, bounds)]
    return second if mended else Made([old | {"requests": new["requests"]}])


def judged(made: Made, bounds: Matched) -> Made:
    """Set a pair apart that is still off in length or still the same; flag one with little in common."""
    if not made.rows:
        return made
    (row,) = made.rows
    problem = off(row, bounds)
    if problem == "length":
        return set_apart(row, f"another length than the chosen answer: {row['length_ratio']:.2f} times as long")
    if problem == "alike":
        return set_apart(row, f"nearly the chosen answer: {row['similarity']:.2f} alike")
    if problem == "apart":
        return Made([row | {"flag": f"little in common: {row['similarity']:.2f} alike"}])
    return made


def balanced(made: Sequence[Made]) -> list[Made]:
    """Without the pairs that would let length tell chosen from rejected."""
    found = list(made)
    there = [at for at, each in enumerate(found) if each.rows]
    for place in balance([found[at].rows[0]["length_ratio"] for at in there]):
        row = found[there[place]].rows[0]
        longer = "longer" if row["length_ratio"] > 1 else "shorter"
        found[there[place]] = set_apart(row, f"length would tell: too many rejected answers are {longer}")
    return found


def set_apart(row: Row, reason: str) -> Made:
    """The whole pair, so that a user may still take it."""
    return Made([], [{"reason": reason, **row}])


def say_matched(rows: Sequence[Row], redone: int) -> None:
    """Print how long and how similar the answers of the pairs are, and whether their length tells which is chosen."""
    if not rows:
        return

    def spread(field: str) -> str:
        values = sorted(row[field] for row in rows)
        low, high = (values[round(share * (len(values) - 1))] for share in (0.05, 0.95))
        return f"median {statistics.median(values):.2f} (5 % to 95 %: {low:.2f} to {high:.2f})"

    uneven = [row["length_ratio"] for row in rows if row["length_ratio"] != 1]
    longer = sum(ratio < 1 for ratio in uneven)
    told = "no two are of unequal length"
    if uneven:
        _, low, high = wilson(longer, len(uneven))
        verdict = "balanced" if low <= 0.5 <= high else "LENGTH BIAS"
        told = f"{longer} of {len(uneven)} chosen answers are the longer one (95 % {low:.2f} to {high:.2f}: {verdict})"
    print(
        f"rejections: length ratio {spread('length_ratio')}; similarity {spread('similarity')}; {redone} redone, "
        f"{sum('flag' in row for row in rows)} flagged; {told}",
        file=sys.stderr,
    )
