"""Published keys, notes and checkpoints, and such as tests sign themselves."""

from __future__ import annotations

from base64 import b64encode

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from domain.witness.checkpoint import (
    COSIGNATURE_V1,
    ED25519,
    Checkpoint,
    NoteSignature,
    SignedNote,
    VerifierKey,
    cosignature_message,
)

EXAMPLE_VKEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
EXAMPLE_NOTE = (
    "This is an example message.\n"
    "\n"
    "\u2014 example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
)
GO_VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
COSIGNED = (
    "example.com/behind-the-sofa\n"
    "20852163\n"
    "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    "\n"
    "\u2014 example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
    "\u2014 witness.example.com/w1 "
    "jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n"
)
ORIGIN = "conclave.example/log"
PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
KEY = VerifierKey(ORIGIN, ED25519, PRIVATE.public_key().public_bytes_raw())
CHECKPOINT = Checkpoint(ORIGIN, 151, bytes(range(32)))
ROOT_LINE = b64encode(bytes(range(32))).decode()


def check(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Ed25519, straight from the library."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except InvalidSignature:
        return False
    return True


def signed(text: str, key: VerifierKey = KEY) -> str:
    """The note with this text, signed by the tests' own key under the name of this one."""
    return str(SignedNote(text, (NoteSignature(key.name, key.key_id, PRIVATE.sign(text.encode())),)))


def cosigned(text: str, timestamp: int) -> tuple[VerifierKey, NoteSignature]:
    """The key of a witness and its cosignature at that second since 1970."""
    key = VerifierKey("witness.example/w1", COSIGNATURE_V1, KEY.public_key)
    signature = PRIVATE.sign(cosignature_message(text, timestamp))
    return key, NoteSignature(key.name, key.key_id, timestamp.to_bytes(8, "big") + signature)
