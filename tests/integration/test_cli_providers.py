"""The command `conclave providers`, the doctor and a deliberation over a file of providers, against real servers."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.command_line import Command, Ran, commands
from tests.llm_server.handle import LlmServer

KEY = "sk-7f3a9c-very-secret"
OPTIONS = ("--option", "yes", "--option", "no")


Writing = Callable[[str], None]


@pytest.fixture(scope="module")
def shared_server() -> Iterator[LlmServer]:
    with LlmServer(models=("small", "large")) as server:
        yield server


@pytest.fixture
def server(shared_server: LlmServer) -> LlmServer:
    shared_server.reset()
    return shared_server


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Writing:
    """Writes the file of providers that the settings name."""
    file = tmp_path / "providers.toml"
    monkeypatch.setenv("CONCLAVE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("CONCLAVE_PROVIDERS_FILE", str(file))
    monkeypatch.setenv("ONE_KEY", KEY)

    def written(text: str) -> None:
        file.write_text(text, encoding="utf-8")

    return written


@pytest.fixture
def conclave(capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Runs a command in this process."""
    with commands(capsys) as run:

        def careful(*arguments: str) -> Ran:
            ran = run(*arguments)
            assert KEY not in ran.stdout + ran.stderr
            return ran

        yield careful


def one(server: LlmServer, *lines: str) -> str:
    own = "\n".join(lines)
    return f'[providers.one]\nbase_url = "{server.base_url}"\napi_key_env = "ONE_KEY"\n{own}\n'


def calls(server: LlmServer) -> list[Any]:
    return [entry for entry in server.journal() if entry["counted"]]


def test_all_that_is_known_of_a_provider_is_shown(conclave: Command, write: Writing, server: LlmServer) -> None:
    write(
        one(server, 'models = ["small", "large"]', "requests_per_minute = 500")
        + '[routes.default]\nmodels = ["one/small", "one/large"]\n'
        + '[prices."one/small"]\ninput_usd_per_million = 0.15\noutput_usd_per_million = 0.6\n'
    )
    ran = conclave("providers")
    assert ran.code == 0
    assert re.search(r"works one at 127\.0\.0\.1:\d+: key set, accepted; answers by a schema", ran.words)
    assert "one/small: known, 0.15 and 0.6 US dollars for a million tokens in and out" in ran.words
    assert "one/large: known, price not known" in ran.words
    assert "requests_per_minute 500" in ran.words
    assert "route default: one/small, then one/large" in ran.words


def test_json_is_one_document(conclave: Command, write: Writing, server: LlmServer) -> None:
    write(one(server, 'models = ["small"]'))
    ran = conclave("providers", "--json")
    assert ran.code == 0
    found = ran.document
    assert found["works"] is True
    assert found["default_model"] == "one/small"
    [provider] = found["providers"]
    assert provider["models"] == [{"name": "one/small", "known": True, "price": None}]
    assert (provider["reachable"], provider["accepted"], provider["json_schema"]) == (True, True, True)
    assert provider["calls"] == 1


def test_a_check_makes_one_tiny_call_at_most(conclave: Command, write: Writing, server: LlmServer) -> None:
    server.configure(record_bodies=True)
    write(
        one(server, 'models = ["small", "large", "unlisted", "other"]') + '[routes.default]\nmodels = ["one/small"]\n'
    )
    conclave("providers")
    [call] = calls(server)
    assert call["model"] == "unlisted"
    assert call["body"]["max_tokens"] <= 16


def test_what_the_list_tells_costs_no_call(conclave: Command, write: Writing, server: LlmServer) -> None:
    write(one(server, 'models = ["small"]', "json_schema = false"))
    ran = conclave("providers", "--json")
    assert ran.code == 0
    assert ran.document["providers"][0]["json_schema"] is False
    assert calls(server) == []


def test_a_provider_that_takes_no_schema_is_found_out(conclave: Command, write: Writing, server: LlmServer) -> None:
    server.configure(fault="400_response_format")
    write(one(server, 'models = ["small"]'))
    [provider] = conclave("providers", "--json").document["providers"]
    assert (provider["works"], provider["json_schema"]) == (True, False)


def test_a_refused_key_ends_with_code_one_and_names_its_variable(
    conclave: Command, write: Writing, server: LlmServer
) -> None:
    server.configure(fault="401")
    write(one(server, 'models = ["unlisted"]'))
    ran = conclave("providers")
    assert ran.code == 1
    assert "FAILS one at" in ran.words
    assert "Set ONE_KEY to a key of this provider" in ran.words


class Shy(BaseHTTPRequestHandler):
    """Answers calls, and wants another header for the list of models."""

    def do_GET(self) -> None:
        self._answer(401, {"error": {"message": "x-api-key header is required"}})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(200, {"model": "m", "choices": [{"message": {"content": "{}"}, "finish_reason": "stop"}]})

    def _answer(self, status: int, document: Any) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - named by the standard library
        """Nothing."""


def test_a_key_that_is_refused_for_the_list_alone_is_judged_by_a_call(conclave: Command, write: Writing) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Shy) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            write(f'[providers.shy]\nbase_url = "http://127.0.0.1:{server.server_port}/v1"\nmodels = ["m"]\n')
            ran = conclave("providers", "--json")
        finally:
            server.shutdown()
            thread.join()
    assert ran.code == 0
    [provider] = ran.document["providers"]
    assert (provider["accepted"], provider["calls"], provider["problem"]) == (True, 1, None)


def test_a_model_that_the_provider_does_not_know_ends_with_code_one(
    conclave: Command, write: Writing, server: LlmServer
) -> None:
    server.configure(fault="404_model")
    write(one(server, 'models = ["gone"]'))
    ran = conclave("providers")
    assert ran.code == 1
    assert "one/gone: not known there" in ran.words
    assert "like small, large" in ran.words


