"""Every protocol over REST and the command line, against real model calls: agents fail in every round, and the server is killed in each."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from api.bootstrap import verification_tools
from application.services.verification import verify_bundle
from domain.witness.checkpoint import VerifierKey
from tests.command_line import Command, commands
from tests.conclave_fixture import Client
from tests.llm_server.handle import LlmServer
from tests.nursery import Nursery, RunningProcess
from tests.patience import eventually

AGENTS = 8
SLOW = "viewpoint number 3,"
OPTIONS = ("yes", "no", "weekends only")
PROTOCOLS: Mapping[str, Mapping[str, Any]] = {
    "poll": {"kind": "poll", "wave_size": 3},
    "delphi": {"kind": "delphi", "max_rounds": 2},
    "peer_review": {"kind": "peer_review", "reviewers_per_answer": 3},
    "debate": {"kind": "debate", "rounds": 2, "neighbours": 3},
    "common_ground": {"kind": "common_ground"},
}
# By the hash of a prompt, which is the same whenever it is sent: whoever fails does so again in the next run.
FAILS = {"fault": "500", "fraction": 0.4, "seed": 5}
# The slowest, who never fails; without a `nth` it holds whatever it is told to answer.
HELD = {"fault": "hold", "contains": SLOW}

Document = dict[str, Any]


def _body(name: str) -> Document:
    members = [{"id": f"archon-{n}", "persona": f"viewpoint number {n}, plain and short"} for n in range(AGENTS)]
    return {
        "question": f"Should the city centre be closed to private cars ({name})?",
        "answer": {"kind": "choice", "options": list(OPTIONS)},
        "protocol": PROTOCOLS[name],
        "agents": {"members": members},
        "quorum": {"min_answered_fraction": 0.2},
        "limits": {"agent_timeout_s": 120, "max_attempts": 1},
        "seed": 7,
    }


class Server:
    """One that can be killed and started again on the same data."""

    def __init__(self, nursery: Nursery, folder: Path, llm: LlmServer) -> None:
        folder.mkdir()
        self._nursery, self._folder = nursery, folder
        self._settings = {
            "CONCLAVE_DATA_DIR": str(folder / "data"),
            "CONCLAVE_ORCHESTRATOR": "openai",
            "CONCLAVE_LLM_BASE_URL": llm.base_url,
            "CONCLAVE_LLM_MODEL": "test-model",
        }
        self._process: RunningProcess | None = None

    def start(self) -> Client:
        """Serve on a free port."""
        self._process = self._nursery.start(
            *("serve", "--port", "0", "--json"),
            settings=self._settings,
            folder=self._folder,
            log=self._folder / "log",
        )
        said = ""
        while not said.rstrip().endswith("}"):
            said += self._process.line()
        return Client(int(json.loads(said)["urls"][0].rpartition(":")[2]))

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    """Where servers are forked."""
    with Nursery() as found:
        yield found


def _ended(client: Client, own: str) -> Document:
    """The deliberation once it has ended, else nothing."""
    document: Document = client.ask("GET", f"/v1/deliberations/{own}").document
    return {} if document["status"] in {"queued", "running"} else document


def _outputs(client: Client, own: str) -> list[Document]:
    return list(client.ask("GET", f"/v1/deliberations/{own}/outputs").document["items"])


def _said(outputs: list[Document]) -> list[tuple[Any, ...]]:
    told = ("round", "agent_id", "state", "answer", "confidence", "reasoning")
    return sorted((tuple(map(repr, (each[name] for name in told))) for each in outputs), key=repr)


def _proven(client: Client, own: str) -> None:
    bundle = client.ask("GET", f"/v1/deliberations/{own}/bundle").body
    key = VerifierKey.parse(json.loads(bundle)["public_key"])
    (verified,) = verify_bundle(bundle, key=key, tools=verification_tools()).deliberations
    assert (verified.status, verified.not_recomputed) == ("completed", None)


def _is_held_in_mid_round(
    client: Client, ids: Mapping[str, str], llm: LlmServer, asked: Mapping[str, list[int]]
) -> bool:
    """Whether every deliberation that has not ended waits for its slowest agent, and all others of its round are on record."""
    unfinished = []
    for name, own in ids.items():
        if not _ended(client, own):
            by_round = Counter(each["round"] for each in _outputs(client, own))
            number = max(by_round, default=-1)
            wave = PROTOCOLS[name].get("wave_size")
            wanted = asked[name][number] if number >= 0 else 0
            whole = by_round[number] % wave == wave - 1 if wave else by_round[number] == wanted - 1
            if not (number >= 0 and whole):
                return False
            unfinished.append(own)
    stats = llm.stats()
    return bool(stats["held"] == stats["in_flight"] == len(unfinished))


def test_killed_in_mid_round_each_ends_as_it_would_have_and_pays_for_nothing_twice(
    llm_server: LlmServer, nursery: Nursery, tmp_path: Path, sized: Callable[[int, int], int]
) -> None:
    """In every third round, in a campaign in each."""
    llm_server.configure(faults=[FAILS | {"contains": [f"viewpoint number {n}," for n in range(AGENTS) if n != 3]}])
    undisturbed = Server(nursery, tmp_path / "undisturbed", llm_server)
    client = undisturbed.start()
    expected, asked = {}, {}
    accepted = {name: client.post(_body(name)).document["id"] for name in PROTOCOLS}
    for name, own in accepted.items():
        document = eventually(lambda: _ended(client, own))  # noqa: B023
        assert document["status"] == "completed", document
        asked[name] = [each["roll_call"]["asked"] for each in document["rounds"]]
        expected[name] = document, _said(_outputs(client, document["id"]))
        _proven(client, document["id"])
    undisturbed.kill()
    calls = llm_server.stats()["requests"]
    for name, (document, _) in expected.items():
        if name != "poll":
            failed_in = {each["round"] for each in document["failures"]}
            assert failed_in == set(range(len(document["rounds"]))), f"{name}: nobody failed in some round"

    llm_server.reset()
    llm_server.configure(
        faults=[HELD, FAILS | {"contains": [f"viewpoint number {n}," for n in range(AGENTS) if n != 3]}]
    )
    server = Server(nursery, tmp_path / "killed", llm_server)
    client = server.start()
    ids = {name: client.post(_body(name)).document["id"] for name in PROTOCOLS}
    held_at_kills = kills = 0
    for step in count():
        eventually(lambda: _is_held_in_mid_round(client, ids, llm_server, asked))  # noqa: B023
        held = llm_server.stats()["held"]
        if not held:
            break
        if step % sized(3, 1) == 0:
            server.kill()
            held_at_kills, kills = held_at_kills + held, kills + 1
            llm_server.wait_until(in_flight_at_most=0)
            client = server.start()
            llm_server.wait_until(held_at_least=held, timeout_seconds=60)
        llm_server.release(count=held)
    for name, own in ids.items():
        document = client.ask("GET", f"/v1/deliberations/{own}").document
        before, said = expected[name]
        assert _said(_outputs(client, own)) == said, name
        assert document["outcome"] == before["outcome"], name
        assert document["rounds"] == before["rounds"], name
        _proven(client, own)
    server.kill()
    assert kills >= sized(3, 7)
    # Only the calls that were in flight at a kill were made once more.
    assert llm_server.stats()["requests"] == calls + held_at_kills


@pytest.fixture
def conclave(
    llm_server: LlmServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Command]:
    """Runs a command in this process, whose agents are at the far end."""
    monkeypatch.setenv("CONCLAVE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("CONCLAVE_ORCHESTRATOR", "openai")
    monkeypatch.setenv("CONCLAVE_LLM_BASE_URL", llm_server.base_url)
    with commands(capsys) as run:
        yield run


ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    "poll": ("--wave-size", "3"),
    "delphi": ("--max-rounds", "2"),
    "peer_review": ("--reviewers", "2"),
    "debate": ("--rounds", "1", "--neighbours", "2"),
    "common_ground": (),
}
CHOSEN = ("--option", "yes", "--option", "no", "--agents", "6", "--seed", "7", "--rule", "plurality")


@pytest.mark.parametrize("name", ARGUMENTS)
def test_the_command_line_holds_it_shows_its_rounds_and_writes_its_minutes(
    conclave: Command, llm_server: LlmServer, name: str
) -> None:
    llm_server.configure(faults=[{"fault": "500", "fraction": 0.2}])
    held = conclave("deliberate", "Why?", *CHOSEN, "--quorum", "0.2", "--protocol", name, *ARGUMENTS[name], "--json")
    assert (held.code, held.document["status"]) == (0, "completed"), held.stderr
    shown = conclave("show", held.document["id"])
    rounds = held.document["rounds"]
    for each in rounds[1:]:
        purpose = each["purpose"].replace("_", " ")
        assert f"Round {each['round']} ({purpose}): " in shown.words
    minutes = conclave("minutes", held.document["id"]).stdout
    assert [f"## Round {each['round']}" in minutes for each in rounds] == [True] * len(rounds)
    label = {"peer_review": "answer 2", "common_ground": "statement "}.get(name, "yes")
    assert f" {label}" in minutes.split("## Round 0")[1]


def test_a_poll_that_stops_early_says_what_it_saved(conclave: Command, llm_server: LlmServer) -> None:
    llm_server.configure(answer_weights={"yes": 1.0})
    held = conclave("deliberate", "Why?", *CHOSEN, "--protocol", "poll", "--wave-size", "2", "--json")
    assert held.document["roll_call"]["asked"] == 4
    assert (held.document["saved"]["agents"], held.document["saved"]["calls"]) == (2, 2)
    assert held.document["reason"].startswith("4 of 6 were asked")
    assert llm_server.stats()["requests"] == 4
    assert "Stopped early: 2 agents were not asked" in conclave("show", held.document["id"]).words


def test_the_same_seed_twice_over_real_calls_gives_the_same_records(conclave: Command, llm_server: LlmServer) -> None:
    found = []
    for _ in range(2):
        held = conclave("deliberate", "Why?", *CHOSEN, "--protocol", "debate", "--json").document
        found.append([held["rounds"], held["outcome"]])
    assert found[0] == found[1]
    hashes = Counter(entry["prompt_sha256"] for entry in llm_server.journal())
    assert set(hashes.values()) == {2}


def test_settings_that_a_protocol_has_not_are_named_by_their_option(conclave: Command) -> None:
    ran = conclave("deliberate", "Why?", "--protocol", "delphi", "--neighbours", "3")
    assert ran.code == 2
    assert "--neighbours: a protocol of kind delphi takes no neighbours" in " ".join(ran.stderr.split())


def test_a_quote_counts_the_calls_of_all_rounds(conclave: Command) -> None:
    quoted = conclave("quote", "Why?", "--agents", "6", "--protocol", "debate", "--rounds", "1", "--json").document
    assert quoted["calls"] == {"expected": 18, "at_most": 36}
