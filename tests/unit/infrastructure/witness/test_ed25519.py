"""Signatures are those of RFC 8032, and nothing that is none is taken for one."""

from __future__ import annotations

import pickle

import pytest

from infrastructure.witness.ed25519 import SigningKey, verify_signature

# RFC 8032 section 7.1, tests 1, 2, 3 and SHA(abc): seed, public key, message, signature.
_VECTORS = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
    (
        "833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
        "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
        "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad9bef1177331a704",
    ),
]


@pytest.mark.parametrize(("seed", "public_key", "message", "signature"), _VECTORS)
def test_a_vector_of_the_rfc_is_signed_as_published(seed: str, public_key: str, message: str, signature: str) -> None:
    key = SigningKey.from_seed(bytes.fromhex(seed))
    assert key.public_key.hex() == public_key
    assert key.sign(bytes.fromhex(message)).hex() == signature


@pytest.mark.parametrize(("seed", "public_key", "message", "signature"), _VECTORS)
def test_a_vector_of_the_rfc_verifies_and_no_other_message_does(
    seed: str, public_key: str, message: str, signature: str
) -> None:
    key, text, proof = bytes.fromhex(public_key), bytes.fromhex(message), bytes.fromhex(signature)
    assert verify_signature(key, text, proof)
    assert not verify_signature(key, text + b"\x00", proof)
    assert not verify_signature(key, text, proof[:-1] + bytes([proof[-1] ^ 1]))


@pytest.mark.parametrize(("key_bytes", "signature_bytes"), [(31, 64), (33, 64), (0, 64), (32, 63), (32, 65), (32, 0)])
def test_keys_and_signatures_of_a_wrong_length_verify_nothing(key_bytes: int, signature_bytes: int) -> None:
    assert not verify_signature(bytes(key_bytes), b"message", bytes(signature_bytes))


def test_a_seed_brings_its_key_back() -> None:
    key = SigningKey.generate()
    assert SigningKey.from_seed(key.seed).public_key == key.public_key
    assert SigningKey.generate().public_key != key.public_key


def test_a_seed_of_a_wrong_length_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes, not 31"):
        SigningKey.from_seed(bytes(31))


def test_a_key_shows_its_secret_neither_in_print_nor_in_a_pickle() -> None:
    key = SigningKey.from_seed(b"\x07" * 32)
    assert (b"\x07" * 32).hex() not in repr(key)
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(key)
