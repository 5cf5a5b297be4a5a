"""No secret among the settings is shown, whether they are printed, told to an operator, or refused."""

import pytest
from pydantic import ValidationError

from tests.unit.infrastructure.given_settings import KEYS, SECRET, load, refused


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


def test_the_addresses_of_webhooks_are_kept_out_of_the_log_and_shown_by_name_alone() -> None:
    settings = load(WEBHOOKS=f"ops=https://hooks.example/{SECRET}, https://hooks.example/other/{SECRET}")
    assert f"https://hooks.example/{SECRET}" in settings.secret_values()
    assert SECRET not in str(settings.shown())
    assert settings.shown()["CONCLAVE_WEBHOOKS"].startswith("ops, hooks.example#")


def test_the_password_of_a_collector_is_a_secret() -> None:
    settings = load(TRACES_ENDPOINT=f"https://user:{SECRET}@collector")
    assert SECRET in settings.secret_values()
    assert SECRET not in repr(settings)
    assert SECRET not in settings.shown()["CONCLAVE_TRACES_ENDPOINT"]
