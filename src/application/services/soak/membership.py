"""Who takes part in a soak from cycle to cycle: who came, who left, and who of others died without a word."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from application.ports.soak_agents import SoakPost

__all__ = ["Membership"]


class Membership:
    """Compares the members of each cycle with those of the last. `ended` is called with the pid of each that is no more."""

    def __init__(self, post: SoakPost, *, say: Callable[[str, str], None], ended: Callable[[int], None]) -> None:
        self._post = post
        self._say = say
        self._ended = ended
        self.present: Mapping[str, int] = {}
        # Agents of others that have taken part.
        self.joined: set[str] = set()
        # Those of them that died without saying that they stop; nobody here can start them again.
        self.crashes = 0
        # Another number whenever another set of agents takes part.
        self.constellation = 0

    def look(self, own: Collection[str]) -> dict[str, int]:
        """The members now, with their pids; `own` are the names of the run's own."""
        members = dict(self._post.members())
        if members.keys() != self.present.keys():
            self.constellation += 1
        for agent in members.keys() - self.present.keys() - set(own):
            self.joined.add(agent)
            self._say("INFO", f"agent {agent} (pid {members[agent]}) has joined")
        for agent, pid in self.present.items():
            if members.get(agent) == pid:
                continue
            self._ended(pid)
            if agent in self.joined and agent not in own and agent not in members:
                self._note_departure(agent, pid)
        self.present = members
        return members

    def _note_departure(self, agent: str, pid: int) -> None:
        # A name may be taken by one that lives: its successor, which has not joined yet.
        if agent in self._post.taken() and not self._post.lives(agent):
            self.crashes += 1
            self._say("ERROR", f"agent {agent} (pid {pid}) of somebody else died without a word")
        else:
            self._say("INFO", f"agent {agent} (pid {pid}) has left")
