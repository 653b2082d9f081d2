"""`roleplay` (RoleLLM): a question to the persona, whether it can be answered truly (and why), and the answer in its voice.

Made call by call, such questions repeat themselves after a hundred or so (Polaris saw it happen). So they are made in rounds:
each call has a subject of its own and sees some of the questions that there are, and a question whose ROUGE-L F with an earlier
one of the same persona is above `similar` is set apart. A persona is asked until it has `count` rows, or two rounds brought none.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from personalign.clients import Session, ask_for
from personalign.datasets import read_prompts
from personalign.datasets.records import opening
from personalign.datasets.similarity import encode, neighbours, tokens
from personalign.errors import UserError
from personalign.personas import Persona
from personalign.synthesis.job import Job, Made, Row, finish, gather, unusable
from personalign.synthesis.templates import Template

SUBJECTS = {
    "en": """work and colleagues; money and saving; childhood and school; family and holidays; food and cooking; health and sleep;
friends and falling out; love and living together; the home and neighbours; travel and getting lost; books, films and music;
news and politics; science and how things work; history and places; sport and games; the internet and phones; weather, seasons
and nature; animals; clothes and appearance; plans and the future; regrets and mistakes; fears and dreams; right and wrong;
small talk with strangers; practical advice; jokes and teasing; faith and superstition; the place this person comes from""",
    "ko": """회사와 동료; 돈과 저축; 어린 시절과 학교; 가족과 명절; 음식과 요리; 건강과 잠; 친구와 다툼; 연애와 결혼;
집과 이웃; 여행과 길 찾기; 책과 영화와 음악; 뉴스와 정치; 과학과 원리; 역사와 지역; 운동과 게임; 인터넷과 휴대전화; 날씨와 계절;
동물; 옷과 외모; 앞으로의 계획; 후회와 실수; 걱정과 꿈; 옳고 그름; 처음 만난 사람과 나누는 말; 생활에 쓸모 있는 조언;
농담과 장난; 미신과 믿음; 자란 동네""",
}
HIGH = ("high", "높음", "상", "true")
LOW = ("low", "낮음", "하", "false")


class Roleplay(BaseModel):
    """Settings of `roleplay`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    count: int = Field(100, ge=1, description="questions wanted for each persona")
    batch: int = Field(10, ge=1, le=30, description="questions a call")
    calls: int = Field(
        4, ge=1, description="calls of a round for each persona; what a round kept, the next has to differ from"
    )
    rounds: int = Field(30, ge=1, description="rounds at most")
    shown: int = Field(10, ge=0, description="earlier questions that a call is told not to repeat")
    similar: float = Field(0.7, gt=0, lt=1, description="ROUGE-L F above which a question repeats an earlier one")
    existing: tuple[Path, ...] = Field((), description="files whose questions must not be repeated either")
    subjects: tuple[str, ...] = Field((), description="what questions are about, in turn; our own list if not given")
    factuality: Literal["any", "high"] = Field(
        "any", description="high leaves out questions that the persona cannot answer truly"
    )


class _Exchange(BaseModel):
    question: str
    factuality: str = Field(json_schema_extra={"enum": ["high", "low"]})
    reason: str
    answer: str

    @field_validator("factuality")
    @classmethod
    def _two_words(cls, value: str) -> str:
        """Whatever stands there is judged row by row: one odd word is no reason to ask for all ten again."""
        word = value.strip().lower()
        return "high" if word.startswith(HIGH) else "low" if word.startswith(LOW) else value


class _Exchanges(BaseModel):
    """The answer that is asked for."""

    exchanges: list[_Exchange]


@dataclass
class _Role:
    """A persona with what it has been asked so far."""

    person: Persona
    rows: list[Row] = field(default_factory=list)
    barren: int = 0  # rounds in a row that brought nothing
    calls: int = 0

    @property
    def questions(self) -> list[str]:
        return [row["messages"][0]["content"] for row in self.rows]


@dataclass(frozen=True)
class _Call:
    """One call: a pure function of the number of the call and of what earlier rounds kept."""

    person: Persona
    number: int
    subject: str
    earlier: tuple[str, ...]


