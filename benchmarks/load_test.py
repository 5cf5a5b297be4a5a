"""A load test through REST: deliberations of 72 offered at a rate to one real server, over a model that is slow, throttles and breaks.

    python -m benchmarks.load_test [--orchestrator openai|crewai] [--deliberations 50] [--rate 0.3] [--out FILE]

`conclave serve` and the test LLM server run in processes of their own. Each call takes 0.1 to 10 s (log-normal, median 1 s). The
model takes 50 calls a second and answers 429 beyond; some calls are throttled besides, some break, some never answer. Deliberations
arrive at random times (exponential gaps). What is judged comes from `/metrics`, scraped all the while, and from what REST says of each
deliberation. One line a criterion, and one JSON document.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any

from tests.llm_server.handle import LlmServer

__all__ = ["Criterion", "Load", "measure"]

P95_LIMIT_S, P99_LIMIT_S, FAILED_LIMIT, USE_LIMIT, FULL_LIMIT_S = 30.0, 60.0, 0.05, 0.90, 60.0
_SOURCES = Path(__file__).parents[1] / "src"
_PORT_MARK = "127.0.0.1:"
_POLL_S = 0.2
_PATIENCE_S = 120.0
_ASK_S = 90.0
_BACK_SOON_S = 0.5


@dataclass(frozen=True, slots=True)
class Load:
    """What is offered to the server, and how its model behaves. Fractions are of calls.

    Two kinds of 429: what comes in a second beyond `requests_per_s` is refused, which any deliberation of 72 passes at its start, and
    a fraction is refused whatever the rate.
    """

    orchestrator: str = "openai"
    deliberations: int = 50
    agents: int = 72
    rate_per_s: float = 0.3
    median_s: float = 1.0
    sigma: float = 0.9
    least_s: float = 0.1
    most_s: float = 10.0
    requests_per_s: int = 50
    throttled: float = 0.002
    broken: float = 0.02
    unreadable: float = 0.005
    silent: float = 0.002
    agent_timeout_s: float = 20.0
    scrape_s: float = 0.2
    seed: int = 5

    def faults(self) -> list[dict[str, Any]]:
        """The rules of the model server, each with draws of its own."""
        shares = {
            "429": self.throttled,
            "500": self.broken / 2,
            "reset": self.broken / 2,
            "not_ballot": self.unreadable,
            "hang": self.silent,
        }
        return [
            {"fault": fault, "fraction": share, "each_call": True, "seed": self.seed + number, "latency_seconds": 0.05}
            for number, (fault, share) in enumerate(shares.items())
        ]


@dataclass(frozen=True, slots=True)
class Criterion:
    """One figure and what it must stay below, or for `least` reach."""

    name: str
    value: float
    limit: float
    least: bool = False

    @property
    def passed(self) -> bool:
        """Whether it did."""
        return self.value >= self.limit if self.least else self.value < self.limit

    def __str__(self) -> str:
        sign = ">=" if self.least else "<"
        return f"{'passed' if self.passed else 'FAILED'}  {self.name:<24} {self.value:10.3f} {sign} {self.limit:g}"


@dataclass
class _Scrapes:
    """The pool over time: moments (monotonic, seconds), slots taken, slots there are, and agents that wait for one."""

    moments: list[float] = field(default_factory=list)
    active: list[float] = field(default_factory=list)
    capacity: float = 0.0
    waiting: float = 0.0

    def add(self, metrics: Mapping[str, float]) -> None:
        self.moments.append(time.monotonic())
        self.active.append(metrics["conclave_pool_active_agents"])
        self.capacity = metrics["conclave_pool_capacity_agents"]
        self.waiting = max(self.waiting, metrics["conclave_pool_waiting_agents"])

    def slot_seconds(self, *, until: float = math.inf) -> float:
        """The slots taken, summed over time, between two scrapes as at the first of them."""
        steps = zip(self.moments, self.moments[1:], self.active, strict=False)
        return sum((later - earlier) * active for earlier, later, active in steps if earlier < until)

    def use(self, *, until: float) -> float:
        """The share of the pool that was in use while the load was offered."""
        steps = zip(self.moments, self.moments[1:], strict=False)
        taken_s = sum(later - earlier for earlier, later in steps if earlier < until)
        return self.slot_seconds(until=until) / (self.capacity * taken_s)

    def longest_s(self, share: float) -> float:
        """For how long without a break more than that share was in use."""
        longest, since = 0.0, None
        for moment, active in zip(self.moments, self.active, strict=True):
            if active <= share * self.capacity:
                since = None
                continue
            since = moment if since is None else since
            longest = max(longest, moment - since)
        return longest


class _Server:
    """A Conclave that listens on a port of this machine."""

    def __init__(self, port: int) -> None:
        self._port = port

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_ASK_S)
        try:
            sent = None if body is None else json.dumps(body)
            connection.request(method, path, sent, {"Content-Type": "application/json"} if sent else {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def metrics(self) -> dict[str, float]:
        """Each sample by its name and labels as they are written."""
        _, text = self.ask("GET", "/metrics")
        lines = (line.rsplit(" ", 1) for line in text.decode().splitlines() if not line.startswith("#"))
        return {name: float(value) for name, value in lines}

    def scrape(self, scrapes: _Scrapes, stopping: threading.Event, *, every_s: float) -> None:
        """Until it is told to stop, and once more."""
        scrapes.add(self.metrics())
        while not stopping.wait(every_s):
            scrapes.add(self.metrics())
        scrapes.add(self.metrics())

    def deliberate(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Submit one, again while the server says that it is full, and wait for its end: the deliberation."""
        until = time.monotonic() + _PATIENCE_S
        while True:
            status, raw = self.ask("POST", "/v1/deliberations?wait=60", body)
            if status != 429 or time.monotonic() > until:
                break
            time.sleep(_BACK_SOON_S)
        found = json.loads(raw)
        if status not in {200, 202}:
            raise RuntimeError(f"a deliberation was refused with {status}: {found!r}")
        while found["finished_at"] is None:
            if time.monotonic() > until:
                raise TimeoutError(f"deliberation {found['id']!r} did not end within {_PATIENCE_S:g} s")
            time.sleep(_POLL_S)
            found = json.loads(self.ask("GET", f"/v1/deliberations/{found['id']}")[1])
        return dict(found)


