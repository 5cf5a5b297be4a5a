"""The parts of a soak that need no run: its output folder, its report page, what is checked before it, and how files are packed."""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import os
import re
import resource
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from domain.errors.configuration import ConfigurationError
from domain.errors.dependency import DependencyUnavailableError
from domain.models.soak import SoakPlan
from infrastructure.soak.envelope import Envelope
from infrastructure.soak.file_agent import work
from infrastructure.soak.native import is_networked
from infrastructure.soak.output_folder import METRICS, OutputFolder
from infrastructure.soak.preflight import check_before_soak
from infrastructure.soak.process_gauge import OwnMemory, ProcGauge, is_alive
from infrastructure.soak.report_page import render_page

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def folder_at(path: Path, **more: Any) -> OutputFolder:
    folder = OutputFolder(path, now=lambda: NOON, **more)
    folder.open(resumes=False)
    return folder


def row(cycle: int, **more: Any) -> dict[str, Any]:
    return {"type": "coordination_cycle", "cycle": cycle, "duration": 1.0, **more}


def test_each_row_is_one_line_that_is_in_the_file_at_once(tmp_path: Path) -> None:
    folder = folder_at(tmp_path / "out")
    for cycle in (1, 2):
        folder.add_row(row(cycle))
        assert len((tmp_path / "out" / METRICS).read_text().splitlines()) == cycle
    assert [found["cycle"] for found in folder.rows()] == [1, 2]


def test_lines_that_are_no_rows_are_not_counted(tmp_path: Path) -> None:
    folder = folder_at(tmp_path)
    folder.add_row(row(1))
    with (tmp_path / METRICS).open("a") as file:
        file.write('{"type": "note"}\n[1]\n{torn')
    assert len(folder.rows()) == 1


def test_a_torn_last_line_is_cut_off_when_a_run_is_continued(tmp_path: Path) -> None:
    folder_at(tmp_path).add_row(row(1))
    with (tmp_path / METRICS).open("a") as file:
        file.write('{"type": "coordination_cycle", "cy')
    folder = OutputFolder(tmp_path)
    folder.open(resumes=True)
    folder.add_row(row(2))
    assert [found["cycle"] for found in folder.rows()] == [1, 2]
    assert len((tmp_path / METRICS).read_text().splitlines()) == 2


def test_a_new_run_begins_with_an_empty_folder_and_touches_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    folder_at(tmp_path).add_row(row(1))
    assert folder_at(tmp_path).rows() == []
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_a_row_that_fits_in_part_only_is_cut_off_and_comes_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_at(tmp_path)
    written = os.write
    room = [40]

    def write(file: int, text: Any) -> int:
        if room[0] <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        done = written(file, bytes(text)[: room[0]])
        room[0] -= done
        return done

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        with pytest.raises(DependencyUnavailableError, match="No space"):
            folder.add_row(row(1))
    assert (tmp_path / METRICS).read_text() == ""
    folder.add_row(row(2))
    assert [found["cycle"] for found in folder.rows()] == [1, 2]


def test_a_log_line_says_when_and_how_grave_and_nothing_in_it_begins_another(tmp_path: Path) -> None:
    folder = folder_at(tmp_path)
    folder.say("INFO", "agent 1\n[2020] [INFO] passed \x1b[2J\ud800")
    folder.say("DEBUG", "not said")
    assert (tmp_path / "stability-test.log").read_text().splitlines() == [
        "[2026-01-01T12:00:00.000Z] [INFO] agent 1\\n[2020] [INFO] passed \\x1b[2J\\ud800"
    ]


def test_debug_lines_are_written_where_they_are_asked_for(tmp_path: Path) -> None:
    folder_at(tmp_path, debugs=True).say("DEBUG", "said")
    assert "[DEBUG] said" in (tmp_path / "stability-test.log").read_text()


def test_the_history_never_takes_more_than_it_may_and_keeps_the_last(tmp_path: Path) -> None:
    folder = folder_at(tmp_path, history_bytes=4_000)
    for cycle in range(1, 60):
        for _ in range(5):
            folder.keep({"cycle": cycle, "message": "x" * 20})
        folder.add_row(row(cycle))
        files = [tmp_path / "history.jsonl", tmp_path / "history.jsonl.1"]
        assert sum(file.stat().st_size for file in files if file.exists()) <= 4_000
    assert json.loads(files[0].read_text().splitlines()[-1])["cycle"] == 59
    assert len(files[1].read_text()) > 1_000


