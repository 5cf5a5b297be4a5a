"""`conclave witness`: the record, and how anyone checks it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from api.cli import witness_log
from api.cli.exit_codes import ExitCode
from api.cli.options import HelpOption, JsonOption, add_group, want_command

if TYPE_CHECKING:
    from collections.abc import Iterator

    from api.cli.counter import Counter
    from application.services.verification import VerificationReport
    from domain.errors.witness import VerificationRefusedError
    from domain.witness.checkpoint import VerifierKey

__all__ = ["add_to", "pinned_key"]


def add_to(app: typer.Typer) -> None:
    """Make the commands known."""
    witness_log.add_to(add_group(app, "witness", witness, {"verify": verify}))


def witness(context: typer.Context, _help: HelpOption = False) -> None:
    """Read and check the record."""
    want_command(context)


def verify(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A bundle of one deliberation, or an export of a log.")],
    key: Annotated[
        str,
        typer.Option("--key", metavar="VKEY", help="The only key to trust, as `conclave witness key` prints it."),
    ],
    as_json: JsonOption = False,
) -> None:
    """Check a bundle or an export offline.

    Trusts nothing but the key: hashes, proofs, signature, roll call and outcome are computed again. Ends with 3 where one is not right,
    and with 1 where an outcome of a kind that this version does not know could not be computed again.
    """
    from api.cli.terminal import complain, print_document, result_console
    from domain.errors.witness import VerificationRefusedError

    pinned = pinned_key(key)
    try:
        report = _verified(file, pinned)
    except VerificationRefusedError as error:
        if as_json:
            print_document(_refusal(error))
        complain(f"{file}: refused: {error}")
        raise typer.Exit(ExitCode.VERIFICATION_REFUSED) from None
    except OSError as error:
        raise typer.BadParameter(f"{file!r} cannot be read: {error.strerror}") from None
    if as_json:
        print_document(_document(report))
    else:
        from api.cli.verification_report import render_report

        render_report(result_console(), report)
    if report.not_recomputed:
        raise typer.Exit(ExitCode.ENDED_BADLY)


def pinned_key(vkey: str) -> VerifierKey:
    """The key of a log that somebody pinned on the command line. Raises `typer.BadParameter`."""
    from domain.errors.witness import VerificationRefusedError
    from domain.witness.checkpoint import ED25519, VerifierKey

    try:
        pinned = VerifierKey.parse(vkey.strip())
    except VerificationRefusedError as error:
        raise typer.BadParameter(f"{error}. Give it as `conclave witness key` prints it") from None
    if pinned.algorithm != ED25519:
        raise typer.BadParameter(f"{vkey!r} is the key of a witness, not of a log")
    return pinned


def _verified(path: str, key: VerifierKey) -> VerificationReport:
    from itertools import chain
    from pathlib import Path

    from api.bootstrap import verification_tools
    from api.cli.counter import Counter
    from application.services.verification import MAX_BUNDLE_BYTES, is_log_header, verify_bundle, verify_log

    tools = verification_tools()
    with Path(path).open("rb") as file, Counter("lines checked") as counter:
        lines = _lines(file, counter)
        first = next(lines, b"")
        if is_log_header(first):
            return verify_log(chain((first,), lines), key=key, tools=tools)
        return verify_bundle(first + file.read(MAX_BUNDLE_BYTES), key=key, tools=tools)


def _lines(file: BinaryIO, counter: Counter) -> Iterator[bytes]:
    """The lines of a file. One that is too long comes in parts, the first of which is too long already."""
    from application.services.verification import MAX_LINE_BYTES

    count = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        yield line
        count += 1
        counter.show(count)


def _refusal(error: VerificationRefusedError) -> dict[str, Any]:
    return {"verified": False, "problem": error.what, "index": error.index, "evidence": error.evidence}


def _document(report: VerificationReport) -> dict[str, Any]:
    from api.cli.verification_report import not_recomputed_words

    return {
        "verified": not report.not_recomputed,
        **({"problem": not_recomputed_words(report)} if report.not_recomputed else {}),
        "kind": report.kind,
        "origin": report.origin,
        "tree_size": report.tree_size,
        "root_hash": report.root_hash.hex(),
        "entries_checked": report.entries_checked,
        "deliberations": [
            {
                "id": each.id,
                "status": each.status,
                "outcome": each.outcome_status,
                "decision": each.decision,
                "roll_call": dict(each.roll_call),
                "not_recomputed": each.not_recomputed,
            }
            for each in report.deliberations
        ],
        "disclosed": report.disclosed,
        "withheld": [{"index": text.index, "field": text.field} for text in report.withheld],
        "withheld_count": report.withheld_count,
        "erased": [{"index": text.index, "field": text.field} for text in report.erased],
        "erased_count": report.erased_count,
        "prompts_not_kept": report.prompts,
    }
