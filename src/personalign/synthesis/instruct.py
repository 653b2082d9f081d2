"""`instruct`: instructions with answers, as Stanford Alpaca made them, and as those who came after it did in Korean.

What is given decides where they come from:

    nothing, or seeds   tasks like those that are shown, `batch` a call (self-instruct, Alpaca)
    words               questions about each word, answered by the model, or from the nearest of the `posts` if they are given
    posts               a question to each title that is neither toxic nor off the topic, answered from the post itself

Tasks and questions about words are made in rounds until there are `count` of them: what a round kept is there for the next
to differ from. All go through Alpaca's filters (filters.py) and its ROUGE-L de-duplication.
"""

import itertools
import json
import math
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from personalign.clients import Formed, Request, Session, ask_for
from personalign.datasets.dedupe import dedupe
from personalign.datasets.embeddings import embed
from personalign.personas import Persona
from personalign.synthesis.filters import KEYWORDS, unfit
from personalign.synthesis.instruct_inputs import Post, nearest, read_posts, read_seeds, read_words
from personalign.synthesis.job import Job, Made, Row, finish, gather, unusable

T = TypeVar("T")
COUNT = 100  # tasks or questions, where nothing is said


class Instruct(BaseModel):
    """Settings of `instruct`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    count: int | None = Field(
        None, ge=1, description="rows wanted, the last call may bring a few more; 100 if not given, of posts all"
    )
    seeds: Path | None = Field(None, description="seed tasks, rows of instruction, input, output; ours if not given")
    words: Path | None = Field(None, description="a text file with a word or subject a line, to ask questions about")
    posts: Path | None = Field(None, description="posts, rows of title and text, to answer from")
    topic: str = Field("", description="what the posts shall be about; titles of other things are left out")
    shown: int = Field(3, ge=1, description="seed tasks shown in a call")
    made: int = Field(0, ge=0, description="tasks of earlier rounds shown with them (self-instruct: 2; Alpaca: none)")
    batch: int = Field(5, ge=1, description="tasks a call")
    questions: int = Field(20, ge=1, description="questions about a word a call")
    answers: int = Field(10, ge=1, description="titles, and questions to be answered, a call")
    excerpt: int = Field(1500, ge=100, description="characters of a post that are given to the model")
    rounds: int = Field(
        10, ge=1, description="rounds at most; it ends earlier with enough rows, or with a round that brings none"
    )
    similar: float = Field(0.7, gt=0, lt=1, description="ROUGE-L F above which an instruction repeats an earlier one")
    embeddings: str | None = Field(
        None,
        description="leave out what repeats another in meaning, too: by wordllama (English), or an encoder's folder or id",
    )
    cosine: float = Field(0.9, gt=0, lt=1, description="cosine of embeddings above which it does")
    keywords: tuple[str, ...] | None = Field(
        None, description="words of tasks that a text model cannot do; Alpaca's and Korean ones if not given"
    )


def _text(value: Any) -> str:
    """A model's text, also where it gave a number, a list or nothing: the filters decide on it."""
    if value is None:
        return ""
    return value.strip() if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


Text = Annotated[str, BeforeValidator(_text)]
Verdict = Literal["ok", "toxic", "private", "off_topic", "no_question"]


class _Task(BaseModel):
    instruction: Text = ""
    input: Text = ""
    output: Text = ""


class _Tasks(BaseModel):
    tasks: list[_Task] = Field(min_length=1)


class _Questions(BaseModel):
    questions: list[Text] = Field(min_length=1)


class _Judged(BaseModel):
    number: int
    verdict: Annotated[Verdict, BeforeValidator(lambda value: _text(value).lower().replace(" ", "_"))]
    question: Text = ""


class _Titles(BaseModel):
    questions: list[_Judged] = Field(min_length=1)


class _Answer(BaseModel):
    number: int
    answer: Text = ""
    found: bool = True


class _Answers(BaseModel):
    answers: list[_Answer] = Field(min_length=1)


