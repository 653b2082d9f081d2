"""Give a language model a persona, measure what that did to its values, and let people talk to it."""

from personalign.home import move_caches

move_caches()

__version__ = "0.1.0"
