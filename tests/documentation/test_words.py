"""What the pages name is there: settings with their defaults, metrics with their kinds, calls of REST, commands and options."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
from docs.reference_pages import command_line_page, rest_page
from prometheus_client.parser import text_string_to_metric_families

from api.bootstrap import Purpose, open_conclave
from infrastructure.orchestrators.allowance import LimiterState
from infrastructure.settings import PREFIX, Settings, load_settings
from infrastructure.telemetry.prometheus_metrics import PrometheusMetrics
from tests.documentation.blocks import REPOSITORY, Page, all_pages
from tests.documentation.command_tree import problems_of
from tests.documentation.kinds import openapi

PAGES = all_pages()
REFERENCE = REPOSITORY / "docs" / "reference"
# What a release did once need not be so today.
PRESENT = [page for page in PAGES if not page.name.startswith("docs/decisions/")]
OF_PROCESSES_AND_TESTS = {"RUN_ID", "RUN_FOLDER", "CRASH_AT", "CAMPAIGN", "CAMPAIGN_MINUTES"}
NO_METRICS = {"conclave_client", "conclave_owner", "conclave_session", "conclave_mcp"}
_CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_SETTING = re.compile(r"\bCONCLAVE_[A-Z][A-Z_]*[A-Z]\b")
_METRIC = re.compile(r"\bconclave_[a-z_]*[a-z]\b(?![.:/(]|\.\w)")
# What lies there only once a program has run, or a reader has written it.
MADE_BY_RUNNING = {"process.lock", "launcher.lock", "deploy/.env", "uv.lock", "alerts.yml"}
NAMED_ELSEWHERE = {"HttpOnly", "SameSite", "SubtleCrypto", "TaskGroup", "LangGraph"}
_FILE = re.compile(r"[\w./-]+\.(?:py|sql|ya?ml|lock)|(?:src|tests|docs|deploy|benchmarks|scripts|migrations)/[\w./-]*")
_CLASS = re.compile(r"(?:[A-Z][a-z]+){2,}")
_CALL = re.compile(r"^(GET|POST|PUT|PATCH|DELETE) (/[^\s`?\"]*)")


class Metric(NamedTuple):
    kind: str
    labels: frozenset[str]


@pytest.fixture(scope="module")
def metrics(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Metric]:
    """Every metric of a server, by the name that is scraped."""
    environment = {"CONCLAVE_DATA_DIR": str(tmp_path_factory.mktemp("data")), "CONCLAVE_ORCHESTRATOR": "simulated"}

    async def scraped() -> str:
        async with open_conclave(load_settings(environment, None), purpose=Purpose.SERVE) as conclave:
            return conclave.render_metrics(None)[0].decode()

    # What stands there only once a model was asked, and topics were weighed.
    asking = PrometheusMetrics(version="1")
    asking.watch_limiters(lambda: {"a-model": LimiterState(pace=1.0, in_flight=0, waiting=0, shared=True)})
    asking.watch_breakers(lambda: {"a-model": True})
    asking.watch_webhooks(lambda: 0)
    asking.topics_weighed(True)
    found: dict[str, Metric] = {}
    for family in (
        *text_string_to_metric_families(asyncio.run(scraped())),
        *text_string_to_metric_families(asking.render()[0].decode()),
    ):
        labels = frozenset(label for sample in family.samples for label in sample.labels if label != "le")
        # OpenMetrics calls a counter by its name without the ending that is scraped.
        name = f"{family.name}_total" if family.type == "counter" else family.name
        found.setdefault(name, Metric(family.type, labels))
    return found


def rows(page: str) -> Iterator[list[str]]:
    """The cells of each row of a page's tables, without the backticks around them."""
    for line in (REFERENCE / page).read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if cells and cells[0].startswith("`"):
            yield cells


def test_every_setting_stands_once_in_the_reference_with_its_default_and_what_it_takes() -> None:
    shown = {}
    for name, default, takes, meaning in rows("settings.md"):
        assert name not in shown, name
        assert meaning
        shown[name.strip("`")] = (default.strip("`"), takes)
    wanted = {}
    for field, about in Settings.model_fields.items():
        if field.upper() not in OF_PROCESSES_AND_TESTS:
            default = {
                "database_url": "`conclave.db` in the data folder",
                "halt_file": "`HALT` in the data folder",
            }.get(field, _default(about.default))
            wanted[PREFIX + field.upper()] = (default.strip("`"), about.description)
    assert shown == wanted


def _default(value: object) -> str:
    if value is None or value == ():
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_settings_that_a_page_names_are_there(page: Page) -> None:
    known = {PREFIX + field.upper() for field in Settings.model_fields}
    assert set(_SETTING.findall(page.text)) <= known


