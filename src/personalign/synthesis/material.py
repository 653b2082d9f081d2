"""Source material: the plain text of files that a user has, web pages saved as files among them, in passages."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

from personalign.errors import UserError

PAGES = (".html", ".htm", ".xhtml")
TEXTS = (".txt", ".md")
# what no reader of the page would call its text, and what begins a line of its own
SKIPPED = frozenset("script style noscript template svg nav header footer aside form button select head".split())
PARAGRAPHS = frozenset("p h1 h2 h3 h4 h5 h6 article section blockquote table ul ol pre".split())
BLOCKS = PARAGRAPHS | frozenset("address br caption dd div dl dt figcaption figure hr li main td th title tr".split())


@dataclass(frozen=True)
class Passage:
    """A piece of a file; `source` says which: "notes.txt, passage 2"."""

    text: str
    source: str


def passages(paths: Sequence[Path], length: int = 1500) -> list[Passage]:
    """The files' texts in passages of at most `length` characters or so, cut between paragraphs where there are some.

    A folder stands for the files in it. Raises UserError for a file that cannot be read, is of another kind, or holds no text.
    """
    found: list[Passage] = []
    for path in paths:
        inside = [path]
        if path.is_dir():
            inside = sorted(each for each in path.rglob("*") if each.suffix.lower() in (*PAGES, *TEXTS))
        if not inside:
            raise UserError(f"{path}: holds no {', '.join((*TEXTS, *PAGES))} files.")
        for file in inside:
            pieces = _cut(read_text(file), length)
            found += [Passage(piece, f"{file.name}, passage {at}") for at, piece in enumerate(pieces, 1)]
    return found


def read_text(path: Path) -> str:
    """The text of a file; of a saved web page what its reader reads. Raises UserError, see `passages`."""
    if path.suffix.lower() not in (*PAGES, *TEXTS):
        raise UserError(
            f"{path}: unknown kind of material; give files that end in {', '.join((*TEXTS, *PAGES))}, or a folder."
        )
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}).") from None
    text = _decoded(raw, path)
    text = page_text(text) if path.suffix.lower() in PAGES else text
    if not text.strip():
        raise UserError(f"{path}: holds no text; leave it out, or save the page with its content.")
    return text


def page_text(html: str) -> str:
    """The text of a page, paragraphs apart by an empty line; without scripts, menus, headers and footers."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    lines = [" ".join(line.split()) for line in "".join(reader.parts).split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._skipping: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in SKIPPED:
            self._skipping.append(tag)
        elif tag in ("body", "main", "article"):  # whatever was left open before it
            self._skipping.clear()
        self._break(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._break(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self._skipping:
            del self._skipping[self._skipping.index(tag) :]
        self._break(tag)

    def handle_data(self, data: str) -> None:
        if not self._skipping:
            self.parts.append(data if self.parts[-1:] == ["\n"] and data.strip() == "" else re.sub(r"\s+", " ", data))

    def _break(self, tag: str) -> None:
        if tag in BLOCKS and not self._skipping:
            self.parts.append("\n\n" if tag in PARAGRAPHS else "\n")


def _decoded(raw: bytes, path: Path) -> str:
    """UTF-8, or the encoding that a page names, or that of old Korean pages."""
    named = re.search(rb"<meta[^>]+charset=[\"']?([\w-]+)", raw[:2048], re.IGNORECASE)
    for encoding in ("utf-8-sig", named[1].decode() if named else "cp949", "cp949"):
        try:
            return raw.decode(encoding)
        except (UnicodeDecodeError, LookupError):
            continue
    raise UserError(f"{path}: is neither UTF-8 nor Korean (CP949) text; save it as UTF-8.")


def _cut(text: str, length: int) -> list[str]:
    """Paragraphs together up to `length` characters; one that is longer by itself in pieces, between sentences where possible."""
    pieces: list[str] = []
    for paragraph in filter(None, (part.strip() for part in re.split(r"\n\s*\n", text))):
        while len(paragraph) > length:
            end = max((found.end() for found in re.finditer(r"[.!?。…]\s", paragraph[:length])), default=length)
            pieces.append(paragraph[:end].strip())
            paragraph = paragraph[end:].strip()
        if pieces and len(pieces[-1]) + len(paragraph) + 2 <= length:
            pieces[-1] += f"\n\n{paragraph}"
        elif paragraph:
            pieces.append(paragraph)
    return pieces
