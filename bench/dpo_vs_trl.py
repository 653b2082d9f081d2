"""DPO with LoRA: personalign against TRL 1.16's DPOTrainer, on the same model, pairs, order, precision and batch.

    make bench-setup                       # TRL into bench/.venv-trl
    .venv/bin/python bench/dpo_vs_trl.py --data machine_mindset_dpo_energy_i_e.json           # half an hour on 2 cores
    .venv/bin/python bench/dpo_vs_trl.py --data machine_mindset_dpo_energy_i_e.json --quick   # under 10 min

The data are the I/E pairs of PKU-YuanGroup/Machine-Mindset. Two shapes: "lapd" (prompt about 100 tokens, answers about
60) and "long" (400/60). A round trains four epochs on a batch of its own, once with every arm in a process of its own;
the arms take turns in a rotating order, and a ratio is the median over rounds of that round's ratio. Seconds leave out
start-up and count the reference pass; memory is the process's largest resident size. A parity check first compares
the first ten losses in fp32 from one fresh adapter. Run it on an idle machine: what other processes used meanwhile
stands beside each round. The last line printed is JSON: name, ratio, memory_ratio, aim, met, rows.
"""

import argparse
import json
import os
import sys
import tempfile
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
from preference_shapes import shaped_pairs

HERE = Path(__file__).parent
EPOCHS = 4
SHAPES = {"lapd": (100, 60), "long": (400, 60)}  # mean tokens of prompt and answer
BATCH = {"lapd": 4, "long": 2}  # pairs a step: about 900 packed tokens in both
PARITY_SHAPE = (60, 30)
SPEED_AIM = {"lapd": {"defaults": 3.0, "best": 2.0}, "long": {"defaults": 4.0, "best": 2.5}}
MEMORY_AIM, LOSS_DIFFERENCE_AIM, LOSS_FALL_AIM = 0.7, 1e-3, 0.1


def arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="machine_mindset_dpo_energy_i_e.json")
    parser.add_argument("--model", default="smollm2", help="an embedded model's name or a model folder")
    parser.add_argument("--quick", action="store_true", help="one round of each shape: a look, not a measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=1, help="batches a round, each seen four times")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peer-python", default=str(HERE / ".venv-trl/bin/python"))
    parser.add_argument("--ours", default=str(HERE / "peers/ours_dpo.py"))
    args = parser.parse_args()
    if args.quick:
        args.rounds = args.batches = 1
    return args


def commands(
    args: argparse.Namespace, model: Path, pairs: Path, adapter: Path, batch: int, *more: str
) -> dict[str, list[str]]:
    """Every arm's command line."""
    common = ["--model", str(model), "--pairs", str(pairs), "--adapter", str(adapter), "--batch", str(batch)]
    common += ["--threads", str(args.threads), *more]
    trl = [args.peer_python, str(HERE / "peers/trl_dpo.py"), *common, "--flags"]
    return {"ours": [sys.executable, args.ours, *common], "defaults": [*trl, "defaults"], "best": [*trl, "best"]}


def parity(args: argparse.Namespace, model: Path, tokenizer: Any, folder: Path) -> dict[str, Any]:
    """Ten losses in fp32 of ours and TRL's from one fresh adapter, on two batches seen five times.

    Fresh (B = 0), since the reference of a run that goes on from a trained adapter is that adapter, TRL's the base.
    """
    batch = BATCH["lapd"]
    rows = shaped_pairs(args.data, tokenizer, 2 * batch, *PARITY_SHAPE)
    more = ("--precision", "fp32", "--epochs", "5", "--lr", "2e-4")
    adapter = start_adapter(model, folder / "start")
    arms = commands(args, model, write_pairs(folder / "parity.jsonl", rows), adapter, batch, *more)
    results = run_arms({name: arms[name] for name in ("ours", "best")}, 0, args.threads)
    require_same_ids(results)
    ours, theirs = results["ours"]["losses"], results["best"]["losses"]
    # The two batches differ, so the fall is taken from the first sight of both to the last.
    return {
        "row": "parity, fp32",
        "losses": ours,
        "trl_losses": theirs,
        "largest_difference": max(abs(a - b) for a, b in zip(ours, theirs, strict=True)),
        "fall": sum(theirs[:2]) / 2 - sum(theirs[-2:]) / 2,
    }


