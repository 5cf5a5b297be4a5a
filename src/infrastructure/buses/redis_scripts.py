"""The steps of the Redis bus that have to be atomic, as scripts for Redis 7 or Valkey; no clock takes part in any order.

Keys, all behind one prefix with one hash tag: `a:NAME` (hash of an inbox: counts, settings, who waits), `s:NAME:P` (its stream of one
priority, read by the consumer group `g`; an entry is a message or a run of them, `NUMBER-0` or `NUMBER-SIZE`), `v:NAME:P` (sorted set of
what is unacknowledged, by the millisecond of its redelivery), `i:NAME` and `j:NAME` (message id to priority and number of what is
unacknowledged: single messages, and runs by their first), `o:NAME` (the messages of runs that were opened, because not all of one met the
same end), `k:NAME` (in `auto` the same, and what a cancelled receive gave back), `x0:NAME` and `x1:NAME` (ids that senders gave, in two
generations), `g:NAME` (members of a group) and `m:NAME` (groups of an agent), `agents`, `dead`, `stats`, `exp` (what expires) and `vis`
(inboxes by their next redelivery), `rq` (requests in flight), `rp:OBJECT` (replies to fetch), `alive:OBJECT`, `lanes:OBJECT` (the last
answer of each lane, so that a call whose answer was lost is repeated without being done twice).
"""

from __future__ import annotations

from functools import cache
from hashlib import sha1
from importlib.resources import files

__all__ = ["Script", "script"]

_PARTS = {
    "send": ("prelude", "records", "inboxes", "hands", "send"),
    "take": ("prelude", "records", "inboxes", "hands", "acknowledge", "take"),
    "control": ("prelude", "records", "inboxes", "hands", "control"),
    "look": ("prelude", "look"),
}
# Nothing is sent into a Redis that is full; taking, acknowledging and leaving are what makes room in it.
_FIRST_LINES = {
    "send": "#!lua",
    "take": "#!lua flags=allow-oom",
    "control": "#!lua flags=allow-oom",
    "look": "#!lua flags=no-writes",
}


class Script:
    """A Lua script and the name under which a server keeps it."""

    __slots__ = ("digest", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        # The server's own way to name scripts; it protects nothing.
        self.digest = sha1(text.encode(), usedforsecurity=False).hexdigest()


@cache
def script(name: str) -> Script:
    """One of `send`, `take`, `control` and `look`, put together from its parts."""
    folder = files("infrastructure.buses").joinpath("redis_lua")
    parts = [folder.joinpath(f"{part}.lua").read_text(encoding="utf-8") for part in _PARTS[name]]
    return Script("\n".join([_FIRST_LINES[name], *parts]))
