"""Google's Gemini, with its four safety thresholds: `options: {safety: BLOCK_NONE}` sets all of them."""

from typing import Any

from personalign.clients.failures import broken, refused, unreadable
from personalign.clients.protocol import Answer, Finish, Request, check_options, said_usage
from personalign.clients.provider import Provider
from personalign.errors import UserError

HARMS = ("HARASSMENT", "HATE_SPEECH", "SEXUALLY_EXPLICIT", "DANGEROUS_CONTENT")
WITHHELD = {"SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "LANGUAGE", "MODEL_ARMOR", "ESCALATION"}
OPTIONS = {"safety", "top_k", "stop_sequences", "presence_penalty", "frequency_penalty", "thinking_config"}


class Gemini(Provider):
    """A model of Google."""

    def _client(self) -> Any:
        if self._sdk is None:
            try:
                from google import genai
            except ModuleNotFoundError:
                raise UserError(f"{self.name}: pip install 'personalign[gemini]' first.") from None
            key = self.key.required(self.name)
            # without these its aiohttp backend sends again of its own accord what may have been billed
            once = genai.types.HttpRetryOptions(attempts=1)
            options = genai.types.HttpOptions(base_url=self.base_url, retry_options=once)
            self._sdk = genai.Client(api_key=key, vertexai=False, http_options=options)
        return self._sdk

    async def ask(self, request: Request) -> Answer:
        """See Client.ask."""
        check_options(self.name, request.options, OPTIONS)
        options = dict(request.options)
        safety = options.pop("safety", None)
        if safety is not None:
            options["safety_settings"] = [{"category": f"HARM_CATEGORY_{harm}", "threshold": safety} for harm in HARMS]
        if system := [message["content"] for message in request.messages if message["role"] == "system"]:
            options["system_instruction"] = "\n\n".join(system)
        options |= {"automatic_function_calling": {"disable": True}}
        form = {"response_mime_type": "application/json", "response_json_schema": request.schema}
        return await self._leaving_out.ask(
            lambda config: self._send(request, config),
            {"max_output_tokens": request.max_tokens, **options},
            temperature={"temperature": request.temperature, "top_p": request.top_p},
            seed={"seed": request.own_seed()} if request.seed is not None else {},
            schema=form if request.schema is not None else {},
        )

    async def _send(self, request: Request, config: dict[str, Any]) -> Answer:
        client = self._client()
        from google.genai import errors, types

        if "automatic_continuation" in types.GenerateContentConfig.model_fields:  # from version 3 on
            # or the SDK would go on asking where an answer was cut, beyond what is reserved
            config = {**config, "automatic_continuation": False}
        try:
            said = types.GenerateContentConfig(**config)
        except ValueError as error:
            raise UserError(f"{self.name}: mend its options ({self.key.hidden(str(error))}).") from None
        contents = [
            {"role": "model" if message["role"] == "assistant" else "user", "parts": [{"text": message["content"]}]}
            for message in request.messages
            if message["role"] != "system"
        ]
        try:
            return self._read(
                await client.aio.models.generate_content(model=self.model, contents=contents, config=said)
            )
        except errors.APIError as error:
            headers = getattr(error.response, "headers", None) or {}
            raise refused(
                self.name, error.code, headers, error.details, error.message or str(error), self.key
            ) from None
        except Exception as error:
            if type(error).__module__.split(".")[0] in ("httpx", "httpx2", "httpcore", "aiohttp"):
                raise broken(error, self.key) from None
            raise unreadable(error, self.key) from None

    def _read(self, found: Any) -> Answer:
        usage, counted = found.usage_metadata, None
        if usage is not None:
            read = (usage.prompt_token_count or 0) + (usage.tool_use_prompt_token_count or 0)
            written = (usage.candidates_token_count or 0) + (usage.thoughts_token_count or 0)
            counted = said_usage(read, written, usage.cached_content_token_count)
        if found.prompt_feedback is not None and found.prompt_feedback.block_reason is not None:
            return Answer("", "filter", counted, found.response_id)
        candidate = found.candidates[0]
        parts = (candidate.content.parts if candidate.content is not None else None) or []
        text = "".join(part.text for part in parts if part.text and not part.thought)
        reason = candidate.finish_reason.value if candidate.finish_reason is not None else "STOP"
        finish: Finish = "end"
        if reason in WITHHELD:
            finish = "filter"
        elif reason in ("MAX_TOKENS", "CONTINUATION"):
            finish = "length"
        return Answer(self.key.masked(text), finish, counted, found.response_id)

    async def _close(self, sdk: Any) -> None:
        await sdk.aio.aclose()
