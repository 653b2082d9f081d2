"""Prompts alone, from any file that has them: nothing in it but prompts, or pairs, rankings or conversations."""

from pathlib import Path

from personalign.datasets.files import read_rows
from personalign.datasets.formats import FORMATS, BadField, detect, question
from personalign.datasets.readers import Columns, refuse, rename, theirs
from personalign.datasets.records import Problem, Prompt
from personalign.errors import UserError


def read_prompts(path: str | Path, *, columns: Columns | None = None) -> list[Prompt]:
    """Read the prompts of a file or "hf:org/name:split", each once: what the user says before the last answer.

    A file of prompts alone has a column `prompt` (a text, or messages that end with the user's), or `instruction` with
    an optional `input`. Raises UserError naming the bad rows, for a file without rows, and for one without prompts.
    """
    raw, problems = read_rows(path)
    rows = rename([row for _, row in raw], columns or {}, path)
    form = FORMATS.get(detect(rows) or "")
    if rows and form is None and not any({"prompt", "instruction"} & set(row) for row in rows):
        seen = ", ".join(dict.fromkeys(str(column) for row in rows for column in row)) or "none"
        raise UserError(f"{path}: there is no column `prompt` among its columns ({seen}); map one with `columns`.")
    found: dict[str, Prompt] = {}
    for (source, _), row in zip(raw, rows, strict=True):
        try:
            if form is None:
                prompt = question(row)
            elif form.ranked is not None:
                prompt = form.ranked(row, 0)[0]
            else:
                assert form.messages is not None
                prompt = form.messages(row)[:-1]
            found.setdefault(repr(prompt), Prompt(prompt, source))
        except BadField as error:
            field, problem, remedy = error.args
            problems.append(Problem(source, theirs(field, columns or {}), problem, remedy))
    refuse(str(path), problems)
    return list(found.values())