def test_without_history_nothing_is_kept(tmp_path: Path) -> None:
    folder = folder_at(tmp_path)
    folder.keep({"message": 1})
    folder.add_row(row(1))
    assert not (tmp_path / "history.jsonl").exists()


def test_an_output_folder_that_cannot_be_had_is_a_matter_of_the_option(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="--output-dir"):
        folder_at(tmp_path / "file" / "out")


@pytest.mark.parametrize("content", [b"{", b"\xff", b""])
def test_a_state_that_cannot_be_read_is_not_resumed(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "soak-state.json").write_bytes(content)
    with pytest.raises(ConfigurationError, match="--resume"):
        OutputFolder(tmp_path).state()


def report_of(**more: Any) -> dict[str, Any]:
    criterion = {"value": 1.0, "limit": 10.0, "passed": True}
    return {"passed": True, "criteria": {"memory_growth": criterion}, "cycle_ms": {"p50": 1.0}, **more}


def test_the_page_allows_nothing_but_its_own_style() -> None:
    page = render_page(report_of(), [row(1), row(2)], at=NOON)
    style = re.search("<style>(.*)</style>", page, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style.group(1).encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'" in page
    for forbidden in ("<script", "javascript:", "onload", " style=", "<img", "<link", "url(", "frame-ancestors"):
        assert forbidden not in page


def test_no_text_in_the_page_is_markup() -> None:
    evil = '"><script>alert(1)</script>'
    report = report_of(
        criteria={evil: {"value": evil, "limit": evil, "passed": False}}, agents=evil, cycle_ms={evil: evil}
    )
    page = render_page(report, [{**row(1), "cycle": evil, "memoryStats": evil, "crashedAgents": [evil]}], at=NOON)
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_a_page_of_many_cycles_stays_small_and_shows_the_slowest() -> None:
    rows = [row(cycle, crashedAgents=0) for cycle in range(1, 20_001)]
    rows[7_777]["duration"] = 9_999.0
    rows[7_778]["crashedAgents"] = 1
    page = render_page(report_of(), rows, at=NOON)
    assert len(page) < 200_000
    assert "at most 9999 ms" in page
    assert "Crashes, at most 1 " in page


def test_a_page_without_rows_is_a_page() -> None:
    assert "Nothing to show" in render_page(report_of(passed=False), [], at=NOON)


def check(tmp_path: Path, plan: SoakPlan | None = None, **more: Any) -> list[str]:
    return check_before_soak(plan or SoakPlan(agents=2), coordination=tmp_path / "c", output=tmp_path / "o", **more)


def test_a_soak_that_can_start_is_not_held_up(tmp_path: Path) -> None:
    assert check(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_too_little_room_says_how_much_there_has_to_be(tmp_path: Path) -> None:
    with pytest.raises(DependencyUnavailableError, match=r"1,000 bytes left .* 49,152.* --coord-dir"):
        check(tmp_path, free_bytes=lambda _path: 1_000)


def test_too_little_room_for_the_history_is_doubtful_only(tmp_path: Path) -> None:
    (doubt,) = check(tmp_path, history_bytes=2**60)
    assert "history" in doubt


def test_a_folder_that_may_not_be_written_to_is_a_matter_of_its_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Rights do not hold for root, who may run the tests.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ConfigurationError) as raised:
        check(tmp_path)
    assert raised.value.variable == "--coord-dir"


def test_a_file_in_the_place_of_the_output_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "o").write_text("")
    with pytest.raises(ConfigurationError) as raised:
        check(tmp_path)
    assert raised.value.variable == "--output-dir"


def test_too_few_descriptors_say_which_limit_to_raise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (64, 64))
    with pytest.raises(DependencyUnavailableError, match="ulimit -n 130"):
        check(tmp_path)


