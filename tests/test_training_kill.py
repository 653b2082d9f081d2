"""A training process that is really killed (SIGKILL at random moments) or interrupted (SIGINT), and started again."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import torch
torch.set_num_threads(1)
from test_training import dpo, pairs, settings
from personalign.training import loop
import time
plain = loop.gradient_step
def slow(*arguments):
    time.sleep(0.05)
    return plain(*arguments)
loop.gradient_step = slow
print("ready", flush=True)
dpo(Path(sys.argv[1]), settings(epochs=12, batch=2, dropout=0.2), data=pairs(9))
"""


def start(folder: Path, home: Path) -> "subprocess.Popen[str]":
    script = SCRIPT.format(tests=str(Path(__file__).parent))
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PERSONALIGN_HOME": str(home), "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def test_killed_at_random_moments_it_ends_in_the_same_bytes(tmp_path: Path) -> None:
    whole = start(tmp_path / "whole", tmp_path / "home-1")
    assert whole.wait(120) == 0
    rng, kills = random.Random(5), 0
    while True:
        process = start(tmp_path / "cut", tmp_path / "home-2")
        try:
            assert process.wait(rng.uniform(0.3, 1.0) if kills < 3 else 120) == 0
            break
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
    assert kills == 3
    adapter = Path("adapter") / "adapter_model.safetensors"
    assert (tmp_path / "cut" / adapter).read_bytes() == (tmp_path / "whole" / adapter).read_bytes()


def test_ctrl_c_ends_the_step_writes_a_checkpoint_and_the_rerun_goes_on(tmp_path: Path) -> None:
    process = start(tmp_path / "run", tmp_path / "home")
    metrics = tmp_path / "run" / "metrics.jsonl"
    while not metrics.is_file() or len(metrics.read_text(encoding="utf-8").splitlines()) < 5:
        time.sleep(0.05)
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0 and "KeyboardInterrupt" in errors
    assert list((tmp_path / "run").glob("checkpoint-*"))
    steps = len(metrics.read_text(encoding="utf-8").splitlines())
    again = start(tmp_path / "run", tmp_path / "home")
    assert again.wait(120) == 0
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").is_file()
    assert len(metrics.read_text(encoding="utf-8").splitlines()) == 60 >= steps
