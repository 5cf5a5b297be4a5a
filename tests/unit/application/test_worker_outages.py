"""What keeps a worker from its rounds is said when it begins and when it is over, and not each second."""

from __future__ import annotations

import errno
import logging
import os

import pytest

from domain.errors.dependency import DependencyUnavailableError
from tests.service_fixture import Canned, build, finished, opened, specification
from tests.unit.application.abandoned_work import Registry
from tests.virtual_time import pass_time

_WORKER = "application.services.deliberation_worker"


class Troubled(Registry):
    """Nobody can see who is dead while a test gives reasons; these take turns."""

    def __init__(self) -> None:
        super().__init__("ab")
        self.errors: list[Exception] = []
        self.looks = 0

    def dead(self) -> list[str]:
        self.looks += 1
        if self.errors:
            raise self.errors[self.looks % len(self.errors)]
        return super().dead()


def _said(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name == _WORKER]


def _too_many_files() -> OSError:
    return OSError(errno.EMFILE, os.strerror(errno.EMFILE), "/data/processes")


@pytest.mark.parametrize(
    "error", [_too_many_files(), DependencyUnavailableError(dependency="database", problem="gone")]
)
async def test_a_minute_without_file_descriptors_or_store_is_two_lines_of_the_log(
    caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    caplog.set_level(logging.INFO)
    registry = Troubled()
    async with opened(build(Canned({}), registry=registry)) as house:
        registry.errors = [error]
        await pass_time(60)
        began = _said(caplog)
        registry.errors = []
        await pass_time(60)
        over = _said(caplog)[len(began) :]
        await finished(house, specification(1))
    assert registry.looks >= 119
    assert [(each.levelname, str(error) in each.getMessage(), each.exc_info) for each in began] == [
        ("WARNING", True, None)
    ]
    assert [(each.levelname, each.getMessage()) for each in over] == [
        ("INFO", "a worker can look for what nobody works on again")
    ]


async def test_problems_that_take_turns_are_each_said_once_and_again_when_they_come_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    registry = Troubled()
    async with opened(build(Canned({}), registry=registry)):
        for _ in range(2):
            registry.errors = [_too_many_files(), DependencyUnavailableError(dependency="database", problem="gone")]
            await pass_time(30)
            registry.errors = []
            await pass_time(2)
    assert len(_said(caplog)) == 4


async def test_a_fault_of_the_program_is_shown_with_its_place_once(caplog: pytest.LogCaptureFixture) -> None:
    registry = Troubled()
    async with opened(build(Canned({}), registry=registry)):
        registry.errors = [RuntimeError("never thought of")]
        await pass_time(30)
    (fault,) = _said(caplog)
    assert (fault.levelname, fault.exc_info is not None) == ("ERROR", True)


async def test_a_problem_that_reads_otherwise_each_time_is_not_said_for_ever(caplog: pytest.LogCaptureFixture) -> None:
    registry = Troubled()
    registry.errors = []
    async with opened(build(Canned({}), registry=registry)):
        registry.errors = [OSError(errno.EIO, "broken", str(number)) for number in range(100)]
        await pass_time(60)
    assert len(_said(caplog)) == 5
