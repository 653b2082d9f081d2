"""The command line: help at once, errors as sentences, options that are a model's fields."""

import subprocess
import sys
import time
from typing import Literal

import pytest
from pydantic import AliasChoices, BaseModel, Field

from personalign import cli, commands
from personalign.chat import talk
from personalign.cli import main
from personalign.errors import UserError
from personalign.options import parse
from personalign.runs import adapter_folder
from personalign.terminal import side_by_side, width, wrap
from personalign.training.settings import DpoSettings

HEAVY = ("torch", "transformers", "pydantic", "numpy", "yaml")


def test_help_needs_nothing_heavy():
    started = time.perf_counter()
    seen = f"[name for name in {HEAVY} if name in sys.modules]"
    code = f"import sys; from personalign.cli import main; main(['--help']); print({seen})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    print(f"personalign --help, the interpreter's start included: {time.perf_counter() - started:.2f} s")
    assert done.stdout.endswith("[]\n")
    assert all(name in done.stdout for name in cli.COMMANDS)


def test_python_m_is_the_same_program():
    done = subprocess.run([sys.executable, "-m", "personalign", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "personalign 0.1.0\n")


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_lists_its_options(name, capsys):
    assert main([*name.split(), "--help"]) == 0
    assert f"usage: personalign {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("trian dpo", "did you mean `train`?"),
        ("data lnit file", "did you mean `data lint`?"),
        ("run", "RECIPE"),
        ("run nowhere.yaml", "nowhere.yaml: cannot be read"),
        ("train dpo --persona ENFP --betta 1", "did you mean `--beta`?"),
        ("train dpo --persona ENFP --beta -1", "--beta -1: Input should be greater than 0"),
        ("train dpo --persona ENFP --lora-rank 0", "--lora-rank 0"),
        ("train dpo --persona ENFP --betas 0.9", "--betas needs more values"),
        ("data lint hf:json:train", "write hf:org/name:split"),
        ("data lint hf:../name:train", "write hf:org/name:split"),
        ("train dpo --mbti ENFX", "unknown persona 'ENFX'; did you mean ENFP"),
        ("train dpo", "--persona is missing"),
        ("train dpo --persona ENFP INTJ --data pairs.json", "several personas would learn the same"),
        ("train dpo --persona ENFP --seeds 0", "--seeds 0"),
        ("train ppo --persona ENFP", "--reward is missing"),
        ("train ppo --persona ENFP --reward nowhere", "--reward nowhere: no adapter_config.json there"),
        ("train sft --persona ENFP --start nowhere", "--start nowhere: no adapter_config.json there"),
        ("train sft --persona ENFP --quantise nf5", "--quantise nf5"),
        ("train dpo --persona ENFP --model no/such/model --output /dev/null/run", "cannot be written"),
        ("chat --adapter nowhere", "--adapter nowhere: no adapter_config.json"),
        ("data lint nowhere.jsonl", "nowhere.jsonl"),
        ("personas show NOBODY", "unknown persona 'NOBODY'"),
        ("run recipe.yaml --accept-terms llama", "unknown terms"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(words, said, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(words.split()) == 2
    error = capsys.readouterr().err
    assert said in error and error.startswith("personalign: ") and "Traceback" not in error


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "the same command goes on from where it was"),
        (OSError(28, "No space left on device", "runs/x"), 2, "runs/x: No space left on device"),
        (RuntimeError("odd"), 1, "RuntimeError: odd"),
    ],
)
def test_no_traceback_reaches_a_user(raised, code, said, monkeypatch, capsys):
    def fail(options: commands.Models) -> None:
        raise raised

    monkeypatch.setattr(commands, "models", fail)
    assert main(["models"]) == code
    assert said in capsys.readouterr().err


def test_debugging_shows_the_traceback(monkeypatch):
    monkeypatch.setenv("PERSONALIGN_DEBUG", "1")
    with pytest.raises(UserError):
        main(["run", "nowhere.yaml"])


def test_the_options_of_training_are_its_settings():
    options = parse(
        commands.TrainDpo,
        "--persona ENFP --beta 0.3 --lora-rank 4 --lora-targets q_proj v_proj --betas 0.8 0.9 --ignore-memory".split(),
        prog="personalign train dpo",
    )
    assert set(DpoSettings.model_fields) < set(commands.TrainDpo.model_fields)
    assert (options.beta, options.lora.rank, options.lora.targets) == (0.3, 4, ("q_proj", "v_proj"))
    assert options.betas == (0.8, 0.9) and options.ignore_memory is True


def test_the_flags_of_lapd_are_understood_as_they_are(tmp_path):
    for name in ("ENTJ.json", "INFP.json"):
        (tmp_path / name).write_text("[]", encoding="utf-8")
    words = f"--model_path base --dataset_dir {tmp_path} --beta 0.2 --output_dir out --epoch 3 --mbti INFP"
    options = parse(commands.TrainDpo, words.split(), prog="personalign train dpo")
    recipe = options.to_recipe("dpo", train={"method": "dpo", "beta": options.beta, "epochs": options.epochs})
    assert (recipe.model, recipe.persona, recipe.output) == ("base", "INFP", "out")
    assert (recipe.train.beta, recipe.train.epochs) == (0.2, 3)
    assert recipe.data.source == (str(tmp_path / "INFP.json"),)


