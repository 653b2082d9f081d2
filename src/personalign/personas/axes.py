"""The four axes, their eight poles, and the sixteen types that they span."""

from difflib import get_close_matches
from itertools import product

from personalign.errors import UserError

AXES = ("EI", "NS", "TF", "JP")
"""Axis order; the first letter of each is its first pole."""

TYPES = tuple("".join(poles) for poles in product(*AXES))
"""The sixteen types, "ENTJ" first and "ISFP" last."""


def poles(type_or_poles: str) -> tuple[str, ...]:
    """Return the poles of a type, or of a part of one, in axis order: "entj" -> ("E", "N", "T", "J"); "te" -> E, T.

    Raises UserError, naming the nearest types, where the letters are no poles or two of them share an axis.
    """
    letters = type_or_poles.strip().upper()
    chosen = tuple(pole for axis in AXES for pole in axis if pole in letters)
    if not letters or len(chosen) != len(letters) or any(set(axis) <= set(chosen) for axis in AXES):
        raise UserError(
            f"{type_or_poles!r} is none of the 16 types{_nearest(letters, TYPES)}: "
            f"write one letter of each of {', '.join('/'.join(axis) for axis in AXES)}, as in ENTJ, or some, as in E."
        )
    return chosen


def opposite(type_or_poles: str) -> str:
    """Return the type on the other side of every axis: "ENTJ" -> "ISFP", "E" -> "I"."""
    other = {pole: axis[1 - side] for axis in AXES for side, pole in enumerate(axis)}
    return "".join(other[pole] for pole in poles(type_or_poles))


def _nearest(name: str, names: tuple[str, ...]) -> str:
    near = get_close_matches(name, names, n=3, cutoff=0.5)
    return f" (near: {', '.join(near)})" if near else ""