def test_a_provider_that_cannot_be_reached_ends_with_code_four(
    conclave: Command, write: Writing, server: LlmServer
) -> None:
    write(
        one(server, 'models = ["small"]')
        + '[providers.away]\nbase_url = "http://127.0.0.1:1/v1"\nmodels = ["x"]\n'
        + '[routes.default]\nmodels = ["one/small", "away/x"]\n'
    )
    ran = conclave("providers")
    assert ran.code == 4
    assert "works one at" in ran.words
    assert "FAILS away at 127.0.0.1:1: cannot be reached" in ran.words
    assert "[providers.away] in CONCLAVE_PROVIDERS_FILE" in ran.words


def test_one_provider_without_a_file_is_shown_too(
    conclave: Command, server: LlmServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONCLAVE_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("CONCLAVE_LLM_BASE_URL", server.base_url)
    monkeypatch.setenv("CONCLAVE_LLM_REQUESTS_PER_MINUTE", "500")
    ran = conclave("providers", "--json")
    assert ran.code == 0
    [provider] = ran.document["providers"]
    assert (provider["name"], provider["key"]) == (None, "none")
    assert provider["limits"] == {"requests_per_minute": 500}
    assert provider["models"] == [{"name": "small", "known": True, "price": None}]


def test_the_limits_of_one_provider_without_a_file_are_kept(
    conclave: Command, server: LlmServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONCLAVE_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("CONCLAVE_LLM_BASE_URL", server.base_url)
    monkeypatch.setenv("CONCLAVE_LLM_REQUESTS_PER_MINUTE", "2")
    ran = conclave("deliberate", "Why?", *OPTIONS, "--agents", "5", "--deadline", "5", "--json")
    assert ran.document["roll_call"]["throttled"] == 3
    assert len(calls(server)) == 2


def test_without_a_provider_it_says_how_to_name_one(
    conclave: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONCLAVE_DATA_DIR", str(tmp_path))
    ran = conclave("providers")
    assert ran.code == 0
    assert "CONCLAVE_LLM_BASE_URL" in ran.stdout
    assert "CONCLAVE_PROVIDERS_FILE" in ran.stdout


def test_a_file_that_cannot_be_used_ends_every_command_with_code_two(
    conclave: Command, write: Writing, server: LlmServer
) -> None:
    write(one(server, 'models = ["small"]', "max_concurrency = 0"))
    for arguments in (("providers",), ("deliberate", "Why?", *OPTIONS), ("list",), ("serve", "--port", "0")):
        ran = conclave(*arguments)
        assert ran.code == 2
        assert "line 5: max_concurrency" in ran.stderr


def test_a_missing_key_ends_with_code_two(
    conclave: Command, write: Writing, server: LlmServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ONE_KEY")
    write(one(server, 'models = ["small"]'))
    ran = conclave("deliberate", "Why?", *OPTIONS)
    assert ran.code == 2
    assert "line 3: ONE_KEY is not set in the environment" in ran.stderr


def test_the_doctor_shows_each_provider(conclave: Command, write: Writing, server: LlmServer) -> None:
    write(one(server, 'models = ["small"]'))
    ran = conclave("doctor")
    assert ran.code == 0
    assert re.search(r"works provider one: 127\.0\.0\.1:\d+, offers small, large", ran.words)
    assert "No price is known of one/small" in ran.words
    server.configure(fault="401")
    write(one(server, 'models = ["unlisted"]'))
    assert "FAILS provider one" in conclave("doctor").words


def test_a_deliberation_asks_the_default_route_and_records_full_names_and_cost(
    conclave: Command, write: Writing, server: LlmServer
) -> None:
    write(
        one(server)
        + '[routes.default]\nmodels = ["one/large"]\n'
        + '[prices."one/large"]\ninput_usd_per_million = 1\noutput_usd_per_million = 2\n'
    )
    ran = conclave("deliberate", "Close the centre?", *OPTIONS, "--agents", "5", "--max-cost", "1", "--json")
    assert ran.code == 0, ran.stderr
    found = ran.document
    assert found["models"] == ["one/large"]
    assert found["roll_call"]["answered"] == 5
    usage = found["usage"]
    assert usage["cost_usd"] == pytest.approx((usage["input_tokens"] + 2 * usage["output_tokens"]) / 1e6)
    assert {call["model"] for call in calls(server)} == {"large"}


def test_a_limit_of_money_needs_a_price_and_nobody_is_asked_without(
    conclave: Command, write: Writing, server: LlmServer
) -> None:
    write(one(server, 'models = ["small"]'))
    ran = conclave("deliberate", "Close the centre?", *OPTIONS, "--max-cost", "1")
    assert ran.code == 2
    assert "price" in ran.stderr
    assert calls(server) == []


def test_a_budget_of_everybody_needs_a_price_too(conclave: Command, write: Writing, server: LlmServer) -> None:
    write(one(server, 'models = ["small"]') + '[budgets."*"]\nusd_per_day = 1\n')
    ran = conclave("deliberate", "Close the centre?", *OPTIONS)
    assert ran.code == 2
    assert calls(server) == []


def test_the_file_wins_over_a_single_provider_and_says_so(
    conclave: Command, write: Writing, server: LlmServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONCLAVE_LLM_BASE_URL", "http://127.0.0.1:1/v1")
    write(one(server, 'models = ["small"]'))
    ran = conclave("deliberate", "Close the centre?", *OPTIONS, "--agents", "1")
    assert ran.code == 0, ran.stderr
    assert "CONCLAVE_LLM_BASE_URL has no effect" in ran.words
