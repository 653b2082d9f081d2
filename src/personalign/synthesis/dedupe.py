"""`dedupe`: rows that nearly repeat an earlier one of the same persona are set apart, with the row that they repeat.

Compared is an exchange: what the user says last, and the (preferred) answer. The turns of a dialogue begin alike, and several
personas answer the same words: neither is a repetition. `personalign data dedupe` does the same to any file, as Alpaca did.
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from personalign.datasets.dedupe import dedupe
from personalign.datasets.diversity import Sample, read_samples
from personalign.datasets.files import read_rows
from personalign.errors import UserError
from personalign.personas import Persona
from personalign.synthesis.job import Job, Made, Row, finish, unusable


class Dedupe(BaseModel):
    """Settings of `dedupe`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: Path | None = Field(None, description="rows to go through; those of the step before if not given")
    threshold: float = Field(0.7, gt=0, lt=1, description="ROUGE-L F above which an exchange repeats an earlier one")
    embeddings: str | None = Field(
        None, description="compare embeddings, too: wordllama (English), or the folder or hub id of a sentence encoder"
    )
    cosine: float = Field(
        0.9, gt=0, lt=1, description="with embeddings: the cosine above which it repeats an earlier one"
    )


def make_dedupe(job: Job, settings: Dedupe, people: Sequence[Persona] = ()) -> list[Row]:
    """The rows that repeat none, as they are and in their order. Nobody is asked for anything.

    Raises UserError for a file without rows of a known form.
    """
    if settings.file is None or not settings.file.is_file():
        raise UserError(f"dedupe: {settings.file or 'no file'}: there are no rows to go through; make some first.")
    path = settings.file
    if not path.stat().st_size:  # everything was set apart
        return finish(job, "dedupe", [], 0)
    raw, _ = read_rows(path)
    readable, problems = read_samples([path])
    samples = {sample.source: sample for sample in readable}
    whose: dict[str, list[str]] = defaultdict(list)
    for place, sample in samples.items():
        whose[sample.persona].append(place)
    unread = {each.source: " ".join(filter(None, ("cannot be read:", each.field, each.problem))) for each in problems}
    apart = dict(unread)
    for places in whose.values():
        apart |= _repeats(job, settings, places, samples)
    made = Made([row for place, row in raw if place not in apart])
    made.quarantined = [{"reason": apart[place], **row} for place, row in raw if place in apart]
    for place in sorted(unread.keys() - {place for place, _ in raw}):  # not even a row
        made += unusable(unread[place], (), source=place)
    return finish(job, "dedupe", [made], len(raw))


def _repeats(job: Job, settings: Dedupe, places: Sequence[str], samples: dict[str, Sample]) -> dict[str, str]:
    """Of one persona's rows those that repeat an earlier one, and how."""
    texts = [f"{samples[place].prompt}\n{samples[place].answer}" for place in places]
    vectors = None
    if settings.embeddings is not None:
        from personalign.datasets.embeddings import embed

        vectors = embed(texts, settings.embeddings)
    found = dedupe(
        texts, threshold=settings.threshold, language=job.language, most=0, vectors=vectors, cosine=settings.cosine
    )
    return {
        places[at]: f"repeats an earlier row: {Path(places[match.index]).name}, {match.measure} {match.score:.2f}"
        for at, match in found.dropped.items()
    }
