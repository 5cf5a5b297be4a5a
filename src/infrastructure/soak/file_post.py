"""Messages and responses as files in the coordination folder, which an agent in any language can read and write."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping

from application.ports.soak_agents import Order, UndeliverableError
from domain.errors.dependency import DependencyUnavailableError
from domain.models.run import JsonValue
from infrastructure.soak.coordination_folder import CoordinationFolder, Found, UnreadableFileError
from infrastructure.soak.envelope import Envelope
from infrastructure.soak.file_documents import MESSAGE, RESPONSE, STATUS, Identity, Status, response_in, status_in
from infrastructure.soak.folder_watch import FolderWatch
from infrastructure.soak.process_gauge import is_alive

__all__ = ["FilePost"]

# What was written less than this long ago may not be finished.
_YOUNG_S = 0.2
# Those of a run that was killed are killed with it: what is left is for the kernel to do.
_DESERTED_WITHIN_S = 10.0
_BETWEEN_LOOKS_S = 0.01


class FilePost:
    """A `SoakPost` over `messages/`, `responses/` and `status/`.

    Each agent has one message file, which the next message replaces. The responses of a cycle stay until the next one begins. Whatever
    is in `responses/` or `status/` and cannot be read as what belongs there for 0.2 s counts as corrupt, however often it is rewritten
    meanwhile, and once for each name until that can be read or is gone; a link at once.

    An agent of somebody else joins by the word `ready`, or by having been there before the run. From then on it takes part whatever
    other word its status file says, until that is `stopped` or gone, or its process is.
    """

    def __init__(
        self,
        folder: CoordinationFolder,
        *,
        session: str,
        envelope: Envelope | None = None,
        polls: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`polls`: look every few milliseconds instead of being told; where inotify does not reach that is done anyway."""
        self.on_response: Callable[[str, str, Mapping[str, JsonValue]], None] = lambda _agent, _id, _response: None
        self._folder = folder
        self._session = session
        self._envelope = envelope
        self._clock = clock
        self._watch = FolderWatch(
            {place: folder.path_of(place) for place in ("responses", "status")},
            changed=self._changed,
            missed=self._look_at_all,
            polls=polls,
        )
        self._corrupt: set[tuple[str, str]] = set()
        self._corrupt_count = 0
        # Since when each cannot be read.
        self._suspects: dict[tuple[str, str], float] = {}
        self._handled: dict[str, Identity] = {}
        self._sent: set[str] = set()
        self._statuses: dict[str, Status] = {}
        self._joined: dict[str, int] = {}
        self._own: dict[str, int] = {}
        self._ready: dict[str, int] = {}
        self._turn = asyncio.Event()

    @property
    def corrupt(self) -> int:
        """Files and links that are none of a response or a status."""
        return self._corrupt_count

    @property
    def polls(self) -> bool:
        """Whether it looks, rather than being told."""
        return self._watch.polls

    @property
    def messages_path(self) -> str:
        """Where messages lie, for who rings for them."""
        return self._folder.path_of("messages")

    async def open(self) -> None:
        """Clear what an earlier run left, once its agents are gone; agents of others that live stay.

        Raises `ConfigurationError` and `DependencyUnavailableError`.
        """
        self._folder.open()
        try:
            async with asyncio.timeout(_DESERTED_WITHIN_S):
                while not self._folder.is_deserted():  # noqa: ASYNC110 - the kernel tells nobody
                    await asyncio.sleep(_BETWEEN_LOOKS_S)
        except TimeoutError:
            raise self._folder.refused("agents of an earlier soak are still there") from None
        for place, pattern in (("messages", MESSAGE), ("responses", RESPONSE)):
            for found in self._folder.look(place):
                if found.is_file and pattern.fullmatch(found.name):
                    self._folder.remove(place, found.name)
        for found in self._folder.look("drafts"):
            self._folder.remove("drafts", found.name)
        for found in self._folder.look("status"):
            if found.is_file and STATUS.fullmatch(found.name) and not self._stays(found.name):
                self._folder.remove("status", found.name)
        try:
            self._say("running")
        except OSError as error:
            raise DependencyUnavailableError(
                dependency=f"the coordination folder {str(self._folder.path)!r}",
                problem=error.strerror or "it cannot be written to",
                remedy="Free space there, or give another --coord-dir.",
            ) from error
        self._watch.open()
        self._look_at_all()

    def expect(self, agent: str, pid: int | None) -> None:
        """Note whose status file counts."""
        self._ready.pop(agent, None)
        if pid is None:
            self._own.pop(agent, None)
            self._forget(agent)
        else:
            self._own[agent] = pid
        self._turn.set()

    def ended(self, agent: str) -> None:
        """Its successor has another pid, by which its status file is told apart."""
        self._ready.pop(agent, None)

    def taken(self) -> frozenset[str]:
        """Names in status files of others."""
        return frozenset(
            agent for agent, found in self._statuses.items() if agent not in self._own and found.status != "stopped"
        )

    async def ready(self, agents: Iterable[str], *, timeout_s: float) -> frozenset[str]:
        """Wait for status files with the right pids."""
        wanted = set(agents)
        try:
            async with asyncio.timeout(timeout_s):
                while not all(self._is_ready(agent) for agent in wanted):
                    self._turn.clear()
                    await self._turn.wait()
        except TimeoutError:
            self._look_at_all()
        return frozenset(agent for agent in wanted if self._is_ready(agent))

    def members(self) -> Mapping[str, int]:
        """The run's own that are ready, then others whose process lives."""
        found = {agent: pid for agent, pid in self._own.items() if self._is_ready(agent)}
        for agent, status in self._statuses.items():
            if agent not in self._own and self._joined.get(agent) == status.pid and is_alive(status.pid):
                found[agent] = status.pid
        return found

    def lives(self, agent: str) -> bool:
        """By the pid of its status file."""
        found = self._statuses.get(agent)
        return agent in self._own or (found is not None and found.status != "stopped" and is_alive(found.pid))

    def begin_cycle(self) -> None:
        """Remove the responses that were read and the messages that were sent."""
        # Before the next ones are written: to replace a file costs far more than to make one where each rename goes to a disk (ext4).
        for name in self._sent:
            self._folder.remove("messages", name)
        self._sent.clear()
        for name in self._handled:
            self._folder.remove("responses", name)
        self._handled.clear()

    async def put(self, order: Order) -> None:
        """Replace the agent's message file."""
        document = {
            "messageId": order.message_id,
            "type": order.kind,
            "timestamp": round(time.time() * 1e3),
            "cycle": order.cycle,
            "priority": order.priority,
            "data": dict(order.data),
        }
        name = _message_name(order.agent)
        text = json.dumps(document).encode()
        if name in self._sent:
            self._folder.remove("messages", name)
        self._sent.add(name)
        try:
            self._folder.write("messages", name, text if self._envelope is None else self._envelope.pack(text, name))
        except OSError as error:
            raise UndeliverableError(error.strerror or "cannot be written") from error

    def withdraw(self, agent: str) -> None:
        """Remove the agent's message file."""
        self._folder.remove("messages", _message_name(agent))

    async def audit(self, *, final: bool = False) -> None:
        """Look at every file; with `final` what was written a while ago counts at once, and what is young is looked at once more."""
        self._look_at_all(final=final)
        if final and self._suspects:
            await asyncio.sleep(_YOUNG_S * 1.25)
            self._look_at_all(final=True)

    def size_bytes(self) -> int:
        """What the folder takes."""
        return self._folder.size_bytes()

    async def close(self) -> None:
        """Say that the run is over, and let go of the folder."""
        await self._watch.close()
        if self._folder.is_open:
            # Where that cannot be written, agents that wait for it see that this process has ended.
            with contextlib.suppress(OSError):
                self._say("ended")
            self._folder.close()

    def _is_ready(self, agent: str) -> bool:
        pid = self._own.get(agent)
        if pid is None:
            return False
        if self._ready.get(agent) == pid:
            return True
        found = self._statuses.get(agent)
        if found is None or found.pid != pid or found.status != "ready":
            return False
        self._ready[agent] = pid
        return True

    def _say(self, status: str) -> None:
        document = {"status": status, "pid": os.getpid(), "session": self._session}
        self._folder.write("", "run.json", json.dumps(document).encode())

    def _stays(self, name: str) -> bool:
        try:
            text, identity = self._folder.read("status", name)
            found = status_in(text, name, identity)
        except (FileNotFoundError, UnreadableFileError):
            return False
        if found.status == "stopped" or not is_alive(found.pid):
            return False
        # It may have said that it is ready to an earlier run.
        self._joined[found.agent] = found.pid
        return True

    def _changed(self, place: str, name: str, there: bool) -> None:  # noqa: FBT001 - the form of a callback
        if not there:
            self._gone(place, name)
        elif place == "responses":
            self._look_at_response(name)
        else:
            self._look_at_status(name)

    def _gone(self, place: str, name: str) -> None:
        self._clear(place, name)
        if place == "status":
            found = STATUS.fullmatch(name)
            if found is not None and found.group(1) not in self._own:
                self._forget(found.group(1))

    def _forget(self, agent: str) -> None:
        self._statuses.pop(agent, None)
        self._joined.pop(agent, None)

    def _clear(self, place: str, name: str) -> None:
        self._suspects.pop((place, name), None)
        self._corrupt.discard((place, name))

    def _look_at_response(self, name: str) -> bool:
        """Whether nothing is wrong with it. What is half written is looked at again by the next audit, or when it is written once more."""
        if RESPONSE.fullmatch(name) is None:
            return False
        try:
            text, identity = self._folder.read("responses", name)
            if self._handled.get(name) == identity:
                return True
            response = response_in(text, name, self._envelope)
        except FileNotFoundError:
            return True
        except UnreadableFileError:
            return False
        self._clear("responses", name)
        self._handled[name] = identity
        self.on_response(str(response["agentId"]), str(response["messageId"]), response)
        return True

    def _look_at_status(self, name: str) -> bool:
        """Whether nothing is wrong with it."""
        if STATUS.fullmatch(name) is None:
            return False
        try:
            text, identity = self._folder.read("status", name)
            found = status_in(text, name, identity)
        except FileNotFoundError:
            return True
        except UnreadableFileError:
            return False
        self._statuses[found.agent] = found
        if found.status == "ready":
            self._joined[found.agent] = found.pid
        elif found.status == "stopped":
            self._joined.pop(found.agent, None)
        self._turn.set()
        if self._claims(found):
            return False
        self._clear("status", name)
        return True

    def _look_at_all(self, *, final: bool = False) -> None:
        present: set[tuple[str, str]] = set()
        for found in self._folder.look("responses"):
            present.add(("responses", found.name))
            if self._handled.get(found.name) == found.identity or self._look_at_response(found.name):
                self._clear("responses", found.name)
            else:
                self._suspect("responses", found, final=final)
        statuses: set[str] = set()
        for found in self._folder.look("status"):
            present.add(("status", found.name))
            named = STATUS.fullmatch(found.name)
            agent = "" if named is None else named.group(1)
            known = self._statuses.get(agent)
            is_known = known is not None and known.identity == found.identity and not self._claims(known)
            if is_known or self._look_at_status(found.name):
                self._clear("status", found.name)
            else:
                self._suspect("status", found, final=final)
            statuses.add(agent)
        for agent in self._statuses.keys() - statuses - self._own.keys():
            self._forget(agent)
        for key in self._suspects.keys() - present:
            del self._suspects[key]
        self._corrupt &= present

    def _claims(self, found: Status) -> bool:
        """Whether somebody else who lives uses the name of one of the run's own."""
        pid = self._own.get(found.agent)
        return pid is not None and found.pid != pid and is_alive(found.pid)

    def _suspect(self, place: str, found: Found, *, final: bool) -> None:
        key = (place, found.name)
        if key in self._corrupt:
            return
        now = self._clock()
        waited_s = now - self._suspects.setdefault(key, now)
        if found.is_link or waited_s >= _YOUNG_S or (final and time.time() - found.written_at >= _YOUNG_S):
            del self._suspects[key]
            self._corrupt.add(key)
            self._corrupt_count += 1


def _message_name(agent: str) -> str:
    return f"coordination-{agent}.json"
