"""A recipe says who is made, from what, how, and what is measured; an error names the key and the line."""

from pathlib import Path

import pytest

from personalign import recipe as recipes
from personalign.errors import UserError
from personalign.personas import TYPES
from personalign.starter import starter

RECIPES = Path(__file__).parents[1] / "recipes"


def written(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_two_keys_are_enough(tmp_path):
    recipe = recipes.load(written(tmp_path, "name: first\npersona: enfp\n"))
    assert (recipe.poles(), recipe.model, recipe.train.method) == ("ENFP", "smollm2", "dpo")
    assert recipe.folder() == Path("runs/first")


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("name: a\npersona: ENFP\nmodell: x\n", 3, "unknown key `modell`; did you mean `model`?"),
        (
            "name: a\npersona: ENFP\ntrain:\n  method: dpo\n  betta: 0.2\n",
            5,
            "unknown key `train.betta`; did you mean `beta`?",
        ),
        ("name: a\npersona: ENFP\ntrain:\n  method: sft\n  beta: 0.2\n", 5, "`train.beta`: belongs to the method dpo"),
        (
            "name: a\npersona: ENFP\ntrain: {method: kto}\n",
            3,
            "`train.method`: 'kto' is unknown; write sft, dpo, reward or ppo",
        ),
        ("name: a\npersona: ENFP\ntrain:\n  lora:\n    rank: 0\n", 5, "`train.lora.rank`"),
        ("name: a\npersona: ENFX\n", 2, "did you mean ENFP"),
        ("name: a\npersona: nobody.yaml\n", 2, "nobody.yaml: cannot be read"),
        ("name: a\npersona:\n  name: X\n  description: d\n  tratis: [y]\ntrain: null\n", 5, "did you mean `traits`?"),
        ("name: a\npersona:\n  name: X\n  description: d\n", 2, "X is none of the 16 types"),
        ("name: a\npersona: {name: X, language: ko, description: d}\nlanguage: en\n", 3, "the persona speaks ko"),
        ("name: a\npersona: ENFP\nadapter: some/folder\n", 3, "set `train: null`"),
        ("name: a\npersona: ENFP\nevaluate:\n  poles: EX\n", 4, "none of the 16 types"),
        ("name: a\npersona: ENFP\ndata: {source: [everyday, x.json]}\n", 3, "either everyday or files"),
        ("name: a\npersona: [ENFP, enfp]\n", 2, "ENFP is named twice"),
        ("name: a\npersona: [ENFP, ENFX]\n", 2, "did you mean ENFP"),
        ("name: a\npersona: []\n", 2, "names nobody"),
        ("name: a\npersona: [ENFP, INTJ]\ndata: {source: pairs.json}\n", 3, "several personas would learn the same"),
        ("name: a\npersona: all\nevaluate: {poles: E}\n", 3, "`evaluate.poles`: are one persona's"),
        ("name: a\npersona: ENFP\ntrain:\n  method: sft\n  data: {source: x.json}\n", 5, "belongs to a list of steps"),
        ("name: a\npersona: ENFP\ntrain:\n  method: ppo\n", 3, "`train.reward`: is missing"),
        (
            "name: a\npersona: ENFP\ntrain:\n- method: sft\n- method: ppo\n",
            5,
            "`train.1.reward`: is missing: put a reward step",
        ),
        ("name: a\npersona: ENFP\ntrain:\n- method: sft\n- method: dpo\n  betta: 1\n", 6, "did you mean `beta`?"),
        ("name: a\npersona: ENFP\ntrain:\n- method: sft\n  kl: 1\n", 5, "`train.0.kl`: belongs to the method ppo"),
        ("name: a\npersona: ENFP\ntrain: []\n", 3, "names no step"),
        (
            "name: a\npersona: ENFP\ntrain:\n- {method: sft, seeds: 2}\n- {method: dpo}\n",
            3,
            "give all of them the same",
        ),
        ("name: a\npersona: ENFP\ntrain: {method: reward}\n", 1, "a reward model is no policy to measure"),
        (
            "name: a\npersona: ENFP\ntrain:\n- method: sft\n  data: {source: [everyday, x.json]}\n",
            5,
            "either everyday or files",
        ),
        ("persona: ENFP\n", 1, "the key `name` is missing"),
        ("name: a/b\npersona: ENFP\n", 1, "`name`"),
    ],
)
def test_an_error_names_the_line_and_the_key(tmp_path, text, line, said):
    path = written(tmp_path, text)
    with pytest.raises(UserError) as error:
        recipes.load(path)
    assert str(error.value).startswith(f"{path}:{line}: ")
    assert said in str(error.value)


