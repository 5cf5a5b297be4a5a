"""An archive of 10,000 deliberations, searched over HTTP on SQLite and on Postgres.

    python -m benchmarks.archive [--deliberations 10000] [--requests 30] [--postgres] [--out FILE]

Each deliberation is witnessed and committed as the service does it, but for the agents, who are not asked: a question of some 70
characters, a context of a kilobyte, three options. Most are of 7 agents; 40 for each of the `--requests` are of 72. Postgres gets a
copy of the same rows. The server is `conclave serve` in a process of its own. A page has 20 hits: those of one agent count, spread over
the archive, first seen by that server ("cold": every hit is compared with its record) and then seen again ("warm"); then searches
of other kinds, and the first request of a server's life. CPU is the server's own, of all its threads; of Postgres that of its
processes is not in it.

It is one file, because filling, copying and asking go by one plan of which word stands in which deliberations.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlencode

from sqlalchemy import func, select, text, update

from application.ports.deliberation_repository import Commit
from benchmarks.measurement import machine
from domain.analysis.decision import decide
from domain.models.agent import Roster
from domain.models.deliberation import Deliberation, DeliberationStatus, Specification
from domain.models.money import Hold
from domain.models.question import AnswerFormat, AnswerKind, Question
from domain.models.roll_call import AgentState
from domain.models.round import AgentRecord
from domain.voting.rule import Rule, RuleKind
from domain.witness.entry import Entry, accepted, agent_ended, call_intended, deliberation_ended, round_started
from infrastructure.persistence.database import open_database
from infrastructure.persistence.engine import open_sync_engine
from infrastructure.persistence.migrate import upgrade
from infrastructure.persistence.sql_deliberation_repository import SqlDeliberationRepository
from infrastructure.persistence.tables import metadata, witness_head
from infrastructure.rosters.file_roster_source import FileRosterSource

_OPTIONS = ("yes", "no", "weekends only")
_FIRST = datetime(2026, 1, 1, tzinfo=UTC)
_AT_ONCE = 64
_SYLLABLES = ("ba", "co", "du", "fe", "gi", "ka", "lo", "mu", "ne", "pi", "ra", "so", "tu", "ve", "zo")
_WORDS = ["".join(each) for each in itertools.product(_SYLLABLES, repeat=3)]
_TARGET_MS = 100.0
_SMALL, _LARGE = 7, 72
_HITS = 20
_SERVERS = 5


@dataclass(frozen=True)
class Plan:
    """How many deliberations there are, how many of them are of 72 agents, and in which groups of 20 they are searched for."""

    deliberations: int
    requests: int

    @property
    def large(self) -> int:
        """How many are of 72 agents: each request asks for 20 that nobody has seen, as JSON and as a page."""
        return min(2 * _HITS * self.requests, self.deliberations // 2)

    def agents_of(self, number: int) -> int:
        """How many agents that deliberation has; the large ones are spread evenly."""
        return _LARGE if self._large_before(number + 1) > self._large_before(number) else _SMALL

    def word_of(self, number: int) -> str:
        """The word that it shares with some twenty others of its size."""
        before = self._large_before(number)
        if self.agents_of(number) == _LARGE:
            return self.word(_LARGE, before)
        return self.word(_SMALL, number - before)

    def word(self, agents: int, place: int) -> str:
        """The word of the deliberation at that place among those of its size."""
        groups = max((self.large if agents == _LARGE else self.deliberations - self.large) // _HITS, 1)
        return f"group{agents}x{place % groups:04d}x"

    def _large_before(self, number: int) -> int:
        return number * self.large // self.deliberations


async def fill(url: str, plan: Plan) -> float:
    """Put that many whole deliberations into the database at `url`; the seconds that it took."""
    await asyncio.to_thread(upgrade, url)
    database = await open_database(url)
    repository = SqlDeliberationRepository(database)
    whole = FileRosterSource(None).get("archons")
    rosters = {agents: whole.first(agents) for agents in (_SMALL, _LARGE)}
    chance = random.Random(7)
    began = time.perf_counter()
    numbers = iter(range(plan.deliberations))

    async def work() -> None:
        for number in numbers:
            question = _question(plan.word_of(number), number, chance)
            await _hold(repository, question, rosters[plan.agents_of(number)], number, chance)

    await asyncio.gather(*(work() for _ in range(_AT_ONCE)))
    took = time.perf_counter() - began
    await repository.close()
    await database.close()
    return took


def copy(source: str, target: str) -> float:
    """Put the rows of the database at `source` into the empty Postgres at `target`; the seconds that it took."""
    upgrade(target)
    began = time.perf_counter()
    reading, writing = open_sync_engine(source), open_sync_engine(target)
    with reading.connect() as rows, writing.connect() as into:
        cursor = into.connection.cursor()
        for table in metadata.sorted_tables:
            if table is witness_head:
                head = rows.execute(select(table)).one()
                into.execute(update(table).values(tree_size=head.tree_size, frontier=head.frontier))
            elif into.execute(select(func.count()).select_from(table)).scalar_one() == 0:
                names = ", ".join(column.name for column in table.columns)
                with cursor.copy(f"COPY {table.name} ({names}) FROM STDIN") as stream:
                    for row in rows.execution_options(yield_per=1_000).execute(select(table)):
                        stream.write_row(tuple(row))
        into.commit()
    with writing.connect().execution_options(isolation_level="AUTOCOMMIT") as into:
        into.execute(text("VACUUM ANALYZE"))
    reading.dispose()
    writing.dispose()
    return time.perf_counter() - began


def _question(word: str, number: int, chance: random.Random) -> Question:
    context = " ".join(chance.choices(_WORDS, k=150))
    asked = f"Should {word} number {number} be closed to {chance.choice(_WORDS)} in the city centre?"
    return Question(asked, context, AnswerFormat(AnswerKind.CHOICE, _OPTIONS))


async def _hold(
    repository: SqlDeliberationRepository, question: Question, roster: Roster, number: int, chance: random.Random
) -> None:
    at = _FIRST + timedelta(minutes=number)
    rule = Rule(RuleKind.THRESHOLD, 0.5) if number % 3 else Rule(RuleKind.PLURALITY)
    specification = Specification(question, roster, rule)
    fresh = Deliberation.accept(
        specification, at=at, orchestrator="benchmark", simulated=number % 2 == 0, key_name=None
    )
    entry = accepted(fresh)
    await repository.add(fresh, entry)
    running = fresh.start(at=at)
    records = [_record(agent.id, chance.choice(_OPTIONS), at) for agent in roster.agents]
    rounds, outcome = decide(running, records)
    over = running.end(DeliberationStatus.COMPLETED, at=at + timedelta(seconds=2), rounds=rounds, outcome=outcome)
    entries = [
        round_started(fresh.id, 0, [agent.id for agent in roster.agents], at=at),
        *(_intent(fresh.id, agent.id, at) for agent in roster.agents),
        *(agent_ended(fresh.id, each, question.answer) for each in records),
        deliberation_ended(over, cause=None),
    ]
    await repository.append(Commit(fresh.id, entries, over))


def _intent(deliberation_id: str, agent_id: str, at: datetime) -> Entry:
    return call_intended(
        deliberation_id,
        at=at,
        round_number=0,
        agent_id=agent_id,
        attempt=1,
        model="benchmark",
        prompt=agent_id,
        prompt_salt=bytes(16),
        hold=Hold(2_000, 1_000_000),
    )


def _record(agent_id: str, answer: str, at: datetime) -> AgentRecord:
    told = f"Because it is better for most: {answer}."
    return AgentRecord(
        0,
        agent_id,
        AgentState.ANSWERED,
        1,
        at,
        at + timedelta(seconds=1),
        content=json.dumps({"answer": answer, "reasoning": told}),
        answer=answer,
        confidence=0.7,
        reasoning=told,
        model="benchmark",
    )


@dataclass(frozen=True)
class Server:
    """Where it listens, and which process it is."""

    port: int
    pid: int

    def cpu_ms(self) -> float:
        """What it has used since its start (Linux)."""
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Asked:
    """One line of the table: what is asked for, and the addresses of the requests, one after another."""

    name: str
    addresses: Sequence[str]


def _json(**query: object) -> str:
    return "/v1/deliberations?" + urlencode({"limit": _HITS, **query})


def _html(**query: object) -> str:
    return "/archive?" + urlencode(query)


def pages(plan: Plan) -> Sequence[Asked]:
    """Pages of 20 hits, each first cold and then warm."""
    found = []
    for agents in (_SMALL, _LARGE):
        for kind, address, first in (("JSON", _json, 0), ("HTML", _html, plan.requests)):
            words = [plan.word(agents, first + place) for place in range(plan.requests)]
            addresses = [address(search=word) for word in words]
            found += [Asked(f"20 hits of {agents} agents, {kind}, {seen}", addresses) for seen in ("cold", "warm")]
    return found


def searches(plan: Plan, deep: str) -> Sequence[Asked]:
    """What else is asked; `deep` is the cursor of a page in the middle of the archive."""

    def each(address: Callable[[int], str]) -> Sequence[str]:
        return [address(number) for number in range(plan.requests)]

    def word(number: int) -> str:
        return plan.word(_SMALL, 7 * number)

    kinds: dict[str, object] = {"rule": "threshold", "answer": "choice", "simulated": "true"}
    return (
        Asked("every one has the word, JSON", each(lambda _: _json(search="city"))),
        Asked("every one has the word, HTML with their count", each(lambda _: _html(search="city"))),
        Asked("nobody has the word", each(lambda number: _json(search=f"nowhere{number}"))),
        Asked("two words, three filters", each(lambda number: _json(search=f"centre {word(number)}", **kinds))),
        Asked("from the middle on", each(lambda number: _json(search=f"city {word(number)}", cursor=deep))),
        Asked("no word, one outcome", each(lambda _: _json(outcome="tied"))),
    )


def measure(server: Server, asked: Asked) -> Figures:
    """The milliseconds of these requests, one after another on one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    took = []
    cpu = server.cpu_ms()
    for address in asked.addresses:
        began = time.perf_counter()
        connection.request("GET", address, headers={"Accept": "text/html, application/json"})
        answer = connection.getresponse()
        body = answer.read()
        took.append((time.perf_counter() - began) * 1e3)
        if answer.status != 200:
            raise SystemExit(f"{address} was answered with {answer.status}: {body[:200]!r}")
    connection.close()
    return Figures(asked.name, sorted(took), (server.cpu_ms() - cpu) / len(took))


