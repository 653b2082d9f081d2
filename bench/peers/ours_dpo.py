"""personalign's DPO as a peer (the protocol is in protocol.py): what `personalign train dpo` runs.

    .venv/bin/python bench/peers/ours_dpo.py --model DIR --pairs PAIRS.jsonl --adapter START
    .venv/bin/python bench/peers/ours_dpo.py --model DIR --pairs ENTJ.jsonl ENTP.jsonl ... --adapter START

Several files of pairs are several adapters, all trained in one pass.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from protocol import Result, Work, arguments, ids_hash, memory_mb


def main() -> None:
    """Train once and print the `Result`."""
    parser = arguments(__doc__, ["ours"])
    parser.add_argument("--optimizer", default="adamw", choices=["adamw", "sgd"])
    parser.add_argument("--row-tokens", type=int, help="tokens in one forward pass (personalign's default)")
    parser.add_argument(
        "--keep", type=Path, help="folder for the runs, each by its file's name; otherwise they are dropped"
    )
    args = parser.parse_args()
    os.environ.update(OMP_NUM_THREADS=str(args.threads), HF_HUB_OFFLINE="1")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PERSONALIGN_HOME"] = folder  # an empty cache: the reference pass is made, and counted
        print(json.dumps(measure(args, args.keep or Path(folder))), flush=True)


def measure(args: argparse.Namespace, folder: Path) -> Result:
    """Load, train as the CLI does, and say what it took."""
    import torch

    from personalign.datasets import Pair
    from personalign.models import fingerprint, load_model
    from personalign.training import methods
    from personalign.training.examples import pair_trees
    from personalign.training.methods import Job, train_dpo
    from personalign.training.settings import DpoSettings
    from personalign.trees import Tree, pack

    torch.set_num_threads(args.threads)
    model, tokenizer = load_model(args.model, precision=args.precision, device="cpu")
    settings = DpoSettings(
        epochs=args.epochs,
        batch=args.batch,
        learning_rate=args.lr,
        beta=args.beta,
        optimizer=args.optimizer,
        schedule="constant",
        warmup=0,
        shuffle=False,
        max_length=1 << 20,
        start=args.adapter,
        checkpoint_every=1 << 20,
    )
    if args.row_tokens:
        settings = settings.model_copy(update={"row_tokens": args.row_tokens})
    jobs, datasets = [], []
    for path in map(Path, args.pairs):
        lines = path.read_text(encoding="utf-8").splitlines()
        pairs = [
            Pair(row["messages"], row["chosen"], row["rejected"], f"{path}:{n}")
            for n, row in enumerate(map(json.loads, lines), 1)
        ]
        jobs.append(Job(path.stem, pairs, [], settings, folder / path.stem))
        datasets.append(pair_trees(tokenizer, pairs, settings.max_length, "refuse")[0])
    base = fingerprint(args.model)
    # what is left out is tokenising and the making of adapters, which TRL's trainer does before it trains
    reference, training = Stopwatch(methods.reference_sums), Stopwatch(methods.train)
    methods.reference_sums, methods.train = reference, training  # type: ignore[assignment]
    loaded = memory_mb("VmRSS")
    train_dpo(model, tokenizer, jobs, base=base)
    peak = memory_mb("VmHWM")

    def work(batches: Sequence[Sequence[Tree]], times: int) -> Work:
        rows = [row for batch in batches for row in pack(batch, settings.row_tokens)]
        blocks = [block.end - block.start for row in rows for block in row.blocks]
        return {
            "tokens": times * sum(row.length for row in rows),
            "attention": times * sum(size * size for size in blocks),
            "scored": times * sum(len(row.target) for row in rows),
        }

    every = [tree for trees in datasets for tree in trees]
    batches = [trees[at : at + args.batch] for trees in datasets for at in range(0, len(trees), args.batch)]
    curves = [_losses(job.folder / "metrics.jsonl") for job in jobs]
    return {
        "peer": "personalign",
        "seconds": reference.seconds + training.seconds,
        "reference_seconds": reference.seconds,
        "cpu_seconds": reference.cpu_seconds + training.cpu_seconds,
        "pairs_seen": len(every) * args.epochs,
        "losses": [fmean(step) for step in zip(*curves, strict=True)],
        "train": work(batches, args.epochs),
        "reference": work([_once(every)], 1),
        "recomputed": False,
        "head_products": 2,  # logits, and the derivative made beside them
        "ids_hash": ids_hash([(list(t.nodes[0].ids), list(t.nodes[1].ids), list(t.nodes[2].ids)) for t in every]),
        "loaded_mb": loaded,
        "peak_mb": peak,
        "threads": torch.get_num_threads(),
    }


class Stopwatch:
    """A function, and the wall-clock and processor time spent in it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.seconds, self.cpu_seconds = function, 0.0, 0.0

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        start, start_cpu = time.perf_counter(), time.process_time()
        result = self.function(*arguments, **keywords)
        self.seconds += time.perf_counter() - start
        self.cpu_seconds += time.process_time() - start_cpu
        return result


def _losses(metrics: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in metrics.read_text(encoding="utf-8").splitlines()]


def _once(trees: Sequence[Any]) -> list[Any]:
    """The trees that the reference pass scores: every prompt once, and under it every answer of any adapter once."""
    from personalign.trees import prompt_with_answers

    answers: dict[tuple[int, ...], dict[tuple[int, ...], None]] = {}
    for tree in trees:
        prompt, chosen, rejected = (tuple(node.ids) for node in tree.nodes)
        answers.setdefault(prompt, {}).update({chosen: None, rejected: None})
    return [prompt_with_answers(prompt, found) for prompt, found in answers.items()]


if __name__ == "__main__":
    main()
