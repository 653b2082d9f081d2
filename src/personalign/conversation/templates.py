"""Chat templates: rendering by the tokenizer's own, finding out how it behaves, refusing it plainly, grafting another.

How a template behaves is found by rendering probe conversations with it, never by a model's name.
"""

import os.path
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from jinja2 import TemplateError

from personalign.conversation.messages import Message, fold_system, name, validate
from personalign.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# In the order in which they are offered as a remedy. The plain ones end with eos and so fit nearly every tokenizer.
BUNDLED = ("gemma", "llama3", "chatml", "plain", "plain-ko")

# Some templates write today's date (Llama 3.1 and later, Mistral Small, SmolLM3). A rendering must not depend on the
# day it is made, so their `strftime_now` is shadowed by one that stands still, on the date that Llama's own templates
# fall back to. (transformers takes data for a template's variables, not functions. It drops the newline at the end.)
FIXED_DATE = datetime(2024, 7, 26)
_CODES = ("%d", "%m", "%Y", "%y", "%b", "%B", "%a", "%A", "%H", "%M", "%S")
_FIXED_CLOCK = (
    "{% macro strftime_now(format) %}{{ format"
    + "".join(f" | replace('{code}', '{FIXED_DATE.strftime(code)}')" for code in _CODES)
    + " }}{% endmacro %}\n"
)

PROBE: list[Message] = [
    {"role": "system", "content": "PROBE-SYSTEM"},
    {"role": "user", "content": "PROBE-QUESTION-1"},
    {"role": "assistant", "content": "PROBE-ANSWER-1"},
    {"role": "user", "content": "PROBE-QUESTION-2"},
    {"role": "assistant", "content": "PROBE-ANSWER-2"},
]


@dataclass(frozen=True)
class Layout:
    """How a tokenizer's chat template behaves, as its probes showed."""

    key: tuple[str, str | None, str | None]  # the template, BOS and EOS; when one of them changes it is probed again
    folds_system: bool  # the template has no (usable) system role: the prompt goes into the first user message
    prepends_bos: bool  # the tokenizer's convention has a BOS that the template does not write
    end: str  # what stands between an answer and the end of its end token, such as "<|im_end|>" or " </s>"
    end_id: int
    tail: str  # what the template writes after the end token of a conversation's last answer, such as "\n"
    control: re.Pattern[str]  # the special tokens that give a conversation its structure


class _Unfit(Exception):
    """A template under which training would go silently wrong; says why."""


def render(
    tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Message], *, add_generation_prompt: bool = False
) -> str:
    """The conversation as the model reads it, by the tokenizer's own chat template.

    A system prompt is folded into the first user message where the template has no system role, drops it or moves it
    about. Without a system prompt, some templates write one of their own (Qwen2.5, SmolLM2): it stays, the model was
    trained with it. Thinking is switched off, dates are fixed. `add_generation_prompt` opens the assistant's turn,
    after a user message.

    Raises UserError for messages that are no conversation, for a text with one of the template's control tokens in it
    (it would end the turn), and for a template that preflight refuses.
    """
    validate(messages)
    layout = probe(tokenizer)
    for position, message in enumerate(messages, 1):
        if found := layout.control.search(message["content"]):
            raise UserError(
                f"{name(position, message['role'])} contains {found[0]!r}, "
                "a control token of the chat template: remove it."
            )
    if add_generation_prompt and messages[-1]["role"] != "user":
        raise UserError(
            f"{name(len(messages), 'assistant')} is an answer already: a prompt must end with a user message."
        )
    try:
        return _apply(tokenizer, layout.key[0], messages, layout.folds_system, add_generation_prompt)
    except _Unfit as error:
        raise UserError(f"The chat template {error}: {remedy(tokenizer)}.") from error


def preflight(tokenizer: "PreTrainedTokenizerBase") -> None:
    """Refuse a chat template under which training would go silently wrong.

    Raises UserError with the remedy when there is none, when it fails on a plain conversation, when a prompt is not a
    prefix of the prompt with its answer, when no special token ends an answer (the model would never learn to stop), or
    when it writes BOS twice.
    """
    probe(tokenizer)


def use_template(tokenizer: "PreTrainedTokenizerBase", template: str | Path) -> None:
    """Give the tokenizer a bundled chat template (see BUNDLED) or the one in a Jinja file.

    Raises UserError, leaving the tokenizer as it was, when there is no such template or it does not fit the tokenizer.
    """
    if template in BUNDLED:
        text = _bundled(str(template))
    elif Path(template).is_file():
        text = Path(template).read_text(encoding="utf-8")
    else:
        raise UserError(
            f"There is no template {str(template)!r}: use {', '.join(BUNDLED)}, or the path of a .jinja file."
        )
    try:
        _probe(tokenizer, text)
    except _Unfit as error:
        raise UserError(f"The chat template {str(template)!r} {error}: {remedy(tokenizer)}.") from error
    tokenizer.chat_template = text


_layouts: "WeakKeyDictionary[PreTrainedTokenizerBase, Layout]" = WeakKeyDictionary()


def probe(tokenizer: "PreTrainedTokenizerBase") -> Layout:
    """How the tokenizer's chat template behaves, found once and remembered. Raises UserError as preflight does."""
    if tokenizer.chat_template is None:
        raise UserError(f"The tokenizer has no chat template: {remedy(tokenizer)}.")
    text = tokenizer.get_chat_template()
    layout = _layouts.get(tokenizer)
    if layout is None or layout.key != (text, tokenizer.bos_token, tokenizer.eos_token):
        try:
            layout = _layouts[tokenizer] = _probe(tokenizer, text)
        except _Unfit as error:
            raise UserError(f"The chat template {error}: {remedy(tokenizer)}.") from error
    return layout


