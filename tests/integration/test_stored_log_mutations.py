"""Whatever somebody who owns the database changes in the stored log, or in what is shown of deliberations, is refused and named."""

import random
from collections.abc import AsyncIterator, Callable, Sequence
from copy import deepcopy
from pathlib import Path

import pytest

from domain.errors.witness import VerificationRefusedError
from tests.integration.log_mutations import (
    OF_ENTRIES,
    OF_NODES_AND_CHECKPOINTS,
    OF_THE_HEAD,
    OF_THE_WHOLE,
    OF_THE_WHOLE_WITH_CHECKPOINTS,
)
from tests.integration.shown_mutations import BENEATH, OF_DELIBERATIONS, SHOWN
from tests.integration.stored_logs import SIGNED, Ground, Mutation, sound_log

_SEED = 20_261_121


@pytest.fixture(params=["sqlite", "postgres"])
async def ground(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Ground]:
    """The same log in each database."""
    url = f"sqlite:///{tmp_path}/conclave.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    async with sound_log(url) as found:
        yield found


_AUDITED: Sequence[Mutation] = (
    *OF_ENTRIES,
    *SHOWN,
    *BENEATH,
    *OF_DELIBERATIONS,
    *OF_NODES_AND_CHECKPOINTS,
    *OF_THE_HEAD,
    *OF_THE_WHOLE,
)


async def test_a_log_that_nobody_changed_is_sound(ground: Ground) -> None:
    report = await ground.audit()
    assert (report.entries, report.nodes, report.checkpoints) == (ground.sound.size, 2, len(SIGNED))
    assert (report.deliberations, report.unsigned) == (5, ground.sound.size - SIGNED[-1])
    assert await ground.shown() == (True, True)
    assert await ground.refusal_at_start() is None


async def test_no_mutation_of_a_stored_log_passes_the_audit(
    ground: Ground, request: pytest.FixtureRequest, sized: Callable[[int, int], int]
) -> None:
    count = sized(75, 10_000) if request.node.callspec.params["ground"] == "sqlite" else sized(25, 250)
    passed = []
    for number in range(count):
        mutate = _AUDITED[number % len(_AUDITED)]
        changed = deepcopy(ground.sound)
        mutate(changed, random.Random(f"{_SEED} {number}"))
        assert changed != ground.sound
        ground.owner.write(changed)
        try:
            await ground.audit()
        except VerificationRefusedError:
            continue
        except Exception as error:  # noqa: BLE001 - whatever it is, it names nothing that is wrong
            passed.append(f"{number} {mutate.__name__}: {type(error).__name__}: {error}")
        else:
            passed.append(f"{number} {mutate.__name__}")
    assert passed == []
    ground.owner.write(ground.sound)
    await ground.audit()


async def test_nothing_is_shown_that_differs_from_what_was_recorded(
    ground: Ground, request: pytest.FixtureRequest, sized: Callable[[int, int], int]
) -> None:
    count = sized(60, 2_000) if request.node.callspec.params["ground"] == "sqlite" else sized(30, 200)
    shown = []
    for number in range(count):
        mutate = (*SHOWN, *BENEATH)[number % len((*SHOWN, *BENEATH))]
        changed = deepcopy(ground.sound)
        mutate(changed, random.Random(f"{_SEED} {number}"))
        assert changed != ground.sound
        ground.owner.write(changed)
        alone, listed = await ground.shown()
        if alone or (listed and mutate in SHOWN):
            shown.append(f"{number} {mutate.__name__}: {alone} {listed}")
    assert shown == []
    ground.owner.write(ground.sound)
    assert await ground.shown() == (True, True)


async def test_a_whole_log_that_is_not_the_one_that_was_anchored_is_refused_at_start(
    ground: Ground, request: pytest.FixtureRequest, sized: Callable[[int, int], int]
) -> None:
    count = sized(10, 400) if request.node.callspec.params["ground"] == "sqlite" else sized(4, 20)
    passed = []
    for number in range(count):
        mutate = OF_THE_WHOLE_WITH_CHECKPOINTS[number % len(OF_THE_WHOLE_WITH_CHECKPOINTS)]
        changed = deepcopy(ground.sound)
        mutate(changed, random.Random(f"{_SEED} {number}"))
        ground.owner.write(changed)
        try:
            await ground.audit(log_alone=True)
        except VerificationRefusedError as error:
            # A fork may hit the very place where an entry says whose it is, which is found without any anchor.
            assert "filed under another deliberation" in str(error)  # noqa: PT017 - most of them are not refused here
        if (await ground.refusal_at_start()) is None:
            passed.append(f"{number} {mutate.__name__}")
    assert passed == []


@pytest.mark.parametrize("mutate", OF_THE_HEAD)
async def test_a_service_starts_on_no_changed_head_and_says_so(ground: Ground, mutate: Mutation) -> None:
    for number in range(4):
        changed = deepcopy(ground.sound)
        mutate(changed, random.Random(f"{_SEED} {number}"))
        ground.owner.write(changed)
        assert (await ground.refusal_at_start()) is not None