def measure(args: argparse.Namespace, model: Path, tokenizer: Any, shape: str, folder: Path) -> list[dict[str, Any]]:
    """All rounds of one shape; one row an arm."""
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    count = args.batches * BATCH[shape]
    rows = shaped_pairs(args.data, tokenizer, count * args.rounds, *SHAPES[shape])
    adapter = start_adapter(model, folder / "start")
    rounds = []
    for turn in range(args.rounds):
        print(f"{shape}, round {turn + 1} of {args.rounds}", flush=True)
        pairs = write_pairs(folder / f"{shape}-{turn}.jsonl", rows[turn * count : (turn + 1) * count])
        arms = commands(args, model, pairs, adapter, BATCH[shape], "--epochs", str(EPOCHS))
        rounds.append(run_arms(arms, turn, args.threads))
        require_same_ids(rounds[-1])
    tokens = round(median(turn["ours"]["train"]["tokens"] / len(turn["ours"]["losses"]) for turn in rounds))
    rate = matrix_rate(layer_shapes(config), tokens, "bf16", args.threads)
    table = []
    for arm in rounds[0]:
        runs = [turn[arm] for turn in rounds]
        flops = [dpo_flops(config, RANK, run) for run in runs]
        row = {
            "row": f"{shape}, {arm}",
            "pairs_per_second": middle([run["pairs_seen"] / run["seconds"] for run in runs]),
            "peak_mb": middle([run["peak_mb"] for run in runs]),
            "loaded_mb": median(run["loaded_mb"] for run in runs),
            "tokens_per_pair": sum(run["train"]["tokens"] for run in runs) / sum(run["pairs_seen"] for run in runs),
            "machine_gflops": rate,
            "share_of_machine_rate": median(
                f / run["seconds"] / 1e9 / rate for f, run in zip(flops, runs, strict=True)
            ),
            "foreign_cpu": max(run["foreign_cpu"] or 0.0 for run in runs),
        }
        if arm != "ours":
            row["ratio"] = middle([turn[arm]["seconds"] / turn["ours"]["seconds"] for turn in rounds])
            row["memory_ratio"] = middle([turn["ours"]["peak_mb"] / turn[arm]["peak_mb"] for turn in rounds])
            row["ratio_predicted_by_flops"] = sum(flops) / sum(dpo_flops(config, RANK, t["ours"]) for t in rounds)
        table.append(row)
    return table


def show(rows: list[dict[str, Any]]) -> None:
    """Print the table for people."""
    print(f"\n{'':16}{'pairs/s':>22}{'peak MB':>9}{'ratio':>20}{'by FLOPs':>10}{'memory':>8}{'of machine rate':>17}")
    for row in rows:
        speed, ratio = row["pairs_per_second"], row.get("ratio")
        print(
            f"{row['row']:16}{speed['median']:8.2f} ({speed['low']:.2f} - {speed['high']:.2f})"
            f"{row['peak_mb']['median']:9.0f}"
            + (
                f"{ratio['median']:8.2f} ({ratio['low']:.2f} - {ratio['high']:.2f})"
                f"{row['ratio_predicted_by_flops']:10.2f}{row['memory_ratio']['median']:8.2f}"
                if ratio
                else " " * 38
            )
            + f"{row['share_of_machine_rate']:17.0%}"
        )
    print(f"\nMachine: {rows[0]['machine_gflops']:.0f} GFLOP/s on the model's bf16 matrix products\n")


def main() -> None:
    """Run the parity check and both shapes, print the table and the JSON line."""
    args = arguments()
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    from transformers import AutoTokenizer

    model = model_folder(args.model)
    tokenizer = AutoTokenizer.from_pretrained(model)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        print("parity", flush=True)
        same = parity(args, model, tokenizer, folder)
        print(f"  largest difference {same['largest_difference']:.1e}, losses fell by {same['fall']:.2f}", flush=True)
        rows = [row for shape in SHAPES for row in measure(args, model, tokenizer, shape, folder)]
    show(rows)
    ratio: dict[str, dict[str, float]] = {shape: {} for shape in SHAPES}
    memory: dict[str, dict[str, float]] = {shape: {} for shape in SHAPES}
    for row in rows:
        shape, arm = row["row"].split(", ")
        if arm != "ours":
            ratio[shape][arm], memory[shape][arm] = row["ratio"]["median"], row["memory_ratio"]["median"]
    met = (
        all(ratio[shape][arm] >= aim for shape, arms in SPEED_AIM.items() for arm, aim in arms.items())
        and all(value <= MEMORY_AIM for arms in memory.values() for value in arms.values())
        and same["largest_difference"] <= LOSS_DIFFERENCE_AIM
        and same["fall"] >= LOSS_FALL_AIM
    )
    first = ("lapd", "defaults")
    for row in rows:
        shape, arm = row["row"].split(", ")
        row["aim"] = SPEED_AIM[shape].get(arm)
    report(
        "dpo_vs_trl",
        ratio[first[0]][first[1]],
        memory[first[0]][first[1]],
        SPEED_AIM[first[0]][first[1]],
        met,
        [same, *rows],
    )


if __name__ == "__main__":
    main()
