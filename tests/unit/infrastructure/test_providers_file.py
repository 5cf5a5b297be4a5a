"""Holds the file of providers to being read whole, or refused with its line and a remedy, and never with a secret."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from domain.errors.configuration import ConfigurationError
from domain.models.money import KeyBudget, Price
from infrastructure.orchestrators.provider_settings import ModelLimits, ProvidersFile
from infrastructure.orchestrators.providers_file import read_providers_file

KEY = "sk-7f3a9c-very-secret"
ENVIRONMENT = {"OPENAI_API_KEY": KEY, "BROKEN_KEY": "two words", "EMPTY_KEY": ""}
WHOLE = """\
# Whom we ask.
[providers.openai]
base_url = "https://api.openai.com/v1/"
api_key_env = "OPENAI_API_KEY"
models = [
    "small",
    "team/large",
]
max_concurrency = 72
requests_per_minute = 500
tokens_per_minute = 200000
json_schema = false

[providers.local]
base_url = "http://127.0.0.1:8080/v1"
share = 0.5

[routes.default]
models = ["openai/small", "local/any/name"]

[prices."openai/small"]
input_usd_per_million = 0.15
output_usd_per_million = 1

[limits."openai/small"]
requests_per_minute = 60

[budgets."*"]
usd_per_day = 2.5

