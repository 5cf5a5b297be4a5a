"""Sessions of browsers: a signed cookie that names a key and holds no secret, and the token that every change has to repeat."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import logging
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from application.services.api_keys import ApiKey, ApiKeyring
from domain.base64url import base64url, from_base64url

__all__ = ["COOKIE", "SESSION_S", "Session", "Sessions"]

_logger = logging.getLogger(__name__)

COOKIE = "conclave_session"
"""How the name of every cookie begins; the rest of it is the data folder's."""

SESSION_S = 12 * 60 * 60

_SECRET_FILE = "session.key"  # noqa: S105 - its name, not what it holds
_SIGNED_OUT = "signed-out"
_SECRET_BYTES = 32
_ID_BYTES = 16
_MARK_BYTES = 16
_COOKIE_CHARACTERS = 256
_LOOK_S = 0.5
_NOBODY = bytes(_MARK_BYTES)
_NOTE = re.compile(r"([0-9]{1,12})-[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Session:
    """One browser's session: `key` is whose, None on a server without keys; it ends at `expires_at`, in seconds since 1970."""

    id: bytes
    key: ApiKey | None
    expires_at: int


class Sessions:
    """Opens, recognises and ends sessions without keeping any: a cookie says all by itself, signed by a secret of the data folder.

    Every server on the same folder recognises the sessions of all others, also after a restart. A session ends by its time, by
    `end`, and when its key is gone. What a cookie says of the key is an HMAC, of use to nobody who guesses secrets.
    """

    def __init__(self, folder: Path, keys: ApiKeyring, *, now: Callable[[], float] = time.time) -> None:
        """Over the data folder. Neither is read or written before a first session is opened or recognised."""
        self._folder = folder
        self._keys = keys
        self._now = now
        self._secret: bytes | None = None
        self._ended: dict[bytes, int] = {}

    @property
    def cookie(self) -> str:
        """The name of the cookie. A browser gives the cookies of a host to all its ports, so each data folder has a name of its own."""
        return f"{COOKIE}_{self._key_for(b'name').hex()[:16]}"

    def among(self, cookies: Mapping[str, str]) -> Session | None:
        """The session that one of these cookies names while it lasts."""
        # Whoever has none that could be it makes nobody look for the folder's name.
        if not any(name.startswith(COOKIE) for name in cookies):
            return None
        value = cookies.get(self.cookie)
        return None if value is None else self.find(value)

    def open(self, key: ApiKey | None = None) -> tuple[Session, str]:
        """A new session and the value of its cookie."""
        session = Session(secrets.token_bytes(_ID_BYTES), key, int(self._now()) + SESSION_S)
        said = session.id + session.expires_at.to_bytes(8, "big") + self._mark(key)
        return session, f"{base64url(said)}.{base64url(self._signature(said))}"

    def find(self, cookie: str) -> Session | None:
        """The session of that cookie while it lasts, or None for everything else, however it is broken."""
        if len(cookie) > _COOKIE_CHARACTERS:
            return None
        said, _, signature = cookie.partition(".")
        try:
            said_bytes, signature_bytes = from_base64url(said), from_base64url(signature)
        except ValueError:
            return None
        if not hmac.compare_digest(self._signature(said_bytes), signature_bytes):
            return None
        if len(said_bytes) != _ID_BYTES + 8 + _MARK_BYTES:
            return None
        session_id, mark = said_bytes[:_ID_BYTES], said_bytes[-_MARK_BYTES:]
        expires_at = int.from_bytes(said_bytes[_ID_BYTES:-_MARK_BYTES], "big")
        if expires_at <= self._now() or self._is_ended(session_id, expires_at):
            return None
        if not self._keys:
            return Session(session_id, None, expires_at) if hmac.compare_digest(mark, _NOBODY) else None
        # Whose it is, is looked up among the keys of today: a role that was changed holds at once, a removed key ends it.
        key = next((key for key in self._keys if hmac.compare_digest(self._mark(key), mark)), None)
        return None if key is None else Session(session_id, key, expires_at)

    def end(self, session: Session) -> None:
        """Recognise it no more, here at once and in every other process on the same folder."""
        self._ended[session.id] = session.expires_at
        now = self._now()
        self._ended = {each: until for each, until in self._ended.items() if until > now}
        folder = self._folder / _SIGNED_OUT
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            (folder / _note(session.id, session.expires_at)).touch(mode=0o600)
            for note in list(folder.iterdir()):
                found = _NOTE.fullmatch(note.name)
                if found and int(found[1]) <= now:
                    note.unlink(missing_ok=True)
        except OSError as error:
            _logger.warning("that a session was ended is known to this process alone: %s", error)

    def lasts(self, session: Session) -> bool:
        """Whether it is still good: neither over, nor ended anywhere on the folder."""
        return session.expires_at > self._now() and not self._is_ended(session.id, session.expires_at)

    async def over(self, session: Session, *, look_s: float = _LOOK_S) -> None:
        """Return once it does not last any more, which is looked at every `look_s` seconds."""
        while True:
            if not self.lasts(session):
                return
            await asyncio.sleep(look_s)

    def token(self, session: Session) -> str:
        """What a change by this session has to repeat; nobody who cannot read the session's pages knows it."""
        return hmac.new(self._key_for(b"token"), session.id, hashlib.sha256).hexdigest()

    def knows(self, session: Session, token: str) -> bool:
        """Whether `token` is the session's; compared in constant time."""
        return hmac.compare_digest(self.token(session).encode(), token.encode(errors="surrogatepass"))

    def _is_ended(self, session_id: bytes, expires_at: int) -> bool:
        return session_id in self._ended or (self._folder / _SIGNED_OUT / _note(session_id, expires_at)).exists()

    def _mark(self, key: ApiKey | None) -> bytes:
        if key is None:
            return _NOBODY
        return hmac.new(self._key_for(b"key"), key.secret_sha256, hashlib.sha256).digest()[:_MARK_BYTES]

    def _signature(self, said: bytes) -> bytes:
        return hmac.new(self._key_for(b"cookie"), said, hashlib.sha256).digest()

    def _key_for(self, purpose: bytes) -> bytes:
        if self._secret is None:
            self._secret = _open_secret(self._folder / _SECRET_FILE)
        return hmac.new(self._secret, purpose, hashlib.sha256).digest()


def _open_secret(place: Path) -> bytes:
    """The secret in that file, made when there is none; processes that make it at once all return the same.

    A folder that cannot be written to gives a secret of this process alone, so that its sessions end with it. So does a file that
    others may read or write, or that holds something else.
    """
    try:
        with contextlib.suppress(FileExistsError):
            if not place.exists():
                _make_secret(place)
        return _read_secret(place)
    except (OSError, ValueError) as error:
        _logger.warning("sessions of browsers end with this process: %s cannot be used (%s)", _SECRET_FILE, error)
        return secrets.token_bytes(_SECRET_BYTES)


def _make_secret(place: Path) -> None:
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Written whole under another name and linked, which fails when somebody was first: nobody ever reads half a secret.
    with _draft_beside(place) as draft:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_hex(_SECRET_BYTES).encode() + b"\n")
            file.flush()
            os.fsync(descriptor)
        os.link(draft, place)


@contextlib.contextmanager
def _draft_beside(place: Path) -> Iterator[Path]:
    draft = place.with_name(f".{place.name}.{secrets.token_hex(8)}")
    try:
        yield draft
    finally:
        draft.unlink(missing_ok=True)


def _read_secret(place: Path) -> bytes:
    # Not blocking, because opening a pipe that nobody writes to would otherwise wait for ever.
    descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise ValueError("it is no file")
        if mode & 0o077:
            raise ValueError(
                f"its mode is {stat.S_IMODE(mode):04o}, so others may use it; remove it, and a new one is made"
            )
        held = file.read(1024).strip()
    try:
        secret = bytes.fromhex(held.decode("ascii"))
    except ValueError:
        secret = b""
    if len(secret) != _SECRET_BYTES:
        raise ValueError("it does not hold 32 bytes in hex; remove it, and a new one is made")
    return secret


def _note(session_id: bytes, expires_at: int) -> str:
    return f"{expires_at}-{session_id.hex()}"
