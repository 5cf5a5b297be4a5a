"""`conclave demo`: a chamber to look at, without a key, a model or a setting, whose record is verified before one's eyes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli.exit_codes import ExitCode
from api.cli.options import JsonOption

if TYPE_CHECKING:
    from api.cli.interruption import Interruption
    from api.cli.page import Page
    from api.conclave import Conclave
    from application.services.verification import VerificationReport

__all__ = ["add_to"]

_NOTICE = "The replies of the agents were written down beforehand and are given by an endpoint of this process. All else is real."
_STAYS_OPEN = "The room stays open at {room}/ until Ctrl-C. Whatever else is asked there, its agents abstain."


def add_to(app: typer.Typer) -> None:
    """Make the command known."""
    app.command("demo")(demo)


def demo(
    port: Annotated[
        int, typer.Option("--port", metavar="N", min=0, max=65535, help="Of the room, on loopback; 0 takes a free one.")
    ] = 0,
    seconds: Annotated[
        float, typer.Option("--seconds", metavar="S", min=0, max=60, help="How long an agent takes at most.")
    ] = 6.0,
    once: Annotated[bool, typer.Option("--once", help="Leave when all is asked and verified.")] = False,
    data_dir: Annotated[
        Path | None,
        typer.Option("--data-dir", metavar="FOLDER", help="Keep everything in there; else it is gone afterwards."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Open a room in the browser, put two questions to recorded agents, and verify the record of each.

    Needs no key, no model and no network: the replies come with the program. Heeds no setting and touches no other data.
    """
    from functools import partial
    from tempfile import TemporaryDirectory

    from api.cli.interruption import run_interruptible

    show = partial(_show, port=port, seconds=seconds, once=once, as_json=as_json)

    async def work(interruption: Interruption) -> int:
        if data_dir is not None:
            return await show(data_dir.resolve(), interruption, is_kept=True)
        with TemporaryDirectory(prefix="conclave-demo-", ignore_cleanup_errors=True) as folder:
            return await show(Path(folder), interruption, is_kept=False)

    raise typer.Exit(run_interruptible(work))


async def _show(
    folder: Path,
    interruption: Interruption,
    *,
    is_kept: bool,
    port: int,
    seconds: float,
    once: bool,
    as_json: bool,
) -> int:
    import shlex
    import sys

    from api.bootstrap.demonstration import demonstration_questions, open_demonstration
    from api.cli.page import Page
    from api.cli.terminal import print_document, result_console
    from api.rest.server import RestServer, listening

    def again(deliberation_id: str) -> str | None:
        """The command that shows one once more, after this one; None where nothing of it is left then."""
        if not once:
            return f"conclave show {deliberation_id} --server {room}"
        return f"CONCLAVE_DATA_DIR={shlex.quote(str(folder))} conclave show {deliberation_id}" if is_kept else None

    page = Page(result_console())
    found: list[dict[str, Any]] = []
    async with (
        open_demonstration(folder, seconds=seconds) as conclave,
        listening(RestServer(conclave, port=port, drain_s=0.0)) as room,
    ):
        if not as_json:
            page.paragraph(f"The room is open: {room}/", style="bold")
            page.paragraph(_NOTICE)
            page.paragraph(f"Key of the record, to pin at {room}/record: {conclave.witness.verifier_key}")
            sys.stdout.flush()
        for body in demonstration_questions(seconds=seconds):
            found.append(await _ask(conclave, body, interruption, again=again, page=None if as_json else page))
            if interruption.signal is not None:
                break
        if as_json:
            print_document({"room": room, "deliberations": found})
        elif not once and interruption.signal is None:
            page.gap()
            page.paragraph(_STAYS_OPEN.format(room=room))
            sys.stdout.flush()
        if not once and interruption.signal is None:
            with interruption.winding_up():
                await interruption.wait()
    return ExitCode.DONE if all(each["verified"] for each in found) else ExitCode.VERIFICATION_REFUSED


async def _ask(
    conclave: Conclave,
    body: Mapping[str, Any],
    interruption: Interruption,
    *,
    again: Callable[[str], str | None],
    page: Page | None,
) -> dict[str, Any]:
    """Put one question, show what came of it, and verify its bundle against the key of this record."""
    from api.cli.deliberations import LocalDeliberations
    from api.cli.holding import hold_deliberation
    from api.cli.progress import QuietProgress, progress_on
    from api.cli.rendering import render_deliberation
    from api.cli.terminal import progress_console, result_console
    from api.cli.verification_report import render_report

    deliberations = LocalDeliberations(conclave)
    progress = QuietProgress() if page is None else progress_on(progress_console())
    with progress:
        ended = await hold_deliberation(deliberations, body, progress=progress, interruption=interruption)
    if ended["status"] != "completed":
        return {"id": ended["id"], "status": ended["status"], "verified": False}
    bundle = await deliberations.bundle(str(ended["id"]))
    report = await _verified(conclave, bundle)
    if page is not None:
        outputs = await deliberations.outputs(str(ended["id"]))
        page.gap()
        render_deliberation(result_console(), ended, outputs=outputs, again=again(str(ended["id"])))
        page.gap()
        render_report(result_console(), report)
    return {
        "id": ended["id"],
        "status": ended["status"],
        "outcome": ended["outcome"]["status"],
        "decision": ended["outcome"]["decision"],
        "roll_call": ended["roll_call"],
        "verified": True,
        "entries_checked": report.entries_checked,
    }


async def _verified(conclave: Conclave, bundle: Mapping[str, Any]) -> VerificationReport:
    """What a stranger finds who has the bundle and the key. Raises `VerificationRefusedError`."""
    import asyncio
    import json

    from api.bootstrap import verification_tools
    from application.services.verification import verify_bundle

    content, key = json.dumps(bundle).encode(), conclave.witness.verifier_key
    return await asyncio.to_thread(verify_bundle, content, key=key, tools=verification_tools())
