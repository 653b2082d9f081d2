"""Personas: free ones written as YAML, and the 16 types composed from four axes, in Korean and English."""

from personalign.personas.axes import AXES, TYPES, opposite, poles
from personalign.personas.schema import Example, Persona, system_prompt
from personalign.personas.sixteen import example_names, persona

__all__ = ["AXES", "TYPES", "Example", "Persona", "example_names", "opposite", "persona", "poles", "system_prompt"]
