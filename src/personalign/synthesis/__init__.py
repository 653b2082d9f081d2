"""Persona data made by a language model: prompts as files, answers through the ledger, rows that say where they come from."""

from personalign.synthesis.job import Job, Made, Row, finish, gather, unusable, write_rows
from personalign.synthesis.templates import Template, template

__all__ = ["Job", "Made", "Row", "Template", "finish", "gather", "template", "unusable", "write_rows"]
