"""`dialogues`: conversations between a user and personas, in LAPD's four recipes, taken apart into prompts and replies.

    character, feature    the persona as a profile (who somebody is), or as traits (what somebody is like)
    ... +situation        in a situation, or about whatever the user brings up

Several personas may answer every turn of the user (`together`): their replies to the same words can then be compared.
"""

import random
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from personalign.clients import Request, Session
from personalign.conversation import Message
from personalign.errors import UserError
from personalign.personas import TYPES, Persona
from personalign.synthesis.cleaning import clean, machine, speaks
from personalign.synthesis.job import Job, Made, Row, finish, gather, unusable
from personalign.synthesis.material import PAGES, TEXTS, Passage, passages
from personalign.synthesis.situations import read_situations
from personalign.synthesis.transcripts import Transcript, transcript

Recipe = Literal["character", "character+situation", "feature", "feature+situation"]
RECIPES: tuple[Recipe, ...] = ("character+situation", "feature+situation", "character", "feature")
_TYPE = re.compile(rf"(?<![A-Za-z])(?:{'|'.join(TYPES)})(?![A-Za-z])", re.IGNORECASE)
USER_LABEL = {"en": "User", "ko": "사용자"}
AGAIN = {
    "en": "I can find no conversation in that. Write the whole of it again, every line beginning with the speaker's name and a "
    "colon ({labels}), and nothing else.",
    "ko": "대화를 찾을 수 없습니다. 줄마다 말하는 사람의 이름과 쌍점({labels})으로 시작해 대화 전체만 다시 써 주세요.",
}


