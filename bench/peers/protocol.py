"""What every peer of `dpo_vs_trl.py` and `bank_vs_trl.py` takes and prints.

Only the standard library: it runs in each peer's interpreter.

A peer is a script run once for one measurement, in a process of its own:

1. It takes the arguments below, trains DPO with LoRA on the pairs *in the order of the file*, the last batch smaller
   if need be, every epoch the same order, constant learning rate, AdamW (betas .9/.999, eps 1e-8, no weight decay),
   gradients clipped to norm 1, one optimiser step a batch, loss = mean over the pairs of -log sigmoid(beta x margin),
   no dropout. The reference is the base without adapter. LoRA starts from the PEFT folder given, a fresh one (B = 0);
   its weights are fp32. Ours takes several files of pairs as well: an adapter each, in one pass; figures are sums then.
2. Precision `bf16`: base weights in bf16 and bf16 matrix products; `fp32`: everything in fp32.
3. A row of the pairs holds `messages` (the prompt as messages), `prompt` (the same, rendered with its generation
   prompt), `chosen` and `rejected` (answers without their end token). Prompt ids hold one BOS if the template has one;
   answer ids end in exactly one end token and nothing after it.
4. Nothing is truncated, saved or logged; nothing is read from an earlier run (the cached reference above all).
5. It prints exactly one JSON line of the fields of `Result` as the last line of its standard output.
"""

import argparse
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict


class Work(TypedDict):
    """What was sent through the model, summed over a whole run, padding included."""

    tokens: int  # positions through the transformer's body
    attention: int  # (query, key) positions that attention computed, masked ones included where they are computed
    scored: int  # positions through the vocabulary matrix


class Result(TypedDict):
    """One measurement. Seconds leave out start-up (imports, loading, tokenising) and count the reference pass."""

    peer: str
    seconds: float  # wall clock of training and of the reference pass
    reference_seconds: float  # of these, a reference pass made apart (0 when it runs beside every step)
    cpu_seconds: float  # processor time over the same stretch
    pairs_seen: int  # pairs x epochs
    losses: list[float]  # one a step; the mean over the adapters where several are trained
    train: Work  # forward and backward of the policy
    reference: Work  # forward of the reference
    head_products: int  # vocabulary products a scored position in training: 3 where backward recomputes logits, else 2
    recomputed: bool  # True: the backward pass repeats the body's forward (gradient checkpointing)
    ids_hash: str
    loaded_mb: float  # resident memory before training and reference pass
    peak_mb: float  # largest resident memory of the process
    threads: int


def arguments(description: str | None, flags: Sequence[str]) -> argparse.ArgumentParser:
    """The arguments that every peer takes; `flags` are the names of its own flag sets, the first the default."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="model folder (safetensors)")
    parser.add_argument("--pairs", required=True, nargs="+", help="JSONL with messages, prompt, chosen, rejected")
    parser.add_argument("--adapter", required=True, help="PEFT folder to start from")
    parser.add_argument("--flags", default=flags[0], choices=flags)
    parser.add_argument("--precision", default="bf16", choices=["bf16", "fp32"])
    parser.add_argument("--batch", type=int, default=4, help="pairs a step")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--lr", type=float, default=5e-5)
    parser.add_argument("--beta", type=float, default=0.1)
    parser.add_argument("--threads", type=int, default=2)
    return parser


def memory_mb(field: str) -> float:
    """Resident memory of this process in MB: `VmRSS` now, `VmHWM` the largest so far.

    Not `getrusage`'s `ru_maxrss`: Linux carries that over `exec`, so a child would report its parent's peak.
    """
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field + ":"))


def ids_hash(pairs: Sequence[tuple[list[int], list[int], list[int]]]) -> str:
    """SHA-256 over (prompt, chosen, rejected) ids of every pair, in order; the bench stops where peers differ in it."""
    return hashlib.sha256(json.dumps(pairs, separators=(",", ":")).encode("ascii")).hexdigest()
