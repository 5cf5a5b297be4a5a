"""States that are cooled, come back and are written through: whatever lies where, what is read is what was written last."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from application.ports.state_store import StateBatch, StateCache, StateRecord
from domain.errors.population import DamagedRecordError, PopulationFolderError, StateConflictError
from infrastructure.population.tiers.lz4_slab import Lz4Slab
from infrastructure.population.tiers.persistence_queue import PersistenceQueue
from infrastructure.population.tiers.places import Places
from infrastructure.population.tiers.records import Words
from infrastructure.population.tiers.shared_slots import SharedSlots
from infrastructure.population.tiers.tiered_states import Change, Stores, Tier, TieredStates
from infrastructure.stubs.in_memory_state_store import InMemoryStateStore
from tests.patience import eventually
from tests.population.slow_store import SlowStore

ROWS, HOT, WARM, SIZE = 60, 6, 8, 256


@dataclass
class Rig:
    """Tiers with a handful of places, and what they are made of."""

    states: TieredStates
    warm: StateCache
    cold: SlowStore
    queue: PersistenceQueue


@contextmanager
def rig(*, warm: StateCache | None = None, most: int = 64) -> Iterator[Rig]:
    """Open tiers."""
    cold = SlowStore(size=SIZE)
    queue = PersistenceQueue(cold, most=most)
    warm = warm or Lz4Slab(keys=ROWS, slots=WARM, size=SIZE)
    stores = Stores(SharedSlots(keys=ROWS, slots=HOT, size=SIZE), warm, Places(ROWS, WARM), cold)
    try:
        yield Rig(TieredStates(stores, rows=ROWS, queue=queue), warm, cold, queue)
    finally:
        cold.may_write.set()
        queue.close()
        stores.hot.close()


def _rows(*rows: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(rows, np.int64)


def _filled(value: int) -> Change:
    return lambda words: np.full_like(words, value)


def _state(value: int) -> bytes:
    return np.full(SIZE // 8, value, np.int64).tobytes()


def _tier(tiers: Rig, row: int) -> Tier:
    return Tier(int(tiers.states.tiers_of(_rows(row))[0]))


def test_a_state_that_nobody_wrote_is_all_zeros_and_has_no_version() -> None:
    with rig() as tiers:
        assert _tier(tiers, 5) is Tier.NEW
        assert tiers.states.read(5) == StateRecord(0, bytes(SIZE))
        assert _tier(tiers, 5) is Tier.HOT


def test_a_state_cools_from_tier_to_tier_and_comes_back_as_it_was() -> None:
    with rig() as tiers:
        tiers.states.change(_rows(0), _filled(7), tick=1)
        seen = [_tier(tiers, 0)]
        for stranger in range(1, 40):
            tiers.states.read(stranger)
            seen.append(_tier(tiers, 0))
        assert list(dict.fromkeys(seen)) == [Tier.HOT, Tier.WARM, Tier.COLD]
        assert tiers.warm.read([0]) == [None]
        assert tiers.states.read(0) == StateRecord(1, _state(7))
        assert _tier(tiers, 0) is Tier.HOT


class Forgetting(InMemoryStateStore):
    """Has forgotten most of what it is asked for."""

    def read(self, keys: object) -> list[StateRecord | None]:
        """See `StateStore`."""
        found = super().read(keys)  # type: ignore[arg-type]
        return [record if number % 3 == 2 else None for number, record in enumerate(found)]


turns = st.lists(
    st.tuples(
        st.sampled_from(["change", "read", "write", "cool", "settle"]),
        st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=HOT, unique=True),
    ),
    max_size=40,
)


@pytest.mark.parametrize("warm", ["lz4", "memory", "forgetting"])
@settings(max_examples=40, deadline=None, derandomize=True)
@given(found=turns)
def test_whatever_is_done_each_state_is_what_was_written_last(warm: str, found: list[tuple[str, list[int]]]) -> None:
    made: dict[str, Callable[[], StateCache]] = {
        "lz4": lambda: Lz4Slab(keys=ROWS, slots=WARM, size=SIZE),
        "memory": lambda: InMemoryStateStore(size=SIZE, most=WARM),
        "forgetting": lambda: Forgetting(size=SIZE, most=WARM),
    }
    model: dict[int, StateRecord] = {}
    with rig(warm=made[warm]()) as tiers:
        for number, (what, rows) in enumerate(found, 1):
            before = {row: model.get(row, StateRecord(0, bytes(SIZE))) for row in rows}
            if what == "change":
                tiers.states.change(_rows(*rows), _filled(number), tick=number)
                model |= {row: StateRecord(before[row].version + 1, _state(number)) for row in rows}
            elif what == "write":
                noise = Random(number).randbytes(SIZE)
                version = tiers.states.write(rows[0], noise, expected=before[rows[0]].version, tick=number)
                model[rows[0]] = StateRecord(version, noise)
            elif what == "cool":
                tiers.states.cool(_rows(*rows), Tier.WARM if number % 2 else Tier.COLD)
            elif what == "settle":
                tiers.states.settle()
            else:
                assert {row: tiers.states.read(row) for row in rows} == before
        assert [tiers.states.read(row) for row in range(ROWS)] == [
            model.get(row, StateRecord(0, bytes(SIZE))) for row in range(ROWS)
        ]
        tiers.states.settle()
        assert dict(enumerate(tiers.cold.read(range(ROWS)))) == {row: model.get(row) for row in range(ROWS)}


def test_a_writer_with_an_old_version_is_told_and_changes_nothing() -> None:
    with rig() as tiers:
        assert tiers.states.write(3, _state(1), expected=0, tick=1) == 1
        assert tiers.states.write(3, _state(2), expected=1, tick=1) == 2
        with pytest.raises(StateConflictError) as caught:
            tiers.states.write(3, _state(9), expected=1, tick=2)
        assert (caught.value.agent, caught.value.expected, caught.value.found) == (3, 1, 2)
        assert tiers.states.read(3) == StateRecord(2, _state(2))


def test_of_twenty_writers_of_one_version_one_wins() -> None:
    with rig() as tiers:
        begin = threading.Barrier(20)

        def write(number: int) -> int | None:
            begin.wait()
            try:
                tiers.states.write(3, _state(number), expected=0, tick=1)
            except StateConflictError:
                return None
            return number

        with ThreadPoolExecutor(20) as threads:
            (won,) = [number for number in threads.map(write, range(20)) if number is not None]
        assert tiers.states.read(3) == StateRecord(1, _state(won))


def test_readers_beside_a_writer_never_see_half_a_state() -> None:
    with rig() as tiers:
        ended = threading.Event()

        def read(row: int) -> int:
            seen = 0
            while not ended.is_set():
                words = set(np.frombuffer(tiers.states.read(row).state, np.int64).tolist())
                seen += len(words) != 1
            return seen

        with ThreadPoolExecutor(3) as threads:
            readers = [threads.submit(read, row) for row in (1, 2, 30)]
            for tick in range(1, 150):
                tiers.states.change(_rows(1, 2, tick % 28 + 3), _filled(tick), tick=tick)
            ended.set()
            assert [reader.result() for reader in readers] == [0, 0, 0]


@pytest.mark.parametrize("at_once", [False, True])
def test_a_state_that_cooled_faster_than_it_was_written_is_waited_for(*, at_once: bool) -> None:
    def look(tiers: Rig) -> None:
        if at_once:
            tiers.states.change(_rows(0, 1), lambda words: words + 1, tick=2)
        else:
            tiers.states.read(0)

    with rig() as tiers:
        tiers.cold.may_write.clear()
        tiers.states.change(_rows(0), _filled(7), tick=1)
        tiers.states.cool(_rows(0), Tier.COLD)
        with ThreadPoolExecutor(1) as threads:
            looking = threads.submit(look, tiers)
            # It has looked, and what it wants is still to be written.
            assert eventually(lambda: tiers.cold.reads == 1)
            tiers.cold.may_write.set()
            looking.result()
        assert tiers.states.read(0) == (StateRecord(2, _state(8)) if at_once else StateRecord(1, _state(7)))


@pytest.mark.parametrize("tier", [Tier.WARM, Tier.COLD])
def test_a_damaged_state_is_not_taken_for_one(tier: Tier) -> None:
    warm = InMemoryStateStore(size=SIZE, most=WARM)
    with rig(warm=warm) as tiers:
        for rows in (_rows(0), _rows(1, 2)):
            tiers.states.change(rows, _filled(7), tick=1)
            tiers.states.settle()
            tiers.states.cool(rows, tier)
        tiers.cold.spoil(0)
        tiers.cold.spoil(2)
        if tier is Tier.WARM:
            for row in (0, 2):
                warm.drop([row])
                warm.write(StateBatch(0, [row], [0], [1], _state(8)))
        with pytest.raises(DamagedRecordError, match="agent row 0"):
            tiers.states.read(0)
        with pytest.raises(DamagedRecordError, match="agent row 2"):
            tiers.states.change(_rows(1, 2), _filled(8), tick=2)


def test_what_cannot_be_written_is_said_and_leaves_the_state_as_it_was() -> None:
    with rig() as tiers:
        tiers.states.change(_rows(1), _filled(1), tick=1)
        tiers.states.settle()
        tiers.cold.failure = PopulationFolderError(folder="x", problem="is full", remedy="Make room.")
        tiers.states.change(_rows(1), _filled(2), tick=2)
        with pytest.raises(PopulationFolderError, match="is full"):
            tiers.states.settle()
        before = tiers.states.read(1)
        with pytest.raises(PopulationFolderError, match="is full"):
            tiers.states.change(_rows(1), _filled(3), tick=3)
        assert tiers.states.read(1) == before
        assert tiers.cold.read([1]) == [StateRecord(1, _state(1))]


def test_whoever_writes_faster_than_the_cold_tier_waits_for_it() -> None:
    with rig(most=4) as tiers:
        tiers.cold.may_write.clear()

        def write() -> None:
            for tick in range(1, 6):
                tiers.states.change(_rows(1, 2), _filled(tick), tick=tick)

        writer = threading.Thread(target=write)
        writer.start()
        # Two batches of two fit; the third is held up, and nothing of it is to be seen.
        assert eventually(lambda: tiers.queue.waits == 1)
        assert int(tiers.states.version[1]) == 2
        assert tiers.cold.batches == []
        tiers.cold.may_write.set()
        writer.join(60)
        tiers.states.settle()
        assert tiers.cold.batches == [[1, 2]] * 5
        assert tiers.queue.waits >= 1
        assert tiers.queue.times.count == tiers.queue.written == 10


def test_the_cold_tier_is_tidied_off_peak_alone() -> None:
    with rig() as tiers:
        tiers.cold.to_tidy = 5
        with tiers.queue.peak():
            tiers.states.change(_rows(1), _filled(1), tick=1)
            tiers.states.settle()
            tiers.queue.untidy()
            assert tiers.cold.tidied == 0
        assert eventually(lambda: tiers.cold.tidied == 5)


def test_what_is_left_is_written_when_the_queue_is_closed() -> None:
    with rig() as tiers:
        tiers.cold.may_write.clear()
        for tick in range(1, 4):
            tiers.states.change(_rows(tick), _filled(tick), tick=tick)
        tiers.cold.may_write.set()
        tiers.queue.close()
        tiers.queue.close()
        assert tiers.cold.batches == [[1], [2], [3]]


def test_a_state_of_another_length_is_refused() -> None:
    with rig() as tiers, pytest.raises(ValueError, match="256 bytes"):
        tiers.states.write(1, b"short", expected=0, tick=1)


def test_words_are_changed_in_the_order_of_their_rows() -> None:
    def numbered(words: Words) -> Words:
        return words + np.arange(1, len(words) + 1)[:, None]

    with rig() as tiers:
        tiers.states.read(9)
        tiers.states.change(_rows(4, 9, 2), numbered, tick=1)
        assert [tiers.states.read(row).state for row in (4, 9, 2)] == [_state(1), _state(2), _state(3)]
