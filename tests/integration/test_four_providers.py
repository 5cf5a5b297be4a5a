"""One deliberation over four providers that speak, throttle, break and bill differently, through the real server."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from domain.models.money import Price, usd
from tests.conclave_fixture import Client
from tests.llm_server.handle import LlmServer
from tests.nursery import Nursery
from tests.ordeals.house import House, Kind

_PRICES: Mapping[str, tuple[float, float]] = {
    "openai/gpt-5-mini": (0.25, 2.0),
    "openai/broken": (5.0, 15.0),
    "claude/sonnet": (3.0, 15.0),
    "gemini/flash": (0.1, 0.4),
    "gemini/retired": (1.25, 10.0),
    "local/llama": (0.0, 0.0),
}
_PROVIDERS: Mapping[str, str] = {"openai": "openai", "claude": "anthropic", "gemini": "gemini", "local": "local"}
_LIMITS: Mapping[str, str] = {
    "openai": "requests_per_minute = 90",
    "claude": "tokens_per_minute = 2000000",
    "gemini": "max_concurrency = 9",
    "local": "max_concurrency = 4\njson_schema = false",
}
_ROUTES: Mapping[str, tuple[str, ...]] = {
    "default": ("gemini/flash",),
    "careful": ("openai/broken", "claude/sonnet"),
    "frugal": ("gemini/retired", "local/llama"),
}
# Whom each of 72 members is asked through, in turn: a model, or a route whose first model does not answer.
_ASKED = ("openai/gpt-5-mini", "claude/sonnet", "gemini/flash", "local/llama") * 15 + ("careful", "frugal") * 6
_MUTE = 1
_CUT = 4


@dataclass(frozen=True)
class Panel:
    """What came of it, and the far ends that know better."""

    document: Any
    outputs: list[Any]
    entries: list[Any]
    minutes: str
    usage: Mapping[str, Mapping[str, Any]]
    servers: Mapping[str, LlmServer]

    def billed(self) -> dict[str, dict[str, int]]:
        """What each model took by the count of its own server."""
        return {
            f"{name}/{model}": account
            for name, server in self.servers.items()
            for model, account in server.bill()["answered"].items()
        }


def _persona(number: int) -> str:
    return f"You are juror number {number:02d} of the panel."


def _configure(servers: Mapping[str, LlmServer]) -> None:
    agents = {f"juror-{number}": _persona(number) for number in range(len(_ASKED))}
    faults: Mapping[str, list[dict[str, Any]]] = {
        "openai": [
            {"model": "broken", "fault": "500"},
            {"agent": f"juror-{_CUT}", "fault": "truncated", "times": 1},
            {"fraction": 0.2, "times": 1, "fault": "429", "retry_after": 0.3},
        ],
        "claude": [
            {"agent": f"juror-{_MUTE}", "fault": "not_ballot"},
            {"fraction": 0.2, "times": 1, "fault": "503"},
        ],
        "gemini": [{"model": "retired", "fault": "404_model"}, {"fraction": 0.2, "times": 1, "fault": "429"}],
        "local": [{"fraction": 0.2, "times": 1, "fault": "500"}],
    }
    for number, (name, server) in enumerate(servers.items()):
        server.configure(agents=agents, faults=faults[name], latency_seconds=0.02, seed=number)
    for name in ("openai", "gemini"):
        servers[name].configure(usage={"thinking_tokens": 64})


def _providers_file(servers: Mapping[str, LlmServer]) -> str:
    lines = []
    for name, server in servers.items():
        lines += [f"[providers.{name}]", f'base_url = "{server.base_url}"', f'api_key_env = "{name.upper()}_KEY"']
        lines += [_LIMITS[name], ""]
    for route, models in _ROUTES.items():
        lines += [f"[routes.{route}]", f"models = {json.dumps(models)}", ""]
    for model, (read, written) in _PRICES.items():
        lines += [f'[prices."{model}"]', f"input_usd_per_million = {read}", f"output_usd_per_million = {written}", ""]
    return "\n".join(lines)


@pytest.fixture(scope="module")
def panel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Panel]:
    """One deliberation of 72 that has ended."""
    folder: Path = tmp_path_factory.mktemp("panel")
    (folder / "data").mkdir()
    with ExitStack() as stack:
        servers = {
            name: stack.enter_context(LlmServer(dialect=dialect, models=_models(name)))
            for name, dialect in _PROVIDERS.items()
        }
        _configure(servers)
        providers = folder / "providers.toml"
        providers.write_text(_providers_file(servers))
        keys = {f"{name.upper()}_KEY": f"the-key-of-{name}" for name in servers}
        nursery = stack.enter_context(Nursery())
        house = House(Kind.SQLITE, folder, nursery, {"CONCLAVE_PROVIDERS_FILE": str(providers), **keys})
        process = house.start("server")
        stack.callback(process.kill)
        process.line()
        yield _ended(Client(house.port), servers)


def _models(provider: str) -> list[str]:
    return [model.partition("/")[2] for model in _PRICES if model.startswith(f"{provider}/")]


def _ended(client: Client, servers: Mapping[str, LlmServer]) -> Panel:
    body = {
        "question": "Should the city centre be closed to private cars?",
        "answer": {"kind": "choice", "options": ["yes", "no", "weekends only"]},
        "agents": {
            "members": [
                {"id": f"juror-{number}", "persona": _persona(number), "model": asked}
                for number, asked in enumerate(_ASKED)
            ]
        },
        "limits": {"max_attempts": 5, "max_cost_usd": 4.0, "max_total_tokens": 4_000_000},
        "seed": 7,
    }
    answer = client.post(body, query="?wait=60")
    assert answer.status in {200, 202}, answer
    found = answer.document
    assert found["finished_at"] is not None, found
    own = f"/v1/deliberations/{found['id']}"
    bundle = client.ask("GET", f"{own}/bundle").document
    return Panel(
        found,
        client.ask("GET", f"{own}/outputs").document["items"],
        [json.loads(item["entry"]) for item in bundle["entries"]],
        client.ask("GET", f"{own}/minutes").body.decode(),
        {
            by: {item["key"]: item for item in client.ask("GET", f"/v1/usage?by={by}").document["items"]}
            for by in ("model", "provider", "deliberation")
        },
        servers,
    )


def _expected(asked: str) -> str:
    return _ROUTES[asked][-1] if asked in _ROUTES else asked


def _cost(model: str, account: Mapping[str, int]) -> int:
    read, written = _PRICES[model]
    price = Price.per_million(input_usd=read, output_usd=written)
    return price.of(account["prompt_tokens"], account["completion_tokens"])


def test_the_roll_call_is_full_and_only_the_ballot_that_was_none_is_missing(panel: Panel) -> None:
    assert panel.document["status"] == "completed", panel.document
    counted = {state: count for state, count in panel.document["roll_call"].items() if count}
    assert counted == {"asked": 72, "answered": 71, "invalid": 1}, panel.document["failures"]


def test_the_record_names_the_model_behind_each_ballot(panel: Panel) -> None:
    expected = {f"juror-{number}": _expected(asked) for number, asked in enumerate(_ASKED)}
    assert {output["agent_id"]: output["model"] for output in panel.outputs} == expected
    ends = [entry for entry in panel.entries if entry["type"] == "agent.ended"]
    assert {entry["agent_id"]: entry["model"] for entry in ends} == expected
    for name, server in panel.servers.items():
        answered = {entry["agent"] for entry in server.journal() if entry["prompt_tokens"] is not None}
        assert answered == {agent for agent, model in expected.items() if model.startswith(f"{name}/")}


def test_each_call_is_recorded_with_the_model_that_it_was_made_to(panel: Panel) -> None:
    made = Counter(
        (entry["agent"], f"{name}/{entry['model']}")
        for name, server in panel.servers.items()
        for entry in server.journal()
        if entry["counted"]
    )
    intended = [entry for entry in panel.entries if entry["type"] == "call.intended"]
    assert Counter((entry["agent_id"], entry["model"]) for entry in intended) == made
    assert panel.document["usage"]["calls"] == made.total()


def test_the_cost_is_the_sum_of_what_the_servers_counted(panel: Panel) -> None:
    billed = panel.billed()
    total = sum(_cost(model, account) for model, account in billed.items())
    usage = panel.document["usage"]
    assert usage["cost_usd"] == pytest.approx(usd(total), abs=1e-11)
    assert usage["input_tokens"] == sum(account["prompt_tokens"] for account in billed.values())
    assert usage["output_tokens"] == sum(account["completion_tokens"] for account in billed.values())
    [item] = panel.usage["deliberation"].values()
    assert item["cost_usd"] == usd(total)


def test_usage_by_model_and_by_provider_is_what_each_server_counted(panel: Panel) -> None:
    by_provider: Counter[str] = Counter()
    for model, account in panel.billed().items():
        item = panel.usage["model"][model]
        told = item["input_tokens"], item["output_tokens"], item["cost_usd"]
        cost = _cost(model, account)
        assert told == (account["prompt_tokens"], account["completion_tokens"], usd(cost)), model
        by_provider[model.partition("/")[0]] += cost
    assert {name: item["cost_usd"] for name, item in panel.usage["provider"].items()} == {
        name: usd(by_provider[name]) for name in panel.servers
    }


def test_a_reply_that_was_cut_is_uncertain_and_no_cost(panel: Panel) -> None:
    [cut] = [output for output in panel.outputs if output["usage"]["uncertain_usd"] > 0]
    assert cut["agent_id"] == f"juror-{_CUT}"
    assert panel.document["usage"]["uncertain_usd"] == cut["usage"]["uncertain_usd"]


def test_who_was_asked_elsewhere_is_told(panel: Panel) -> None:
    told = {each["agent_id"]: (each["asked"], each["answered"]) for each in panel.document["fallbacks"]}
    expected = {
        f"juror-{number}": (asked, _ROUTES[asked][-1]) for number, asked in enumerate(_ASKED) if asked in _ROUTES
    }
    assert told == expected
    assert {output["agent_id"] for output in panel.outputs if output["fell_back"]} == set(expected)
    for agent, (asked, answered) in expected.items():
        [line] = [
            line for line in panel.minutes.splitlines() if f"{agent} " in line and asked in line and answered in line
        ]
        assert line


def test_a_bad_ballot_is_not_asked_for_elsewhere(panel: Panel) -> None:
    [mute] = [output for output in panel.outputs if output["state"] == "invalid"]
    assert (mute["agent_id"], mute["model"], mute["fell_back"]) == (f"juror-{_MUTE}", "claude/sonnet", False)


def test_no_server_sees_more_than_its_limits_allow(panel: Panel) -> None:
    peaks = {name: server.stats()["peak_in_flight"] for name, server in panel.servers.items()}
    assert peaks["local"] <= 4
    assert peaks["gemini"] <= 9
    assert panel.servers["openai"].most_in_window() <= 90


def test_no_key_goes_to_another_provider(panel: Panel) -> None:
    fingerprints = [{entry["authorization_sha256"] for entry in server.journal()} for server in panel.servers.values()]
    assert all(len(each) == 1 for each in fingerprints)
    assert len(set.union(*fingerprints)) == len(fingerprints)
