"""Sixteen personas in one pass of DPO with LoRA, against sixteen runs of TRL 1.16's DPOTrainer and sixteen of our own.

    make bench-setup                                # TRL into bench/.venv-trl
    .venv/bin/python bench/bank_vs_trl.py           # about 25 minutes on 2 cores
    .venv/bin/python bench/bank_vs_trl.py --quick   # under 10 minutes

Each of the 16 types learns 24 pairs of the bundled English situations. All types meet the same situations and the same
two answers, chosen by one and rejected by another, so that every run has the same tokens to read. A round runs, in a
rotating order and each in a process of its own: "bank", one pass over all 16; and for one type (another one each round)
"alone", our own run, and TRL's "defaults" and "best" flags (peers/trl_dpo.py). What one type took is counted 16 times.
Seconds leave out start-up (imports, loading, tokenising, making the adapters), which is shown apart, and count the
reference pass; ours count the writing of the results too. A ratio is the median over rounds.

Memory is the process's largest resident size, measured against the peak of one run of ours and, for each of the 15
other adapters, 16 bytes a parameter: fp32 weight, gradient and AdamW's two moments.

A parity check first trains some types together and alone in fp32, 20 steps: largest relative difference of a weight
under SGD, largest difference of a loss under AdamW. `--quick` leaves out TRL's best flags. Run it on an idle machine.
The last line printed is JSON: name, ratio (to TRL's defaults, without start-up), memory_ratio, aim, met, rows.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import Any

from common import (
    RANK,
    dpo_flops,
    layer_shapes,
    matrix_rate,
    middle,
    model_folder,
    report,
    require_same_ids,
    run_arms,
    start_adapter,
    write_pairs,
)

HERE = Path(__file__).parent
PAIRS, BATCH, EPOCHS = 24, 8, 2
PARITY_STEPS, PARITY_RATE = 20, {"sgd": 0.02, "adamw": 2e-4}
SPEED_AIM, MEMORY_AIM = 4.0, 1.1
WEIGHT_DIFFERENCE_AIM, LOSS_DIFFERENCE_AIM, LOSS_FALL_AIM = 1e-5, 1e-4, 0.1
BYTES = 16  # a parameter of an adapter in training: weight, gradient, two moments


def arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2", help="an embedded model's name or a model folder")
    parser.add_argument("--quick", action="store_true", help="a look, not a measurement: one round of one epoch")
    parser.add_argument("--rounds", type=int, help="3 if not given, with --quick 1")
    parser.add_argument("--pairs", type=int, default=PAIRS, help="pairs a persona")
    parser.add_argument("--epochs", type=int, help=f"{EPOCHS} if not given, with --quick 1")
    parser.add_argument("--row-tokens", type=int, help="tokens in one forward pass of ours (personalign's default)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peer-python", default=str(HERE / ".venv-trl/bin/python"))
    args = parser.parse_args()
    args.parity_types, args.parity_batch = (2, 1) if args.quick else (3, 2)
    args.rounds = args.rounds or (1 if args.quick else 3)
    args.epochs = args.epochs or (1 if args.quick else EPOCHS)
    return args


def write_types(folder: Path, tokenizer: Any, count: int) -> dict[str, Path]:
    """The first `count` bundled pairs of every type as a file of protocol rows, by type."""
    from personalign.datasets import type_pairs
    from personalign.personas import TYPES

    def row(pair: Any) -> dict[str, Any]:
        prompt = tokenizer.apply_chat_template(pair.prompt, tokenize=False, add_generation_prompt=True)
        return {"messages": pair.prompt, "prompt": prompt, "chosen": pair.chosen, "rejected": pair.rejected}

    folder.mkdir()
    return {
        name: write_pairs(folder / f"{name}.jsonl", [row(pair) for pair in type_pairs(name, "en", "train")[:count]])
        for name in TYPES
    }


def some(files: dict[str, Path], count: int) -> list[str]:
    """`count` of the types, unlike one another."""
    names = list(files)
    return [names[5 * number % len(names)] for number in range(count)]


def ours(args: argparse.Namespace, model: Path, adapter: Path, pairs: Sequence[Path], *more: str) -> list[str]:
    """Our command line, an adapter for each file of pairs."""
    command = [sys.executable, str(HERE / "peers/ours_dpo.py"), "--pairs", *map(str, pairs)]
    if args.row_tokens:
        command += ["--row-tokens", str(args.row_tokens)]
    return [*command, "--model", str(model), "--adapter", str(adapter), "--threads", str(args.threads), *more]


def parity(args: argparse.Namespace, model: Path, tokenizer: Any, adapter: Path, folder: Path) -> dict[str, Any]:
    """Some types together and each alone, in fp32: how far apart weights (SGD) and losses (AdamW) are after 20 steps."""
    from safetensors.torch import load_file

    steps, batch = PARITY_STEPS, args.parity_batch
    files = write_types(folder / "parity", tokenizer, steps * batch // 4)
    names = some(files, args.parity_types)

    def weights(name: str, company: str) -> dict[str, Any]:
        return load_file(folder / f"sgd-{company}" / name / "adapter" / "adapter_model.safetensors")

    def losses(name: str, company: str) -> list[float]:
        lines = (folder / f"adamw-{company}" / name / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line)["loss"] for line in lines]

    arms = {}
    for optimizer, rate in PARITY_RATE.items():
        for company, members in {"together": names, **{name: [name] for name in names}}.items():
            keep = folder / f"{optimizer}-{company}"
            more = ("--precision", "fp32", "--epochs", "4", "--batch", str(batch), "--optimizer", optimizer)
            more += ("--lr", str(rate), "--keep", str(keep))
            arms[keep.name] = ours(args, model, adapter, [files[name] for name in members], *more)
    run_arms(arms, 0, args.threads)
    curves = {name: losses(name, name) for name in names}
    return {
        "row": f"parity of {len(names)} trained together and alone, fp32, {len(curves[names[0]])} steps",
        "weight_difference": max(furthest(weights(name, "together"), weights(name, name)) for name in names),
        "weight_difference_between_types": min(
            furthest(weights(a, a), weights(b, b)) for a, b in combinations(names, 2)
        ),
        "loss_difference": max(
            abs(a - b) for name in names for a, b in zip(losses(name, "together"), curves[name], strict=True)
        ),
        "loss_fall": min(sum(curve[:5]) / 5 - sum(curve[-5:]) / 5 for curve in curves.values()),  # an epoch is 5 steps
        "losses": curves,
    }


def furthest(weights: dict[str, Any], others: dict[str, Any]) -> float:
    """Largest difference of a weight, relative to the largest weight of its matrix."""
    return max(float((weights[name] - other).abs().max() / other.abs().max()) for name, other in others.items())


def measure(args: argparse.Namespace, model: Path, tokenizer: Any, adapter: Path, folder: Path) -> list[dict[str, Any]]:
    """All rounds; one row an arm, every figure for 16 adapters."""
    files = write_types(folder / "pairs", tokenizer, args.pairs)
    common = ("--batch", str(BATCH), "--epochs", str(args.epochs))
    rounds = []
    for turn, name in enumerate(some(files, args.rounds)):
        print(f"round {turn + 1} of {args.rounds}, {name}", flush=True)
        trl = [args.peer_python, str(HERE / "peers/trl_dpo.py"), "--model", str(model), "--adapter", str(adapter)]
        trl += ["--pairs", str(files[name]), "--threads", str(args.threads), *common, "--flags"]
        arms = {
            "bank": ours(args, model, adapter, list(files.values()), *common),
            "alone": ours(args, model, adapter, [files[name]], *common),
            "defaults": [*trl, "defaults"],
            "best": [*trl, "best"],
        }
        if args.quick:
            del arms["best"]
        got = run_arms(arms, turn, args.threads)
        require_same_ids({arm: result for arm, result in got.items() if arm != "bank"})
        if got["bank"]["train"]["tokens"] != len(files) * got["alone"]["train"]["tokens"]:
            raise SystemExit("The types do not have the same tokens to read: one run cannot stand for all.")
        rounds.append(got)
    return table(args, model, len(files), rounds)


def table(
    args: argparse.Namespace, model: Path, count: int, rounds: Sequence[dict[str, dict[str, Any]]]
) -> list[dict[str, Any]]:
    """What the rounds say of each arm, with `count` adapters to train."""
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    shapes = layer_shapes(config)
    rate = matrix_rate(shapes, 1024, "bf16", args.threads)
    parameters = config["num_hidden_layers"] * RANK * sum(out + width for out, width in shapes)
    others_mb = (count - 1) * BYTES * parameters / 2**20
    rows = []
    for arm in rounds[0]:
        runs, banks = [turn[arm] for turn in rounds], [turn["bank"] for turn in rounds]
        times = 1 if arm == "bank" else count
        flops = [dpo_flops(config, RANK, run) for run in runs]
        row: dict[str, Any] = {
            "row": arm,
            "runs": times,
            "seconds": middle([times * run["seconds"] for run in runs]),
            "startup_seconds": middle([times * (run["wall_seconds"] - run["seconds"]) for run in runs]),
            "pairs_per_second": middle([run["pairs_seen"] / run["seconds"] for run in runs]),
            "peak_mb": middle([run["peak_mb"] for run in runs]),
            "loaded_mb": median(run["loaded_mb"] for run in runs),
            "machine_gflops": rate,
            "share_of_machine_rate": median(
                f / run["seconds"] / 1e9 / rate for f, run in zip(flops, runs, strict=True)
            ),
            "foreign_cpu": max(run["foreign_cpu"] or 0.0 for run in runs),
        }
        if arm == "bank":
            bounds = [turn["alone"]["peak_mb"] + others_mb for turn in rounds]
            row["memory_bound_mb"] = median(bounds)
            row["memory_ratio"] = middle([run["peak_mb"] / bound for run, bound in zip(runs, bounds, strict=True)])
        else:
            pairs = list(zip(runs, banks, strict=True))
            row["ratio"] = middle([times * run["seconds"] / bank["seconds"] for run, bank in pairs])
            row["ratio_with_startup"] = middle(
                [times * run["wall_seconds"] / bank["wall_seconds"] for run, bank in pairs]
            )
            row["ratio_predicted_by_flops"] = times * flops[0] / dpo_flops(config, RANK, banks[0])
        rows.append(row)
    return rows


def show(rows: Sequence[dict[str, Any]], same: dict[str, Any]) -> None:
    """Print the table for people."""

    def spread(found: dict[str, float], digits: int) -> str:
        return f"{found['median']:.{digits}f} ({found['low']:.{digits}f} - {found['high']:.{digits}f})"

    heads = ("seconds for all", "start-up", "ratio", "with start-up", "by FLOPs", "peak MB", "of machine rate")
    print(f"\n{'':10}" + "".join(f"{head:>22}" for head in heads))
    for row in rows:
        ratio = row.get("ratio")
        cells = [spread(row["seconds"], 0), spread(row["startup_seconds"], 0)]
        cells += [spread(ratio, 2), spread(row["ratio_with_startup"], 2)] if ratio else ["", ""]
        cells += [f"{row['ratio_predicted_by_flops']:.2f}" if ratio else "", spread(row["peak_mb"], 0)]
        cells += [f"{row['share_of_machine_rate']:.0%}"]
        print(f"{row['row']:10}" + "".join(f"{cell:>22}" for cell in cells))
    bank = rows[0]
    print(
        f"\nbank: peak {spread(bank['memory_ratio'], 2)} of {bank['memory_bound_mb']:.0f} MB (aim {MEMORY_AIM})\n"
        f"parity: weights {same['weight_difference']:.1e} apart under SGD (aim {WEIGHT_DIFFERENCE_AIM:.0e}; two types "
        f"{same['weight_difference_between_types']:.1e}), losses {same['loss_difference']:.1e} under AdamW (aim "
        f"{LOSS_DIFFERENCE_AIM:.0e})\n"
    )


def main() -> None:
    """Run the parity check and the rounds, print the table and the JSON line."""
    args = arguments()
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    from transformers import AutoTokenizer

    model = model_folder(args.model)
    tokenizer = AutoTokenizer.from_pretrained(model)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        adapter = start_adapter(model, folder / "start")
        print("parity", flush=True)
        same = parity(args, model, tokenizer, adapter, folder)
        rows = measure(args, model, tokenizer, adapter, folder)
    show(rows, same)
    by_arm = {row["row"]: row for row in rows}
    ratio, memory = by_arm["defaults"]["ratio"]["median"], by_arm["bank"]["memory_ratio"]["median"]
    met = (
        ratio >= SPEED_AIM
        and memory <= MEMORY_AIM
        and same["weight_difference"] <= WEIGHT_DIFFERENCE_AIM
        and same["loss_difference"] <= LOSS_DIFFERENCE_AIM
        and same["loss_fall"] >= LOSS_FALL_AIM
    )
    report("bank_vs_trl", ratio, memory, SPEED_AIM, met, [same, *rows])


if __name__ == "__main__":
    main()
