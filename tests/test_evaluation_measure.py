"""measure: every arm on one model, a summary that adds up, and a file that a killed measurement continues from."""

import json

import pytest
import torch

from personalign import trees
from personalign.datasets import everyday, type_pairs
from personalign.errors import UserError
from personalign.evaluation import CONTROLS, measure
from personalign.models import add_adapter
from personalign.personas import AXES, persona
from tiny import byte_tokenizer, tiny_model

KINDS = ("open", "texts", "letters")
ONE_EACH = 1 / 18  # of the inventory: one item an axis


@pytest.fixture(scope="module")
def tokenizer():
    return byte_tokenizer()


@pytest.fixture
def adapted(tokenizer):
    """A tiny model with a fresh adapter, which changes nothing yet (B = 0)."""
    return add_adapter(tiny_model("llama", len(tokenizer), num_hidden_layers=1), rank=2)


@torch.no_grad()
def train(model):
    """Make the adapter change something."""
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.normal_(0, 0.3, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def scored(monkeypatch):
    """How many trees went through the model so far."""
    counts = []
    whole = trees.logprobs

    def counting(model, batch, row_budget):
        counts.append(len(batch))
        return whole(model, batch, row_budget)

    monkeypatch.setattr(trees, "logprobs", counting)
    return counts


def measured(model, tokenizer, folder, **options):
    settings = {
        "pairs": type_pairs("ENFP", "en", "held_out")[:2],
        "base": {"name": "tiny", "fingerprint": "0"},
        "share": ONE_EACH,
        "progress": False,
    }
    return measure(model, tokenizer, options.pop("who", persona("ENFP")), folder=folder, **settings | options)


def test_the_summary_holds_every_arm_and_what_was_asked(adapted, tokenizer, tmp_path):
    train(adapted)
    situation = everyday("en", "held_out")[0]
    summary = measured(adapted, tokenizer, tmp_path / "evaluation", situations=[situation], training={"method": "dpo"})
    assert summary == json.loads((tmp_path / "evaluation" / "summary.json").read_text(encoding="utf-8"))

    assert summary["persona"] == {"name": "ENFP", "type": "ENFP", "language": "en", "poles": "ENFP"}
    assert summary["training"] == {"method": "dpo"}
    names = ["base", "prompted", "adapter", "adapter+prompt"]
    assert [arm["name"] for arm in summary["arms"]] == names
    assert [arm["adapter"] is None for arm in summary["arms"]] == [True, True, False, False]
    inventory = summary["inventory"]
    assert inventory["items"] == dict.fromkeys(AXES, 1) and inventory["of"] == dict.fromkeys(AXES, 18)
    assert [axis["target"] for axis in inventory["axes"].values()] == list("ENFP")
    for axis in inventory["axes"].values():
        assert list(axis["arms"]) == names
        assert axis["arms"]["adapter"] != axis["arms"]["base"]
        assert axis["arms"]["base"]["open"]["percent"]["low"] is None  # one item says nothing about the others
    assert summary["preference"]["pairs"] == 2
    assert summary["preference"]["arms"]["adapter"]["reward"]["n"] == 2
    (answers,) = summary["answers"]
    assert (answers["id"], answers["prompt"], list(answers["answers"])) == (situation.id, situation.text, names)
    assert "4 of its 72 items" in summary["notes"][0]

    rows = [json.loads(line) for line in (tmp_path / "evaluation" / "results.jsonl").read_text("utf-8").splitlines()]
    kinds = [row["kind"] for row in rows]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "inventory": 4 * 4 * 6, "preference": 4 * 2, "answer": 4,
    }  # fmt: skip


def test_an_adapter_that_does_nothing_makes_no_difference(adapted, tokenizer, tmp_path):
    summary = measured(adapted, tokenizer, tmp_path, share=1 / 9)
    for axis in summary["inventory"]["axes"].values():
        for name in ("adapter - base", "adapter+prompt - prompted"):
            for kind in KINDS:
                for difference in axis["differences"][name][kind].values():
                    assert difference == {"value": 0, "low": 0, "high": 0}
        assert axis["arms"]["adapter"] == axis["arms"]["base"]
    assert summary["preference"]["arms"]["adapter"]["reward"]["k"] == 0
    assert summary["preference"]["differences"]["adapter - base"]["summed"] == {"value": 0, "low": 0, "high": 0}


def test_a_second_call_scores_nothing_and_says_the_same(adapted, tokenizer, tmp_path, scored):
    first = measured(adapted, tokenizer, tmp_path, arms=CONTROLS)
    assert sum(scored) == 2 * (4 + 2)
    assert measured(adapted, tokenizer, tmp_path, arms=CONTROLS) == first
    assert sum(scored) == 2 * (4 + 2)


def test_a_killed_measurement_goes_on_where_it_was(adapted, tokenizer, tmp_path, scored):
    whole = measured(adapted, tokenizer, tmp_path, arms=CONTROLS)
    path = tmp_path / "results.jsonl"
    content = path.read_bytes()
    lines = content.splitlines(keepends=True)
    # Killed within the second item: its first four lines are whole, the fifth is cut in the middle.
    path.write_bytes(b"".join(lines[: 6 + 4]) + lines[6 + 4][:30])
    scored.clear()
    assert measured(adapted, tokenizer, tmp_path, arms=CONTROLS) == whole
    assert sum(scored) == 2 * (4 + 2) - 1  # all but the first item
    assert path.read_bytes() == content
    scored.clear()
    measured(adapted, tokenizer, tmp_path, arms=CONTROLS)
    assert scored == []


def test_only_what_changed_is_measured_again(adapted, tokenizer, tmp_path, scored):
    first = measured(adapted, tokenizer, tmp_path)
    scored.clear()
    train(adapted)
    second = measured(adapted, tokenizer, tmp_path)
    assert sum(scored) == 2 * (4 + 2)  # the two arms with the adapter
    assert second["arms"][0] == first["arms"][0] and second["arms"][2] != first["arms"][2]
    scored.clear()
    measured(adapted, tokenizer, tmp_path, base={"name": "tiny", "fingerprint": "another"})
    assert sum(scored) == 4 * (4 + 2)


def test_a_free_persona_has_no_target_but_is_measured(adapted, tokenizer, tmp_path):
    who = persona("pessimistic-job-seeker", "ko")
    summary = measured(adapted, tokenizer, tmp_path, who=who, arms=CONTROLS, pairs=[])
    assert summary["persona"] == {"name": who.name, "type": None, "language": "ko", "poles": None}
    assert [axis["target"] for axis in summary["inventory"]["axes"].values()] == [None] * 4
    assert summary["preference"] == {"pairs": 0, "arms": {}, "differences": {}}
    assert sum(summary["inventory"]["type_probability"]["base"].values()) == pytest.approx(1)
    assert any("어느 극도 목표로 하지 않습니다" in note for note in summary["notes"])


def test_a_persona_of_one_pole_has_one_target(adapted, tokenizer, tmp_path):
    summary = measured(adapted, tokenizer, tmp_path, arms=CONTROLS, poles="I")
    assert [axis["target"] for axis in summary["inventory"]["axes"].values()] == ["I", None, None, None]


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_scored(adapted, tokenizer, tmp_path, scored):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(UserError, match="cannot write there"):
        measured(adapted, tokenizer, tmp_path / "file")
    assert scored == []


def test_arms_with_an_adapter_are_refused_on_a_bare_model(tokenizer, tmp_path):
    with pytest.raises(UserError, match="the model has none"):
        measured(tiny_model("llama", len(tokenizer), num_hidden_layers=1), tokenizer, tmp_path)
