"""What people supply to `instruct`: seed tasks, words, and posts; and which post is about a question."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np

from personalign.datasets.files import read_rows
from personalign.datasets.readers import refuse
from personalign.datasets.records import Problem, Row
from personalign.errors import UserError
from personalign.files import read_jsonl


@dataclass(frozen=True)
class Post:
    """A title, its text, and where it stands ("posts.jsonl:3")."""

    title: str
    text: str
    source: str

    def excerpt(self, letters: int) -> str:
        """Title and the first `letters` characters of the text, to the end of a sentence if one ends in their second half."""
        text = self.text
        if len(text) > letters:
            ends = [match.end() for match in re.finditer(r"[.!?。](?=\s)|\n", text[:letters])]
            text = text[: ends[-1] if ends and ends[-1] > letters // 2 else letters].rstrip() + " ..."
        return f"{self.title}\n\n{text}"


def read_posts(path: Path) -> list[Post]:
    """Posts of a JSON, JSONL, CSV or Parquet file with columns `title` and `text`; raises UserError naming bad rows."""
    return [Post(row["title"].strip(), row["text"].strip(), row["id"]) for row in _with_texts(path, "title", "text")]


def read_seeds(path: Path | None, language: str) -> list[Row]:
    """Seed tasks: rows of `instruction`, `output`, and `input` where it is needed; None: our own of this language.

    Their `id` is the place in the file. Raises UserError naming bad rows.
    """
    if path is not None:
        return [{**row, "input": row.get("input") or ""} for row in _with_texts(path, "instruction", "output")]
    file = f"seeds.{language}.jsonl"
    rows = read_jsonl(resources.files("personalign.synthesis") / file)
    return [{**row, "id": f"{file}:{number}"} for number, row in enumerate(rows, 1)]


def read_words(path: Path) -> list[tuple[str, str]]:
    """(place, word) of each line of a text file that has one, each word once. Raises UserError for a file without any."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text (byte {error.start}); save it as UTF-8.") from None
    words: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if word := line.strip():
            words.setdefault(word, f"{path}:{number}")
    if not words:
        raise UserError(f"{path}: holds no word; write a word or subject a line.")
    return [(source, word) for word, source in words.items()]


def _with_texts(path: Path, *fields: str) -> list[Row]:
    """The rows of a file, each with its place as `id`; all must have these texts."""
    rows, problems = read_rows(path)
    problems += [
        Problem(source, field, "is missing or no text", "add it, or delete the row")
        for source, row in rows
        for field in fields
        if not (isinstance(row.get(field), str) and row[field].strip())
    ]
    refuse(str(path), problems)
    return [{**row, "id": source} for source, row in rows]


def nearest(questions: Sequence[str], posts: Sequence[Post]) -> list[Post | None]:
    """To each question the post that shares most with it, or None where none shares anything.

    Terms are words, of Hangul each pair of neighbouring syllables (particles and endings then matter little); a term counts
    the more the fewer posts have it (IDF).
    """
    having: dict[str, list[int]] = {}
    for place, post in enumerate(posts):
        for term in _terms(f"{post.title}\n{post.text}"):
            having.setdefault(term, []).append(place)
    places = {term: np.array(found) for term, found in having.items()}
    found: list[Post | None] = []
    for question in questions:
        scores = np.zeros(len(posts))
        for term in sorted(_terms(question) & places.keys()):
            scores[places[term]] += math.log(1 + len(posts) / len(places[term]))
        found.append(posts[int(scores.argmax())] if scores.any() else None)
    return found


def _terms(text: str) -> set[str]:
    words = re.findall(r"[a-z0-9]+|[가-힣]+", text.lower())
    hangul = {word[at : at + 2] for word in words if "가" <= word[0] for at in range(len(word) - 1)}
    return hangul | {word for word in words if word[0] < "가" and len(word) > 2}
