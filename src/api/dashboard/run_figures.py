"""What is drawn of a run: for each kind its figures, with the words and the table that say the same."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from api.dashboard.run_measures import message_rate, quantiles
from api.report.reading import number
from application.ports.run_series import Distribution, LineSummary, RunSeries
from domain.counted import counted
from domain.models.run import Run, RunKind

__all__ = ["MAX_TABLE_ROWS", "Figure", "FigureLine", "figure_document", "figures_of", "said"]

MAX_TABLE_ROWS = 30
_LINES = "lines"
_BARS = "steps"
_PLURALS = {"kill": "kills", "crash": "crashes"}


@dataclass(frozen=True, slots=True)
class FigureLine:
    """One line; `unit` also says by which axis it is drawn. One that is `level` is the same everywhere."""

    label: str
    unit: str
    values: Sequence[float | None]
    level: bool = False


@dataclass(frozen=True, slots=True)
class Figure:
    """A picture over `axis`; `marks` are places of the axis and what happened there. `summary` says it in words."""

    name: str
    title: str
    axis: str
    positions: Sequence[float]
    lines: Sequence[FigureLine]
    summary: str
    marks: Sequence[tuple[float, str]] = ()
    shape: str = _LINES

    @property
    def table(self) -> Sequence[tuple[float, Sequence[float | None]]]:
        """At most `MAX_TABLE_ROWS` of its rows, evenly apart, the first and the last among them."""
        count = len(self.positions)
        if count <= MAX_TABLE_ROWS:
            places: Iterable[int] = range(count)
        else:
            places = sorted({round(each * (count - 1) / (MAX_TABLE_ROWS - 1)) for each in range(MAX_TABLE_ROWS)})
        return [(self.positions[place], [line.values[place] for line in self.lines]) for place in places]


def figures_of(run: Run, series: RunSeries) -> Sequence[Figure]:
    """The figures for which there is anything to draw."""
    made = {
        RunKind.POPULATION: _of_population,
        RunKind.SOAK: _of_soak,
        RunKind.SWARM: _of_swarm,
        RunKind.PANTHEON: _of_pantheon,
    }[run.kind](run, series)
    return [figure for figure in made if figure is not None]


def figure_document(figure: Figure) -> dict[str, Any]:
    """The figure as the page's script draws it."""
    return {
        "name": figure.name,
        "title": figure.title,
        "axis": figure.axis,
        "shape": figure.shape,
        "positions": list(figure.positions),
        "lines": [
            {"label": line.label, "unit": line.unit, "level": line.level, "values": list(line.values)}
            for line in figure.lines
        ],
        "marks": [{"position": position, "label": label} for position, label in figure.marks],
    }


def said(value: float | None, unit: str = "") -> str:
    """A number in so many digits as say something, with its unit."""
    if value is None or not math.isfinite(value):
        return "–"
    size = abs(value)
    if size >= 100 or float(value).is_integer():
        text = f"{value:,.0f}"
    elif size >= 1:
        text = f"{value:,.2f}".rstrip("0").rstrip(".")
    else:
        text = f"{value:.3g}" if size >= 1e-4 else f"{value:.1e}"
    return f"{text} {unit}".rstrip()


def _of_population(run: Run, series: RunSeries) -> list[Figure | None]:
    has_ended = run.status.is_terminal
    return [
        _opinions(_distributions(run, series), has_ended=has_ended),
        _moments(series),
        _timed(run, series, "tick_ms", "Time of a tick", label="time of a tick"),
        _plain(
            series,
            "messages_per_second",
            "Messages a second",
            "messages/s",
            label="messages a second",
            average=message_rate(run, series),
        ),
        None if _stays(series, "agents") else _plain(series, "agents", "Agents", "agents", label="agents alive"),
    ]


def _of_soak(run: Run, series: RunSeries) -> list[Figure | None]:
    return [
        _timed(run, series, "duration_ms", "Duration of a cycle", label="duration of a cycle"),
        _plain(series, "response_percent", "Response rate", "%", label="messages answered"),
        _plain(series, "memory_mib", "Memory of an agent", "MiB", label="resident memory, mean of all agents"),
        None if _stays(series, "agents") else _plain(series, "agents", "Agents", "agents", label="agents"),
    ]


def _of_swarm(run: Run, series: RunSeries) -> list[Figure | None]:
    return [
        _timed(run, series, "latency_ms", "Latency of the flips", label="from delegation to the Log's note"),
        _plain(series, "elapsed_ms", "Time since the first message", "ms", label="since the first message"),
        _plain(series, "messages", "Answers so far", "answers", label="answers so far"),
    ]


def _of_pantheon(run: Run, series: RunSeries) -> list[Figure | None]:
    title = "Time on the bus in a cycle"
    cycles: dict[float, float] = {}
    handoffs: Any = (run.result or {}).get("handoffs")
    for each in handoffs if isinstance(handoffs, list) else ():
        cycle: Any = each.get("cycle") if isinstance(each, Mapping) else None
        taken: Any = each.get("latency_us") if isinstance(each, Mapping) else None
        if _are_numbers(cycle, taken):
            cycles[cycle] = cycles.get(cycle, 0.0) + taken
    if not cycles:
        return [_plain(series, "bus_us", title, "µs", label="time on the bus")]
    positions = sorted(cycles)
    values = [cycles[position] for position in positions]
    summary = (
        f"{counted(len(values), 'cycle')}: all handoffs of one take from {said(min(values), 'µs')} "
        f"to {said(max(values), 'µs')}, {said(math.fsum(values) / len(values), 'µs')} on average."
    )
    return [Figure("bus_us", title, "cycle", positions, [FigureLine("all handoffs", "µs", values)], summary)]


