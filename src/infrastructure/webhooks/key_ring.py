"""The keys that webhooks are signed with: one that signs, in a file of its own, and the public parts of those before it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from application.ports.clock import Clock, SystemClock
from domain.base64url import base64url, from_base64url
from domain.errors.configuration import ConfigurationError
from infrastructure.private_files import opened_folder, replace_file
from infrastructure.witness.ed25519 import SigningKey
from infrastructure.witness.key_file import open_signing_key

__all__ = ["WebhookKeyRing", "WebhookSigningKey", "jwk_of", "thumbprint"]

RETIRED_FOR = timedelta(days=7)
"""For so long a key that signs no more is still named, for messages that are under way and readers that kept the old set."""

_KEY, _RETIRED, _LOCK = "webhook.key", "webhook.retired.json", "webhook.lock"
_NAME = "conclave-webhooks"
_MAX_RETIRED = 100
_MAX_RETIRED_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class WebhookSigningKey:
    """A key, and the name that receivers look its public part up by."""

    key_id: str
    key: SigningKey


class WebhookKeyRing:
    """Keeps the keys in a folder; a key that another process has put there meanwhile is used from the next message on.

    Blocks for as long as small files take. Raises `ConfigurationError` where they cannot be used.
    """

    def __init__(self, folder: Path, *, clock: Clock | None = None) -> None:
        self._folder = folder
        self._clock = clock if clock is not None else SystemClock()
        self._known: tuple[tuple[int, int], WebhookSigningKey] | None = None

    def signing_key(self) -> WebhookSigningKey:
        """The key that signs now; made where there is none, and by several processes at once the same."""
        path = self._folder / _KEY
        stamp = _stamp(path)
        known = self._known
        if known is not None and stamp is not None and known[0] == stamp:
            return known[1]
        with _named(path):
            key = open_signing_key(path, create=True, name=_NAME)
        found = WebhookSigningKey(thumbprint(key.public_key), key)
        # Under the stamp from before: where the file was replaced meanwhile, the next look finds another one.
        self._known = None if stamp is None else (stamp, found)
        return found

    def public_keys(self) -> dict[str, Any]:
        """The JWK set (RFC 7517): the key that signs first, if there is one, then those that were retired less than a week ago."""
        present = [jwk_of(self.signing_key().key.public_key)] if (self._folder / _KEY).exists() else []
        known = {key["kid"] for key in present}
        return {"keys": [*present, *(jwk for jwk, _ in self._retired() if jwk["kid"] not in known)]}

    def rotate(self) -> WebhookSigningKey:
        """Sign with a new key from now on; the one before is named for a week more, of which there may be a hundred at a time."""
        with self._locked():
            before = jwk_of(self.signing_key().key.public_key)
            # It stands there already where the machine stopped in the middle of an earlier rotation.
            others = [(jwk, at) for jwk, at in self._retired() if jwk["kid"] != before["kid"]]
            if len(others) >= _MAX_RETIRED:
                raise ConfigurationError(
                    variable="CONCLAVE_DATA_DIR",
                    problem=f"{len(others)} keys of webhooks were retired within a week, and each is still named",
                    remedy="Rotate less often.",
                )
            # First, so that whatever a crash leaves behind, no message was signed with a key that nobody can look up.
            self._write_retired([(before, self._clock.now()), *others])
            draft = self._folder / f".{_KEY}.{secrets.token_hex(8)}"
            try:
                open_signing_key(draft, create=True, name=_NAME)
                draft.replace(self._folder / _KEY)
            finally:
                with suppress(FileNotFoundError):
                    draft.unlink()
            with opened_folder(self._folder) as folder:
                os.fsync(folder)
            return self.signing_key()

    def _retired(self) -> list[tuple[dict[str, Any], datetime]]:
        path = self._folder / _RETIRED
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _refused(f"{str(path)!r} cannot be read ({error.strerror})") from error
        try:
            kept = [
                (jwk_of(from_base64url(each["key"]["x"])), datetime.fromisoformat(each["retired_at"]))
                for each in json.loads(content[:_MAX_RETIRED_BYTES])["retired"]
            ]
            horizon = self._clock.now() - RETIRED_FOR
            return [(jwk, at) for jwk, at in kept if at > horizon]
        except (ValueError, TypeError, KeyError) as error:
            raise _refused(f"{str(path)!r} is not the list of retired keys that was written there") from error

    def _write_retired(self, kept: list[tuple[dict[str, Any], datetime]]) -> None:
        document = {"retired": [{"key": jwk, "retired_at": at.isoformat()} for jwk, at in kept]}
        try:
            with opened_folder(self._folder) as folder:
                replace_file(_RETIRED, json.dumps(document).encode(), within=folder, synced=True)
        except OSError as error:
            raise _refused(f"{str(self._folder / _RETIRED)!r} cannot be written ({error.strerror})") from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            descriptor = os.open(self._folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _refused(f"{str(self._folder / _LOCK)!r} cannot be opened ({error.strerror})") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def jwk_of(public_key: bytes) -> dict[str, Any]:
    """An Ed25519 key (32 bytes) as a JWK (RFC 8037), its `kid` the thumbprint."""
    return {"kty": "OKP", "crv": "Ed25519", "x": base64url(public_key), "kid": thumbprint(public_key), "use": "sig"}


def thumbprint(public_key: bytes) -> str:
    """The SHA-256 thumbprint of an Ed25519 key (RFC 7638, RFC 8037 appendix A.3), base64url without padding."""
    members = f'{{"crv":"Ed25519","kty":"OKP","x":"{base64url(public_key)}"}}'
    return base64url(hashlib.sha256(members.encode()).digest())


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Within it a key file that cannot be used is said to be this one, and not that of the record."""
    try:
        yield
    except ConfigurationError as error:
        remedy = f"Mend {str(path)!r}, or move it away: a new key is made, which the receivers then look up."
        raise ConfigurationError(variable="CONCLAVE_DATA_DIR", problem=error.problem, remedy=remedy) from error


def _refused(problem: str) -> ConfigurationError:
    return ConfigurationError(
        variable="CONCLAVE_DATA_DIR", problem=problem, remedy="See that this user may use it, or move it away."
    )
