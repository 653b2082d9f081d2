"""Peak memory of PPO against that of SFT at the same batch tokens, and our rollouts against transformers' `generate`.

    .venv/bin/python bench/ppo_memory.py           # about ten minutes on 2 cores
    .venv/bin/python bench/ppo_memory.py --quick   # about four

PPO has all four roles as adapters (policy, reference, reward, value; LoRA r16 each) on one bf16 base; SFT trains one such
adapter. An optimiser step has as many tokens in both, and no forward pass of SFT holds more than PPO's fullest: SFT gets
its sizes from what PPO was seen to have. Each run is a process of its own; memory is its largest resident size, sampling
and its key-value cache included. Aim: PPO's peak at most 1.25 times SFT's, so `ratio` (SFT's over PPO's) at least 0.8.

Rollouts: tokens (end tokens included, padding not) a second of several answers to each prompt, by our `rollouts` and by
`generate` with num_return_sequences on left-padded prompts: the same model and adapter, the same prompts, temperature 1,
the whole distribution; in turns. Run it on an idle machine. The last line printed is JSON: name, ratio, memory_ratio,
aim, met, rows.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import middle, model_folder, report, run_json

HERE = Path(__file__).parent
MEMORY_AIM = 1.25


def arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2", help="an embedded model's name or a model folder")
    parser.add_argument("--quick", action="store_true", help="one round: a look, not a measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompts", type=int, default=8, help="to an iteration")
    parser.add_argument("--answers", type=int, default=4, help="to a prompt")
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    if args.quick:
        args.rounds = 1
    return args


def main() -> None:
    """Run the rounds, print the table and the JSON line."""
    args = arguments()
    model = model_folder(args.model)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        peer = [sys.executable, str(HERE / "peers/ours_rlhf.py")]
        common = ["--model", str(model), "--threads", str(args.threads), "--prompts", str(args.prompts)]
        common += ["--answers", str(args.answers), "--new-tokens", str(args.new_tokens)]
        environment = {"OMP_NUM_THREADS": str(args.threads)}

        def run(what: str, *more: str) -> dict[str, Any]:
            return run_json([*peer, what, *common, *more], environment)

        rounds = []
        for turn in range(args.rounds):
            here = ["--folder", str(folder / str(turn))]
            run("start", *here)
            ppo = run("ppo", *here)
            sizes = ["--step-tokens", str(ppo["step_tokens"]), "--row-tokens", str(ppo["fullest_pass"])]
            sft = run("sft", *here, "--steps", "4", *sizes)
            sampled = run("sample", *here)
            rounds.append({"sft": sft, "ppo": ppo, "sample": sampled})
            print(f"round {turn + 1} of {args.rounds}", flush=True)
            for name in ("sft", "ppo"):
                print(line(name, rounds[-1][name]), flush=True)
    rows = [memory_row(name, [turn[name] for turn in rounds]) for name in ("sft", "ppo")]
    ratio = middle([turn["sft"]["peak_mb"] / turn["ppo"]["peak_mb"] for turn in rounds])
    memory = middle([turn["ppo"]["peak_mb"] / turn["sft"]["peak_mb"] for turn in rounds])
    rows[1]["memory_ratio"] = memory
    rollouts = rollout_row([turn["sample"] for turn in rounds])
    print(
        f"\nPPO's peak over SFT's: {memory['median']:.2f} ({memory['low']:.2f} - {memory['high']:.2f}), aim at most "
        f"{MEMORY_AIM}\nrollouts: {rollouts['ours']['median']:.0f} tokens/s, generate {rollouts['generate']['median']:.0f}; "
        f"ratio {rollouts['ratio']['median']:.2f} ({rollouts['ratio']['low']:.2f} - {rollouts['ratio']['high']:.2f})\n"
    )
    aim = 1 / MEMORY_AIM
    report("ppo_memory", ratio["median"], memory["median"], aim, ratio["median"] >= aim, [*rows, rollouts])


def line(name: str, run: dict[str, Any]) -> str:
    """One measurement for people."""
    foreign = "" if run["foreign_cpu"] is None else f"  (others used {run['foreign_cpu']:.2f} of a core)"
    return (
        f"  {name:4} {run['peak_mb']:6.0f} MB of which {run['loaded_mb']:.0f} before training, {run['step_tokens']} tokens "
        f"a step, fullest pass {run['fullest_pass']}, {run['seconds']:.0f} s{foreign}"
    )


def memory_row(name: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """All rounds of one method."""
    keys = ("peak_mb", "loaded_mb", "step_tokens", "fullest_pass", "seconds")
    return {"row": name, **{key: middle([run[key] for run in runs]) for key in keys}}


def rollout_row(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Tokens a second of both, and the ratio, over every batch of prompts."""
    speeds = {
        name: [tokens / seconds for run in runs for tokens, seconds in run[name]] for name in ("ours", "generate")
    }
    ratios = [a / b for a, b in zip(speeds["ours"], speeds["generate"], strict=True)]
    return {
        "row": "rollout, tokens/s",
        **{name: middle(values) for name, values in speeds.items()},
        "tokens": {name: sum(tokens for run in runs for tokens, _ in run[name]) for name in speeds},
        "ratio": middle(ratios),
        "foreign_cpu": max(run["foreign_cpu"] or 0.0 for run in runs),
    }


if __name__ == "__main__":
    main()
