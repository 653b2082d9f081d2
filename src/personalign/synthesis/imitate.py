"""`imitate`: a chatbot that talks like me, or like my boss (Polaris): from chat exports to a persona file and rows to learn from.

    <folder>/imitate.jsonl   messages: what others said, and what the speaker replied
    <folder>/persona.yaml    who it is, as the model describes it from some of these, with real exchanges as examples

Whoever speaks has to have consented. All is scrubbed of personal data as it is read (scrubbing.py): nothing else is sent to a
model or written, names of files included. A row's source is the number of the file among `chats` and the line in it.
"""

import random
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from personalign.clients import Session, ask_for
from personalign.errors import UserError
from personalign.personas import Persona
from personalign.personas.schema import Example
from personalign.synthesis.chat_exports import Chat, Said, read_chats
from personalign.synthesis.job import Job, Made, Row, finish, gather, unusable
from personalign.synthesis.scrubbing import NOT_NAMES, names_pattern, plain, scrub, scrubbed, without_placeholders

CONSENT = {
    "en": "The person who is imitated has agreed that their messages are used to train a language model that talks like them, "
    "and that some of them, scrubbed of personal data, are sent to the model that is asked for a description; and nobody else "
    "in these chats objects to it.",
    "ko": "흉내 낼 사람 본인이, 자신의 메시지로 자신처럼 말하는 언어 모델을 학습시키는 것과 개인정보를 지운 메시지 일부를 "
    "인물 설명을 맡길 모델에 보내는 것에 동의했고, 대화에 함께 나오는 다른 사람들도 반대하지 않습니다.",
}
CLIP = 300  # characters of a message that are shown to the model
LAUGHTER = re.compile(r"\b(?:(?:a?ha)+h?|(?:he)+|lo+l|lmao|[하헤히호]{2,})\b|[ㄱ-ㅎㅏ-ㅣ\W\d_]+", re.IGNORECASE)


class Imitate(BaseModel):
    """Settings of `imitate`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    chats: tuple[Path, ...] = Field(
        min_length=1, description="exports: KakaoTalk .txt or .csv, Telegram .json, or lines of `Name: text`"
    )
    speaker: str = Field(min_length=1, description="who is imitated, by the name that stands in the exports")
    consent: bool = Field(False, description=f"say so (true) if this holds: {CONSENT['en']}")
    hide: tuple[str, ...] = Field(
        (), description="more words to be scrubbed: nicknames, people who are only spoken of, a company, a school"
    )
    name: str | None = Field(None, description="what the persona is called; the model's own label if not given")
    description: str | None = Field(
        None, description="who it is, in a line, if the model shall know more than the messages"
    )
    pause: float = Field(60.0, gt=0, description="minutes of silence after which another conversation begins")
    replies: int = Field(4, ge=1, description="replies of the speaker in a row, at most")
    shown: int = Field(30, ge=1, description="exchanges from which the model describes the speaker")
    traits: int = Field(12, ge=1, le=40, description="trait words")
    examples: int = Field(4, ge=0, le=20, description="real exchanges in the persona file, scrubbed")


class _Person(BaseModel):
    """The answer that is asked for."""

    name: str = Field(min_length=1)
    description: str = Field(min_length=1)
    traits: list[str] = Field(min_length=1)
    speaking_style: str = Field(min_length=1)


@dataclass(frozen=True)
class _Turn:
    """What one side said before the other answered, scrubbed; from where on."""

    speaker: bool
    text: str
    source: str


def make_imitate(job: Job, settings: Imitate, people: Sequence[Persona] = ()) -> list[Row]:
    """Write the persona file and the rows to learn from; return the rows.

    The persona is called `name`, else as the first of `people`. Where the model gives no description in form the rows are
    written nevertheless, without persona.yaml. Raises UserError without consent, for a file that is no export, and for a
    speaker who is not in them (it names those who are).
    """
    if not settings.consent:
        raise UserError(
            f'imitate: needs consent. Confirm with --consent (`consent: true` in a recipe) that: "{CONSENT[job.language]}"'
        )
    chats = _chats(settings)
    speaker = _speaker(settings, [chat for _, chat in chats])
    titles = {title for _, chat in chats for title in chat.titles} - NOT_NAMES
    hidden = names_pattern({name for _, chat in chats for name in chat.names}, {*titles, *settings.hide})

    def clean(text: str) -> str:
        return scrub(text, hidden, job.language)

    made = Made()
    for source, chat in chats:
        if any(plain(said.name) == speaker for said in chat.said):
            for turns in _conversations(chat, speaker, settings.pause, source, clean):
                made += _rows(turns, settings.replies)
    _say(chats, speaker, made)
    described, person = _described(job, settings, people, made.rows, clean)
    name = person.name if person is not None else _name(settings, people, "imitated")
    for row in made.rows:
        row["persona"] = name
    if person is not None:
        person.to_yaml(job.folder / "persona.yaml")
    return finish(job, "imitate", [described, made])


def _chats(settings: Imitate) -> list[tuple[str, Chat]]:
    """Every chat with what rows call it: the names of files and chats are people's names too often."""
    found = []
    for number, path in enumerate(settings.chats, 1):
        several = read_chats(path)
        for part, chat in enumerate(several, 1):
            found.append((f"chat-{number}" if len(several) == 1 else f"chat-{number}.{part}", chat))
    return found


def _speaker(settings: Imitate, chats: Sequence[Chat]) -> str:
    """The speaker's name as it stands in the chats."""
    counts = Counter(plain(said.name) for chat in chats for said in chat.said)
    name = plain(settings.speaker).strip()
    if name not in counts:
        known = ", ".join(f"{each} ({count} messages)" for each, count in counts.most_common(10))
        raise UserError(
            f"imitate: {name!r} says nothing in these chats; set `speaker` to one of those who do: {known}."
        )
    return name


