"""A population as a person reads it: how its opinions moved, how fast it was, and that nobody in it is real."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from api.cli.page import Page
from api.cli.plain_text import visible

__all__ = ["render_bench", "render_plan", "render_population", "show_progress"]

_BARS = 20
_MAX_ANSWER = 60
_HEIGHTS = " .:-=+*#%@"


def show_progress(type: str, data: Mapping[str, Any]) -> None:  # noqa: A002 - as a run's observer names it
    """One line on the standard error of somebody who watches."""
    from api.cli.terminal import progress_console

    console = progress_console()
    if console is None:
        return
    if type == "population.started":
        console.print(
            f"{data['agents']:,} simulated agents in {data['shards']} shards ({data['kernel']}), tick {data['tick']}"
        )
    elif type == "population.progress":
        console.print(
            f"tick {data['tick']:,} of {data['ticks']:,}: {data['tick_ms']:.1f} ms a tick, "
            f"{data['messages_per_second'] / 1e6:.1f} M messages/s"
        )
    elif type == "population.seed":
        console.print(f"seed {data['seed']}, after {data['done']} of {data['planned']}")
    elif type == "population.shard_lost":
        console.print(
            f"shard process {data['worker']} {data['problem']} after tick {data['tick']}: going back to the last snapshot"
        )


def render_population(console: Console, document: Mapping[str, Any]) -> None:
    """The document of contract section 7."""
    page = Page(console)
    opinions = document["opinions"]
    page.paragraph(
        f"{document['agents']:,} simulated agents, {document['ticks']:,} ticks, {document['behaviour']} on a graph "
        f"{document['graph']}, seed {document['seed']}."
    )
    page.gap()
    for when in ("initial", "final"):
        found = opinions[when]
        sketch = f"{when:8}|{_sketch(found['histogram'])}|"
        figures = f"mean {found['mean']:.4f}, variance {found['variance']:.5f}"
        if len(sketch) + 1 + len(figures) <= page.width:
            page.line(Text(f"{sketch} {figures}"))
        else:
            page.line(Text(sketch))
            page.paragraph(figures, indent=2, hang=2)
    page.gap()
    _write_subgroups(page, document["subgroups"])
    _write_decision(page, document["decision"])
    _write_seeds(page, document["replicates"])
    tick_ms, rate = document["tick_ms"], document["messages_per_second"]
    if tick_ms["mean"] is not None:
        page.paragraph(
            f"A tick took {tick_ms['mean']:.1f} ms ({tick_ms['p99']:.1f} ms at p99); {document['messages_routed']:,} messages, "
            f"{rate / 1e6:.1f} million a second, {document['messages_lost']} lost."
        )
    page.paragraph(
        f"{document['shards']} shards, kernel {document['kernel']}, {document['peak_rss_bytes'] / 2**20:,.0f} MiB at most, "
        f"{document['cpu_fraction']:.0%} of all cores."
    )
    page.line(Text(f"state_hash {document['state_hash']}", style="dim"))
    _write_external(page, document.get("external"))
    page.paragraph(
        "Simulated: these agents are rows of numbers, and say nothing about what people think.", style="yellow"
    )


def _write_external(page: Page, external: Mapping[str, Any] | None) -> None:
    """Who spoke for some of the rows, and that the run cannot be repeated."""
    if not external:
        return
    away = f" Away at the end: {visible(', '.join(external['away']))}." if external["away"] else ""
    page.paragraph(
        f"{external['rows']:,} agents were spoken for by other processes over {external['bus']}: this run cannot be repeated.{away}",
        style="yellow",
    )


def _write_subgroups(page: Page, rows: Sequence[Mapping[str, Any]]) -> None:
    """How the communities of a deliberation's agents moved, by the answers that those gave."""
    if not rows:
        return
    page.line(Text("Simulated communities by the answer that they began with", style="bold"))
    for row in rows:
        begun, ended = row["initial"], row["final"]
        name = visible(row["answer"], limit=_MAX_ANSWER)
        page.paragraph(
            f"{name}: {row['archetypes']} communities, {row['agents']:,} agents, mean {_from_to(begun['mean'], ended['mean'], '.3f')}, "
            f"variance {_from_to(begun['variance'], ended['variance'], '.4f')}, "
            f"share nearest to it {_from_to(begun['share'], ended['share'], '.1%')}",
            indent=2,
            hang=2,
        )
    page.gap()


def _from_to(first: float | None, last: float | None, form: str) -> str:
    return " -> ".join("-" if value is None else format(value, form) for value in (first, last))


