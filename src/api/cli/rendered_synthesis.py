"""What texts came to on a terminal: the clusters with their claims, each with the agents that it rests on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from api.cli.account import MAX_ID_CHARACTERS
from api.cli.page import Page
from api.cli.plain_text import visible
from domain.counted import counted

__all__ = ["ERASED", "write_synthesis"]

ERASED = "(erased)"
_MAX_CLUSTERS = 12
_MAX_CLAIM_CHARACTERS = 1_024
_MAX_CITED = 6

Document = Mapping[str, Any]


def write_synthesis(page: Page, synthesis: Document | None) -> None:
    """The section, nothing where no texts were compared. Every word of an agent is shown as itself, whatever it holds."""
    if not synthesis:
        return
    clusters: Sequence[Document] = synthesis.get("clusters") or ()
    claims: Sequence[Document] = synthesis.get("claims") or ()
    page.gap()
    page.paragraph(f"Claims, compared by {visible(str(synthesis.get('method')), limit=100)}:", style="bold")
    for cluster in clusters[:_MAX_CLUSTERS]:
        name = str(cluster.get("name"))
        agents = cluster.get("agents") or ()
        chosen = ", the decision" if name == synthesis.get("chosen") else ""
        page.paragraph(f"{visible(name, limit=100)}: {counted(len(agents), 'agent')}{chosen}")
        own = [claim for claim in claims if claim.get("cluster") == name]
        for claim in own:
            text = claim.get("text")
            said = ERASED if text is None else f'"{visible(str(text), limit=_MAX_CLAIM_CHARACTERS)}"'
            page.paragraph(f"- {said} [{_cited(claim)}]", indent=2, hang=2)
        if not own:
            page.paragraph(f"- no claim; {_names(agents)}", indent=2, hang=2, style="dim")
    rest = clusters[_MAX_CLUSTERS:]
    if rest:
        held = sum(len(cluster.get("agents") or ()) for cluster in rest)
        page.paragraph(f"and {counted(len(rest), 'more cluster')} of {counted(held, 'agent')}", style="dim")


def _cited(claim: Document) -> str:
    """Whose words these are, and after it who says so too."""
    source = claim.get("source")
    others = [agent for agent in claim.get("agents") or () if agent != source]
    return _names([source, *others])


def _names(agents: Sequence[Any]) -> str:
    named = [visible(str(agent), limit=MAX_ID_CHARACTERS) for agent in agents[:_MAX_CITED]]
    more = len(agents) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")
