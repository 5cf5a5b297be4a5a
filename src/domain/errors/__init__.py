"""The error tree.

ConclaveError
├── AgentError
│   ├── AgentPoolExhaustedError     more agents at once than slots, or than may wait
│   ├── AgentAlreadyActiveError     the same agent twice in one batch
│   └── AgentInvocationError        one call to one agent ended without an output
├── DeliberationError
│   ├── InvalidSpecificationError   a deliberation that cannot be run as described
│   │   ├── InvalidRunError         the same of a run
│   │   └── InvalidPopulationError  the same of a population
│   ├── IllegalTransitionError      a state that cannot follow the present one
│   ├── DeliberationEndedError      too late to cancel
│   ├── DeliberationExistsError     never stored twice
│   ├── DeliberationNotFoundError
│   ├── RosterNotFoundError
│   ├── InvalidRosterError
│   ├── QueueFullError              come back later
│   ├── ServiceStoppingError        come back later, elsewhere
│   ├── UnreadableBallotError       a reply that is no ballot
│   ├── RecordExistsError           an agent ends once a round
│   ├── CallExistsError             an attempt is made once
│   ├── LeaseLostError              somebody else works on it now
│   ├── IdempotencyKeyTakenError    never two deliberations for one key
│   ├── IdempotencyKeyReusedError   the same key with another body
│   ├── IdempotencyInProgressError  come back in a moment
│   └── RecordMismatchError         stored text that does not hash to its record
├── WitnessError
│   ├── VerificationRefusedError    something does not prove what it should
│   ├── EntryRecordedError          a statement is recorded once
│   └── LogUnverifiedError          the service's own log; nothing more is added to it
├── BusError
│   ├── UnknownAgentError           nobody of that name is on the bus
│   ├── NameTakenError              another agent or group has it
│   ├── InboxFullError              no room within the sender's patience
│   ├── PayloadTooLargeError
│   ├── InvalidMessageError         a field that no bus can carry
│   ├── UnreadableMessageError      what is stored is no message
│   ├── BusClosedError              nothing more goes over it
│   ├── BusUnavailableError         what carries the messages is away or full
│   ├── ReceiveTimeoutError         no message in time
│   └── RequestTimeoutError         no reply in time
├── PopulationError
│   ├── NotEnoughMemoryError        said before anything is allocated
│   ├── PopulationFullError         no free row for another agent
│   ├── EdgeFileError               a line of a graph's file
│   ├── BehaviourError              one's own behaviour raised, or gave back the wrong shape
│   ├── MessagesLostError           what was sent is not what was delivered, expired and refused
│   ├── ShardLostError              the process of a shard is gone
│   ├── PopulationFolderError       the output folder cannot be used so
│   ├── DamagedRecordError          a snapshot or a line of the log that is not whole
│   ├── PopulationDivergedError     the same tick came out differently
│   ├── StateConflictError          a state was changed by somebody else meanwhile
│   └── StateStoreFullError         no room for another state in a tier
├── RoleFailedError                 a role of a pantheon that did not come to its end
├── RunNotFoundError
├── RunEndedError                   too late to cancel
├── RunTakenError                   it ended, or another process runs it
├── RunKeyTakenError                never two runs for one key
├── TooManyRunsError                come back later
├── BudgetExceededError             a call that could take more than is left
├── SystemHaltedError               nothing is called until the halt is cleared
├── HaltChannelUnreachableError     one place where a halt is kept is away
├── HaltNotClearableError           the halt stays
├── NotHaltedError                  there is no halt to clear
├── ConfigurationError              a setting that stops the start
└── DependencyUnavailableError      a database or provider that is away
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from domain.errors.agent import (
        AgentAlreadyActiveError,
        AgentError,
        AgentInvocationError,
        AgentPoolExhaustedError,
    )
    from domain.errors.budget import BudgetExceededError
    from domain.errors.bus import (
        BusClosedError,
        BusError,
        BusUnavailableError,
        InboxFullError,
        InvalidMessageError,
        NameTakenError,
        PayloadTooLargeError,
        ReceiveTimeoutError,
        RequestTimeoutError,
        UnknownAgentError,
        UnreadableMessageError,
    )
    from domain.errors.conclave_error import ConclaveError
    from domain.errors.configuration import ConfigurationError
    from domain.errors.deliberation import (
        CallExistsError,
        DeliberationEndedError,
        DeliberationError,
        DeliberationExistsError,
        DeliberationNotFoundError,
        FieldProblem,
        IllegalTransitionError,
        InvalidRosterError,
        InvalidSpecificationError,
        LeaseLostError,
        QueueFullError,
        RecordExistsError,
        RecordMismatchError,
        RosterNotFoundError,
        ServiceStoppingError,
        UnreadableBallotError,
    )
    from domain.errors.dependency import DependencyUnavailableError
    from domain.errors.halt import (
        HaltChannelUnreachableError,
        HaltNotClearableError,
        NotHaltedError,
        SystemHaltedError,
    )
    from domain.errors.idempotency import (
        IdempotencyInProgressError,
        IdempotencyKeyReusedError,
        IdempotencyKeyTakenError,
    )
    from domain.errors.pantheon import RoleFailedError
    from domain.errors.population import (
        BehaviourError,
        DamagedRecordError,
        EdgeFileError,
        InvalidPopulationError,
        MessagesLostError,
        NotEnoughMemoryError,
        PopulationDivergedError,
        PopulationError,
        PopulationFolderError,
        PopulationFullError,
        ShardLostError,
        StateConflictError,
        StateStoreFullError,
    )
    from domain.errors.run import (
        InvalidRunError,
        RunEndedError,
        RunKeyTakenError,
        RunNotFoundError,
        RunTakenError,
        TooManyRunsError,
    )
    from domain.errors.witness import EntryRecordedError, LogUnverifiedError, VerificationRefusedError, WitnessError

__all__ = [
    "AgentAlreadyActiveError",
    "AgentError",
    "AgentInvocationError",
    "AgentPoolExhaustedError",
    "BehaviourError",
    "BudgetExceededError",
    "BusClosedError",
    "BusError",
    "BusUnavailableError",
    "CallExistsError",
    "ConclaveError",
    "ConfigurationError",
    "DamagedRecordError",
    "DeliberationEndedError",
    "DeliberationError",
    "DeliberationExistsError",
    "DeliberationNotFoundError",
    "DependencyUnavailableError",
    "EdgeFileError",
    "EntryRecordedError",
    "FieldProblem",
    "HaltChannelUnreachableError",
    "HaltNotClearableError",
    "IdempotencyInProgressError",
    "IdempotencyKeyReusedError",
    "IdempotencyKeyTakenError",
    "IllegalTransitionError",
    "InboxFullError",
    "InvalidMessageError",
    "InvalidPopulationError",
    "InvalidRosterError",
    "InvalidRunError",
    "InvalidSpecificationError",
    "LeaseLostError",
    "LogUnverifiedError",
    "MessagesLostError",
    "NameTakenError",
    "NotEnoughMemoryError",
    "NotHaltedError",
    "PayloadTooLargeError",
    "PopulationDivergedError",
    "PopulationError",
    "PopulationFolderError",
    "PopulationFullError",
    "QueueFullError",
    "ReceiveTimeoutError",
    "RecordExistsError",
    "RecordMismatchError",
    "RequestTimeoutError",
    "RoleFailedError",
    "RosterNotFoundError",
    "RunEndedError",
    "RunKeyTakenError",
    "RunNotFoundError",
    "RunTakenError",
    "ServiceStoppingError",
    "ShardLostError",
    "StateConflictError",
    "StateStoreFullError",
    "SystemHaltedError",
    "TooManyRunsError",
    "UnknownAgentError",
    "UnreadableBallotError",
    "UnreadableMessageError",
    "VerificationRefusedError",
    "WitnessError",
]

_MODULES = (
    "conclave_error",
    "agent",
    "budget",
    "bus",
    "deliberation",
    "idempotency",
    "halt",
    "configuration",
    "dependency",
    "pantheon",
    "population",
    "run",
    "witness",
)


def __getattr__(name: str) -> object:
    if name in __all__:
        for module in _MODULES:
            found = import_module(f"domain.errors.{module}")
            if name in found.__all__:
                return getattr(found, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
