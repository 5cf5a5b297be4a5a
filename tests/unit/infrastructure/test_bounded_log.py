"""What a run complains of: whole where it is little, and its first and last part where it is much."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from infrastructure.runs.bounded_log import BoundedLog

FIRST, LAST = 100, 50


def kept(place: Path, *pieces: bytes) -> bytes:
    """What lies in the file after these were said, each at once."""
    source, sink = os.pipe()
    log = BoundedLog(source=source, target=os.open(place, os.O_WRONLY | os.O_CREAT), first=FIRST, last=LAST)
    try:
        for piece in pieces:
            os.write(sink, piece)
    finally:
        os.close(sink)
    assert log.wait(10)
    return place.read_bytes()


@pytest.mark.parametrize("size", [0, 1, FIRST, FIRST + 1, FIRST + LAST])
def test_what_fits_is_kept_whole(tmp_path: Path, size: int) -> None:
    said = bytes(number % 251 for number in range(size))
    assert kept(tmp_path / "log", *(said[place : place + 7] for place in range(0, size, 7))) == said


@pytest.mark.parametrize("piece", [1, 7, 99, 5000])
def test_of_more_the_first_and_the_last_part_are_kept_and_how_much_is_left_out(tmp_path: Path, piece: int) -> None:
    said = bytes(number % 251 for number in range(5_000))
    found = kept(tmp_path / "log", *(said[place : place + piece] for place in range(0, len(said), piece)))
    assert found == said[:FIRST] + b"\n[... 4,850 bytes are left out here ...]\n" + said[-LAST:]


def test_the_last_part_stands_there_before_the_end(tmp_path: Path) -> None:
    place = tmp_path / "log"
    source, sink = os.pipe()
    log = BoundedLog(source=source, target=os.open(place, os.O_WRONLY | os.O_CREAT), first=FIRST, last=LAST)
    os.write(sink, b"a" * FIRST + b"b" * 2 * LAST)
    assert not log.wait(0.2)
    assert place.read_bytes().endswith(b"b" * LAST)
    os.close(sink)
    assert log.wait(10)


def test_where_nothing_more_can_be_written_nobody_is_held_up(tmp_path: Path) -> None:
    target = os.open(tmp_path / "log", os.O_CREAT | os.O_RDONLY)
    source, sink = os.pipe()
    log = BoundedLog(source=source, target=target, first=FIRST, last=LAST)
    for _ in range(10):
        os.write(sink, b"x" * resource.getpagesize() * 32)
    os.close(sink)
    assert log.wait(10)
    assert (tmp_path / "log").read_bytes() == b""