def _plain(
    series: RunSeries, name: str, title: str, unit: str, *, label: str, average: float | None = None
) -> Figure | None:
    values, found = series.lines.get(name), series.summaries.get(name)
    if values is None or found is None:
        return None
    summary = (
        f"{_rows(series, found.count)}: {label} from {said(found.least, unit)} to {said(found.greatest, unit)}, "
        f"{said(found.mean if average is None else average, unit)} on average, {said(found.last, unit)} last.{_marked(series)}"
    )
    return Figure(
        name, title, _axis(series), series.positions, [FigureLine(label, unit, values)], summary, _marks(series)
    )


def _timed(run: Run, series: RunSeries, name: str, title: str, *, label: str) -> Figure | None:
    """Of milliseconds, with two of their quantiles."""
    unit = "ms"
    figure, (p50, p95) = _plain(series, name, title, unit, label=label), quantiles(run, series, name)
    if figure is None or p50 is None or p95 is None:
        return None
    count = len(series.positions)
    lines = [
        *figure.lines,
        FigureLine("half are below (p50)", unit, [p50] * count, level=True),
        FigureLine("95 % are below (p95)", unit, [p95] * count, level=True),
    ]
    summary = f"{figure.summary} Half are below {said(p50, unit)}, 95 % below {said(p95, unit)}."
    return Figure(name, title, figure.axis, figure.positions, lines, summary, figure.marks)


def _distributions(run: Run, series: RunSeries) -> Sequence[Distribution]:
    if series.opinions or run.result is None:
        return series.opinions
    # A run of the command line keeps its samples elsewhere, and its report has the first and the last.
    opinions, ticks = run.result.get("opinions"), run.result.get("ticks")
    found = []
    for name, tick in (("initial", 0), ("final", ticks)):
        one: Any = opinions.get(name) if isinstance(opinions, Mapping) else None
        if isinstance(one, Mapping) and isinstance(tick, int):
            histogram: Any = one.get("histogram")
            mean: Any = one.get("mean")
            variance: Any = one.get("variance")
            if isinstance(histogram, list) and _are_numbers(mean, variance, *histogram):
                found.append(Distribution(tick, mean, variance, tuple(histogram)))
    return found


def _are_numbers(*values: object) -> bool:
    return all(number(value) is not None for value in values)


def _opinions(found: Sequence[Distribution], *, has_ended: bool) -> Figure | None:
    if not found or not found[0].histogram:
        return None
    bins = len(found[0].histogram)
    names = ["at first"] if len(found) == 1 else ["at first", "at the end" if has_ended else "now"]
    lines = [
        FigureLine(f"{name} (tick {one.tick:,})", "agents", one.histogram)
        for name, one in zip(names, found, strict=False)
        if len(one.histogram) == bins
    ]
    summary = " ".join(
        f"{name.capitalize()}, after tick {one.tick:,}, the mean opinion is {one.mean:.4f} and the variance {one.variance:.4f}."
        for name, one in zip(names, found, strict=False)
    )
    positions = [(place + 0.5) / bins for place in range(bins)]
    return Figure("opinions", "Opinions", "opinion, 0 to 1", positions, lines, summary, shape=_BARS)


def _moments(series: RunSeries) -> Figure | None:
    if len(series.moment_ticks) < 2:
        return None
    lines = [FigureLine("mean", "mean", series.means), FigureLine("variance", "variance", series.variances)]
    summary = (
        f"Over {len(series.moment_ticks)} samples the mean goes from {said(series.means[0])} to {said(series.means[-1])}, "
        f"the variance from {said(series.variances[0])} to {said(series.variances[-1])}."
    )
    return Figure("moments", "Mean and variance of opinions", "tick", series.moment_ticks, lines, summary)


def _stays(series: RunSeries, name: str) -> bool:
    found: LineSummary | None = series.summaries.get(name)
    return found is None or found.least == found.greatest


def _axis(series: RunSeries) -> str:
    return "ms since the first note" if series.axis == "ms" else series.axis


def _rows(series: RunSeries, count: int) -> str:
    """So many of its rows: those that have the line in question."""
    noun = {"tick": "tick", "cycle": "cycle"}.get(series.axis, "message")
    if series.source == "events":
        noun = "note"
    return counted(count, noun)


def _marks(series: RunSeries) -> list[tuple[float, str]]:
    return [
        (mark.position, mark.kind if mark.count == 1 else f"{mark.count} {_PLURALS.get(mark.kind, mark.kind)}")
        for mark in series.marks
    ]


def _marked(series: RunSeries) -> str:
    counts = {kind: sum(mark.count for mark in series.marks if mark.kind == kind) for kind in _PLURALS}
    told = [counted(count, kind, _PLURALS[kind]) for kind, count in counts.items() if count]
    return f" Marked: {' and '.join(told)}." if told else ""
