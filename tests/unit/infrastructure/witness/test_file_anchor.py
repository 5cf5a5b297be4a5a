"""A file anchor keeps every checkpoint, on the disk, and never one that contradicts the last."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from application.ports.anchor import AnchorConflictError
from domain.errors.dependency import DependencyUnavailableError
from domain.errors.witness import VerificationRefusedError
from infrastructure.witness.ed25519 import SigningKey
from infrastructure.witness.file_anchor import FileAnchor
from infrastructure.witness.signer import CheckpointSigner

_SIGNER = CheckpointSigner(SigningKey.from_seed(b"\x01" * 32), "log.example")


def _note(size: int, *, root: bytes = bytes(32)) -> str:
    return _SIGNER.sign(size, root)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints.jsonl"


def test_there_is_no_checkpoint_before_the_first(path: Path) -> None:
    assert asyncio.run(FileAnchor(path).latest()) is None
    assert not path.exists()


def test_the_latest_is_the_last_that_was_published_also_for_another_process(path: Path) -> None:
    for size in (1, 5, 9):
        asyncio.run(FileAnchor(path).publish(_note(size)))
    assert asyncio.run(FileAnchor(path).latest()) == _note(9)
    assert [json.loads(line)["checkpoint"] for line in path.read_text().splitlines()] == [_note(1), _note(5), _note(9)]


def test_the_same_checkpoint_twice_stands_there_once(path: Path) -> None:
    anchor = FileAnchor(path)
    asyncio.run(anchor.publish(_note(3)))
    asyncio.run(anchor.publish(_note(3)))
    assert len(path.read_text().splitlines()) == 1


def test_a_smaller_checkpoint_is_a_conflict_that_names_the_size_held(path: Path) -> None:
    anchor = FileAnchor(path)
    asyncio.run(anchor.publish(_note(9)))
    with pytest.raises(AnchorConflictError) as caught:
        asyncio.run(anchor.publish(_note(8)))
    assert caught.value.conflict_size == 9
    assert pickle.loads(pickle.dumps(caught.value)).conflict_size == 9  # noqa: S301
    assert asyncio.run(anchor.latest()) == _note(9)


def test_another_root_for_the_same_size_is_refused_with_both_roots(path: Path) -> None:
    anchor = FileAnchor(path)
    asyncio.run(anchor.publish(_note(9)))
    with pytest.raises(VerificationRefusedError) as caught:
        asyncio.run(anchor.publish(_note(9, root=b"\x01" * 32)))
    assert caught.value.evidence == {"anchored_root": "00" * 32, "root": "01" * 32}
    assert asyncio.run(anchor.latest()) == _note(9)


def test_an_accepted_restore_begins_again_below_and_keeps_what_stood_there(path: Path) -> None:
    anchor = FileAnchor(path)
    asyncio.run(anchor.publish(_note(9)))
    asyncio.run(anchor.restart(_note(4, root=b"\x01" * 32)))
    assert asyncio.run(anchor.latest()) == _note(4, root=b"\x01" * 32)
    assert _note(9) in [json.loads(line)["checkpoint"] for line in path.read_text().splitlines()]


def test_wherever_a_crash_tears_the_last_line_the_one_before_is_the_latest(path: Path) -> None:
    anchor = FileAnchor(path)
    asyncio.run(anchor.publish(_note(1)))
    whole = path.read_bytes()
    asyncio.run(anchor.publish(_note(2)))
    both = path.read_bytes()
    for end in range(len(whole), len(both)):
        path.write_bytes(both[:end])
        assert asyncio.run(anchor.latest()) == _note(1)
        asyncio.run(anchor.publish(_note(3)))
        assert asyncio.run(anchor.latest()) == _note(3)


def test_a_line_that_is_no_checkpoint_is_refused(path: Path) -> None:
    for line in ("nonsense", "[]", '{"checkpoint": 1}', '{"other": "x"}', "null"):
        path.write_text(line + "\n")
        with pytest.raises(VerificationRefusedError, match="no checkpoint"):
            asyncio.run(FileAnchor(path).latest())


def test_a_note_that_is_none_is_refused_before_it_is_written(path: Path) -> None:
    with pytest.raises(VerificationRefusedError):
        asyncio.run(FileAnchor(path).publish("not a note"))
    assert not path.exists()


def test_of_a_very_long_file_the_end_is_enough(path: Path) -> None:
    line = json.dumps({"checkpoint": _note(1)}) + "\n"
    path.write_text(line * (3 * 1024 * 1024 // len(line)))
    anchor = FileAnchor(path)
    assert asyncio.run(anchor.latest()) == _note(1)
    asyncio.run(anchor.publish(_note(2)))
    assert asyncio.run(anchor.latest()) == _note(2)


def test_a_symbolic_link_is_refused(path: Path, tmp_path: Path) -> None:
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DependencyUnavailableError, match="symbolic link"):
        asyncio.run(FileAnchor(path).publish(_note(1)))
    with pytest.raises(DependencyUnavailableError, match="symbolic link"):
        asyncio.run(FileAnchor(path).latest())
    assert not (tmp_path / "elsewhere").exists()


def test_a_pipe_and_a_missing_folder_are_refused(path: Path, tmp_path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(DependencyUnavailableError, match="no file"):
        asyncio.run(FileAnchor(path).publish(_note(1)))
    with pytest.raises(DependencyUnavailableError, match="No such file"):
        asyncio.run(FileAnchor(tmp_path / "nowhere" / "file").publish(_note(1)))


def test_a_checkpoint_is_synced_before_it_counts_as_kept(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    sync = os.fsync

    def count(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_size)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", count)
    anchor = FileAnchor(path)
    asyncio.run(anchor.publish(_note(1)))
    # The file, and the folder that has a new name in it.
    assert synced[0] == path.stat().st_size
    assert len(synced) == 2
    asyncio.run(anchor.publish(_note(2)))
    assert synced[2:] == [path.stat().st_size]


def test_many_writers_leave_only_whole_lines_in_growing_order(path: Path) -> None:
    def write(size: int) -> None:
        # Somebody else may have been faster with a larger one.
        with suppress(AnchorConflictError):
            asyncio.run(FileAnchor(path).publish(_note(size)))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, [size for size in range(1, 41) for _ in range(2)]))
    notes = [json.loads(line)["checkpoint"] for line in path.read_text().splitlines()]
    sizes = [int(note.split("\n")[1]) for note in notes]
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == 40
