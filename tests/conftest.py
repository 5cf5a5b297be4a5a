"""What every test gets: no trace of the developer's settings, real servers on request, and the size of this run."""

import os
import secrets
from collections.abc import Callable, Generator, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.servers.postgres import PostgresServer
    from tests.servers.redis import RedisServer

# These run in environments of their own: what CrewAI wants does not go with the development tools, and no lock names a build of torch.
collect_ignore = [folder for folder in ("crewai", "torch") if find_spec(folder) is None]

if find_spec("hypothesis") is not None:
    from hypothesis import settings

    # How long an example takes says something of the machine, and nothing of the code.
    settings.register_profile("conclave", deadline=None)
    settings.load_profile("conclave")

_FOREIGN_PREFIXES = ("CONCLAVE_", "OPENAI_", "CREWAI_", "OTEL_", "PG", "XDG_")
_FOREIGN_NAMES = ("COLUMNS", "LINES", "REDIS_URL", "DATABASE_URL", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """Write lone surrogates of hostile texts as escapes: no report that holds one goes from process to process."""
    return _encodable((yield))


def _encodable(told: Any) -> Any:
    if isinstance(told, str):
        return told.encode(errors="backslashreplace").decode()
    if isinstance(told, dict):
        return {_encodable(name): _encodable(value) for name, value in told.items()}
    if isinstance(told, list | tuple):
        return type(told)(map(_encodable, told))
    return told


@pytest.fixture(scope="session", autouse=True)
def developers_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    """Take away what the developer's environment would tell Conclave; the value is what was taken.

    The home folder and the working folder (where a `.env` would be read) are empty ones, so that neither a run on a
    laptop nor one without a home differs from CI.
    """
    taken = {
        name: value
        for name, value in os.environ.items()
        if name.upper().startswith(_FOREIGN_PREFIXES) or name.upper() in _FOREIGN_NAMES
    }
    with pytest.MonkeyPatch.context() as patch:
        for name in taken:
            patch.delenv(name)
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        patch.chdir(tmp_path_factory.mktemp("work"))
        yield taken


@pytest.fixture(scope="session")
def sized(developers_settings: Mapping[str, str]) -> Callable[[int, int], int]:
    """`sized(30, 1000)` is 30 in an ordinary run and 1000 in `make campaign` (CONCLAVE_CAMPAIGN=1)."""
    campaign = developers_settings.get("CONCLAVE_CAMPAIGN", "") == "1"

    def choose(ordinary: int, release: int) -> int:
        return release if campaign else ordinary

    return choose


@pytest.fixture(scope="session")
def campaign_minutes(developers_settings: Mapping[str, str]) -> float:
    """How long a test that runs by time may take: MINUTES of `make campaign`, and 0 in an ordinary run."""
    if developers_settings.get("CONCLAVE_CAMPAIGN", "") != "1":
        return 0.0
    return float(developers_settings.get("CONCLAVE_CAMPAIGN_MINUTES", "60"))


@pytest.fixture(scope="session")
def repository_root() -> Path:
    """The checkout, which is not the folder that the tests run in."""
    return Path(__file__).parents[1]


@pytest.fixture(scope="session")
def postgres_server() -> Iterator["PostgresServer"]:
    """A real Postgres for the whole run. A test may stop, kill or restart it: `postgres_url` starts it again."""
    from tests.servers.postgres import PostgresServer

    with PostgresServer() as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: "PostgresServer") -> Iterator[str]:
    """SQLAlchemy address of an empty database of this test's own, dropped afterwards."""
    if not postgres_server.running:
        postgres_server.start()
    name = f"test_{secrets.token_hex(6)}"
    postgres_server.create_database(name)
    yield postgres_server.url(name)
    if not postgres_server.running:
        postgres_server.start()
    postgres_server.drop_database(name)


@pytest.fixture(scope="session")
def redis_server() -> Iterator["RedisServer"]:
    """A real Redis-compatible server for the whole run. A test may stop, kill or restart it."""
    from tests.servers.redis import RedisServer

    with RedisServer() as server:
        yield server


@pytest.fixture
def redis_url(redis_server: "RedisServer") -> str:
    """Address of an empty Redis."""
    if not redis_server.running:
        redis_server.start()
    redis_server.flush()
    return redis_server.url()
