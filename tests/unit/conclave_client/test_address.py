"""Where a server may be, who is shown the key, and that no error, copy or representation holds it."""

from __future__ import annotations

import copy
import pickle

import pytest

from conclave_client import AsyncConclave, Conclave, errors
from conclave_client.address import Address, ApiKey
from conclave_client.errors import ConclaveClientError, FieldError, Problem, UnusableArgumentError, refusal

SECRET = "secret-of-nobody"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://127.0.0.1:8072", "http://127.0.0.1:8072"),
        ("https://conclave.example/", "https://conclave.example:443"),
        ("http://[::1]:8072/room/", "http://[::1]:8072/room"),
        ("HTTP://LOCALHOST", "http://localhost:80"),
    ],
)
def test_an_address_is_taken(url: str, shown: str) -> None:
    assert str(Address.parse(url)) == shown


@pytest.mark.parametrize(
    "url",
    [
        "",
        "conclave.example",
        "ftp://conclave.example",
        "http://",
        "http://a b",
        "http://a\r\nb",
        "http://a\\b",
        "http://ä.example",
        "http://a:99999",
        "http://a:x",
        "http://[::1",
        "http://a/?x=1",
        "http://a/#x",
        f"http://name:{SECRET}@a",
    ],
)
def test_what_is_no_address_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(UnusableArgumentError) as raised:
        Conclave(url)
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize(
    "url", ["https://conclave.example", "http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1"]
)
def test_a_key_goes_where_nobody_reads_along(url: str) -> None:
    with Conclave(url, api_key=SECRET) as conclave:
        assert SECRET not in repr(conclave)


def test_a_key_in_the_clear_has_to_be_wanted() -> None:
    for flavour in (Conclave, AsyncConclave):
        with pytest.raises(UnusableArgumentError, match="unencrypted") as raised:
            flavour("http://conclave.example", api_key=SECRET)
        assert SECRET not in str(raised.value)
    Conclave("http://conclave.example", api_key=SECRET, allow_plaintext=True).close()


@pytest.mark.parametrize("key", ["", "a b", "a\nb", "a\r\nX: y", "schlüssel", "x" * 5000])
def test_a_key_that_no_header_can_carry_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(UnusableArgumentError) as raised:
        Conclave("https://conclave.example", api_key=key)
    assert not key or key not in str(raised.value)


def test_a_key_is_neither_shown_nor_written_down() -> None:
    key = ApiKey(SECRET)
    assert SECRET not in f"{key} {key!r} {key.__reduce_ex__!r}"
    with pytest.raises(TypeError):
        pickle.dumps(key)
    with pytest.raises(TypeError):
        copy.copy(key)


PROBLEM = Problem(status=409, type="urn:conclave:problem:run-ended", detail="it has", errors=(FieldError("/a", "b"),))


@pytest.mark.parametrize(
    "error",
    [
        refusal(PROBLEM),
        errors.UnusableArgumentError("url", "is none"),
        errors.ConnectionLostError("http://a:1", "is silent", sent=True),
        errors.RedirectRefusedError("http://a:1", "points elsewhere"),
        errors.WaitTimeoutError("d-1", "running", 2.5),
        errors.WebhookRefusedError("because"),
        errors.DeliveryRepeatedError("x"),
    ],
)
def test_errors_survive_the_way_between_processes(error: ConclaveClientError) -> None:
    found = pickle.loads(pickle.dumps(error))  # noqa: S301 - its own
    assert (type(found), str(found), vars(found)) == (type(error), str(error), vars(error))


def test_every_error_stands_in_the_tree() -> None:
    classes = [getattr(errors, name) for name in errors.__all__ if name.endswith("Error") and name != "FieldError"]
    assert all(issubclass(kind, ConclaveClientError) for kind in classes)
    assert all(kind.__name__ in (errors.__doc__ or "") for kind in classes)
