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
from personalign.datasets.records import opening
from personalign.errors import UserError
from personalign.files import write_whole
from personalign.recipe import Recipe
from personalign.rows import read_rows
from personalign.runs import adapter_folder, reward_folder
from personalign.stages import stages


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
        recipe = recipe_for(folder, data={"source": str(path), "limit": limit, "held_out": 0.2})
        pipeline.run(recipe, {"data": stages(recipe)[0]["data"]})
        parts[limit] = [
            (folder / "data" / f"{part}.jsonl").read_text(encoding="utf-8").splitlines()
            for part in ("train", "held_out")
        ]
    assert [len(part) for part in parts[None]] == [24, 6]
    assert parts[4][1] == parts[None][1]
    assert len(parts[4][0]) == 4 and set(parts[4][0]) < set(parts[None][0])


LITTLE = {"share": 0.01, "pairs": 1, "answers": 0, "arms": ["adapter"]}
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


class Bakery(Kitchen):
    """A kitchen whose train stage makes all runs that are due in one call."""

    def stages(self) -> dict[str, Stage]:
        def make_all(runs):
            self.called.append([recipe.name for recipe, _ in runs])
            for recipe, folder in runs:
                write_whole(folder / "train" / "out.txt", recipe.name)

        plain = super().stages()
        return plain | {"train": Stage(plain["train"].inputs, None, ("train",), make_all)}


def test_personas_go_through_a_stage_side_by_side_and_are_trained_in_one_call(tmp_path, capsys):
    bakery = Bakery()
    recipe = recipe_for(tmp_path / "run", persona=["ENFP", "INTJ"])
    assert bakery.run(recipe) == ["data", "data", ["test-ENFP", "test-INTJ"], "report", "report"]
    assert bakery.run(recipe) == []
    assert "train     INTJ done before" in capsys.readouterr().err


def test_only_the_member_that_is_not_up_to_date_is_trained_again(tmp_path):
    bakery = Bakery()
    recipe = recipe_for(tmp_path / "run", persona=["ENFP", "INTJ"])
    bakery.run(recipe)
    (tmp_path / "run" / "INTJ" / "train" / "out.txt").unlink()
    assert bakery.run(recipe) == [["test-INTJ"]]
    wider = recipe_for(tmp_path / "run", persona=["ENFP", "INTJ", "ISTP"])
    assert bakery.run(wider) == ["data", ["test-ISTP"], "report"]


def test_a_member_is_an_ordinary_run(tmp_path):
    bakery = Bakery()
    bakery.run(recipe_for(tmp_path / "run", persona=["ENFP", "INTJ"]))
    own = recipes.load(tmp_path / "run" / "INTJ" / "recipe.yaml")
    assert own.persona == "INTJ" and own.folder() == tmp_path / "run" / "INTJ"
    assert bakery.run(own) == []


def test_several_personas_on_a_tiny_model(tmp_path, tiny_folder, capsys):
    parts = {"model": str(tiny_folder), "data": {"limit": 4}, "evaluate": LITTLE}
    recipe = recipe_for(tmp_path / "run", persona=["ENFP", "INTJ"], **parts)
    folder = pipeline.run(recipe)
    pipeline.show(recipe)
    shown = capsys.readouterr().out
    for name in ("ENFP", "INTJ"):
        assert str(folder / name / "train" / "adapter") in shown and str(folder / name / "report.html") in shown
        summary = json.loads((folder / name / "evaluation" / "summary.json").read_text(encoding="utf-8"))
        assert summary["persona"]["type"] == name
    assert adapter_folder(folder / "INTJ") == folder / "INTJ" / "train" / "adapter"
    with pytest.raises(UserError, match="it holds several runs; give one of them, such as .*ENFP"):
        adapter_folder(folder)


def test_seeds_are_trained_in_one_pass_and_measured_together(tmp_path, tiny_folder):
    parts = {"model": str(tiny_folder), "data": {"limit": 4}, "train": {"seeds": 2}, "evaluate": LITTLE}
    folder = pipeline.run(recipe_for(tmp_path / "run", **parts))
    summary = json.loads((folder / "evaluation" / "summary.json").read_text(encoding="utf-8"))
    assert summary["seeds"] == ["seed-0", "seed-1"]
    weights = [
        (folder / seed / "train" / "adapter" / "adapter_model.safetensors").read_bytes() for seed in summary["seeds"]
    ]
    assert weights[0] != weights[1]
    assert not (folder / "seed-0" / "evaluation").exists() and (folder / "report.html").is_file()


def ranked(path: Path, count: int = 24) -> Path:
    """Rankings in KoChatGPT's form: the more often an answer says yes, the better."""
    rows = [
        {
            "prompt": f"question {n}",
            "completion_0": "no",
            "completion_1": "yes yes",
            "completion_2": "yes",
            "ranking": [2, 0, 1],
        }
        for n in range(count)
    ]
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


