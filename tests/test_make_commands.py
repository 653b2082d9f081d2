"""Each pipeline is a command: its settings are the options, and what one leaves in the run folder the next goes on from."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from personalign import make_commands
from personalign.cli import COMMANDS, main
from personalign.make import PIPELINES, pipeline
from personalign.options import parse
from personalign.personas import Persona
from providers import providers
from scripted import standing_in
from test_make_recipe import model, rows

LINE = "a job seeker full of negative thoughts"


@pytest.fixture
def asked(monkeypatch) -> list:
    return standing_in(monkeypatch, model)


def make(*words: str, folder: Path, client: str = "local:scripted") -> int:
    return main(["make", *words, "--client", client, "--output", str(folder)])


def test_one_command_goes_on_from_what_the_one_before_left(tmp_path, asked, capsys):
    assert make("traits", LINE, "--name", "Grumbler", folder=tmp_path) == 0
    persona = tmp_path / "made" / "persona.yaml"
    assert capsys.readouterr().out == f"{persona}\n" and Persona.from_yaml(persona).traits == ("stubborn", "honest")
    assert make("dialogues", "--count", "2", "--turns", "4", "4", folder=tmp_path) == 0
    assert make("rejections", folder=tmp_path) == 0
    pairs = tmp_path / "made" / "rejections.jsonl"
    assert capsys.readouterr().out.splitlines() == [str(tmp_path / "made" / "dialogues.jsonl"), str(pairs)]
    assert len(rows(pairs)) == 8 and {row["persona"] for row in rows(pairs)} == {"Grumbler"}
    assert main(["data", "lint", str(pairs)]) == 0
    assert main(["data", "ledger", str(tmp_path)]) == 0
    stages = [line.split()[0] for line in capsys.readouterr().out.splitlines()[-8:] if line]
    assert {"traits", "dialogues", "rejections", "total"} <= set(stages)


def test_the_same_command_again_asks_for_nothing(tmp_path, asked):
    for _ in range(2):
        assert make("traits", LINE, folder=tmp_path) == 0
        assert len(asked) == 1
    assert make("traits", LINE, "--seed", "1", folder=tmp_path) == 0
    assert len(asked) == 2


def test_whoever_is_named_speaks(tmp_path, asked):
    words = ["dialogues", "--persona", "ENFP", "--count", "1", "--turns", "4", "4"]
    make(*words, folder=tmp_path)
    assert "ENFP" in asked[0].messages[-1]["content"]
    assert make("dialogues", folder=tmp_path / "other") == 2


def test_a_budget_stops_it_and_a_larger_one_goes_on(tmp_path, asked, capsys):
    words = ["traits", LINE, "--budget-usd"]
    assert make(*words, "0.0001", folder=tmp_path, client="openai:gpt-4o-mini") == 2
    assert "the budget of $0.0001 is reached" in capsys.readouterr().err and not asked
    assert make(*words, "1", folder=tmp_path, client="openai:gpt-4o-mini") == 0
    said = capsys.readouterr().err
    assert "openai:gpt-4o-mini: $0.00" in said and "tokens spent" in said


def test_a_model_without_a_price_can_be_given_one(tmp_path, asked, capsys):
    words = ["traits", LINE, "--budget-usd", "1"]
    assert make(*words, folder=tmp_path, client="openai:of-my-own") == 2
    assert "its price is not known" in capsys.readouterr().err
    assert make(*words, "--price-input", "1", "--price-output", "2", folder=tmp_path, client="openai:of-my-own") == 0


def test_options_reach_the_provider(tmp_path, asked):
    assert make("traits", LINE, "--options", "safety=BLOCK_NONE", "top_k=40", folder=tmp_path) == 0
    assert dict(asked[0].options) == {"safety": "BLOCK_NONE", "top_k": 40}


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path, asked, capsys):
    (tmp_path / "thesis.txt").write_text("mine", encoding="utf-8")
    assert make("traits", LINE, folder=tmp_path) == 2
    assert "no run of personalign" in capsys.readouterr().err


@pytest.mark.parametrize("name", [name for name in PIPELINES if f"make {name}" in COMMANDS])
def test_the_options_are_the_settings_and_the_first_that_must_be_given_needs_no_flag(name, capsys):
    kind, _ = pipeline(name)
    needed = [key for key, field in kind.model_fields.items() if field.is_required()]
    command = getattr(make_commands, name)
    options = command.__annotations__["given"]
    assert {*kind.model_fields, "client", "budget_usd", "language", "output"} <= set(options.model_fields)
    words = ["x", *(word for key in needed[1:] for word in (f"--{key}", "y"))] if needed else []
    given = parse(options, [*words, "--budget-usd", "2"], prog="p")
    assert given.budget_usd == 2 and kind(**{key: getattr(given, key) for key in kind.model_fields})


def test_every_pipeline_but_deduplication_is_a_command():
    assert {f"make {name}" for name in PIPELINES} - set(COMMANDS) == {"make dedupe"}  # `data dedupe` takes any file


def test_a_commands_help_loads_no_model_and_no_providers_sdk():
    heavy = ("torch", "transformers", "openai", "anthropic", "google.genai")
    seen = f"[name for name in {heavy} if name in sys.modules]"
    code = f"import sys; from personalign.cli import main; main(['make', 'dialogues', '--help']); print({seen})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")


def test_ctrl_c_in_the_middle_ends_with_exit_code_130_and_what_was_in_flight_counts_as_spent(tmp_path, capsys):
    with providers(delay=30) as server:
        words = ["make", "traits", LINE, "--client", f"{server.openai}#model", "--output", str(tmp_path / "run")]
        process = subprocess.Popen(
            [sys.executable, "-m", "personalign", *words], stderr=subprocess.PIPE, text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored where tests run in the background
        )  # fmt: skip
        while not server.seen():
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert process.returncode == 130 and "stopped; the same command goes on from where it was" in said
    assert main(["data", "ledger", str(tmp_path / "run")]) == 0
    assert "what is lost or in flight counts as the most that it can have cost" in capsys.readouterr().out
