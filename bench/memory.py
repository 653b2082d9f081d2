"""The estimate of training's peak memory (src/personalign/training/memory.py) against measured peaks.

    .venv/bin/python bench/memory.py           # about 15 minutes on 2 cores
    .venv/bin/python bench/memory.py --quick   # some 2 minutes

Each case trains a random model of SmolLM2-135M's shape for a few steps, in a process of its own, through the functions
that the CLI calls. On the CPU the measured peak is what the weights weigh, and the growth of the largest resident size
(VmHWM) from the loaded model on, after a tiny model was trained likewise: Python and the libraries are not in the
estimate, nor what loading leaves behind. With CUDA it is torch.cuda.max_memory_allocated. The estimate is made from the
configuration alone.

The aim: never below what was measured, and at most 1.5 times that. The last line printed is JSON: name, ratio (largest
estimate / measured), memory_ratio (largest measured / estimate), aim, met, rows.
"""

import argparse
import ctypes
import gc
import itertools
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common import report, run_json

AIM = 1.5
MODEL = {
    "hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 64,
    "intermediate_size": 1536, "vocab_size": 49152, "max_position_embeddings": 8192, "tie_word_embeddings": True,
    "pad_token_id": None, "bos_token_id": None, "eos_token_id": None,
}  # fmt: skip
SMALL = {"hidden_size": 72, "num_hidden_layers": 2, "head_dim": 8, "intermediate_size": 128, "vocab_size": 512}
STEPS = 2


def main() -> None:
    """Measure every case and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="four cases of the grid")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--case", type=json.loads, help=argparse.SUPPRESS)  # one measurement, in a process of its own
    args = parser.parse_args()
    if args.case is not None:
        print(json.dumps(measure(args.case)), flush=True)
        return
    with tempfile.TemporaryDirectory() as folder:
        make_model(Path(folder) / "model", MODEL)
        make_model(Path(folder) / "small", MODEL | SMALL)
        rows = []
        print(f"{'case':54} {'measured':>9} {'estimate':>9} {'estimate / measured':>20}")
        for case in cases(args.quick):
            command = [sys.executable, __file__, "--case", json.dumps({**case, "folder": folder})]
            environment = {"OMP_NUM_THREADS": str(args.threads), "HF_HUB_OFFLINE": "1"}
            row = {**case, **run_json(command, environment)}
            rows.append(row)
            print(
                f"{name(case):54} {row['measured_mb']:6.0f} MB {row['estimate_mb']:6.0f} MB {ratio(row):20.2f}",
                flush=True,
            )
    low, high = min(map(ratio, rows)), max(map(ratio, rows))
    report("memory", round(high, 3), round(1 / low, 3), AIM, low >= 1 and high <= AIM, rows)


def cases(quick: bool) -> list[dict[str, Any]]:
    """The grid; a quick one touches every value of every setting once."""
    if quick:
        chosen = [("sft", 256, False, "fp32"), ("dpo", 1024, True, "bf16"), ("dpo", 1024, False, "nf4")]
        return [case(*values, adapters=2 if at == 1 else 1) for at, values in enumerate(chosen)]
    grid = itertools.product(("sft", "dpo"), (256, 1024), (False, True), ("fp32", "bf16", "nf4"))
    return [case(*values) for values in grid] + [case("dpo", 1024, False, "bf16", adapters=4)]


def case(method: str, row_tokens: int, checkpointing: bool, weights: str, adapters: int = 1) -> dict[str, Any]:
    """One case; nf4 computes in bf16."""
    return {
        "method": method, "row_tokens": row_tokens, "checkpointing": checkpointing, "weights": weights,
        "adapters": adapters,
    }  # fmt: skip


def name(case: Mapping[str, Any]) -> str:
    """A case in words."""
    words = [case["method"], case["weights"], f"{case['row_tokens']} tokens"]
    words += ["checkpointing"] * case["checkpointing"] + [f"{case['adapters']} adapters"] * (case["adapters"] > 1)
    return ", ".join(words)


def ratio(row: Mapping[str, Any]) -> float:
    """Estimate / measured."""
    return float(row["estimate_mb"] / row["measured_mb"])


def make_model(folder: Path, sizes: Mapping[str, Any]) -> None:
    """A random model in bf16 and a tokenizer of bytes."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from personalign.models.stand_in import byte_tokenizer

    torch.manual_seed(0)
    config = AutoConfig.for_model("llama", **sizes)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    byte_tokenizer("chatml").save_pretrained(folder)


