"""The commands of `conclave witness` that need this machine's log or its keys; checking somebody else's needs neither."""

from __future__ import annotations

from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from api.cli.exit_codes import ExitCode, code_of_signal
from api.cli.options import JsonOption

if TYPE_CHECKING:
    import signal
    from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence

    from api.cli.interruption import Interruption
    from api.conclave import Conclave
    from domain.errors.witness import LogUnverifiedError, VerificationRefusedError
    from domain.witness.checkpoint import VerifierKey

__all__ = ["add_to"]

_COSIGNER_PORT = 8001
_MAX_REASON_BYTES = 4096

ReasonOption = Annotated[
    str,
    typer.Option(
        "--reason", metavar="TEXT", help="Why. The log commits to it for ever; the text itself stays beside the log."
    ),
]


def add_to(group: typer.Typer) -> None:
    """Make the commands known in `conclave witness`."""
    group.command("key")(key)
    group.command("checkpoint")(checkpoint)
    group.command("export")(export)
    group.command("fsck")(fsck)
    group.command("erase")(erase)
    group.command("accept-restore")(accept_restore)
    group.command("serve")(serve)


def key(as_json: JsonOption = False) -> None:
    """Print the public key of this log (C2SP vkey).

    Whoever checks what this machine records pins it.
    """
    from api.bootstrap import run
    from api.cli.terminal import print_document

    async def work() -> VerifierKey:
        async with _open_log() as conclave:
            return conclave.witness.verifier_key

    found = run(work())
    if as_json:
        print_document({"origin": found.name, "public_key": str(found)})
    else:
        typer.echo(str(found))


def checkpoint(as_json: JsonOption = False) -> None:
    """Print the signed checkpoint of the log (C2SP).

    It says how many entries there are now, and the root over them.
    """
    from api.bootstrap import run
    from api.cli.terminal import print_document
    from domain.witness.checkpoint import Checkpoint, SignedNote

    async def work() -> str:
        async with _open_log() as conclave:
            await conclave.witness.check_at_start()
            return await conclave.witness.checkpoint()

    note = run(work())
    if not as_json:
        typer.echo(note, nl=False)
        return
    stated = Checkpoint.parse(SignedNote.parse(note).text)
    print_document({"checkpoint": note, "tree_size": stated.tree_size, "root_hash": stated.root_hash.hex()})


