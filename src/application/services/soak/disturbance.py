"""How much of a cycle the machine took for other work than the soak's, so that a busy machine is not taken for slow agents."""

from __future__ import annotations

from collections.abc import Iterable

from application.ports.soak_agents import Load

__all__ = ["disturbed_s"]


def disturbed_s(before: Load, after: Load, *, path: Iterable[int], every: Iterable[int]) -> float:
    """Seconds that the processes on the `path` (who answered last, and whoever passed the message on) were kept from a core by others.

    They are kept from it by the soak's own work as well, which is no excuse: what `every` process of it worked, spread over the cores, is
    taken off. What the machine's own host stole is added. Linux only (schedstat); where nothing is known it is 0.
    """
    waited = sum(after.waited.get(pid, 0.0) - before.waited.get(pid, after.waited.get(pid, 0.0)) for pid in path)
    worked = sum(after.worked.get(pid, 0.0) - before.worked.get(pid, after.worked.get(pid, 0.0)) for pid in every)
    return max(0.0, waited - worked / max(1, after.cores)) + max(0.0, after.stolen - before.stolen)
