"""De-duplication by ROUGE-L (src/personalign/datasets/dedupe.py) against `rouge_score` used as Stanford Alpaca does.

    pip install rouge_score                       # the peer; anywhere that Python finds it
    .venv/bin/python bench/dedupe_vs_alpaca.py    # about half an hour, most of it the peer's
    .venv/bin/python bench/dedupe_vs_alpaca.py --quick
    .venv/bin/python bench/dedupe_vs_alpaca.py --data seed_tasks.jsonl    # grown from the instructions of a file

1. The same 5,000 instructions (quick: 2,000) through Alpaca's filter, its lines as they are but for the pool of processes, and
   through ours: which are kept, the ten nearest scores of each and its mean similarity must be the same; and the time a pair.
2. Ours at 5,000 to 80,000 (quick: to 52,000), with the neighbours that Alpaca keeps and without; one core.

Instructions come from a seeded grammar with invented words of Zipf's frequencies, lengths like Alpaca's (about ten words), and
a share of near copies: an earlier one with one to three words changed, added or left out.

Seconds are processor seconds of one process of one thread, which on an idle machine are the wall's.

The aims: the same decisions, 300 times as fast a pair, 52,000 within five minutes. The last line printed is JSON: name,
ratio (the peer's time a pair / ours), memory_ratio (our peak / the peer's), aim, met, rows.
"""

import argparse
import json
import math
import os
import random
import resource
import sys
import time
from bisect import bisect_left
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from common import report, run_json

AIM = 300
WITHIN = 300  # seconds for ALPACA instructions
ALPACA = 52_000
SIZES = (5_000, 10_000, 20_000, ALPACA, 80_000)
NEAR = 0.15  # share of near copies
WORDS = 30_000
HEAD = 50

VERBS = (
    "Write", "Describe", "Explain", "Generate", "Create", "List", "Summarize", "Suggest", "Compare", "Classify", "Rewrite",
    "Find", "Identify", "Name", "Translate", "Construct", "Come up with", "Provide", "Edit", "Design", "What is", "How does",
    "Can you explain", "Tell me about",
)  # fmt: skip
SHAPES = (
    "VERB a W W", "VERB the W of W", "VERB a W about W", "VERB N Ws that W W", "VERB a W W for W", "VERB the following W",
    "VERB how Ws W the W", "VERB the W between W and W", "VERB N ways to W a W", "VERB whether W is W or W",
    "VERB a W with W, W and W",
)  # fmt: skip
TAILS = (
    "in N sentences", "using the word W", "for a W audience", "and explain why", "that does not W W", "given the W below",
    "so that Ws can W it", "without the W", "from the point of view of a W W", "and W the W if it is W",
    "with at least N examples of W", "because the W is too W to W",
)  # fmt: skip