@pytest.fixture
def chain(tmp_path, tiny_folder):
    """A recipe of SFT, reward model and PPO, as parts to be changed."""
    asked = tmp_path / "asked.jsonl"
    asked.write_text("".join(json.dumps({"prompt": f"question {n}"}) + "\n" for n in range(24)), encoding="utf-8")
    small = {"max_steps": 2, "batch": 4}
    return {
        "persona": {"name": "X", "description": "somebody"},
        "model": str(tiny_folder),
        "train": [
            {"method": "sft", "data": {"source": str(ranked(tmp_path / "ranked.json"))}, **small},
            {"method": "reward", "data": {"source": str(tmp_path / "ranked.json"), "held_out": 0.5}, **small},
            {"method": "ppo", "data": {"source": str(asked), "held_out": 0.25}, "steps": 2, "batch": 2, "answers": 2,
             "max_new_tokens": 6, "ignore_gate": True},
        ],
        "evaluate": LITTLE,
    }  # fmt: skip


def test_sft_a_reward_model_and_ppo_in_steps(tmp_path, chain, capsys):
    recipe = recipe_for(tmp_path / "run", **chain)
    folder = pipeline.run(recipe)
    pipeline.show(recipe)
    shown = capsys.readouterr().out

    for step in ("sft", "reward", "ppo"):
        assert (folder / step / "adapter" / "adapter_model.safetensors").is_file()
        assert str(folder / step / "adapter") in shown
    done = json.loads((folder / "ppo" / "training.json").read_text(encoding="utf-8"))
    assert done["settings"]["start"] == str(folder / "sft" / "adapter")
    assert json.loads((folder / "reward" / "adapter" / "gate.json").read_text(encoding="utf-8"))["prompts"] == 12
    assert json.loads((folder / "ppo" / "before_after.json").read_text(encoding="utf-8"))["prompts"] == 6
    assert str(folder / "ppo" / "before-after.html") in shown
    assert adapter_folder(folder) == folder / "ppo" / "adapter"
    assert reward_folder(folder) == folder / "reward" / "adapter"
    assert (
        json.loads((folder / "evaluation" / "summary.json").read_text(encoding="utf-8"))["training"]["method"] == "ppo"
    )

    chain["train"][1]["learning_rate"] = 1e-3
    pipeline.run(recipe_for(tmp_path / "run", **chain))
    said = capsys.readouterr().err
    assert "sft       done before" in said and "ppo       starts again (reward changed)" in said


def test_a_prompt_that_is_held_out_in_one_step_is_trained_on_in_none(tmp_path, chain):
    recipe = recipe_for(tmp_path / "run", **chain)
    folder = pipeline.run(recipe, {"data": stages(recipe)[0]["data"]})
    parts = {"train": set(), "held_out": set()}
    for path in folder.glob("data/**/*.jsonl"):
        parts[path.stem] |= {opening(row) for row in read_rows(path)}
    assert len(parts["held_out"]) == 12 and parts["train"] and not parts["train"] & parts["held_out"]


def test_ppo_refuses_a_reward_model_that_has_not_passed(tmp_path, chain):
    chain["train"][2]["ignore_gate"] = False
    with pytest.raises(UserError, match="not good enough for PPO.*--ignore-gate"):
        pipeline.run(recipe_for(tmp_path / "run", **chain))
    assert (tmp_path / "run" / "stages" / "reward.json").is_file() and not (tmp_path / "run" / "ppo").exists()


def test_a_reward_model_without_held_out_rankings_is_not_judged(tmp_path, chain, capsys):
    chain["train"] = chain["train"][1:2]
    chain["train"][0]["data"]["held_out"] = 0
    folder = pipeline.run(recipe_for(tmp_path / "run", **chain | {"evaluate": None}))
    assert "is not judged" in capsys.readouterr().err
    assert not (folder / "reward" / "adapter" / "gate.json").exists()


def test_an_empty_prompt_file_is_named(tmp_path, chain):
    empty = tmp_path / "empty.jsonl"
    empty.write_text("", encoding="utf-8")
    chain["train"][2]["data"] = {"source": str(empty)}
    with pytest.raises(UserError, match="empty.jsonl: holds no rows"):
        pipeline.run(recipe_for(tmp_path / "run", **chain))


def launched(words: str, home: Path, timeout: float = 240) -> subprocess.CompletedProcess:
    """personalign in two processes, as accelerate launches them."""
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--multi_gpu",
        "--num_processes",
        "2",
        "-m",
        "personalign",
    ]
    environment = os.environ | {"PERSONALIGN_HOME": str(home), "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    return subprocess.run([*launch, *words.split()], env=environment, capture_output=True, text=True, timeout=timeout)


def test_with_two_processes_the_main_one_does_and_says_everything_but_the_training(tmp_path, tiny_folder):
    for name in ("ENFP", "INTJ"):
        rows = [{"prompt": f"question {n}", "chosen": f"yes, {name}", "rejected": "no"} for n in range(6)]
        (tmp_path / f"{name}.json").write_text(json.dumps(rows), encoding="utf-8")
    words = f"train dpo --model {tiny_folder} --persona ENFP INTJ --data {tmp_path} --output {tmp_path / 'run'}"
    done = launched(words, tmp_path / "home")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("data      ENFP starts") == done.stderr.count("train     INTJ done in") == 1
    assert done.stdout.count("adapter:") == 2
    assert adapter_folder(tmp_path / "run" / "INTJ").is_dir()


def test_an_error_of_the_main_process_ends_the_others(tmp_path, tiny_folder):
    words = f"train dpo --model {tiny_folder} --persona ENFP --data nowhere.json --output {tmp_path / 'run'}"
    done = launched(words, tmp_path / "home")
    assert done.returncode != 0 and "nowhere.json: there is no such file" in done.stderr