@contextlib.contextmanager
def _serving(load: Load, llm: LlmServer, pool: int) -> Iterator[_Server]:
    with tempfile.TemporaryDirectory() as folder:
        settings = {name: value for name, value in os.environ.items() if not name.startswith(("CONCLAVE_", "OPENAI_"))}
        settings |= {
            "PYTHONPATH": str(_SOURCES),
            "HOME": folder,
            "CONCLAVE_DATA_DIR": folder,
            "CONCLAVE_ORCHESTRATOR": load.orchestrator,
            "CONCLAVE_LLM_BASE_URL": llm.base_url,
            "CONCLAVE_LLM_API_KEY": "key",
            "CONCLAVE_LLM_MODEL": "test-model",
            "CONCLAVE_MAX_CONCURRENT_AGENTS": str(pool),
            "CONCLAVE_LLM_MAX_CONCURRENCY": str(pool),
            "CONCLAVE_LOG_LEVEL": "error",
        }
        command = [sys.executable, "-m", "api.cli.main", "serve", "--port", "0"]
        process = subprocess.Popen(command, env=settings, cwd=folder, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        try:
            line = next((line for line in process.stderr if _PORT_MARK in line), None)
            if line is None:
                raise RuntimeError(f"`conclave serve` ended with {process.wait()} before it listened")
            port = line.partition(_PORT_MARK)[2].partition(",")[0].partition(" ")[0]
            # What it says later must not fill the pipe.
            drain = threading.Thread(target=process.stderr.read)
            drain.start()
            try:
                yield _Server(int(port))
            finally:
                process.terminate()
                drain.join(30)
        finally:
            process.kill()
            process.communicate()


def _body(load: Load, number: int) -> dict[str, Any]:
    return {
        "question": f"Should district {number} close its centre to private cars?",
        "answer": {"kind": "choice", "options": ["yes", "no", "weekends only"]},
        "agents": {"roster": "archons", "count": load.agents},
        "limits": {"agent_timeout_s": load.agent_timeout_s, "max_attempts": 3},
    }


def measure(load: Load, *, pool: int = 72) -> dict[str, Any]:
    """Offer the load, and judge what came of it: the document that `main` prints."""
    random = Random(load.seed)
    scrapes = _Scrapes()
    stopping = threading.Event()
    with LlmServer() as llm, _serving(load, llm, pool) as server:
        lognormal = {"median": load.median_s, "sigma": load.sigma, "least": load.least_s, "most": load.most_s}
        llm.configure(
            latency_seconds={"lognormal": lognormal},
            faults=load.faults(),
            rates=[{"requests": load.requests_per_s, "seconds": 1.0}],
            seed=load.seed,
        )
        before = server.metrics()
        with ThreadPoolExecutor(load.deliberations + 1) as hands:
            scraping = hands.submit(server.scrape, scrapes, stopping, every_s=load.scrape_s)
            began = due = time.monotonic()
            submitted: list[Future[Mapping[str, Any]]] = []
            try:
                for number in range(load.deliberations):
                    time.sleep(max(0.0, due - time.monotonic()))
                    submitted.append(hands.submit(server.deliberate, _body(load, number)))
                    due += random.expovariate(load.rate_per_s)
                ended = time.monotonic()
                documents = [future.result() for future in submitted]
            finally:
                stopping.set()
            scraping.result()
        after = server.metrics()
        far_end = llm.stats()
    document = _judged(load, documents, scrapes, _gained(before, after), until=ended)
    document["offered_per_s"] = round(load.deliberations / (ended - began), 3)
    document["calls"] = {name: far_end[name] for name in ("requests", "peak_in_flight", "by_fault", "by_status")}
    return document


def _gained(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    return {name: value - before.get(name, 0.0) for name, value in after.items()}


def _judged(
    load: Load,
    documents: Sequence[Mapping[str, Any]],
    scrapes: _Scrapes,
    gained: Mapping[str, float],
    *,
    until: float,
) -> dict[str, Any]:
    batches = sorted(_seconds(document["started_at"], document["finished_at"]) for document in documents)
    states: Counter[str] = Counter()
    for document in documents:
        states.update(document["roll_call"])
    asked = states.pop("asked")
    failed = asked - states["answered"] - states["abstained"]
    observed = gained["conclave_batch_duration_seconds_count"]
    criteria = [
        Criterion(
            "completed", sum(each["status"] == "completed" for each in documents), load.deliberations, least=True
        ),
        Criterion("batch_p95_s", _percentile(batches, 0.95), P95_LIMIT_S),
        Criterion("batch_p99_s", _percentile(batches, 0.99), P99_LIMIT_S),
        Criterion(
            "batches_within_30_s",
            gained['conclave_batch_duration_seconds_bucket{le="30.0"}'] / observed,
            0.95,
            least=True,
        ),
        Criterion(
            "batches_within_60_s",
            gained['conclave_batch_duration_seconds_bucket{le="60.0"}'] / observed,
            0.99,
            least=True,
        ),
        Criterion("failed_agents", failed / asked, FAILED_LIMIT),
        Criterion("pool_use", scrapes.use(until=until), USE_LIMIT),
        Criterion("pool_over_90_percent_s", scrapes.longest_s(USE_LIMIT), FULL_LIMIT_S),
        Criterion("pool_exhausted", gained["conclave_pool_exhausted_total"], 1),
    ]
    slot_seconds = scrapes.slot_seconds() / len(documents)
    return {
        "load": asdict(load),
        "criteria": {
            each.name: {"value": round(each.value, 4), "limit": each.limit, "passed": each.passed} for each in criteria
        },
        "passed": all(each.passed for each in criteria),
        "agents": {"asked": asked, **states},
        "batch_s": {"p50": round(_percentile(batches, 0.5), 2), "max": round(batches[-1], 2)},
        "slot_seconds_a_deliberation": round(slot_seconds, 1),
        "rate_at_90_percent_per_s": round(USE_LIMIT * scrapes.capacity / slot_seconds, 3),
        "waiting_agents_most": scrapes.waiting,
        "lines": [str(each) for each in criteria],
    }


def _seconds(began: str, ended: str) -> float:
    return (datetime.fromisoformat(ended) - datetime.fromisoformat(began)).total_seconds()


def _percentile(ordered: Sequence[float], share: float) -> float:
    """The nearest rank: the smallest value that at least that share of them does not pass."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def main() -> int:
    """Measure, and print one line a criterion and the JSON document. 1 where one of them is not met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    usual = Load()
    parser.add_argument("--orchestrator", choices=["openai", "crewai"], default=usual.orchestrator)
    parser.add_argument("--deliberations", type=int, default=usual.deliberations)
    parser.add_argument("--agents", type=int, default=usual.agents)
    parser.add_argument("--rate", type=float, default=usual.rate_per_s, help="deliberations offered a second")
    parser.add_argument("--pool", type=int, default=72, help="CONCLAVE_MAX_CONCURRENT_AGENTS")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    load = Load(
        orchestrator=arguments.orchestrator,
        deliberations=arguments.deliberations,
        agents=arguments.agents,
        rate_per_s=arguments.rate,
    )
    document = measure(load, pool=arguments.pool)
    print("\n".join(document.pop("lines")))
    print(json.dumps(document, indent=2))
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(document) + "\n")
    return 0 if document["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
