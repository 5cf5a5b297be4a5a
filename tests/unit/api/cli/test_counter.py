"""A count on a terminal: now and then while it goes up, and no trace of it afterwards."""

import io

import pytest

from api.cli.counter import Counter


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def watched(monkeypatch: pytest.MonkeyPatch, *, kind: str) -> Terminal:
    """Called by the test itself, because the streams of a fixture are not yet the test's own."""
    terminal = Terminal()
    monkeypatch.setenv("TERM", kind)
    monkeypatch.setattr("sys.stderr", terminal)
    return terminal


def test_it_shows_a_count_now_and_then_and_is_gone_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = watched(monkeypatch, kind="xterm")
    now = [0.0]
    with Counter("entries checked", clock=lambda: now[0]) as shown:
        shown.show(1000)
        shown.show(1001)
        now[0] += 0.3
        shown.show(2000)
    assert terminal.getvalue() == "\r\x1b[K1,000 entries checked\r\x1b[K2,000 entries checked\r\x1b[K"


def test_nobody_is_shown_anything_where_nobody_watches(capsys: pytest.CaptureFixture[str]) -> None:
    with Counter("entries checked") as shown:
        shown.show(1000)
    assert capsys.readouterr().err == ""


def test_a_terminal_that_cannot_clear_a_line_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = watched(monkeypatch, kind="dumb")
    with Counter("entries checked") as shown:
        shown.show(1000)
    assert terminal.getvalue() == ""
