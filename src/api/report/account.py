"""The account of a deliberation: how everyone ended, every failure by name, what it took, and how it can be checked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from api.report.marks import mark
from api.report.pieces import amount, duration, facts, moment, money, table, warning
from api.report.reading import Reading, Seat, items, number, part
from application.pages.html_text import plain, shown
from domain.counted import counted

__all__ = ["Receipt", "asked_of", "cost_of", "receipt_of", "roll_call_of"]

_MOST_AGENTS = 500
_MOST_FAILURES = 500
_MOST_OF_A_MESSAGE = 300
_MOST_OF_A_CHECKPOINT = 4_000
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_URL = re.compile(r"https?://[A-Za-z0-9.:/\[\]_-]{1,200}")


@dataclass(frozen=True, slots=True)
class Receipt:
    """What goes with a deliberation beyond its own document: the present checkpoint of the log (a signed note), or why there is none.

    `server` is where its bundle can be fetched, None where the reader has to know.
    """

    checkpoint: str | None = None
    problem: str | None = None
    server: str | None = None


def roll_call_of(reading: Reading) -> str:
    """Counts, every failure, who fell back to another model, and every agent by name."""
    counts = [
        (state.replace("_", " "), str(count))
        for state, count in reading.roll_call.items()
        if count or state in {"asked", "answered"}
    ]
    total = facts([(plain(name, limit=40), count) for name, count in counts])
    return total + _failures(reading) + _fallbacks(reading) + _agents(reading)


def _failures(reading: Reading) -> str:
    failures = items(reading.document, "failures")
    rows = [
        [
            shown(each.get("agent_id"), limit=128),
            amount(each.get("round")),
            shown(str(each.get("state")).replace("_", " "), limit=40),
            f"{shown(each.get('kind'), limit=80)}: {_message(each.get('message'))}",
            amount(each.get("attempts")),
            duration(each.get("duration_seconds")),
            "none" if each.get("from_round") is None else f"of round {amount(each['from_round'])}",
        ]
        for each in failures[:_MOST_FAILURES]
    ]
    heads = ["agent", "round", "ended", "why", "attempts", "took", "ballot kept"]
    left = len(failures) - len(rows)
    more = f'<p class="soft">and {counted(left, "more failure")}</p>' if left > 0 else ""
    return table(heads, rows, caption="Failures", words=(2, 3, 6)) + more


def _message(text: object) -> str:
    return "(erased)" if text is None else shown(text, limit=_MOST_OF_A_MESSAGE)


def _fallbacks(reading: Reading) -> str:
    rows = [
        [
            shown(each.get("agent_id"), limit=128),
            amount(each.get("round")),
            shown(each.get("asked") or "the default", limit=100),
            shown(each.get("answered") or "nobody", limit=100),
        ]
        for each in items(reading.document, "fallbacks")[:_MOST_AGENTS]
    ]
    return table(
        ["agent", "round", "asked", "answered by"],
        rows,
        caption="Answered by another model than the first",
        words=(2, 3),
    )


def _agents(reading: Reading) -> str:
    """One line for each, as it ended last; who has no name has no line."""
    named = [seat for seat in reading.seats if seat.agent_id is not None]
    rows = [_agent(reading, seat) for seat in named[:_MOST_AGENTS]]
    left = len(named) - len(rows)
    more = f'<p class="soft">and {counted(left, "more agent")}</p>' if left > 0 else ""
    heads = ["agent", "position", "ended", "confidence", "model", "took"]
    return table(heads, rows, caption="Every agent", words=(1, 2, 4)) + more


def _agent(reading: Reading, seat: Seat) -> list[str]:
    agent = str(seat.agent_id)
    last, ballot = reading.last.get(agent, {}), reading.ballots.get(agent, {})
    position = "none"
    if seat.position is not None:
        each = reading.positions[seat.position]
        said = number(ballot.get("answer"))
        position = f"{mark(seat.position)} {shown(each.name if said is None else amount(said), limit=60)}"
    ended = seat.state.replace("_", " ")
    if seat.position is not None and seat.state not in {"answered", "abstained"} and ballot:
        ended += f", ballot of round {amount(ballot.get('round'))} kept"
    confidence = number(ballot.get("confidence"))
    model = last.get("model") or last.get("model_asked")
    return [
        shown(agent, limit=128),
        position,
        plain(ended, limit=80),
        "" if confidence is None else f"{100 * confidence:.0f} %",
        shown(model, limit=60) if model else "",
        duration(last.get("duration_seconds")),
    ]


def cost_of(reading: Reading) -> str:
    """Calls, tokens, dollars and time, and what is uncertain."""
    usage = part(reading.document, "usage")
    found = facts(
        [
            ("calls", amount(usage.get("calls", 0))),
            ("tokens in", f"{number(usage.get('input_tokens')) or 0:,.0f}"),
            ("tokens out", f"{number(usage.get('output_tokens')) or 0:,.0f}"),
            ("cost", money(usage.get("cost_usd", 0))),
            ("time", duration(_seconds(reading))),
        ]
    )
    tokens, dollars = number(usage.get("uncertain_tokens")) or 0, number(usage.get("uncertain_usd")) or 0
    if tokens or dollars:
        told = f"at most {tokens:,.0f} tokens and {money(dollars)} besides, of calls whose end nobody knows"
        found += warning(f"{told}.")
    return found


def _seconds(reading: Reading) -> float | None:
    try:
        started, finished = (
            datetime.fromisoformat(str(reading.document.get(name))) for name in ("started_at", "finished_at")
        )
    except ValueError:
        return None
    return (finished - started).total_seconds()


def asked_of(reading: Reading) -> str:
    """What was agreed on before anybody was asked."""
    document = reading.document
    agents, limits = part(document, "agents"), part(document, "limits")
    models = document.get("models")
    quorum = number(part(document, "quorum").get("min_answered_fraction"))
    origin = document.get("origin")
    return facts(
        [
            ("status", shown(document.get("status") or "", limit=40)),
            ("kind of answer", shown(reading.answer_kind, limit=40)),
            ("protocol", _settings(document, "protocol")),
            ("rule", _settings(document, "rule")),
            (
                "agents",
                f"{amount(agents.get('count'))} {shown(agents.get('roster') or '', limit=60)}" if agents else "",
            ),
            ("quorum", "" if quorum is None else f"{100 * quorum:g} % of those asked"),
            ("deadline", duration(limits.get("deadline_s"))),
            ("at most", money(limits["max_cost_usd"]) if number(limits.get("max_cost_usd")) is not None else ""),
            ("seed", shown(document["seed"], limit=40) if document.get("seed") is not None else ""),
            ("origin", shown(origin, limit=60) if origin else ""),
            ("asked through", shown(document.get("orchestrator") or "", limit=60)),
            ("models", ", ".join(shown(each, limit=60) for each in models[:6]) if isinstance(models, list) else ""),
            ("accepted", moment(document.get("created_at"))),
            ("ended", moment(document.get("finished_at"))),
        ]
    )


def _settings(document: object, name: str) -> str:
    found = part(document, name) if isinstance(document, dict) else {}
    rest = ", ".join(
        f"{plain(key.replace('_', ' '), limit=40)} {shown(value, limit=40)}"
        for key, value in found.items()
        if key != "kind"
    )
    kind = shown(str(found.get("kind") or "").replace("_", " "), limit=40) if found else ""
    return kind + (f" ({rest})" if rest else "")


def receipt_of(reading: Reading, receipt: Receipt) -> str:
    """Where it stands in the witness log, and how anyone checks that, offline and without trusting this page."""
    witness = part(reading.document, "witness")
    deliberation_id = str(reading.document.get("id") or "")
    found = warning(f"no checkpoint is signed: {shown(receipt.problem, limit=500)}") if receipt.problem else ""
    if not witness:
        return found + "<p>Nothing of it is recorded as ended yet, so there is nothing to verify.</p>"
    found += facts(
        [
            ("first entry", amount(witness.get("first_index"))),
            ("last entry", amount(witness.get("last_index"))),
            ("tree size at its end", amount(witness.get("tree_size"))),
        ]
    )
    found += f"<p>Root hash at its end: <code>{shown(witness.get('root_hash'), limit=128)}</code></p>"
    if receipt.checkpoint is not None:
        note = "\n".join(plain(line, limit=400) for line in receipt.checkpoint[:_MOST_OF_A_CHECKPOINT].splitlines())
        found += f"<p>Signed checkpoint of the log when this page was made (C2SP):</p><pre>{note}</pre>"
    named = deliberation_id if _ID.fullmatch(deliberation_id) else "ID"
    server = receipt.server if receipt.server is not None and _URL.fullmatch(receipt.server) else "SERVER"
    commands = "\n".join(_commands(named, server))
    return (
        f"{found}<p>To verify it without trusting this page or the server: fetch its bundle, then check that anywhere, offline. "
        "VKEY is the public key of the log, as <code>conclave witness key</code> prints it; get it from whoever runs the log, "
        f"not from here.</p><pre>{commands}</pre>"
        '<p class="soft">This page itself is not signed: what it says is proven by the bundle, not by the page.</p>'
    )


def _commands(deliberation_id: str, server: str) -> Sequence[str]:
    return (
        f'curl -H "Authorization: Bearer $CONCLAVE_API_KEY" -o bundle.json {server}/v1/deliberations/{deliberation_id}/bundle',
        "conclave witness verify bundle.json --key VKEY",
    )
