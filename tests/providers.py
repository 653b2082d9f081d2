"""OpenAI, Anthropic and Gemini on this machine, with their wire formats and their faults, in a process of its own.

    with providers(delay=0.01) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.openai)        # and ANTHROPIC_BASE_URL, GOOGLE_GEMINI_BASE_URL
        ...
        server.seen()     # what arrived: path, body, key, fault, second, and what it billed

A fault is asked for in the text of the last message, as often as it shall happen: "what now? <<429=0.2, cut, filter>>" is
told to wait, then gets half an answer, then a filtered one; asked again, an answer. `server.next_faults([...])` does the
same to whatever comes next. Written on asyncio's protocols alone, so that it is faster than any client.
"""

import asyncio
import json
import re
import subprocess
import sys
import time
import urllib.request
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

ASKED = re.compile(r"<<([^<>]*)>>")
NOT_BILLED = {"quota", "echo", "wrongkey", "toolong", "azure", "400", "429", "500", "503", "529"}


class Server:
    """What was asked and billed so far, and what goes wrong next."""

    def __init__(self, delay: float) -> None:
        self.delay = delay
        self.reset()

    def reset(self) -> None:
        self.seen: list[dict[str, Any]] = []
        self.times: Counter[str] = Counter()
        self.faults: deque[str] = deque()
        self.now, self.most = 0, 0

    def fault(self, text: str) -> str:
        """The fault that this text meets this time, "" for none."""
        if self.faults:
            return self.faults.popleft()
        asked = ASKED.search(text)
        faults = [each.strip() for each in asked[1].split(",")] if asked else []
        self.times[text] += 1
        return faults[self.times[text] - 1] if self.times[text] <= len(faults) else ""


