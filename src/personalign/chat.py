"""A chat with a persona in the terminal, answers streaming."""

import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, Literal

from pydantic import Field

from personalign.commands import Terms
from personalign.conversation import Message
from personalign.errors import UserError
from personalign.recipe import Recipe
from personalign.runs import adapter_folder, recipe_of
from personalign.terminal import printable

HELP = "/reset forgets the conversation, /quit (or Ctrl-D) leaves, Ctrl-C stops an answer."
Answer = Callable[[list[Message]], Iterator[str]]


class Chat(Terms):
    """Options of `chat`."""

    model: str | None = Field(None, description="the base; that of the adapter's run, else smollm2, if not given")
    persona: str | None = Field(
        None, description="who it speaks as, by system prompt: one of the 16 types, a bundled example or a persona file"
    )
    adapter: str | None = Field(None, description="trained adapter: a PEFT folder, or a run folder such as runs/demo")
    language: Literal["en", "ko"] = Field("en", description="language of the persona")
    template: str | None = Field(None, description=Recipe.model_fields["template"].description)
    quantise: Literal["nf4", "int8"] | None = Field(None, description=Recipe.model_fields["quantise"].description)
    trust_remote_code: bool = Field(False, description=Recipe.model_fields["trust_remote_code"].description)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field("auto", description="precision of the base")
    max_new_tokens: int = Field(256, ge=1, description="longest answer, in tokens")
    temperature: float = Field(0.7, ge=0, description="0 always says the likeliest; higher is livelier")
    top_p: float = Field(0.95, gt=0, le=1, description="share of the probability that is drawn from")
    seed: int | None = Field(None, ge=0, description="seed of the drawing; another one each time if not given")


def chat(options: Chat) -> None:
    """Load the model, then talk until /quit or the end of input."""
    from personalign.models import load_adapter, load_model, resolve, stream
    from personalign.personas import persona
    from personalign.terminal import quiet_loading

    who = persona(options.persona, options.language) if options.persona is not None else None
    adapter = adapter_folder(options.adapter) if options.adapter is not None else None
    own = recipe_of(adapter) if adapter is not None else None
    name = options.model or (own.model if own else "smollm2")
    resolve(name)
    quiet_loading()
    model, tokenizer = load_model(
        name, precision=options.precision, template=options.template or (own.template if own else None),
        trust_remote_code=options.trust_remote_code, quantise=options.quantise or (own.quantise if own else None),
    )  # fmt: skip
    if adapter is not None:
        model = load_adapter(model, adapter)

    def answer(messages: list[Message]) -> Iterator[str]:
        return stream(
            model, tokenizer, messages, max_new_tokens=options.max_new_tokens, temperature=options.temperature,
            top_p=options.top_p, seed=options.seed,
        )  # fmt: skip

    room = _context(model) - options.max_new_tokens
    if sys.stdin.isatty():
        print(f"{who.name if who else name}{' with ' + str(adapter) if adapter else ''}. {HELP}")
    talk(answer, who.system_prompt if who else None, lambda messages: _fits(tokenizer, messages, room))


def talk(answer: Answer, system_prompt: str | None, fits: Callable[[list[Message]], bool]) -> None:
    """Read lines, stream answers; the oldest exchanges are forgotten when the conversation no longer `fits`.

    Lines come from the terminal or, one message a line, from a pipe. A message that the template or the context
    refuses is named and forgotten.
    """
    system: list[Message] = [Message(role="system", content=system_prompt)] if system_prompt else []
    history: list[Message] = []
    for line in _lines():
        if line == "/quit":
            return
        if line == "/reset":
            history = []
            print("(forgotten)")
        elif line.startswith("/"):
            print(HELP)
        elif line:
            try:
                asked = _trimmed(system, [*history, Message(role="user", content=line)], fits)
                said = _say(answer([*system, *asked]))
                history = [*asked, Message(role="assistant", content=said)] if said else asked[:-1]
            except UserError as error:
                print(f"personalign: {error}", file=sys.stderr)


def _lines() -> Iterator[str]:
    """What the user says, until the end of input; at a terminal Ctrl-C only clears the line."""
    if not sys.stdin.isatty():
        yield from (line.strip() for line in sys.stdin)
        return
    import readline  # noqa: F401  input() then has history and cursor keys

    while True:
        try:
            yield input("> ").strip()
        except KeyboardInterrupt:
            print()
        except EOFError:
            print()
            return


def _say(pieces: Iterator[str]) -> str:
    """Print an answer as it comes, and return it; Ctrl-C stops it where it is."""
    said = ""
    try:
        with closing(pieces) as open_pieces:  # type: ignore[type-var]
            for piece in open_pieces:
                said += piece
                print(printable(piece), end="", flush=True)
    except KeyboardInterrupt:
        print(" ...", end="")
    print("\n" if sys.stdout.isatty() else "")
    return said.strip()


def _trimmed(system: list[Message], messages: list[Message], fits: Callable[[list[Message]], bool]) -> list[Message]:
    while not fits([*system, *messages]):
        if len(messages) == 1:
            raise UserError("this message is longer than the model's context; shorten it.")
        messages = messages[2:]
    return messages


def _fits(tokenizer: Any, messages: list[Message], room: int) -> bool:
    from personalign.conversation import prompt_ids

    return len(prompt_ids(tokenizer, messages)) <= room


def _context(model: Any) -> int:
    """Tokens that the model can look at."""
    return int(getattr(model.config.get_text_config(), "max_position_embeddings", 2048))
