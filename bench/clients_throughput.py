"""2,000 requests of 200 ms through 64 slots, against a server of our own in another process.

    python bench/clients_throughput.py [--rounds 3] [--quick]

`ratio` is the ideal time (2,000 x 200 ms / 64) over the time that it took, from an imported SDK to the last row of a ledger
with a budget; the aim is .9. In each round nothing may be lost and nothing sent twice, or the bench fails. Beside it stands
the SDK alone, without session and ledger. Each arm is a process of its own; the server takes a share of the other core. The
last line printed is JSON: name, ratio, memory_ratio (peak of ours over that of the SDK alone), aim, met, rows.
"""

import argparse
import asyncio
import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

from common import report

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from personalign.clients import Kept, Limits, Request, Session, client, ledger, together  # noqa: E402
from providers import Providers, providers  # noqa: E402

COUNT, SECONDS, SLOTS, AIM = 2000, 0.2, 64, 0.9
IDEAL = COUNT * SECONDS / SLOTS
NAMES = ("openai:gpt-4o-mini", "anthropic:claude-haiku-4-5", "gemini:gemini-2.5-flash")
SDKS = {"openai": "openai.resources.chat", "anthropic": "anthropic.resources.messages", "gemini": "google.genai"}


def asking(number: int) -> Request:
    text = f"Request {number}. " + "What would you say to somebody who has lost the way? " * 8
    return Request(({"role": "system", "content": "Be brief."}, {"role": "user", "content": text}), "bench.en@1")


def ours(name: str) -> int:
    """Through session and ledger, with a budget; how many were answered."""

    def piece(number: int) -> Any:
        async def work(session: Session) -> Kept:
            return await session.ask(asking(number))

        return work

    pieces = [piece(number) for number in range(COUNT)]
    with tempfile.TemporaryDirectory() as folder, ledger(Path(folder), budget_usd=1000) as book:
        kept = together(client(name), book, Limits(concurrency=SLOTS), stage="bench", work=pieces)
        return len({each.id for each in kept})


def alone(name: str) -> int:
    """The SDK alone: as many tasks as slots, and nothing kept."""

    async def run() -> int:
        asked, queue, found = client(name), iter(range(COUNT)), []

        async def worker() -> None:
            for number in queue:
                found.append(await asked.ask(asking(number)))

        await asyncio.gather(*(worker() for _ in range(SLOTS)))
        await asked.close()
        return len(found)

    return asyncio.run(run())


ARMS = {"session and ledger": ours, "SDK alone": alone}


def arm(label: str, name: str) -> dict[str, float]:
    """In a process of its own: what it took."""
    importlib.import_module(SDKS[name.partition(":")[0]])
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    answered = ARMS[label](name)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "ratio": IDEAL / seconds, "seconds": seconds, "answered": answered,
        "cpu_ms_per_request": used / COUNT * 1000, "peak_mb": after.ru_maxrss / 1024,
    }  # fmt: skip


def measure(server: Providers, label: str, name: str) -> dict[str, float]:
    """One round. Raises SystemExit where something was lost, or sent twice."""
    server.reset(delay=SECONDS)
    command = [sys.executable, __file__, "--arm", label, name]
    found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout)
    sent = Counter(str(each["body"].get("messages", each["body"].get("contents"))) for each in server.seen())
    if not found["answered"] == len(sent) == sum(sent.values()) == COUNT:
        raise SystemExit(
            f"{name}, {label}: something was lost or sent twice: {found['answered']}, {sum(sent.values())}"
        )
    if server.most_at_once() > SLOTS:
        raise SystemExit(f"{name}, {label}: {server.most_at_once()} in flight at once")
    return dict(found)


def main() -> None:
    """Run the arms in turns and print what they took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="the first provider only")
    parser.add_argument("--names", nargs="+", default=NAMES)
    parser.add_argument("--arm", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.arm:
        print(json.dumps(arm(*options.arm)))
        return
    rows = []
    with providers() as server:
        os.environ |= {
            "OPENAI_BASE_URL": server.openai, "ANTHROPIC_BASE_URL": server.address, "GOOGLE_GEMINI_BASE_URL": server.address,
            "OPENAI_API_KEY": "none", "ANTHROPIC_API_KEY": "none", "GEMINI_API_KEY": "none",
        }  # fmt: skip
        print(f"{COUNT} requests of {SECONDS:g} s through {SLOTS} slots: {IDEAL:.2f} s at best", flush=True)
        for name in options.names[:1] if options.quick else options.names:
            rounds = [{label: measure(server, label, name) for label in ARMS} for _ in range(options.rounds)]
            for label in ARMS:
                row = {key: median(each[label][key] for each in rounds) for key in rounds[0][label]}
                low, high = (pick(each[label]["ratio"] for each in rounds) for pick in (min, max))
                print(
                    f"  {name:27} {label:19} {row['ratio']:.3f} of the ideal ({low:.3f} to {high:.3f}), {row['seconds']:.2f} s, "
                    f"{row['cpu_ms_per_request']:.2f} ms of CPU a request, peak {row['peak_mb']:.0f} MB",
                    flush=True,
                )
                rows.append({"row": f"{name}, {label}", **row, "low": low, "high": high})
    first, plain = rows[0], rows[1]
    report("clients_throughput", first["ratio"], first["peak_mb"] / plain["peak_mb"], AIM, first["ratio"] >= AIM, rows)


if __name__ == "__main__":
    main()
