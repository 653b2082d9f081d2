"""What the clients over a provider's own library share: made with the first request, one for all that follow."""

from typing import Any

from personalign.clients.keys import Key
from personalign.clients.leaving_out import LeavingOut


class Provider:
    """A model behind a provider's library; `base_url` is another address than the library's own."""

    def __init__(self, name: str, model: str, key: Key, base_url: str | None = None) -> None:
        self.name, self.model, self.key, self.base_url = name, model, key, base_url
        self._sdk: Any = None
        self._leaving_out = LeavingOut(name)

    async def close(self) -> None:
        """See Client.close."""
        if self._sdk is not None:
            sdk, self._sdk = self._sdk, None
            await self._close(sdk)

    async def _close(self, sdk: Any) -> None:
        await sdk.close()
