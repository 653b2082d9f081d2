"""The recipe's `make`: a language model makes what is learned from, once for all personas, and a rerun pays for nothing."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from personalign import making, pipeline
from personalign import recipe as recipes
from personalign.cli import main
from personalign.clients import Request
from personalign.dryrun import dry_run
from personalign.errors import UserError
from personalign.personas import Persona
from personalign.recipe import Recipe
from scripted import standing_in

RECIPES = Path(__file__).parents[1] / "recipes"
GRUMBLER = {"name": "Grumbler", "description": "a job seeker full of negative thoughts"}
SUNNY = {"name": "Sunny", "description": "a job seeker who laughs at every refusal"}
STEPS = ["traits", {"dialogues": {"count": 4, "turns": [4, 4]}}, "rejections"]
THINGS = """the rent; the interview at nine; my broken shoe; a letter from the bank; our old piano; the bus to Leeds; a queue;
grandmother's recipe; that leaking tap; forms in triplicate; the neighbour's dog; my cousin's wedding; the night shift; a lost
key; the dentist; last summer's trip; an empty fridge; the chess club; a wet tent; the school play""".split("; ")


def model(request: Request) -> str:
    """A model that does as it is told, and says something else every time."""
    name = request.prompt.removeprefix("own/").partition(".")[0]
    if name == "traits":
        (about,) = [each for each in (GRUMBLER, SUNNY) if each["description"] in request.messages[-1]["content"]]
        style = "in short sentences" if about is GRUMBLER else "in long and winding sentences"
        return json.dumps({**about, "traits": ["stubborn", "honest"], "speaking_style": style, "examples": []})
    if name == "opposite":
        return json.dumps({"description": "somebody content", "traits": ["content"], "speaking_style": "calmly"})
    if name == "rejections":
        reply = request.messages[1]["content"].partition("The reply:")[2].strip().splitlines()[0]
        return json.dumps({"reply": reply.replace("never", "often").replace("no good", "a treat")})
    names = [who for who in ("Grumbler", "Sunny") if f"{who}:" in request.messages[1]["content"]]
    lines = []
    for turn in range(4):
        first, second, third, fourth = random.Random(f"{request.draw}/{turn}").sample(THINGS, 4)
        lines.append(f"User: What about {first}, or {second}?")
        lines += [f"{who}: I never liked {third}, and {fourth} is no good to {who}." for who in names]
    return "\n".join(lines)


@pytest.fixture
def asked(monkeypatch) -> list[Request]:
    """What the model was asked for, by all clients that are made."""
    return standing_in(monkeypatch, model)


def build(folder: Path, make: dict | None = None, **parts) -> Recipe:
    given = {"name": "x", "persona": GRUMBLER, "output": str(folder / "run"), "data": {"source": "made"}}
    make = {"client": "local:scripted", "steps": STEPS} | (make or {})
    return recipes.build(given | {"train": None, "evaluate": None, "make": make} | parts)


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_from_one_line_to_the_rows_that_are_learned_from(tmp_path, asked, capsys):
    folder = pipeline.run(build(tmp_path))
    made = rows(folder / "made" / "personas" / "Grumbler.jsonl")
    assert len(made) == 16 and made == rows(folder / "made" / "rejections.jsonl")
    assert all(row["requests"] and row["prompt_id"] and row["model"] == "local:scripted" for row in made)
    learned = rows(folder / "data" / "train.jsonl") + rows(folder / "data" / "held_out.jsonl")
    assert {row["chosen"] for row in learned} == {row["chosen"] for row in made}
    who = Persona.from_yaml(folder / "persona.yaml")
    assert (who.name, who.traits, who.speaking_style) == ("Grumbler", ("stubborn", "honest"), "in short sentences")
    said = capsys.readouterr().err
    assert "lint: 16 rows, 0 duplicates" in said and "tokens spent" in said
    assert "rows          16, of which bad 0" in (folder / "made" / "personas" / "Grumbler.lint.txt").read_text("utf-8")


