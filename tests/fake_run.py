"""A run with next to no work, as a program: `python -m tests.fake_run WORK [N] --json`, on the command line or started by a server."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Mapping

from api.cli.launched_run import arguments_from
from application.ports.run_observer import RunObserver
from application.services.run_service import RunForm
from application.services.stop_signal import StopSignal
from domain.errors.deliberation import FieldProblem
from domain.errors.dependency import DependencyUnavailableError
from domain.models.deliberation import DeliberationStatus
from domain.models.message import BusStats
from domain.models.run import JsonValue, RunEnding, RunKind

__all__ = ["FORM", "form_of", "main"]

_WORKS = ("count", "wait", "hang", "stubborn", "fail", "break", "die", "breed", "env")


def _check(document: Mapping[str, object]) -> tuple[dict[str, JsonValue], list[FieldProblem]]:
    problems = [FieldProblem(f"/{name}", "is not known") for name in document if name not in {"work", "number"}]
    work, number = document.get("work", "count"), document.get("number", 3)
    if work not in _WORKS:
        problems.append(FieldProblem("/arguments/work", "is not known"))
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= 1000:
        problems.append(FieldProblem("/number", "is no such number"))
    return {"work": str(work), "number": number if isinstance(number, int) else 0}, problems


def _command_line(arguments: Mapping[str, JsonValue]) -> list[str]:
    return [str(arguments["work"]), str(arguments["number"])]


FORM = RunForm(check=_check, command_line=_command_line)


def form_of(kind: RunKind) -> RunForm | None:
    """The same for every kind but population."""
    return None if kind is RunKind.POPULATION else FORM


def hang() -> None:
    """Hold up the whole event loop for good."""
    threading.Event().wait()


async def work(observer: RunObserver, stop: StopSignal, *, kind: str, number: int) -> RunEnding:
    """Note `number` events, and then end, fail or refuse to as `kind` says."""
    if kind == "die":
        os._exit(70)
    observer.count(BusStats("memory", sent=number, latency_histogram={float("inf"): number}, latency_sum_s=0.5))
    for each in range(number):
        observer.note("fake.counted", {"each": each})
    if kind == "fail":
        raise DependencyUnavailableError(dependency="the far end", problem="it is at /a/secret/place")
    if kind == "break":
        raise ZeroDivisionError("of /a/secret/place")
    if kind == "hang":
        observer.note("fake.hanging", {"pid": os.getpid()})
        hang()
    while kind == "stubborn":
        try:
            await stop.wait()
            observer.note("fake.asked_to_end", {})
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            continue
    if kind == "breed" and (child := os.fork()):
        observer.note("fake.bred", {"pid": child})
    elif kind == "breed":
        hang()
    if kind == "wait":
        reason = await stop.wait()
        return RunEnding(reason.status, {"counted": number})
    if kind == "env":
        return RunEnding(DeliberationStatus.COMPLETED, {"names": [*sorted(os.environ)], "visible": [*sys.argv[1:]]})
    return RunEnding(DeliberationStatus.COMPLETED, {"counted": number})


def main(arguments: list[str]) -> int:
    """The exit code of that run."""
    from api.bootstrap import load_settings
    from api.cli.recorded_run import run_recorded

    kind, number = arguments[0], int(arguments[1]) if arguments[1:] and arguments[1].isdecimal() else 3

    async def worked(observer: RunObserver, stop: StopSignal) -> RunEnding:
        return await work(observer, stop, kind=kind, number=number)

    return run_recorded(
        RunKind.SWARM,
        {"work": kind, "number": number},
        worked,
        settings=load_settings(),
        as_json="--json" in arguments,
        render=lambda result: print(f"counted {result['counted']}"),  # noqa: T201
        show=lambda type, data: print(type, dict(data), file=sys.stderr),  # noqa: T201, A006
    )


if __name__ == "__main__":
    # A server says by standard input what to do.
    sys.exit(main(sys.argv[1:] or arguments_from(sys.stdin)))
