"""A run does what is not done yet, and nothing else."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from personalign import pipeline
from personalign import recipe as recipes
from personalign.cache import Stage, made
from personalign.errors import UserError
from personalign.files import write_whole
from personalign.recipe import Recipe
from personalign.stages import STAGES


def recipe_for(folder: Path, **parts) -> Recipe:
    return recipes.build({"name": "test", "persona": "ENFP", "output": str(folder), **parts})


class Kitchen:
    """Three stages that write what they were given and remember that they were called."""

    def __init__(self):
        self.called = []
        self.interrupted_at = None

    def stage(self, name, inputs) -> Stage:
        def make(recipe, folder):
            self.called.append(name)
            if name == self.interrupted_at:
                raise KeyboardInterrupt
            write_whole(folder / name / "out.txt", json.dumps(inputs(recipe, folder)))

        return Stage(inputs, make, (name,))

    def stages(self) -> dict[str, Stage]:
        return {
            "data": self.stage("data", lambda recipe, folder: {"limit": recipe.data.limit}),
            "train": self.stage("train", lambda recipe, folder: made(folder, "data") | {"beta": recipe.train.beta}),
            "report": self.stage("report", lambda recipe, folder: made(folder, "train")),
        }

    def run(self, recipe: Recipe) -> list[str]:
        self.called = []
        pipeline.run(recipe, self.stages())
        return self.called


@pytest.fixture
def kitchen() -> Kitchen:
    return Kitchen()


def test_a_second_run_does_nothing(tmp_path, kitchen, capsys):
    recipe = recipe_for(tmp_path / "run")
    assert kitchen.run(recipe) == ["data", "train", "report"]
    assert kitchen.run(recipe) == []
    assert capsys.readouterr().err.count("done before") == 3


def test_a_changed_setting_runs_its_stage_and_those_after_it(tmp_path, kitchen, capsys):
    kitchen.run(recipe_for(tmp_path / "run"))
    capsys.readouterr()
    assert kitchen.run(recipe_for(tmp_path / "run", train={"method": "dpo", "beta": 0.3})) == ["train", "report"]
    assert "starts again (beta changed)" in capsys.readouterr().err
    assert kitchen.run(recipe_for(tmp_path / "run", train={"method": "dpo", "beta": 0.3}, data={"limit": 5})) == [
        "data", "train", "report"
    ]  # fmt: skip


def test_an_output_that_is_no_longer_as_it_was_left_is_made_again(tmp_path, kitchen):
    recipe = recipe_for(tmp_path / "run")
    kitchen.run(recipe)
    (tmp_path / "run" / "train" / "out.txt").write_text("by hand", encoding="utf-8")
    assert kitchen.run(recipe) == ["train"]
    (tmp_path / "run" / "report" / "out.txt").unlink()
    assert kitchen.run(recipe) == ["report"]


def test_an_interrupted_stage_is_called_again_and_the_ones_before_are_not(tmp_path, kitchen):
    kitchen.interrupted_at = "train"
    with pytest.raises(KeyboardInterrupt):
        kitchen.run(recipe_for(tmp_path / "run"))
    kitchen.interrupted_at = None
    assert kitchen.run(recipe_for(tmp_path / "run")) == ["train", "report"]


def test_the_run_folder_holds_recipe_versions_and_seed(tmp_path, kitchen):
    recipe = recipe_for(tmp_path / "run", seed=7)
    kitchen.run(recipe)
    assert recipes.load(tmp_path / "run" / "recipe.yaml") == recipe
    versions = json.loads((tmp_path / "run" / "versions.json").read_text(encoding="utf-8"))
    assert versions["seed"] == 7 and versions["torch"]


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path, kitchen):
    (tmp_path / "thesis.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(UserError, match="no run of personalign"):
        kitchen.run(recipe_for(tmp_path))


def test_a_folder_that_cannot_be_written_is_refused_plainly(tmp_path, kitchen):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="cannot be written"):
        kitchen.run(recipe_for(tmp_path / "file" / "run"))


def test_a_missing_data_file_is_named(tmp_path):
    with pytest.raises(UserError, match="data.source: nowhere.jsonl"):
        pipeline.run(recipe_for(tmp_path / "run", data={"source": "nowhere.jsonl"}))


def test_held_out_rows_of_a_file_are_the_same_whatever_is_trained_on(tmp_path):
    rows = [{"prompt": f"question {n}", "chosen": f"yes {n}", "rejected": f"no {n}"} for n in range(30)]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    parts = {}
    for limit in (None, 4):
        folder = tmp_path / f"run-{limit}"
        pipeline.run(
            recipe_for(folder, data={"source": str(path), "limit": limit, "held_out": 0.2}), {"data": STAGES["data"]}
        )
        parts[limit] = [
            (folder / "data" / f"{part}.jsonl").read_text(encoding="utf-8").splitlines()
            for part in ("train", "held_out")
        ]
    assert [len(part) for part in parts[None]] == [24, 6]
    assert parts[4][1] == parts[None][1]
    assert len(parts[4][0]) == 4 and set(parts[4][0]) < set(parts[None][0])


SMALL = {"data": {"limit": 8}, "evaluate": {"share": 0.05, "pairs": 2, "answers": 1}}


def test_the_whole_way_on_a_tiny_model(tmp_path, tiny_folder, monkeypatch, capsys):
    monkeypatch.setenv("PERSONALIGN_HOME", str(tmp_path / "home"))
    recipe = recipe_for(tmp_path / "run", model=str(tiny_folder), **SMALL)
    folder = pipeline.run(recipe)
    pipeline.show(recipe)
    shown = capsys.readouterr().out
    summary = json.loads((folder / "evaluation" / "summary.json").read_text(encoding="utf-8"))

    assert [arm["name"] for arm in summary["arms"]] == ["base", "prompted", "adapter", "adapter+prompt"]
    assert summary["training"]["method"] == "dpo" and summary["training"]["pairs"] == 8
    assert len(summary["answers"]) == 1 and len(summary["answers"][0]["answers"]) == 4
    assert (folder / "train" / "adapter" / "adapter_model.safetensors").is_file()
    assert "<html" in (folder / "report.html").read_text(encoding="utf-8")
    assert summary["answers"][0]["prompt"][:20] in shown and str(folder / "report.html") in shown

    assert pipeline.run(recipe) == folder
    assert capsys.readouterr().err.count("done before") == 5


def test_sft_learns_the_chosen_answers_of_the_same_pairs(tmp_path, tiny_folder, monkeypatch):
    monkeypatch.setenv("PERSONALIGN_HOME", str(tmp_path / "home"))
    recipe = recipe_for(
        tmp_path / "run", model=str(tiny_folder), train={"method": "sft"}, data={"limit": 8}, evaluate=None
    )
    folder = pipeline.run(recipe)
    rows = [json.loads(line) for line in (folder / "train" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert rows and "margin" not in rows[0]
    assert not (folder / "evaluation").exists()


def test_training_stopped_by_ctrl_c_continues_with_the_same_command(tmp_path, tiny_folder):
    run = tmp_path / "run"
    words = f"train dpo --model {tiny_folder} --persona ENFP --limit 8 --epochs 25 --evaluate-every 999"
    command = [sys.executable, "-m", "personalign", *words.split(), "--output", str(run)]
    environment = os.environ | {"PERSONALIGN_HOME": str(tmp_path / "home")}
    metrics = run / "train" / "metrics.jsonl"

    first = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    while first.poll() is None and not (metrics.is_file() and metrics.read_text(encoding="utf-8").count("\n") > 3):
        time.sleep(0.02)
    first.send_signal(signal.SIGINT)
    assert "the same command goes on from where it was" in first.communicate(timeout=60)[1]
    assert first.returncode == 130 and not (run / "train" / "adapter").exists()

    again = subprocess.run(command, env=environment, capture_output=True, text=True)
    steps = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    assert again.returncode == 0 and str(run / "train" / "adapter") in again.stdout
    assert [row["step"] for row in steps if row["split"] == "train"] == list(range(1, 26))


def test_a_model_without_weights_is_refused(tmp_path, tiny_folder):
    empty = tmp_path / "model"
    empty.mkdir()
    (empty / "config.json").write_bytes((tiny_folder / "config.json").read_bytes())
    with pytest.raises(UserError, match="no weights"):
        pipeline.run(recipe_for(tmp_path / "run", model=str(empty), **SMALL))


def test_the_pipeline_itself_needs_no_torch():
    code = (
        "import sys, personalign.pipeline; print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
