"""personalign's DPO as a peer of `dpo_vs_trl.py` (the protocol is in protocol.py): what `personalign train dpo` runs.

.venv/bin/python bench/peers/ours_dpo.py --model DIR --pairs PAIRS.jsonl --adapter START
"""

import json
import os
import tempfile
import time
from pathlib import Path

from protocol import Result, Work, arguments, ids_hash, memory_mb


def main() -> None:
    """Train once and print the `Result`."""
    args = arguments(__doc__, ["ours"])
    os.environ.update(OMP_NUM_THREADS=str(args.threads), HF_HUB_OFFLINE="1")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PERSONALIGN_HOME"] = folder  # an empty cache: the reference pass is made, and counted
        print(json.dumps(measure(args, Path(folder))), flush=True)


def measure(args, folder: Path) -> Result:  # type: ignore[no-untyped-def]
    """Load, train as the CLI does, and say what it took."""
    import torch

    from personalign.datasets import Pair
    from personalign.models import fingerprint, load_model
    from personalign.training.examples import pair_trees
    from personalign.training.methods import Job, train_dpo
    from personalign.training.settings import DpoSettings
    from personalign.trees import Row, pack

    torch.set_num_threads(args.threads)
    model, tokenizer = load_model(args.model, precision=args.precision, device="cpu")
    rows = [json.loads(line) for line in Path(args.pairs).read_text(encoding="utf-8").splitlines()]
    pairs = [
        Pair(row["messages"], row["chosen"], row["rejected"], f"{args.pairs}:{n}") for n, row in enumerate(rows, 1)
    ]
    settings = DpoSettings(
        epochs=args.epochs,
        batch=args.batch,
        learning_rate=args.lr,
        beta=args.beta,
        schedule="constant",
        warmup=0,
        shuffle=False,
        max_length=1 << 20,
        start=args.adapter,
        checkpoint_every=1 << 20,
    )
    trees, _ = pair_trees(tokenizer, pairs, settings.max_length, "refuse")
    base = fingerprint(args.model)
    loaded, start, start_cpu = memory_mb("VmRSS"), time.perf_counter(), time.process_time()
    train_dpo(model, tokenizer, [Job("bench", pairs, [], settings, folder / "run")], base=base)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
    metrics = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]

    def work(packed: list[Row], times: int) -> Work:
        blocks = [block.end - block.start for row in packed for block in row.blocks]
        return {
            "tokens": times * sum(row.length for row in packed),
            "attention": times * sum(size * size for size in blocks),
            "scored": times * sum(len(row.target) for row in packed),
        }

    batches = [trees[at : at + args.batch] for at in range(0, len(trees), args.batch)]
    return {
        "peer": "personalign",
        "seconds": seconds,
        "reference_seconds": 0.0,  # made within train_dpo, and counted there
        "cpu_seconds": cpu_seconds,
        "pairs_seen": len(pairs) * args.epochs,
        "losses": [row["loss"] for row in metrics],
        "train": work([row for batch in batches for row in pack(batch, settings.row_tokens)], args.epochs),
        "reference": work(pack(trees, settings.row_tokens), 1),
        "recomputed": False,
        "head_products": 2,  # logits, and the derivative made beside them
        "ids_hash": ids_hash([(list(t.nodes[0].ids), list(t.nodes[1].ids), list(t.nodes[2].ids)) for t in trees]),
        "loaded_mb": loaded,
        "peak_mb": memory_mb("VmHWM"),
        "threads": torch.get_num_threads(),
    }


if __name__ == "__main__":
    main()
