"""What the record costs: durable appends, proofs from a large log, a whole check of it, and the offline check of a bundle.

python -m benchmarks.witness_log [--entries 1000000] [--database sqlite|postgres] [--out FILE]

Appends are made by one process in batches of 72, each batch a commit of its own, and then one by one; on Postgres by the application
role. Beside them, in the same run and on the same disk, stands what the database takes for bare rows of the same size. Proofs are of
entries drawn by chance, in the newest tree and in trees of sizes drawn by chance, one after the other; then of the latter again
from a server in a process of its own, over one connection.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from api.bootstrap import verification_tools
from application.services.log_audit import audit
from application.services.witness_service import WitnessService
from benchmarks.witness_hammer import database_of, document_of
from infrastructure.persistence.database import open_database
from infrastructure.persistence.sql_witness_log import SqlWitnessLog
from infrastructure.witness.ed25519 import SigningKey
from infrastructure.witness.signer import CheckpointSigner
from tests.servers.keeper import free_port

__all__ = ["main"]

_BATCH = 72
_FILLING = 1_008
_PROOFS = 500
_WARM_UP = 20
_ROWS_OF_BARE = 20_000


def main() -> int:
    """Run it and print a table and the JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--database", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--out", type=Path, help="append the result to this file, one JSON document a line")
    given = parser.parse_args()
    with database_of(given.database) as url:
        found = asyncio.run(_measure(url, given.entries))
        found |= _over_http(url, found["entries"])
    if given.database == "sqlite":
        found["bare_sqlite_rows_per_second"] = _bare_sqlite()
    document = {"database": given.database, **found}
    for name, value in document.items():
        sys.stdout.write(f"{name:36} {value}\n")
    if given.out is not None:
        with given.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(document) + "\n")
    return 0


async def _measure(url: str, entries: int) -> dict[str, Any]:
    database = await open_database(url)
    log = SqlWitnessLog(database)
    found: dict[str, Any] = {}
    documents = [document_of(number) for number in range(_BATCH)]
    batches = await _timed(lambda: log.append(documents), seconds=5)
    found["entries_per_second_by_72"] = round(_BATCH / statistics.median(batches))
    singles = sorted(await _timed(lambda: log.append(documents[:1]), seconds=3))
    found["single_append_ms_p50"] = round(statistics.median(singles) * 1e3, 3)
    found["single_append_ms_p95"] = round(singles[int(len(singles) * 0.95)] * 1e3, 3)
    await _fill(log, entries)
    found |= await _read(log)
    await database.close()
    return found


async def _timed(work: Callable[[], Any], *, seconds: float) -> list[float]:
    until = time.perf_counter() + seconds
    spent = []
    while (start := time.perf_counter()) < until:
        await work()
        spent.append(time.perf_counter() - start)
    return spent


async def _fill(log: SqlWitnessLog, entries: int) -> None:
    size = (await log.head()).tree_size
    documents = [document_of(number) for number in range(_FILLING)]
    while size < entries:
        placed = await log.append(documents[: entries - size])
        size += len(placed)


async def _read(log: SqlWitnessLog) -> dict[str, Any]:
    tools = verification_tools()
    signer = CheckpointSigner(SigningKey.from_seed(bytes(32)), "conclave.benchmark/log")
    service = WitnessService(log=log, signer=signer, tools=tools)
    size = (await log.head()).tree_size
    start = time.perf_counter()
    await service.check_at_start()
    checked = time.perf_counter() - start
    await service.checkpoint()
    chance = random.Random(1)
    newest = [(chance.randrange(size), size) for _ in range(_PROOFS)]
    any_size = _any_size(chance, size)
    proofs = await _proof_times(service, newest), await _proof_times(service, any_size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    report = await audit(log, key=service.verifier_key, tools=tools)
    audited = time.perf_counter() - start
    assert report.entries == size
    return {
        "entries": size,
        "start_check_ms": round(checked * 1e3, 2),
        **_shares("inclusion_proof_ms", proofs[0]),
        **_shares("inclusion_proof_any_size_ms", proofs[1]),
        "fsck_s": round(audited, 2),
        "fsck_more_rss_kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before,
    }


def _any_size(chance: random.Random, size: int) -> list[tuple[int, int]]:
    sizes = [chance.randrange(1, size + 1) for _ in range(_PROOFS)]
    return [(chance.randrange(each), each) for each in sizes]


async def _proof_times(service: WitnessService, wanted: Sequence[tuple[int, int]]) -> list[float]:
    spent = []
    for index, size in wanted:
        start = time.perf_counter()
        await service.inclusion(index=index, tree_size=size)
        spent.append(time.perf_counter() - start)
    return spent


def _shares(name: str, seconds: Sequence[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    return {f"{name}_p{part}": round(ordered[int(len(ordered) * part / 100)] * 1e3, 3) for part in (50, 95, 99)}


def _over_http(url: str, size: int) -> dict[str, float]:
    """How long the answers to requests for proofs take, from the request's first byte to the answer's last."""
    with tempfile.TemporaryDirectory() as folder, _serving(url, folder) as port:
        connection = HTTPConnection("127.0.0.1", port, timeout=60)
        spent = []
        for index, tree_size in [(0, size)] * _WARM_UP + _any_size(random.Random(2), size):
            start = time.perf_counter()
            connection.request("GET", f"/v1/witness/proofs/inclusion?index={index}&tree_size={tree_size}")
            answer = connection.getresponse()
            body = answer.read()
            spent.append(time.perf_counter() - start)
            assert answer.status == 200, body
        connection.close()
    return _shares("inclusion_proof_any_size_http_ms", spent[_WARM_UP:])


@contextmanager
def _serving(url: str, folder: str) -> Iterator[int]:
    port = free_port()
    environ = {
        **os.environ,
        "CONCLAVE_DATA_DIR": folder,
        "CONCLAVE_DATABASE_URL": url,
        "CONCLAVE_ORCHESTRATOR": "simulated",
        "CONCLAVE_PORT": str(port),
    }
    command = [sys.executable, "-m", "api.cli.main", "serve"]
    with subprocess.Popen(command, env=environ, stderr=subprocess.PIPE) as process:
        try:
            assert process.stderr is not None
            if not any(b"listening" in line for line in process.stderr):
                raise SystemExit("the server did not start; see what `conclave serve` says on this database")
            # It would stand still once nobody takes what it writes.
            threading.Thread(target=process.stderr.read, daemon=True).start()
            yield port
        finally:
            process.kill()


def _bare_sqlite() -> int:
    """Rows a second of 500 bytes, 72 a commit, by the driver alone."""
    with tempfile.TemporaryDirectory() as folder:
        connection = sqlite3.connect(Path(folder) / "bare.db", isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, data BLOB NOT NULL)")
        rows = [(b"x" * 500,)] * _BATCH
        start = time.perf_counter()
        for _ in range(_ROWS_OF_BARE // _BATCH):
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("INSERT INTO rows (data) VALUES (?)", rows)
            connection.execute("COMMIT")
        spent = time.perf_counter() - start
        connection.close()
    return round(_ROWS_OF_BARE / spent)


if __name__ == "__main__":
    sys.exit(main())
