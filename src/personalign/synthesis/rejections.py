"""`rejections`: the reply of each row turned to the opposite traits, so that a pair differs in the persona and in nothing else.

Where one of the two answers is the longer one as a rule, or talks of other things, a model learns that and not the persona. So
length and content of every pair are measured, what is off is asked for once more with what was wrong, and so are some of the
longest (or shortest) if the lengths of all together tell chosen from rejected. What is still off is set apart or flagged.
"""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import BaseModel, Field

from personalign.clients import Request, Session, ask_for
from personalign.conversation import Message
from personalign.datasets import Problem
from personalign.datasets.files import read_rows
from personalign.datasets.formats import BadField, check_text, question
from personalign.datasets.readers import refuse
from personalign.datasets.similarity import rouge_l
from personalign.errors import UserError
from personalign.personas import Persona, opposite, persona
from personalign.synthesis.cleaning import clean
from personalign.synthesis.dialogues import USER_LABEL, unfit
from personalign.synthesis.job import Job, Made, Row, finish, gather, unusable
from personalign.synthesis.matching import Matched, balanced, better, hints, judged, say_matched

AGAIN = {
    "en": {
        "length": "That is {got} words, the original has {want}. Write it again, the same in content, with about {want} words.",
        "alike": "That is nearly the original. Write it again as the other kind of person would: let what is wanted, felt and "
        "decided turn round, with about {want} words.",
        "apart": "That has little of the original left. Write it again about the same things, in as many of the original's own "
        "words as you can, with about {want} words.",
        "shorter": "Write it again, the same in content, a little shorter than the original: about {aim} words.",
        "longer": "Write it again, the same in content, a little longer than the original: about {aim} words.",
    },
    "ko": {
        "length": "{got}자입니다. 원래 대답은 {want}자이니 내용은 그대로 두고 {want}자 안팎으로 다시 쓰세요.",
        "alike": "원래 대답과 거의 같습니다. 성향이 반대인 사람이라면 무엇을 바라고 어떻게 정할지 뒤집어서 "
        "{want}자 안팎으로 다시 쓰세요.",
        "apart": "원래 대답의 내용이 거의 남지 않았습니다. 같은 일을 두고 원래 쓰인 낱말을 되도록 살려서 "
        "{want}자 안팎으로 다시 쓰세요.",
        "shorter": "내용은 그대로 두고 원래 대답보다 조금 짧게, {aim}자 안팎으로 다시 쓰세요.",
        "longer": "내용은 그대로 두고 원래 대답보다 조금 길게, {aim}자 안팎으로 다시 쓰세요.",
    },
}


class Rejections(Matched):
    """Settings of `rejections`."""

    dialogues: Path | None = Field(
        None, description="rows of `prompt`, `completion` and `persona`; those of `dialogues` if not given"
    )
    opposite: str | None = Field(
        None,
        description="the opposite of a free persona in words (someone who ...), or its .yaml; the model is asked if not given",
    )
    opposites: dict[str, str] = Field({}, description="the same by persona: {name: words or .yaml}")
    limit: int | None = Field(None, ge=1, description="use this many rows at most, from the first on")


class _Reply(BaseModel):
    """The answer that is asked for."""

    reply: str = Field(min_length=1)


class _Opposite(BaseModel):
    """The opposite of a persona, as the model states it."""

    description: str = Field(min_length=1)
    traits: list[str] = Field(min_length=1)
    speaking_style: str


@dataclass(frozen=True)
class _Item:
    """A reply to be turned round; `hint` is what to say about the first try."""

    row: Row
    place: str  # file:row
    person: Persona
    other: Persona | None  # None: nobody could say who its opposite is
    told: tuple[int, ...] = ()  # the requests in which the model said who it is
    first: Row | None = None
    hint: str = ""


def make_rejections(job: Job, settings: Rejections, people: Sequence[Persona]) -> list[Row]:
    """Rows of `prompt`, `chosen` and `rejected`, each with `length_ratio`, `similarity`, `redone`, and `flag` where it is off.

    Raises UserError for a file of dialogues that cannot be used.
    """
    prompt = job.template("rejections")
    items, failed = _items(job, settings, people)

    async def one(session: Session, item: _Item) -> Made:
        if item.other is None:
            return unusable(f"no opposite of {item.person.name}", item.row.get("requests", []), item.row["completion"])
        request = _request(job, prompt.request, item, item.other)
        found = await ask_for(session, request, _Reply, job.language)
        before = item.first["requests"] if item.first is not None else [*item.row.get("requests", []), *item.told]
        used = [*before, *found.requests]
        if found.value is None:
            return unusable(str(found.reason), used, found.text, source=item.place)
        text = clean(found.value.reply)
        if (reason := unfit(item.row["prompt"][-1]["content"], text, item.other, job.language)) is not None:
            return unusable(reason, used, text, source=item.place)
        more = {"requests": used, "prompt_id": prompt.id, "model": session.client.name}
        return Made([_pair(item, item.other, text) | more])

    made = gather(job, "rejections", items, one) if items else []
    again = {
        at: replace(items[at], first=made[at].rows[0], hint=hint)
        for at, hint in hints({at: each.rows[0] for at, each in enumerate(made) if each.rows}, settings).items()
    }
    seconds = gather(job, "rejections", list(again.values()), one) if again else []
    for at, second in zip(again, seconds, strict=True):
        made[at] = better(made[at], second, again[at].hint, settings)
    made = [judged(each, settings) for each in made]
    rows = finish(job, "rejections", [*failed, *(balanced(made) if settings.balance else made)], len(items))
    say_matched(rows, len(again))
    return rows


