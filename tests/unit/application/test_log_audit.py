"""The audit of the whole log: whatever was changed is found, and the first bad thing is named."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from application.ports.witness_log import LoggedEntry
from application.services.log_audit import AuditReport, audit
from application.services.witness_service import WitnessService
from domain.errors.witness import VerificationRefusedError
from domain.witness.merkle import leaf_hash
from tests.unit.application.fake_witness_log import FakeWitnessLog, StillClock, Tools, key, signer

SIZE = 5_000
SIGNED = (0, 1, 256, 2_048, 2_049, 4_999, 5_000)


async def audited(log: FakeWitnessLog) -> AuditReport:
    return await audit(log, key=key(), tools=Tools())


def sound_log(size: int = SIZE) -> FakeWitnessLog:
    log = FakeWitnessLog.of(size)
    for signed in SIGNED:
        if signed <= size:
            log.notes[signed] = signer().sign(signed, log.root_of(signed))
    return log


async def test_a_sound_log_is_reported_with_its_counts() -> None:
    log = sound_log()
    report = await audited(log)
    assert report == AuditReport(SIZE, log.head_row.root_hash, SIZE, SIZE // 256, len(SIGNED))


@pytest.mark.parametrize("size", [0, 1, 256, 2_047, 2_048, 2_049])
async def test_logs_of_every_shape_are_sound(size: int) -> None:
    assert (await audited(sound_log(size))).entries == size


async def test_progress_is_told_as_entries_seen() -> None:
    seen: list[int] = []
    await audit(sound_log(), key=key(), tools=Tools(), progress=seen.append)
    assert seen == [2_048, 4_096, 5_000]


async def test_nodes_of_the_second_tile_level_are_compared() -> None:
    log = FakeWitnessLog.of(65_600)
    assert (await audited(log)).nodes == 256 + 1
    log.stored_nodes[2][0] = b"x" * 32
    with pytest.raises(VerificationRefusedError, match="stored node 0 of tile level 2"):
        await audited(log)


def _tamper_entry(log: FakeWitnessLog) -> None:
    log.stored[3_000] = replace(log.stored[3_000], entry=b"{}")


def _tamper_entry_and_leaf(log: FakeWitnessLog) -> None:
    log.stored[3_000] = LoggedEntry(3_000, leaf_hash(b"{}"), b"{}")


def _tamper_leaf(log: FakeWitnessLog) -> None:
    log.stored[0] = replace(log.stored[0], leaf_hash=b"x" * 32)


def _remove_entry(log: FakeWitnessLog) -> None:
    del log.stored[2_048]


def _remove_last_entry(log: FakeWitnessLog) -> None:
    del log.stored[-1]


def _swap_entries(log: FakeWitnessLog) -> None:
    one, other = log.stored[10], log.stored[11]
    log.stored[10], log.stored[11] = replace(other, index=10), replace(one, index=11)


def _add_entry(log: FakeWitnessLog) -> None:
    log.stored.append(replace(log.stored[-1], index=SIZE))


def _add_entry_far_away(log: FakeWitnessLog) -> None:
    log.stored.append(replace(log.stored[-1], index=SIZE + 1_000_000))


def _tamper_node(log: FakeWitnessLog) -> None:
    log.stored_nodes[1][9] = b"x" * 32


def _remove_node(log: FakeWitnessLog) -> None:
    del log.stored_nodes[1][-1]


def _add_node(log: FakeWitnessLog) -> None:
    log.stored_nodes[1].append(b"x" * 32)


def _add_node_above(log: FakeWitnessLog) -> None:
    log.stored_nodes[2] = [b"x" * 32]


def _tamper_head(log: FakeWitnessLog) -> None:
    log.head_row = replace(log.head_row, root_hash=b"x" * 32)


def _shorten_head(log: FakeWitnessLog) -> None:
    log.head_row = replace(log.head_row, tree_size=4_999, root_hash=log.root_of(4_999))


def _sign_other_root(log: FakeWitnessLog) -> None:
    log.notes[300] = signer().sign(300, b"x" * 32)


def _sign_with_other_key(log: FakeWitnessLog) -> None:
    log.notes[300] = signer(2).sign(300, log.root_of(300))


def _sign_beyond(log: FakeWitnessLog) -> None:
    log.notes[6_000] = signer().sign(6_000, b"x" * 32)


def _tamper_note(log: FakeWitnessLog) -> None:
    log.notes[256] = log.notes[256].replace("256", "257")


def _misplace_note(log: FakeWitnessLog) -> None:
    log.notes[257] = log.notes[256]


@pytest.mark.parametrize(
    ("tamper", "named"),
    [
        (_tamper_entry, "entry 3000: the entry does not hash to its stored leaf"),
        (_tamper_entry_and_leaf, "the stored node 11 of tile level 1 is not that of its entries"),
        (_tamper_leaf, "entry 0: the entry does not hash to its stored leaf"),
        (_remove_entry, "entry 2048: the entry is missing"),
        (_remove_last_entry, "entry 4999: the entry is missing"),
        (_swap_entries, "signed checkpoint of 256 entries is not their root"),
        (_add_entry, "entry 5000: an entry stands after the head"),
        (_add_entry_far_away, "entry 1005000: an entry stands after the head"),
        (_tamper_node, "the stored node 9 of tile level 1 is not that of its entries"),
        (_remove_node, "of the stored nodes \\[16, 19\\) of tile level 1 there are 2"),
        (_add_node, "a node of tile level 1 stands after the head's, at 19"),
        (_add_node_above, "a node of tile level 2 stands after the head's, at 0"),
        (_tamper_head, "the head of 5000 entries is not their root"),
        (_shorten_head, "a signed checkpoint has 5000 entries, the log 4999"),
        (_sign_other_root, "the signed checkpoint of 300 entries is not their root"),
        (_sign_with_other_key, "no signature by 'example.com/conclave'"),
        (_sign_beyond, "a signed checkpoint has 6000 entries, the log 5000"),
        (_tamper_note, "is not one of this text"),
        (_misplace_note, "of 256 entries stands after that of 256"),
    ],
)
async def test_what_was_changed_is_found_and_named(tamper: Callable[[FakeWitnessLog], None], named: str) -> None:
    log = sound_log()
    tamper(log)
    with pytest.raises(VerificationRefusedError, match=named):
        await audited(log)


async def test_both_roots_are_evidence() -> None:
    log = sound_log()
    _sign_other_root(log)
    with pytest.raises(VerificationRefusedError) as caught:
        await audited(log)
    assert caught.value.evidence == {"signed_root": (b"x" * 32).hex(), "derived_root": log.root_of(300).hex()}


async def test_a_log_that_grows_meanwhile_is_sound() -> None:
    class GrowingLog(FakeWitnessLog):
        async def entries(self, start: int, end: int) -> Sequence[LoggedEntry]:
            found = await super().entries(start, end)
            self.add([b"{}"] * 300)
            await self.add_checkpoint(self.head_row.tree_size, signer().sign(self.tree.size, self.tree.root()))
            return found

    log = GrowingLog()
    log.add([each.entry for each in FakeWitnessLog.of(3_000).stored])
    assert (await audited(log)).entries == 3_000


async def test_checkpoints_of_what_an_accepted_restore_lost_are_explained() -> None:
    whole = sound_log()
    log = whole.rebuilt(2_000)
    log.notes = dict(whole.notes)
    with pytest.raises(VerificationRefusedError, match="rolled back"):
        await audited(log)
    witness = WitnessService(log=log, signer=signer(), tools=Tools(), clock=StillClock())
    await witness.accept_restore(reason="the disk died", key_name=None)
    assert (await audited(log)).checkpoints == len(SIGNED)
    log.add([b"{}"] * 4_000)
    assert (await audited(log)).checkpoints == len(SIGNED)


async def test_an_option_that_reads_like_a_restore_excuses_nothing() -> None:
    log = sound_log(2_000)
    log.add_documents({"type": "deliberation.accepted", "answer": {"options": ["restore.accepted"]}})
    log.notes[2_048] = signer().sign(2_048, b"x" * 32)
    with pytest.raises(VerificationRefusedError, match="rolled back"):
        await audited(log)


async def test_no_more_than_a_page_is_read_at_a_time() -> None:
    class WatchedLog(FakeWitnessLog):
        most = 0

        async def entries(self, start: int, end: int) -> Sequence[LoggedEntry]:
            found = await super().entries(start, end)
            self.most = max(self.most, len(found))
            return found

    log = WatchedLog()
    log.add([each.entry for each in sound_log().stored])
    await audited(log)
    assert log.most == 2_048