def make_roleplay(job: Job, settings: Roleplay, people: Sequence[Persona]) -> list[Row]:
    """Make the questions with their answers; rows of each persona together, in the order in which they were kept.

    A row has `factuality` (high or low), `factuality_reason`, and `similarity`, the ROUGE-L F of its nearest neighbour among
    the earlier questions. Raises UserError for a file of existing questions that cannot be read, and where nobody is asked.
    """
    if not people:
        raise UserError("roleplay: who is asked? Give a persona (--persona, or `persona` in the recipe).")
    known = [opening(each) for path in settings.existing for each in read_prompts(path)]
    roles, apart, prompt = [_Role(person) for person in people], Made(), job.template("roleplay")
    for _ in range(settings.rounds):
        open_ = [role for role in roles if len(role.rows) < settings.count and role.barren < 2]
        calls = [call for role in open_ for call in _calls(job, settings, role)]
        if not calls:
            break
        found = gather(job, "roleplay", calls, lambda session, call: _ask(job, settings, prompt, session, call))
        for role in open_:
            mine = Made()
            for call, made in zip(calls, found, strict=True):
                if call.person is role.person:
                    mine += made
            new = _sifted(job, settings, role, known, mine)
            role.barren = 0 if new.rows else role.barren + 1
            role.rows += new.rows
            apart.quarantined += new.quarantined
    for role in roles:
        apart.quarantined += [{"reason": "more than asked for", **row} for row in role.rows[settings.count :]]
        del role.rows[settings.count :]
    return finish(job, "roleplay", [*(Made(role.rows) for role in roles), apart], settings.count * len(people))


def _calls(job: Job, settings: Roleplay, role: _Role) -> list[_Call]:
    """The calls of a round: as many as are missing, a few more for what will be set apart; each on the next subject."""
    subjects = settings.subjects or tuple(" ".join(each.split()) for each in SUBJECTS[job.language].split(";"))
    missing = math.ceil(1.1 * (settings.count - len(role.rows)) / settings.batch)
    calls = []
    for number in range(role.calls, role.calls + min(settings.calls, missing)):
        near = [
            row["messages"][0]["content"] for row in role.rows if row["subject"] == subjects[number % len(subjects)]
        ]
        others = [question for question in role.questions if question not in near]
        drawn = random.Random(f"{job.seed} {number}").sample(others, min(len(others), settings.shown))
        earlier = (near[-settings.shown :] + drawn)[: settings.shown] if settings.shown else []
        calls.append(_Call(role.person, number, subjects[number % len(subjects)], tuple(earlier)))
    role.calls += len(calls)
    return calls


async def _ask(job: Job, settings: Roleplay, prompt: Template, session: Session, call: _Call) -> Made:
    request = prompt.request(
        draw=call.number,
        seed=job.seed,
        person=call.person,
        subject=call.subject,
        earlier=call.earlier,
        count=settings.batch,
    )
    found = await ask_for(session, request, _Exchanges, job.language)
    if found.value is None:
        more = {"persona": call.person.name, "subject": call.subject}
        return unusable(str(found.reason), found.requests, found.text, **more)
    made = Made()
    for each in found.value.exchanges:
        question, answer = each.question.strip(), each.answer.strip()
        row = {
            "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}],
            "persona": call.person.name, "subject": call.subject, "factuality": each.factuality,
            "factuality_reason": each.reason.strip(),
            "requests": list(found.requests), "prompt_id": prompt.id, "model": session.client.name,
        }  # fmt: skip
        made.rows.append(row)
    return made


def _sifted(job: Job, settings: Roleplay, role: _Role, known: Sequence[str], made: Made) -> Made:
    """What can be used and is new, and the rest with its reason."""
    kept, apart = [], list(made.quarantined)
    codes: dict[str, str] = {}
    before = encode([tokens(text, job.language) for text in [*known, *role.questions]], codes)
    for row in made.rows:
        question, answer = (message["content"] for message in row["messages"])
        (code,) = encode([tokens(question, job.language)], codes)
        (near,) = neighbours([*before, code], len(before), 1)
        score = near.nearest[0][1] if near.nearest else 0.0
        fault = _fault(settings, row, question, answer, score)
        if fault is not None:
            apart.append({"reason": fault, **row})
            continue
        before.append(code)
        kept.append(row | {"similarity": round(score, 4)})
    return Made(kept, apart)


def _fault(settings: Roleplay, row: Row, question: str, answer: str, score: float) -> str | None:
    if len(question) < 2 or len(answer) < 2:
        return "no question" if len(question) < 2 else "no answer"
    if "..." in (question, answer) or question == answer:
        return "form repeated, not filled in"
    if row["factuality"] not in ("high", "low"):
        return "factuality is neither high nor low"
    if score > settings.similar:
        return f"repeats an earlier question: ROUGE-L {score:.2f}"
    if settings.factuality == "high" and row["factuality"] == "low":
        return "factuality is low"
    return None