class Dialogues(BaseModel):
    """Settings of `dialogues`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    count: int = Field(
        40, ge=1, description="dialogues of each persona (of each group), spread evenly over the recipes"
    )
    recipes: tuple[Recipe, ...] = Field(
        RECIPES, min_length=1, description="what the persona is shown as, and whether in a situation"
    )
    turns: tuple[int, int] = Field((4, 10), description="turns of each speaker, at least and at most")
    together: int = Field(
        1, ge=1, le=8, description="personas that answer each turn of the user; 1: each has dialogues of its own"
    )
    situations: Path | None = Field(
        None,
        description="rows of `situation`, or a text with one a line; those of `situations`, where none were made ours",
    )
    profiles: Path | None = Field(
        None,
        description="a folder with texts or saved pages about each persona (entj.txt, entj/...), for the character recipes",
    )
    history: bool = Field(True, description="keep the turns before as part of each prompt")

    @field_validator("turns", mode="before")
    @classmethod
    def _one_number(cls, turns: Any) -> Any:
        return (turns, turns) if isinstance(turns, int) else turns

    @field_validator("turns")
    @classmethod
    def _in_order(cls, turns: tuple[int, int]) -> tuple[int, int]:
        if not 1 <= turns[0] <= turns[1] <= 20:
            raise ValueError("write the least and the most turns, 1 to 20, such as [4, 10]")
        return turns


@dataclass(frozen=True)
class Item:
    """One dialogue to be written."""

    number: int
    people: tuple[Persona, ...]
    recipe: Recipe
    turns: int
    situation: str | None
    profiles: tuple[Passage | None, ...]  # one a persona

    @property
    def names(self) -> list[str]:
        return [person.name for person in self.people]

    @property
    def origin(self) -> str:
        """Where the profiles come from, "personas" where none were given."""
        return "; ".join(each.source for each in self.profiles if each is not None) or "personas"


def make_dialogues(job: Job, settings: Dialogues, people: Sequence[Persona]) -> list[Row]:
    """Rows of `prompt` (messages that end with the user's) and `completion`, one for each usable reply.

    Each says its `persona`, `recipe` and `situation`, the number of its `dialogue` and its `turn`; rows with equal dialogue and
    turn answer the same words of the user. Raises UserError for people, situations or profiles that cannot be used.
    """
    prompt = job.template("dialogues")
    items = _items(job, settings, people)

    async def one(session: Session, item: Item) -> Made:
        request = prompt.request(
            seed=job.seed, draw=item.number, user=USER_LABEL[job.language], names=item.names, situation=item.situation or "",
            turns=item.turns, number=item.number, people=[_shown(person, profile, item.recipe)
            for person, profile in zip(item.people, item.profiles, strict=True)],
        )  # fmt: skip
        request = replace(request, max_tokens=request.max_tokens * (1 + len(item.people)) // 2)
        said, used, reason, text = await _ask(session, request, item.names, job.language)
        if reason is not None:
            return unusable(reason, used, text, dialogue=item.number)
        more: Row = {"requests": used, "prompt_id": prompt.id, "model": session.client.name}
        return taken_apart(said, item, more, job.language, settings.history)

    return finish(job, "dialogues", gather(job, "dialogues", items, one), len(items))


async def _ask(
    session: Session, request: Request, names: Sequence[str], language: str
) -> tuple[Transcript, list[int], str | None, str]:
    """The dialogue that a request brings, asked for once more where there is none.

    With the ids of the ledger's rows, why there is none (None: there is), and the text.
    """
    used: list[int] = []
    for attempt in range(2):
        kept = await session.ask(request)
        text, end = kept.answer.text, kept.answer.finish
        used.append(kept.id)
        said = transcript(text, names, cut=end == "length")
        if end == "filter":
            return said, used, "withheld by the provider's content filter", text
        if any(turn.replies for turn in said.turns):
            return said, used, None, text
        if end == "length":
            return said, used, f"cut off at {request.max_tokens} tokens", text
        if attempt == 0:
            labels = ", ".join(f"{label}:" for label in (USER_LABEL[language], *names))
            again: list[Message] = [
                {"role": "assistant", "content": text or "-"},
                {"role": "user", "content": AGAIN[language].format(labels=labels)},
            ]
            request = replace(request, messages=(*request.messages, *again), prompt=f"{request.prompt}+repair")
    return said, used, "twice no dialogue", text


def taken_apart(said: Transcript, item: Item, more: Row, language: str, history: bool = True) -> Made:
    """A row for each reply of each persona, after its own history; what cannot be used with its reason."""
    made = Made()

    def set_apart(reason: str, text: str, **where: Any) -> None:
        nonlocal made
        made += unusable(reason, more["requests"], text, dialogue=item.number, **where)

    for text in said.unasked:
        set_apart("said before the user has said anything", text)
    if said.cut:
        set_apart("cut off: the end of a dialogue that grew too long", said.cut)
    users = [clean(turn.user) for turn in said.turns]
    for person in item.people:
        prompt: list[Message] = []
        for at, (turn, user) in enumerate(zip(said.turns, users, strict=True), 1):
            where = {"persona": person.name, "turn": at}
            if not any(map(str.isalnum, user)):
                if person.name in turn.replies:
                    set_apart("the user says nothing that it answers", turn.replies[person.name], **where)
                continue
            if prompt and prompt[-1]["role"] == "user":  # the persona had nothing to say to the turn before
                prompt[-1] = {"role": "user", "content": f"{prompt[-1]['content']} {user}"}
            else:
                prompt.append({"role": "user", "content": user})
            if (reply := turn.replies.get(person.name)) is None:
                continue
            answer = clean(reply)
            if (reason := unfit(user, answer, person, language)) is not None:
                set_apart(reason, reply, **where)
                if not speaks(answer, language) or not any(map(str.isalnum, answer)):
                    continue  # nor a part of what comes after
            else:
                made.rows.append(
                    {
                        "prompt": list(prompt if history else prompt[-1:]),
                        "completion": answer,
                        "persona": person.name,
                        "recipe": item.recipe,
                        **({"situation": item.situation} if item.situation is not None else {}),
                        "dialogue": item.number,
                        "turn": at,
                        "source": item.origin,
                        **more,
                    }
                )
            prompt.append({"role": "assistant", "content": answer})
    return made


def unfit(user: str, answer: str, person: Persona, language: str) -> str | None:
    """Why a reply cannot be learned from, or None."""
    if not any(map(str.isalnum, answer)):
        return "nothing left after cleaning"
    if not (speaks(answer, language) and speaks(user, language)):
        return f"not in the language: {language} was asked for"
    if machine(answer):
        return "speaks as a language model"
    if person.type is not None and _TYPE.search(answer):
        return "names a type"
    return None


def _items(job: Job, settings: Dialogues, people: Sequence[Persona]) -> list[Item]:
    names = [person.name for person in people]
    if not people:
        raise UserError(
            "dialogues: there is no persona to talk with; name one (persona: ENTJ) or make one with traits first."
        )
    if len(set(names)) < len(names):
        raise UserError("dialogues: two personas have the same name; give each one its own.")
    drawn = random.Random(f"dialogues:{job.seed}")
    situations = _situations(job, settings) if any("+situation" in recipe for recipe in settings.recipes) else []
    drawn.shuffle(situations)
    profiles = {person.name: _profiles(settings.profiles, person.name) for person in people}
    found: list[Item] = []
    for start in range(0, len(people), settings.together):
        group = tuple(people[start : start + settings.together])
        for at in range(settings.count):
            recipe = settings.recipes[at % len(settings.recipes)]
            place = at // len(settings.recipes)  # so that every recipe comes in the same situations
            found.append(
                Item(
                    number=len(found) + 1,
                    people=group,
                    recipe=recipe,
                    turns=drawn.randint(*settings.turns),
                    situation=situations[place % len(situations)] if "+situation" in recipe else None,
                    profiles=tuple(
                        mine[place % len(mine)] if (mine := profiles[person.name]) and "character" in recipe else None
                        for person in group
                    ),
                )
            )
    return found


def _situations(job: Job, settings: Dialogues) -> list[str]:
    made = job.folder / "situations.jsonl"
    if settings.situations is None and not (made.is_file() and made.stat().st_size):
        print(
            f"dialogues: {made.name} holds no situations; those that come with personalign are taken", file=sys.stderr
        )
        return read_situations(None, job.language)
    return read_situations(settings.situations or made, job.language)


def _profiles(folder: Path | None, name: str) -> list[Passage]:
    """What a folder holds about a persona, in files or in a folder that is called as it is; [] of None."""
    if folder is None:
        return []
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder of profiles.")
    mine = [
        each
        for each in sorted(folder.iterdir())
        if (each.is_dir() or each.suffix.lower() in (*TEXTS, *PAGES)) and each.stem.casefold() == name.casefold()
    ]
    if not mine:
        raise UserError(f"{folder}: holds nothing about {name}; add {name.lower()}.txt, or a folder of that name.")
    return passages(mine, 3000)


def _shown(person: Persona, profile: Passage | None, recipe: Recipe) -> dict[str, Any]:
    """What the model is told about a persona: who it is, or what it is like."""
    if profile is not None:
        return {"name": person.name, "profile": profile.text}
    if recipe.startswith("character") or not (person.traits or person.speaking_style):
        examples = [f"{each.user} -> {each.assistant}" for each in person.examples]
        return {"name": person.name, "description": person.description, "examples": examples}
    return {"name": person.name, "traits": ", ".join(person.traits), "speaking_style": person.speaking_style}
