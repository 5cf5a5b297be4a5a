"""A drawing on a terminal that is drawn over as things go on, and wiped away in the end."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console, RenderableType
from rich.live import Live

__all__ = ["live_drawing"]

_REFRESHES_PER_SECOND = 8


def live_drawing(console: Console, view: Callable[[], RenderableType]) -> Live:
    """What `view` gives, drawn from now on several times a second until it is stopped."""
    live = Live(
        console=console,
        get_renderable=view,
        refresh_per_second=_REFRESHES_PER_SECOND,
        transient=True,
        redirect_stdout=False,
        vertical_overflow="crop",
    )
    live.start(refresh=True)
    return live
