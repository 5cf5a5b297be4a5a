"""The process that carries some shards: told over a socket what to do, and gone when the socket is."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from domain.errors.population import BehaviourError
from domain.models.population import PopulationSpecification
from infrastructure.population.arena import Arena, Layout
from infrastructure.population.making import make_worker
from infrastructure.population.shard_worker import AbortedError, ShardWorker

__all__ = ["main"]


def main() -> None:
    """Join the arena of the first descriptor and do what comes over the second, until it closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    file, far = (int(argument) for argument in sys.argv[1:3])
    with socket.socket(fileno=far) as near, near.makefile("rwb") as lines:
        begin = json.loads(lines.readline())
        arena = Arena(Layout.from_document(begin["layout"]), file=file)
        worker = _worker_of(begin, arena)
        _answer(lines, {})
        while line := lines.readline():
            task = json.loads(line)
            if "relocate" in task:
                worker = _worker_of(begin, arena)
                task = {"refresh": task["relocate"]}
            _answer(lines, _done(worker, task))


def _worker_of(begin: dict[str, Any], arena: Arena) -> ShardWorker:
    parent = int(begin["parent"])
    return make_worker(
        arena,
        PopulationSpecification.from_document(begin["specification"]),
        kernel=begin["kernel"],
        worker=begin["worker"],
        workers=begin["workers"],
        batch=begin["batch"],
        cache=Path(begin["cache"]) if begin["cache"] else None,
        orphaned=lambda: os.getppid() != parent,
    )


def _done(worker: ShardWorker, task: dict[str, int]) -> dict[str, Any]:
    try:
        if "refresh" in task:
            worker.refresh(task["refresh"])
        else:
            worker.tick(task["tick"])
    except BehaviourError as error:
        return {name: getattr(error, name) for name in ("behaviour", "shard", "agent", "tick", "problem")}
    except AbortedError:
        return {"problem": "was left waiting by another"}
    return {}


def _answer(lines: Any, answer: dict[str, Any]) -> None:
    lines.write(json.dumps(answer).encode() + b"\n")
    lines.flush()


if __name__ == "__main__":
    main()
