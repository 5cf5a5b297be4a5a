"""What a population may be told about the tiers that its states lie in, as the types of arguments."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["ColdOption", "HotShareOption", "TiersOption", "WarmOption", "WarmShareOption"]

TiersOption = Annotated[
    bool,
    typer.Option(
        "--tiers",
        help="Keep the agents' states in tiers: the popular ones in memory, others compressed, the rest on disk.",
    ),
]
WarmOption = Annotated[
    str,
    typer.Option(
        "--warm", metavar="KIND", help="Where states that cooled are: lz4 in memory, or redis at CONCLAVE_REDIS_URL."
    ),
]
ColdOption = Annotated[
    str,
    typer.Option("--cold", metavar="KIND", help="Where all states are written: sqlite, or lmdb where it is installed."),
]
HotShareOption = Annotated[
    int, typer.Option("--hot-percent", metavar="PERCENT", help="How many percent of the states are hot.")
]
WarmShareOption = Annotated[
    int, typer.Option("--warm-percent", metavar="PERCENT", help="How many percent of the states are warm.")
]
