"""Signed statements about a log's size and root (C2SP tlog-checkpoint, signed-note and tlog-cosignature)."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256

from domain.errors.witness import VerificationRefusedError

__all__ = [
    "COSIGNATURE_V1",
    "ED25519",
    "Checkpoint",
    "NoteSignature",
    "SignatureCheck",
    "SignedNote",
    "VerifierKey",
    "cosignature_message",
    "open_checkpoint",
]

ED25519 = 1
COSIGNATURE_V1 = 4

SignatureCheck = Callable[[bytes, bytes, bytes], bool]
"""check(public_key, message, signature): whether the Ed25519 signature (64 bytes) is the key's (32 bytes)."""

_HASH_SIZE = 32
_PUBLIC_KEY_SIZE = 32
_SIGNATURE_SIZE = 64
_KEY_ID_SIZE = 4
_TIMESTAMP_SIZE = 8
_MAX_INT64 = 2**63 - 1
_MAX_NOTE_CHARACTERS = 1_000_000
_MAX_SIGNATURES = 100
_SIGNATURE_LINE_START = "\u2014 "
_TREE_SIZE = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
# A note has no ASCII control character but the newline.
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a log says of itself at one moment: who it is, how many entries it has and their root (32 bytes).

    Raises ValueError where a checkpoint could not be written so that it reads back the same.
    """

    origin: str
    tree_size: int
    root_hash: bytes
    extensions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _require_name("origin", self.origin)
        if not 0 <= self.tree_size <= _MAX_INT64:
            raise ValueError(f"the tree size {self.tree_size!r} is not from 0 to {_MAX_INT64}; give a count of leaves")
        if len(self.root_hash) != _HASH_SIZE:
            raise ValueError(f"the root hash has {len(self.root_hash)} bytes; give the {_HASH_SIZE} of a SHA-256")
        for line in self.extensions:
            if not line or "\n" in line or _CONTROL.search(line):
                raise ValueError(f"the extension {line!r} is empty or more than a line; give one line of text each")

    def body(self) -> str:
        """The note's text that is signed, one line for each fact, ending in a newline."""
        lines = (self.origin, str(self.tree_size), _base64(self.root_hash), *self.extensions)
        return "".join(f"{line}\n" for line in lines)

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """Reads what `body` writes. Raises VerificationRefusedError for anything that is not exactly that."""
        lines = text.split("\n")
        if lines.pop() != "":
            raise VerificationRefusedError("the checkpoint does not end in a newline")
        if len(lines) < 3:
            raise VerificationRefusedError(
                f"the checkpoint has {len(lines)} lines; it needs an origin, a size and a root"
            )
        origin, size, root, *extensions = lines
        if not _TREE_SIZE.fullmatch(size):
            raise VerificationRefusedError(
                f"the checkpoint's tree size {size!r} is not a decimal without leading zeros"
            )
        root_hash = _read_base64("root hash of the checkpoint", root)
        try:
            return cls(origin, int(size), root_hash, tuple(extensions))
        except ValueError as error:
            raise VerificationRefusedError(f"the checkpoint is malformed: {error}") from error


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One signature line of a note: the key's name, its id (4 bytes) and what it signed with. `str` is the line."""

    name: str
    key_id: bytes
    signature: bytes

    def __post_init__(self) -> None:
        _require_name("key name", self.name)
        if len(self.key_id) != _KEY_ID_SIZE:
            raise ValueError(f"the key id {self.key_id!r} has {len(self.key_id)} bytes; give {_KEY_ID_SIZE}")
        if not self.signature:
            raise ValueError(f"the signature of {self.name!r} is empty; sign the note's text first")

    def __str__(self) -> str:
        return f"{_SIGNATURE_LINE_START}{self.name} {_base64(self.key_id + self.signature)}"


