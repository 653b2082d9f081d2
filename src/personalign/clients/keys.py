"""API keys: read from the environment when they are needed, written nowhere."""

import os
import re

from personalign.errors import UserError

LOOKS_LIKE_ONE = re.compile(r"\b(?:sk|pk|gsk|hf|xai)[-_][\w*-]{8,}|\bAIza[\w*-]{8,}")  # or a part of one, masked


class Key:
    """A key in one of these environment variables, the first that is set. It has no text of its own to be printed."""

    def __init__(self, *variables: str) -> None:
        self.variables = variables

    def value(self) -> str | None:
        """The key, if there is one. Raises UserError, without the key, where it holds what no header can."""
        name = next((name for name in self.variables if os.environ.get(name, "").strip()), None)
        if name is None:
            return None
        found = os.environ[name].strip()
        if not (found.isascii() and found.isprintable()) or " " in found:
            raise UserError(f"{name} in the environment holds a character that no key has; set it again.")
        return found

    def required(self, model: str) -> str:
        """The key. Raises UserError, with the variable's name, where there is none."""
        found = self.value()
        if found is None:
            raise UserError(f"{model}: no key; set {' or '.join(self.variables)} in the environment.")
        return found

    def masked(self, text: str) -> str:
        """A text without the key, should a provider repeat it."""
        found = (os.environ.get(name, "").strip() for name in self.variables)
        for key in sorted(filter(None, found), key=len, reverse=True):
            text = text.replace(key, "[key]")
        return text

    def hidden(self, text: str) -> str:
        """A provider's message without the key and without what looks like one, in one line of at most 300 characters."""
        shown = LOOKS_LIKE_ONE.sub("[key]", self.masked(text))
        return re.sub(r"\s+", " ", shown).strip()[:300]