def measure(case: Mapping[str, Any]) -> dict[str, Any]:
    """Load, train, and say what that took and what had been estimated."""
    import torch
    from transformers import AutoConfig

    from personalign.models import load_model
    from personalign.training.budget import weight_bytes
    from personalign.training.memory import estimate, shape_of
    from personalign.training.methods import Job, train_dpo, train_sft
    from personalign.training.settings import DpoSettings, SftSettings

    kind, train = (DpoSettings, train_dpo) if case["method"] == "dpo" else (SftSettings, train_sft)
    settings = kind(
        row_tokens=case["row_tokens"],
        gradient_checkpointing=case["checkpointing"],
        batch=max(1, case["row_tokens"] // 128),
        max_steps=STEPS,
        epochs=STEPS,
        max_length=case["row_tokens"],
        ignore_memory=True,
    )
    precision, quantise = ("bf16", "nf4") if case["weights"] == "nf4" else (case["weights"], None)
    model_folder, small_folder = (str(Path(case["folder"]) / name) for name in ("model", "small"))
    cuda = torch.cuda.is_available()

    def run(name: str, model: Any, tokenizer: Any) -> None:
        rows = texts(case["method"], settings.batch)
        with tempfile.TemporaryDirectory() as folder:
            os.environ["PERSONALIGN_HOME"] = folder
            jobs = [Job(f"{n}", rows, [], settings, Path(folder) / f"{n}") for n in range(case["adapters"])]
            train(model, tokenizer, jobs, base=name)

    run("small", *load_model(small_folder, precision=precision, quantise=quantise))  # libraries take what they take
    model, tokenizer = load_model(model_folder, precision=precision, quantise=quantise)
    weights = sum(map(weight_bytes, model.parameters())) / 2**20
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    else:
        _settle(model)
    loaded = resident_mb("VmRSS")
    run("model", model, tokenizer)
    peak = torch.cuda.max_memory_allocated() / 2**20 if cuda else weights + resident_mb("VmHWM") - loaded
    parts = estimate(
        shape_of(AutoConfig.from_pretrained(model_folder)), settings, precision=precision, quantise=quantise,
        adapters=case["adapters"], longest=160, device="cuda" if cuda else "cpu",
    )  # fmt: skip
    return {
        "measured_mb": round(peak, 1),
        "estimate_mb": round(parts["peak"] / 2**20, 1),
        "weights_mb": round(weights, 1),
        "parts_mb": {part: round(size / 2**20, 1) for part, size in parts.items()},
    }


def _settle(model: Any) -> None:
    """Have all weights in memory, nothing else of loading, and the largest resident size counted from here."""
    for parameter in model.parameters():
        parameter.view(-1)[::64].float().sum()  # those in a mapped file come when they are read
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def texts(method: str, count: int) -> list[Any]:
    """Rows of a hundred to a hundred and fifty tokens (bytes), no two alike."""
    from personalign.datasets import Conversation, Pair

    prompts = [f"Number {n}: {'what now? ' * 3}" for n in range(count)]
    if method == "dpo":
        return [
            Pair([{"role": "user", "content": prompt}], f"a {n}" * 3, f"b {n}" * 3, f"row {n}")
            for n, prompt in enumerate(prompts)
        ]
    return [
        Conversation([{"role": "user", "content": prompt}, {"role": "assistant", "content": f"c {n} " * 6}], f"row {n}")
        for n, prompt in enumerate(prompts)
    ]


def resident_mb(field: str) -> float:
    """Resident memory of this process in MB: `VmRSS` now, `VmHWM` the largest since it was last reset."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field + ":"))


if __name__ == "__main__":
    main()