@dataclass(frozen=True, slots=True)
class SignedNote:
    """A text that ends in a newline, and the signatures below it. Nothing here says that a signature is true."""

    text: str
    signatures: tuple[NoteSignature, ...]

    def __post_init__(self) -> None:
        if not self.text.endswith("\n") or _CONTROL.search(self.text):
            raise ValueError("a note's text ends in a newline and has no other control character; give it that form")

    def __str__(self) -> str:
        return self.text + "\n" + "".join(f"{signature}\n" for signature in self.signatures)

    @classmethod
    def parse(cls, text: str) -> SignedNote:
        """Reads what `str` writes of a note with 1 to 100 signatures, of a million characters at most.

        Raises VerificationRefusedError for anything that is not exactly that.
        """
        if len(text) > _MAX_NOTE_CHARACTERS:
            raise VerificationRefusedError(
                f"the note has {len(text)} characters; at most {_MAX_NOTE_CHARACTERS} are read"
            )
        control = _CONTROL.search(text)
        if control:
            raise VerificationRefusedError(f"the note has the control character {control.group()!r} in it")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise VerificationRefusedError("the note cannot be written as UTF-8") from error
        # The last empty line parts the text from the signatures: the text itself may have empty lines.
        body, blank, signed = text.rpartition("\n\n")
        if not blank:
            raise VerificationRefusedError("the note has no blank line between its text and its signatures")
        lines = signed.split("\n")
        if lines.pop() != "":
            raise VerificationRefusedError("the note does not end in a newline")
        if not lines:
            raise VerificationRefusedError("the note has no signature after its last blank line")
        if len(lines) > _MAX_SIGNATURES:
            raise VerificationRefusedError(f"the note has {len(lines)} signatures; at most {_MAX_SIGNATURES} are read")
        return cls(body + "\n", tuple(_read_signature(line) for line in lines))


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key and whose it is. The algorithm is 1 (Ed25519) or 4 (cosignature/v1), the key 32 bytes.

    `str` gives the C2SP vkey: name+id+base64. Raises ValueError for any other name, algorithm or length.
    """

    name: str
    algorithm: int
    public_key: bytes

    def __post_init__(self) -> None:
        _require_name("key name", self.name)
        if self.algorithm not in (ED25519, COSIGNATURE_V1):
            raise ValueError(f"the key's algorithm {self.algorithm!r} is unknown; take {ED25519} or {COSIGNATURE_V1}")
        if len(self.public_key) != _PUBLIC_KEY_SIZE:
            raise ValueError(f"the public key has {len(self.public_key)} bytes; Ed25519 has {_PUBLIC_KEY_SIZE}")

    @property
    def key_id(self) -> bytes:
        """The first 4 bytes of SHA-256(name || newline || algorithm || public key), as signed-note recommends."""
        return sha256(self.name.encode() + b"\n" + self._material()).digest()[:_KEY_ID_SIZE]

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{_base64(self._material())}"

    @classmethod
    def parse(cls, vkey: str) -> VerifierKey:
        """Reads a C2SP vkey. Raises VerificationRefusedError where it is malformed or its id is not its key's."""
        name, _, rest = vkey.partition("+")
        key_id, _, encoded = rest.partition("+")
        material = _read_base64("key of the verifier key", encoded)
        if not material:
            raise VerificationRefusedError(f"the verifier key {vkey!r} is malformed: there is no NAME+ID+KEY in it")
        try:
            key = cls(name, material[0], material[1:])
            computed_id = key.key_id.hex()
        except ValueError as error:
            raise VerificationRefusedError(f"the verifier key {vkey!r} is malformed: {error}") from error
        if key_id != computed_id:
            raise VerificationRefusedError(
                f"the verifier key {vkey!r} names the id {key_id!r}", evidence={"computed_id": computed_id}
            )
        return key

    def _material(self) -> bytes:
        return bytes((self.algorithm,)) + self.public_key


