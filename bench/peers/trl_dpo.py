"""TRL's DPOTrainer as a peer of `dpo_vs_trl.py` (the protocol is in protocol.py). Needs TRL's own environment.

    bench/.venv-trl/bin/python bench/peers/trl_dpo.py --model DIR --pairs PAIRS.jsonl --adapter START --flags best

Flags:
    defaults   DPOConfig's defaults (gradient checkpointing, bf16 autocast, the reference run beside every step) with
               the base weights in the precision of the comparison.
    shipped    the same with the base weights in fp32, which is what TRL loads when `model` is a string.
    best       what is fastest on a CPU with the same work done: no gradient checkpointing, reference
               log-probabilities precomputed, base weights in the precision of the comparison.
Left out: grouping by length (another order), `padding_free` (TRL 1.16 warns and pads), `bf16=False` on bf16 weights
(slower), Liger and hub kernels (Triton only), `torch_compile`.
"""

import json
import os
import time
from pathlib import Path
from typing import Any

from protocol import Result, Work, arguments, ids_hash, memory_mb


def flag_set(flags: str, precision: str) -> dict[str, Any]:
    """The DPOConfig fields in which the flag sets differ."""
    settings: dict[str, Any] = {"bf16": precision == "bf16"}
    if flags != "shipped":
        settings["model_init_kwargs"] = {"dtype": "bfloat16" if precision == "bf16" else "float32"}
    if flags == "best":
        settings |= {"gradient_checkpointing": False, "precompute_ref_log_probs": True}
    return settings


def add_work(work: Work, input_ids: Any) -> None:
    """Count one padded batch of ids [rows, length]: on a CPU TRL's attention and vocabulary head see every position."""
    rows, length = input_ids.shape
    work["tokens"] += rows * length
    work["attention"] += rows * length * length
    work["scored"] += rows * (length - 1)


def main() -> None:
    """Train once and print the `Result`."""
    args = arguments(__doc__, ["defaults", "shipped", "best"]).parse_args()
    (pairs_file,) = args.pairs
    os.environ.update(OMP_NUM_THREADS=str(args.threads), HF_HUB_OFFLINE="1", TQDM_DISABLE="1")
    import torch
    import trl
    from datasets import Dataset, disable_progress_bars
    from peft import PeftConfig, load_peft_weights, set_peft_model_state_dict
    from transformers import AutoTokenizer

    torch.set_num_threads(args.threads)
    disable_progress_bars()

    class MeasuredDPOTrainer(trl.DPOTrainer):
        """DPOTrainer that keeps each step's loss, counts the work and times a reference pass made apart."""

        def __init__(self, *arguments: Any, **keywords: Any) -> None:
            self.losses: list[torch.Tensor] = []
            self.train_work: Work = {"tokens": 0, "attention": 0, "scored": 0}
            self.reference_work: Work = {"tokens": 0, "attention": 0, "scored": 0}
            self.reference_seconds = self.reference_cpu_seconds = self.loaded_mb = 0.0
            super().__init__(*arguments, **keywords)
            self.loaded_mb = self.loaded_mb or memory_mb("VmRSS")

        def compute_loss(self, model: Any, inputs: Any, *arguments: Any, **keywords: Any) -> Any:
            loss = super().compute_loss(model, inputs, *arguments, **keywords)
            self.losses.append(loss.detach())
            add_work(self.train_work, inputs["input_ids"])
            if not self.precompute_ref_logps:
                add_work(self.reference_work, inputs["input_ids"])
            return loss

        def compute_ref_log_probs(self, model: Any, inputs: Any) -> Any:
            add_work(self.reference_work, inputs["input_ids"])
            return super().compute_ref_log_probs(model, inputs)

        def _precompute_ref_logps(self, *arguments: Any, **keywords: Any) -> Any:
            self.loaded_mb = memory_mb("VmRSS")
            start, start_cpu = time.perf_counter(), time.process_time()
            dataset = super()._precompute_ref_logps(*arguments, **keywords)
            self.reference_seconds = time.perf_counter() - start
            self.reference_cpu_seconds = time.process_time() - start_cpu
            return dataset

    # `messages` is left out: a column of that name would make TRL render the pairs itself, and end them in "\n".
    lines = Path(pairs_file).read_text(encoding="utf-8").splitlines()
    rows = [{key: row[key] for key in ("prompt", "chosen", "rejected")} for row in map(json.loads, lines)]
    config = trl.DPOConfig(
        output_dir=str(Path(pairs_file).parent / "trl-output"),
        use_cpu=True,
        per_device_train_batch_size=args.batch,
        gradient_accumulation_steps=1,
        num_train_epochs=args.epochs,
        learning_rate=args.lr,
        lr_scheduler_type="constant",
        weight_decay=0.0,
        max_grad_norm=1.0,
        beta=args.beta,
        max_length=None,
        train_sampling_strategy="sequential",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        **flag_set(args.flags, args.precision),
    )
    # Given `peft_config`, TRL's reference is the base with the adapter off. Given a PeftModel it would be a frozen
    # copy of the adapter. So TRL makes the adapter and the start weights are put into it.
    peft_config = PeftConfig.from_pretrained(args.adapter)
    peft_config.inference_mode = False
    trainer = MeasuredDPOTrainer(
        model=args.model,
        args=config,
        train_dataset=Dataset.from_list(rows),  # in memory, so that no reference pass is found on disk
        processing_class=AutoTokenizer.from_pretrained(args.model),
        peft_config=peft_config,
    )
    outcome: Any = set_peft_model_state_dict(trainer.model, load_peft_weights(args.adapter, device="cpu"))
    if outcome.unexpected_keys:
        raise SystemExit(f"{args.adapter} does not fit {args.model}: {outcome.unexpected_keys[:3]}")
    pairs = [
        (list(row["prompt_ids"]), list(row["chosen_ids"]), list(row["rejected_ids"])) for row in trainer.train_dataset
    ]

    start, start_cpu = time.perf_counter(), time.process_time()
    trainer.train()
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu

    result: Result = {
        "peer": f"trl {trl.__version__} {args.flags}",
        "seconds": seconds + trainer.reference_seconds,
        "reference_seconds": trainer.reference_seconds,
        "cpu_seconds": cpu_seconds + trainer.reference_cpu_seconds,
        "pairs_seen": len(rows) * args.epochs,
        "losses": [loss.item() for loss in trainer.losses],
        "train": trainer.train_work,
        "reference": trainer.reference_work,
        "head_products": 3,
        "recomputed": config.gradient_checkpointing,
        "ids_hash": ids_hash(pairs),
        "loaded_mb": trainer.loaded_mb,
        "peak_mb": memory_mb("VmHWM"),
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
