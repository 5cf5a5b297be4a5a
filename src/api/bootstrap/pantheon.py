"""The pantheon from the settings: its bus, and for each role what it is given, with the open service behind it only where one is asked."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias
from uuid import uuid4

from api.bootstrap.buses import make_bus
from api.bootstrap.opening import open_conclave
from api.bootstrap.process import Purpose
from application.services.pantheon.asked_mind import AskedMind, Inquiry
from application.services.pantheon.function_mind import FunctionMind
from application.services.pantheon.pantheon_run import PantheonRun
from domain.errors.configuration import ConfigurationError
from domain.errors.deliberation import InvalidSpecificationError, RosterNotFoundError
from domain.models.pantheon import PantheonRequest, Role

if TYPE_CHECKING:
    from api.conclave import Conclave
    from application.ports.message_bus import MessageBus
    from application.services.pantheon.mind import Mind
    from infrastructure.pantheon.roles_file import RoleFunction
    from infrastructure.settings import Settings

__all__ = ["Roles", "open_pantheon", "read_roles"]

Roles: TypeAlias = "Mapping[Role, RoleFunction | Inquiry]"

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - the folder within is made for this user alone
# A letter holds what the steps gave: sixteen times a task that JSON spells out.
_MAX_PAYLOAD_BYTES = 8 * 1024 * 1024


def read_roles(path: Path) -> Roles:
    """What the file gives each role. Raises `ConfigurationError` naming file, line, problem and remedy."""
    from infrastructure.pantheon.roles_file import read_roles_file

    return read_roles_file(path)


@asynccontextmanager
async def open_pantheon(
    settings: Settings, request: PantheonRequest, *, transport: str = "memory", roles: Roles | None = None
) -> AsyncIterator[PantheonRun]:
    """A run of the pantheon on a bus of its own; bus and service are closed on the way out, and nothing of the bus stays.

    Raises `ConfigurationError` for a transport, a model or a roster that there is not, and what opening the service raises.
    """
    roles = {} if roles is None else roles
    run_id = uuid4().hex
    async with AsyncExitStack() as stack:
        minds = await _minds(settings, request, roles, stack)
        bus = _bus(settings, transport, run_id, stack)
        stack.push_async_callback(bus.close)
        yield PantheonRun(request, bus=bus, minds=minds, run_id=run_id)


async def _minds(settings: Settings, request: PantheonRequest, roles: Roles, stack: AsyncExitStack) -> dict[Role, Mind]:
    minds: dict[Role, Mind] = {}
    conclave: Conclave | None = None
    for role, given in roles.items():
        if not isinstance(given, Inquiry):
            minds[role] = FunctionMind(given.function, patience_s=given.timeout_s)
            continue
        if conclave is None:
            conclave = await stack.enter_async_context(open_conclave(settings, purpose=Purpose.ASK))
        minds[role] = _asked(conclave, role, given, request)
    return minds


def _asked(conclave: Conclave, role: Role, inquiry: Inquiry, request: PantheonRequest) -> AskedMind:
    """Refused here, before anything is done, where it could never be asked."""
    try:
        roster = None
        if inquiry.agents is not None:
            roster = conclave.rosters.get(inquiry.roster)
            if inquiry.agents > len(roster.agents):
                raise _refusal(role, f"the roster {inquiry.roster!r} has {len(roster.agents)} agents")
            roster = roster.first(inquiry.agents)
        mind = AskedMind(conclave.deliberations, inquiry, role=role, roster=roster)
        specification = mind.specification({"task": request.task})
        specification.check()
        conclave.require_models(specification, key_name=None)
    except RosterNotFoundError as error:
        raise _refusal(role, str(error).rstrip(".")) from None
    except InvalidSpecificationError as error:
        problems = "; ".join(problem.message for problem in error.problems)
        raise _refusal(role, problems if inquiry.model is None else f"model = {inquiry.model!r}: {problems}") from None
    return mind


def _refusal(role: Role, problem: str) -> ConfigurationError:
    return ConfigurationError(
        variable="--roles", problem=f"[{role.value}]: {problem}", remedy="Change the file of roles, or the providers"
    )


def _bus(settings: Settings, transport: str, run_id: str, stack: AsyncExitStack) -> MessageBus:
    folder = None
    if transport == "file":
        place = _SHARED_MEMORY if _SHARED_MEMORY.is_dir() else None
        folder = Path(tempfile.mkdtemp(prefix=f"conclave-pantheon-{run_id}-", dir=place))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
    return make_bus(settings, transport, name=f"pantheon-{run_id}", folder=folder, max_payload_bytes=_MAX_PAYLOAD_BYTES)
