"""The commands on a tiny model, from the words that a user types to what comes of them."""

import io
import json

import pytest

from personalign import models
from personalign.cli import main
from personalign.models import add_adapter, load_model, save_adapter


@pytest.fixture
def pairs(tmp_path):
    path = tmp_path / "ENFP.json"
    rows = [
        {"prompt": f"What about {what}?", "chosen": "Gladly!", "rejected": "No."} for what in ("tea", "rain", "art")
    ]
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def test_lapds_command_trains(pairs, tmp_path, tiny_folder, capsys):
    words = f"--model_path {tiny_folder} --dataset_dir {pairs.parent} --beta 0.2 --epoch 2 --mbti ENFP"
    assert main(["train", "dpo", *words.split(), "--output_dir", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "train" / "adapter" / "adapter_model.safetensors").is_file()
    done = json.loads((tmp_path / "out" / "train" / "training.json").read_text(encoding="utf-8"))
    assert (done["settings"]["beta"], done["settings"]["epochs"], done["method"]) == (0.2, 2, "dpo")
    assert str(tmp_path / "out" / "train" / "adapter") in capsys.readouterr().out


def test_several_personas_are_trained_in_one_command(tmp_path, tiny_folder, capsys):
    words = f"train dpo --model {tiny_folder} --persona enfp INTJ --limit 4 --output {tmp_path / 'both'}"
    assert main(words.split()) == 0
    shown = capsys.readouterr().out
    for name in ("ENFP", "INTJ"):
        assert str(tmp_path / "both" / name / "train" / "adapter") in shown
        done = json.loads((tmp_path / "both" / name / "train" / "training.json").read_text(encoding="utf-8"))
        assert (done["examples"], done["trained_together"]) == (4, 2)


def test_a_reward_model_is_judged_and_then_optimised_against(tmp_path, tiny_folder, capsys):
    rows = [
        {"prompt": f"What about {n}?", "completion_0": "No.", "completion_1": "Gladly!", "ranking": [1, 0]}
        for n in range(30)
    ]
    ranked, run = tmp_path / "ranked.json", tmp_path / "run"
    ranked.write_text(json.dumps(rows), encoding="utf-8")
    common = f"--model {tiny_folder} --data {ranked} --held-out 0.5"
    assert main(["train", "reward", *common.split(), "--max-steps", "2", "--output", str(run / "reward")]) == 0
    assert "longer" in capsys.readouterr().out
    gate = json.loads((run / "reward" / "train" / "adapter" / "gate.json").read_text(encoding="utf-8"))
    assert gate["prompts"] == 15

    ppo = (
        f"{common} --reward {run / 'reward'} --steps 1 --batch 2 --answers 2 --max-new-tokens 4 --output {run / 'ppo'}"
    )
    refused = main(["train", "ppo", *ppo.split()])
    assert (refused, gate["passes"]) in ((2, False), (0, True))
    assert main(["train", "ppo", *ppo.split(), "--ignore-gate"]) == 0
    assert str(run / "ppo" / "train" / "before-after.html") in capsys.readouterr().out


def test_a_row_is_shown_with_its_counted_tokens(pairs, tiny_folder, capsys):
    assert main(["data", "show", str(pairs), "--row", "2", "--model", str(tiny_folder)]) == 0
    shown = capsys.readouterr().out
    assert f"{pairs}:2" in shown and "[G][l][a][d][l][y][!][<|im_end|>]" in shown
    assert "r·a·i·n" in shown  # the prompt does not count
    assert main(["data", "show", str(pairs), "--row", "9", "--model", str(tiny_folder)]) == 2
    assert "there is no row 9; the rows run from 1 to 3" in capsys.readouterr().err


def test_a_free_persona_is_trained_by_sft_through_a_recipe(tmp_path, tiny_folder):
    rows = [
        {"messages": [{"role": "user", "content": f"Hi {n}"}, {"role": "assistant", "content": "Ahoy!"}]} for n in "abc"
    ]
    data = tmp_path / "talks.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    recipe = tmp_path / "pirate.yaml"
    recipe.write_text(
        f"name: pirate\noutput: {tmp_path / 'run'}\nmodel: {tiny_folder}\n"
        "persona: {name: Pirate, description: an old pirate, traits: [bold], speaking_style: short}\n"
        f"data: {{source: {data}, held_out: 0.34}}\ntrain: {{method: sft, learning_rate: 0.01}}\nevaluate: null\n",
        encoding="utf-8",
    )
    assert main(["run", str(recipe)]) == 0
    done = json.loads((tmp_path / "run" / "train" / "training.json").read_text(encoding="utf-8"))
    assert (done["method"], done["examples"]) == ("sft", 2) and done["last"]["held_out"]["loss"] > 0


def test_lines_from_a_pipe_are_answered_one_by_one(tmp_path, tiny_folder, monkeypatch, capsys):
    persona = tmp_path / "pirate.yaml"
    persona.write_text("name: Pirate\ndescription: an old pirate\n", encoding="utf-8")
    asked = []

    def echo(model, tokenizer, messages, **options):
        asked.append([message["content"] for message in messages])
        yield f"{messages[-1]['content']}, arr"

    monkeypatch.setattr(models, "stream", echo, raising=False)
    monkeypatch.setattr("sys.stdin", io.StringIO("hello\n/reset\nahoy\n"))
    assert main(["chat", "--model", str(tiny_folder), "--persona", str(persona)]) == 0
    shown = capsys.readouterr().out
    assert "hello, arr" in shown and "(forgotten)" in shown and "ahoy, arr" in shown
    assert [turn[1:] for turn in asked] == [["hello"], ["ahoy"]] and "pirate" in asked[0][0]


def test_a_chat_streams_from_the_model(tiny_folder, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("hello\n"))
    assert main(["chat", "--model", str(tiny_folder), "--max-new-tokens", "5", "--seed", "1"]) == 0
    assert capsys.readouterr().out.strip()


def test_a_recipe_beside_an_adapter_cannot_switch_remote_code_on(tmp_path, tiny_folder, monkeypatch):
    adapter = tmp_path / "run" / "train" / "adapter"
    save_adapter(add_adapter(load_model(str(tiny_folder))[0], rank=2), adapter)
    (tmp_path / "run" / "recipe.yaml").write_text(
        f"name: theirs\npersona: ENFP\nmodel: {tiny_folder}\ntrust_remote_code: true\n", encoding="utf-8"
    )
    given = []

    def watched(name, **options):
        given.append((name, options["trust_remote_code"]))
        return load_model(name, **options | {"trust_remote_code": False})

    monkeypatch.setattr(models, "load_model", watched, raising=False)
    for flags, trusted in (([], False), (["--trust-remote-code"], True)):
        monkeypatch.setattr("sys.stdin", io.StringIO(""))
        assert main(["chat", "--adapter", str(tmp_path / "run"), *flags]) == 0
        assert given[-1] == (str(tiny_folder), trusted)