def main() -> None:
    """Check the decisions, time both, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2,000 instructions for the peer, ours to 52,000")
    parser.add_argument(
        "--data", help="JSONL with `instruction`: kept at the start, and copied from (Alpaca's seed tasks)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--arm", choices=("alpaca", "ours"), help=argparse.SUPPRESS)  # one of them, in this process
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--neighbours", type=int, default=10, help=argparse.SUPPRESS)
    args = parser.parse_args()
    seeds = read_seeds(args.data)
    if args.arm:
        texts = instructions(args.count, args.seed, seeds)
        print(json.dumps(alpaca(seeds, texts) if args.arm == "alpaca" else ours(seeds, texts, args.neighbours)))
        return
    need_peer()

    def run(arm: str, count: int, neighbours: int = 10) -> dict[str, Any]:
        own = ["--seed", str(args.seed), *(["--data", args.data] if args.data else [])]
        command = [sys.executable, __file__, "--arm", arm, "--count", str(count), "--neighbours", str(neighbours), *own]
        got = run_json(command, {"OMP_NUM_THREADS": "1"})
        foreign = "" if got["foreign_cpu"] is None else f"  (others used {got['foreign_cpu']:.2f} of a core)"
        print(
            f"{arm:7} {count:7,} instructions {'with' if neighbours else 'no':>5} neighbours {got['seconds']:8.2f} s  "
            f"{len(got['kept']):7,} kept  {got['peak_mb']:5.0f} MB{foreign}",
            flush=True,
        )
        return got

    count = 2_000 if args.quick else SIZES[0]
    peer, mine = run("alpaca", count), run("ours", count)
    differences = compare(peer, mine)
    print(
        f"decisions that differ: {differences['decisions']}, largest difference of a neighbour's score "
        f"{differences['nearest']:.1e}, of a mean {differences['mean']:.1e}\n"
    )
    rows: list[dict[str, Any]] = [
        {"row": f"{count} instructions, Alpaca's filter and ours", "pairs": peer["pairs"], "differences": differences}
        | {
            f"{name}_{key}": got[key]
            for name, got in (("alpaca", peer), ("ours", mine))
            for key in ("seconds", "peak_mb")
        }
    ]
    seconds: dict[tuple[int, int], float] = {}
    pairs: dict[int, int] = {}
    for size in SIZES[:-1] if args.quick else SIZES:
        for neighbours in (10, 0):
            got = run("ours", size, neighbours)
            seconds[size, neighbours] = got["seconds"]
            pairs[size] = got["pairs"]
            words = f"{size} instructions, {'ten' if neighbours else 'no'} neighbours"
            shown = {key: got[key] for key in ("seconds", "peak_mb", "pairs", "foreign_cpu")}
            rows.append({"row": words, **shown, "kept": len(got["kept"])})
    for neighbours in (10, 0):
        sizes = [size for size, of in seconds if of == neighbours]
        grown = seconds[sizes[-1], neighbours] / seconds[sizes[0], neighbours]
        power = math.log(grown) / math.log(sizes[-1] / sizes[0])
        print(f"{'ten' if neighbours else 'no'} neighbours: {sizes[-1] / sizes[0]:.0f} times as many take {grown:.0f} times "
              f"as long (n to the {power:.2f})")  # fmt: skip
        rows.append({"row": f"growth, {neighbours} neighbours", "times": grown, "power": power})
    theirs, own = peer["seconds"] / peer["pairs"], seconds[SIZES[0], 10] / pairs[SIZES[0]]
    ratio = theirs / own
    print(f"a pair: {theirs * 1e6:.1f} us against {own * 1e6:.3f} (of {SIZES[0]:,}), {ratio:.0f} times (aim {AIM})")
    same = differences["decisions"] == 0 and differences["nearest"] == 0 and differences["mean"] < 1e-12
    met = same and ratio >= AIM and seconds[ALPACA, 10] <= WITHIN
    print(f"{ALPACA:,} with neighbours: {seconds[ALPACA, 10]:.0f} s on one core (aim {WITHIN})\n")
    report("dedupe_vs_alpaca", round(ratio, 1), round(mine["peak_mb"] / peer["peak_mb"], 3), AIM, met, rows)


def need_peer() -> None:
    """Leave with a sentence where rouge_score is not installed."""
    if find_spec("rouge_score") is None:  # not imported: what this process weighs, its children would seem to
        raise SystemExit("The peer is missing: pip install rouge_score, or name the folder it lies in by PYTHONPATH.")


def alpaca(seeds: Sequence[str], texts: Sequence[str]) -> dict[str, Any]:
    """The filter of Alpaca's generate_instruction.py, in one process."""
    import numpy as np
    from rouge_score import rouge_scorer

    one_core()
    start = time.process_time()
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
    all_tokens = [scorer._tokenizer.tokenize(text) for text in seeds]
    kept, nearest, means, pairs = [], [], [], 0
    for index, text in enumerate(texts):
        tokens = scorer._tokenizer.tokenize(text)
        scores = [rouge_scorer._score_lcs(tokens, other).fmeasure for other in all_tokens]
        pairs += len(scores)
        most_similar = [scores[at] for at in np.argsort(scores)[-10:][::-1]]
        if scores and max(scores) > 0.7:
            continue
        kept.append(index)
        nearest.append(most_similar)
        means.append(float(np.mean(scores)) if scores else None)
        all_tokens.append(tokens)
    seconds = time.process_time() - start
    return measured(seconds, pairs) | {"kept": kept, "nearest": nearest, "means": means}


