"""A client of Conclave: one question, seventy-two agents, every one accounted for.

    from conclave_client import Conclave

    with Conclave("http://127.0.0.1:8072") as conclave:
        print(conclave.ask("Should the city centre be closed to private cars?", options=["yes", "no"]).decision)

`AsyncConclave` is the same for code on an event loop. `conclave_client.webhooks` receives what a server sends by itself.
"""

from conclave_client.awaiting import AsyncConclave
from conclave_client.blocking import Conclave
from conclave_client.deliberation import Deliberation, RollCall
from conclave_client.errors import (
    ClosedClientError,
    ConclaveClientError,
    ConflictError,
    ConnectionLostError,
    DeliveryRepeatedError,
    FieldError,
    ForbiddenError,
    HaltedError,
    InvalidError,
    NotFoundError,
    OversizedAnswerError,
    Problem,
    ProtocolViolationError,
    RedirectRefusedError,
    RefusedError,
    TooManyError,
    UnauthenticatedError,
    UnavailableError,
    UnusableArgumentError,
    WaitTimeoutError,
    WebhookRefusedError,
)
from conclave_client.outcome import Outcome
from conclave_client.output import Output
from conclave_client.records import Bundle, Event, Halt, Pool, Quote, Readiness, Recount, Resolution, Run, RunEvent
from conclave_client.terms import Terms

__all__ = [
    "AsyncConclave",
    "Bundle",
    "ClosedClientError",
    "Conclave",
    "ConclaveClientError",
    "ConflictError",
    "ConnectionLostError",
    "Deliberation",
    "DeliveryRepeatedError",
    "Event",
    "FieldError",
    "ForbiddenError",
    "Halt",
    "HaltedError",
    "InvalidError",
    "NotFoundError",
    "Outcome",
    "Output",
    "OversizedAnswerError",
    "Pool",
    "Problem",
    "ProtocolViolationError",
    "Quote",
    "Readiness",
    "Recount",
    "RedirectRefusedError",
    "RefusedError",
    "Resolution",
    "RollCall",
    "Run",
    "RunEvent",
    "Terms",
    "TooManyError",
    "UnauthenticatedError",
    "UnavailableError",
    "UnusableArgumentError",
    "WaitTimeoutError",
    "WebhookRefusedError",
]
