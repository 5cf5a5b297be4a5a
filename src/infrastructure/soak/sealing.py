"""Encryption of files with AES-256-GCM: what was sealed under one name cannot be put under another."""

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["KEY_BYTES", "Seal"]

KEY_BYTES = 32
_MARK = b"CSE1"
_NONCE = 12


class Seal:
    """One key of `KEY_BYTES` bytes. Raises `ValueError` for a key of another length."""

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"a key has {KEY_BYTES} bytes, not {len(key)}")
        self._cipher = AESGCM(key)

    def close(self, text: bytes, name: str) -> bytes:
        """Mark, nonce, ciphertext and tag; the name is bound in."""
        nonce = os.urandom(_NONCE)
        return _MARK + nonce + self._cipher.encrypt(nonce, text, name.encode())

    def open(self, sealed: bytes, name: str) -> bytes:
        """What was sealed. Raises `ValueError` for anything else."""
        if not sealed.startswith(_MARK):
            raise ValueError("is not sealed")
        body = sealed[len(_MARK) :]
        try:
            return self._cipher.decrypt(body[:_NONCE], body[_NONCE:], name.encode())
        except (InvalidTag, ValueError) as error:
            raise ValueError("was not sealed with this key under this name") from error
