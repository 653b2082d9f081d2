"""Personas: the 16 types, free ones, and their YAML."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from personalign.errors import UserError
from personalign.personas import AXES, TYPES, Example, Persona, example_names, opposite, persona, poles

TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30)


def test_there_are_sixteen_types_one_pole_of_each_axis():
    assert len(set(TYPES)) == 16
    assert all(letter in axis for name in TYPES for letter, axis in zip(name, AXES, strict=True))


def test_poles_of_a_type_or_a_part_of_one_come_in_axis_order():
    assert poles("entj") == ("E", "N", "T", "J")
    assert poles("te") == ("E", "T")
    assert opposite("ENTJ") == "ISFP"
    assert opposite("E") == "I"


@pytest.mark.parametrize("wrong", ["", "X", "EI", "ENTX", "EE", "ENTJP"])
def test_poles_refuses_what_is_no_type(wrong):
    with pytest.raises(UserError, match="none of the 16 types"):
        poles(wrong)


@pytest.mark.parametrize("name", TYPES)
def test_a_type_has_a_short_system_prompt_in_each_language(name):
    english, korean = persona(name.lower(), "en"), persona(name, "ko")
    assert english.type == korean.type == name
    assert english.system_prompt.startswith("You are ") and len(english.system_prompt.split()) <= 90
    assert korean.system_prompt.startswith("당신은 ") and korean.language == "ko"
    assert not any("MBTI" in one.system_prompt for one in (english, korean))


@pytest.mark.parametrize("language", ["en", "ko"])
def test_turning_one_pole_changes_what_it_says_and_nothing_else(language):
    entj, intj = persona("ENTJ", language), persona("INTJ", language)
    assert entj.traits[2:] == intj.traits[2:] and not set(entj.traits[:2]) & set(intj.traits[:2])
    assert len({persona(name, language).system_prompt for name in TYPES}) == 16


def test_the_bundled_examples_load_by_name_in_both_languages():
    assert example_names() == ("pessimistic-job-seeker",)
    english, korean = (persona("pessimistic-job-seeker", language) for language in ("en", "ko"))
    assert english.type is None and english.examples and "pessimistic" in english.system_prompt
    assert korean.language == "ko" and korean.system_prompt.startswith("당신은 ")


def test_an_unknown_name_lists_the_nearest():
    with pytest.raises(UserError, match="did you mean ENTJ"):
        persona("ENTJJ")
    with pytest.raises(UserError, match="pessimistic-job-seeker"):
        persona("pesimistic-jobseeker")
    with pytest.raises(UserError, match="unknown language 'fr'"):
        persona("ENTJ", "fr")


def test_the_system_prompt_is_composed_from_the_parts_or_taken_as_given():
    parts = {"name": "Mo", "description": "a baker", "traits": ["calm", "kind"], "speaking_style": "softly"}
    mo = Persona.model_validate(parts)
    assert mo.system_prompt.startswith("You are a baker. You are calm and kind. You speak softly. ")
    assert Persona.model_validate(parts | {"description": "She bakes."}).system_prompt.startswith("She bakes. You are")
    assert Persona.model_validate(parts | {"system_prompt": "Bake."}).system_prompt == "Bake."


def test_a_persona_is_immutable():
    with pytest.raises(ValidationError):
        persona("ENTJ").name = "other"


@settings(deadline=None)  # a busy machine is no failure
@given(
    st.builds(
        Persona,
        name=TEXT,
        language=st.sampled_from(["en", "ko"]),
        type=st.none() | st.sampled_from(TYPES),
        description=TEXT,
        traits=st.lists(TEXT, max_size=3).map(tuple),
        speaking_style=TEXT,
        examples=st.lists(st.builds(Example, user=TEXT, assistant=TEXT), max_size=2).map(tuple),
    ),
    st.none() | TEXT,
)
def test_yaml_keeps_every_persona(tmp_path_factory, composed, own_prompt):
    one = composed.model_copy(update={"system_prompt": own_prompt} if own_prompt else {})
    path = tmp_path_factory.mktemp("personas") / "one.yaml"
    one.to_yaml(path)
    assert persona(str(path)) == one


def test_yaml_is_short_and_readable(tmp_path):
    path = tmp_path / "ko.yaml"
    persona("ENTJ", "ko").to_yaml(path)
    text = path.read_text(encoding="utf-8")
    assert text.startswith("name: ENTJ\nlanguage: ko\ntype: ENTJ\n")
    assert "사교성" in text and "system_prompt" not in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: Mo\ndescription: a baker\ntrait: [calm]\n", "mo.yaml:3: unknown key `trait`; did you mean `traits`?"),
        ("name: Mo\n", "mo.yaml:1: the key `description` is missing."),
        ("name: Mo\ndescription: a baker\ntype: ENTX\n", "mo.yaml:3: `type`: "),
        ("name: no\ndescription: a baker\n", "mo.yaml:1: `name`: Input should be a valid string."),
        ("name: Mo\ndescription: a baker\nlanguage: fr\n", "mo.yaml:3: `language`: Input should be 'en' or 'ko'."),
        ("name: Mo\ndescription: a\nexamples:\n- user: Hi\n", "mo.yaml:4: the key `examples.0.assistant` is missing."),
        ("name: Mo\ndescription: a baker\nname: Al\n", "mo.yaml:3: `name` is written twice (first on line 1)"),
        ("name: [Mo\ndescription: x\n", "mo.yaml:2: is not valid YAML"),
        ("just words\n", "mo.yaml:1: holds no `key: value` lines"),
        ("", "mo.yaml:1: holds no `key: value` lines"),
    ],
)
def test_yaml_errors_name_file_line_and_key(tmp_path, text, message):
    path = tmp_path / "mo.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as error:
        Persona.from_yaml(path)
    assert str(error.value).startswith(str(tmp_path / message))
    assert "\n" not in str(error.value)


def test_every_wrong_key_is_named(tmp_path):
    path = tmp_path / "mo.yaml"
    path.write_text("description: 3\ntraits: calm\n", encoding="utf-8")
    with pytest.raises(UserError) as error:
        Persona.from_yaml(path)
    assert [line.split("`")[1] for line in str(error.value).splitlines()] == ["name", "description", "traits"]


def test_a_file_that_cannot_be_read_is_said_so(tmp_path: Path):
    with pytest.raises(UserError, match=r"none\.yaml: cannot be read"):
        persona(str(tmp_path / "none.yaml"))
    (tmp_path / "latin.yaml").write_bytes("name: Zoë".encode("latin-1"))
    with pytest.raises(UserError, match="not UTF-8"):
        persona(str(tmp_path / "latin.yaml"))