def test_a_second_run_asks_for_nothing(tmp_path, asked, capsys):
    folder = pipeline.run(build(tmp_path))
    count = len(asked)
    before = (folder / "made" / "rejections.jsonl").read_bytes()
    pipeline.run(build(tmp_path, {"budget_usd": 3, "limits": {"concurrency": 2}}))  # they make no other rows
    assert len(asked) == count and "make      done before" in capsys.readouterr().err
    (folder / "made" / "rejections.jsonl").write_text("by hand", encoding="utf-8")
    pipeline.run(build(tmp_path))  # done again, and every answer is in the ledger
    assert len(asked) == count and (folder / "made" / "rejections.jsonl").read_bytes() == before


def test_another_setting_asks_only_for_what_is_new(tmp_path, asked):
    pipeline.run(build(tmp_path))
    count = len(asked)
    pipeline.run(build(tmp_path, {"steps": ["traits", {"dialogues": {"count": 5, "turns": [4, 4]}}, "rejections"]}))
    assert count < len(asked) < 1.5 * count


def test_several_personas_share_one_stage_and_answer_the_same_turns(tmp_path, asked):
    folder = pipeline.run(build(tmp_path, persona=[GRUMBLER, SUNNY]))
    made = {name: rows(folder / "made" / "personas" / f"{name}.jsonl") for name in ("Grumbler", "Sunny")}
    turns = {
        name: {(row["dialogue"], row["turn"]): row["prompt"][-1]["content"] for row in made[name]} for name in made
    }
    assert len(turns["Grumbler"]) == 16 and turns["Grumbler"] == turns["Sunny"]
    assert {row["persona"] for row in made["Sunny"]} == {"Sunny"}
    assert Persona.from_yaml(folder / "Sunny" / "persona.yaml").speaking_style == "in long and winding sentences"
    learned = rows(folder / "Sunny" / "data" / "train.jsonl")
    assert learned and all("to Sunny" in row["chosen"] for row in learned)
    own = recipes.load(folder / "Sunny" / "recipe.yaml")  # an ordinary run, whose data are a file
    assert own.make is None and own.data.source == (str(folder / "made" / "personas" / "Sunny.jsonl"),)


def test_near_copies_are_left_out_and_turns_of_one_dialogue_are_none(tmp_path, asked):
    folder = pipeline.run(build(tmp_path, {"steps": [*STEPS, "dedupe"]}))
    kept = rows(folder / "made" / "personas" / "Grumbler.jsonl")
    assert len(kept) > 10 and {row["turn"] for row in kept} == {1, 2, 3, 4}
    path = tmp_path / "twice.jsonl"
    again = [row | {"dialogue": 9} for row in kept]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*kept, *again]), encoding="utf-8")
    steps = [{"dedupe": {"file": str(path)}}]
    folder = pipeline.run(build(tmp_path, {"steps": steps}, output=str(tmp_path / "again")))
    assert rows(folder / "made" / "personas" / "Grumbler.jsonl") == kept
    apart = rows(folder / "made" / "dedupe.quarantine.jsonl")
    assert [row["reason"] for row in apart] == [
        f"repeats an earlier row: twice.jsonl:{at}, rouge-l 1.00" for at in range(1, len(kept) + 1)
    ]


def test_a_budget_ends_with_exit_code_2_and_a_larger_one_goes_on(tmp_path, asked, capsys):
    path = tmp_path / "recipe.yaml"
    recipes.dump(build(tmp_path, {"client": "openai:gpt-4o-mini", "budget_usd": 0.002}), path)
    assert main(["run", str(path)]) == 2
    said = capsys.readouterr().err
    assert "the budget of $0.0020 is reached" in said and "the same command with a larger budget goes on" in said
    first = {request.hashed("") for request in asked}
    assert first and not (tmp_path / "run" / "stages" / "make.json").exists()
    asked.clear()
    assert main(["run", str(path), "--set", "make.budget_usd=1"]) == 0
    assert asked and not first & {request.hashed("") for request in asked}  # nothing is paid for twice
    assert main(["data", "ledger", str(tmp_path / "run")]) == 0
    assert "rejections" in capsys.readouterr().out


