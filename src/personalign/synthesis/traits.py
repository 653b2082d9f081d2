"""`traits`: from one line about somebody to a persona (Polaris elicited a word list in this way, and no more)."""

from pydantic import BaseModel, ConfigDict, Field

from personalign.clients import Session, ask_for
from personalign.errors import UserError
from personalign.personas import Persona
from personalign.synthesis.job import Job, Made, finish, gather, unusable

TRIES = 3  # without a persona there is nothing to go on with, and one more request costs little


class Traits(BaseModel):
    """Settings of `traits`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    description: str = Field(min_length=1, description="who it is, in a line: a job seeker full of negative thoughts")
    name: str | None = Field(None, description="what the persona is called; the model's own label if not given")
    traits: int = Field(12, ge=1, le=40, description="trait words")
    examples: int = Field(4, ge=0, le=20, description="exchanges that show how it talks")


class _Exchange(BaseModel):
    model_config = ConfigDict(str_strip_whitespace=True)
    user: str = Field(min_length=1)
    assistant: str = Field(min_length=1)


class _Person(BaseModel):
    """The answer that is asked for."""

    model_config = ConfigDict(str_strip_whitespace=True)
    name: str = Field(min_length=1)
    description: str = Field(min_length=1)
    traits: list[str] = Field(min_length=1)
    speaking_style: str
    examples: list[_Exchange]


def make_traits(job: Job, settings: Traits) -> Persona:
    """Ask for the persona, write it to <folder>/persona.yaml, and return it.

    Raises UserError where the model gave none in form, asked three times: what it said is in traits.quarantine.jsonl.
    """
    prompt = job.template("traits")

    async def one(session: Session, draw: int) -> Made:
        request = prompt.request(
            draw, job.seed, description=settings.description, traits=settings.traits, examples=settings.examples
        )
        found = await ask_for(session, request, _Person, job.language)
        if found.value is None:
            return unusable(str(found.reason), found.requests, found.text)
        row = {**found.value.model_dump(), "prompt_id": prompt.id, "model": session.client.name}
        return Made([row | {"requests": list(found.requests)}])

    made: list[Made] = []
    while len(made) < TRIES and not any(each.rows for each in made):
        made += gather(job, "traits", [len(made)], one)
    rows = finish(job, "traits", made)
    if not rows:
        raise UserError(
            f"{job.folder / 'traits.quarantine.jsonl'}: {job.client.name} gave no persona in form (at last: "
            f"{made[-1].quarantined[-1]['reason']}); try again with another seed or a larger model, or write the persona file "
            "yourself."
        )
    (row,) = rows
    words = dict.fromkeys(filter(None, row["traits"]))
    person = Persona(
        name=settings.name or row["name"],
        language=job.language,
        description=row["description"],
        traits=tuple(words)[: settings.traits],
        speaking_style=row["speaking_style"],
        examples=tuple(row["examples"][: settings.examples]),
    )
    person.to_yaml(job.folder / "persona.yaml")
    return person
