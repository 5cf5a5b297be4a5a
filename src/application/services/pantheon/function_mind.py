"""A role given to a function of the operator's own, plain or asynchronous."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import threading
from collections.abc import Callable
from typing import Any

from application.services.pantheon.mind import Brief, Opinion
from domain.errors.pantheon import RoleFailedError
from domain.models.pantheon import Role, named_steps
from domain.models.text import clean

__all__ = ["FUNCTION_PATIENCE_S", "FunctionMind", "names_in"]

FUNCTION_PATIENCE_S = 30.0

_FIELDS = frozenset({"steps", "approved", "remark"})


class FunctionMind:
    """Gives the function a copy of the brief and takes what it returns as an opinion.

    A plain function runs in a thread of its own, so that one that hangs holds up nothing and does not keep the process from ending.
    Returned may be None; a text, which is a remark (from the Reasoner, Actor and Improver: names of steps, parted by commas; from the
    Validator: why it rejects); a list of names of steps; from the Validator a truth value; or `{"steps", "approved", "remark"}`.
    """

    def __init__(
        self, function: Callable[[dict[str, Any]], object], *, patience_s: float = FUNCTION_PATIENCE_S
    ) -> None:
        self._function = function
        self._patience_s = patience_s

    @property
    def patience_s(self) -> float:
        """Seconds after which it counts as hanging."""
        return self._patience_s

    async def consult(self, role: Role, brief: Brief) -> Opinion:
        """What it returned. Raises `RoleFailedError`."""
        copy = json.loads(json.dumps(dict(brief)))
        try:
            if inspect.iscoroutinefunction(self._function):
                returned = await self._function(copy)
            else:
                returned = await _in_a_thread(lambda: self._function(copy))
                if inspect.isawaitable(returned):
                    returned = await returned
        except (Exception, SystemExit) as error:
            problem = f"its function raised {type(error).__name__}: {clean(str(error))[:200]}"
            raise RoleFailedError(role=role.value, kind="raised", problem=problem) from error
        return _opinion(role, returned)


async def _in_a_thread(call: Callable[[], object]) -> object:
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[object] = loop.create_future()

    def tell(returned: object, error: BaseException | None) -> None:
        if ended.done():
            return
        if error is None:
            ended.set_result(returned)
        else:
            # No future takes the exception that ends an iteration, and the others would end more than this role.
            usable = isinstance(error, Exception) and not isinstance(error, StopIteration)
            ended.set_exception(error if usable else RuntimeError(type(error).__name__))

    def work() -> None:
        returned: object = None
        failed: BaseException | None = None
        try:
            returned = call()
        except BaseException as error:  # noqa: BLE001 - it is raised again where the function was called from
            failed = error
        # A loop that was closed meanwhile wants to hear nothing any more.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(tell, returned, failed)

    # Not of the default executor, whose threads are waited for when the loop ends.
    threading.Thread(target=work, name="pantheon-role", daemon=True).start()
    return await ended


def names_in(text: str) -> tuple[str, ...]:
    """The names in a text that parts them by commas, semicolons or lines."""
    parts = text.replace(";", ",").replace("\n", ",").split(",")
    return named_steps([part.strip() for part in parts if part.strip()])


def _opinion(role: Role, returned: object) -> Opinion:
    if returned is None:
        return Opinion()
    if isinstance(returned, bool) and role is Role.VALIDATOR:
        return Opinion(approves=returned)
    if isinstance(returned, str):
        if role.plans:
            return Opinion(steps=names_in(returned))
        return Opinion(remark=clean(returned), approves=False if role is Role.VALIDATOR else None)
    if isinstance(returned, list | tuple) and role.plans and all(isinstance(name, str) for name in returned):
        return Opinion(steps=named_steps(list(returned)))
    if isinstance(returned, dict) and set(returned) <= _FIELDS:
        return _opinion_of_fields(role, returned)
    raise _unusable(role, f"its function returned {type(returned).__name__}, which says nothing for this role")


def _opinion_of_fields(role: Role, fields: dict[str, Any]) -> Opinion:
    steps, approved, remark = fields.get("steps"), fields.get("approved"), fields.get("remark")
    if remark is not None and not isinstance(remark, str):
        raise _unusable(role, "its function returned a remark that is no text")
    if approved is not None and not (isinstance(approved, bool) and role is Role.VALIDATOR):
        raise _unusable(role, "only the Validator approves, by true or false")
    if steps is not None and not (
        role.plans and isinstance(steps, list | tuple) and all(isinstance(name, str) for name in steps)
    ):
        raise _unusable(role, "only the Reasoner, the Actor and the Improver name steps, as a list of texts")
    return Opinion(
        remark=None if remark is None else clean(remark),
        steps=None if steps is None else named_steps(list(steps)),
        approves=approved,
    )


def _unusable(role: Role, problem: str) -> RoleFailedError:
    return RoleFailedError(role=role.value, kind="unusable_answer", problem=problem)
