"""Posts messages to webhooks over HTTP, signed."""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import aiohttp
from yarl import URL

from application.ports.clock import Clock, SystemClock
from application.ports.webhook_sender import WebhookMessage, WebhookReceiver, WebhookReply
from domain.errors.dependency import DependencyUnavailableError
from infrastructure.webhooks.key_ring import WebhookKeyRing
from infrastructure.webhooks.message_signature import SignedRequest, sign_request

__all__ = ["HttpWebhookSender"]

_VALID_FOR = timedelta(seconds=300)
_MAX_SECONDS = 10 * 24 * 3600.0


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
                return WebhookReply(response.status, _retry_after_s(response.headers, now))
        except TimeoutError as error:
            raise self._unavailable(receiver, f"it did not answer within {self._timeout_s:g} s") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # The error's own text may repeat the address, which may hold a secret.
            raise self._unavailable(receiver, f"it cannot be reached ({type(error).__name__})") from None

    def _unavailable(self, receiver: WebhookReceiver, problem: str) -> DependencyUnavailableError:
        return DependencyUnavailableError(
            dependency=f"the webhook {receiver.name!r}", problem=problem, remedy="Check that it runs."
        )


def _retry_after_s(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds that were asked for in `Retry-After`, or until the date there (RFC 9110, 10.2.3), ten days at most."""
    value = headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return min(float(value[:12]), _MAX_SECONDS)
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    seconds = (moment - now).total_seconds()
    return min(max(0.0, seconds), _MAX_SECONDS) if math.isfinite(seconds) else None
