"""Honest measurement: arms compared on the same items, a type inventory, preference accuracy, and the report of them.

Importing this room loads no torch: only measuring does.
"""

from personalign.evaluation.arms import ARMS, CONTROLS, Arm, comparisons, reference, with_controls
from personalign.evaluation.inventory import Item, inventory_summary, item_unit, load_items, type_probability
from personalign.evaluation.measure import measure
from personalign.evaluation.preference import pair_unit, preference, preference_summary
from personalign.evaluation.score import Answer, Unit, score

__all__ = [
    "ARMS",
    "CONTROLS",
    "Answer",
    "Arm",
    "Item",
    "Unit",
    "comparisons",
    "inventory_summary",
    "item_unit",
    "load_items",
    "measure",
    "pair_unit",
    "preference",
    "preference_summary",
    "reference",
    "score",
    "type_probability",
    "with_controls",
]