class Connection(asyncio.Protocol):
    """HTTP/1.1 with keep-alive, one request after another."""

    def __init__(self, server: Server) -> None:
        self.server, self.buffer = server, b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            lines = self.buffer[:end].decode("latin-1").split("\r\n")
            headers = {
                name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])
            }
            size = int(headers.get("content-length", 0))
            if len(self.buffer) < end + 4 + size:
                return
            body, self.buffer = self.buffer[end + 4 : end + 4 + size], self.buffer[end + 4 + size :]
            _, path, _ = lines[0].split(" ")
            self.request(path, headers, body)

    def request(self, path: str, headers: dict[str, str], body: bytes) -> None:
        server = self.server
        if path.startswith("/_"):
            return self.control(path, body)
        said = json.loads(body)
        kind, texts = read(path, said)
        key = headers.get("authorization", "").removeprefix("Bearer ") or headers.get("x-api-key") or ""
        key = key or headers.get("x-goog-api-key", "")
        fault = "wrongkey" if key.startswith("wrong") else server.fault(texts[-1])
        name, _, value = fault.partition("=")
        text = f"{kind} answers: {texts[-1]}"
        limit = (
            said.get("max_tokens") or said.get("max_completion_tokens") or said["generationConfig"]["maxOutputTokens"]
        )
        words = text.split(" ")
        finish = "end" if len(words) <= limit else "length"
        words = words[:limit]
        wants_less = name == "noschema" and has_schema(said) or name == "notemperature" and has_temperature(said)
        # what was withheld, cut or came too late has used its tokens as well
        used = [sum(len(each.encode()) // 3 + 3 for each in texts), len(words)]
        billed = [0, 0] if name in NOT_BILLED or wants_less else used
        server.seen.append(
            {"path": path, "body": said, "key": key, "fault": fault, "second": time.monotonic(), "billed": billed}
        )
        server.now += 1
        server.most = max(server.most, server.now)
        answer = responses(kind, said, name, value, key, " ".join(words), finish, billed)
        loop = asyncio.get_running_loop()
        loop.call_later(30 if name == "timeout" else server.delay, self.answer, name, *answer)

    def answer(self, fault: str, status: int, headers: str, body: bytes) -> None:
        self.server.now -= 1
        if self.transport.is_closing():
            return
        if fault == "drop":
            return self.transport.abort()
        chunked = fault == "cutchunks"
        length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
        head = f"HTTP/1.1 {status} -\r\nContent-Type: application/json\r\n{headers}{length}\r\n\r\n".encode()
        if chunked:
            half = body[: len(body) // 2]
            self.transport.write(head + f"{len(half):x}\r\n".encode() + half + b"\r\n")
        else:
            self.transport.write(head + (body[: len(body) // 2] if fault == "cut" else body))
        if fault in ("cut", "cutchunks"):
            self.transport.close()

    def control(self, path: str, body: bytes) -> None:
        server, found = self.server, None
        if path == "/_seen":
            found = {"seen": server.seen, "most_at_once": server.most}
        elif path == "/_reset":
            server.reset()
            server.delay = json.loads(body)["delay"]
        elif path == "/_faults":
            server.faults.extend(json.loads(body))
        data = json.dumps(found).encode()
        self.transport.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)


def read(path: str, said: dict[str, Any]) -> tuple[str, list[str]]:
    """Whose request it is, and the texts in it."""
    if path.endswith(":generateContent"):
        contents = [part["text"] for each in said["contents"] for part in each["parts"]]
        return "gemini", [*(part["text"] for part in said.get("systemInstruction", {}).get("parts", [])), *contents]
    texts = [each["content"] for each in said["messages"]]
    if path.endswith("/messages"):
        return "anthropic", [*(block["text"] for block in said.get("system", [])), *texts]
    return "openai", texts


def has_schema(said: dict[str, Any]) -> bool:
    return any(name in said for name in ("response_format", "output_config")) or "responseJsonSchema" in said.get(
        "generationConfig", {}
    )


def has_temperature(said: dict[str, Any]) -> bool:
    return "temperature" in said or "temperature" in said.get("generationConfig", {})


def responses(
    kind: str, said: dict[str, Any], fault: str, value: str, key: str, text: str, finish: str, billed: list[int]
) -> tuple[int, str, bytes]:
    """Status, headers and body that a provider answers with."""
    if fault == "quota":
        return error(kind, 429, "You exceeded your current quota", "insufficient_quota")
    if fault == "wrongkey":
        status = 400 if kind == "gemini" else 401
        return error(kind, status, f"API key not valid: {key}", "API_KEY_INVALID")
    if fault == "echo":
        return error(kind, 400, f"bad request with headers {{'authorization': 'Bearer {key}'}} and so on", "bad")
    if fault == "toolong":
        return error(kind, 400, "the prompt is longer than the context window", "context_length_exceeded")
    if fault == "azure":
        return error(kind, 400, "the prompt was filtered", "content_filter")
    if fault == "noschema" and has_schema(said):
        return error(kind, 400, "response_format is not supported by this model", "bad")
    if fault == "notemperature" and has_temperature(said):
        return error(kind, 400, "Unsupported value: 'temperature' does not support this value with this model", "bad")
    if fault.isdigit():
        status, header, delay = int(fault), "", ""
        if value and kind == "gemini":
            delay = value
        elif value:
            header = f"retry-after-ms: {float(value) * 1000}\r\n" if "." in value else f"Retry-After: {value}\r\n"
        status, more, body = error(kind, status, "come back later", "busy", delay)
        return status, header + more, body
    if fault == "garbage":
        return 200, "", b'{"choices": [{"mess'
    if fault == "empty":
        return 200, "", b"{}"
    usage: list[Any] | None = list(billed)
    if fault == "nousage":
        usage = None
    elif fault == "hugeusage":
        usage = [10**9, 10**9]
    elif fault == "negativeusage":
        usage = [-(10**9), -(10**9)]
    elif fault == "zerousage":
        usage = [0, 0]
    if fault == "half":  # of a surrogate pair: an emoji that was cut by the token limit
        text += "\ud83d"
    if fault == "echoed":
        text += f" {key}"
    finish = "filter" if fault == "filter" else finish
    body = {"openai": openai, "anthropic": anthropic, "gemini": gemini}[kind](said, text, finish, usage)
    return 200, "", json.dumps(body).encode()


def error(kind: str, status: int, message: str, code: str, delay: str = "") -> tuple[int, str, bytes]:
    if kind == "openai":
        body: Any = {"error": {"message": message, "type": code, "param": None, "code": code}}
    elif kind == "anthropic":
        body = {"type": "error", "error": {"type": code, "message": message}}
    else:
        retry = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{delay}s"}] if delay else []
        info = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": code}]
        body = {"error": {"code": status, "message": message, "status": "ERROR", "details": info + retry}}
    return status, "", json.dumps(body).encode()


def openai(said: dict[str, Any], text: str, finish: str, usage: list[Any] | None) -> dict[str, Any]:
    reason = {"end": "stop", "length": "length", "filter": "content_filter"}[finish]
    message = {"role": "assistant", "content": "" if finish == "filter" else text, "refusal": None}
    body = {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": said["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": reason, "logprobs": None}],
    }  # fmt: skip
    if usage is not None:
        details = {"cached_tokens": max(0, usage[0] // 10)}
        body["usage"] = {
            "prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage),
            "prompt_tokens_details": details,
        }  # fmt: skip
    return body


def anthropic(said: dict[str, Any], text: str, finish: str, usage: list[Any] | None) -> dict[str, Any]:
    reason = {"end": "end_turn", "length": "max_tokens", "filter": "refusal"}[finish]
    blocks = [] if finish == "filter" else [{"type": "text", "text": text}]
    body = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": said["model"], "content": blocks,
        "stop_reason": reason, "stop_sequence": None,
    }  # fmt: skip
    if usage is not None:  # what is read from the cache and written to it stands beside the rest
        written = usage[0] // 10 if "system" in said and usage[0] > 0 else 0
        body["usage"] = {
            "input_tokens": usage[0] - written, "output_tokens": usage[1],
            "cache_creation_input_tokens": written, "cache_read_input_tokens": 0,
        }  # fmt: skip
    return body


def gemini(said: dict[str, Any], text: str, finish: str, usage: list[Any] | None) -> dict[str, Any]:
    reason = {"end": "STOP", "length": "MAX_TOKENS", "filter": "SAFETY"}[finish]
    candidate: dict[str, Any] = {"finishReason": reason, "index": 0}
    if finish != "filter":
        candidate["content"] = {"role": "model", "parts": [{"text": "let me see", "thought": True}, {"text": text}]}
    body: dict[str, Any] = {"candidates": [candidate], "modelVersion": "m", "responseId": "resp-1"}
    if usage is not None:
        body["usageMetadata"] = {
            "promptTokenCount": usage[0], "candidatesTokenCount": usage[1] - usage[1] // 2,
            "thoughtsTokenCount": usage[1] // 2, "totalTokenCount": sum(usage),
        }  # fmt: skip
    return body


class Providers:
    """The server from outside: where it is, what it saw."""

    def __init__(self, port: int) -> None:
        self.address = f"http://127.0.0.1:{port}"
        self.openai = f"{self.address}/v1"

    def seen(self) -> list[dict[str, Any]]:
        """Requests in the order in which they came."""
        return list(self._ask("/_seen")["seen"])

    def most_at_once(self) -> int:
        """Requests that were being answered at the same time, at most."""
        return int(self._ask("/_seen")["most_at_once"])

    def reset(self, delay: float = 0.0) -> None:
        """Forget everything, and answer after `delay` seconds."""
        self._ask("/_reset", {"delay": delay})

    def next_faults(self, faults: list[str]) -> None:
        """What goes wrong with the next requests, whatever they are."""
        self._ask("/_faults", faults)

    def billed(self) -> list[int]:
        """Tokens (in, out) that all requests so far have cost."""
        return [sum(each["billed"][at] for each in self.seen()) for at in (0, 1)]

    def _ask(self, path: str, body: Any = None) -> Any:
        with urllib.request.urlopen(self.address + path, json.dumps(body).encode(), timeout=30) as answer:
            return json.loads(answer.read())


@contextmanager
def providers(delay: float = 0.0) -> Iterator[Providers]:
    """Start the server, and stop it."""
    process = subprocess.Popen([sys.executable, __file__, str(delay)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield Providers(int(process.stdout.readline()))
    finally:
        process.terminate()
        process.wait()


async def main() -> None:
    server = Server(float(sys.argv[1]))
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(lambda: Connection(server), "127.0.0.1", 0, backlog=512)
    print(listening.sockets[0].getsockname()[1], flush=True)
    await listening.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
