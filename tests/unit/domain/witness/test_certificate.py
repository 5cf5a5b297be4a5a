"""The certificate in the end of a deliberation: what was decided, who took part, and the root of the record that it follows from."""

from __future__ import annotations

import hashlib

from domain.witness.entry import record_of, sealed
from domain.witness.merkle import leaf_hash, root_hash

LEAVES = [leaf_hash(bytes([number])) for number in range(5)]


def test_the_record_of_a_certificate_is_the_merkle_root_of_the_leaves_before_it() -> None:
    assert record_of(LEAVES) == {"entries": 5, "root_hash": root_hash(LEAVES).hex()}


def test_an_end_is_sealed_over_the_entries_before_it() -> None:
    document = {"type": "deliberation.ended", "record_sha256": None, "certificate": {"decision": "yes", "record": None}}
    whole = sealed(document, LEAVES)
    assert whole["record_sha256"] == hashlib.sha256(b"".join(LEAVES)).hexdigest()
    assert whole["certificate"] == {"decision": "yes", "record": record_of(LEAVES)}
    assert document["record_sha256"] is None


def test_an_end_without_a_certificate_gets_none() -> None:
    assert "certificate" not in sealed({"record_sha256": None}, LEAVES)
