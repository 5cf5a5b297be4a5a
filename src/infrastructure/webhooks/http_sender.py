"""Posts messages to webhooks over HTTP, signed."""

from __future__ import annotations

import asyncio
import secrets
from datetime import timedelta

import aiohttp
from yarl import URL

from application.ports.clock import Clock, SystemClock
from application.ports.webhook_sender import WebhookMessage, WebhookReceiver, WebhookReply
from domain.errors.dependency import DependencyUnavailableError
from infrastructure.retry_after import retry_after_s
from infrastructure.webhooks.key_ring import WebhookKeyRing
from infrastructure.webhooks.message_signature import SignedRequest, sign_request

__all__ = ["HttpWebhookSender"]

_VALID_FOR = timedelta(seconds=300)
_LONGEST_PAUSE_S = 10 * 24 * 3600.0


class HttpWebhookSender:
    """`WebhookSender` over HTTP and HTTPS. Follows no redirect, keeps no cookie, uses no proxy, and reads nothing of a reply's body.

    A signature is valid for five minutes from its making; each attempt has one of its own.
    """

    def __init__(self, keys: WebhookKeyRing, *, clock: Clock | None = None, timeout_s: float = 10.0) -> None:
        self._keys = keys
        self._clock = clock if clock is not None else SystemClock()
        self._timeout_s = timeout_s

    async def send(self, receiver: WebhookReceiver, message: WebhookMessage) -> WebhookReply:
        """As in `WebhookSender`. Raises `ConfigurationError` where the key cannot be used."""
        signing = await asyncio.to_thread(self._keys.signing_key)
        headers = {
            "Content-Type": "application/json",
            "Conclave-Delivery": message.delivery_id,
            "Conclave-Event": message.event,
        }
        now = self._clock.now()
        sign_request(
            SignedRequest("POST", receiver.address, headers),
            message.body,
            key_id=signing.key_id,
            sign=signing.key.sign,
            created=now,
            expires=now + _VALID_FOR,
            nonce=secrets.token_urlsafe(18),
        )
        try:
            async with (
                aiohttp.ClientSession(
                    timeout=aiohttp.ClientTimeout(total=self._timeout_s),
                    cookie_jar=aiohttp.DummyCookieJar(),
                    trust_env=False,
                ) as session,
                session.post(
                    # As it was signed: nothing of it is written in another way on the wire.
                    URL(receiver.address, encoded=True),
                    data=message.body,
                    headers={**headers, "User-Agent": "conclave", "Accept-Encoding": "identity"},
                    allow_redirects=False,
                ) as response,
            ):
                response.close()
                pause_s = retry_after_s(response.headers, now=self._clock.now)
                return WebhookReply(response.status, None if pause_s is None else min(pause_s, _LONGEST_PAUSE_S))
        # Without the cause, whose text may repeat the address, which may hold a secret.
        except TimeoutError:
            raise self._unavailable(receiver, f"it did not answer within {self._timeout_s:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise self._unavailable(receiver, f"it cannot be reached ({type(error).__name__})") from None

    def _unavailable(self, receiver: WebhookReceiver, problem: str) -> DependencyUnavailableError:
        return DependencyUnavailableError(
            dependency=f"the webhook {receiver.name!r}", problem=problem, remedy="Check that it runs."
        )
