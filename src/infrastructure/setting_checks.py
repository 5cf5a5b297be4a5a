"""What a setting has to be like: each check gives the value as it is used, or raises `ValueError` saying what is wrong with it."""

from __future__ import annotations

import ipaddress
import re
import stat
from collections.abc import Callable
from pathlib import Path

from domain.models.run_event import is_run_id
from infrastructure.webhooks.receivers import parse_receivers

__all__ = [
    "absolute",
    "addresses",
    "entries",
    "existing_file",
    "existing_folder",
    "folder_to_be",
    "log_name",
    "on_one_line",
    "receivers",
    "run_id",
    "traces_url",
    "with_scheme",
    "without_spaces",
]


# What stands between the host and the path, as SQLAlchemy and redis-py read it: an unescaped password may hold anything but an at sign.
_PORT = re.compile(r"(?:[^:/]*(?::[^@]*)?@)?+(?:\[[^/?]+\]|[^/:?]*):([^/?]*)")
_MAX_PORT = 65535


def absolute(path: Path) -> Path:
    """The path from the root on, `~` resolved."""
    if not str(path).isprintable():
        raise ValueError("the path holds control characters")
    try:
        return path.expanduser().absolute()
    except RuntimeError as error:
        raise ValueError(f"{str(path)!r} begins with the home folder of nobody known") from error


def existing_file(path: Path) -> Path:
    """A path at which there is a file."""
    if not stat.S_ISREG(_mode(path)):
        raise ValueError(f"there is no file {str(path)!r}")
    return path


def existing_folder(path: Path) -> Path:
    """A path at which there is a folder."""
    if not stat.S_ISDIR(_mode(path)):
        raise ValueError(f"there is no folder {str(path)!r}")
    return path


def folder_to_be(path: Path) -> Path:
    """A path at which there is a folder, or nothing yet, and that the address of a database can carry."""
    mode = _mode(path)
    if mode and not stat.S_ISDIR(mode):
        raise ValueError(f"{str(path)!r} is a file, not a folder")
    if "?" in str(path):
        raise ValueError(f"{str(path)!r} holds a question mark, which no address of a database can carry")
    return path


def on_one_line(text: str) -> str:
    """Up to 1024 characters on one line, without blanks around them."""
    if not text.isprintable() or len(text) > 1024:
        raise ValueError("it is not one line of at most 1024 printable characters")
    return text.strip()


def without_spaces(text: str) -> str:
    """A text without blanks and control characters."""
    if not text.isprintable() or " " in text:
        raise ValueError("it holds blanks or control characters")
    return text


def log_name(text: str) -> str:
    """What a log can be called in its checkpoints (C2SP signed note)."""
    if "+" in text:
        raise ValueError(f"{text!r} cannot name a log")
    return without_spaces(text)


def run_id(text: str) -> str:
    """The id of a run."""
    if not is_run_id(text):
        raise ValueError(f"{text!r} is no id of a run")
    return text


def entries(value: object) -> object:
    """What stands between commas; what is no text stays as it is."""
    return tuple(entry.strip() for entry in value.split(",") if entry.strip()) if isinstance(value, str) else value


def with_scheme(*schemes: str) -> Callable[[str], str]:
    """The check of an address that begins with one of these schemes, and has a port that there can be if it names one."""

    def check(address: str) -> str:
        scheme, separator, rest = address.partition("://")
        if scheme in schemes and separator and address.isprintable():
            named_port = _PORT.match(rest)
            if named_port and named_port[1] and not _is_port(named_port[1]):
                # Where the host was forgotten, this is the password.
                raise ValueError(f"its port is no whole number from 1 to {_MAX_PORT}")
            return address
        named = (
            f"the scheme {scheme!r} is not one of"
            if separator and scheme.isalnum()
            else "it does not begin with one of"
        )
        raise ValueError(f"{named} {', '.join(schemes)}")

    return check


def traces_url(address: str) -> str:
    """Where an OTLP/HTTP collector takes traces, given its base address, as the specification of the exporter has it."""
    base = address.rstrip("/")
    return base if base.endswith("/v1/traces") else f"{base}/v1/traces"


def addresses(given: tuple[str, ...]) -> tuple[str, ...]:
    """Networks and addresses, or `*` for all."""
    for entry in given:
        if entry != "*":
            # Its own error names the entry. Host bits are refused: who writes 10.0.0.1/8 may not mean all of it.
            ipaddress.ip_network(entry)
    return given


def receivers(given: tuple[str, ...]) -> tuple[str, ...]:
    """Webhooks, each an address or NAME=ADDRESS."""
    parse_receivers(given)
    return given


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdecimal() and 1 <= int(text[:6]) <= _MAX_PORT


def _mode(path: Path) -> int:
    """The kind and rights of what is there, 0 when nothing is."""
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return 0
    except OSError as error:
        raise ValueError(f"the path cannot be looked at: {error.strerror}") from error
