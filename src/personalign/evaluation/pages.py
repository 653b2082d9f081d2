"""What every report is written with: the page around it, Markdown in which text of others stays text, and its files."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from personalign.errors import UserError

WIDE, NARROW = 760, 328
"""Widths of the figures in CSS pixels: on a desk and on paper, and on a telephone."""


def page(
    template: str,
    contents: Mapping[str, Any],
    figures: Mapping[str, Callable[[int], str]],
    language: str = "en",
) -> str:
    """An HTML page from a template of this room. It loads nothing and runs nothing.

    `contents` is escaped as it stands in the page; `figures` (name -> SVG for a width) stand in it wide and narrow.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    from personalign.evaluation.drawing import palette_css

    templates = Environment(
        loader=PackageLoader("personalign.evaluation", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown = [
        {"name": name, "wide": Markup(draw(WIDE)), "narrow": Markup(draw(NARROW))} for name, draw in figures.items()
    ]
    return templates.get_template(template).render(
        **contents, figures=shown, palette=Markup(palette_css(":root")), language=language
    )


def write_texts(folder: Path, texts: Mapping[str, str]) -> list[Path]:
    """Write a report's files, by name, into `folder`; their paths. Raises UserError where that cannot be done."""
    try:
        for name, text in texts.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise UserError(f"Cannot write the report into {folder}: {error.strerror}. Choose another folder.") from error
    return [folder / name for name in texts]


def known_language(language: str) -> None:
    """Raise UserError for a language that no report is written in."""
    if language not in ("en", "ko"):
        raise UserError(f"A report can be written in en or ko, not in {language!r}.")


def bullets(lines: Sequence[str]) -> str:
    """Lines as a list."""
    return "\n".join(f"- {line}" for line in lines)


def plain_line(text: str) -> str:
    """Text of others in one line of Markdown, its markup made harmless."""
    return re.sub(r"([\\`*_\[\]<>#|~$])", r"\\\1", " ".join(text.split())).replace("\\<", "&lt;")


def fenced(text: str) -> str:
    """Text of others as a block of code whose fence is longer than any in it: nothing in it is markup."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}text\n{text.strip()}\n{fence}"
