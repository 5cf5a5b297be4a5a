"""A swarm as a person reads it: who was counted, who is missing and why, the latencies, and what chance has to say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from api.cli.bars import tally_lines
from api.cli.page import Page
from api.cli.plain_text import visible
from api.cli.terminal import again
from domain.counted import counted

__all__ = ["render_swarm"]

_SHOWN = 10
_MAX_REASON = 300
_SUSPICIOUS = 0.01
_THOUSAND = 1000.0


def render_swarm(console: Console, document: Mapping[str, Any]) -> None:
    """The document of contract section 7."""
    page = Page(console)
    agents, received = document["agents"], document["received"]
    head = f"{received} of {agents} counted"
    page.paragraph(head, style="bold green" if received == agents else "bold yellow")
    batches, instances = document["batches"], document["instances"]
    page.paragraph(
        f"{visible(str(document['task']), limit=80)} over {document['transport']}: "
        f"{counted(batches, 'batch', 'batches')} of {document['batch_size']}, "
        f"{counted(instances, 'process', 'processes')}, seed {document['seed']}"
    )
    _write_split(page, document)
    _write_times(page, document)
    _write_histogram(page, document.get("latency_histogram") or ())
    _write_troubles(page, document)
    _write_question(page, document)
    page.gap()
    if failure := document.get("failure"):
        page.paragraph(visible(str(failure["message"]), limit=_MAX_REASON), style="red")
    page.paragraph(f"{document['status']}; its documents are in")
    # In one piece, however long, so that it can be copied.
    page.line(Text(visible(str(document["session_dir"]))))


def _write_split(page: Page, document: Mapping[str, Any]) -> None:
    heads, tails, chance = document.get("heads"), document.get("tails"), document.get("split_p_value")
    if heads is None or tails is None or chance is None:
        return
    page.gap()
    for line in tally_lines(
        {"heads": heads, "tails": tails}, total=heads + tails, width=page.width, blocks=page.has_blocks
    ):
        page.line(line)
    verdict = "a fair coin seldom does" if chance < _SUSPICIOUS else "nothing unusual"
    page.paragraph(f"a fair coin splits at least as unevenly with p = {chance:.3g}: {verdict}")


def _write_times(page: Page, document: Mapping[str, Any]) -> None:
    phases = document["phases_ms"]
    if not phases:
        # It broke before there was anything to time.
        return
    page.gap()
    page.paragraph(
        f"{_milliseconds(document['wall_ms'])} from loaded to backed up: "
        + ", ".join(
            f"{name} {_milliseconds(phases[name])}" for name in ("flips", "aggregate", "backup") if name in phases
        )
        + (f"; loading took {_milliseconds(phases['load'])}" if "load" in phases else ""),
        hang=2,
    )
    page.paragraph(
        f"{document['messages']} messages, {document['messages_per_second']:,.0f} a second; at most "
        f"{document['parallelism']} agents acted at a time, {document['queue_max']} messages waited in one inbox",
        hang=2,
    )


def _write_histogram(page: Page, ranges: Sequence[Mapping[str, int]]) -> None:
    if not ranges:
        return
    page.gap()
    page.paragraph("from delegation to count:")
    tally = {f"up to {_duration(each['up_to_us'])}": each["count"] for each in ranges}
    for line in tally_lines(tally, total=sum(tally.values()), width=page.width, blocks=page.has_blocks):
        page.line(line)


def _write_troubles(page: Page, document: Mapping[str, Any]) -> None:
    vetoes, failures, missing = document["vetoes"], document["failures"], document["missing"]
    if vetoes:
        page.gap()
        page.line(Text("Safety halted the swarm", style="bold red"))
        for veto in vetoes[:_SHOWN]:
            said = f"{veto.get('rule')}: {veto.get('agent_id') or veto.get('sender')}, {veto.get('detail')}"
            page.paragraph(visible(said, limit=_MAX_REASON), indent=2, hang=2)
    if missing:
        page.gap()
        named = ", ".join(missing[:_SHOWN]) + (f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else "")
        page.paragraph(f"not counted: {named}", hang=2, style="yellow")
    if failures:
        page.gap()
        retried = document["retried_batches"]
        page.paragraph(f"trouble, for which {counted(retried, 'batch was', 'batches were')} retried:")
        for failure in failures[:_SHOWN]:
            end = "counted in the end" if failure["counted"] else "not counted"
            tries = counted(failure["attempts"], "attempt")
            said = f"{failure['agent_id']}: {failure['kind']} ({failure['message']}), {tries}, {end}"
            page.paragraph(visible(said, limit=_MAX_REASON), indent=2, hang=2)
        if len(failures) > _SHOWN or document["failures_omitted"]:
            page.paragraph(f"and {len(failures) - _SHOWN + document['failures_omitted']} more", indent=2)


def _write_question(page: Page, document: Mapping[str, Any]) -> None:
    """Which deliberation a question was, in one piece, so that the command can be copied."""
    if deliberation_id := document.get("deliberation_id"):
        page.gap()
        page.line(Text(f"deliberation {visible(str(deliberation_id))}"))
        page.line(Text(again(str(deliberation_id), None)))
    if document.get("simulated"):
        page.paragraph("Simulated: no model was asked, so what the members said means nothing.", style="yellow")


def _milliseconds(value: float) -> str:
    return f"{value / _THOUSAND:.2f} s" if value >= _THOUSAND else f"{value:.1f} ms"


def _duration(microseconds: int) -> str:
    if microseconds < _THOUSAND:
        return f"{microseconds} us"
    milliseconds = microseconds / _THOUSAND
    return f"{milliseconds:g} ms" if milliseconds < _THOUSAND else f"{milliseconds / _THOUSAND:g} s"