def _conversations(
    chat: Chat, speaker: str, pause: float, source: str, clean: Callable[[str], str]
) -> Iterator[list[_Turn]]:
    """The turns of each conversation: messages of one side in a row are one, a silence of `pause` minutes ends it.

    A turn is scrubbed as a whole: people send a number in three messages.
    """
    conversation: list[list[Said]] = []
    last: datetime | None = None
    for said in chat.said:
        mine = plain(said.name) == speaker
        if last is not None and said.time is not None and said.time - last > timedelta(minutes=pause):
            yield [_turn(turn, speaker, source, clean) for turn in conversation]
            conversation = []
        last = said.time or last
        if conversation and (plain(conversation[-1][0].name) == speaker) == mine:
            conversation[-1].append(said)
        else:
            conversation.append([said])
    yield [_turn(turn, speaker, source, clean) for turn in conversation]


def _turn(said: Sequence[Said], speaker: str, source: str, clean: Callable[[str], str]) -> _Turn:
    text = clean("\n".join(each.text for each in said))
    return _Turn(plain(said[0].name) == speaker, text, f"{source}:{said[0].number}")


def _rows(turns: list[_Turn], replies: int) -> Made:
    """A conversation in pieces that begin with another and end with the speaker; what is left over at its ends set apart."""
    made = Made()
    if turns and turns[0].speaker:
        made += unusable("opens a conversation, answers nothing", (), turns[0].text, source=turns[0].source)
        turns = turns[1:]
    if turns and not turns[-1].speaker:
        made += unusable("was not answered", (), turns[-1].text, source=turns[-1].source)
        turns = turns[:-1]
    for at in range(0, len(turns), 2 * replies):
        window = turns[at : at + 2 * replies]
        said = [turn.text for turn in window if turn.speaker]
        if not any(_has_words(text) for text in said):
            made += unusable("nothing but laughter or scrubbed words", (), "\n".join(said), source=window[0].source)
            continue
        messages = [{"role": "assistant" if turn.speaker else "user", "content": turn.text} for turn in window]
        # people said this: no model was asked for it
        made.rows.append(
            {"messages": messages, "source": window[0].source, "requests": [], "prompt_id": None, "model": None}
        )
    return made


def _has_words(text: str) -> bool:
    return bool(LAUGHTER.sub("", without_placeholders(text)))


def _described(
    job: Job, settings: Imitate, people: Sequence[Persona], rows: Sequence[Row], clean: Callable[[str], str]
) -> tuple[Made, Persona | None]:
    """The speaker as the model describes them from some exchanges, or what it said instead."""
    exchanges = [
        (asked["content"], reply["content"])
        for row in rows
        for asked, reply in zip(row["messages"][::2], row["messages"][1::2], strict=True)
    ]
    if not exchanges:
        return Made(), None
    luck = random.Random(job.seed)
    shown = [exchanges[at] for at in sorted(luck.sample(range(len(exchanges)), min(settings.shown, len(exchanges))))]
    prompt = job.template("imitate")
    fields = {
        "shown": [{"user": asked[:CLIP], "reply": reply[:CLIP]} for asked, reply in shown],
        "description": clean(settings.description or ""),
        "traits": settings.traits,
    }

    async def one(session: Session, fields: dict[str, Any]) -> Made:
        found = await ask_for(session, prompt.request(seed=job.seed, **fields), _Person, job.language)
        if found.value is None:
            return unusable(f"no description of the speaker: {found.reason}", found.requests, clean(found.text))
        return Made([found.value.model_dump()])

    (made,) = gather(job, "imitate", [fields], one)
    if not made.rows:
        print(
            "imitate: the model gave no description in form, so there is no persona.yaml; the rows are there",
            file=sys.stderr,
        )
        return made, None
    (said,) = made.rows
    short = [
        each for each in exchanges if all(4 <= len(text) <= 200 and scrubbed([text]).total() == 0 for text in each)
    ]
    examples = luck.sample(short, min(settings.examples, len(short)))
    person = Persona(
        name=_name(settings, people, clean(said["name"]).strip()),
        language=job.language,
        description=clean(said["description"]).strip(),
        traits=tuple(dict.fromkeys(clean(word).strip() for word in said["traits"] if word.strip()))[: settings.traits],
        speaking_style=clean(said["speaking_style"]).strip(),
        examples=tuple(Example(user=asked, assistant=reply) for asked, reply in examples),
    )
    return Made(), person


def _name(settings: Imitate, people: Sequence[Persona], other: str) -> str:
    return settings.name or (people[0].name if people else other)


def _say(chats: Sequence[tuple[str, Chat]], speaker: str, made: Made) -> None:
    """What was read, what of it is nobody's words, and what was scrubbed."""
    said = [plain(each.name) == speaker for _, chat in chats for each in chat.said]
    left_out = sum((chat.left_out for _, chat in chats), Counter[str]())
    texts = [message["content"] for row in made.rows for message in row["messages"]]
    marks = scrubbed([*texts, *(row["text"] for row in made.quarantined)])
    parts = [
        f"imitate: {len(said)} messages, {sum(said)} of them the speaker's",
        *(f"{count} {kind}" for kind, count in left_out.most_common()),
        f"scrubbed {', '.join(f'{count} {mark}' for mark, count in marks.most_common()) or 'nothing'}",
        "people who are only spoken of may still be named: give their names as `hide`",
    ]
    print("; ".join(parts), file=sys.stderr)