[budgets.alice]
usd_per_month = 100
"""


def read(path: Path, text: str, *, model: str | None = None, key_names: tuple[str, ...] = ()) -> ProvidersFile:
    path.write_text(text, encoding="utf-8")
    return read_providers_file(path, ENVIRONMENT.get, model=model, key_names=key_names)


def refused(path: Path, text: str, *, model: str | None = None, key_names: tuple[str, ...] = ()) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        read(path, text, model=model, key_names=key_names)
    shown = str(caught.value)
    assert KEY not in shown
    assert "two words" not in shown
    return caught.value


def line_of(text: str, fragment: str) -> int:
    return text[: text.index(fragment)].count("\n") + 1


def assert_line(error: ConfigurationError, path: Path, line: int) -> None:
    assert error.variable == "CONCLAVE_PROVIDERS_FILE"
    assert error.problem.startswith(f"{str(path)!r}, line {line}: "), error


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "providers.toml"


def test_everything_in_the_file_is_read(path: Path) -> None:
    found = read(path, WHOLE)
    openai, local = found.providers["openai"], found.providers["local"]
    assert (openai.base_url, openai.key, openai.models) == ("https://api.openai.com/v1", KEY, ("small", "team/large"))
    assert (openai.requests_per_minute, openai.tokens_per_minute, openai.json_schema) == (500, 200_000, False)
    assert (local.key, local.models, local.share, local.max_concurrency) == (None, (), 0.5, 72)
    assert found.routes == {"default": ("openai/small", "local/any/name")}
    assert found.default_model == "default"
    assert found.prices == {"openai/small": Price(150_000, 1_000_000)}
    assert found.limits == {"openai/small": ModelLimits(requests_per_minute=60)}
    assert found.budgets == {"*": KeyBudget(day=2_500_000_000_000), "alice": KeyBudget(month=100 * 10**12)}
    assert found.keys == (KEY,)


def test_no_key_is_shown_when_the_settings_are_printed(path: Path) -> None:
    assert KEY not in repr(read(path, WHOLE))


@pytest.mark.parametrize(
    ("there", "instead", "line_with"),
    [
        ("max_concurrency = 72", "max_concurrency = 0", "max_concurrency"),
        ("max_concurrency = 72", "max_concurrency = 7201", "max_concurrency"),
        ("requests_per_minute = 500", "requests_per_minute = -1", "requests_per_minute"),
        ("requests_per_minute = 500", "requests_per_minute = true", "requests_per_minute"),
        ("tokens_per_minute = 200000", 'tokens_per_minute = "many"', "tokens_per_minute"),
        ("json_schema = false", 'json_schema = "no"', "json_schema"),
        ("json_schema = false", 'limit_name = "max"', "limit_name"),
        ("share = 0.5", "share = 0", "share"),
        ("share = 0.5", "share = 1.5", "share"),
        ("share = 0.5", "share = nan", "share"),
        ("share = 0.5", "api_kye_env = 'X'", "api_kye_env"),
        ("share = 0.5", "first_byte_timeout_s = 0", "first_byte_timeout_s"),
        ("share = 0.5", "models = [1]", "models = [1]"),
        ("share = 0.5", 'models = ["a", "a"]', 'models = ["a"'),
        ("share = 0.5", 'models = [" a"]', 'models = [" a"]'),
        ("[providers.local]\n", "[providers.local]\n\n\n", "[limits."),
        ("[providers.local]", "[providers.'a/b']", "[providers.'a/b']"),
        ("[routes.default]", "[routes.'a/b']", "[routes.'a/b']"),
        ("[routes.default]", "[routes.local]", "[routes.local]"),
        ('["openai/small", "local/any/name"]', "[]", "[routes.default]"),
        ('["openai/small", "local/any/name"]', '["openai/huge"]', 'models = ["openai/huge"]'),
        ('["openai/small", "local/any/name"]', '["nobody/small"]', 'models = ["nobody/small"]'),
        ('["openai/small", "local/any/name"]', '["small"]', 'models = ["small"]'),
        ('["openai/small", "local/any/name"]', '["default"]', 'models = ["default"]'),
        ('["openai/small", "local/any/name"]', '"openai/small"', 'models = "openai/small"'),
        ("input_usd_per_million = 0.15", "input_usd_per_million = -0.15", "input_usd_per_million"),
        ("input_usd_per_million = 0.15", "input_usd_per_million = inf", "input_usd_per_million"),
        ("input_usd_per_million = 0.15", "input_usd_per_million = nan", "input_usd_per_million"),
        ("input_usd_per_million = 0.15", "input_usd_per_million = 1e999999999", "input_usd_per_million"),
        ("input_usd_per_million = 0.15", "", '[prices."openai/small"]'),
        ('[prices."openai/small"]', '[prices."openai/huge"]', '[prices."openai/huge"]'),
        ('[prices."openai/small"]', '[prices."nobody/small"]', '[prices."nobody/small"]'),
        ('[limits."openai/small"]', '[limits."small"]', '[limits."small"]'),
        ("requests_per_minute = 60", "requests_per_minute = 0", "requests_per_minute = 0"),
        ("requests_per_minute = 60", "share = 0.1", "share = 0.1"),
        ("usd_per_day = 2.5", "usd_per_day = 0", "usd_per_day"),
        ("usd_per_day = 2.5", "usd_per_day = -1", "usd_per_day"),
        ("usd_per_day = 2.5", "usd_per_week = 1", "usd_per_week"),
        ("usd_per_day = 2.5", "", '[budgets."*"]'),
        ("# Whom we ask.", "models = 1", "models = 1"),
        (WHOLE, "\nproviders = 1\n", "providers = 1"),
        (WHOLE, "\n\nproviders.openai = 1\n", "providers.openai"),
        ("# Whom we ask.", "[provider.openai]", "[provider.openai]"),
        ("# Whom we ask.", 'routes.careful = "openai/small"', "routes.careful"),
        ("usd_per_month = 100", "usd_per_month = 100\nusd_per_month = 200", "usd_per_month = 200"),
        ("[budgets.alice]", "[providers.openai]", "[providers.openai]\nusd"),
        ("usd_per_month = 100", "usd_per_month = 1 0 0", "usd_per_month"),
        ('base_url = "http://127.0.0.1:8080/v1"', "", "[providers.local]"),
        ('base_url = "http://127.0.0.1:8080/v1"', "base_url = 8080", "base_url = 8080"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_line(path: Path, there: str, instead: str, line_with: str) -> None:
    text = WHOLE.replace(there, instead, 1)
    if line_with == "[limits.":
        text = text.replace("requests_per_minute = 60", "")
    assert_line(refused(path, text), path, line_of(text, line_with))


@pytest.mark.parametrize("text", ["", "# nothing", "[providers]\n", "[routes.default]\nmodels = []\n"])
def test_a_file_without_a_provider_is_refused(path: Path, text: str) -> None:
    assert "names no provider" in refused(path, text).problem


def test_a_duplicate_name_is_refused_with_the_line_of_the_second(path: Path) -> None:
    text = f'{WHOLE}\n[providers.openai]\nbase_url = "https://elsewhere.example/v1"\n'
    error = refused(path, text)
    assert_line(error, path, text.count("\n") - 1)
    assert "twice" in error.problem


def test_a_line_is_found_though_the_same_words_stand_in_texts_before_it(path: Path) -> None:
    text = 'title = """\n[providers.a]\nmax_concurrency = 0\n"""\n'
    assert_line(refused(path, text), path, 1)
    text = "[providers.a]\nbase_url = '''https://a.example/v1''' # max_concurrency = 1\n\n# max_concurrency\nmax_concurrency = 0\n"
    assert_line(refused(path, text), path, 5)


def test_a_line_is_found_in_a_table_on_one_line_and_under_a_dotted_name(path: Path) -> None:
    text = '\nproviders.a = { base_url = "https://a.example/v1", max_concurrency = 0 }\n'
    assert_line(refused(path, text), path, 2)
    text = '[providers]\n\na.base_url = "https://a.example/v1"\na.max_concurrency = 0\n'
    assert_line(refused(path, text), path, 4)


def test_a_file_that_is_no_toml_is_refused_with_its_line(path: Path) -> None:
    assert_line(refused(path, "[providers.a]\nbase_url = https://a.example/v1\n"), path, 2)
    assert_line(refused(path, "[providers.a]\n[providers.b\n"), path, 2)


def test_a_file_that_is_not_utf_8_is_refused_with_its_line(path: Path) -> None:
    path.write_bytes(b"# one\n# tw\xff\n")
    with pytest.raises(ConfigurationError, match="line 2: it is not UTF-8"):
        read_providers_file(path, ENVIRONMENT.get)


def test_a_file_of_megabytes_is_refused(path: Path) -> None:
    path.write_bytes(b"#" * 300_000)
    with pytest.raises(ConfigurationError, match="more than 262144 bytes"):
        read_providers_file(path, ENVIRONMENT.get)


def test_a_file_that_cannot_be_read_is_refused(path: Path) -> None:
    path.mkdir()
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_providers_file(path, ENVIRONMENT.get)


@pytest.mark.parametrize("variable", ["MISSING_KEY", "EMPTY_KEY"])
def test_a_missing_key_variable_is_named_with_what_to_do(path: Path, variable: str) -> None:
    error = refused(path, WHOLE.replace("OPENAI_API_KEY", variable))
    assert_line(error, path, 4)
    assert f"{variable} is not set" in error.problem
    assert f"Set {variable}" in error.remedy


def test_a_key_that_no_header_can_carry_is_refused_without_being_shown(path: Path) -> None:
    assert "BROKEN_KEY" in refused(path, WHOLE.replace("OPENAI_API_KEY", "BROKEN_KEY")).problem


@pytest.mark.parametrize(
    "pasted", ["sk-proj-1234567890", "AKIAIOSFODNN7EXAMPLE", "AIzaSyD1234567890", "deadbeefdeadbeef"]
)
def test_a_key_in_place_of_its_variable_is_never_shown(path: Path, pasted: str) -> None:
    error = refused(path, WHOLE.replace("OPENAI_API_KEY", pasted))
    assert_line(error, path, 4)
    assert pasted not in str(error)


def test_a_key_in_the_file_is_an_unknown_setting_and_is_never_shown(path: Path) -> None:
    text = WHOLE.replace("share = 0.5", 'api_key = "hunter2hunter2"')
    error = refused(path, text)
    assert_line(error, path, line_of(text, "api_key ="))
    assert "hunter2" not in str(error)
    assert "api_key_env" in error.remedy


@pytest.mark.parametrize("address", ["https://me:hunter2@host.example/v1", "https://host.example/v1?key=hunter2"])
def test_a_base_url_with_credentials_is_refused_without_being_shown(path: Path, address: str) -> None:
    error = refused(path, WHOLE.replace("http://127.0.0.1:8080/v1", address))
    assert_line(error, path, 15)
    assert "hunter2" not in str(error)


@pytest.mark.parametrize(
    "address",
    [
        "https://api.example/v1",
        "https://8.8.8.8/v1",
        "http://127.0.0.1:8080/v1",
        "http://127.9.9.9/v1",
        "http://[::1]:8080/v1",
        "http://localhost:11434/v1",
        "http://ollama:11434/v1",
        "http://box.local/v1",
        "http://10.1.2.3/v1",
        "http://172.31.0.1/v1",
        "http://192.168.1.5/v1",
        "http://[fd12:3456::1]/v1",
        "https://[::ffff:127.0.0.1]/v1",
    ],
)
def test_providers_may_be_on_this_machine_in_a_private_network_or_behind_https(path: Path, address: str) -> None:
    assert read(path, WHOLE.replace("http://127.0.0.1:8080/v1", address)).providers["local"].base_url == address


@pytest.mark.parametrize(
    "address",
    [
        "http://api.example/v1",
        "http://8.8.8.8/v1",
        "http://172.32.0.1/v1",
        "http://[2001:db8::1]/v1",
        "http://box.internal/v1",
        "http://127.0.0.1.example/v1",
        "http://local.example./v1",
        "https://169.254.169.254/v1",
        "https://169.254.0.1/v1",
        "https://[fe80::1]/v1",
        "https://[fe80::1%25eth0]/v1",
        "https://[fd00:ec2::254]/v1",
        "https://[::ffff:169.254.169.254]/v1",
        "https://[::ffff:a9fe:a9fe]/v1",
        "https://[::169.254.169.254]/v1",
        "https://[64:ff9b::a9fe:a9fe]/v1",
        "https://[2002:a9fe:a9fe::]/v1",
        "https://metadata.google.internal/v1",
        "https://METADATA.google.internal./v1",
        "https://metadata/v1",
        "https://100.100.100.200/v1",
        "https://168.63.129.16/v1",
        "http://2852039166/v1",
        "http://0xA9FEA9FE/v1",
        "http://0251.0376.0251.0376/v1",
        "http://169.254.43518/v1",
        "http://169.16689662/v1",
        "http://127.1/v1",
        "http://0x7f.0.0.1/v1",
        "http://0177.0.0.1/v1",
        "http://169%2e254%2e169%2e254/v1",
        "http://１６９.254.169.254/v1",
        "http://169。254。169。254/v1",
        "https://0.0.0.0/v1",
        "https://[::]/v1",
        "https://255.255.255.255/v1",
        "https://224.0.0.1/v1",
        "https://a..b/v1",
        "https://-a.example/v1",
        "https://[::1/v1",
        "ftp://host.example/v1",
        "host.example/v1",
        "https://host.example:99999/v1",
    ],
)
def test_addresses_of_public_hosts_in_the_clear_of_metadata_and_in_disguise_are_refused(
    path: Path, address: str
) -> None:
    assert_line(refused(path, WHOLE.replace("http://127.0.0.1:8080/v1", address)), path, 15)


SINGLE = '[providers.a]\nbase_url = "https://a.example/v1"\n'


@pytest.mark.parametrize(
    ("text", "model", "default"),
    [
        (f'{SINGLE}models = ["only"]\n', None, "a/only"),
        (f'{SINGLE}models = ["one", "two"]\n', "a/two", "a/two"),
        (SINGLE, "a/any/thing", "a/any/thing"),
        (f'{SINGLE}[routes.cheap]\nmodels = ["a/x"]\n', "cheap", "cheap"),
        (f'{SINGLE}[routes.default]\nmodels = ["a/x"]\n', "a/y", "default"),
    ],
)
def test_members_that_name_no_model_ask_the_default(path: Path, text: str, model: str | None, default: str) -> None:
    assert read(path, text, model=model).default_model == default


@pytest.mark.parametrize("text", [SINGLE, f'{SINGLE}models = ["one", "two"]\n'])
def test_a_file_without_a_default_model_says_how_to_give_one(path: Path, text: str) -> None:
    assert "[routes.default]" in refused(path, text).remedy


@pytest.mark.parametrize("model", ["small", "b/small", "a/huge"])
def test_a_default_model_that_nobody_offers_is_refused(path: Path, model: str) -> None:
    error = refused(path, f'{SINGLE}models = ["one", "two"]\n', model=model)
    assert error.variable == "CONCLAVE_LLM_MODEL"


def test_a_budget_is_for_a_key_that_there_is(path: Path) -> None:
    assert set(read(path, WHOLE, key_names=("alice", "bob")).budgets) == {"*", "alice"}
    assert_line(refused(path, WHOLE, key_names=("bob",)), path, line_of(WHOLE, "[budgets.alice]"))


def test_what_keeps_a_model_from_being_asked_is_told_without_repeating_it(path: Path) -> None:
    found = read(path, WHOLE)
    told: Mapping[str, bool] = {
        "openai/small": True,
        "openai/team/large": True,
        "local/what/ever": True,
        "openai/huge": False,
        "nobody/small": False,
        "small": False,
        "openai/": False,
        "/small": False,
    }
    for model, is_known in told.items():
        problem = found.problem_of(model)
        assert (problem is None) == is_known, model
        assert problem is None or model not in problem


DOCUMENTED = re.findall(
    r"```toml\n(.*?)```", (Path(__file__).parents[3] / "docs" / "providers.md").read_text(encoding="utf-8"), re.DOTALL
)


@pytest.mark.parametrize("block", range(len(DOCUMENTED)))
def test_each_block_of_the_manual_is_a_file_that_can_be_used(path: Path, block: int) -> None:
    path.write_text(DOCUMENTED[block], encoding="utf-8")
    assert read_providers_file(path, lambda _: KEY).default_model


def test_the_manual_has_a_block_for_each_provider_that_it_names() -> None:
    assert len(DOCUMENTED) == 7
