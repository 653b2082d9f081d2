"""Experiment trackers, through accelerate."""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from personalign.errors import UserError


def require_trackers(trackers: Sequence[str]) -> None:
    """Raise UserError for a tracker whose package is missing: accelerate would leave it out without a word."""
    for name in trackers:
        if find_spec(name) is None:
            raise UserError(f"trackers: {name} is not installed; `pip install {name}`, or leave it out.")


def flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as the flat table that trackers take."""
    table: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            table |= flat(value, f"{prefix}{key}.")
        else:
            table[prefix + key] = value if isinstance(value, (int, float, str, bool)) else str(value)
    return table
