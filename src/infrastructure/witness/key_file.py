"""Keeps the private key that signs checkpoints in a file that only its owner may read."""

from __future__ import annotations

import base64
import binascii
import os
import secrets
import stat
from pathlib import Path

from domain.errors.configuration import ConfigurationError
from domain.witness.checkpoint import ED25519, VerifierKey
from infrastructure.witness.ed25519 import SEED_BYTES, SigningKey

__all__ = ["open_signing_key"]

_VARIABLE = "CONCLAVE_WITNESS_KEY_FILE"
_ED25519 = bytes([ED25519])
_PREFIX = ["PRIVATE", "KEY"]
_MOST_BYTES = 4096


def open_signing_key(path: Path, *, create: bool, name: str = "conclave") -> SigningKey:
    """The key in the file at `path`; with `create`, a new one when there is no such file.

    The file holds one line, the private form of C2SP signed-note keys: `PRIVATE+KEY+name+hash+base64(algorithm, seed)`; `name` stands in
    a new file only. When several processes create it at once, all of them return the same key. Raises `ConfigurationError` when the
    file is missing, unreadable, not private to its owner, or not such a line. No message shows what stands in it.
    """
    try:
        place = Path(os.path.realpath(path))
        if create and not place.exists():
            _create(place, name)
        return _parsed(_read(place), place)
    except OSError as error:
        raise _refused(f"the key file {str(path)!r} cannot be used: {error.strerror}", _REMEDY_ACCESS) from error


def _create(place: Path, name: str) -> None:
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Written whole under another name and linked, which fails when somebody was first: nobody ever reads half a key.
    draft = place.with_name(f".{place.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o600)
            file.write(_line(SigningKey.generate(), name).encode())
            file.flush()
            os.fsync(descriptor)
        try:
            os.link(draft, place)
        except FileExistsError:
            return
    finally:
        draft.unlink()
    _sync_folder(place.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(place: Path) -> bytes:
    # Not blocking, because opening a pipe that nobody writes to would otherwise wait for ever.
    descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise _refused(f"{str(place)!r} is no file", _REMEDY_ACCESS)
        if mode & 0o077:
            raise _refused(
                f"the key file {str(place)!r} has mode {stat.S_IMODE(mode):04o}, so others may use the key",
                "Take their rights away (chmod 600), and use another key if somebody may have read this one.",
            )
        return file.read(_MOST_BYTES + 1)


def _line(key: SigningKey, name: str) -> str:
    material = base64.b64encode(_ED25519 + key.seed).decode()
    return f"{'+'.join(_PREFIX)}+{name}+{_key_hash(name, key.public_key)}+{material}\n"


def _key_hash(name: str, public_key: bytes) -> str:
    return VerifierKey(name, ED25519, public_key).key_id.hex()


def _parsed(content: bytes, place: Path) -> SigningKey:
    if not content.strip():
        raise _refused(f"the key file {str(place)!r} is empty", _REMEDY_CONTENT)
    malformed = _refused(f"the key file {str(place)!r} holds no Ed25519 key in signed-note form", _REMEDY_CONTENT)
    try:
        # Four from the left, because base64 may hold a plus sign itself.
        *prefix, name, key_hash, material = content.decode().removesuffix("\n").split("+", 4)
        seed = base64.b64decode(material, validate=True)
    except (ValueError, binascii.Error):
        # Without the cause, which may quote the secret.
        raise malformed from None
    if len(content) > _MOST_BYTES or prefix != _PREFIX or seed[:1] != _ED25519 or len(seed) != 1 + SEED_BYTES:
        raise malformed
    key = SigningKey.from_seed(seed[1:])
    try:
        matches = key_hash == _key_hash(name, key.public_key)
    except ValueError:
        raise malformed from None
    if not matches:
        raise _refused(f"the key file {str(place)!r} is damaged: its key does not match its hash", _REMEDY_CONTENT)
    return key


_REMEDY_ACCESS = (
    "Name a file that this user can read, with mode 0600, or none to have one created in the data directory."
)
_REMEDY_CONTENT = "Restore it from a backup; without one, move it away, and a new key is created that the readers of the log must pin."


def _refused(problem: str, remedy: str) -> ConfigurationError:
    return ConfigurationError(variable=_VARIABLE, problem=problem, remedy=remedy)