def make_instruct(job: Job, settings: Instruct, people: Sequence[Persona] = ()) -> list[Row]:
    """Rows of instruction, input, output, each with its most similar neighbours and the mean similarity as Alpaca keeps them.

    Nobody speaks in them: `people` are not asked (`restyle` gives the answers a voice). A question that a post, or the model,
    cannot answer stays a row whose answer says so, with `found: false`. Raises UserError for files without usable rows.
    """
    posts = read_posts(settings.posts) if settings.posts is not None else None
    draws, items = itertools.count(), None
    if settings.words is not None:
        words = read_words(settings.words)
        made = _rounds(job, settings, [], lambda missing, kept: _about(job, settings, words, missing, kept, draws))
        made = _answered(job, settings, made, posts)
    elif posts is not None:
        posts = posts[: settings.count]
        items = len(posts)
        made = _answered(job, settings, _sifted(job, settings, [], _titles(job, settings, posts)), posts)
    else:
        seeds = read_seeds(settings.seeds, job.language)
        made = _rounds(job, settings, seeds, lambda missing, kept: _alike(job, settings, seeds, missing, kept, draws))
    return finish(job, "instruct", [made], items)


def _rounds(job: Job, settings: Instruct, old: Sequence[Row], ask: Callable[[int, list[Row]], list[Made]]) -> Made:
    """Ask for what is missing (`ask(missing, kept so far)`), and again for what was sifted out of it. `old` is not repeated.

    It ends early where nothing was kept of the first round or of two in a row: more would be paid for nothing.
    """
    whole, barren, count = Made(), 0, settings.count or COUNT
    for _ in range(settings.rounds):
        fresh = _sifted(job, settings, [*old, *whole.rows], ask(count - len(whole.rows), whole.rows))
        whole += fresh
        barren = 0 if fresh.rows else barren + 1
        if len(whole.rows) >= count or not whole.rows or barren == 2:
            break
    if len(whole.rows) < count:
        print(f"instruct: {len(whole.rows)} of the {count} that are wanted", file=sys.stderr)
    return whole


def _sifted(job: Job, settings: Instruct, old: Sequence[Row], found: Sequence[Made]) -> Made:
    """What is fit for a text model and repeats nothing old or kept before it; the rest with its reason."""
    keywords = KEYWORDS if settings.keywords is None else settings.keywords
    whole, fit = Made(), list[Row]()
    for made in found:
        whole.quarantined += made.quarantined
        for row in made.rows:
            reason = unfit(row["instruction"], job.language, keywords)
            if reason is None and row.get("output") == "":
                reason = "no output"
            if reason is None:
                fit.append(row)
            else:
                whole.quarantined.append({"reason": reason, **row})
    known, texts = [row["instruction"] for row in old], [row["instruction"] for row in fit]
    vectors = embed([*known, *texts], settings.embeddings) if settings.embeddings and texts else None
    done = dedupe(
        texts, known, threshold=settings.similar, language=job.language, vectors=vectors, cosine=settings.cosine
    )
    texts = [*known, *texts]
    for place, row in enumerate(fit):
        if (match := done.dropped.get(place)) is not None:
            why = f"repeats another: {match.measure} {match.score:.3f} with {texts[match.index]!r}"
            whole.quarantined.append({"reason": why, **row})
        elif (near := done.kept[place]) is not None:
            alike = {texts[index]: round(score, 4) for index, score in near.nearest}
            mean = None if near.mean is None else round(near.mean, 4)
            whole.rows.append({**row, "most_similar_instructions": alike, "avg_similarity_score": mean})
    return whole


# `draws` numbers the calls of all rounds: what call n shows or asks about depends on n and on what earlier rounds kept
Draws: TypeAlias = "itertools.count[int]"


def _alike(
    job: Job, settings: Instruct, seeds: Sequence[Row], missing: int, kept: Sequence[Row], draws: Draws
) -> list[Made]:
    """Tasks like a few that are drawn."""
    prompt = job.template("instruct")

    async def one(session: Session, draw: int) -> Made:
        luck = random.Random(f"{job.seed}/{draw}")
        shown = luck.sample(seeds, min(settings.shown, len(seeds))) + luck.sample(kept, min(settings.made, len(kept)))
        request = prompt.request(draw=draw, seed=job.seed, shown=shown, count=settings.batch)
        found = await ask_for(session, request, _Tasks, job.language)
        if found.value is None:
            return unusable(str(found.reason), found.requests, found.text)
        where = _where(session, request, found, [str(task.get("id", task["instruction"])) for task in shown])
        return Made([{**task.model_dump(), **where} for task in found.value.tasks])

    return gather(job, "instruct", list(itertools.islice(draws, math.ceil(missing / settings.batch))), one)