def test_every_error_is_told_at_once(tmp_path):
    with pytest.raises(UserError) as error:
        recipes.load(written(tmp_path, "name: a\npersona: ENFX\ntrain:\n  epochs: many\n  battch: 3\n"))
    assert len(str(error.value).splitlines()) == 3


def test_overrides_change_keys_of_any_depth(tmp_path):
    path = written(tmp_path, "name: a\npersona: ENFP\n")
    recipe = recipes.load(path, {"train.lora.rank": "4", "data.source": "pairs.json", "evaluate": "null", "name": "b"})
    assert (recipe.train.lora.rank, recipe.data.source, recipe.evaluate, recipe.name) == (4, ("pairs.json",), None, "b")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("train.betta", "1", "did you mean `beta`?"),
        ("train.beta", "x", "valid number"),
        ("name", "[", "not valid YAML"),
    ],
)
def test_an_override_that_is_wrong_is_named(tmp_path, key, value, said):
    path = written(tmp_path, "name: a\npersona: ENFP\n")
    with pytest.raises(UserError, match=f"^--set {key}.*{said.replace('?', '.')}"):
        recipes.load(path, {key: value})


def test_training_has_the_seed_of_the_recipe_unless_given_its_own(tmp_path):
    path = written(tmp_path, "name: a\npersona: ENFP\nseed: 3\n")
    assert recipes.load(path).train.seed == 3
    assert recipes.load(path, {"seed": "4"}).train.seed == 4
    assert recipes.load(path, {"train.seed": "5"}).train.seed == 5


def test_a_dumped_recipe_is_the_same_recipe(tmp_path):
    recipe = recipes.load(written(tmp_path, "name: a\npersona: {name: 나, language: ko, description: 늘 웃는 사람}\n"
                                            "language: ko\nseed: 2\nevaluate: {poles: E}\n"))  # fmt: skip
    recipes.dump(recipe, tmp_path / "again.yaml")
    assert recipes.load(tmp_path / "again.yaml") == recipe


def test_the_starter_is_valid_and_holds_the_defaults(tmp_path):
    path = tmp_path / "starter.yaml"
    path.write_text(starter(path), encoding="utf-8")
    assert recipes.load(path) == recipes.build({"name": "my-persona", "persona": "ENFP"})
    described = [line for line in path.read_text(encoding="utf-8").splitlines() if line.lstrip().startswith("#")]
    assert len(described) > 40


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.name)
def test_the_recipes_of_the_repository_are_valid_and_headed_by_their_command(path):
    recipe = recipes.load(path)
    assert path.read_text(encoding="utf-8").startswith(f"# personalign run recipes/{path.name}")
    for each in recipe.each().values():
        assert each.poles() or each.data.source != ("everyday",)


def test_all_sixteen_are_sixteen_ordinary_recipes(tmp_path):
    recipe = recipes.load(written(tmp_path, "name: x\npersona: all\nseed: 3\ndata: {limit: 5}\n"))
    each = recipe.each()
    assert list(each) == list(TYPES)
    assert each["INTJ"] == recipes.build(
        {"name": "x-INTJ", "persona": "INTJ", "seed": 3, "data": {"limit": 5}, "output": "runs/x/INTJ"}
    )


def test_an_ordinary_recipe_is_its_only_one(tmp_path):
    recipe = recipes.load(written(tmp_path, "name: x\npersona: ENFP\n"))
    assert recipe.each() == {"": recipe} and recipe.by_seed() == {"": recipe}


def test_types_files_and_written_personas_may_stand_in_one_list(tmp_path):
    pirate = tmp_path / "pirate.yaml"
    pirate.write_text("name: Old pirate\ndescription: an old pirate\n", encoding="utf-8")
    text = (
        f"name: x\npersona: [infp, {pirate}, {{name: An Imp!, description: an imp}}]\n"
        "data: {source: 'data/{persona}.json'}\n"
    )
    sources = {name: each.data.source for name, each in recipes.load(written(tmp_path, text)).each().items()}
    assert sources == {name: (f"data/{name}.json",) for name in ("INFP", "pirate", "An-Imp-")}


def test_in_a_folder_each_persona_has_the_file_that_is_named_after_it(tmp_path):
    for name in ("INFP_dpo.json", "ENTJ_dpo.json"):
        (tmp_path / name).write_text("[]", encoding="utf-8")
    text = f"name: x\npersona: [INFP, ENTJ]\ndata: {{source: {tmp_path}}}\n"
    each = recipes.load(written(tmp_path, text)).each()
    assert each["INFP"].data.source == (str(tmp_path / "INFP_dpo.json"),)
    with pytest.raises(UserError, match="which of its files is that of ISTP"):
        recipes.load(written(tmp_path, text.replace("ENTJ", "ISTP")))


