"""What can go wrong between a caller and a Conclave server.

    ConclaveClientError
    ├── UnusableArgumentError           nothing was sent: an address, a key, an id or a term that cannot be sent
    ├── ClosedClientError               nothing was sent: the client was closed before
    ├── ConnectionLostError             no answer, or not to its end
    ├── ProtocolViolationError          an answer that is none of Conclave's
    │   ├── RedirectRefusedError        it points elsewhere, where neither the key nor the question goes
    │   └── OversizedAnswerError        it is longer than any answer may be
    ├── WaitTimeoutError                a deliberation has not ended within the time given
    ├── WebhookRefusedError             a delivery that must not be believed
    ├── DeliveryRepeatedError           a delivery that was taken before
    └── RefusedError                    a problem document (RFC 9457), or another answer of 400 and above
        ├── UnauthenticatedError        401
        ├── ForbiddenError              403
        ├── NotFoundError               404
        ├── ConflictError               409
        ├── InvalidError                422
        ├── TooManyError                429
        ├── UnavailableError            502, 503 and 504
        └── HaltedError                 503, because the system is halted

No message, attribute or representation holds the key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "ClosedClientError",
    "ConclaveClientError",
    "ConflictError",
    "ConnectionLostError",
    "DeliveryRepeatedError",
    "FieldError",
    "ForbiddenError",
    "HaltedError",
    "InvalidError",
    "NotFoundError",
    "OversizedAnswerError",
    "Problem",
    "ProtocolViolationError",
    "RedirectRefusedError",
    "RefusedError",
    "TooManyError",
    "UnauthenticatedError",
    "UnavailableError",
    "UnusableArgumentError",
    "WaitTimeoutError",
    "WebhookRefusedError",
    "refusal",
]

_PROBLEM = "urn:conclave:problem:"


class ConclaveClientError(Exception):
    """Whatever this package raises on purpose is one of these."""


class UnusableArgumentError(ConclaveClientError, ValueError):
    """What was given cannot be sent; `name` says which argument it is."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"{name} {problem}")
        self.name = name
        self.problem = problem

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.name, self.problem)


class ClosedClientError(ConclaveClientError, RuntimeError):
    """The client was closed, and nothing more can be asked of it."""

    def __init__(self) -> None:
        super().__init__("this client is closed: make a new one")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()


class ConnectionLostError(ConclaveClientError):
    """The server cannot be reached, is silent, or left before its answer was whole.

    `sent` says whether the request may have reached it: then nobody knows whether it was carried out.
    """

    def __init__(self, server: str, problem: str, *, sent: bool) -> None:
        doubt = "; it may have received the request" if sent else ""
        super().__init__(f"the server {server!r} {problem}{doubt}. Check that it runs, and try again.")
        self.server = server
        self.problem = problem
        self.sent = sent

    def __reduce__(self) -> tuple[Any, ...]:
        return _connection_lost, (type(self), self.server, self.problem, self.sent)


def _connection_lost(
    kind: type[ConnectionLostError],
    server: str,
    problem: str,
    sent: bool,  # noqa: FBT001 - pickle gives no names
) -> ConnectionLostError:
    return kind(server, problem, sent=sent)


class ProtocolViolationError(ConclaveClientError):
    """The server does not answer as Conclave does; `problem` says what is off."""

    def __init__(self, server: str, problem: str) -> None:
        super().__init__(f"the server {server!r} does not answer as Conclave does: {problem}")
        self.server = server
        self.problem = problem

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.server, self.problem)


class RedirectRefusedError(ProtocolViolationError):
    """The server points elsewhere. That is never followed: name the right address instead."""


class OversizedAnswerError(ProtocolViolationError):
    """The answer, a line or an event of it is longer than the bound, and was not read to its end."""


