"""Preference pairs, rankings and conversations from the files people have, the bundled everyday data, splits and checks."""

from personalign.datasets.everyday import Situation, everyday, type_pairs
from personalign.datasets.lint import LengthBias, LintReport, length_bias, lint, lint_file
from personalign.datasets.prompts import read_prompts
from personalign.datasets.readers import Reading, read, read_conversations, read_pairs, read_rankings
from personalign.datasets.records import Conversation, Pair, Problem, Prompt, Ranking, chosen_conversation, expand
from personalign.datasets.show import show, show_row
from personalign.datasets.sizes import Size, size
from personalign.datasets.splits import portion, split

__all__ = [
    "Conversation",
    "LengthBias",
    "LintReport",
    "Pair",
    "Problem",
    "Prompt",
    "Ranking",
    "Reading",
    "Situation",
    "Size",
    "chosen_conversation",
    "everyday",
    "expand",
    "length_bias",
    "lint",
    "lint_file",
    "portion",
    "read",
    "read_conversations",
    "read_pairs",
    "read_prompts",
    "read_rankings",
    "show",
    "show_row",
    "size",
    "split",
    "type_pairs",
]
