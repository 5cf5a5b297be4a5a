"""What a soak found, for a person: its criteria, its counts, and how it goes while it runs."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from api.cli.page import Page
from api.cli.plain_text import visible
from domain.counted import counted

__all__ = ["render_report", "render_summary", "show_progress"]

_NAMES = {
    "memory_growth": ("Memory growth", "%"),
    "cycle_variance": ("Spread of cycle times", "%"),
    "crashes": ("Unplanned crashes", ""),
    "complete_metrics": ("Complete cycles", ""),
}
_NAME_WIDTH = 24


def render_report(console: Console, report: Mapping[str, Any], *, folder: Path) -> None:
    """The report of a run, and where its files lie."""
    page = Page(console)
    passed = report.get("passed") is True
    page.line(Text("Passed" if passed else "NOT PASSED", style="bold green" if passed else "bold red"))
    for name, criterion in (report.get("criteria") or {}).items():
        title, unit = _NAMES.get(name, (name, ""))
        value = "not judged" if criterion["value"] is None else f"{criterion['value']:g}{unit}"
        mark = "" if criterion["passed"] else "  FAILS"
        limit = "of" if name == "complete_metrics" else "limit"
        page.line(Text(f"  {title:<{_NAME_WIDTH}}{value}, {limit} {criterion['limit']:g}{unit}{mark}"))
    page.gap()
    cycle = report.get("cycle_ms") or {}
    lost = report.get("lost", 0)
    lines = (
        f"{counted(report.get('cycles_completed', 0), 'cycle')} of {report.get('cycles_planned')}, "
        f"{counted(report.get('agents', 0), 'agent')}, {report.get('joined', 0)} joined",
        f"{report.get('messages_sent')} sent, {report.get('responses_received')} answered, {lost} lost, {report.get('late')} late, "
        f"{report.get('duplicates')} twice, {report.get('corrupt')} corrupt",
        f"{counted(report.get('crashes', 0), 'crash').replace('crashs', 'crashes')} ({report.get('injected', 0)} on purpose), "
        f"{counted(report.get('restarts', 0), 'restart')}",
        f"cycle p50 {cycle.get('p50', 0):.1f} ms, p95 {cycle.get('p95', 0):.1f} ms, max {cycle.get('max', 0):.1f} ms",
    )
    for line in lines:
        page.paragraph(line, indent=2)
    page.gap()
    page.paragraph(f"Files: {visible(str(folder))}", hang=7)


def render_summary(console: Console, summary: Mapping[str, Any]) -> None:
    """The summary of a stream of metrics."""
    page = Page(console)
    page.paragraph(
        f"{counted(summary['cycles'], 'cycle')}, {summary['missing_cycles']} missing, {summary['skipped']} lines skipped"
    )
    if not summary["cycles"]:
        return
    rate, cycle, memory = summary["response_rate"], summary["cycle_ms"], summary["memory"]
    page.paragraph(
        f"{summary['messages_sent']} sent, {summary['responses_received']} answered; "
        f"rate at least {rate['min']:.4f}, mean {rate['mean']:.4f}"
    )
    page.paragraph(f"cycle p50 {cycle['p50']:.1f} ms, p95 {cycle['p95']:.1f} ms, max {cycle['max']:.1f} ms")
    page.paragraph(
        f"memory of an agent {memory['first'] / 2**20:.2f} MiB at first, {memory['last'] / 2**20:.2f} MiB at last, "
        f"growth {memory['growth_rate']:.2f} %"
    )
    page.paragraph(f"{summary['crashed_agents']} agents crashed")


def show_progress(kind: str, data: Mapping[str, Any]) -> None:
    """One line on standard error, written over by the next."""
    if kind == "soak.ready":
        text = f"{data.get('agents')} agents ready after {data.get('ready_ms', 0):.0f} ms"
    elif kind == "soak.cycle_ended":
        text = (
            f"cycle {data.get('cycle')} of {data.get('cycles')}: {data.get('duration_ms', 0):.1f} ms, {data.get('lost')} lost, "
            f"{data.get('crashes')} crashed"
        )
    else:
        return
    end = "\n" if data.get("cycle") == data.get("cycles") else ""
    sys.stderr.write(f"\r\x1b[K{text}{end}")
    sys.stderr.flush()
