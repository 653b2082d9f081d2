"""What a provider's refusal means: ask again later, ask again though it may be billed twice, or do not ask again."""

import email.utils
import re
import time
from collections.abc import Mapping
from typing import Any

from personalign.clients.keys import Key
from personalign.clients.protocol import Busy, Lost, NoAnswer
from personalign.errors import UserError

BEFORE_SENDING = {"ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError", "gaierror"}
# where aiohttp is the transport only its own word counts: what wraps it calls every broken connection a ConnectTimeout
OF_AIOHTTP, BEFORE_SENDING_OF_AIOHTTP = "ClientConnectionError", {"ClientConnectorError", "ConnectionTimeoutError"}
NO_CREDIT = ("insufficient_quota", "credit balance is too low")
WRONG_KEY = ("API_KEY_INVALID", "API key not valid")
# said by a gateway, or after the time was up: the model may have answered, and the answer may be billed
PERHAPS_BILLED = {408, 499, 502, 504, *range(520, 528)}
NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")


def refused(model: str, status: int, headers: Mapping[str, str], body: Any, message: str, key: Key) -> Exception:
    """The exception for an HTTP status of 400 and more: Busy, Lost, NoAnswer or UserError.

    `body` is the answer as JSON or None, `message` the SDK's text of it.
    """
    said, after, whole = key.hidden(message), retry_after(headers, body), f"{message} {body}"
    if status == 402 or any(sign in whole for sign in NO_CREDIT):
        return UserError(f"{model}: the account has no credit left ({said}); top it up, and the same command goes on.")
    if status in PERHAPS_BILLED:
        return Lost(f"{status}: {said}", after)
    if status in (409, 425, 429) or status >= 500:
        return Busy(f"{status}: {said}", after)
    if status in (401, 403) or any(sign in whole for sign in WRONG_KEY):
        names = " or ".join(key.variables)
        return UserError(f"{model}: the key is not accepted ({status}: {said}); mend {names} in the environment.")
    if status == 404:
        return UserError(f"{model}: there is no such model or address ({said}); mend the name.")
    return NoAnswer(f"turned away: {model} says {status} ({said}).")


def retry_after(headers: Mapping[str, str], body: Any = None) -> float | None:
    """Seconds until the provider wants to be asked again: Retry-After as seconds or date, in ms, or Gemini's RetryInfo."""
    plain = {name.lower(): value.strip() for name, value in dict(headers or {}).items()}
    if NUMBER.fullmatch(ms := plain.get("retry-after-ms", "")):
        return float(ms) / 1000
    if value := plain.get("retry-after", ""):
        if NUMBER.fullmatch(value):
            return float(value)
        if (date := email.utils.parsedate_tz(value)) is not None:
            return max(0.0, email.utils.mktime_tz(date) - time.time())
    found = re.search(rf"""["']retryDelay["']\s*:\s*["']({NUMBER.pattern})s["']""", str(body))
    return float(found[1]) if found else None


def broken(error: BaseException, key: Key) -> Exception:
    """The exception for a connection that failed: Busy if nothing can have been sent, Lost if it may have been."""
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None and cause not in causes:
        causes.append(cause)
    last = next((cause for cause in reversed(causes) if str(cause)), causes[-1])
    said = key.hidden(f"{type(last).__name__}: {last}")
    names = {kind.__name__ for each in causes for kind in type(each).__mro__}
    before = BEFORE_SENDING_OF_AIOHTTP if OF_AIOHTTP in names else BEFORE_SENDING
    return Busy(f"no connection ({said})") if names & before else Lost(said)


def unreadable(error: BaseException, key: Key) -> Lost:
    """The exception for an answer that is none."""
    return Lost(key.hidden(f"an answer that cannot be read ({type(error).__name__}: {error})"))
