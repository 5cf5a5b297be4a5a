"""`conclave webhooks`: what was told to webhooks and what was not, and the key that they are signed with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli.options import HelpOption, JsonOption, add_group, want_command

if TYPE_CHECKING:
    from application.ports.webhook_outbox import ListedDelivery

__all__ = ["add_to"]

_MAX_LIMIT = 1_000


def add_to(app: typer.Typer) -> None:
    """Make the commands known."""
    add_group(app, "webhooks", webhooks, {"list": list_deliveries, "key": key, "rotate": rotate})


def webhooks(context: typer.Context, _help: HelpOption = False) -> None:
    """See what is told to CONCLAVE_WEBHOOKS."""
    want_command(context)


def list_deliveries(
    state: Annotated[
        str | None, typer.Option("--state", metavar="STATE", help="pending, delivered, gone or given_up.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, max=_MAX_LIMIT, help="How many at most.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """List deliveries, the latest ends first."""
    from api.bootstrap import configure_logging, list_webhook_deliveries, load_settings, run
    from api.cli.quiet_log import keep_log_quiet
    from api.cli.terminal import print_document
    from application.ports.webhook_outbox import DeliveryState

    known = {member.value: member for member in DeliveryState}
    if state is not None and state not in known:
        raise typer.BadParameter(f"--state: {state!r} is none of {', '.join(known)}")
    settings = load_settings()
    configure_logging(settings)
    keep_log_quiet(settings)
    found = run(list_webhook_deliveries(settings, state=None if state is None else known[state], limit=limit))
    if as_json:
        print_document({"items": [_document(each) for each in found]})
    else:
        _print(found)


def key(as_json: JsonOption = False) -> None:
    """Print the public keys that receivers verify with, as a JWK set; the first one signs."""
    from api.bootstrap import load_settings, show_webhook_keys

    _print_keys(show_webhook_keys(load_settings()), as_json=as_json)


def rotate(as_json: JsonOption = False) -> None:
    """Sign with a new key from now on, also in a server that runs; the one before is named for a week more."""
    from api.bootstrap import load_settings, rotate_webhook_key

    _print_keys(rotate_webhook_key(load_settings()), as_json=as_json)


def _print_keys(keys: Mapping[str, Any], *, as_json: bool) -> None:
    from api.cli.terminal import print_document

    if as_json:
        print_document(keys)
        return
    for place, each in enumerate(keys["keys"]):
        typer.echo(f"{each['kid']}  {each['x']}  {'signs' if place == 0 else 'retired'}")


def _document(delivery: ListedDelivery) -> dict[str, Any]:
    from api.documents import moment

    return {
        "id": delivery.id,
        "receiver": delivery.receiver,
        "deliberation_id": delivery.deliberation_id,
        "event": delivery.event,
        "state": delivery.state.value,
        "attempts": delivery.attempts,
        "ended_at": moment(delivery.ended_at),
        "next_at": moment(delivery.next_at),
        "settled_at": moment(delivery.settled_at),
        "status": delivery.status,
        "problem": delivery.problem,
    }


def _print(found: Sequence[ListedDelivery]) -> None:
    from api.cli.page import Page
    from api.cli.plain_text import visible
    from api.cli.terminal import result_console
    from domain.counted import counted

    page = Page(result_console())
    if not found:
        page.paragraph(
            "There are no such deliveries. They begin with the first `conclave serve` with CONCLAVE_WEBHOOKS."
        )
    for each in found:
        ended = each.ended_at.strftime("%Y-%m-%d %H:%M")
        tried = f", {counted(each.attempts, 'attempt')}" if each.attempts else ""
        why = f": {each.problem}" if each.problem else ""
        again = "" if each.next_at is None else f", again at {each.next_at.strftime('%H:%M:%S')} UTC"
        page.paragraph(
            visible(
                f"{each.state.value.replace('_', ' ')}  {each.receiver}  {each.event} of {each.deliberation_id}, "
                f"{ended} UTC{tried}{why}{again if each.attempts else ''}"
            ),
            hang=2,
        )
