"""Prompts as files: versioned, in two languages, rendered where they can do no harm; a user's own go before ours."""

import pytest

from personalign.errors import UserError
from personalign.synthesis import template
from scripted import Scripted, scripted_job

ASKS = "version: 3\nmax_tokens: 7\ntemperature: 0.5\nmessages:\n  - {role: user, content: '%s'}\n"


def own(folder, content, name="traits.en.yaml"):
    (folder / name).write_text(content if content.startswith("version") else ASKS % content, encoding="utf-8")
    return folder


def rendered(folder, content, **fields):
    return template("traits", "en", own(folder, content)).request(**fields).messages[-1]["content"]


def test_a_request_has_what_the_file_says_and_carries_name_language_and_version(tmp_path):
    request = template("traits", "en", own(tmp_path, "Who is {{ who }}?")).request(draw=2, seed=5, who="she")
    assert request.messages == ({"role": "user", "content": "Who is she?"},)
    assert (request.prompt, request.max_tokens, request.temperature) == ("own/traits.en@3", 7, 0.5)
    assert (request.draw, request.seed, request.top_p, request.options) == (2, 5, 1.0, {})


@pytest.mark.parametrize(("language", "word"), [("en", "Work this person out"), ("ko", "구체적으로 그려")])
def test_our_own_prompts_are_there_in_both_languages(language, word):
    found = template("traits", language)
    request = found.request(description="a baker", traits=5, examples=2)
    assert (
        found.id == request.prompt == f"traits.{language}@{found.file.version}"
        and word in request.messages[-1]["content"]
    )


def test_of_the_users_own_folder_go_those_that_are_there_and_of_ours_the_others(tmp_path):
    own(tmp_path, "Mine: {{ description }}")
    assert template("traits", "en", tmp_path).id == "own/traits.en@3"
    assert not template("traits", "ko", tmp_path).id.startswith("own/")


def test_the_options_of_a_job_go_with_every_request(tmp_path):
    with scripted_job(tmp_path, Scripted(lambda request: ""), options={"safety": "BLOCK_NONE"}) as job:
        request = job.template("traits").request(description="x", traits=1, examples=0)
    assert request.options == {"safety": "BLOCK_NONE"}


def test_what_is_put_in_is_text_and_never_a_template(tmp_path):
    assert rendered(tmp_path, "{{ it }}", it="{{ 7 * 7 }} {% raw %} <b>") == "{{ 7 * 7 }} {% raw %} <b>"


@pytest.mark.parametrize(
    "harmful",
    [
        "{{ it.__class__.__mro__ }}",
        '{{ "".__class__.__base__.__subclasses__() }}',
        "{{ it.append(1) }}",
        "{{ range(10000000) | list }}",
        '{% include "traits.ko.yaml" %}',
        "{{ lipsum.__globals__ }}",
    ],
)
def test_a_template_reaches_nothing_but_what_is_put_in(tmp_path, harmful):
    with pytest.raises(UserError, match=r"traits.en.yaml: messages.0: .*; mend the prompt\."):
        rendered(tmp_path, harmful, it=[])


@pytest.mark.parametrize("broken", ["{{ missing }}", "{{ 1 / 0 }}", "{{ it + 1 }}", "{{ it | nothing }}"])
def test_what_cannot_be_rendered_is_named_with_its_file(tmp_path, broken):
    with pytest.raises(UserError, match=r"traits.en.yaml: messages.0"):
        rendered(tmp_path, broken, it="x")


def test_a_message_that_comes_out_empty_is_left_out_and_one_of_the_users_must_be_left(tmp_path):
    text = (
        "version: 1\nmax_tokens: 9\nmessages:\n"
        "  - {role: system, content: '{% if style %}Write {{ style }}.{% endif %}'}\n  - {role: user, content: '{{ it }}'}\n"
    )
    found = template("traits", "en", own(tmp_path, text))
    assert [message["role"] for message in found.request(style="", it="Go").messages] == ["user"]
    assert [message["role"] for message in found.request(style="briefly", it="Go").messages] == ["system", "user"]
    with pytest.raises(UserError, match="asks nothing"):
        found.request(style="briefly", it="  ")


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("version: 1\nmax_tokens: 9\nmessages: [", "is not valid YAML"),
        ("version: 1\nmax_tokens: 9\nmessages: []", "messages: List should have at least 1 item"),
        ("version: 1\nmax_tokens: 9", "messages: Field required"),
        ("version: 0\nmax_tokens: 9\nmessages: [{role: user, content: x}]", "version: Input should be greater"),
        ("version: 1\nmessages: [{role: user, content: x}]", "max_tokens: Field required"),
        ("version: 1\nmax_tokens: 9\nmax_token: 1\nmessages: [{role: user, content: x}]", "max_token: Extra inputs"),
        (
            "version: 1\nmax_tokens: 9\nmessages: [{role: tool, content: x}]",
            "messages.0.role: Input should be 'system'",
        ),
        (
            "version: 1\nmax_tokens: 9\nmessages: [{role: user, content: '{% if %}'}]",
            "messages.0.content: .*line 1 of the text",
        ),
        ("version: 1\nmax_tokens: 9\ntemperature: .nan\nmessages: [{role: user, content: x}]", "temperature: .*finite"),
    ],
)
def test_a_file_that_is_no_prompt_is_named_with_its_key(tmp_path, content, error):
    with pytest.raises(UserError, match=f"traits.en.yaml: {error}"):
        template("traits", "en", own(tmp_path, content))


def test_a_file_in_another_encoding_a_missing_folder_and_a_slip_in_a_name_are_said(tmp_path):
    (tmp_path / "traits.en.yaml").write_bytes("version: 1 # é".encode("latin-1"))
    with pytest.raises(UserError, match="traits.en.yaml: is not UTF-8 text"):
        template("traits", "en", tmp_path)
    with pytest.raises(UserError, match="nowhere: there is no such folder of prompts"):
        template("traits", "en", tmp_path / "nowhere")
    (tmp_path / "traits.en.yaml").rename(tmp_path / "trait.en.yaml")
    (tmp_path / "recipe.yaml").touch()
    with pytest.raises(
        UserError, match=r"trait.en.yaml: there is no prompt of this name; did you mean traits.en.yaml\?"
    ):
        template("traits", "en", tmp_path)
