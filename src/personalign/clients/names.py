"""From the name that a user writes to a client."""

from urllib.parse import urlsplit

from personalign.clients.keys import Key
from personalign.clients.protocol import Client
from personalign.errors import UserError

FORMS = "openai:MODEL, anthropic:MODEL, gemini:MODEL, http://HOST:PORT#MODEL, or local:MODEL"


def client(name: str) -> Client:
    """The client for a name: openai:gpt-4o-mini, anthropic:..., gemini:..., http://host:port#model, local:smollm2[+adapter].

    An address speaks OpenAI's chat completions (/v1 is added where it has no path) and takes a key from
    PERSONALIGN_API_KEY, if that is set. Raises UserError for a name of another form.
    """
    if name.startswith(("http://", "https://")):
        return _server(name)
    provider, _, model = name.partition(":")
    if not model:
        raise UserError(f"{name}: is no model to ask; write {FORMS}.")
    if provider == "openai":
        from personalign.clients.openai import OpenAI

        return OpenAI(name, model, Key("OPENAI_API_KEY"))
    if provider == "anthropic":
        from personalign.clients.anthropic import Anthropic

        return Anthropic(name, model, Key("ANTHROPIC_API_KEY"))
    if provider == "gemini":
        from personalign.clients.gemini import Gemini

        return Gemini(name, model, Key("GEMINI_API_KEY", "GOOGLE_API_KEY"))
    if provider == "local":
        from personalign.clients.local import Local

        base, _, adapter = model.partition("+")
        return Local(name, base, adapter or None)
    raise UserError(f"{name}: the provider {provider!r} is not known; write {FORMS}.")


def _server(name: str) -> Client:
    """The client for http://HOST:PORT#MODEL. The name is written into rows and ledger, so no key may stand in it."""
    address, _, model = name.partition("#")
    if "@" in address or "?" in address:
        raise UserError("a key does not belong into an address: set PERSONALIGN_API_KEY in the environment.")
    try:
        parts = urlsplit(address)
        known = bool(model and parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        known = False
    if not known:
        raise UserError(f"{name}: name the server and its model as http://HOST:PORT#MODEL.")
    from personalign.clients.openai import OpenAI

    base = address.rstrip("/") if parts.path.strip("/") else address.rstrip("/") + "/v1"
    return OpenAI(name, model, Key("PERSONALIGN_API_KEY"), base)