def render_bench(console: Console, document: Mapping[str, Any]) -> None:
    """The table of targets with what was measured."""
    page = Page(console)
    page.paragraph(
        f"Kernel {document['kernel']}, {document['cores']} cores, load {document['load'][0]:.1f}; the targets are for two "
        "cores and nothing else running."
    )
    page.gap()
    for row in document["targets"]:
        value = "-" if row["value"] is None else f"{row['value']:,.3g}"
        style = {"miss": "red", "not measured": "dim"}.get(row["verdict"], "green")
        page.line(
            Text(f"{row['what']:44} {value:>9} {row['unit']:4} must {row['must']:>7,g} aim {row['aim']:>6,g}  ").append(
                row["verdict"], style=style
            )
        )


def render_plan(console: Console, document: Mapping[str, Any]) -> None:
    """What a population needs and what there is."""
    page = Page(console)
    page.paragraph(
        f"{document['agents']:,} agents with {document['state_bytes']:,} bytes of state each need "
        f"{document['needed_bytes'] / 2**30:.2f} GiB; {document['available_bytes'] / 2**30:.2f} GiB are free."
    )
    page.paragraph(
        f"{document['shards']} shards on {document['cores']} cores, kernel {document['kernel']}; up to "
        f"{document['fits_agents']:,} such agents fit."
    )
    page.paragraph(_machine(document))
    disk = document["disk"]
    page.paragraph(
        f"Snapshots take up to {disk['snapshots_bytes'] / 2**20:,.0f} MiB of disk; {disk['free_bytes'] / 2**30:,.1f} GiB are free."
    )
    if (tick := document["tick"]) is not None:
        page.paragraph(
            f"A tick would take about {tick['expected_ms']:,.1f} ms, {tick['messages_per_second'] / 1e6:,.1f} million messages a "
            f"second, as {tick['measured_ticks']} ticks of {tick['measured_agents']:,} agents say."
        )
    page.paragraph("It fits." if document["fits"] else "It does not fit.", style="green" if document["fits"] else "red")


def _machine(document: Mapping[str, Any]) -> str:
    devices = ", ".join(
        f"{visible(device['name'], limit=_MAX_ANSWER)} with {device['memory_bytes'] / 2**30:,.0f} GiB"
        for device in document["devices"]
    )
    networks = ", ".join(
        f"{visible(network['name'], limit=_MAX_ANSWER)} "
        + ("of unknown speed" if network["mbit_s"] is None else f"of {network['mbit_s']:,} Mbit/s")
        for network in document["networks"]
    )
    return f"CUDA devices: {devices or 'none'}. Networks: {networks or 'none'}; a population on one machine sends nothing over them."


def _write_seeds(page: Page, found: Mapping[str, Any] | None) -> None:
    """How much of the end is chance."""
    if found is None:
        return
    page.line(
        Text(
            f"Over {found['done']} of {found['planned']} seeds: mean, and where {found['level']:.0%} would lie",
            style="bold",
        )
    )
    rows = [(name, found[name]) for name in ("mean", "variance", "groups")]
    rows += [
        (f"share nearest to {visible(one['answer'], limit=_MAX_ANSWER)}", one["share"]) for one in found["answers"]
    ]
    for name, interval in rows:
        said = " ".join("-" if interval[key] is None else f"{interval[key]:.5f}" for key in ("value", "low", "high"))
        page.paragraph(f"{name}: {said}", indent=2, hang=2)
    page.gap()


def _write_decision(page: Page, found: Mapping[str, Any] | None) -> None:
    """What the deliberation decided beside what most of the population ended nearest to."""
    if found is None:
        return
    decided = "no decision" if found["answer"] is None else visible(found["answer"], limit=_MAX_ANSWER)
    share = "-" if found["final_share"] is None else f"{found['final_share']:.1%}"
    page.paragraph(
        f"The deliberation decided: {decided}; in the end {share} of these simulated agents lie nearest to it, and most of them to "
        f"{visible(found['final_leader'], limit=_MAX_ANSWER)}."
    )
    page.gap()


def _sketch(histogram: Sequence[int]) -> str:
    """The histogram in twenty characters; the fullest is the heaviest."""
    size = max(1, len(histogram) // _BARS)
    sums = [sum(histogram[start : start + size]) for start in range(0, len(histogram), size)]
    most = max(*sums, 1)
    last = len(_HEIGHTS) - 1
    return "".join(_HEIGHTS[min(last, -(-count * last // most))] for count in sums)
