"""The report of a soak as one page that needs nothing else: no script, no other file, and no text that is not escaped."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from html import escape

from application.pages.frame import whole_page
from domain.models.run import JsonValue

__all__ = ["render_page"]

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 720, 180, 64, 24, 12
_MOST_POINTS = 1_000
_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 46rem; padding: 0 1rem; }
h1 { margin-bottom: 0; } h2 { margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; padding: .25rem .5rem; border-bottom: 1px solid #8886; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
svg { width: 100%; height: auto; } svg text { font: 11px system-ui, sans-serif; fill: currentColor; }
.axis { stroke: #8889; } .line { fill: none; stroke: #2266cc; stroke-width: 1.5; } .second { stroke: #cc7722; }
.bar { fill: #bb3344; } .failed { color: #bb3344; font-weight: bold; } .passed { color: #2a7a3b; font-weight: bold; }
"""
_NAMES = {
    "memory_growth": "Memory growth, %",
    "cycle_variance": "Spread of cycle times, %",
    "crashes": "Crashes that nobody asked for",
    "complete_metrics": "Complete cycles",
}
_COUNTS = (
    ("agents", "Agents"),
    ("joined", "Joined from elsewhere"),
    ("cycles_planned", "Cycles planned"),
    ("cycles_completed", "Cycles completed"),
    ("messages_sent", "Messages sent"),
    ("responses_received", "Responses received"),
    ("lost", "Lost"),
    ("late", "Late"),
    ("duplicates", "Duplicates"),
    ("corrupt", "Corrupt files"),
    ("crashes", "Crashes"),
    ("injected", "of which on purpose"),
    ("restarts", "Restarts"),
    ("ready_ms", "Ready after, ms"),
)


def render_page(report: Mapping[str, JsonValue], rows: Sequence[Mapping[str, JsonValue]], *, at: datetime) -> str:
    """HTML of the report, with plots of the rows: memory, cycle times, crashes and restarts."""
    passed = report.get("passed") is True
    verdict = '<p class="passed">Passed</p>' if passed else '<p class="failed">Not passed</p>'
    thinned = _thinned(rows)
    cycle = [_number(row.get("cycle")) for row in thinned]
    body = "\n".join(
        [
            f"<body><h1>Soak report</h1><p>{escape(at.isoformat(timespec='seconds'))}</p>{verdict}",
            _criteria(report.get("criteria")),
            "<h2>Counts</h2>" + _table([(title, report.get(name)) for name, title in _COUNTS]),
            "<h2>Cycle times, ms</h2>",
            _plot("Cycle times", cycle, [[_number(row.get("duration")) for row in thinned]], unit="ms"),
            _figures(report.get("cycle_ms")),
            "<h2>Memory of an agent, MiB</h2><p>Resident set size (blue) and proportional set size (orange), means over all agents.</p>",
            _plot(
                "Memory",
                cycle,
                [[_memory(row, name) for row in thinned] for name in ("average", "averagePss")],
                unit="MiB",
            ),
            "<h2>Crashes and restarts</h2><p>Crashed agents, by cycle.</p>",
            _plot("Crashes", cycle, [[_number(row.get("crashedAgents")) for row in thinned]], unit="", bars=True),
            _restarts(report.get("restart_ms")),
            "</body>",
        ]
    )
    return whole_page(title="Soak report", style=_STYLE, body=body)


def _criteria(criteria: JsonValue) -> str:
    lines = []
    for name, found in criteria.items() if isinstance(criteria, dict) else ():
        if isinstance(found, dict):
            mark = "passed" if found.get("passed") is True else "failed"
            shown = "not judged" if found.get("value") is None else _shown(found.get("value"))
            lines.append(
                f'<tr><td>{escape(_NAMES.get(name, name))}</td><td class="number">{shown}</td>'
                f'<td class="number">{_shown(found.get("limit"))}</td><td class="{mark}">{mark}</td></tr>'
            )
    return "<table><tr><th>Criterion</th><th>Value</th><th>Limit</th><th></th></tr>" + "".join(lines) + "</table>"