class WaitTimeoutError(ConclaveClientError, TimeoutError):
    """The deliberation had not ended when the time was over. It goes on; `status` is what it was last."""

    def __init__(self, deliberation_id: str, status: str, timeout_s: float) -> None:
        super().__init__(
            f"deliberation {deliberation_id!r} has not ended within {timeout_s:g} s; it is {status!r} and goes on"
        )
        self.deliberation_id = deliberation_id
        self.status = status
        self.timeout_s = timeout_s

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.deliberation_id, self.status, self.timeout_s)


class WebhookRefusedError(ConclaveClientError):
    """The delivery is not believed; `reason` says why. Answer it with 400 and do nothing else."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the delivery is not believed: {reason}")
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.reason,)


class DeliveryRepeatedError(ConclaveClientError):
    """The delivery is genuine and was taken before. Answer it as the first time, so that it is not sent again, and do nothing else."""

    def __init__(self, delivery_id: str) -> None:
        super().__init__(f"delivery {delivery_id!r} was taken before")
        self.delivery_id = delivery_id

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.delivery_id,)


@dataclass(frozen=True, slots=True)
class FieldError:
    """One field that cannot be accepted: where it is (RFC 6901), and why."""

    pointer: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Why a request was refused: a problem document (RFC 9457), as far as the answer was one.

    `document` is the whole of it, extensions included; `retry_after_s` is what the answer asked for in seconds, if it did.
    """

    status: int
    type: str = "about:blank"
    title: str = ""
    detail: str = ""
    errors: Sequence[FieldError] = ()
    state: str | None = None
    retry_after_s: float | None = None
    document: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def slug(self) -> str:
        """What kind of problem of Conclave's it is, such as `queue-full`; empty for one of somebody else's."""
        return self.type.removeprefix(_PROBLEM) if self.type.startswith(_PROBLEM) else ""


class RefusedError(ConclaveClientError):
    """The server refused. `problem` says why; its parts are attributes of the error too."""

    def __init__(self, problem: Problem) -> None:
        named = "; ".join(f"{found.pointer}: {found.detail}" for found in problem.errors)
        said = named or problem.detail or problem.title or "no reason given"
        super().__init__(f"the server refused ({problem.status}): {said}")
        self.problem = problem

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.problem,)

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.problem.status

    @property
    def type(self) -> str:
        """What names the kind of problem, `urn:conclave:problem:...`."""
        return self.problem.type

    @property
    def slug(self) -> str:
        """The last part of `type`."""
        return self.problem.slug

    @property
    def title(self) -> str:
        """The kind of problem, in words."""
        return self.problem.title

    @property
    def detail(self) -> str:
        """What is the matter this time."""
        return self.problem.detail

    @property
    def errors(self) -> Sequence[FieldError]:
        """Every field that cannot be accepted."""
        return self.problem.errors

    @property
    def retry_after_s(self) -> float | None:
        """After how many seconds it may be worth trying again, if the server said so."""
        return self.problem.retry_after_s


class UnauthenticatedError(RefusedError):
    """The server wants a key, and this is none that it knows."""


class ForbiddenError(RefusedError):
    """The key's role does not allow this."""


class NotFoundError(RefusedError):
    """There is no such thing, or the key does not see it."""


class ConflictError(RefusedError):
    """It cannot be done from the present state, which `problem.state` names where there is one."""


class InvalidError(RefusedError):
    """The request cannot be accepted as it is; `errors` points at each bad field."""


class TooManyError(RefusedError):
    """The queue is full, or a bound on calls is reached. Nothing was done."""


class UnavailableError(RefusedError):
    """The server, or something that it needs, is away."""


class HaltedError(UnavailableError):
    """The system is halted: no agent is called until somebody ends the halt."""


_BY_STATUS: Mapping[int, type[RefusedError]] = {
    401: UnauthenticatedError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    422: InvalidError,
    429: TooManyError,
    502: UnavailableError,
    503: UnavailableError,
    504: UnavailableError,
}


def refusal(problem: Problem) -> RefusedError:
    """The error for that problem."""
    if problem.slug == "system-halted":
        return HaltedError(problem)
    return _BY_STATUS.get(problem.status, RefusedError)(problem)
