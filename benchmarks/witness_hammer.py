"""A hammer on the witness log: processes append while others fetch and verify every proof; exit code 1 at the first inconsistency.

python -m benchmarks.witness_hammer [--seconds 60] [--writers 4] [--readers 4] [--batch 72] [--database sqlite|postgres] [--out FILE]

Writers are processes of their own and append batches of entries as large as the end of an agent. Readers ask for a signed
checkpoint, verify that it continues the last one they saw, and verify the inclusion of its newest entries and of some older ones,
each against the entry's own bytes. On Postgres everybody is the application role.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import random
import secrets
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import make_url

from api.bootstrap import verification_tools
from application.services.witness_service import WitnessService
from domain.errors.witness import WitnessError
from domain.witness.checkpoint import open_checkpoint
from domain.witness.entry import commitment, time_text
from domain.witness.merkle import leaf_hash
from domain.witness.proof import verify_consistency, verify_inclusion
from infrastructure.persistence.database import open_database
from infrastructure.persistence.migrate import upgrade
from infrastructure.persistence.sql_witness_log import SqlWitnessLog
from infrastructure.witness.ed25519 import SigningKey
from infrastructure.witness.signer import CheckpointSigner
from tests.servers.postgres import PostgresServer

__all__ = ["database_of", "document_of", "main"]

_ORIGIN = "conclave.hammer/log"
_SEED = bytes(range(32))
_PROOFS_A_ROUND = 64
_ROLE = "conclave_hammer"


def main() -> int:
    """Run it, print what was seen, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--writers", type=int, default=4)
    parser.add_argument("--readers", type=int, default=4)
    parser.add_argument("--batch", type=int, default=72)
    parser.add_argument("--database", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--out", type=Path, help="append the result to this file, one JSON document a line")
    given = parser.parse_args()
    with database_of(given.database) as url:
        found = _hammer(url, given.seconds, given.writers, given.readers, given.batch)
    document = {"database": given.database, "writers": given.writers, "readers": given.readers, **found}
    sys.stdout.write(json.dumps(document, indent=2) + "\n")
    if given.out is not None:
        with given.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(document) + "\n")
    return 0 if found["clean"] else 1


@contextmanager
def database_of(kind: str) -> Iterator[str]:
    """The address of a fresh database with an empty log, on Postgres that of the application role."""
    if kind == "sqlite":
        with tempfile.TemporaryDirectory() as folder:
            url = f"sqlite:///{Path(folder) / 'conclave.db'}"
            upgrade(url)
            yield url
        return
    with PostgresServer() as server:
        server.create_database("hammer")
        owner = server.url("hammer")
        role = make_url(owner).set(username=_ROLE, password=secrets.token_hex(12))
        url = role.render_as_string(hide_password=False)
        upgrade(owner, application_url=url)
        yield url


def _hammer(url: str, seconds: float, writers: int, readers: int, batch: int) -> dict[str, Any]:
    context = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[Mapping[str, Any]] = context.Queue()
    until = time.time() + seconds + 2
    jobs = [(_write, batch)] * writers + [(_read, number) for number in range(readers)]
    processes = [context.Process(target=_job, args=(work, url, until, fact, results)) for work, fact in jobs]
    for process in processes:
        process.start()
    told = [results.get(timeout=seconds + 60) for _ in processes]
    for process in processes:
        process.join()
    appended = [each for each in told if each["kind"] == "writer"]
    seen = [each for each in told if each["kind"] == "reader"]
    waits = sorted(wait for each in appended for wait in each["waits_ms"])
    entries = sum(each["entries"] for each in appended)
    spent = max((each["seconds"] for each in appended), default=seconds)
    size = asyncio.run(_size(url))
    problems = [each["problem"] for each in told if each["problem"] is not None]
    if size != entries:
        problems.append(f"{entries} entries were acknowledged and the log has {size}")
    return {
        "clean": not problems,
        "problems": problems,
        "seconds": round(spent, 1),
        "entries": entries,
        "entries_per_second": round(entries / spent) if entries else 0,
        "append_ms": {"p50": _share(waits, 0.5), "p95": _share(waits, 0.95), "max": _share(waits, 1.0)},
        "checkpoints_verified": sum(each["checkpoints"] for each in seen),
        "inclusion_proofs_verified": sum(each["inclusions"] for each in seen),
        "consistency_proofs_verified": sum(each["consistencies"] for each in seen),
        "proof_ms": {"p50": round(statistics.median(times), 3)} if (times := _times(seen)) else {},
    }


