"""Keeps the run's own agents alive: tells a crash from an exit that was asked for, and starts whoever crashed again."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Sequence

from application.ports.soak_agents import AgentHost, SoakPost
from domain.errors.conclave_error import ConclaveError

__all__ = ["Supervision"]

READY_WITHIN_S = 20.0
_BACK_WITHIN_S = 3.0
# Who dies sooner than this after it was ready is likely to do so again.
_QUICK_S = 1.0
_FIRST_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 1.0


class Supervision:
    """Every exit that was not asked for is a crash, whatever its code, and is followed by a restart under the same name.

    The first restart comes at once; an agent that goes on dying as soon as it is ready waits up to a second between.
    """

    def __init__(
        self,
        *,
        host: AgentHost,
        post: SoakPost,
        say: Callable[[str, str], None],
        before_restart: Callable[[str], None],
        on_end: Callable[[int], None],
    ) -> None:
        """`before_restart` is called with the name of the agent, `on_end` with the pid of each process that ended."""
        self._host = host
        self._post = post
        self._say = say
        self._before_restart = before_restart
        self._on_end = on_end
        self._leaving: set[str] = set()
        self._injected: set[int] = set()
        self._restarts: dict[str, asyncio.Task[None]] = {}
        self._quick: dict[str, int] = {}
        self._ready_at: dict[str, float] = {}
        self._closed = False
        self._turn = asyncio.Event()
        self.own: dict[str, int] = {}
        self.crashes = 0
        self.restarts = 0
        self.injected = 0
        self.orderly = 0
        # Each as (seconds since the loop began, agent, seconds until it was ready again).
        self.restart_times: list[tuple[float, str, float]] = []
        host.on_exit = self.exited

    async def start(self, agents: Sequence[str], *, timeout_s: float = READY_WITHIN_S) -> bool:
        """Start these and wait until they are ready; whether all are."""
        if not agents:
            return True
        for agent, pid in (await self._host.start(agents)).items():
            self.own[agent] = pid
            self._post.expect(agent, pid)
        ready = await self._post.ready(agents, timeout_s=timeout_s)
        self._ready_at.update(dict.fromkeys(ready, asyncio.get_running_loop().time()))
        missing = [agent for agent in agents if agent not in ready]
        if missing:
            self._say("ERROR", f"not ready within {timeout_s:g} s: {', '.join(missing)}")
        return not missing

    async def stop(self, agents: Sequence[str], *, within_s: float = 2.0) -> None:
        """Ask these to leave; their exits are orderly."""
        self._leaving.update(agents)
        for agent in agents:
            restart = self._restarts.pop(agent, None)
            if restart is not None:
                restart.cancel()
        await self._host.stop(agents, within_s=within_s)
        for agent in agents:
            self.own.pop(agent, None)
            self._post.expect(agent, None)
            self._leaving.discard(agent)

    def inject(self, agent: str) -> bool:
        """Kill one on purpose; its crash is counted as injected."""
        if agent in self._restarts:
            return False
        pid = self._host.kill(agent)
        if pid is None:
            return False
        self._injected.add(pid)
        self._say("WARN", f"agent {agent} (pid {pid}) is killed on purpose")
        return True

    def exited(self, agent: str, pid: int, code: int) -> None:
        """One has ended."""
        self._on_end(pid)
        self._turn.set()
        if agent in self._leaving or self.own.get(agent) != pid or self._closed:
            self.orderly += 1
            self._injected.discard(pid)
            return
        self.crashes += 1
        injected = pid in self._injected
        self.injected += injected
        self._say(
            "WARN" if injected else "ERROR",
            f"agent {agent} (pid {pid}) crashed: {_how(code)}" + (", on purpose" if injected else ""),
        )
        self._restarts[agent] = asyncio.get_running_loop().create_task(self._restart(agent))
        self._injected.discard(pid)

    async def settle(self, *, timeout_s: float = _BACK_WITHIN_S) -> None:
        """Wait until whoever crashed or was killed on purpose is back, `timeout_s` at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._restarts or self._injected:
                    self._turn.clear()
                    await self._turn.wait()

    async def close(self) -> None:
        """No more restarts."""
        self._closed = True
        tasks = set(self._restarts.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _restart(self, agent: str) -> None:
        loop = asyncio.get_running_loop()
        died = loop.time()
        lived = died - self._ready_at.get(agent, died)
        times = self._quick.get(agent, 0) + 1 if lived < _QUICK_S else 0
        self._quick[agent] = times
        try:
            if times > 1:
                await asyncio.sleep(min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** (times - 2)))
            self._post.ended(agent)
            # What it had answered before it died is not asked again.
            await self._post.audit()
            self._before_restart(agent)
            if await self.start([agent], timeout_s=_BACK_WITHIN_S):
                self.restarts += 1
                took = loop.time() - died
                self.restart_times.append((died, agent, took))
                self._say("INFO", f"agent {agent} is back after {took * 1e3:.0f} ms as pid {self.own[agent]}")
        except ConclaveError as error:
            self._say("ERROR", f"agent {agent} could not be started again: {error}")
        finally:
            # It may have crashed again before it was ready, and then another task has taken this one's place.
            if self._restarts.get(agent) is asyncio.current_task():
                del self._restarts[agent]
            self._turn.set()


def _how(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
