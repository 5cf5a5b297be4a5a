"""Which webhooks an operator may choose, and what is refused without being repeated."""

from __future__ import annotations

import pytest

from application.ports.webhook_sender import WebhookReceiver
from infrastructure.webhooks.receivers import parse_receiver, parse_receivers


def test_a_receiver_may_have_a_name_and_be_told_of_one_key_alone() -> None:
    named = parse_receiver("ops@ann=https://Hooks.Example:443/a?b=c")
    assert named == WebhookReceiver("ops", "https://hooks.example/a?b=c", "ann")
    assert parse_receiver("ops=https://h.example/x").key_name is None


def test_without_a_name_it_is_called_after_its_host_and_shows_nothing_of_the_rest() -> None:
    first, second = parse_receivers(("https://h.example/hidden", "https://h.example:8443/hidden"))
    assert first.name.startswith("h.example#")
    assert second.name.startswith("h.example:8443#")
    assert "hidden" not in repr(first)
    assert parse_receiver("https://h.example/hidden").name == first.name


def test_an_equals_sign_within_an_address_names_nobody() -> None:
    assert parse_receiver("https://h.example/x?key=1").address == "https://h.example/x?key=1"


@pytest.mark.parametrize(
    ("entry", "address"),
    [
        ("https://h.example", "https://h.example/"),
        ("https://h.example?", "https://h.example/?"),
        ("HTTPS://h.example:0443/%2c", "https://h.example/%2c"),
        ("http://localhost:80/x", "http://localhost/x"),
        ("http://127.9.9.9:81/x", "http://127.9.9.9:81/x"),
        ("http://[::1]:8080/x", "http://[::1]:8080/x"),
    ],
)
def test_addresses_are_told_in_their_normal_form(entry: str, address: str) -> None:
    assert parse_receiver(entry).address == address


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("http://h.example/x", "use https"),
        ("http://10.0.0.1/x", "use https"),
        ("http://127.0.0.1.example/x", "use https"),
        ("http://localhost.example/x", "use https"),
        ("http://[::2]/x", "use https"),
        ("https://ann:SECRET@h.example/", "a user name or a password"),
        ("https://SECRET@h.example/", "a user name or a password"),
        ("ops=ftp://h.example/SECRET", "no address that begins with https://"),
        ("h.example/SECRET", "no address that begins with https://"),
        ("https:///SECRET", "no address like"),
        ("https://h.example:0/SECRET", "no address like"),
        ("https://h.example:99999/SECRET", "no address like"),
        ("https://[::1/SECRET", "no address like"),
        ("https://h.example/SECRET#part", "characters that no address has"),
        ("https://h.example/SECRET two", "characters that no address has"),
        ("https://h.example/SECRET%zz", "characters that no address has"),
        ("https://höst.example/SECRET", "characters that no address has"),
        ("https://h.example/SECRET\\x", "characters that no address has"),
        (f"https://h.example/{'x' * 2_000}", "too many of them"),
        ("a b=https://h.example/SECRET", "has a name"),
        ("=https://h.example/SECRET", "has a name"),
        ("ops@=https://h.example/SECRET", "names a key"),
        ("ops@a b=https://h.example/SECRET", "names a key"),
    ],
)
def test_what_cannot_be_told_is_refused_by_its_number_and_not_repeated(entry: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as refused:
        parse_receivers(("https://fine.example/", entry))
    assert "receiver number 2" in str(refused.value)
    assert "SECRET" not in str(refused.value)


def test_two_receivers_of_one_name_or_address_are_refused() -> None:
    for entries in (("a=https://x.example/", "a=https://y.example/"), ("https://x.example", "https://x.example/")):
        with pytest.raises(ValueError, match="receiver number 2 has the name or the address of another"):
            parse_receivers(entries)
    with pytest.raises(ValueError, match="more than 32"):
        parse_receivers(tuple(f"https://x.example/{number}" for number in range(33)))
