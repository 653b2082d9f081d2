"""A recipe says who is made, from what, how, and what is measured; an error names the key and the line."""

from pathlib import Path

import pytest

from personalign import recipe as recipes
from personalign.errors import UserError
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
        ("name: a\npersona: ENFP\ntrain: {method: kto}\n", 3, "`train.method`: 'kto' is unknown; write sft or dpo"),
        ("name: a\npersona: ENFP\ntrain:\n  lora:\n    rank: 0\n", 5, "`train.lora.rank`"),
        ("name: a\npersona: ENFX\n", 2, "did you mean ENFP"),
        ("name: a\npersona: nobody.yaml\n", 2, "nobody.yaml: cannot be read"),
        ("name: a\npersona:\n  name: X\n  description: d\n  tratis: [y]\ntrain: null\n", 5, "did you mean `traits`?"),
        ("name: a\npersona:\n  name: X\n  description: d\n", 2, "X is none of the 16 types"),
        ("name: a\npersona: {name: X, language: ko, description: d}\nlanguage: en\n", 3, "the persona speaks ko"),
        ("name: a\npersona: ENFP\nadapter: some/folder\n", 3, "set `train: null`"),
        ("name: a\npersona: ENFP\nevaluate:\n  poles: EX\n", 4, "none of the 16 types"),
        ("name: a\npersona: ENFP\ndata: {source: [everyday, x.json]}\n", 3, "either everyday or files"),
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
    assert recipe.poles()