def export(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Where to; what is there is replaced once all is written.")
    ],
    with_texts: Annotated[
        bool, typer.Option("--with-texts", help="Add the questions, personas and answers, which are not public.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write the whole log into a file, one JSON document a line.

    `conclave witness verify` checks it anywhere.
    """
    from api.cli.counter import Counter
    from api.cli.interruption import run_interruptible
    from api.cli.plain_text import visible
    from api.cli.replaced_file import replaced_file
    from api.cli.terminal import print_document

    async def work(_interruption: Interruption) -> int:
        lines = 0
        async with _open_log() as conclave:
            await conclave.witness.check_at_start()
            with replaced_file(file, private=with_texts) as target, Counter("lines written") as counter:
                export_lines = cast("AsyncGenerator[str, None]", conclave.witness.export(with_texts=with_texts))
                async with aclosing(export_lines) as exported:
                    async for line in exported:
                        target.write(line + "\n")
                        lines += 1
                        counter.show(lines)
        if as_json:
            print_document({"file": str(file), "lines": lines, "bytes": file.stat().st_size, "with_texts": with_texts})
        else:
            typer.echo(f"{visible(str(file))}: {lines:,} lines, {file.stat().st_size:,} bytes")
        return ExitCode.DONE

    raise typer.Exit(run_interruptible(work))


def fsck(as_json: JsonOption = False) -> None:
    """Check all of the log.

    Every leaf, node and checkpoint, all that is shown of deliberations, and what was anchored elsewhere; exit code 3 comes with the
    first thing that is wrong.
    """
    from api.bootstrap import audit_log, configure_logging, load_settings
    from api.cli.counter import Counter
    from api.cli.interruption import run_interruptible
    from api.cli.quiet_log import keep_log_quiet
    from api.cli.terminal import complain, print_document
    from domain.errors.witness import LogUnverifiedError, VerificationRefusedError

    settings = load_settings()
    configure_logging(settings)
    keep_log_quiet(settings)

    async def work(_interruption: Interruption) -> int:
        with Counter("entries checked") as counter:
            try:
                report, unasked = await audit_log(settings, progress=counter.show)
            except (VerificationRefusedError, LogUnverifiedError) as error:
                if as_json:
                    print_document(_refusal(error))
                raise
        for anchor, problem in unasked.items():
            complain(f"nothing is known of the anchor {anchor}: {problem}")
        if as_json:
            print_document(
                {
                    "verified": True,
                    "tree_size": report.tree_size,
                    "root_hash": report.root_hash.hex(),
                    "entries": report.entries,
                    "nodes": report.nodes,
                    "checkpoints": report.checkpoints,
                    "deliberations": report.deliberations,
                    "unsigned_entries": report.unsigned,
                    "unsigned_since": report.unsigned_since,
                    "anchor_problems": unasked,
                }
            )
        else:
            typer.echo(
                f"The log verifies: {report.entries:,} entries, {report.nodes:,} nodes, {report.checkpoints:,} checkpoints, "
                f"root {report.root_hash.hex()}"
            )
            typer.echo(f"{report.deliberations:,} deliberations are stored as they were recorded.")
            if report.unsigned:
                typer.echo(
                    f"{report.unsigned:,} entries are not under a signed checkpoint yet, the first of {report.unsigned_since}."
                )
        return ExitCode.DONE

    raise typer.Exit(run_interruptible(work))


def erase(
    deliberation_id: Annotated[
        str, typer.Argument(metavar="ID", help="The id of a deliberation, or at least its first 6 characters.")
    ],
    reason: ReasonOption,
    as_json: JsonOption = False,
) -> None:
    """Remove the texts of a deliberation for ever.

    What the log says of it stays provable, and so does the erasure.
    """
    from api.bootstrap import run
    from api.cli.deliberations import LocalDeliberations, find_by_prefix
    from api.cli.plain_text import visible
    from api.cli.terminal import print_document

    _check_reason(reason)

    async def work() -> tuple[str, int, bytes]:
        async with _open_log() as conclave:
            found = str((await find_by_prefix(LocalDeliberations(conclave), deliberation_id))["id"])
            await conclave.witness.check_at_start()
            logged = await conclave.witness.erase(found, reason=reason, key_name=None)
            return found, logged.index, logged.leaf_hash

    found, index, leaf_hash = run(work())
    if as_json:
        print_document({"deliberation_id": found, "index": index, "leaf_hash": leaf_hash.hex()})
    else:
        typer.echo(f"The texts of {visible(found)} are erased: entry {index} of the log witnesses it")


def accept_restore(reason: ReasonOption, as_json: JsonOption = False) -> None:
    """Accept that a restored backup lost entries.

    The log then goes on, and keeps both heads: what it had, and what it has.
    """
    from api.bootstrap import run
    from api.cli.terminal import print_document

    _check_reason(reason)

    async def work() -> tuple[int, bytes]:
        async with _open_log() as conclave:
            logged = await conclave.witness.accept_restore(reason=reason, key_name=None)
            return logged.index, logged.leaf_hash

    index, leaf_hash = run(work())
    if as_json:
        print_document({"index": index, "leaf_hash": leaf_hash.hex()})
    else:
        typer.echo(f"The restore is accepted: entry {index} of the log witnesses it")


def serve(
    logs: Annotated[
        list[str],
        typer.Option(
            "--log",
            metavar="[ORIGIN+]VKEY",
            help="A log to cosign, by its key; with its origin in front where that is not the key's name. Repeatable.",
        ),
    ],
    host: Annotated[str, typer.Option("--host", metavar="ADDRESS", help="Where to listen.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", metavar="N", min=0, max=65535, help="0 takes a free one.")
    ] = _COSIGNER_PORT,
    name: Annotated[
        str,
        typer.Option("--name", metavar="NAME", help="The witness's name in its cosignatures; its key depends on it."),
    ] = "conclave-witness",
    as_json: JsonOption = False,
) -> None:
    """Be a witness for other logs, until SIGTERM or Ctrl-C.

    Cosigns their checkpoints at POST /add-checkpoint as long as each one extends the one before (C2SP tlog-witness).
    """
    import sys

    from api.bootstrap import configure_logging, load_settings, open_cosigner, run
    from api.cli.terminal import complain, print_document

    witnessed = _logs(logs)
    settings = load_settings()
    configure_logging(settings)
    cosigner = open_cosigner(settings, name=name, logs=witnessed)
    public_key = str(cosigner.verifier_key)

    def listening(urls: tuple[str, ...]) -> None:
        if as_json:
            print_document({"urls": list(urls), "public_key": public_key, "logs": list(witnessed)})
            sys.stdout.flush()
        else:
            complain(f"cosigns as {public_key}")
            complain(f"listening on {' and '.join(urls)}, Ctrl-C stops")

    async def work() -> signal.Signals | None:
        from api.main import serve_cosigner

        return await serve_cosigner(cosigner, host=host, port=port, on_listening=listening)

    ended_by = run(work())
    interrupted = ended_by is not None and code_of_signal(ended_by) == ExitCode.INTERRUPTED
    # A server that is told to stop by SIGTERM and does so is done.
    raise typer.Exit(ExitCode.INTERRUPTED if interrupted else ExitCode.DONE)


@asynccontextmanager
async def _open_log() -> AsyncIterator[Conclave]:
    """Opened to read: whoever signs or adds has to compare the log with what was signed before, which this does not."""
    from api.bootstrap import Purpose, configure_logging, load_settings, open_conclave
    from api.cli.quiet_log import keep_log_quiet

    settings = load_settings()
    configure_logging(settings)
    keep_log_quiet(settings)
    async with open_conclave(settings, purpose=Purpose.READ) as conclave:
        yield conclave


def _check_reason(reason: str) -> None:
    from domain.models.text import text_problem

    problem = text_problem(reason, max_bytes=_MAX_REASON_BYTES)
    if problem is not None:
        raise typer.BadParameter(f"--reason {problem}")


def _refusal(error: VerificationRefusedError | LogUnverifiedError) -> dict[str, object]:
    """The same document that `conclave witness verify` prints."""
    problem = getattr(error, "what", None) or getattr(error, "problem", str(error))
    return {
        "verified": False,
        "problem": problem,
        "index": getattr(error, "index", None),
        "evidence": error.evidence,
    }


def _logs(given: Sequence[str]) -> Mapping[str, VerifierKey]:
    """Each origin with the key of its log."""
    found: dict[str, VerifierKey] = {}
    for text in given:
        origin, log_key = _log(text.strip())
        if origin in found:
            raise typer.BadParameter(f"--log names {origin!r} twice")
        found[origin] = log_key
    return found


def _log(text: str) -> tuple[str, VerifierKey]:
    from domain.errors.witness import VerificationRefusedError
    from domain.witness.checkpoint import ED25519, VerifierKey

    # The second part of a key is its own hash, so that no text can be read both ways.
    origin, _, rest = text.partition("+")
    for named, vkey in (("", text), (origin, rest)):
        try:
            found = VerifierKey.parse(vkey)
        except VerificationRefusedError:
            continue
        if found.algorithm != ED25519:
            raise typer.BadParameter(f"--log {text!r} is the key of a witness, not of a log")
        return named or found.name, found
    raise typer.BadParameter(f"--log {text!r} is no key of a log: give it as `conclave witness key` prints it")
