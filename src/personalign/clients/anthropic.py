"""Anthropic's messages, with their prompt caching: a system prompt that comes again is read at a tenth of the price."""

from typing import Any

from personalign.clients.failures import broken, refused, unreadable
from personalign.clients.protocol import Answer, Finish, Request, check_options, said_usage
from personalign.clients.provider import Provider
from personalign.errors import UserError

FINISH: dict[str, Finish] = {"max_tokens": "length", "model_context_window_exceeded": "length", "refusal": "filter"}
OPTIONS = {"top_k", "stop_sequences", "thinking", "metadata"}


class Anthropic(Provider):
    """A model of Anthropic."""

    def _client(self) -> Any:
        if self._sdk is None:
            try:
                from anthropic import AsyncAnthropic, DefaultAioHttpClient
            except ModuleNotFoundError:
                raise UserError(f"{self.name}: pip install 'personalign[anthropic]' first.") from None
            key = self.key.required(self.name)
            self._sdk = AsyncAnthropic(
                api_key=key, base_url=self.base_url, max_retries=0, timeout=None,
                http_client=DefaultAioHttpClient(timeout=None),
            )  # fmt: skip
        return self._sdk

    async def ask(self, request: Request) -> Answer:
        """See Client.ask. Seeds are not known there."""
        check_options(self.name, request.options, OPTIONS)
        said = {"model": self.model, "max_tokens": request.max_tokens, **request.options}
        said["messages"] = [message for message in request.messages if message["role"] != "system"]
        if system := [message["content"] for message in request.messages if message["role"] == "system"]:
            cached = {"type": "ephemeral"}
            said["system"] = [{"type": "text", "text": "\n\n".join(system), "cache_control": cached}]
        sampling = {"temperature": request.temperature, "top_p": request.top_p}
        return await self._leaving_out.ask(
            self._send,
            said,
            temperature={name: value for name, value in sampling.items() if value != 1},  # its default
            schema=self._schema(request),
        )

    def _schema(self, request: Request) -> dict[str, Any]:
        if request.schema is None:
            return {}
        self._client()
        from anthropic import transform_schema

        return {"output_config": {"format": {"type": "json_schema", "schema": transform_schema(dict(request.schema))}}}

    async def _send(self, body: dict[str, Any]) -> Answer:
        client = self._client()
        import anthropic

        try:
            # not by messages.create, which has no temperature any more, as new models take none
            return self._read(await client.post("/v1/messages", body=body, cast_to=object))
        except anthropic.APIStatusError as error:
            headers, said = error.response.headers, getattr(error, "api_message", None) or str(error)
            raise refused(self.name, error.status_code, headers, error.body, said, self.key) from None
        except anthropic.APIConnectionError as error:
            raise broken(error, self.key) from None
        except Exception as error:
            raise unreadable(error, self.key) from None

    def _read(self, found: Any) -> Answer:
        text = "".join(block["text"] for block in found["content"] if block["type"] == "text")
        usage = found.get("usage") or {}
        read, written = (usage.get(f"cache_{name}_input_tokens") or 0 for name in ("read", "creation"))
        counted = said_usage(
            (usage.get("input_tokens") or 0) + read + written, usage.get("output_tokens"), read, written
        )
        return Answer(self.key.masked(text), FINISH.get(found.get("stop_reason"), "end"), counted, found.get("id"))