def test_a_folder_that_is_not_there_is_left_to_whoever_reads_it():
    recipe = recipes.build({"name": "x", "persona": ["INFP", "ENTJ"], "data": {"source": "nowhere"}})
    assert recipe.each()["ENTJ"].data.source == ("nowhere/ENTJ.json",)


def test_seeds_are_recipes_that_differ_in_their_training_seed_alone():
    recipe = recipes.build({"name": "x", "persona": "ENFP", "seed": 4, "train": {"seeds": 3}})
    seeds = recipe.by_seed()
    assert {name: each.train.seed for name, each in seeds.items()} == {"seed-4": 4, "seed-5": 5, "seed-6": 6}
    first, second = list(seeds.values())[:2]
    assert first.seed == second.seed == 4 and first.train.seeds == 1
    assert first.train == second.train.model_copy(update={"seed": 4})
    assert second.folder() == Path("runs/x/seed-5") and second.by_seed() == {"": second}


CHAIN = """name: x
persona: ENFP
train:
- {method: sft, epochs: 2}
- {method: reward, data: {source: ranked.json}}
- {method: dpo}
- {method: ppo, data: {source: prompts.json}}
- {method: ppo, start: null, reward: other/run}
"""


def test_a_step_goes_on_from_the_policy_before_it_and_has_the_last_reward_model(tmp_path):
    recipe = recipes.load(written(tmp_path, CHAIN))
    steps = recipe.steps()
    assert list(steps) == ["sft", "reward", "dpo", "ppo", "ppo-2"]
    assert [step.start for step in steps.values()] == [None, None, "sft", "dpo", None]
    assert (steps["ppo"].reward, steps["ppo-2"].reward) == ("reward", "other/run")
    assert recipe.policy() == "ppo-2"
    recipes.dump(recipe, tmp_path / "again.yaml")
    assert recipes.load(tmp_path / "again.yaml") == recipe


def test_what_is_measured_is_the_last_policys_data_unless_the_recipe_says_otherwise(tmp_path):
    text = CHAIN.replace("reward: other/run", "reward: other/run, data: {source: asked.json}")
    assert recipes.load(written(tmp_path, text)).data.source == ("asked.json",)
    assert recipes.load(written(tmp_path, text + "data: {source: mine.json}\n")).data.source == ("mine.json",)


def test_overrides_name_the_steps(tmp_path):
    path = written(tmp_path, CHAIN)
    recipe = recipes.load(path, {"train.ppo.kl": "0.5", "train.ppo-2.steps": "7", "seed": "9"})
    assert (recipe.steps()["ppo"].kl, recipe.steps()["ppo-2"].steps, recipe.steps()["sft"].seed) == (0.5, 7, 9)
    with pytest.raises(UserError, match="--set train.rm.epochs: there is no step `rm`; the steps are sft, reward, dpo"):
        recipes.load(path, {"train.rm.epochs": "1"})


def test_a_member_of_a_list_in_steps_has_its_own_files_in_every_step(tmp_path):
    text = "name: x\npersona: [INFP, ENTJ]\ntrain:\n- {method: sft, data: {source: 'sft/{persona}.json'}}\n- {method: dpo}\n"
    steps = recipes.load(written(tmp_path, text)).each()["ENTJ"].steps()
    assert steps["sft"].data.source == ("sft/ENTJ.json",) and steps["dpo"].data is None


def test_data_of_a_step_without_a_source_are_the_recipes_but_for_what_they_say(tmp_path):
    text = (
        "name: x\npersona: {name: X, description: d}\ndata: {source: pairs.json, prefer: 1, held_out: 0.2}\n"
        "train:\n- {method: sft, data: {portion: [0, 0.5], limit: 9}}\n- {method: dpo}\n"
    )
    path = written(tmp_path, text)
    recipe = recipes.load(path, {"data.source": "others.json"})
    sft, dpo = (recipe.data_of(step) for step in recipe.steps().values())
    assert (sft.source, sft.prefer, sft.held_out, sft.portion, sft.limit) == (("others.json",), 1, 0.2, (0, 0.5), 9)
    assert dpo == recipe.data
    recipes.dump(recipe, tmp_path / "again.yaml")
    again = recipes.load(tmp_path / "again.yaml")
    assert [again.data_of(step) for step in again.steps().values()] == [sft, dpo]
