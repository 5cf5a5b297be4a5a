"""Holds the settings to their promise: what is accepted can be used, and what is refused is named with the reason."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.errors.configuration import ConfigurationError
from infrastructure.settings import OrchestratorKind, QueueKind, Settings, load_settings
from tests.unit.infrastructure.given_settings import KEYS, SECRET, load, refused


def test_without_any_variable_the_defaults_of_the_contract_hold() -> None:
    settings = load_settings({}, None)
    folder = Path.cwd() / ".conclave"
    assert settings.data_dir == folder
    assert settings.database_url == f"sqlite:///{folder}/conclave.db"
    assert settings.halt_file == folder / "HALT"
    assert settings.orchestrator is None
    assert (settings.llm_base_url, settings.llm_api_key, settings.llm_model) == (None, None, None)
    assert settings.max_concurrent_agents == 72
    assert settings.max_running_deliberations == 10
    assert settings.queue is QueueKind.EMBEDDED
    assert (settings.log_format, settings.log_level) == ("text", "info")
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)
    assert not settings.keyring()
    assert settings.notices == ()


def test_every_setting_of_the_contract_is_taken(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    providers = tmp_path / "providers.toml"
    providers.write_text('[providers.local]\nbase_url = "http://localhost:11434/v1"\n')
    given_ = {
        "DATABASE_URL": "postgresql+psycopg://user:pw@localhost/conclave",
        "DATA_DIR": str(tmp_path / "data"),
        "ORCHESTRATOR": "openai",
        "LOCAL_MODEL": str(file),
        "LLM_BASE_URL": "http://localhost:11434/v1",
        "LLM_API_KEY": "key",
        "LLM_MODEL": "local/small",
        "EMBEDDING_MODEL": "local/embed",
        "LLM_MAX_CONCURRENCY": "7",
        "LLM_REQUESTS_PER_MINUTE": "500",
        "LLM_TOKENS_PER_MINUTE": "200000",
        "PROVIDERS_FILE": str(providers),
        "ROSTERS_DIR": str(tmp_path),
        "RECORD_DIR": str(tmp_path / "recording"),
        "REDIS_URL": "redis://localhost:6379/0",
        "HALT_REDIS_URL": "rediss://localhost/1",
        "HALT_FILE": str(tmp_path / "stop"),
        "API_KEYS": KEYS,
        "WITNESS_KEY_FILE": str(tmp_path / "key"),
        "WITNESS_ORIGIN": "example.org/conclave",
        "QUEUE": "procrastinate",
        "MAX_CONCURRENT_AGENTS": "7200",
        "MAX_RUNNING_DELIBERATIONS": "1",
        "WEBHOOKS": "https://one.example/hook, ops@ann=http://127.0.0.1:9",
        "OWNER_DATABASE_URL": "postgresql://owner@localhost/conclave",
        "WITNESS_ANCHORS": "/var/anchors.jsonl,https://witness.example",
        "WATCH_TOPICS": "true",
        "LOG_FORMAT": "JSON",
        "LOG_LEVEL": "DEBUG",
        "API_KEY": "client-secret",
        "HOST": "0.0.0.0",
        "PORT": "0",
        "FORWARDED_ALLOW_IPS": "10.0.0.0/8,::1",
        "TLS_CERT_FILE": str(file),
        "TLS_KEY_FILE": str(file),
        "TRACES_ENDPOINT": "http://collector:4318",
        "TRACES_TO_LLM": "true",
        "RUN_ID": "01a1fe80-63b9-7f58-8edb-dd5e04d9042d",
        "RUN_FOLDER": str(tmp_path / "out"),
        "CRASH_AT": "intent.after:3",
        "CAMPAIGN": "1",
        "CAMPAIGN_MINUTES": "2.5",
    }
    settings = load(**given_)
    # What is replayed is not recorded as well.
    assert set(settings.shown()) == {f"CONCLAVE_{name}" for name in given_} | {"CONCLAVE_REPLAY_DIR"}
    assert settings.model_fields_set == {name.lower() for name in given_}
    assert settings.orchestrator is OrchestratorKind.OPENAI
    assert settings.webhooks == ("https://one.example/hook", "ops@ann=http://127.0.0.1:9")
    assert settings.max_concurrent_agents == 7200
    assert settings.log_level == "debug"
    assert settings.llm_api_key is not None
    assert settings.llm_api_key.get_secret_value() == "key"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAX_CONCURRENT_AGENTS", "0"),
        ("MAX_CONCURRENT_AGENTS", "7201"),
        ("MAX_CONCURRENT_AGENTS", "many"),
        ("MAX_CONCURRENT_AGENTS", "1e3"),
        ("MAX_RUNNING_DELIBERATIONS", "0"),
        ("MAX_RUNNING_DELIBERATIONS", "-1"),
        ("LLM_MAX_CONCURRENCY", "0"),
        ("LLM_REQUESTS_PER_MINUTE", "0"),
        ("LLM_TOKENS_PER_MINUTE", "x"),
        ("PORT", "65536"),
        ("ORCHESTRATOR", "gpt"),
        ("QUEUE", "rabbit"),
        ("LOG_FORMAT", "xml"),
        ("LOG_LEVEL", "loud"),
        ("CAMPAIGN_MINUTES", "nan"),
    ],
)
def test_an_impossible_value_is_named_with_its_variable_and_what_would_do(name: str, value: str) -> None:
    error = refused(**{name: value})
    assert error.variable == f"CONCLAVE_{name}"
    assert error.problem == f"{value!r} is not possible"
    assert error.remedy == f"Give {Settings.model_fields[name.lower()].description}"


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("LOCAL_MODEL", "/nowhere/model.gguf", "there is no file '/nowhere/model.gguf'"),
        ("PROVIDERS_FILE", "/nowhere/p.toml", "there is no file '/nowhere/p.toml'"),
        ("ROSTERS_DIR", "/nowhere/rosters", "there is no folder '/nowhere/rosters'"),
        ("DATA_DIR", __file__, f"{__file__!r} is a file, not a folder"),
        ("DATA_DIR", "/a?b", "'/a?b' holds a question mark, which no address of a database can carry"),
        ("DATA_DIR", "~no-such-user/x", "'~no-such-user/x' begins with the home folder of nobody known"),
        ("DATA_DIR", "a\x1fb", "the path holds control characters"),
        pytest.param(
            "DATA_DIR", "a" * 5000, "the path cannot be looked at: File name too long", id="too-long-a-folder"
        ),
        pytest.param(
            "LOCAL_MODEL", "a" * 5000, "the path cannot be looked at: File name too long", id="too-long-a-file"
        ),
        pytest.param(
            "ROSTERS_DIR",
            "a" * 5000,
            "the path cannot be looked at: File name too long",
            id="too-long-a-rosters-folder",
        ),
        ("LLM_BASE_URL", "localhost:8080/v1", "it has to begin with http:// or https://"),
        ("LLM_BASE_URL", "ftp://host/v1", "it has to begin with http:// or https://"),
        ("LLM_MODEL", "a\nb", "it is not one line of at most 1024 printable characters"),
        ("WITNESS_ORIGIN", "two words", "it holds blanks or control characters"),
        ("HOST", "a b", "it holds blanks or control characters"),
        ("API_KEYS", "ann", "entry 1 has not the three parts name:role:secret"),
        ("API_KEYS", "ann:king:long-secret", "the role of entry 1 is not one of observer, operator, admin"),
        ("API_KEYS", "ann:admin:short", "the secret of entry 1 is shorter than 8 characters"),
        ("REDIS_URL", "localhost:6379", "it does not begin with one of redis, rediss, unix"),
        ("WEBHOOKS", "https://a,ftp://b", "receiver number 2 has no address that begins with https://"),
        ("TRACES_ENDPOINT", "collector:4318", "it does not begin with one of http, https"),
        ("FORWARDED_ALLOW_IPS", "10.0.0.1/8", "10.0.0.1/8 has host bits set"),
        ("FORWARDED_ALLOW_IPS", "proxy", "'proxy' does not appear to be an IPv4 or IPv6 network"),
        ("TLS_CERT_FILE", "cert.pem", "it is nothing without CONCLAVE_TLS_KEY_FILE"),
        ("TLS_KEY_FILE", "key.pem", "it is nothing without CONCLAVE_TLS_CERT_FILE"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_reason(name: str, value: str, problem: str) -> None:
    error = refused(**{name: value})
    assert (error.variable, error.problem) == (f"CONCLAVE_{name}", problem)


@pytest.mark.parametrize("scheme", ["mysql", "postgres", "postgresql+asyncpg", "oracle"])
def test_a_database_of_another_kind_is_refused(scheme: str) -> None:
    error = refused(DATABASE_URL=f"{scheme}://user:{SECRET}@host/db")
    assert error.variable == "CONCLAVE_DATABASE_URL"
    assert "postgresql+psycopg" in error.problem


def test_paths_are_absolute_and_know_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load(DATA_DIR="~/data").database_url == f"sqlite:///{tmp_path}/data/conclave.db"
    assert load(HALT_FILE="stop").halt_file == Path.cwd() / "stop"


def test_nothing_is_created_by_reading_settings(tmp_path: Path) -> None:
    load(DATA_DIR=str(tmp_path / "data"))
    assert list(tmp_path.iterdir()) == []


@settings(deadline=None)
@given(st.sampled_from(sorted(Settings.model_fields)), st.text(st.characters(exclude_characters="\x00"), max_size=40))
def test_any_value_is_either_taken_or_refused_by_its_name(field: str, value: str) -> None:
    variable = f"CONCLAVE_{field.upper()}"
    refused_by = variable
    try:
        load_settings({variable: value}, None)
    except ConfigurationError as error:
        refused_by = error.variable
    assert refused_by == variable


def test_a_queue_in_postgres_wants_a_database_there() -> None:
    with pytest.raises(ConfigurationError, match="names none") as refused:
        load(QUEUE="procrastinate")
    assert refused.value.variable == "CONCLAVE_QUEUE"
    assert "postgresql://" in refused.value.remedy
    assert load(QUEUE="procrastinate", DATABASE_URL="postgresql+psycopg://c@localhost/c").notices == ()


def test_settings_cannot_be_changed_once_they_are_read() -> None:
    settings = load()
    with pytest.raises(ValueError, match="frozen"):
        settings.port = 1


@pytest.mark.parametrize(
    "given_", ["http://collector:4318", "http://collector:4318/", "http://collector:4318/v1/traces"]
)
def test_traces_go_where_a_collector_takes_them(given_: str) -> None:
    assert load(TRACES_ENDPOINT=given_).traces_endpoint == "http://collector:4318/v1/traces"


def test_the_collector_of_other_programs_is_taken_over_unless_one_is_named() -> None:
    others = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://theirs:4318"}
    own = {"CONCLAVE_TRACES_ENDPOINT": "http://ours:4318"}
    assert load_settings(others, None).traces_endpoint == "http://theirs:4318/v1/traces"
    assert load_settings(others | own, None).traces_endpoint == "http://ours:4318/v1/traces"


def test_without_the_extra_the_collector_of_other_programs_stops_no_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infrastructure.settings.find_spec", lambda name: None)
    settings = load_settings({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://theirs:4318"}, None)
    assert settings.traces_endpoint is None
    assert any("archon-conclave[tracing]" in notice for notice in settings.notices)


@pytest.mark.parametrize(
    "address",
    [
        "redis://127.0.0.1:99999",
        "redis://:pass/word@[::1]:0/2",
        "postgresql://h:99999/x",
        "postgresql://user:pa/ss@h:70000/x?sslmode=require",
        "postgresql://user:forgotten-the-host",
    ],
)
def test_a_port_that_there_cannot_be_is_refused_without_showing_what_was_given(address: str) -> None:
    name = "REDIS_URL" if address.startswith("redis") else "DATABASE_URL"
    problem = refused(**{name: address})
    assert problem.variable == f"CONCLAVE_{name}"
    assert problem.problem == "its port is no whole number from 1 to 65535"


@pytest.mark.parametrize(
    "address", ["redis://h", "redis://:a:b/c@h:6379/0", "rediss://[::1]:65535", "unix:///run/a:b.sock?db=1"]
)
def test_an_address_with_a_port_that_there_can_be_is_taken(address: str) -> None:
    assert load(REDIS_URL=address).redis_url == address


def test_a_name_that_no_log_can_have_is_refused_before_anything_is_opened() -> None:
    problem = refused(WITNESS_ORIGIN="two+words")
    assert str(problem).startswith("CONCLAVE_WITNESS_ORIGIN: 'two+words' cannot name a log. Give a name without blanks")
