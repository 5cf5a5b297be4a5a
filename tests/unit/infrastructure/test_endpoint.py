"""Holds addresses and keys to being checked before they are used, and to not being repeated when they are refused."""

from __future__ import annotations

import pytest

from domain.errors.configuration import ConfigurationError
from infrastructure.orchestrators.endpoint import Endpoint, checked_key


@pytest.mark.parametrize(
    ("base_url", "kept", "host"),
    [
        ("https://api.example/v1", "https://api.example/v1", "api.example"),
        ("https://api.example/v1/", "https://api.example/v1", "api.example"),
        ("http://127.0.0.1:8080/v1", "http://127.0.0.1:8080/v1", "127.0.0.1:8080"),
        ("http://[::1]:8080", "http://[::1]:8080", "[::1]:8080"),
        ("HTTPS://api.example", "HTTPS://api.example", "api.example"),
    ],
)
def test_an_address_is_kept_without_a_slash_at_its_end(base_url: str, kept: str, host: str) -> None:
    assert Endpoint.parse(base_url) == Endpoint(kept, host)


@pytest.mark.parametrize(
    "base_url",
    [
        "",
        "api.example/v1",
        "ftp://api.example/v1",
        "file:///etc/passwd",
        "unix:///run/x.sock",
        "http://",
        "http:///v1",
        "https://user:hunter2@api.example/v1",
        "https://hunter2@api.example/v1",
        "https://api.example/v1?key=hunter2",
        "https://api.example/v1#hunter2",
        "https://api.example/v1?",
        "https://api.example:0/v1",
        "https://api.example:99999/v1",
        "https://api.example:port/v1",
        "https://[::1/v1",
        "https://api.example/v1\r\nHost: hunter2",
        "https://api.example /v1",
        "https:\\\\api.example\\v1",
        "https://api.example/v1\x00",
    ],
)
def test_what_cannot_be_an_address_names_its_variable_and_is_not_repeated(base_url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Endpoint.parse(base_url)
    assert caught.value.variable == "CONCLAVE_LLM_BASE_URL"
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(("key", "kept"), [(None, None), ("", None), (" \n", None), (" sk-1\n", "sk-1")])
def test_a_key_is_kept_without_blanks_around_it(key: str | None, kept: str | None) -> None:
    assert checked_key(key) == kept


@pytest.mark.parametrize("key", ["sk-1\r\nX-Evil: 1", "sk 1", "sk-ø", "sk-\x00", "sk\u2028-1"])
def test_a_key_that_no_header_can_carry_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        checked_key(key)
    assert caught.value.variable == "CONCLAVE_LLM_API_KEY"
    assert "sk" not in str(caught.value)
