"""The account of a deliberation: the roll call, every failure by name, and what it took."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from api.cli.page import Page
from api.cli.plain_text import visible
from domain.counted import counted

__all__ = [
    "MAX_ID_CHARACTERS",
    "MAX_MESSAGE_CHARACTERS",
    "TOOK_PART",
    "describe_duration",
    "question_of",
    "write_account",
]

MAX_ID_CHARACTERS = 128
MAX_MESSAGE_CHARACTERS = 300
TOOK_PART = ("answered", "abstained")
_STATES = (
    *TOOK_PART,
    *("invalid", "timed_out", "throttled", "failed", "over_budget", "cancelled", "halted"),
)
_MAX_CAUSES = 12
_MAX_MODEL_CHARACTERS = 100

Document = Mapping[str, Any]
_Cause = tuple[str, str, int, str, str]


def write_account(page: Page, document: Document, outputs: Sequence[Document]) -> None:
    """The roll call, the failures, the fallbacks, the usage, the time and who was asked."""
    _write_roll_call(page, document, outputs)
    _write_failures(page, document)
    _write_fallbacks(page, document)
    _write_costs(page, document)


def describe_duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60:02} s"


def question_of(document: Document) -> str:
    """The question, or that it was erased."""
    return "(erased)" if document.get("erased") else str(document.get("question", ""))


def _write_roll_call(page: Page, document: Document, outputs: Sequence[Document]) -> None:
    if document.get("status") in {"queued", "running"}:
        ended = len({str(output.get("agent_id")) for output in outputs})
        wanted = (document.get("agents") or {}).get("count", 0)
        page.paragraph(f"Roll call: {ended} of {wanted} ended so far")
        return
    roll_call = document.get("roll_call") or {}
    asked = roll_call.get("asked", 0)
    counts = [
        f"{roll_call.get(state, 0)} {state.replace('_', ' ')}"
        for state in _STATES
        if roll_call.get(state) or state == "answered"
    ]
    page.paragraph(f"Roll call: {asked} asked = {' + '.join(counts)}" if asked else "Roll call: nobody was asked")


def _write_failures(page: Page, document: Document) -> None:
    failures = document.get("failures") or ()
    several_rounds = len(document.get("rounds") or ()) > 1
    causes = _by_cause(failures, by_message=True)
    if len(causes) > _MAX_CAUSES:
        causes = _by_cause(failures, by_message=False)
    for (state, kind, attempts, round_number, shape), members in causes.items():
        where = f" in round {round_number}" if several_rounds else ""
        named = f"{len(members)} {visible(state.replace('_', ' '))}: {visible(kind, limit=MAX_ID_CHARACTERS)}"
        page.paragraph(f"{named}{where} after {counted(attempts, 'attempt')}", indent=2, style="red")
        message = str(members[0].get("message") or "")
        if message:
            example = "for example: " if len(members) > 1 and message != shape else ""
            page.paragraph(example + visible(message, limit=MAX_MESSAGE_CHARACTERS), indent=4)
        names = [visible(str(member.get("agent_id")), limit=MAX_ID_CHARACTERS) for member in members]
        page.paragraph(", ".join(names), indent=4, style="dim")


def _by_cause(failures: Iterable[Document], *, by_message: bool) -> Mapping[_Cause, Sequence[Document]]:
    """Failures by state, kind, attempts, round, and their message without the agent's own name."""
    causes: dict[_Cause, list[Document]] = {}
    for failure in failures:
        shape = str(failure.get("message") or "").replace(str(failure.get("agent_id")), "") if by_message else ""
        attempts = int(failure.get("attempts", 0))
        cause = (str(failure.get("state")), str(failure.get("kind")), attempts, str(failure.get("round")), shape)
        causes.setdefault(cause, []).append(failure)
    return causes


def _write_fallbacks(page: Page, document: Document) -> None:
    groups: dict[tuple[str, str], list[str]] = {}
    for fallback in document.get("fallbacks") or ():
        asked, answered = (
            visible(str(fallback.get(name) or ""), limit=_MAX_MODEL_CHARACTERS) for name in ("asked", "answered")
        )
        agent_id = visible(str(fallback.get("agent_id")), limit=MAX_ID_CHARACTERS)
        groups.setdefault((asked, answered), []).append(agent_id)
    for (asked, answered), members in groups.items():
        whom = counted(len(members), "agent") + (f" naming {asked}" if asked else "")
        came = f"{answered} answered" if answered else "no model answered"
        page.paragraph(f"{whom} fell back from the first model of the route: {came}", indent=2)
        page.paragraph(", ".join(members), indent=4, style="dim")


def _write_costs(page: Page, document: Document) -> None:
    usage = document.get("usage") or {}
    page.paragraph(
        f"Usage: {counted(usage.get('calls', 0), 'call')}, {usage.get('input_tokens', 0):,} tokens in, "
        f"{usage.get('output_tokens', 0):,} out, {usage.get('cost_usd', 0.0):.4f} USD"
    )
    tokens, dollars = usage.get("uncertain_tokens") or 0, usage.get("uncertain_usd") or 0.0
    if tokens or dollars:
        page.paragraph(
            f"Uncertain: at most {tokens:,} tokens and {dollars:.4f} USD besides, of calls whose end nobody knows",
            style="yellow",
        )
    started, finished = _time(document.get("started_at")), _time(document.get("finished_at"))
    if started is not None and finished is not None:
        page.paragraph(f"Time: {describe_duration((finished - started).total_seconds())}")
    models = ", ".join(visible(str(name), limit=100) for name in document.get("models") or ())
    orchestrator = visible(str(document.get("orchestrator") or ""))
    if orchestrator:
        page.paragraph(f"Asked through: {orchestrator}" + (f", model {models}" if models else ""))


def _time(text: object) -> datetime | None:
    return datetime.fromisoformat(text) if isinstance(text, str) else None
