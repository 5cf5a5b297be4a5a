"""A checkpoint that was signed opens with the signer's own key and with no other."""

from __future__ import annotations

import pytest

from domain.errors.configuration import ConfigurationError
from domain.errors.witness import VerificationRefusedError
from domain.witness.checkpoint import ED25519, VerifierKey, open_checkpoint
from infrastructure.witness.ed25519 import SigningKey, verify_signature
from infrastructure.witness.signer import CheckpointSigner

_ROOT = bytes(range(32))


def test_a_signed_checkpoint_opens_with_the_key_that_is_published() -> None:
    signer = CheckpointSigner(SigningKey.from_seed(b"\x01" * 32), "log.example/conclave")
    published = VerifierKey.parse(str(signer.verifier_key))
    checkpoint, _ = open_checkpoint(signer.sign(151, _ROOT), published, verify_signature, origin="log.example/conclave")
    assert (checkpoint.tree_size, checkpoint.root_hash) == (151, _ROOT)
    assert (published.name, published.algorithm) == ("log.example/conclave", ED25519)


def test_another_key_of_the_same_origin_does_not_open_it() -> None:
    note = CheckpointSigner(SigningKey.from_seed(b"\x01" * 32), "log.example").sign(1, _ROOT)
    other = CheckpointSigner(SigningKey.from_seed(b"\x02" * 32), "log.example").verifier_key
    with pytest.raises(VerificationRefusedError):
        open_checkpoint(note, other, verify_signature)


def test_a_changed_size_is_refused() -> None:
    signer = CheckpointSigner(SigningKey.from_seed(b"\x01" * 32), "log.example")
    with pytest.raises(VerificationRefusedError):
        open_checkpoint(signer.sign(10, _ROOT).replace("\n10\n", "\n11\n"), signer.verifier_key, verify_signature)


def test_the_same_head_is_signed_the_same_twice() -> None:
    signer = CheckpointSigner(SigningKey.generate(), "log.example")
    assert signer.sign(7, _ROOT) == signer.sign(7, _ROOT)


@pytest.mark.parametrize("origin", ["", "two words", "a+b", "line\nbreak"])
def test_an_origin_that_is_no_name_stops_the_start(origin: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        CheckpointSigner(SigningKey.generate(), origin)
    assert caught.value.variable == "CONCLAVE_WITNESS_ORIGIN"
