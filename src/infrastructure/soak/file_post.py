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


class FilePost:
    """A `SoakPost` over `messages/`, `responses/` and `status/`.

    Each agent has one message file, which the next message replaces. The responses of a cycle stay until the next one begins. Whatever
    is in `responses/` or `status/` and cannot be read as what belongs there counts as corrupt, once for each file, when it is the same
    at two looks 0.2 s apart; a link at once.
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
        self._corrupt: dict[tuple[str, str], Identity] = {}
        self._corrupt_count = 0
        self._suspects: dict[tuple[str, str], tuple[Identity, float]] = {}
        self._handled: dict[str, Identity] = {}
        self._sent: set[str] = set()
        self._statuses: dict[str, Status] = {}
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
        """Clear what an earlier run left; agents of others that live stay."""
        self._folder.open()
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
            self._statuses.pop(agent, None)
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
            if agent not in self._own and status.status == "ready" and is_alive(status.pid):
                found[agent] = status.pid
        return found

    def lives(self, agent: str) -> bool:
        """By the pid of its status file."""
        found = self._statuses.get(agent)
        return agent in self._own or (found is not None and found.status == "ready" and is_alive(found.pid))

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
        """Look at every file; with `final` also once more at those that are young."""
        self._look_at_all()
        if final and self._suspects:
            await asyncio.sleep(_YOUNG_S * 1.25)
            self._look_at_all()

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
        return found.status != "stopped" and is_alive(found.pid)

    def _changed(self, place: str, name: str, there: bool) -> None:  # noqa: FBT001 - the form of a callback
        if not there:
            self._gone(place, name)
        elif place == "responses":
            self._look_at_response(name)
        else:
            self._look_at_status(name)

    def _gone(self, place: str, name: str) -> None:
        self._suspects.pop((place, name), None)
        if place == "status":
            found = STATUS.fullmatch(name)
            if found is not None and found.group(1) not in self._own:
                self._statuses.pop(found.group(1), None)

    def _look_at_response(self, name: str) -> None:
        if RESPONSE.fullmatch(name) is None:
            return
        try:
            text, identity = self._folder.read("responses", name)
            if self._handled.get(name) == identity:
                return
            response = response_in(text, name, self._envelope)
        except FileNotFoundError:
            return
        except UnreadableFileError:
            # It may be half written: looked at again by the next audit, or when it is written once more.
            return
        self._suspects.pop(("responses", name), None)
        self._handled[name] = identity
        self.on_response(str(response["agentId"]), str(response["messageId"]), response)

    def _look_at_status(self, name: str) -> None:
        if STATUS.fullmatch(name) is None:
            return
        try:
            text, identity = self._folder.read("status", name)
            found = status_in(text, name, identity)
        except (FileNotFoundError, UnreadableFileError):
            return
        self._suspects.pop(("status", name), None)
        self._statuses[found.agent] = found
        self._turn.set()

    def _look_at_all(self) -> None:
        present: set[tuple[str, str]] = set()
        for found in self._folder.look("responses"):
            present.add(("responses", found.name))
            if self._handled.get(found.name) == found.identity:
                continue
            self._look_at_response(found.name)
            if self._handled.get(found.name) != found.identity:
                self._suspect("responses", found)
        statuses: set[str] = set()
        for found in self._folder.look("status"):
            present.add(("status", found.name))
            named = STATUS.fullmatch(found.name)
            agent = "" if named is None else named.group(1)
            known = self._statuses.get(agent)
            if known is None or known.identity != found.identity:
                self._look_at_status(found.name)
                known = self._statuses.get(agent)
            if known is None or known.identity != found.identity or self._claims(known):
                self._suspect("status", found)
            statuses.add(agent)
        for agent in self._statuses.keys() - statuses - self._own.keys():
            del self._statuses[agent]
        for key in self._suspects.keys() - present:
            del self._suspects[key]
        for key in self._corrupt.keys() - present:
            del self._corrupt[key]

    def _claims(self, found: Status) -> bool:
        """Whether somebody else who lives uses the name of one of the run's own."""
        pid = self._own.get(found.agent)
        return pid is not None and found.pid != pid and is_alive(found.pid)

    def _suspect(self, place: str, found: Found) -> None:
        key = (place, found.name)
        if self._corrupt.get(key) == found.identity:
            return
        identity, since = self._suspects.get(key, (None, 0.0))
        now = self._clock()
        if found.is_link or (identity == found.identity and now - since >= _YOUNG_S):
            self._suspects.pop(key, None)
            self._corrupt[key] = found.identity
            self._corrupt_count += 1
        elif identity != found.identity:
            self._suspects[key] = (found.identity, now)


def _message_name(agent: str) -> str:
    return f"coordination-{agent}.json"