def _table(pairs: Sequence[tuple[str, JsonValue]]) -> str:
    lines = [
        f'<tr><td>{escape(name)}</td><td class="number">{_shown(value)}</td></tr>'
        for name, value in pairs
        if value is not None
    ]
    return f"<table>{''.join(lines)}</table>"


def _figures(found: JsonValue) -> str:
    return _table(list(found.items())) if isinstance(found, dict) else ""


def _restarts(found: JsonValue) -> str:
    times = [_number(value) for value in found] if isinstance(found, list) else []
    if not times:
        return "<p>No agent was started again.</p>"
    plot = _plot("Restarts", [float(number) for number in range(1, len(times) + 1)], [times], unit="ms", bars=True)
    return f"<p>Time until each crashed agent was back, ms.</p>{plot}"


def _plot(title: str, x: Sequence[float], series: Sequence[Sequence[float]], *, unit: str, bars: bool = False) -> str:
    if not x:
        return "<p>Nothing to show.</p>"
    most = max((max(values, default=0.0) for values in series), default=0.0) or 1.0
    span = max(x[-1] - x[0], 1.0)

    def across(value: float) -> float:
        return _LEFT + (value - x[0]) / span * (_WIDTH - _LEFT - _TOP)

    def up(value: float) -> float:
        return _HEIGHT - _BOTTOM - value / most * (_HEIGHT - _BOTTOM - _TOP)

    ground = _HEIGHT - _BOTTOM
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}, at most {most:.4g} {escape(unit)}">',
        f'<path class="axis" fill="none" d="M{_LEFT} {_TOP}V{ground}H{_WIDTH - _TOP}"/>',
        f'<text x="{_LEFT - 6}" y="{_TOP + 8}" text-anchor="end">{most:.4g} {escape(unit)}</text>',
        f'<text x="{_LEFT - 6}" y="{ground}" text-anchor="end">0</text>',
        f'<text x="{_LEFT}" y="{_HEIGHT - 8}">{x[0]:g}</text>',
        f'<text x="{_WIDTH - _TOP}" y="{_HEIGHT - 8}" text-anchor="end">{x[-1]:g}</text>',
    ]
    for number, values in enumerate(series):
        parts.append(_bars(x, values, across, up, ground) if bars else _line(x, values, across, up, second=number > 0))
    return "".join([*parts, "</svg>"])


_Scale = Callable[[float], float]


def _line(x: Sequence[float], values: Sequence[float], across: _Scale, up: _Scale, *, second: bool) -> str:
    points = " ".join(f"{across(place):.1f},{up(value):.1f}" for place, value in zip(x, values, strict=True))
    return f'<polyline class="line{" second" if second else ""}" points="{points}"/>'


def _bars(x: Sequence[float], values: Sequence[float], across: _Scale, up: _Scale, ground: float) -> str:
    return "".join(
        f'<rect class="bar" x="{across(place) - 1.5:.1f}" y="{up(value):.1f}" width="3" height="{ground - up(value):.1f}"/>'
        for place, value in zip(x, values, strict=True)
        if value > 0
    )


def _thinned(rows: Sequence[Mapping[str, JsonValue]]) -> Sequence[Mapping[str, JsonValue]]:
    """At most `_MOST_POINTS` of them: of each stretch the slowest cycle, so that no peak is hidden."""
    step = -(-len(rows) // _MOST_POINTS)
    if step <= 1:
        return rows
    found: list[Mapping[str, JsonValue]] = []
    for start in range(0, len(rows), step):
        stretch = rows[start : start + step]
        slowest = max(stretch, key=_duration)
        found.append({**slowest, "crashedAgents": sum(_number(row.get("crashedAgents")) for row in stretch)})
    return found


def _duration(row: Mapping[str, JsonValue]) -> float:
    return _number(row.get("duration"))


def _memory(row: Mapping[str, JsonValue], name: str) -> float:
    found = row.get("memoryStats")
    return _number(found.get(name)) / 2**20 if isinstance(found, dict) else 0.0


def _number(value: JsonValue) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0


def _shown(value: JsonValue) -> str:
    if isinstance(value, float):
        return f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) else escape(str(value))
