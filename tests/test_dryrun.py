"""A dry run goes through every stage of a recipe before anything large is fetched, and says what it did not see."""

import json
import re
from pathlib import Path

import pytest

from personalign import recipe as recipes
from personalign.cli import main
from personalign.dryrun import dry_run, memory_lines
from personalign.errors import UserError
from personalign.models.stand_in import real_config, save_stand_in

RECIPES = Path(__file__).parents[1] / "recipes"
SEEDS = ("lapd-mbti", "polaris-pessimist", "dnf-rlhf", "alpaca-gemma")
BASES = [
    "meta-llama/Meta-Llama-3-8B-Instruct", "google/gemma-7b-it", "google/gemma-2b-it", "EleutherAI/polyglot-ko-1.3b",
    "smollm2", "gemma3-270m",
]  # fmt: skip


def written(folder: Path, **parts) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(json.dumps({"name": "x", "persona": "ENFP", "evaluate": None} | parts), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", BASES)
def test_a_stand_in_has_the_architecture_and_the_template_of_the_real_one(name, tmp_path):
    from personalign.conversation import render
    from personalign.models import load_model

    config, folder = real_config(name)
    assert folder is None
    save_stand_in(name, config, folder, tmp_path)
    template = "plain-ko" if "polyglot" in name else None
    model, tokenizer = load_model(str(tmp_path), precision="fp32", template=template)
    assert model.config.model_type == config.model_type and model.num_parameters() < 200_000
    shared = config.num_attention_heads / (getattr(config, "num_key_value_heads", None) or config.num_attention_heads)
    small = model.config
    groups = getattr(small, "num_key_value_heads", None) or small.num_attention_heads
    assert (small.num_attention_heads / groups > 1) == (shared > 1)
    said = render(tokenizer, [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}])
    marks = {
        "llama": "<|eot_id|>",
        "gemma": "<end_of_turn>",
        "gemma3_text": "<end_of_turn>",
        "gpt_neox": "<|endoftext|>",
    }
    assert said.rstrip().endswith("<|im_end|>" if name == "smollm2" else marks[config.model_type])


def test_a_stand_in_of_a_folder_reads_with_the_folders_own_tokenizer(tmp_path, tiny_folder):
    from personalign.models import load_model

    config, folder = real_config(str(tiny_folder))
    save_stand_in(str(tiny_folder), config, folder, tmp_path / "model")
    model, tokenizer = load_model(str(tmp_path / "model"))
    _, own = load_model(str(tiny_folder))
    assert tokenizer.get_vocab() == own.get_vocab() and model.config.vocab_size == len(own)


def test_sft_a_reward_model_and_ppo_of_the_recipe_at_full_size(capsys, tmp_path, monkeypatch):
    """All stages, the report included; the other recipes of that size are trained below."""
    monkeypatch.chdir(tmp_path)
    assert main(["run", str(RECIPES / "dnf-rlhf.yaml"), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "a tiny random gpt_neox" in said and "dnf/rm.json is not here: 12 rows of our own" in said
    for stage in ("persona", "data", "sft", "reward", "ppo", "evaluate", "report"):
        assert re.search(rf"^{stage} +ok: ", said, re.MULTILINE)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", sorted({*SEEDS} - {"dnf-rlhf"}))
def test_the_recipes_at_full_size_train(name, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["run", str(RECIPES / f"{name}.yaml"), "--dry-run", "--set", "evaluate=null"]) == 0
    assert "stand in" in capsys.readouterr().out


@pytest.mark.parametrize("name", SEEDS)
def test_the_memory_in_a_recipes_head_is_our_estimate(name):
    path = RECIPES / f"{name}.yaml"
    recipe = recipes.load(path)
    lines = memory_lines(recipe, real_config(recipe.model)[0])
    estimated = max(float(re.search(r"about ([\d.]+) GiB", line)[1]) for line in lines)
    stated = re.search(
        r"^# Memory: +about (\d+) GiB on a GPU \(estimated", path.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert float(stated[1]) == pytest.approx(estimated, abs=0.5)


def test_data_that_are_here_are_read_to_the_end(tmp_path, tiny_folder):
    rows = [{"prompt": f"question {n}", "chosen": "yes", "rejected": "no"} for n in range(30)]
    path = tmp_path / "pairs.jsonl"
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_text(text + '{"prompt": "question 30", "chosen": "", "rejected": "no"}\n', encoding="utf-8")
    recipe = recipes.load(written(tmp_path, model=str(tiny_folder), data={"source": str(path)}))
    with pytest.raises(UserError, match="pairs.jsonl:31: `chosen` is empty"):
        dry_run(recipe)


def test_a_handful_of_the_users_rows_is_trained_on(tmp_path, tiny_folder, capsys):
    path = tmp_path / "pairs.csv"
    lines = "".join(f"question {n} {'x' * 9000},yes,no\n" for n in range(30))
    path.write_text("question,good,bad\n" + lines, encoding="utf-8")
    columns = {"prompt": "question", "chosen": "good", "rejected": "bad"}
    dry_run(recipes.load(written(tmp_path, model=str(tiny_folder), data={"source": str(path), "columns": columns})))
    assert f"{path}: 27 rows to learn from, 3 held out; 12 used here" in capsys.readouterr().out


def test_adapters_that_a_recipe_builds_on_must_be_there(tmp_path, tiny_folder, capsys):
    train = {"method": "ppo", "reward": str(tmp_path / "reward")}
    path = written(tmp_path, model=str(tiny_folder), train=train)
    assert main(["run", str(path), "--dry-run"]) == 2
    assert "no adapter_config.json there" in capsys.readouterr().err
    (tmp_path / "reward").mkdir()
    (tmp_path / "reward" / "adapter_config.json").write_text("{}", encoding="utf-8")
    assert main(["run", str(path), "--dry-run"]) == 0
    assert "a tiny reward model stands in" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"model": "EleutherAI/polyglot-ko-1.3b"}, "has no chat template: set `template: "),
        ({"model": "google/gemma-2b-it", "train": {"precision": "fp16"}}, "gemma overflows in it"),
        ({"model": "google/gemma-2b-it", "train": {"lora": {"targets": ["query_key_value"]}}}, "lora.targets"),
    ],
)
def test_what_the_real_run_would_refuse_is_refused(parts, said, tmp_path, capsys):
    assert main(["run", str(written(tmp_path, **parts)), "--dry-run"]) == 2
    assert said in capsys.readouterr().err
