"""Language models behind an API, or here: asked within limits and budget, each answer kept before anyone uses it."""

from personalign.clients.ledger import BudgetReached, Kept, Ledger, dollars, ledger
from personalign.clients.names import client
from personalign.clients.prices import Price, price_of
from personalign.clients.protocol import Answer, Busy, Client, Lost, NoAnswer, Request, Usage
from personalign.clients.session import Limits, Session, together
from personalign.clients.structured import Formed, ask_for, formed
from personalign.clients.tolerant import loads

__all__ = [
    "Answer",
    "BudgetReached",
    "Busy",
    "Client",
    "Formed",
    "Kept",
    "Ledger",
    "Limits",
    "Lost",
    "NoAnswer",
    "Price",
    "Request",
    "Session",
    "Usage",
    "ask_for",
    "client",
    "dollars",
    "formed",
    "ledger",
    "loads",
    "price_of",
    "together",
]
