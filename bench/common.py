"""Pieces that the benches share: what peers start from, interleaved runs, medians, the machine's rate, a count of FLOPs."""

import json
import os
import resource
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

Shape = tuple[int, int]  # (out, in) of a weight matrix
RANK = 16  # of every peer's adapter


def model_folder(name: str) -> Path:
    """A folder as given, or that of an embedded model."""
    if Path(name).is_dir():
        return Path(name)
    from personalign.models.embedded import embedded_folder

    return embedded_folder(name)


def start_adapter(model: Path, folder: Path) -> Path:
    """Write a fresh PEFT adapter for peers to start from: LoRA r16, alpha 32 on all seven projections, B = 0."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    lora = LoraConfig(r=RANK, lora_alpha=32, lora_dropout=0.0, target_modules=targets, task_type="CAUSAL_LM")
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32), lora)
    adapted.save_pretrained(str(folder))
    return folder


def write_pairs(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write pairs as the JSONL that peers read."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def run_arms(arms: Mapping[str, Sequence[str]], turn: int, threads: int) -> dict[str, dict[str, Any]]:
    """One round: every arm's command once, each in a process of its own; prints a line and returns the result of each."""
    results = {}
    for name in interleaved(arms, turn):
        got = results[name] = run_json(arms[name], {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"})
        print(
            f"  {name:8} {got['seconds']:7.1f} s  {got['pairs_seen'] / got['seconds']:5.2f} pairs/s  "
            f"{got['peak_mb']:6.0f} MB  loss {got['losses'][0]:.3f} -> {got['losses'][-1]:.3f}"
            + ("" if got["foreign_cpu"] is None else f"  (others used {got['foreign_cpu']:.2f} of a core)"),
            flush=True,
        )
    return results


def require_same_ids(results: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise SystemExit if the arms did not train on the same token ids."""
    if len({result["ids_hash"] for result in results.values()}) > 1:
        raise SystemExit("The peers trained on different token ids: nothing to compare.")


def run_json(command: Sequence[str], environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Run a command in its own process and return the JSON object on the last line of its standard output.

    Adds `wall_seconds`, and `foreign_cpu`: processor-seconds that *other* processes used meanwhile, per wall second
    (None off Linux).
    Raises RuntimeError with the end of its standard error if it fails.
    """
    busy, own, start = _busy_seconds(), _children_seconds(), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(environment or {})})
    wall = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} exited {done.returncode}:\n{done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    after = _busy_seconds()
    foreign = None if busy is None or after is None else after - busy - (_children_seconds() - own)
    return result | {"wall_seconds": wall, "foreign_cpu": None if foreign is None else max(0.0, foreign) / wall}


def _busy_seconds() -> float | None:
    """Processor-seconds the whole machine has spent on work since it started (None without /proc)."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return None
    user, nice, system = map(int, stat.read_text(encoding="ascii").split()[1:4])
    return (user + nice + system) / os.sysconf("SC_CLK_TCK")


def _children_seconds() -> float:
    """Processor-seconds of this process's finished children."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def interleaved(arms: Mapping[str, Sequence[str]], turn: int) -> list[str]:
    """The names of the arms in the order of round `turn`: rotated, so that no arm always runs first or last."""
    names = list(arms)
    return names[turn % len(names) :] + names[: turn % len(names)]


def middle(values: Sequence[float]) -> dict[str, float]:
    """Median and range of repeated measurements."""
    return {"median": median(values), "low": min(values), "high": max(values)}


def matrix_rate(shapes: Sequence[Shape], tokens: int, precision: str, threads: int, repeats: int = 7) -> float:
    """The machine's rate on a model's own matrix products, in GFLOP/s (median of `repeats` passes after a warm-up).

    A pass multiplies [tokens, in] by each weight of `shapes` and the gradient [tokens, out] back through it, as a
    frozen layer does in training. `precision` is "bf16" or "fp32".
    """
    import torch

    torch.set_num_threads(threads)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    products = []
    for out, width in shapes:
        weight = torch.randn(out, width, dtype=dtype)
        products += [
            (torch.randn(tokens, width, dtype=dtype), weight.t()),
            (torch.randn(tokens, out, dtype=dtype), weight),
        ]
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        for left, right in products:
            left @ right
        seconds.append(time.perf_counter() - start)
    flops = sum(2 * tokens * left.shape[1] * right.shape[1] for left, right in products)
    return flops / median(seconds[1:]) / 1e9


def layer_shapes(config: Mapping[str, Any]) -> list[Shape]:
    """Weight matrices (out, in) of a llama-like decoder layer, from its config.json: q, k, v, o, gate, up, down."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    head = config.get("head_dim") or hidden // config["num_attention_heads"]
    queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    attention = [(queries, hidden), (keys, hidden), (keys, hidden), (hidden, queries)]
    return [*attention, (inner, hidden), (inner, hidden), (hidden, inner)]


def dpo_flops(config: Mapping[str, Any], rank: int, result: Mapping[str, Any]) -> float:
    """FLOPs of a DPO run with LoRA on all seven projections, from the `Work` it counted (peers/protocol.py).

    With N weights in the layers' matrices, A in their adapters, two FLOPs a multiply-add (Kaplan et al. 2020, section
    2.1): the forward costs 2(N + A) a token; the backward 2N + 4A, since frozen weights need no weight gradient.
    Attention costs 4 x width a (query, key) pair and layer forward, and 2.5 times that backward (flash attention
    recomputes the scores). A scored position costs 2 x hidden x vocabulary as often as the run says (`head_products`:
    forward, gradient, and the logits once more where the backward recomputes them). Gradient checkpointing adds one
    forward of the body; the reference is a forward without adapters. Norms, softmax, optimiser and memory traffic are
    not counted.
    """
    shapes, layers = layer_shapes(config), config["num_hidden_layers"]
    weights = layers * sum(out * width for out, width in shapes)
    adapters = layers * rank * sum(out + width for out, width in shapes)
    attention = 4 * layers * shapes[0][0]
    head = 2 * config["hidden_size"] * config["vocab_size"]
    train, reference = result["train"], result["reference"]
    forward = 2 * (weights + adapters) * train["tokens"] + attention * train["attention"]
    backward = (2 * weights + 4 * adapters) * train["tokens"] + 2.5 * attention * train["attention"]
    policy = forward * (2 if result["recomputed"] else 1) + backward + result["head_products"] * head * train["scored"]
    base = 2 * weights * reference["tokens"] + attention * reference["attention"] + head * reference["scored"]
    return policy + base


def report(
    name: str, ratio: float, memory_ratio: float, aim: float, met: bool, rows: Sequence[Mapping[str, Any]]
) -> None:
    """Print a bench's final JSON line: the issue's first shape on top, everything else in `rows`."""
    line = {"name": name, "ratio": ratio, "memory_ratio": memory_ratio, "aim": aim, "met": met, "rows": list(rows)}
    print(json.dumps(line, ensure_ascii=False), flush=True)
