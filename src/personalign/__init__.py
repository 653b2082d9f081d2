"""Give a language model a persona, measure what that did to its values, and let people talk to it."""

__version__ = "0.1.0"
