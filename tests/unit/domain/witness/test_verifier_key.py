"""Public keys of a log as they are pinned: the published ones are read, and everything malformed is refused."""

from __future__ import annotations

import pytest

from domain.errors.witness import VerificationRefusedError
from domain.witness.checkpoint import (
    ED25519,
    VerifierKey,
)
from tests.unit.domain.witness.signed_notes import (
    EXAMPLE_VKEY,
    GO_VKEY,
)


@pytest.mark.parametrize("vkey", [EXAMPLE_VKEY, GO_VKEY])
def test_a_published_key_is_read_and_written_back_the_same(vkey: str) -> None:
    key = VerifierKey.parse(vkey)
    assert key.algorithm == ED25519
    assert str(key) == vkey
    assert key.key_id.hex() == vkey.split("+")[1]


def test_a_key_with_a_plus_in_its_base64_is_read() -> None:
    key = VerifierKey("example.com/log", ED25519, b"\xef\xbe\xfb" * 10 + b"\xef\xbe")
    assert str(key).count("+") > 2
    assert VerifierKey.parse(str(key)) == key


@pytest.mark.parametrize(("algorithm", "length"), [(0, 32), (2, 32), (6, 32), (255, 32), (1, 31), (1, 33), (4, 0)])
def test_a_key_that_cannot_be_is_not_made(algorithm: int, length: int) -> None:
    with pytest.raises(ValueError, match=r"algorithm|public key"):
        VerifierKey("name", algorithm, bytes(length))


@pytest.mark.parametrize(
    ("vkey", "reason"),
    [
        ("", "malformed"),
        ("example.com/foo", "malformed"),
        ("example.com/foo+530d903a", "there is no NAME"),
        (EXAMPLE_VKEY.replace("example.com/foo", ""), "malformed"),
        (EXAMPLE_VKEY.replace("foo", "f oo"), "malformed"),
        (EXAMPLE_VKEY.replace("foo", "\ud800"), "malformed"),
        (EXAMPLE_VKEY.replace("foo", "fop"), "names the id '530d903a'"),
        (EXAMPLE_VKEY.replace("530d903a", "530d903b"), "names the id '530d903b'"),
        (EXAMPLE_VKEY.replace("530d903a", "530D903A"), "names the id '530D903A'"),
        (EXAMPLE_VKEY.replace("530d903a", "530d903"), "names the id '530d903'"),
        (EXAMPLE_VKEY.replace("530d903a", "0530d903a"), "names the id '0530d903a'"),
        (EXAMPLE_VKEY.replace("AekyeRrm", "AekyeRrn"), "names the id '530d903a'"),
        (EXAMPLE_VKEY.replace("AekyeRrm", "BOkyeRrm"), "names the id '530d903a'"),
        (EXAMPLE_VKEY.replace("AekyeRrm", "BekyeRrm"), "algorithm 5 is unknown"),
        (EXAMPLE_VKEY.replace("AekyeRrm", "AukyeRrm"), "algorithm 2 is unknown"),
        (EXAMPLE_VKEY.replace("AekyeRrm", "Aeky*Rrm"), "not base64"),
        (EXAMPLE_VKEY[:-1], "not base64"),
        (EXAMPLE_VKEY[:-4], "29 bytes"),
        (EXAMPLE_VKEY + "AAAA", "35 bytes"),
        (EXAMPLE_VKEY + "\n", "not base64"),
        (" " + EXAMPLE_VKEY, "malformed"),
    ],
)
def test_a_malformed_key_is_refused(vkey: str, reason: str) -> None:
    with pytest.raises(VerificationRefusedError, match=reason):
        VerifierKey.parse(vkey)
