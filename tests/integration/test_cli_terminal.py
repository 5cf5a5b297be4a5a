"""The command line on a real terminal and under real signals, with agents that hang at the far end."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.llm_server.handle import LlmServer

DEADLINE_S = 60.0
ASK_THREE = ("deliberate", "Close the centre?", "--option", "yes", "--option", "no", "--agents", "3")


@pytest.fixture
def settings(tmp_path: Path, llm_server: LlmServer) -> Mapping[str, str]:
    """The far end as the provider, and an empty data folder."""
    return {
        "CONCLAVE_DATA_DIR": str(tmp_path / "data"),
        "CONCLAVE_ORCHESTRATOR": "openai",
        "CONCLAVE_LLM_BASE_URL": llm_server.base_url,
    }


@contextmanager
def running(*arguments: str, settings: Mapping[str, str], **streams: Any) -> Iterator[subprocess.Popen[str]]:
    """A command in a process of its own, which does not outlive the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "api.cli.main", *arguments],
        env={**os.environ, **settings},
        text=True,
        **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


class Terminal:
    """A pseudo-terminal whose screen is read as it was written."""

    def __init__(self, *, columns: int = 80) -> None:
        self._near, self.far = pty.openpty()
        fcntl.ioctl(self.far, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        self.seen = ""

    def read_until(self, pattern: str) -> None:
        """Read what is written until `pattern` is seen."""
        until = time.monotonic() + DEADLINE_S
        while not re.search(pattern, self.seen):
            ready, _, _ = select.select([self._near], [], [], max(0.0, until - time.monotonic()))
            assert ready, f"{pattern!r} was not seen in {self.seen[-2000:]!r}"
            self.seen += os.read(self._near, 65536).decode()

    def read_rest(self) -> str:
        """Everything, once nobody writes any more."""
        os.close(self.far)
        try:
            while chunk := os.read(self._near, 65536):
                self.seen += chunk.decode()
        except OSError:
            # A terminal that nobody holds open any more reads as an error (EIO).
            pass
        os.close(self._near)
        return self.seen


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_cancels_what_hangs_and_still_prints_what_was_counted(
    llm_server: LlmServer, settings: Mapping[str, str], number: signal.Signals, code: int
) -> None:
    llm_server.configure(fault="hang")
    with running(*ASK_THREE, "--json", settings=settings) as process:
        llm_server.wait_until(in_flight_at_least=3, timeout_seconds=DEADLINE_S)
        process.send_signal(number)
        stdout, _ = process.communicate(timeout=DEADLINE_S)
        llm_server.wait_until(in_flight_at_most=0, timeout_seconds=DEADLINE_S)
    assert process.returncode == code
    document = json.loads(stdout)
    assert document["status"] == "cancelled"
    assert document["roll_call"]["asked"] == document["roll_call"]["cancelled"] == 3
    assert [failure["state"] for failure in document["failures"]] == ["cancelled"] * 3


def test_what_a_signal_cancelled_is_readable_and_remembered(llm_server: LlmServer, settings: Mapping[str, str]) -> None:
    llm_server.configure(fault="hang")
    with running(*ASK_THREE, settings=settings) as process:
        llm_server.wait_until(in_flight_at_least=3, timeout_seconds=DEADLINE_S)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 130
    assert "No decision: the deliberation was cancelled" in stdout
    assert "Roll call: 3 asked = 0 answered + 3 cancelled" in stdout
    assert "Traceback" not in stderr
    with running("list", "--json", settings=settings) as listing:
        listed, _ = listing.communicate(timeout=DEADLINE_S)
    assert [item["status"] for item in json.loads(listed)["items"]] == ["cancelled"]


def test_another_process_can_cancel_what_hangs(llm_server: LlmServer, settings: Mapping[str, str]) -> None:
    llm_server.configure(fault="hang")
    with running(*ASK_THREE, "--json", settings=settings) as process:
        llm_server.wait_until(in_flight_at_least=3, timeout_seconds=DEADLINE_S)
        with running("list", "--status", "running", "--json", settings=settings) as listing:
            listed, _ = listing.communicate(timeout=DEADLINE_S)
        found = json.loads(listed)["items"][0]["id"]
        with running("cancel", found[:8], settings=settings) as cancelling:
            said, _ = cancelling.communicate(timeout=DEADLINE_S)
        stdout, _ = process.communicate(timeout=DEADLINE_S)
    assert said == f"{found} is cancelled\n"
    assert process.returncode == 1
    assert json.loads(stdout)["status"] == "cancelled"


def test_a_person_watches_it_go_on_and_gets_the_result_alone(
    llm_server: LlmServer, settings: Mapping[str, str]
) -> None:
    llm_server.configure(fault="hold")
    terminal = Terminal()
    with running(*ASK_THREE, settings={**settings, "TERM": "xterm"}, stderr=terminal.far) as process:
        llm_server.wait_until(held_at_least=3, timeout_seconds=DEADLINE_S)
        terminal.read_until("0 answered, 3 to come")
        llm_server.release(count=2)
        terminal.read_until("2 answered, 1 to come")
        terminal.read_until("archon-\\d+: ")
        llm_server.release()
        stdout, _ = process.communicate(timeout=DEADLINE_S)
    screen = terminal.read_rest()
    assert process.returncode == 0
    assert stdout.startswith("Complete: all 3 took part.")
    assert "\x1b" not in stdout
    assert screen.endswith("\x1b[2K") or screen.rstrip("\r\n").endswith(("\x1b[2K", "\x1b[?25h"))


def test_json_stays_alone_on_standard_output_while_a_person_watches(
    llm_server: LlmServer, settings: Mapping[str, str]
) -> None:
    terminal = Terminal()
    with running(*ASK_THREE, "--json", settings={**settings, "TERM": "xterm"}, stderr=terminal.far) as process:
        stdout, _ = process.communicate(timeout=DEADLINE_S)
    assert terminal.read_rest()
    assert json.loads(stdout)["status"] == "completed"


def test_ctrl_c_on_a_terminal_says_that_it_cancels(llm_server: LlmServer, settings: Mapping[str, str]) -> None:
    llm_server.configure(fault="hang")
    terminal = Terminal()
    with running(*ASK_THREE, settings={**settings, "TERM": "xterm"}, stderr=terminal.far) as process:
        llm_server.wait_until(in_flight_at_least=3, timeout_seconds=DEADLINE_S)
        process.send_signal(signal.SIGINT)
        stdout, _ = process.communicate(timeout=DEADLINE_S)
    assert "cancelling, once more leaves at once" in terminal.read_rest()
    assert process.returncode == 130
    assert "cancelled" in stdout


@pytest.mark.parametrize(
    ("more", "colours"), [({"TERM": "xterm-256color"}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_a_terminal_gets_colours_unless_it_does_not_want_them(
    settings: Mapping[str, str], more: Mapping[str, str], colours: bool
) -> None:
    terminal = Terminal(columns=40)
    environment = {**settings, "TERM": "xterm-256color", **more}
    with running(*ASK_THREE, settings=environment, stdout=terminal.far) as process:
        process.wait(DEADLINE_S)
    screen = terminal.read_rest()
    assert ("\x1b[36m" in screen) is colours
    plain = re.sub(r"\x1b\[[\d;]*m", "", screen)
    assert max(len(line) for line in plain.splitlines()) <= 40
    if more.get("TERM") == "dumb":
        assert "\x1b" not in screen


def test_a_dumb_terminal_gets_plain_lines_of_progress(settings: Mapping[str, str]) -> None:
    terminal = Terminal()
    with running(*ASK_THREE, settings={**settings, "TERM": "dumb"}, stderr=terminal.far) as process:
        process.communicate(timeout=DEADLINE_S)
    lines = terminal.read_rest().splitlines()
    assert lines[0] == "asking 3 agents"
    assert lines[-1] == "3 of 3 ended: 3 answered, 0 to come"


def test_failures_reach_a_log_but_do_not_flood_a_terminal(llm_server: LlmServer, settings: Mapping[str, str]) -> None:
    llm_server.configure(fault="garbage")
    with running(*ASK_THREE, settings=settings) as process:
        _, log = process.communicate(timeout=DEADLINE_S)
    assert log.count("batch_id=") == 3
    terminal = Terminal()
    with running(*ASK_THREE, settings={**settings, "TERM": "xterm"}, stderr=terminal.far) as process:
        process.communicate(timeout=DEADLINE_S)
    assert "batch_id=" not in terminal.read_rest()
