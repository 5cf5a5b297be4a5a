"""Where settings come from: the environment before the file, the file before the defaults, and no name that nobody knows."""

import re
from pathlib import Path

import pytest

from domain.errors.configuration import ConfigurationError
from infrastructure.settings import load_settings
from tests.unit.infrastructure.given_settings import load, refused


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
    assert refused(ZZZ="1").remedy == "Remove it; docs/reference/settings.md has them all"


def test_an_unknown_name_in_a_file_is_named_in_upper_case(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("CONCLAVE_ZZZ=1\n")
    with pytest.raises(ConfigurationError) as caught:
        load_settings({}, file)
    assert caught.value.variable == "CONCLAVE_ZZZ"


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
