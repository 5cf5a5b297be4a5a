"""What import-linter cannot say: each vendor package is imported in one place, and importing a module acts on nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

SOURCES = Path(__file__).resolve().parents[2] / "src"

# The one file, or the one folder, in which each vendor package is imported.
PLACES = {
    "alembic": "infrastructure/persistence/",
    "crewai": "infrastructure/orchestrators/crewai_",
    "crewai_core": "infrastructure/orchestrators/crewai_",
    "genai_prices": "infrastructure/orchestrators/prices.py",
    "h11": "api/rest/",
    "jinja2": "api/dashboard/",
    "http_message_signatures": "infrastructure/webhooks/message_signature.py",
    "lmdb": "infrastructure/population/tiers/lmdb_cold.py",
    "lz4": "infrastructure/population/tiers/lz4_slab.py",
    "mcp": "api/mcp/",
    "markupsafe": "api/dashboard/",
    "numba": "infrastructure/population/numba_",
    "numpy": "infrastructure/population/",
    "opentelemetry": "infrastructure/telemetry/open_telemetry.py",
    "procrastinate": "infrastructure/queues/",
    "prometheus_client": "infrastructure/telemetry/prometheus_metrics.py",
    "psycopg": "infrastructure/persistence/",
    "pyarrow": "infrastructure/population/arrow_files.py",
    "pydantic_settings": "infrastructure/settings.py",
    "ray": "infrastructure/population/ray_engine.py",
    "rfc8785": "infrastructure/witness/canonical_json.py",
    "rich": "api/cli/",
    "structlog": "infrastructure/telemetry/logs.py",
    "torch": "infrastructure/population/torch_device.py",
    "typer": "api/cli/",
    "uvicorn": "api/rest/",
    "uvloop": "infrastructure/event_loop.py",
    "yarl": "infrastructure/webhooks/http_sender.py",
    "xllamacpp": "infrastructure/orchestrators/embedded_model_server.py",
}
# Describes data at both edges, requests in the doors and settings at the environment; talks to models, to anchors and to webhooks.
EDGES = {
    # Programs are answered by one folder, people by the other.
    "fastapi": ("api/rest/", "api/dashboard/"),
    "starlette": ("api/rest/", "api/dashboard/"),
    "aiohttp": (
        "infrastructure/orchestrators/provider_exchange.py",
        "infrastructure/webhooks/http_sender.py",
        "infrastructure/witness/anchor_http.py",
    ),
    "pydantic": ("api/", "infrastructure/settings.py"),
    "pydantic_core": ("api/", "infrastructure/settings.py"),
    # Signatures of the record, and the cipher that message files of a soak may be under.
    "cryptography": ("infrastructure/soak/sealing.py", "infrastructure/witness/ed25519.py"),
    # Canonical JSON for the record, and whatever is fastest between processes of one machine.
    "orjson": ("infrastructure/buses/", "infrastructure/witness/canonical_json.py"),
    # A halt is read and set in threads, and waits for nothing that models are paced by.
    "redis": (
        "infrastructure/buses/redis_",
        "infrastructure/orchestrators/redis_pacing.py",
        "infrastructure/redis_server.py",
    ),
    # The tables of a queue in the same database are made on the connection of the migration.
    "sqlalchemy": ("infrastructure/persistence/", "infrastructure/queues/procrastinate_schema.py"),
}


def vendor_imports() -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for path in SOURCES.rglob("*.py"):
        if path.is_relative_to(SOURCES / "conclave_client"):
            # A package for callers, which has a table of its own (tests/unit/conclave_client/test_standing_alone.py).
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            for name in names:
                found[name.split(".")[0]].add(path.relative_to(SOURCES).as_posix())
    own = {"domain", "application", "infrastructure", "api", "conclave_client"}
    return {name: files for name, files in found.items() if name not in own and name not in sys.stdlib_module_names}


def test_each_vendor_package_is_imported_in_one_place() -> None:
    astray = {
        name: sorted(file for file in files if not file.startswith(EDGES.get(name) or PLACES.get(name, "nowhere")))
        for name, files in vendor_imports().items()
    }
    assert {name: files for name, files in astray.items() if files} == {}


@pytest.mark.parametrize("module", ["api.cli.main", "domain.models", "application.services", "infrastructure.stubs"])
def test_importing_brings_in_nothing_heavy(module: str) -> None:
    heavy = "pydantic,cryptography,orjson,sqlalchemy,aiohttp,fastapi,prometheus_client,structlog,alembic,uvicorn,xllamacpp,crewai"
    code = f"import sys, {module}; print([name for name in '{heavy}'.split(',') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=SOURCES)
    assert done.stdout.strip() == "[]"


def test_every_module_says_in_one_sentence_what_it_is_for() -> None:
    silent = [
        path.relative_to(SOURCES).as_posix()
        for path in SOURCES.rglob("*.py")
        if path.stat().st_size and not (ast.get_docstring(ast.parse(path.read_text())) or "").strip()
    ]
    assert silent == []
