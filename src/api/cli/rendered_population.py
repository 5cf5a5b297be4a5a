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
        page.line(
            Text(f"{when:8}|{_sketch(found['histogram'])}| mean {found['mean']:.4f}, variance {found['variance']:.5f}")
        )
    page.gap()
    _write_communities(page, opinions)
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
    page.paragraph(
        "Simulated: these agents are rows of numbers, and say nothing about what people think.", style="yellow"
    )


def _write_communities(page: Page, opinions: Mapping[str, Any]) -> None:
    """How the communities of a deliberation's agents moved, by the answers that those gave."""
    begun, ended = opinions["initial"].get("communities") or (), opinions["final"].get("communities") or ()
    if not ended:
        return
    page.line(Text("Communities by the answer that they began with", style="bold"))
    for answer in dict.fromkeys(str(community["answer"]) for community in ended):
        then, now = (
            [community for community in when if community["answer"] == answer and community["agents"]]
            for when in (begun, ended)
        )
        agents = sum(community["agents"] for community in now)
        means = (
            sum(community["agents"] * community["mean"] for community in when)
            / max(1, sum(community["agents"] for community in when))
            for when in (then, now)
        )
        first, last = means
        name = visible(answer, limit=_MAX_ANSWER)
        page.paragraph(
            f"{name}: {len(now)} communities, {agents:,} agents, mean {first:.3f} -> {last:.3f}", indent=2, hang=2
        )
    page.gap()


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
    page.paragraph("It fits." if document["fits"] else "It does not fit.", style="green" if document["fits"] else "red")


def _sketch(histogram: Sequence[int]) -> str:
    """The histogram in twenty characters; the fullest is the heaviest."""
    size = max(1, len(histogram) // _BARS)
    sums = [sum(histogram[start : start + size]) for start in range(0, len(histogram), size)]
    most = max(*sums, 1)
    last = len(_HEIGHTS) - 1
    return "".join(_HEIGHTS[min(last, -(-count * last // most))] for count in sums)