def _about(
    job: Job, settings: Instruct, words: Sequence[tuple[str, str]], missing: int, kept: Sequence[Row], draws: Draws
) -> list[Made]:
    """Questions about the next words, other than those that there are about them."""
    prompt = job.template("instruct_words")

    async def one(session: Session, draw: int) -> Made:
        source, word = words[draw % len(words)]
        avoid = [row["instruction"] for row in kept if row["source"] == source]
        request = prompt.request(
            draw=draw // len(words), seed=job.seed, word=word, count=settings.questions, avoid=avoid
        )
        found = await ask_for(session, request, _Questions, job.language)
        if found.value is None:
            return unusable(str(found.reason), found.requests, found.text, source=source)
        where = _where(session, request, found, source)
        return Made([{"instruction": question, "input": "", **where} for question in found.value.questions])

    calls = min(len(words), math.ceil(missing / settings.questions))
    return gather(job, "instruct", list(itertools.islice(draws, calls)), one)


def _titles(job: Job, settings: Instruct, posts: Sequence[Post]) -> list[Made]:
    """A question to each title, or why there is none."""
    prompt = job.template("instruct_titles")

    async def one(session: Session, batch: Sequence[Post]) -> Made:
        titles = [{"title": post.title} for post in batch]
        request = prompt.request(seed=job.seed, posts=titles, topic=settings.topic)
        found = await ask_for(session, request, _Titles, job.language)
        made, given = Made(), {each.number: each for each in (found.value.questions if found.value is not None else ())}
        for number, post in enumerate(batch, 1):
            judged = given.get(number)
            where = _where(session, request, found, post.source)
            if judged is not None and judged.verdict == "ok":
                made.rows.append({"instruction": judged.question, "input": "", **where})
                continue
            reason = found.reason or ("title left out by the model" if judged is None else f"title is {judged.verdict}")
            made.quarantined.append({"reason": reason, "title": post.title, "text": found.text, **where})
        return made

    return gather(job, "instruct", _parts(posts, settings.answers), one)


def _answered(job: Job, settings: Instruct, made: Made, posts: Sequence[Post] | None) -> Made:
    """The questions with their answers: from their own post, or the nearest one; by the model where `posts` is None."""
    prompt, whole = job.template("instruct_answers"), Made([], made.quarantined)
    asked: list[tuple[Row, Post | None]] = [(row, None) for row in made.rows]
    if posts is not None:
        own = {post.source: post for post in posts}
        others = [row["instruction"] for row in made.rows if row["source"] not in own]
        near = dict(zip(others, nearest(others, posts), strict=True))
        asked = [(row, own.get(row["source"]) or near[row["instruction"]]) for row in made.rows]
        whole.quarantined += [{"reason": "no post is about it", **row} for row, post in asked if post is None]
        asked = [(row, post) for row, post in asked if post is not None]

    async def one(session: Session, batch: Sequence[tuple[Row, Post | None]]) -> Made:
        questions = [
            {"text": row["instruction"], "post": post.excerpt(settings.excerpt) if post is not None else ""}
            for row, post in batch
        ]
        request = prompt.request(seed=job.seed, questions=questions, posts=posts is not None)
        found = await ask_for(session, request, _Answers, job.language)
        given = {each.number: each for each in (found.value.answers if found.value is not None else ())}
        part = Made()
        for number, (row, post) in enumerate(batch, 1):
            answer = given.get(number)
            row = row | {"requests": [*row["requests"], *found.requests], "prompt_id": request.prompt}
            row |= {"post": post.source} if post is not None else {}
            if answer is not None and answer.answer:
                part.rows.append({**row, "output": answer.answer, "found": answer.found})
            else:
                reason = found.reason or "question left without an answer"
                part.quarantined.append({"reason": reason, **row, "text": found.text})
        return part

    for part in gather(job, "instruct", _parts(asked, settings.answers), one):
        whole += part
    return whole


def _where(session: Session, request: Request, found: Formed[Any], source: Any) -> Row:
    """What every row says of where it comes from; the last of its prompts, the ledger has them all."""
    return {
        "source": source, "requests": list(found.requests), "prompt_id": request.prompt, "model": session.client.name
    }  # fmt: skip


def _parts(items: Sequence[T], count: int) -> list[Sequence[T]]:
    return [items[at : at + count] for at in range(0, len(items), count)]
