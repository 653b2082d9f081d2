"""Every pipeline with the embedded model behind the local client: whatever it says, form and accounting hold.

A model of 135M parameters rarely gives what is asked for; that everything ends in quarantine is the usual case here.
"""

import re
from importlib import resources
from pathlib import Path

import pytest

from personalign.clients import client, ledger
from pipelines import PIPELINES, accounted, run, written

pytestmark = pytest.mark.slow
MODEL = client("local:smollm2")  # loaded with the first request
ASKING = [name for name in PIPELINES if name != "dedupe"]  # which asks for nothing


@pytest.fixture(scope="module")
def prompts(tmp_path_factory) -> Path:
    """Our own prompts, with answers that end soon."""
    folder = tmp_path_factory.mktemp("prompts")
    for each in (resources.files("personalign.synthesis") / "prompts").iterdir():
        text = re.sub(r"(?m)^max_tokens: \d+", "max_tokens: 24", each.read_text(encoding="utf-8"))
        (folder / each.name).write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize("pipeline", ASKING)
def test_form_and_accounting(real_home, tmp_path, prompts, pipeline, capsys):
    _, ids = run(pipeline, tmp_path, MODEL, prompts=prompts)
    files = written(tmp_path)
    apart = [row for name, rows in files.items() if "quarantine" in name for row in rows]
    assert ids and all(row["reason"] and "text" in row for row in apart)
    if not (tmp_path / "run" / "persona.yaml").exists():  # what describes a persona is in no row
        assert accounted(files) == ids
    with ledger(tmp_path / "run") as book:
        spent = book.spending()
        cost, tokens = book.spent
    assert cost == 0 and tokens == sum(row["input"] + row["output"] for row in spent) > 0
    for row in spent:
        assert row["model"] == "local:smollm2" and row["unpriced"] == row["lost"] == row["refused"] == 0
        assert row["input"] > 50 * row["answered"] and 0 < row["output"] <= 24 * 10 * row["answered"]
    assert f"{pipeline.split('-')[0]}: " in capsys.readouterr().err


def test_a_rerun_needs_no_model(real_home, tmp_path, prompts):
    def files():
        return {path.name: path.read_bytes() for path in (tmp_path / "run").glob("*.jsonl")}

    _, ids = run("instruct", tmp_path, MODEL, prompts=prompts)
    before = files()
    unloaded = client("local:smollm2")
    assert run("instruct", tmp_path, unloaded, prompts=prompts)[1] == ids and files() == before
    assert unloaded._loaded is None
