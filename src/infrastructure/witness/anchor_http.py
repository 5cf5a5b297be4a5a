"""Anchors checkpoints over HTTP: at a webhook, and at a witness that cosigns them (C2SP tlog-witness)."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import aiohttp

from application.ports.anchor import AnchorConflictError
from domain.errors.dependency import DependencyUnavailableError
from domain.errors.witness import VerificationRefusedError
from domain.witness.checkpoint import Checkpoint, SignedNote, VerifierKey, open_checkpoint
from infrastructure.witness.ed25519 import verify_signature

__all__ = ["CosignerAnchor", "WebhookAnchor"]

_MOST_REPLY_BYTES = 64 * 1024
# The size in a 409; one more digit would not fit into what a checkpoint can say.
_SIZE = re.compile(rb"(0|[1-9][0-9]{0,18})\n")


@dataclass(frozen=True, slots=True)
class _Reply:
    status: int
    body: bytes


class WebhookAnchor:
    """Posts each checkpoint as text/plain. Kept means: answered with a status from 200 to 299. Redirects are refused."""

    def __init__(self, url: str, *, timeout_s: float = 10.0) -> None:
        self._url = url
        self._timeout_s = timeout_s
        # Not the path and the query: they are often the secret of a webhook.
        self.name = f"webhook:{urlsplit(url).netloc}"

    async def publish(self, note: str, *, old_size: int = 0, consistency: Sequence[bytes] = ()) -> None:
        """Post the checkpoint. Raises `DependencyUnavailableError` unless it was taken."""
        del old_size, consistency
        reply = await _post(self.name, self._url, note, timeout_s=self._timeout_s)
        if not 200 <= reply.status < 300:
            raise _unavailable(self.name, f"it answered with status {reply.status}")

    async def latest(self) -> str | None:
        """None: a webhook cannot be asked."""
        return None


class CosignerAnchor:
    """Has each checkpoint cosigned by a witness, and holds a cosignature only when it verifies with that witness's key."""

    def __init__(self, url: str, key: VerifierKey, *, timeout_s: float = 10.0) -> None:
        """`url` is the submission prefix, `key` of the witness (algorithm 4)."""
        self._url = f"{url}/add-checkpoint"
        self._key = key
        self._timeout_s = timeout_s
        self._cosigned: str | None = None
        self.name = f"witness:{key.name}"

    async def publish(self, note: str, *, old_size: int, consistency: Sequence[bytes]) -> None:
        """Have the checkpoint cosigned, from the size that the witness cosigned last (0: nothing yet).

        Raises `AnchorConflictError` when that was another, `VerificationRefusedError` when the witness saw another root or proof, or when
        its answer is no cosignature by its key, and `DependencyUnavailableError` for the rest.
        """
        proof = "".join(f"{base64.b64encode(each).decode()}\n" for each in consistency)
        body = f"old {old_size}\n{proof}\n{note}"
        reply = await _post(self.name, self._url, body, timeout_s=self._timeout_s)
        match reply.status:
            case 200:
                self._cosigned = self._with_cosignature(note, reply.body)
            case 409:
                raise self._conflict(note, old_size, reply.body)
            case 422:
                raise VerificationRefusedError(
                    f"{self.name} refuses the proof that the log extends what it cosigned",
                    evidence={"cosigned_size": str(old_size)},
                )
            case 403 | 404:
                raise _unavailable(
                    self.name,
                    f"it does not know this log or its key (status {reply.status})",
                    "Have its operator add the origin and the vkey that `conclave witness key` prints.",
                )
            case status:
                raise _unavailable(self.name, f"it answered with status {status}")

    async def latest(self) -> str | None:
        """The last checkpoint that the witness cosigned for this process, cosignature included; None before the first."""
        return self._cosigned

    def _with_cosignature(self, note: str, lines: bytes) -> str:
        try:
            answered = SignedNote.parse(note + lines.decode())
        except (UnicodeDecodeError, VerificationRefusedError) as error:
            raise VerificationRefusedError(f"{self.name} answered with no signature lines") from error
        ours = SignedNote.parse(note)
        # Signatures by keys that nobody pinned are left out, as the protocol wants it.
        added = tuple(
            each
            for each in answered.signatures[len(ours.signatures) :]
            if each.name == self._key.name and each.key_id == self._key.key_id
        )
        cosigned = str(SignedNote(ours.text, ours.signatures + added))
        open_checkpoint(cosigned, self._key, verify_signature)
        return cosigned

    def _conflict(self, note: str, old_size: int, body: bytes) -> Exception:
        stated = _SIZE.fullmatch(body)
        if stated is None:
            return _unavailable(self.name, "it answered with status 409 and no size")
        size = int(stated[1])
        if size != old_size:
            return AnchorConflictError(anchor=self.name, conflict_size=size, expected_size=old_size)
        checkpoint = Checkpoint.parse(SignedNote.parse(note).text)
        if checkpoint.tree_size != size:
            return _unavailable(self.name, "it answered with status 409 and the very size that it was given")
        return VerificationRefusedError(
            f"{self.name} has cosigned another root for the same size, {size}",
            evidence={"root": checkpoint.root_hash.hex()},
        )


async def _post(name: str, url: str, body: str, *, timeout_s: float) -> _Reply:
    """One POST that follows nowhere and reads no more than it needs. Raises `DependencyUnavailableError` without the address."""
    try:
        async with (
            aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=timeout_s), cookie_jar=aiohttp.DummyCookieJar(), trust_env=False
            ) as session,
            session.post(
                url,
                data=body.encode(),
                headers={"Content-Type": "text/plain; charset=utf-8", "Accept-Encoding": "identity"},
                allow_redirects=False,
            ) as response,
        ):
            received = bytearray()
            async for chunk in response.content.iter_any():
                received += chunk
                if len(received) > _MOST_REPLY_BYTES:
                    raise _unavailable(name, f"its answer is longer than {_MOST_REPLY_BYTES} bytes")
            return _Reply(response.status, bytes(received))
    except TimeoutError as error:
        raise _unavailable(name, f"it did not answer within {timeout_s:g} s") from error
    except (aiohttp.ClientError, OSError, ValueError) as error:
        # The error's own text may repeat the address, which may hold a secret.
        raise _unavailable(name, f"it cannot be reached ({type(error).__name__})") from None


def _unavailable(name: str, problem: str, remedy: str = "Check that it runs.") -> DependencyUnavailableError:
    return DependencyUnavailableError(
        dependency=f"the anchor {name!r}", problem=problem, remedy=remedy, retry_after_s=10
    )