def test_a_soft_limit_of_descriptors_is_raised_where_it_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raised: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (64, 4_096))
    monkeypatch.setattr(resource, "setrlimit", lambda _which, limits: raised.append(limits))
    check(tmp_path)
    assert raised == [(130, 4_096)]


def test_too_few_processes_say_which_limit_to_raise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1_000)
    monkeypatch.setattr(
        resource, "getrlimit", lambda which: (16, 16) if which == resource.RLIMIT_NPROC else (4_096, 4_096)
    )
    with pytest.raises(DependencyUnavailableError, match="ulimit -u"):
        check(tmp_path)


def test_another_system_is_told_that_it_will_not_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(ConfigurationError, match="Linux"):
        check(tmp_path)


def test_a_folder_that_others_may_write_to_is_doubtful(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c").chmod(0o777)
    assert "other users" in check(tmp_path)[0]


@pytest.mark.parametrize(("compresses", "key"), [(True, None), (False, b"k" * 32), (True, b"k" * 32)])
def test_what_is_packed_is_unpacked_and_anything_else_refused(compresses: bool, key: bytes | None) -> None:
    envelope = Envelope(compresses=compresses, key=key)
    packed = envelope.pack(b"text" * 100, "name")
    assert b"texttext" not in packed
    assert envelope.unpack(packed, "name") == b"text" * 100
    for wrong in (b"", b"{}", packed[:-3], packed[:8], b"CSZ1", b"CSE1" + bytes(40)):
        with pytest.raises(ValueError, match="is"):
            envelope.unpack(wrong, "name")


def test_what_was_sealed_for_one_file_is_refused_in_another() -> None:
    envelope = Envelope(compresses=False, key=b"k" * 32)
    with pytest.raises(ValueError, match="under this name"):
        envelope.unpack(envelope.pack(b"text", "response-1-a.json"), "response-2-a.json")


def test_what_unpacks_to_too_much_is_refused_before_it_takes_the_memory() -> None:
    envelope = Envelope(compresses=True, key=None)
    with pytest.raises(ValueError, match="longer"):
        envelope.unpack(envelope.pack(bytes(50_000_000), "name"), "name")


def test_agents_do_what_they_are_asked_for() -> None:
    assert work("ping", None) == {"pong": True}
    # 1,664,525 + 1,013,904,223, the first step of Numerical Recipes' generator from 1.
    assert work("compute", {"iterations": 1}) == {"result": 1_015_568_748, "iterations": 1}
    assert work("memory_test", {"size": 10_000}) == {"allocated": 10_000}


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("compute", {"iterations": -1}),
        ("compute", {"iterations": "9"}),
        ("memory_test", {"size": 1e9}),
        ("eval", {"code": "1"}),
    ],
)
def test_agents_refuse_what_is_no_message(kind: str, data: object) -> None:
    with pytest.raises(ValueError, match=r"whole number|unknown type"):
        work(kind, data)


def test_this_process_lives_and_is_measured() -> None:
    assert is_alive(os.getpid())
    (memory,) = ProcGauge().memory([os.getpid(), 2**22 + 1]).values()
    assert memory.rss >= memory.pss >= memory.uss > 0
    assert memory.descriptors > 2
    load = ProcGauge().load([os.getpid()])
    assert load.worked[0] > 0
    assert load.worked.keys() == {0, os.getpid()}


def test_own_memory_is_measured_at_most_once_a_second() -> None:
    now = [0.0]
    measure = OwnMemory(clock=lambda: now[0])
    first = measure()
    now[0] = 0.9
    assert measure() is first
    now[0] = 1.1
    assert measure() is not first


def test_a_folder_here_is_not_on_another_machine(tmp_path: Path) -> None:
    assert not is_networked(str(tmp_path))
    assert not is_networked(str(tmp_path / "nowhere"))


def test_an_agents_process_imports_next_to_nothing() -> None:
    sources = Path(__file__).resolve().parents[3] / "src"
    code = (
        f"import sys; sys.path.insert(0, {str(sources)!r}); import infrastructure.soak.fork_server, infrastructure.soak.file_agent_body; "
        "print([name for name in ('asyncio', 'typing', 'dataclasses', 'pathlib', 'logging', 'subprocess', 'site') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
