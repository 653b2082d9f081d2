"""Bad input, as a user meets it: one sentence that names the place and the remedy, exit code 2, no traceback.

Ctrl-C and going on is in test_pipeline.py (the command) and test_training_kill.py (SIGKILL at any moment, too).
"""

import errno
import json
import shutil
from pathlib import Path

import pytest

from personalign.cli import main
from personalign.locks import locked
from tiny import byte_tokenizer

GOOD = {"prompt": "What about tea?", "chosen": "Gladly.", "rejected": "No."}


@pytest.fixture
def train(tmp_path, tiny_folder, capsys):
    """`personalign train dpo` on rows (or lines as they are), and what it says: (exit code, stderr)."""

    def call(rows=(GOOD,), *flags, model=tiny_folder, output=tmp_path / "run"):
        path = tmp_path / "pairs.jsonl"
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        words = ["--model", model, "--data", path, "--held-out", 0, "--output", output, *flags]
        code = main(["train", "dpo", *map(str, words)])
        said = capsys.readouterr()
        assert "Traceback" not in said.err + said.out
        return code, said.err.replace(str(tmp_path), "")

    return call


def last(error: str) -> str:
    """The sentence that it ends with, after the lines that say which stage starts."""
    return error[error.index("personalign: ") :].strip()


def test_good_rows_train(train):
    code, _ = train([GOOD] * 2)
    assert code == 0


def test_a_broken_jsonl_row(train):
    code, error = train([GOOD, '{"prompt": "a", "chos'])
    assert code == 2 and last(error).startswith("personalign: /pairs.jsonl:2: is not valid JSON")
    assert last(error).endswith("write one whole JSON object on the line.")


def test_an_empty_answer(train):
    code, error = train([GOOD, GOOD | {"chosen": " "}])
    assert code == 2
    assert last(error) == "personalign: /pairs.jsonl:2: `chosen` is empty; write the text, or delete the row."


def test_an_unknown_type(train):
    code, error = train([GOOD], "--mbti", "ENFX")
    assert code == 2 and "unknown persona 'ENFX'; did you mean ENFP" in last(error)


def test_a_model_folder_without_weights(train, tmp_path, tiny_folder):
    (tmp_path / "model").mkdir()
    shutil.copy(tiny_folder / "config.json", tmp_path / "model")
    code, error = train([GOOD], model=tmp_path / "model")
    assert code == 2 and "--model /model: no weights (*.safetensors) in this folder" in last(error)


def test_weights_in_a_format_that_can_run_code_are_not_read(train, tmp_path, tiny_folder):
    shutil.copytree(tiny_folder, tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").rename(tmp_path / "model" / "pytorch_model.bin")
    code, error = train([GOOD], model=tmp_path / "model")
    assert code == 2 and "can run code when read and are refused" in last(error)


def test_weights_that_were_cut(train, tmp_path, tiny_folder):
    shutil.copytree(tiny_folder, tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    code, error = train([GOOD], model=tmp_path / "model")
    assert code == 2 and "--model /model: transformers cannot load it" in last(error)


def test_a_template_without_an_end_token(train, tmp_path, tiny_folder):
    shutil.copytree(tiny_folder, tmp_path / "model")
    tokenizer = byte_tokenizer(
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    tokenizer.save_pretrained(tmp_path / "model")
    code, error = train([GOOD], model=tmp_path / "model")
    assert code == 2 and "end" in last(error) and "set `template: chatml`" in last(error)


def test_a_pair_that_cannot_fit(train):
    code, error = train([GOOD, GOOD | {"prompt": "Why? " * 50}], "--max-length", "120")
    assert code == 2 and last(error).startswith("personalign: /pairs.jsonl:2: its prompt takes ")
    assert last(error).endswith("raise max_length, shorten the prompt or delete the row.")


def test_pairs_that_are_too_long_are_counted_and_said(train, tmp_path):
    code, error = train([GOOD, GOOD, GOOD | {"chosen": "because " * 50}], "--max-length", "150")
    assert code == 0 and "over max_length 150: 1 examples dropped, 0 truncated" in error
    done = json.loads((tmp_path / "run" / "train" / "training.json").read_text(encoding="utf-8"))
    assert (done["method"], done["examples"], done["dropped"], done["truncated"]) == ("dpo", 2, 1, 0)


def test_an_output_folder_that_is_read_only(train, tmp_path, monkeypatch):
    sealed = tmp_path / "sealed"
    sealed.mkdir(mode=0o555)
    plain = Path.mkdir

    def mkdir(self, *arguments, **options):  # the superuser may write everywhere: here it obeys the mode, as others do
        if not next(parent for parent in self.parents if parent.exists()).stat().st_mode & 0o200:
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        plain(self, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    code, error = train([GOOD], output=sealed / "run")
    assert code == 2
    assert last(error) == (
        "personalign: /sealed/run: the run folder cannot be written (Permission denied); give another `output` folder."
    )


def test_a_run_folder_in_which_another_run_is_at_work(train, tmp_path):
    assert train([GOOD])[0] == 0
    with locked(tmp_path / "run" / ".lock"):
        code, error = train([GOOD], "--epochs", "2")
    assert code == 2 and "/run: another run is at work in it; wait for it" in last(error)
    assert train([GOOD], "--epochs", "2")[0] == 0  # the lock goes with its process


def test_a_tracker_that_is_not_installed(train, monkeypatch):
    monkeypatch.setattr("personalign.training.trackers.find_spec", lambda name: None)
    code, error = train([GOOD], "--trackers", "wandb")
    assert code == 2 and last(error).endswith("wandb is not installed; `pip install wandb`, or leave it out.")


def test_a_recipe_names_the_line(tmp_path, capsys):
    path = tmp_path / "recipe.yaml"
    path.write_text("name: a\npersona: ENFP\ntrain:\n  betta: 1\n", encoding="utf-8")
    assert main(["run", str(path)]) == 2
    assert capsys.readouterr().err.startswith(f"personalign: {path}:4: unknown key `train.betta`; did you mean `beta`?")