@dataclass(frozen=True)
class Figures:
    """Of one line: the times in milliseconds, ascending, and what the server took of the processor for one request."""

    name: str
    took: Sequence[float]
    cpu_ms: float

    @property
    def p95(self) -> float:
        """Nineteen of twenty took no longer."""
        return self.took[int(0.95 * (len(self.took) - 1))]

    def document(self) -> dict[str, object]:
        """The line."""
        return {
            "asked": self.name,
            "p50_ms": round(statistics.median(self.took), 1),
            "p95_ms": round(self.p95, 1),
            "slowest_ms": round(self.took[-1], 1),
            "cpu_ms": round(self.cpu_ms, 1),
        }


def _middle(port: int) -> str:
    """The cursor of the page in the middle."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/v1/deliberations?limit=200&to=2026-01-04")
    found = json.loads(connection.getresponse().read())["next_cursor"]
    connection.close()
    return str(found)


@contextmanager
def served(url: str, folder: Path) -> Iterator[Server]:
    """A server on that database."""
    environment = {
        **os.environ,
        "CONCLAVE_DATABASE_URL": url,
        "CONCLAVE_DATA_DIR": str(folder),
        "CONCLAVE_ORCHESTRATOR": "simulated",
        "PYTHONUNBUFFERED": "1",
    }
    command = [sys.executable, "-m", "api.cli.main", "serve", "--port", "0"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if "http://127.0.0.1:" in line:
                    port = "".join(itertools.takewhile(str.isdecimal, line.partition("http://127.0.0.1:")[2]))
                    yield Server(int(port), process.pid)
                    break
            else:
                raise SystemExit("the server did not start")
        finally:
            process.terminate()
            process.wait(30)


def run(url: str, folder: Path, *, name: str, plan: Plan) -> Sequence[Figures]:
    """Measure everything on that database, and print the table."""
    figures = []
    asked = pages(plan)
    # A server compares ahead from ten seconds after its start, so each two lines have one of their own.
    for start in range(0, len(asked), 2):
        with served(url, folder) as server:
            figures += [measure(server, each) for each in asked[start : start + 2]]
    with served(url, folder) as server:
        figures += [measure(server, asked) for asked in searches(plan, _middle(server.port))]
    for kind, address in (("JSON", _json), ("HTML", _html)):
        firsts = []
        for place in range(_SERVERS):
            with served(url, folder) as server:
                firsts.append(measure(server, Asked("", [address(search=plan.word(_LARGE, place))])))
        took, cpu = sorted(each.took[0] for each in firsts), statistics.mean(each.cpu_ms for each in firsts)
        figures.append(Figures(f"the first request of a server, 20 hits of 72 agents, {kind}", took, cpu))
    print(
        f"\n{name}, {plan.deliberations:,} deliberations, {plan.large:,} of them of 72 agents; load {os.getloadavg()[0]:.1f}\n"
    )
    print("| asked | p50 ms | p95 ms | slowest ms | CPU ms |\n|---|---|---|---|---|")
    for each in figures:
        print("| " + " | ".join(map(str, each.document().values())) + " |", flush=True)
    return figures


def main() -> None:
    """Measure, print the tables, and say by the exit code whether every p95 is under 100 ms."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--deliberations", type=int, default=10_000)
    parser.add_argument("--requests", type=int, default=30, help="of each line")
    parser.add_argument("--postgres", action="store_true", help="also on a Postgres of its own")
    parser.add_argument(
        "--archive", type=Path, help="keep the SQLite file there, and take it from there if it is there"
    )
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    plan = Plan(options.deliberations, options.requests)
    results: dict[str, Sequence[Figures]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file: Path = options.archive or folder / "conclave.db"
        url = f"sqlite:///{file}"
        if not file.exists():
            sys.stderr.write(f"SQLite: filled in {asyncio.run(fill(url, plan)):.0f} s\n")
        results["SQLite"] = run(url, folder, name="SQLite", plan=plan)
        if options.postgres:
            from tests.servers.postgres import PostgresServer

            with PostgresServer() as server:
                server.create_database("archive")
                data = folder / "postgres"
                data.mkdir()
                sys.stderr.write(f"Postgres: copied in {copy(url, server.url('archive')):.0f} s\n")
                results["Postgres"] = run(server.url("archive"), data, name="Postgres", plan=plan)
    document = {
        "machine": machine(),
        "results": {name: [each.document() for each in figures] for name, figures in results.items()},
    }
    if options.out is not None:
        options.out.write_text(json.dumps(document, indent=1), encoding="utf-8")
    slow = [each for figures in results.values() for each in figures if each.p95 > _TARGET_MS]
    raise SystemExit(1 if slow else 0)


if __name__ == "__main__":
    main()