def test_ctrl_c_ends_with_exit_code_130_and_the_same_command_goes_on(tmp_path, asked, monkeypatch, capsys):
    path = tmp_path / "recipe.yaml"
    recipes.dump(build(tmp_path), path)

    def interrupted(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("personalign.synthesis.rejections.make_rejections", interrupted)
        assert main(["run", str(path)]) == 130
    count = len(asked)
    assert main(["run", str(path)]) == 0
    assert not {"traits", "dialogues"} & {request.prompt.partition(".")[0] for request in asked[count:]}


def test_where_everything_is_set_apart_it_says_where_to_look(tmp_path, monkeypatch):
    standing_in(monkeypatch, lambda request: "I am a small model.")
    with pytest.raises(UserError, match=r"Grumbler\.jsonl: not one row came of it; .*quarantine\.jsonl"):
        pipeline.run(build(tmp_path, {"steps": ["dialogues", "rejections"]}))
    apart = rows(tmp_path / "run" / "made" / "dialogues.quarantine.jsonl")
    assert len(apart) == 40 and {row["reason"] for row in apart} == {"twice no dialogue"}


def test_nobody_is_asked_in_a_dry_run(tmp_path, tiny_folder, capsys, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    dpo = {"method": "dpo", "epochs": 1}
    dry_run(build(tmp_path, {"client": "openai:gpt-4o-mini"}, train=dpo, model=str(tiny_folder)))
    said = capsys.readouterr().out
    assert "traits, dialogues, rejections with openai:gpt-4o-mini: nothing is asked in a dry run" in said
    assert "before the real one, set OPENAI_API_KEY" in said and "Grumbler.jsonl is not here" in said
    assert not (tmp_path / "run").exists()


def test_the_recipe_of_the_repository_passes_its_dry_run(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = ["evaluate=null", f"make.prompts={RECIPES / 'small-model'}"]
    assert main(["run", str(RECIPES / "make-a-persona.yaml"), "--dry-run", "--set", *settings]) == 0
    said = capsys.readouterr().out
    assert "traits, dialogues, rejections, dedupe with local:smollm2: nothing is asked" in said
    assert "12 rows of our own (prompt, chosen, rejected) stand in" in said and not list(tmp_path.iterdir())


def test_a_dry_run_refuses_what_the_real_one_would(tmp_path, tiny_folder):
    train = {"method": "dpo"}
    unpriced = {"client": "openai:of-my-own", "budget_usd": 1}
    with pytest.raises(UserError, match="make.budget_usd: the price of openai:of-my-own is not known"):
        dry_run(build(tmp_path, unpriced, train=train, model=str(tiny_folder)))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "dialoges.en.yaml").write_text("version: 1\n", encoding="utf-8")
    (tmp_path / "mine" / "traits.en.yaml").write_text("version: 1\nmax_tokens: 9\nmessages: []\n", encoding="utf-8")
    with pytest.raises(
        UserError, match=r"dialoges\.en\.yaml: there is no prompt of this name; did you mean dialogues\.en\.yaml"
    ):
        dry_run(build(tmp_path, {"prompts": str(tmp_path / "mine")}, train=train, model=str(tiny_folder)))
    (tmp_path / "mine" / "dialoges.en.yaml").unlink()
    with pytest.raises(UserError, match=r"traits\.en\.yaml: messages: List should have at least 1 item"):
        dry_run(build(tmp_path, {"prompts": str(tmp_path / "mine")}, train=train, model=str(tiny_folder)))


def test_own_prompts_are_part_of_what_the_rows_depend_on(tmp_path, asked):
    mine = tmp_path / "mine"
    mine.mkdir()
    pipeline.run(build(tmp_path, {"prompts": str(mine)}))
    text = Path(str(making.resources.files("personalign.synthesis") / "prompts" / "rejections.en.yaml")).read_text(
        "utf-8"
    )
    (mine / "rejections.en.yaml").write_text(text.replace("version: 1", "version: 7"), encoding="utf-8")
    folder = pipeline.run(build(tmp_path, {"prompts": str(mine)}))
    assert {row["prompt_id"] for row in rows(folder / "made" / "rejections.jsonl")} == {"own/rejections.en@7"}


def test_the_recipe_of_the_repository_goes_through_with_the_prompts_for_small_models(tmp_path, monkeypatch):
    found: set[str] = set()

    def little(request: Request) -> str:
        found.add(request.prompt)
        if request.prompt.startswith("own/traits"):
            return request.messages[3]["content"]  # the form of the example, copied
        if request.prompt.startswith("own/rejections"):
            reply = request.messages[-1]["content"].partition(" says: ")[2].splitlines()[0]
            return json.dumps({"reply": reply.replace("never", "often").replace("no good", "a treat")})
        return model(replace(request, messages=(request.messages[0], {"role": "user", "content": "Grumbler:"})))

    standing_in(monkeypatch, little)
    recipe = recipes.load(RECIPES / "make-a-persona.yaml", {"make.prompts": str(RECIPES / "small-model")})
    folder = pipeline.run(recipe.model_copy(update={"output": str(tmp_path / "run"), "train": None, "evaluate": None}))
    assert found == {"own/traits.en@1", "own/dialogues.en@1", "own/rejections.en@1"}
    assert rows(folder / "made" / "personas" / "Grumbler.jsonl") and rows(folder / "data" / "held_out.jsonl")
    assert Persona.from_yaml(folder / "persona.yaml").description.startswith("a retired teacher")


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"steps": ["trats"]}, "make.steps.0: 'trats' is no pipeline; did you mean traits"),
        ({"steps": []}, "make.steps: names no step"),
        ({"steps": [{"dialogues": {"cuont": 3}}]}, "dialogues.cuont: is no setting of dialogues; did you mean count"),
        ({"steps": ["traits", {"dialogues": {"count": 0}}]}, "make.steps.1.dialogues.count: Input should be greater"),
        ({"client": "opnai:gpt"}, "make.client: opnai:gpt: the provider 'opnai' is not known"),
        ({"prices": {"openai:x": {"input": 1}}}, "make.prices.openai:x.output: Field required"),
        ({"steps": ["traits"]}, "data.source: made is what `make` makes, and no step of it makes rows"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_it_is_said_when_the_recipe_is_read(tmp_path, parts, said):
    with pytest.raises(UserError) as error:
        build(tmp_path, parts)
    assert said in str(error.value)


def test_made_without_a_make_is_refused():
    with pytest.raises(UserError, match="data.source: made is what `make` makes, and there is no `make` here"):
        recipes.build({"name": "x", "persona": "ENFP", "data": {"source": "made"}})


def test_steps_of_training_share_what_was_made_and_divide_it(tmp_path, asked):
    train = [{"method": "sft", "data": {"portion": [0, 0.5]}}, {"method": "dpo", "data": {"portion": [0.5, 1]}}]
    recipe = build(tmp_path, train=train).each()[""]
    made = (str(tmp_path / "run" / "made" / "personas" / "Grumbler.jsonl"),)
    assert [recipe.data_of(step).source for step in recipe.steps().values()] == [made, made]


def test_a_dumped_recipe_is_the_same_recipe_and_its_settings_can_be_set(tmp_path):
    recipe = build(tmp_path, {"prices": {"openai:x": {"input": 1, "output": 2}}})
    recipes.dump(recipe, tmp_path / "again.yaml")
    assert recipes.load(tmp_path / "again.yaml") == recipe
    changed = recipes.load(tmp_path / "again.yaml", {"make.steps.dialogues.count": "7", "make.client": "local:other"})
    assert changed.make.steps[1]["dialogues"]["count"] == 7 and changed.make.client == "local:other"
    with pytest.raises(UserError, match="there is no step `restyle`; the steps are traits, dialogues, rejections"):
        recipes.load(tmp_path / "again.yaml", {"make.steps.restyle.count": "7"})


def test_a_type_keeps_its_poles_when_its_traits_are_made(tmp_path, monkeypatch):
    who = {"name": "x", "description": "someone", "traits": ["loud"], "speaking_style": "loudly", "examples": []}
    standing_in(monkeypatch, lambda request: json.dumps(who))
    parts = {"data": {"source": "everyday"}, "persona": "ENFP"}
    folder = pipeline.run(build(tmp_path, {"steps": ["traits"]}, **parts))
    assert Persona.from_yaml(folder / "persona.yaml").type == "ENFP"
    assert build(tmp_path, {"steps": ["traits"]}, **parts).each()[""].poles() == "ENFP"