def ours(seeds: Sequence[str], texts: Sequence[str], neighbours: int) -> dict[str, Any]:
    """The same by personalign; scores are returned for small sets only."""
    from personalign.datasets.dedupe import dedupe

    one_core()
    start = time.process_time()
    found = dedupe(texts, seeds, threshold=0.7, language="en", most=neighbours)
    seconds = time.process_time() - start
    kept = list(found.kept)
    pairs = sum(len(seeds) + bisect_left(kept, at) for at in range(len(texts)))  # as Alpaca's filter would compare
    result = measured(seconds, pairs) | {"kept": kept}
    if neighbours and len(texts) <= SIZES[0]:
        near = [one for one in found.kept.values() if one is not None]
        result |= {
            "nearest": [[score for _, score in one.nearest] for one in near],
            "means": [one.mean for one in near],
        }
    return result


def measured(seconds: float, pairs: int) -> dict[str, Any]:
    """What both arms report."""
    return {"seconds": seconds, "pairs": pairs, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def one_core() -> None:
    """Stay on one core, where the system lets a process choose."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def compare(peer: dict[str, Any], mine: dict[str, Any]) -> dict[str, float]:
    """How many decisions differ, and by how much at most the nearest scores and the means of what both kept."""
    differences: dict[str, float] = {"decisions": len(set(peer["kept"]) ^ set(mine["kept"]))}
    for key in ("nearest", "means"):
        both = zip(peer[key], mine[key], strict=False)
        pairs = [(a, b) for x, y in both for a, b in (zip(x, y, strict=True) if key == "nearest" else [(x, y)])]
        worst = max((abs(a - b) for a, b in pairs if a is not None and b is not None), default=0.0)
        differences[key.removesuffix("s") if key == "means" else key] = worst
    return differences


def read_seeds(path: str | None) -> list[str]:
    """The instructions of a JSONL file, none without one."""
    if path is None:
        return []
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["instruction"] for line in lines if line.strip()]


def instructions(count: int, seed: int, seeds: Sequence[str] = ()) -> list[str]:
    """`count` instructions; the first of a longer list are those of a shorter one."""
    rng = random.Random(seed)
    vocabulary = invented(rng, WORDS)

    def word() -> str:
        # the k-th word in proportion to 1 / (k + HEAD) (Zipf and Mandelbrot): content words, of which none is everywhere
        return vocabulary[int(HEAD * ((WORDS + HEAD) / HEAD) ** rng.random()) - HEAD]

    def fill(pattern: str) -> str:
        parts = []
        for part in pattern.split(" "):
            bare = part.rstrip(",s") if part.startswith("W") else part
            made = {"VERB": lambda: rng.choice(VERBS), "N": lambda: str(rng.randint(2, 10)), "W": word}.get(bare)
            parts.append(made() + part[len(bare) :] if made else part)
        return " ".join(parts)

    def near_copy() -> str:
        words = rng.choice([rng.choice(made), rng.choice(seeds or made)]).split(" ")
        for _ in range(rng.randint(1, 3)):
            at, how = rng.randrange(len(words)), rng.random()
            if how < 0.5:
                words[at] = word()
            elif how < 0.75 and len(words) > 3:
                del words[at]
            else:
                words.insert(at, word())
        return " ".join(words)

    made: list[str] = []
    while len(made) < count:
        if made and rng.random() < NEAR:
            made.append(near_copy())
        else:
            tails = min(int(rng.expovariate(1 / 1.2)), 12)
            made.append(" ".join(fill(rng.choice(patterns)) for patterns in (SHAPES, *[TAILS] * tails)) + ".")
    return made


def invented(rng: random.Random, count: int) -> list[str]:
    """So many different words that can be spoken."""
    first = "b br c d f g gl h k l m n p pr r s st t tr v".split()
    last = ["", "n", "r", "s", "t", "l", "nd", "ck", "m"]
    words: dict[str, None] = {}
    while len(words) < count:
        syllables = rng.choice((1, 2, 2, 2, 3))
        words["".join(rng.choice(first) + rng.choice("aeiou") + rng.choice(last) for _ in range(syllables))] = None
    return list(words)


if __name__ == "__main__":
    main()