def cosignature_message(note_text: str, timestamp: int) -> bytes:
    """What a witness signs: the time (seconds since 1970) and the checkpoint's body without any signature line.

    The signature in the note is the timestamp as 8 bytes, big endian, and then the 64 bytes of Ed25519. Raises
    ValueError where the time is not from 0 to 2**63 - 1 or the text is not the body of a checkpoint.
    """
    if not 0 <= timestamp <= _MAX_INT64:
        raise ValueError(f"the time {timestamp!r} is not from 0 to {_MAX_INT64}; give seconds since 1970")
    if not note_text.endswith("\n") or "\n\n" in note_text:
        raise ValueError("only a checkpoint's body is cosigned; give its text without the signatures")
    return f"cosignature/v1\ntime {timestamp}\n{note_text}".encode()


def open_checkpoint(
    note_text: str, key: VerifierKey, check: SignatureCheck, *, origin: str | None = None
) -> tuple[Checkpoint, SignedNote]:
    """Reads a signed checkpoint that the key has signed, of this origin unless that is None (then of any).

    Signatures by other keys are passed over. Raises VerificationRefusedError where the note is malformed, where the
    key has not signed it or one of its signatures is wrong, and where it is no checkpoint of that origin.
    """
    note = SignedNote.parse(note_text)
    key_id = key.key_id
    own = [each for each in note.signatures if each.name == key.name and each.key_id == key_id]
    if not own:
        signers = ", ".join(f"{each.name}+{each.key_id.hex()}" for each in note.signatures)
        raise VerificationRefusedError(
            f"the checkpoint has no signature by {key.name!r}",
            evidence={"expected_key": f"{key.name}+{key_id.hex()}", "signed_by": signers},
        )
    for each in own:
        if not _has_signed(note.text, key, each.signature, check):
            raise VerificationRefusedError(
                f"the signature by {key.name!r} is not one of this text", evidence={"signature": each.signature.hex()}
            )
    checkpoint = Checkpoint.parse(note.text)
    if origin is not None and checkpoint.origin != origin:
        raise VerificationRefusedError(
            "the checkpoint is of another log", evidence={"expected_origin": origin, "origin": checkpoint.origin}
        )
    return checkpoint, note


def _has_signed(text: str, key: VerifierKey, signature: bytes, check: SignatureCheck) -> bool:
    message = text.encode()
    if key.algorithm == COSIGNATURE_V1:
        timestamp, signature = int.from_bytes(signature[:_TIMESTAMP_SIZE], "big"), signature[_TIMESTAMP_SIZE:]
        try:
            message = cosignature_message(text, timestamp)
        except ValueError:
            return False
    return len(signature) == _SIGNATURE_SIZE and check(key.public_key, message, signature)


def _read_signature(line: str) -> NoteSignature:
    if not line.startswith(_SIGNATURE_LINE_START):
        raise VerificationRefusedError(f"the signature line {line!r} does not begin with an em dash and a space")
    name, space, encoded = line.removeprefix(_SIGNATURE_LINE_START).partition(" ")
    if not space:
        raise VerificationRefusedError(f"the signature line {line!r} has no signature after its key name")
    data = _read_base64(f"signature by {name!r}", encoded)
    try:
        return NoteSignature(name, data[:_KEY_ID_SIZE], data[_KEY_ID_SIZE:])
    except ValueError as error:
        raise VerificationRefusedError(f"the signature line {line!r} is malformed: {error}") from error


def _require_name(what: str, name: str) -> None:
    # Every Unicode space counts, also those that end a line for some readers.
    if not name or "+" in name or _CONTROL.search(name) or any(character.isspace() for character in name):
        raise ValueError(f"the {what} {name!r} is empty or has a space, plus or newline; write it like example.com/log")


def _base64(data: bytes) -> str:
    return b64encode(data).decode("ascii")


def _read_base64(what: str, encoded: str) -> bytes:
    try:
        data = b64decode(encoded, validate=True)
    except ValueError as error:
        raise VerificationRefusedError(f"the {what} is not base64: {encoded!r}") from error
    # One value has one spelling: otherwise two different notes would carry the same signature.
    if _base64(data) != encoded:
        raise VerificationRefusedError(f"the {what} is not in canonical base64: {encoded!r}")
    return data