def test_every_metric_stands_in_the_reference_with_its_kind_and_labels(metrics: Mapping[str, Metric]) -> None:
    shown = {}
    for names, kinds, _ in rows("metrics.md"):
        cells = re.findall(r"`([a-z_]+)(?:\{(\w+)\})?`", names)
        each = kinds.split(", ") if kinds else [""]
        for number, (name, label) in enumerate(cells):
            kind = each[number] if len(each) == len(cells) else each[0]
            shown[name] = Metric(kind, frozenset({label} if label else ()))
    ours = {name: metric for name, metric in metrics.items() if name.startswith("conclave_")}
    wanted = {name: metric for name, metric in ours.items() if not name.startswith("conclave_build")}
    assert {name: shown.get(name, Metric("missing", frozenset())).kind for name in wanted} == {
        name: metric.kind for name, metric in wanted.items()
    }
    # A metric that has counted nothing yet shows no label.
    assert {name: shown[name].labels for name, metric in wanted.items() if metric.labels} == {
        name: metric.labels for name, metric in wanted.items() if metric.labels
    }
    assert {name for name in shown if name.startswith("conclave_")} - set(ours) - {"conclave_build_info"} == set()


@pytest.mark.parametrize("page", PRESENT, ids=lambda page: page.name)
def test_metrics_that_a_page_names_are_there(page: Page, metrics: Mapping[str, Metric]) -> None:
    endings = ("", "_total", "_bucket", "_sum", "_count", "_info")
    known = {name + ending for name in metrics for ending in endings} | NO_METRICS
    code = [found for text in _CODE.findall(page.text) for found in _METRIC.findall(text)]
    code += [found for block in page.blocks if block.language == "promql" for found in _METRIC.findall(block.text)]
    assert [name for name in code if name not in known] == []


@pytest.mark.parametrize("page", PRESENT, ids=lambda page: page.name)
def test_calls_that_a_page_names_are_there(page: Page) -> None:
    known = {(method.upper(), _shape(path)) for path, calls in openapi()["paths"].items() for method in calls}
    named = [found for text in _CODE.findall(page.text) if (found := _CALL.match(text)) and found[2].startswith("/v1")]
    assert [
        found[0] for found in named if not found[2].endswith("...") and (found[1], _shape(found[2])) not in known
    ] == []


def _shape(path: str) -> str:
    parts = path.rstrip("/").split("/")
    return "/".join("{}" if part.startswith("{") or part.isupper() else part for part in parts)


@pytest.mark.parametrize("page", PRESENT, ids=lambda page: page.name)
def test_commands_that_a_page_names_are_there(page: Page) -> None:
    problems = {
        text: list(problems_of(text)) for text in _CODE.findall(page.prose) if text.startswith(("conclave ", "make "))
    }
    assert {text: found for text, found in problems.items() if found} == {}


def test_the_pages_that_the_program_writes_are_what_it_says() -> None:
    for name, wanted in (("command-line.md", command_line_page()), ("rest.md", rest_page())):
        path: Path = REFERENCE / name
        assert path.read_text(encoding="utf-8") == wanted, (
            f"{path.name} is of another version: `make docs` writes it anew"
        )


@pytest.mark.parametrize("page", PRESENT, ids=lambda page: page.name)
def test_files_and_classes_that_a_page_names_are_there(page: Page, names_of_the_repository: tuple[str, str]) -> None:
    paths, sources = names_of_the_repository
    made = {block.notes["file"] for each in PAGES for block in each.blocks if "file" in block.notes} | MADE_BY_RUNNING
    missing = []
    for text in _CODE.findall(page.prose):
        if (
            _FILE.fullmatch(text)
            and text not in made
            and not re.search(rf"/{re.escape(text.rstrip('/'))}$", paths, re.MULTILINE)
        ):
            missing.append(text)
        if _CLASS.fullmatch(text) and text not in NAMED_ELSEWHERE and not re.search(rf"\bclass {text}\b", sources):
            missing.append(text)
    assert missing == []


@pytest.fixture(scope="module")
def names_of_the_repository() -> tuple[str, str]:
    """Every path, each after a slash, and all sources."""
    paths = [
        path
        for folder in ("src", "tests", "docs", "deploy", "benchmarks", "scripts", "migrations")
        for path in (REPOSITORY / folder).rglob("*")
        if "__pycache__" not in path.parts
    ]
    names = [f"/{path.relative_to(REPOSITORY).as_posix()}" for path in [*paths, *REPOSITORY.glob("*.*")]]
    sources = [path.read_text(encoding="utf-8") for path in paths if path.suffix == ".py"]
    return "\n".join([*names, ""]), "\n".join(sources)
