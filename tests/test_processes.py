"""Two processes under `accelerate launch` (gloo, on the CPU): DDP and FSDP end in the single process's weights."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from test_bank import adapter, furthest, jobs, losses, train

SCRIPT = """
import os, sys
sys.path.insert(0, {tests!r})
import torch
torch.set_num_threads(1)
from pathlib import Path
from personalign.cli import _end
from personalign.errors import UserError
from personalign.training import loop, parallel
from test_bank import jobs, train, CHANGES

fault = os.environ.get("FAULT")
if fault == "forgets to add":
    parallel.Processes.add_gradients = lambda self, parameters: None
if fault == "dies":
    plain = loop.gradient_step
    def dying(model, learners, processes):
        if learners[0].step == 4 and processes.index == 1:
            os._exit(9)
        return plain(model, learners, processes)
    loop.gradient_step = dying
shard = parallel._shard
def told(model):
    shard(model)
    weight = model.get_base_model().model.layers[0].mlp.up_proj.base_layer.weight
    print("SHARDED", weight.to_local().shape[0], "of", weight.shape[0], flush=True)
parallel._shard = told
try:
    train(jobs(Path(sys.argv[1]), **CHANGES))
except UserError as error:
    sys.exit(_end(2, str(error)))
"""
LAUNCH = {
    "ddp": ["--multi_gpu"],
    "fsdp": ["--use_fsdp", "--fsdp_version", "2"],
}


def launch(how: str, folder: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    script = folder.with_suffix(".py")
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parent)), encoding="utf-8")
    command = [sys.executable, "-m", "accelerate.commands.launch", *LAUNCH[how], "--num_processes", "2"]
    command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    own = {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [*command, str(script), str(folder)], capture_output=True, text=True, env={**os.environ, **own, **environment}
    )


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from test_bank import CHANGES

    folder = tmp_path_factory.mktemp("single")
    train(jobs(folder, **CHANGES))
    return folder


@pytest.mark.parametrize("how", list(LAUNCH))
def test_two_processes_end_in_the_weights_of_one(tmp_path: Path, single: Path, how: str) -> None:
    done = launch(how, tmp_path / "two")
    assert done.returncode == 0, done.stderr[-2000:]
    assert ("SHARDED 32 of 64" in done.stdout) == (how == "fsdp")
    for ours, theirs in zip(jobs(tmp_path / "two"), jobs(single), strict=True):
        assert furthest(adapter(ours), adapter(theirs)) < 1e-5
        assert losses(ours) == pytest.approx(losses(theirs), abs=1e-5)
        assert losses(ours, "held_out") == pytest.approx(losses(theirs, "held_out"), abs=1e-5)


def test_gradients_that_are_not_added_up_would_be_noticed(tmp_path: Path, single: Path) -> None:
    assert launch("ddp", tmp_path / "two", FAULT="forgets to add").returncode == 0
    assert (
        max(furthest(adapter(a), adapter(b)) for a, b in zip(jobs(tmp_path / "two"), jobs(single), strict=True)) > 1e-3
    )


def test_one_of_two_killed_ends_the_other_plainly_and_the_run_goes_on_from_its_checkpoint(
    tmp_path: Path, single: Path
) -> None:
    from test_bank import CHANGES

    done = launch("ddp", tmp_path / "two", FAULT="dies")
    assert done.returncode != 0
    assert all(list(job.folder.glob("checkpoint-*")) for job in jobs(tmp_path / "two"))
    train(jobs(tmp_path / "two", **CHANGES))  # by one process this time
    for ours, theirs in zip(jobs(tmp_path / "two"), jobs(single), strict=True):
        assert furthest(adapter(ours), adapter(theirs)) < 1e-5
        assert len(losses(ours)) == 8
