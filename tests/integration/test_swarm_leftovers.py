"""What a killed swarm leaves in shared memory: the next one removes it, and nothing that anybody uses."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from domain.errors.configuration import ConfigurationError
from infrastructure.swarm.shared_memory_claim import SharedMemoryClaim

HOLDER = """
import sys
from pathlib import Path
from infrastructure.swarm.shared_memory_claim import SharedMemoryClaim

with SharedMemoryClaim(Path(sys.argv[1]), sys.argv[2]).held():
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(folder: Path, session: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), session],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def places(folder: Path, session: str) -> list[Path]:
    made = [folder / f"conclave-swarm-{session}", folder / f"conclave-{os.geteuid()}-swarm-{session}"]
    for place in made:
        place.mkdir()
        (place / "segment").write_text("messages")
    return made


def test_what_a_killed_session_left_goes_when_the_next_one_starts(tmp_path: Path) -> None:
    left = places(tmp_path, "dead")
    with holder(tmp_path, "dead") as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert all(place.exists() for place in left)
    with SharedMemoryClaim(tmp_path, "next").held():
        assert not any(place.exists() for place in left)
    assert list(tmp_path.iterdir()) == []


def test_a_living_session_is_neither_swept_nor_run_a_second_time(tmp_path: Path) -> None:
    used = places(tmp_path, "living")
    with holder(tmp_path, "living") as process:
        with SharedMemoryClaim(tmp_path, "next").held():
            assert all(place.exists() for place in used)
        with (
            pytest.raises(ConfigurationError, match="'living' runs on that bus"),
            SharedMemoryClaim(tmp_path, "living").held(),
        ):
            pass
        assert all(place.exists() for place in used)
        process.kill()


def test_a_session_that_somebody_joined_is_not_swept_before_he_leaves(tmp_path: Path) -> None:
    left = places(tmp_path, "dead")
    with holder(tmp_path, "dead") as process, SharedMemoryClaim(tmp_path, "dead").shared():
        process.kill()
        process.wait()
        with SharedMemoryClaim(tmp_path, "next").held():
            assert all(place.exists() for place in left)
    with SharedMemoryClaim(tmp_path, "next").held():
        assert not any(place.exists() for place in left)


def test_what_has_no_claim_is_let_be(tmp_path: Path) -> None:
    foreign = places(tmp_path, "unclaimed")
    with SharedMemoryClaim(tmp_path, "next").held():
        pass
    assert all(place.exists() for place in foreign)
