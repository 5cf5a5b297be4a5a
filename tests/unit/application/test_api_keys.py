"""Holds the keyring to its promise: it knows exactly the secrets it was given, keeps none of them and shows none."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from application.services.api_keys import ApiKeyring, Role

TEXT = "ann:observer:first-secret, ben:operator:second:secret ,cy:admin:third-secret"


def test_each_secret_is_recognised_as_its_own_key() -> None:
    ring = ApiKeyring.parse(TEXT)
    found = {secret: ring.find(secret) for secret in ("first-secret", "second:secret", "third-secret")}
    assert [(key.name, key.role) for key in found.values() if key] == [
        ("ann", Role.OBSERVER),
        ("ben", Role.OPERATOR),
        ("cy", Role.ADMIN),
    ]


@given(st.text())
def test_no_other_text_is_recognised(secret: str) -> None:
    known = {"first-secret", "second:secret", "third-secret"}
    assert (ApiKeyring.parse(TEXT).find(secret) is not None) == (secret in known)


def test_an_empty_keyring_knows_nobody() -> None:
    assert ApiKeyring().find("") is None
    assert not ApiKeyring()


def test_a_keyring_shows_names_and_roles_and_keeps_no_secret() -> None:
    ring = ApiKeyring.parse(TEXT)
    assert repr(ring) == "ApiKeyring(ann:observer, ben:operator, cy:admin)"
    assert b"first-secret" not in pickle.dumps(list(ring))
    assert "secret" not in repr(list(ring))
    assert len(ring) == 3


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "entry 1 has not the three parts name:role:secret"),
        ("ann:admin", "entry 1 has not the three parts name:role:secret"),
        ("ann:admin:long-secret,", "entry 2 has not the three parts name:role:secret"),
        (":admin:long-secret", "the name of entry 1 is not 1 to 64 letters, digits, dots, dashes and underscores"),
        ("a b:admin:long-secret", "the name of entry 1 is not 1 to 64 letters, digits, dots, dashes and underscores"),
        ("ann:root:long-secret", "the role of entry 1 is not one of observer, operator, admin"),
        ("ann:Admin:long-secret", "the role of entry 1 is not one of observer, operator, admin"),
        ("ann:admin:seven77", "the secret of entry 1 is shorter than 8 characters"),
        ("ann:admin:long secret", "the secret of entry 1 holds a character that no Authorization header can carry"),
        ("ann:admin:long-sécret", "the secret of entry 1 holds a character that no Authorization header can carry"),
        ("ann:admin:long-secret,ann:observer:other-secret", "entries 1 and 2 have the same name, 'ann'"),
        ("ann:admin:long-secret,ben:observer:long-secret", "entries 1 and 2 have the same secret"),
    ],
)
def test_a_bad_entry_is_named_by_its_place_and_never_by_its_secret(text: str, problem: str) -> None:
    with pytest.raises(ValueError) as caught:
        ApiKeyring.parse(text)
    assert str(caught.value) == problem


@pytest.mark.parametrize("role", list(Role))
def test_a_role_covers_itself_and_those_below(role: Role) -> None:
    below = list(Role)[: list(Role).index(role) + 1]
    assert [needed for needed in Role if role.covers(needed)] == below