def _items(job: Job, settings: Rejections, people: Sequence[Persona]) -> tuple[list[_Item], list[Made]]:
    """The replies to be turned round; and what was asked in vain about whose opposite is who."""
    path = settings.dialogues or job.folder / "dialogues.jsonl"
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; make dialogues first, or name a file with `dialogues`.")
    named = {person.name: person for person in people}
    rows, problems = read_rows(path) if path.stat().st_size else ([], [])  # empty where every dialogue was set apart
    refuse(str(path), problems)
    chosen: list[tuple[str, Row, Persona]] = []
    for place, row in rows:
        try:
            row = row | {"prompt": question(row), "completion": check_text(row.get("completion"), "completion")}
        except BadField as error:
            raise UserError(str(Problem(place, *error.args))) from None
        who = row.get("persona", people[0].name if len(people) == 1 else None)
        if who in named:
            chosen.append((f"{path.name}:{place.rpartition(':')[2]}", row, named[who]))
    if rows and not chosen:
        raise UserError(
            f"{path}: no row is spoken by {', '.join(named) or 'a persona'} (`persona`); name who speaks there."
        )
    if len(chosen) < len(rows):
        print(
            f"rejections: {len(rows) - len(chosen)} of {len(rows)} rows are spoken by others and left alone",
            file=sys.stderr,
        )
    chosen = chosen[: settings.limit]
    speaking = {person.name: person for _, _, person in chosen}
    others, told, failed = _opposites(job, settings, list(speaking.values()))
    return [
        _Item(row, place, person, others[person.name], told.get(person.name, ())) for place, row, person in chosen
    ], failed


def _opposites(
    job: Job, settings: Rejections, people: Sequence[Persona]
) -> tuple[dict[str, Persona | None], dict[str, tuple[int, ...]], list[Made]]:
    """Who is on the other side: of a type the opposite type, of a free persona who is stated, else whom the model describes."""
    prompt = job.template("opposite")
    found: dict[str, Persona | None] = {}
    for person in people:
        stated = settings.opposites.get(person.name, settings.opposite)
        if person.type is not None and person.name not in settings.opposites:
            found[person.name] = persona(opposite(person.type), job.language)
        elif stated is not None and stated.endswith((".yaml", ".yml")):
            found[person.name] = Persona.from_yaml(stated)
        elif stated is not None:
            found[person.name] = Persona(name=f"opposite of {person.name}", language=job.language, description=stated)

    async def one(session: Session, person: Persona) -> Made:
        answer = await ask_for(session, prompt.request(seed=job.seed, person=person), _Opposite, job.language)
        if answer.value is None:
            return unusable(f"no opposite: {answer.reason}", answer.requests, answer.text, persona=person.name)
        return Made([answer.value.model_dump() | {"requests": answer.requests}])

    unknown = [person for person in people if person.name not in found]
    told: dict[str, tuple[int, ...]] = {}
    failed: list[Made] = []
    for person, made in zip(unknown, gather(job, "rejections", unknown, one) if unknown else [], strict=True):
        found[person.name] = None
        if made.rows:
            (row,) = made.rows
            told[person.name] = row.pop("requests")
            found[person.name] = Persona.model_validate(
                {"name": f"opposite of {person.name}", "language": job.language} | row
            )
            print(
                f"rejections: the opposite of {person.name}, as the model has it: {row['description']}", file=sys.stderr
            )
        else:
            failed.append(made)
    return found, told, failed


def _pair(item: _Item, other: Persona, text: str) -> Row:
    chosen = item.row["completion"]
    return {
        "prompt": item.row["prompt"],
        "chosen": chosen,
        "rejected": text,
        "persona": item.person.name,
        "opposite": other.name if other.type else other.description,
        "length_ratio": round(len(text) / len(chosen), 4),
        "similarity": round(rouge_l(chosen, text), 3),
        "redone": item.first is not None,
        **{key: item.row[key] for key in ("recipe", "situation", "dialogue", "turn") if key in item.row},
        "source": item.place,
    }


def _request(job: Job, make: Callable[..., Request], item: _Item, other: Persona) -> Request:
    """The first request, or the one that goes on from the first try with what is wrong about it."""
    chosen, language = item.row["completion"], job.language
    said = [
        (USER_LABEL[language] if message["role"] == "user" else item.person.name, message["content"])
        for message in item.row["prompt"][-3:]
        if message["role"] != "system"
    ]
    request = make(
        seed=job.seed, person=item.person, other=other, said=said, reply=chosen, length=_length(chosen, language)
    )
    if item.first is None:
        return request
    want = _length(chosen, language)
    aim = max(1, round(want * 1.12) if item.hint == "longer" else round(want * 0.88))
    said_so = AGAIN[language][item.hint].format(got=_length(item.first["rejected"], language), want=want, aim=aim)
    more: list[Message] = [
        {"role": "assistant", "content": f'{{"reply": {json.dumps(item.first["rejected"], ensure_ascii=False)}}}'},
        {"role": "user", "content": said_so},
    ]
    return replace(request, messages=(*request.messages, *more), prompt=f"{request.prompt}+redo")


def _length(text: str, language: str) -> int:
    """In what people count: words, in Korean characters."""
    return len(text) if language == "ko" else len(text.split())
