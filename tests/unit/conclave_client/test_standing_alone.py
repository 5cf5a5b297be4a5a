"""The client is a package of its own: it works, and is checked, without the service, and with nothing but httpx2."""

from __future__ import annotations

import ast
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import conclave_client

PACKAGE = Path(conclave_client.__file__).parent
# What httpx2 needs; the last two are imported for a first delivery of a webhook alone.
NEEDED = ("httpx2", "httpcore2", "h11", "anyio", "idna", "truststore", "typing_extensions")
SERVICE = ("domain", "application", "infrastructure", "api")
PATIENCE_S = 120.0

USE = """
import sys
import conclave_client
from conclave_client import AsyncConclave, Conclave, ConnectionLostError, webhooks
assert not {"httpx2", "cryptography", "http_message_signatures"} & set(sys.modules)
with Conclave("http://127.0.0.1:1", patience_s=0.0) as conclave:
    try:
        conclave.ask("Why?", options=["a", "b"])
    except ConnectionLostError as error:
        print(error.sent)
"""

TYPED = """
from collections.abc import AsyncIterator, Iterator
from conclave_client import AsyncConclave, Conclave, Deliberation, Event, Output

def ask(conclave: Conclave) -> str | float | None:
    asked: Deliberation = conclave.ask("Why?", options=["a", "b"], agents=9, rule={"kind": "threshold", "fraction": 0.6})
    events: Iterator[Event] = conclave.events(asked.id, after=3)
    outputs: tuple[Output, ...] = conclave.outputs(asked.id, round_number=0)
    return asked.outcome.decision if asked.outcome else len(list(events)) + len(outputs)

async def ask_too(conclave: AsyncConclave) -> bool:
    events: AsyncIterator[Event] = conclave.events("d-1")
    async for event in events:
        print(event.type)
    return (await conclave.halt.get()).halted
"""

MISTYPED = """
from conclave_client import AsyncConclave, Conclave

def ask(conclave: Conclave, other: AsyncConclave) -> None:
    conclave.ask("Why?", option=["a"])
    conclave.get(7)
    conclave.ask("Why?").outcome.decision
    other.ask("Why?").outcome
"""


@pytest.fixture
def alone(tmp_path: Path) -> Path:
    """A folder with the client and what httpx2 needs, and nothing else."""
    folder = tmp_path / "alone"
    folder.mkdir()
    (folder / "conclave_client").symlink_to(PACKAGE)
    for name in NEEDED:
        found = importlib.util.find_spec(name)
        assert found is not None
        assert found.origin is not None
        origin = Path(found.origin)
        place = origin.parent if origin.name == "__init__.py" else origin
        (folder / place.name).symlink_to(place)
        # Some look up which version they are.
        for metadata in place.parent.glob(f"{name}-*.dist-info"):
            (folder / metadata.name).symlink_to(metadata)
    return folder


def imports() -> Iterator[tuple[str, str]]:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from ((path.name, alias.name.partition(".")[0]) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield path.name, node.module.partition(".")[0]


def python(alone: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """A process that finds no package but those in the folder."""
    environment = {**os.environ, "PYTHONPATH": str(alone), **more}
    command = [sys.executable, "-S", "-W", "error", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE_S)


def test_it_knows_the_standard_library_httpx2_and_what_checks_a_webhook() -> None:
    foreign = {(file, name) for file, name in imports() if name not in {*sys.stdlib_module_names, "conclave_client"}}
    assert foreign == {
        ("awaiting.py", "httpx2"),
        ("blocking.py", "httpx2"),
        ("transport.py", "httpx2"),
        ("webhooks.py", "cryptography"),
        ("webhooks.py", "http_message_signatures"),
    }


def test_it_works_without_the_service_and_brings_in_nothing_before_it_is_used(alone: Path) -> None:
    done = python(alone, "-c", USE)
    assert (done.returncode, done.stdout) == (0, "False\n"), done.stderr


def test_without_httpx2_it_says_what_to_install(alone: Path) -> None:
    (alone / "httpx2").unlink()
    done = python(alone, "-c", "from conclave_client import Conclave; Conclave('http://127.0.0.1')")
    assert "install archon-conclave[client]" in done.stderr


@pytest.fixture
def findings(alone: Path) -> Mapping[str, list[str]]:
    """What the type checker says of each caller."""
    for name, code in (("right", TYPED), ("wrong", MISTYPED)):
        (alone / f"{name}.py").write_text(code, encoding="utf-8")
    # The checker has its own, and wants no other. What httpx2 is inside is not looked at.
    (alone / "typing_extensions.py").unlink()
    (alone / "mypy.ini").write_text("[mypy]\nstrict = true\n[mypy-httpx2.*]\nfollow_imports = skip\n", encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--no-incremental", "--no-site-packages", "right.py", "wrong.py"]
    environment = {**os.environ, "MYPYPATH": str(alone)}
    done = subprocess.run(command, env=environment, cwd=alone, capture_output=True, text=True, timeout=PATIENCE_S)
    assert "checked 2 source files" in done.stdout, done.stdout + done.stderr
    errors = [line for line in done.stdout.splitlines() if ": error:" in line]
    return {name: [line for line in errors if line.startswith(f"{name}.py")] for name in ("right", "wrong")}


def test_its_types_are_there_for_callers_without_the_service(findings: Mapping[str, list[str]]) -> None:
    assert findings["right"] == []
    assert [line.rpartition("[")[2] for line in findings["wrong"]] == [
        "call-arg]",
        "arg-type]",
        "union-attr]",
        "attr-defined]",
    ]


def test_its_types_are_announced() -> None:
    assert (PACKAGE / "py.typed").is_file()
    assert not {name for _, name in imports()} & set(SERVICE)
