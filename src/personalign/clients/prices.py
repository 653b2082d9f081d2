"""What tokens cost: a dated table that comes with personalign (prices.yaml), and what a recipe puts over it."""

from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Annotated, Any
from urllib.parse import urlsplit

import yaml
from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from personalign.clients.protocol import Usage
from personalign.errors import UserError

Dollars = Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Price:
    """Dollars per million tokens: read, written, read from the provider's cache, and put there."""

    input: Dollars
    output: Dollars
    cached: Dollars | None = None
    cache_written: Dollars | None = None
    date: str = ""

    def cost(self, usage: Usage) -> int:
        """Pico-dollars of what was used."""
        plain = usage.input - usage.cached - usage.cache_written
        cached = self.input if self.cached is None else self.cached
        written = self.input if self.cache_written is None else self.cache_written
        return sum(
            tokens * _pico(price)
            for tokens, price in (
                (plain, self.input), (usage.cached, cached), (usage.cache_written, written), (usage.output, self.output)
            )
        )  # fmt: skip

    def most(self, input_tokens: int, output_tokens: int) -> int:
        """Pico-dollars that so many tokens cannot exceed."""
        dearest = max(self.input, self.cached or 0, self.cache_written or 0)
        return input_tokens * _pico(dearest) + output_tokens * _pico(self.output)

    def plain(self) -> dict[str, Any]:
        """For the ledger."""
        return {name: value for name, value in vars(self).items() if value not in (None, "")}


def _pico(dollars_per_million: float) -> int:
    return round(dollars_per_million * 1_000_000)


def price_of(model: str, own: Mapping[str, Mapping[str, Any]] | None = None) -> Price | None:
    """Price of a model by the name that users write ("openai:gpt-4o-mini"); `own` goes before the table.

    A dated name of a model (openai:gpt-4o-mini-2024-07-18) has the price of the longest name in the table that it begins
    with. What runs on this machine costs nothing unless `own` says so. None: not known. Raises UserError for a price of
    `own` that is none.
    """
    if own and model in own:
        try:
            return Price(**own[model])
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise UserError(f"make.prices: {model}: {'.'.join(map(str, first['loc']))}: {first['msg']}.") from None
    if model in _table():
        return Price(**_table()[model])
    dated = [name for name in _table() if model.startswith(f"{name}-") and model[len(name) + 1 :][:1].isdigit()]
    if dated:
        return Price(**_table()[max(dated, key=len)])
    here = model.startswith("local:") or urlsplit(model).hostname in ("localhost", "127.0.0.1", "::1")
    return Price(0.0, 0.0) if here else None


@cache
def _table() -> dict[str, dict[str, Any]]:
    text = (resources.files("personalign.clients") / "prices.yaml").read_text(encoding="utf-8")
    read: dict[str, Any] = yaml.safe_load(text)
    return {
        f"{provider}:{model}": {"date": str(part["date"]), **prices}
        for provider, part in read.items()
        for model, prices in part["models"].items()
    }
