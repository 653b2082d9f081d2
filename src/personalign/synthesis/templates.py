"""The prompts of this room (see clients/templates.py for what a prompt is)."""

from importlib import resources
from pathlib import Path

from personalign.clients.templates import Template, read_template

__all__ = ["Template", "template"]


def template(name: str, language: str, own: Path | None = None) -> Template:
    """The prompt of a name in a language, from the folder `own` if it is there, else ours. Raises as `read_template`."""
    return read_template(resources.files("personalign.synthesis") / "prompts", name, language, own)