def test_every_kind_of_field_becomes_an_option(capsys):
    class Options(BaseModel):
        file: str = Field(description="what to read", json_schema_extra={"positional": True})
        kind: Literal["a", "b"] = Field("a", description="100% of it")
        many: tuple[int, ...] = Field((), description="numbers")
        names: dict[str, str] = Field({}, description="names")
        output: str | None = Field(None, validation_alias=AliasChoices("output", "output_dir"), description="where")

    options = parse(Options, "x --kind b --many 1 2 --names a=b c=d --output_dir o".split(), prog="p")
    assert options.model_dump() == {
        "file": "x",
        "kind": "b",
        "many": (1, 2),
        "names": {"a": "b", "c": "d"},
        "output": "o",
    }
    assert parse(Options, ["x", "--output", "o"], prog="p").output == "o"
    with pytest.raises(UserError, match="--kind c: Input should be 'a' or 'b'"):
        parse(Options, ["x", "--kind", "c"], prog="p")
    with pytest.raises(UserError, match="KEY=VALUE"):
        parse(Options, ["x", "--names", "a"], prog="p")
    with pytest.raises(SystemExit):
        parse(Options, ["--help"], prog="p")
    assert "100% of it (default: a)" in capsys.readouterr().out


def test_init_writes_a_recipe_once(tmp_path, capsys):
    path = tmp_path / "mine.yaml"
    assert main(["init", str(path)]) == 0 and path.is_file()
    assert main(["init", str(path)]) == 2
    assert "exists already" in capsys.readouterr().err


def test_lint_finds_a_broken_row(tmp_path, capsys):
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n{"prompt": "a", "chos', encoding="utf-8")
    assert main(["data", "lint", str(path)]) == 2
    assert f"{path}:2" in capsys.readouterr().out


def test_a_persona_is_shown_as_a_file_that_can_be_read_again(tmp_path, capsys):
    assert main(["personas", "show", "entj", "--language", "ko"]) == 0
    path = tmp_path / "entj.yaml"
    path.write_text(capsys.readouterr().out, encoding="utf-8")
    from personalign.personas import persona

    assert persona(str(path)) == persona("ENTJ", "ko")


def conversation(monkeypatch, lines, fits=lambda messages: True, answer=None):
    """What the model was asked, line by line."""
    asked = []

    def echo(messages):
        asked.append([message["content"] for message in messages])
        yield from ("I hear ", messages[-1]["content"])

    monkeypatch.setattr("personalign.chat._lines", lambda: iter(lines))
    talk(answer or echo, "Be brief.", fits)
    return asked


def test_a_chat_remembers_until_it_is_reset(monkeypatch, capsys):
    asked = conversation(monkeypatch, ["one", "two", "/reset", "three", "/quit", "four"])
    assert asked == [["Be brief.", "one"], ["Be brief.", "one", "I hear one", "two"], ["Be brief.", "three"]]
    assert "I hear three" in capsys.readouterr().out


def test_the_oldest_exchange_is_forgotten_when_the_context_is_full(monkeypatch):
    asked = conversation(monkeypatch, ["one", "two", "three"], fits=lambda messages: len(messages) <= 4)
    assert asked[-1] == ["Be brief.", "two", "I hear two", "three"]


def test_a_message_that_does_not_fit_is_named_and_forgotten(monkeypatch, capsys):
    asked = conversation(monkeypatch, ["x" * 50, "hi"], fits=lambda messages: len(messages[-1]["content"]) < 20)
    assert asked == [["Be brief.", "hi"]]
    assert "longer than the model's context" in capsys.readouterr().err


def test_an_interrupted_answer_is_kept_as_far_as_it_came(monkeypatch, capsys):
    asked = []

    def stopped(messages):
        asked.append([message["content"] for message in messages])
        yield "half an\x1b[2J"
        raise KeyboardInterrupt

    conversation(monkeypatch, ["one", "two"], answer=stopped)
    assert asked[1][:3] == ["Be brief.", "one", "half an\x1b[2J"]
    assert "half an[2J ..." in capsys.readouterr().out


def test_an_adapter_is_found_in_the_folder_of_its_run(tmp_path):
    folder = tmp_path / "train" / "adapter"
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text("{}", encoding="utf-8")
    assert adapter_folder(tmp_path) == adapter_folder(folder) == folder


def test_korean_takes_two_columns():
    assert width("한국 ab") == 7
    assert wrap("한국어 문장을 나눈다", 8) == ["한국어", "문장을", "나눈다"]
    assert wrap("abcdefgh ij", 4) == ["abcd", "efgh", "ij"]


def test_answers_stand_side_by_side_or_below_each_other():
    texts = {"base": "one two three", "adapter": "네 다섯"}
    assert side_by_side(texts, 20, narrowest=8).splitlines()[2:] == ["one two    네 다섯", "three"]
    assert side_by_side(texts, 20, narrowest=15).splitlines() == ["base", "  one two three", "adapter", "  네 다섯"]
