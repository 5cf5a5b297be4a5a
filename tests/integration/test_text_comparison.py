"""Texts compared by a provider's model, end to end: paced, paid, verified, counted again, and shown with whom each claim rests on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.command_line import Command, commands
from tests.llm_server.handle import LlmServer

HOSTILE = "Close \u001b[31mthe | centre* <b>now</b> [x](http://evil.test)."
FILE = """
[routes.default]
models = ["near/small"]

[providers.near]
base_url = "{address}"
requests_per_minute = {requests}

[prices."near/small"]
input_usd_per_million = 0
output_usd_per_million = 0

[prices."near/embed-1"]
input_usd_per_million = {price}
output_usd_per_million = 0
"""


class Town:
    """The command line in a process of its own data folder, over the test server."""

    def __init__(self, run: Command, server: LlmServer, providers: Path) -> None:
        self.run = run
        self.server = server
        self._providers = providers

    def write(self, *, requests: int = 600, price: float = 1000.0) -> None:
        """Write the file of providers."""
        self._providers.write_text(FILE.format(address=self.server.base_url, requests=requests, price=price))

    def ask(self, *options: str, agents: int = 4) -> Any:
        """What was decided about texts."""
        ran = self.run("deliberate", "Which?", "--answer", "text", "--agents", str(agents), *options, "--json")
        assert ran.code == 0, ran.stderr
        return ran.document

    def paths(self) -> list[str]:
        """What the provider was asked for, in order."""
        return [each["path"] for each in self.server.journal() if each["method"] == "POST"]


@pytest.fixture
def town(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], llm_server: LlmServer
) -> Iterator[Town]:
    providers = tmp_path / "providers.toml"
    monkeypatch.setenv("CONCLAVE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("CONCLAVE_PROVIDERS_FILE", str(providers))
    monkeypatch.setenv("CONCLAVE_EMBEDDING_MODEL", "near/embed-1")
    llm_server.configure(answers={"Which?": json.dumps({"answer": HOSTILE, "confidence": 1.0, "reasoning": "So."})})
    with commands(capsys) as run:
        made = Town(run, llm_server, providers)
        made.write()
        yield made


def test_the_comparison_is_one_more_call_that_is_paid_and_verified(town: Town, tmp_path: Path) -> None:
    document = town.ask()
    assert town.paths() == ["/v1/chat/completions"] * 4 + ["/v1/embeddings"]
    assert document["outcome"]["synthesis"]["method"] == "near/embed-1"
    assert document["usage"]["calls"] == 5
    tokens = -(-4 * len(HOSTILE) // 4)
    assert document["usage"]["cost_usd"] == pytest.approx(tokens * 1000 / 10**6)
    used = {each["key"]: each for each in town.run("usage", "--by", "model", "--json").document["items"]}
    assert (used["near/embed-1"]["calls"], used["near/embed-1"]["input_tokens"]) == (1, tokens)
    export = tmp_path / "log.json"
    assert town.run("witness", "export", str(export)).code == 0
    key = town.run("witness", "key").stdout.strip()
    assert town.run("witness", "verify", str(export), "--key", key).code == 0
    assert town.run("witness", "fsck").code == 0


def test_a_recount_and_an_erased_one_ask_no_model_and_keep_the_clusters(town: Town) -> None:
    document = town.ask("--seed", "7")
    asked = len(town.paths())
    count = ("recount", document["id"], "--rule", "synthesis")
    found = [town.run(*count, "--json")]
    assert town.run("witness", "erase", document["id"], "--reason", "asked for").code == 0
    found.append(town.run(*count, "--tie-break", "lottery", "--json"))
    for counted in found:
        assert counted.code == 0, counted.stderr
        synthesis = counted.document["outcome"]["synthesis"]
        assert synthesis["method"] == "near/embed-1"
        assert synthesis["clusters"] == document["outcome"]["synthesis"]["clusters"]
    assert len(town.paths()) == asked


def test_a_comparison_that_its_limit_of_money_forbids_is_not_asked_for(town: Town) -> None:
    document = town.ask("--max-cost", "0.000001")
    assert (document["outcome"]["synthesis"]["method"], document["usage"]["calls"]) == ("tf-idf", 4)
    assert "/v1/embeddings" not in town.paths()


def test_it_stands_in_the_line_of_its_provider(town: Town) -> None:
    # The agents take all that the provider gives in a minute, and a comparison waits for half of one.
    town.write(requests=4)
    document = town.ask()
    assert document["outcome"]["synthesis"]["method"] == "tf-idf"
    assert "/v1/embeddings" not in town.paths()


def test_claims_stand_in_the_minutes_and_on_the_terminal_with_whom_they_rest_on_and_do_no_harm(town: Town) -> None:
    document = town.ask()
    agents = document["outcome"]["synthesis"]["clusters"][0]["agents"]
    shown = town.run("show", document["id"])
    assert "\u001b[31m" not in shown.stdout
    assert "cluster 1: 4 agents, the decision" in shown.words
    assert f"[{', '.join(agents)}]" in shown.words
    minutes = town.run("minutes", document["id"]).stdout
    claims = minutes.partition("### Claims")[2].partition("### Minority")[0]
    assert f"- **cluster 1**: {', '.join(agents)}" in claims
    assert r"the \| centre\* &lt;b&gt;now&lt;/b&gt; \[x\](http\://evil.test)." in claims
    assert f"({', '.join(agents)})" in claims
    assert "\u001b" not in minutes
    assert town.run("witness", "erase", document["id"], "--reason", "asked for").code == 0
    assert "(erased)" in town.run("show", document["id"]).words
    assert "    - *erased* (" in town.run("minutes", document["id"]).stdout


def test_what_is_recorded_can_be_read_and_counted_again_where_the_model_is_not_installed(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = town.ask()
    monkeypatch.setenv("CONCLAVE_EMBEDDING_MODEL", "packaged")
    monkeypatch.setattr("infrastructure.embedders.packaged_embedder.find_spec", lambda _: None)
    refused = town.run("deliberate", "Which?", "--answer", "text", "--agents", "3")
    assert (refused.code, "archon-conclave[embeddings]" in refused.stderr) == (2, True)
    assert town.run("show", document["id"]).code == 0
    assert town.run("minutes", document["id"]).code == 0
    assert "FAILS texts: 'packaged' needs the extra" in town.run("doctor").words
