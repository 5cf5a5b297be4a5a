"""API keys: who may call, in which role, and how a presented secret is recognised."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

__all__ = ["MIN_SECRET_CHARACTERS", "ApiKey", "ApiKeyring", "Role"]

MIN_SECRET_CHARACTERS = 8

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SECRET = re.compile(r"[!-~]+")


class Role(StrEnum):
    """What the bearer of a key may do; each role may do all that the one before it may."""

    OBSERVER = "observer"
    OPERATOR = "operator"
    ADMIN = "admin"

    def covers(self, needed: Role) -> bool:
        """Whether this role may do what `needed` may."""
        order = tuple(Role)
        return order.index(self) >= order.index(needed)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A caller's name and role, and the SHA-256 of the secret in UTF-8; the secret itself is not kept."""

    name: str
    role: Role
    secret_sha256: bytes = field(repr=False)


class ApiKeyring:
    """Recognises presented secrets in a time that does not depend on which key they belong to, or on whether to any."""

    __slots__ = ("_keys",)

    def __init__(self, keys: Sequence[ApiKey] = ()) -> None:
        self._keys = tuple(keys)

    @classmethod
    def parse(cls, text: str) -> ApiKeyring:
        """The keys of `name:role:secret,...`, with blanks around each left out.

        Raises `ValueError` naming the first bad entry by its place and never by its secret.
        """
        keys: list[ApiKey] = []
        for number, entry in enumerate(text.split(","), start=1):
            key = _parsed(entry.strip(), number)
            for earlier_number, earlier in enumerate(keys, start=1):
                if key.name == earlier.name:
                    raise ValueError(f"entries {earlier_number} and {number} have the same name, {key.name!r}")
                if hmac.compare_digest(key.secret_sha256, earlier.secret_sha256):
                    raise ValueError(f"entries {earlier_number} and {number} have the same secret")
            keys.append(key)
        return cls(keys)

    def find(self, secret: str) -> ApiKey | None:
        """The key with that secret, or None. Every key is compared, in constant time each."""
        presented = _sha256(secret)
        found = None
        for key in self._keys:
            if hmac.compare_digest(key.secret_sha256, presented):
                found = key
        return found

    def __iter__(self) -> Iterator[ApiKey]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def __repr__(self) -> str:
        return f"ApiKeyring({', '.join(f'{key.name}:{key.role.value}' for key in self._keys)})"


def _parsed(entry: str, number: int) -> ApiKey:
    parts = entry.split(":", 2)
    if len(parts) < 3:
        raise ValueError(f"entry {number} has not the three parts name:role:secret")
    name, role, secret = (part.strip() for part in parts)
    if not _NAME.fullmatch(name):
        raise ValueError(f"the name of entry {number} is not 1 to 64 letters, digits, dots, dashes and underscores")
    if role not in set(Role):
        # What stands in the place of the role may be a secret that was put in the wrong order, so it is not repeated.
        raise ValueError(f"the role of entry {number} is not one of {', '.join(Role)}")
    if len(secret) < MIN_SECRET_CHARACTERS:
        raise ValueError(f"the secret of entry {number} is shorter than {MIN_SECRET_CHARACTERS} characters")
    if not _SECRET.fullmatch(secret):
        raise ValueError(f"the secret of entry {number} holds a character that no Authorization header can carry")
    return ApiKey(name, Role(role), _sha256(secret))


def _sha256(secret: str) -> bytes:
    return hashlib.sha256(secret.encode(errors="surrogatepass")).digest()
