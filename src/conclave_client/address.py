"""Where a server is, and the key that is shown to it and to nobody else."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from conclave_client.errors import UnusableArgumentError

__all__ = ["Address", "ApiKey"]

_TOKEN = re.compile(r"[!-~]{1,4096}")


class ApiKey:
    """A secret that no representation shows."""

    __slots__ = ("_secret",)

    def __init__(self, secret: str) -> None:
        if not _TOKEN.fullmatch(secret):
            raise UnusableArgumentError("api_key", "holds a character that no header can carry, or nothing at all")
        self._secret = secret

    @property
    def header(self) -> str:
        """The value of `Authorization`."""
        return f"Bearer {self._secret}"

    def __repr__(self) -> str:
        return "ApiKey(...)"

    def __reduce__(self) -> str:
        raise TypeError("a key is not written down")


@dataclass(frozen=True, slots=True)
class Address:
    """The scheme, host and port of a server, and the path that its calls stand under."""

    scheme: str
    host: str
    port: int
    path: str

    @classmethod
    def parse(cls, url: str) -> Address:
        """The address in an http or https URL. Raises `UnusableArgumentError`, which never repeats the URL."""
        wrong = UnusableArgumentError("url", "is not the http:// or https:// address of a server")
        if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
            raise wrong
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise wrong from None
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
            raise wrong
        if parts.username is not None or parts.password is not None:
            raise UnusableArgumentError("url", "holds a name or a password: give the key as api_key")
        standard = 443 if parts.scheme == "https" else 80
        return cls(parts.scheme, parts.hostname, standard if port is None else port, parts.path.rstrip("/"))

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine, so that no proxy stands between."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def keeps_secrets(self) -> bool:
        """Whether nobody on the way can read along."""
        return self.scheme == "https" or self.is_local

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"
