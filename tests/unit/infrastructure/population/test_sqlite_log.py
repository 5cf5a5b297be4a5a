"""The cold tier's log while a busy machine holds its writer between the commit and the index."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from domain.errors.population import DamagedRecordError
from infrastructure.population.tiers.sqlite_log import SqliteLog
from tests.population.state_stores import KEYS, SIZE, batch, state

_PATIENCE_S = 30.0


@pytest.fixture
def log(tmp_path: Path) -> SqliteLog:
    """With one version of five states."""
    opened = SqliteLog(tmp_path / "states.sqlite", keys=KEYS, size=SIZE)
    opened.begin()
    opened.write(batch(range(5)))
    return opened


def test_a_state_whose_record_went_before_its_new_place_was_told_is_waited_for(
    log: SqliteLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_in_vain, held = threading.Event(), threading.Event()
    index, move, body = log._index, log._index.move, log._body
    vain: list[int] = []

    def held_move(*places: Any, **more: Any) -> None:
        held.set()
        assert looked_in_vain.wait(_PATIENCE_S)
        move(*places, **more)

    def counted_body(number: int) -> bytes | None:
        found = body(number)
        if found is None:
            vain.append(number)
            if len(vain) >= 100:
                looked_in_vain.set()
        return found

    monkeypatch.setattr(index, "move", held_move)
    monkeypatch.setattr(log, "_body", counted_body)
    index.movable.append(0)
    mover = threading.Thread(target=log.tidy)
    mover.start()
    assert held.wait(_PATIENCE_S)
    (found,) = log.read([3])
    mover.join(_PATIENCE_S)
    assert found is not None
    assert (found.version, bytes(found.state)) == (1, state(3, 1))
    assert len(vain) >= 100
    log.close()


def test_a_state_that_is_really_gone_is_told_as_damage(log: SqliteLog) -> None:
    lost: Sequence[int] = [0]
    log._commit([], gone=lost)
    with pytest.raises(DamagedRecordError, match="agent row 3"):
        log.read([3])
    log.close()
