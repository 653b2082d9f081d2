"""OpenAI's chat completions, and every server that speaks them (vLLM, llama.cpp, ollama, OpenRouter, ...)."""

from typing import Any

from personalign.clients.failures import broken, refused, unreadable
from personalign.clients.protocol import Answer, Finish, Request, check_options, said_usage
from personalign.clients.provider import Provider

FINISH: dict[str, Finish] = {"stop": "end", "length": "length", "content_filter": "filter"}
OPTIONS = {
    "frequency_penalty", "presence_penalty", "stop", "logit_bias", "reasoning_effort", "verbosity", "user",
    "prompt_cache_key", "safety_identifier",
}  # fmt: skip
OWN = {"model", "messages", "max_tokens", "max_completion_tokens", "n", "best_of", "stream", "response_format"}
LENGTHS = ("minLength", "maxLength")


class OpenAI(Provider):
    """A model of OpenAI, or with `base_url` of a compatible server, which may do without a key.

    A compatible server's further options (`min_p`, ...) go into `extra_body`.
    """

    def _client(self) -> Any:
        if self._sdk is None:
            from openai import AsyncOpenAI, DefaultAioHttpClient

            key = self.key.required(self.name) if self.base_url is None else self.key.value() or "none"
            # the session retries and keeps time: the SDK does neither. Its default transport takes longer than all the rest
            self._sdk = AsyncOpenAI(
                api_key=key, base_url=self.base_url, max_retries=0, timeout=None,
                http_client=DefaultAioHttpClient(timeout=None),
            )  # fmt: skip
        return self._sdk

    async def ask(self, request: Request) -> Answer:
        """See Client.ask."""
        options = dict(request.options)
        check_options(self.name, options, OPTIONS if self.base_url is None else OPTIONS | {"extra_body"})
        more = options.pop("extra_body", {})
        check_options(self.name, OWN & set(more), ())
        sampling = {"temperature": request.temperature, "top_p": request.top_p}
        if self.base_url is None:  # 1 is OpenAI's default, and it bounds thinking as well under another name
            sampling = {name: value for name, value in sampling.items() if value != 1}
        bound = "max_tokens" if self.base_url is not None else "max_completion_tokens"
        schema = {"name": "answer", "schema": without_lengths(request.schema), "strict": True}
        return await self._leaving_out.ask(
            self._send,
            {"model": self.model, "messages": list(request.messages), bound: request.max_tokens, **options, **more},
            temperature=sampling,
            seed={"seed": request.own_seed()} if request.seed is not None else {},
            schema={"response_format": {"type": "json_schema", "json_schema": schema}}
            if request.schema is not None
            else {},
        )

    async def _send(self, body: dict[str, Any]) -> Answer:
        client = self._client()
        import openai

        try:
            # as a plain object: a typed answer takes the SDK longer than all the rest
            return self._read(await client.post("/chat/completions", body=body, cast_to=object))
        except openai.APIStatusError as error:
            if error.code == "content_filter":  # Azure withholds before it answers, and may bill what it read
                return Answer("", "filter", None)
            headers = error.response.headers
            raise refused(self.name, error.status_code, headers, error.body, str(error), self.key) from None
        except openai.APIConnectionError as error:
            raise broken(error, self.key) from None
        except Exception as error:
            raise unreadable(error, self.key) from None

    def _read(self, found: Any) -> Answer:
        if not found.get("choices"):  # OpenRouter says its errors with status 200
            raise ValueError(f"no choices: {found.get('error') or found}")
        choice = found["choices"][0]
        message = choice["message"]
        refusal = message.get("refusal")
        finish = "filter" if refusal else FINISH.get(choice.get("finish_reason"), "end")
        usage = found.get("usage") or {}
        cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")
        counted = said_usage(usage.get("prompt_tokens"), usage.get("completion_tokens"), cached)
        return Answer(self.key.masked(message.get("content") or refusal or ""), finish, counted, found.get("id"))


def without_lengths(schema: Any) -> Any:
    """A JSON schema without lengths of strings, which OpenAI's strict mode does not take; the answer is checked anyway."""
    if isinstance(schema, list):
        return [without_lengths(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: value for key, value in schema.items() if schema.get("type") != "string" or key not in LENGTHS}
    return {key: without_lengths(value) for key, value in kept.items()}