def _times(seen: Sequence[Mapping[str, Any]]) -> list[float]:
    return [each["proof_ms"] for each in seen if each["inclusions"]]


def _share(ordered: Sequence[float], share: float) -> float | None:
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 3) if ordered else None


async def _size(url: str) -> int:
    database = await open_database(url)
    head = await SqlWitnessLog(database).head()
    await database.close()
    return head.tree_size


def _job(work: Any, url: str, until: float, fact: int, results: Any) -> None:
    results.put(asyncio.run(work(url, until, fact)))


async def _write(url: str, until: float, batch: int) -> dict[str, Any]:
    database = await open_database(url, busy_timeout_s=30)
    log = SqlWitnessLog(database)
    prepared = [document_of(number) for number in range(batch)]
    waits: list[float] = []
    problem = None
    began = time.perf_counter()
    try:
        while time.time() < until:
            own, at = str(uuid.uuid4()), time_text(datetime.now(UTC))
            documents = [{**each, "at": at, "deliberation_id": own} for each in prepared]
            start = time.perf_counter()
            placed = await log.append(documents)
            waits.append((time.perf_counter() - start) * 1000)
            indexes = [entry.index for entry in placed]
            if indexes != list(range(indexes[0], indexes[0] + batch)):
                problem = f"a batch was placed at {indexes}"
                break
    finally:
        await database.close()
    spent = time.perf_counter() - began
    return {"kind": "writer", "entries": len(waits) * batch, "seconds": spent, "waits_ms": waits, "problem": problem}


def document_of(number: int) -> dict[str, Any]:
    """An entry as large as the end of an agent."""
    text = secrets.token_hex(8)
    return {
        "type": "agent.ended",
        "at": time_text(datetime.now(UTC)),
        "round": 0,
        "agent_id": f"archon-{number}",
        "attempt": 1,
        "state": "answered",
        "answer": number % 3,
        "confidence": 0.75,
        "content": commitment(_SEED, text),
        "reasoning": commitment(_SEED, text),
        "model": "hammer",
        "usage": {"calls": 1, "input_tokens": 200, "output_tokens": 50, "cost_usd": 0.0},
        "failure": None,
    }


async def _read(url: str, until: float, seed: int) -> dict[str, Any]:
    chance = random.Random(seed)
    database = await open_database(url, busy_timeout_s=30)
    tools = verification_tools()
    signer = CheckpointSigner(SigningKey.from_seed(_SEED), _ORIGIN)
    service = WitnessService(log=SqlWitnessLog(database), signer=signer, tools=tools)
    counts = {"checkpoints": 0, "inclusions": 0, "consistencies": 0}
    problem, proving, last = None, 0.0, None
    try:
        while time.time() < until:
            note = await service.checkpoint()
            seen, _ = open_checkpoint(note, service.verifier_key, tools.check_signature, origin=_ORIGIN)
            counts["checkpoints"] += 1
            size = seen.tree_size
            if last is not None:
                between = await service.consistency(first=last.tree_size, second=size)
                verify_consistency(
                    first=last.tree_size,
                    second=size,
                    first_root=last.root_hash,
                    second_root=seen.root_hash,
                    proof=between.hashes,
                )
                counts["consistencies"] += 1
            newest = range(max(0, size - _PROOFS_A_ROUND // 2), size)
            older = [chance.randrange(size) for _ in range(_PROOFS_A_ROUND // 2)] if size else []
            for index in (*newest, *older):
                start = time.perf_counter()
                proof = await service.inclusion(index=index, tree_size=size)
                proving += time.perf_counter() - start
                entry = await service.entry(index)
                leaf = leaf_hash(entry.entry)
                verify_inclusion(index=index, tree_size=size, leaf=leaf, root=seen.root_hash, proof=proof.hashes)
                counts["inclusions"] += 1
            last = seen
    except WitnessError as error:
        problem = str(error)
    finally:
        await database.close()
    each = proving * 1000 / counts["inclusions"] if counts["inclusions"] else 0.0
    return {"kind": "reader", **counts, "proof_ms": each, "problem": problem}


if __name__ == "__main__":
    sys.exit(main())