def remedy(tokenizer: "PreTrainedTokenizerBase") -> str:
    """What to tell a user whose template is refused: the bundled ones that fit this tokenizer, tried not guessed."""
    fitting = [template for template in BUNDLED if _fits(tokenizer, _bundled(template))]
    if not fitting:
        return "give the tokenizer an eos_token, or set `template:` in the recipe to the path of a .jinja file"
    others = f" (or {', '.join(fitting[1:])})" if fitting[1:] else ""
    return f"set `template: {fitting[0]}`{others} in the recipe"


def _bundled(template: str) -> str:
    return (files("personalign.conversation") / "templates" / f"{template}.jinja").read_text(encoding="utf-8")


def _fits(tokenizer: "PreTrainedTokenizerBase", text: str) -> bool:
    try:
        _probe(tokenizer, text)
    except _Unfit:
        return False
    return True


def _apply(
    tokenizer: "PreTrainedTokenizerBase",
    text: str,
    messages: Sequence[Message],
    folds_system: bool,
    add_generation_prompt: bool = False,
) -> str:
    """Render by this template, whatever the tokenizer's own is. Raises _Unfit when the template raises."""
    if folds_system:
        messages = fold_system(messages)
    try:
        rendered = tokenizer.apply_chat_template(
            [{"role": message["role"], "content": message["content"]} for message in messages],
            chat_template=_FIXED_CLOCK + text if "strftime_now" in text else text,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            enable_thinking=False,
        )
    except (TemplateError, TypeError, ValueError, LookupError, AttributeError) as error:  # a template is foreign code
        raise _Unfit(f"fails on this conversation ({error})") from error
    return str(rendered)


def _probe(tokenizer: "PreTrainedTokenizerBase", text: str) -> Layout:
    """The layout with the template's own system role if that works, else with the system prompt folded."""
    try:
        return _probe_as(tokenizer, text, folds_system=False)
    except _Unfit:
        return _probe_as(tokenizer, text, folds_system=True)


def _probe_as(tokenizer: "PreTrainedTokenizerBase", text: str, folds_system: bool) -> Layout:
    """Render the probe turn by turn and read off where things stand. Raises _Unfit."""
    renderings = []
    for count in (3, 5):
        prompt = _apply(tokenizer, text, PROBE[: count - 1], folds_system, add_generation_prompt=True)
        whole = _apply(tokenizer, text, PROBE[:count], folds_system)
        answer = PROBE[count - 1]["content"]
        in_order = ".*".join(re.escape(message["content"]) for message in PROBE[:count])
        if not re.search(in_order, whole, re.DOTALL):
            raise _Unfit("drops or reorders messages")
        if not whole.startswith(prompt):
            raise _Unfit("does not keep the prompt as it was once the answer follows it")
        if not whole[len(prompt) :].lstrip().startswith(answer):
            raise _Unfit("does not open the assistant's turn at the end of a prompt")
        renderings.append(whole)
    after_last = renderings[0].partition("PROBE-ANSWER-1")[2]
    after_earlier = renderings[1].partition("PROBE-ANSWER-1")[2].partition("PROBE-QUESTION-2")[0]

    # What follows the last answer may open the next turn (Llama 3's first template does), and some templates end only
    # the last answer: an end token is one that follows every answer.
    special = _special_tokens(tokenizer)
    found = re.search(_any_of(special), os.path.commonprefix([after_last, after_earlier]))
    if not found:
        raise _Unfit("does not end an answer with a special token, so a model could not learn to stop")
    end = after_last[: found.end()]
    end_id = encode(tokenizer, end)[-1]
    if tokenizer.convert_ids_to_tokens(end_id) != found[0]:
        raise _Unfit(f"ends an answer with {found[0]!r}, which the tokenizer does not read as one token")

    bos = tokenizer.bos_token
    opening = renderings[0].partition("PROBE-SYSTEM")[0]
    if bos and re.match(rf"\s*{re.escape(bos)}\s*{re.escape(bos)}", opening):
        raise _Unfit(f"writes the token that begins a text, {bos!r}, twice")
    control = {token for token in special if token in renderings[1]} | {found[0]}
    control |= {token for token in (bos, tokenizer.eos_token) if token}
    return Layout(
        key=(text, bos, tokenizer.eos_token),
        folds_system=folds_system,
        prepends_bos=_adds_bos(tokenizer) and bos not in opening,
        end=end,
        end_id=end_id,
        tail=after_last[found.end() :],
        control=re.compile(_any_of(control)),
    )


def _special_tokens(tokenizer: "PreTrainedTokenizerBase") -> set[str]:
    """Tokens that no ordinary text becomes: special ones, and added ones, since not every tokenizer marks those of its
    turns as special. Runs of blanks, which Gemma adds too, are ordinary text."""
    added = {str(token) for token in tokenizer.added_tokens_decoder.values()}
    return {token for token in added | set(tokenizer.all_special_tokens) if token.strip()}


def _any_of(tokens: set[str]) -> str:
    """A pattern for any of these tokens, the longest first; one that never matches for none."""
    return "|".join(re.escape(token) for token in sorted(tokens, key=len, reverse=True)) or r"(?!)"


def _adds_bos(tokenizer: "PreTrainedTokenizerBase") -> bool:
    return tokenizer.bos_token_id is not None and tokenizer("a").input_ids[:1] == [tokenizer.bos_token_id]


def encode(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    """Token ids of the text and nothing else: no BOS, no EOS, no warning about its length."""
    return tokenizer(text, add_special_tokens=False, verbose=False).input_ids
