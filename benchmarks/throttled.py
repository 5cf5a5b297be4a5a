"""72 agents at a provider that refuses a fifth of them: how long beside the ideal, how many calls, and how many a minute saw.

python -m benchmarks.throttled [--requests-per-minute 600 72] [--latency-ms 500] [--out FILE]

A whole deliberation through the service, stored on SQLite. The far end answers a fifth of the prompts once with 429 and `Retry-After: 1`.
The ideal knows all of that beforehand: as many calls at once as a minute takes, those refused again after their second or in the next
minute, each after `latency`.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.measurement import Run
from benchmarks.stored_deliberation import stored_deliberation
from infrastructure.event_loop import run
from infrastructure.orchestrators.provider_client import ProviderClient, ReplyFacts
from infrastructure.orchestrators.provider_desk import ProviderDesk
from infrastructure.orchestrators.provider_settings import ProviderSettings
from tests.llm_server.handle import LlmServer
from tests.llm_server.rate_limit import most_in_window

AGENTS = 72
MINUTE_S = 60.0
RETRY_AFTER_S = 1
# A fifth of this many is a matter of chance; with this one it is a fifth.
SEED = 5


@asynccontextmanager
async def service(base_url: str, per_minute: int) -> AsyncIterator[Run]:
    """A whole deliberation, stored, over the desk of one provider."""
    provider = ProviderSettings("", base_url, max_concurrency=AGENTS, requests_per_minute=per_minute)

    def client_of(settings: ProviderSettings, heard: Callable[[str, ReplyFacts], None]) -> ProviderClient:
        return ProviderClient(base_url=settings.base_url, max_connections=AGENTS, heard=heard)

    async with (
        ProviderDesk([provider], client_of=client_of, default_model="test-model", slots=AGENTS) as desk,
        stored_deliberation(desk, agents=AGENTS, desk=desk) as deliberate,
    ):
        yield deliberate


def ideal_s(refused: int, *, per_minute: int, latency_s: float) -> float:
    """When the last answer can be there: the calls of the first second, of its retries, and of the minutes after."""
    first_retry_s = latency_s + RETRY_AFTER_S if refused else 0.0
    calls = AGENTS + refused
    minutes = (calls - 1) // per_minute
    begin_s = minutes * MINUTE_S if minutes else first_retry_s
    return begin_s + latency_s


async def main(limits: list[int], latency_ms: float, out: Path | None) -> None:
    """One deliberation for each limit; raises `AssertionError` when the far end saw what it must not see."""
    logging.disable(logging.WARNING)
    latency_s = latency_ms / 1000
    print("| requests a minute | ended, s | ideal, s | ratio | calls | refused | most in 60 s |")
    print("|---|---|---|---|---|---|---|")
    with LlmServer() as server:
        for per_minute in limits:
            server.reset()
            fault = {"fault": "429", "retry_after": RETRY_AFTER_S, "fraction": 0.2, "seed": SEED, "times": 1}
            server.configure(latency_seconds=latency_s, faults=[fault])
            async with service(server.base_url, per_minute) as deliberate:
                began = time.perf_counter()
                await deliberate()
                took_s = time.perf_counter() - began
            journal = [entry for entry in server.journal() if entry["counted"]]
            refused = sum(entry["status"] == 429 for entry in journal)
            most = most_in_window([entry["arrived_monotonic"] for entry in journal], seconds=MINUTE_S)
            best_s = ideal_s(refused, per_minute=per_minute, latency_s=latency_s)
            print(
                f"| {per_minute} | {took_s:.2f} | {best_s:.2f} | {took_s / best_s:.3f} | {len(journal)} | {refused} | {most} |"
            )
            assert len(journal) == AGENTS + refused
            assert most <= per_minute
            row = {"per_minute": per_minute, "s": took_s, "ideal_s": best_s, "calls": len(journal), "refused": refused}
            if out is not None:
                out.parent.mkdir(parents=True, exist_ok=True)
                with out.open("a") as file:
                    file.write(json.dumps({"title": "throttled", "most_in_a_minute": most, **row}) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests-per-minute", type=int, nargs="+", default=[600, 72])
    parser.add_argument("--latency-ms", type=float, default=500)
    parser.add_argument("--out", type=Path, help="append the results to this file, one JSON document a line")
    arguments = parser.parse_args()
    run(main(arguments.requests_per_minute, arguments.latency_ms, arguments.out))
