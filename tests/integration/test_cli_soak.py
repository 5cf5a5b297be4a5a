"""`conclave soak` as it is typed: runs over every transport, agents, the monitor, interruptions, and what cannot be asked for."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from domain.models.soak import arguments_from_rest, command_line
from infrastructure.soak import preflight
from infrastructure.soak.output_folder import OutputFolder
from infrastructure.soak.process_gauge import is_alive
from tests.command_line import Command, commands
from tests.patience import eventually
from tests.soak.runs import PATIENCE_S, titles_of

# Ten cycles: too few for growth and spread to be judged, which a busy machine is not to decide here.
QUICK = ("--agents", "3", "--duration", "0.0084", "--interval", "0.05")


@pytest.fixture
def conclave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Runs a command in this process, in an empty folder."""
    monkeypatch.setenv("CONCLAVE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    with commands(capsys) as run:
        yield run


def soak_run(*more: str) -> tuple[str, ...]:
    return ("soak", "run", *QUICK, "--coord-dir", "coord", "--output-dir", "out", *more)


def test_a_run_prints_one_document_which_is_the_report(conclave: Command, tmp_path: Path) -> None:
    code, out, _ = conclave(*soak_run("--json"))
    report = json.loads(out)
    assert code == 0
    assert report == json.loads((tmp_path / "out/stability-test-report.json").read_text())
    assert (report["passed"], report["cycles_planned"], report["messages_sent"]) == (True, 10, 30)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"stability-metrics.jsonl", "stability-test.log", "stability-test-report.html", "history.jsonl"} <= names


def test_a_run_for_a_person_names_criteria_and_files(conclave: Command) -> None:
    code, out, _ = conclave(*soak_run("--no-history"))
    assert code == 0
    assert out.splitlines()[0] == "Passed"
    assert "Complete cycles" in out
    assert "30 sent, 30 answered, 0 lost" in out
    assert not Path("out/history.jsonl").exists()


def test_a_run_that_does_not_pass_ends_with_one(conclave: Command) -> None:
    code, out, _ = conclave(*soak_run("--response-timeout", "0.000001", "--json"))
    report = json.loads(out)
    assert (code, report["passed"]) == (1, False)
    assert report["lost"] > 0
    assert report["messages_sent"] == report["responses_received"] + report["lost"]


def test_the_lines_of_the_earlier_tools_monitors_work(conclave: Command, tmp_path: Path) -> None:
    conclave(*soak_run())
    metrics = tmp_path / "out/stability-metrics.jsonl"
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    if shutil.which("jq") is None:
        rates, averages = [row["responseRate"] for row in rows], [row["memoryStats"]["average"] for row in rows]
    else:
        rates, averages = (
            [float(line) for line in subprocess.check_output(["jq", query, str(metrics)], text=True).split()]
            for query in (".responseRate", ".memoryStats.average")
        )
    assert sorted(rates) == [1.0] * 10
    assert min(averages) > 1_000_000


@pytest.mark.parametrize("transport", ["memory", "redis", "file", "shm"])
def test_the_same_soak_runs_over_every_transport(
    conclave: Command, transport: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if transport == "redis":
        monkeypatch.setenv("CONCLAVE_REDIS_URL", request.getfixturevalue("redis_url"))
    before = set(os.listdir("/dev/shm"))  # noqa: PTH208, S108 - what is in shared memory
    more = ("--transport", transport, "--messages-per-cycle", "2", "--scale", "4@cycle6", "--json")
    code, out, err = conclave(*soak_run(*more))
    report = json.loads(out)
    assert (code, report["passed"]) == (0, True), (report, err)
    assert (report["transport"], report["messages_sent"], report["lost"]) == (transport, 2 * (5 * 3 + 5 * 4), 0)
    assert report["criteria"].keys() == {"memory_growth", "cycle_variance", "crashes", "complete_metrics"}
    # Beside it other tests may run.
    left = [name for name in set(os.listdir("/dev/shm")) - before if "soak" in name]  # noqa: PTH208, S108
    assert left == []


@pytest.mark.parametrize("transport", ["memory", "redis", "file", "shm"])
def test_killed_agents_come_back_on_every_transport(
    conclave: Command, transport: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if transport == "redis":
        monkeypatch.setenv("CONCLAVE_REDIS_URL", request.getfixturevalue("redis_url"))
    code, out, _ = conclave(
        *soak_run("--transport", transport, "--interval", "0.1", "--duration", "0.02", "--kill-every", "0.35", "--json")
    )
    report = json.loads(out)
    assert report["crashes"] == report["restarts"] == report["injected"] > 0
    assert (report["lost"], report["criteria"]["complete_metrics"]["passed"]) == (0, True)
    # An answer that was on its way when its agent was killed may come from the successor once more.
    assert report["duplicates"] <= report["crashes"]
    assert code in (0, 1)


@pytest.mark.parametrize("more", [("--compress",), ("--encrypt",), ("--compress", "--encrypt"), ("--poll",)])
def test_files_may_be_packed_or_polled(conclave: Command, more: tuple[str, ...]) -> None:
    code, out, _ = conclave(*soak_run(*more, "--json"))
    report = json.loads(out)
    assert (code, report["lost"], report["corrupt"]) == (0, 0, 0)
    messages = [path.read_bytes() for path in Path("coord/messages").iterdir()]
    assert len(messages) == 3
    assert all((b"messageId" in message) is (more == ("--poll",)) for message in messages)
    if "--encrypt" in more:
        assert Path("out/soak.key").stat().st_mode & 0o077 == 0


def test_a_run_that_was_over_is_resumed_to_nothing_more(conclave: Command, tmp_path: Path) -> None:
    conclave(*soak_run())
    code, out, _ = conclave(*soak_run("--resume", "--agents", "9", "--json"))
    report = json.loads(out)
    assert (code, report["agents"], report["cycles_completed"], report["messages_sent"]) == (0, 3, 10, 30)
    assert len((tmp_path / "out/stability-metrics.jsonl").read_text().splitlines()) == 10


@pytest.mark.parametrize("state", [None, "{}", "[]", '{"plan": {}, "sessions": ["a"]}'])
def test_with_nothing_to_resume_nothing_begins_and_nothing_changes(
    conclave: Command, tmp_path: Path, state: str | None
) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (output / "stability-metrics.jsonl").write_text("of another run\n")
    if state is not None:
        (output / "soak-state.json").write_text(state)
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    code, out, err = conclave(*soak_run("--resume", "--encrypt", "--json"))
    assert (code, out) == (2, "")
    assert "--resume" in err
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before
    assert not (tmp_path / "coord").exists()


def test_who_resumes_in_a_folder_without_a_run_is_told_what_to_do(conclave: Command, tmp_path: Path) -> None:
    code, _, err = conclave(*soak_run("--resume"))
    assert code == 2
    assert "no interrupted run" in err
    assert "--output-dir" in err
    assert not (tmp_path / "out").exists()


def test_what_is_needed_to_resume_is_on_the_disk_before_anything_else_is_said(
    conclave: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there: list[bool] = []
    say = OutputFolder.say

    def noted(folder: OutputFolder, level: str, text: str) -> None:
        there.append((tmp_path / "out/soak-state.json").exists())
        say(folder, level, text)

    monkeypatch.setattr(OutputFolder, "say", noted)
    monkeypatch.setattr(preflight, "check_before_soak", lambda *_, **__: ["there is little room"])
    assert conclave(*soak_run())[0] == 0
    assert there
    assert all(there)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--agents", "0"), 2, "--agents"),
        (("--interval", "nan"), 2, "--interval"),
        (("--duration", "-1"), 2, "--duration"),
        (("--scale", "many"), 2, "--scale"),
        (("--transport", "pigeon"), 2, "--transport"),
        (("--log-level", "loud"), 2, "--log-level"),
        (("--history-mib", "0"), 2, "--history-mib"),
        (("--transport", "memory", "--encrypt"), 2, "--encrypt"),
        (("--transport", "redis"), 2, "CONCLAVE_REDIS_URL"),
        (("--output-dir", "a-file/out"), 2, "--output-dir"),
        (("--coord-dir", "a-file"), 2, "--coord-dir"),
        (("--coord-dir", "a-link"), 2, "link"),
        (("--duration", "1e12"), 4, "bytes left"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_begins(
    conclave: Command, tmp_path: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    (tmp_path / "a-file").write_text("")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "a-link").symlink_to(tmp_path / "elsewhere")
    found, out, err = conclave(*soak_run(*arguments, "--json"))
    assert (found, out) == (code, "")
    assert said in err
    assert not (tmp_path / "out/stability-metrics.jsonl").exists()


def test_the_monitor_summarises_a_stream(conclave: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conclave(*soak_run())
    stream = (tmp_path / "out/stability-metrics.jsonl").read_bytes() + b"\xff\xfe torn {"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stream), encoding="utf-8"))
    code, out, _ = conclave("soak", "monitor", "--input", "-", "--output", "summary.json", "--json")
    summary = json.loads(out)
    assert code == 0
    assert summary == json.loads((tmp_path / "summary.json").read_text())
    assert (summary["cycles"], summary["skipped"], summary["messages_sent"]) == (10, 1, 30)
    code, out, _ = conclave("soak", "monitor", "--input", "out/stability-metrics.jsonl")
    assert (code, out.splitlines()[0]) == (0, "10 cycles, 0 missing, 0 lines skipped")


def test_the_monitor_of_nothing_says_so(conclave: Command) -> None:
    code, _, err = conclave("soak", "monitor", "--input", "nowhere.jsonl")
    assert (code, "nowhere.jsonl" in err) == (2, True)


@pytest.mark.parametrize("name", ["", "../x", "a b", "x" * 65])
def test_an_agent_needs_a_name(conclave: Command, name: str) -> None:
    code, _, err = conclave("soak", "agent", "--id", name)
    assert (code, "--id" in err) == (2, True)


@contextlib.contextmanager
def started(repository_root: Path, folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    environment = {**os.environ, "PYTHONPATH": str(repository_root / "src"), "CONCLAVE_DATA_DIR": str(folder / "data")}
    process = subprocess.Popen(
        [sys.executable, "-m", "api.cli.main", *arguments],
        env=environment,
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def rows_in(folder: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return len((folder / "out/stability-metrics.jsonl").read_text().splitlines())
    return 0


def status_of(folder: Path, agent: str) -> Mapping[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        return dict(json.loads((folder / f"coord/status/agent-{agent}-status.json").read_text()))
    return {}


LONG = (
    "soak",
    "run",
    "--agents",
    "3",
    "--duration",
    "60",
    "--interval",
    "0.1",
    "--coord-dir",
    "coord",
    "--output-dir",
    "out",
    "--json",
)


def test_ctrl_c_ends_the_run_in_order_and_still_prints_what_was_counted(tmp_path: Path, repository_root: Path) -> None:
    with started(repository_root, tmp_path, *LONG) as process:
        eventually(lambda: rows_in(tmp_path) >= 3)
        pids = [status_of(tmp_path, str(number))["pid"] for number in (1, 2, 3)]
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=PATIENCE_S)
    report = json.loads(out)
    assert process.returncode == 130
    assert report["cycles_completed"] == rows_in(tmp_path) >= 3
    assert (report["passed"], report["lost"]) == (False, 0)
    assert not [pid for pid in pids if is_alive(pid)]


def test_an_agent_of_its_own_process_joins_and_leaves_when_the_run_is_over(
    tmp_path: Path, repository_root: Path
) -> None:
    agent = ("soak", "agent", "--id", "77", "--coord-dir", "coord")
    with started(repository_root, tmp_path, *agent) as joined:
        eventually(lambda: status_of(tmp_path, "77").get("status") == "ready")
        assert status_of(tmp_path, "77")["pid"] == joined.pid
        assert titles_of(joined.pid) == ("agent-worker-77", b"agent-worker-77\0")
        with started(
            repository_root, tmp_path, *soak_run("--interval", "0.2", "--duration", "0.0184", "--json")
        ) as run:
            out, _ = run.communicate(timeout=PATIENCE_S)
        report = json.loads(out)
        assert (report["joined"], report["messages_sent"], report["lost"], report["corrupt"]) == (1, 20, 0, 0)
        assert joined.wait(timeout=PATIENCE_S) == 0
    assert status_of(tmp_path, "77")["status"] == "stopped"


def test_a_run_that_was_killed_is_resumed_by_the_same_command(tmp_path: Path, repository_root: Path) -> None:
    command = (
        "soak",
        "run",
        "--agents",
        "3",
        "--duration",
        "0.0367",
        "--interval",
        "0.2",
        "--coord-dir",
        "coord",
        "--output-dir",
        "out",
    )
    with started(repository_root, tmp_path, *command) as process:
        eventually(lambda: rows_in(tmp_path) >= 3)
        process.kill()
    with started(repository_root, tmp_path, *command, "--resume", "--json") as process:
        out, _ = process.communicate(timeout=PATIENCE_S)
    report = json.loads(out)
    assert process.returncode == 0, report
    rows = [json.loads(line) for line in (tmp_path / "out/stability-metrics.jsonl").read_text().splitlines()]
    assert [row["cycle"] for row in rows] == list(range(1, 12))
    assert report["messages_sent"] == sum(row["messagesSent"] for row in rows) == 33


def test_a_run_that_a_server_starts_is_the_same_command(conclave: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments, problems = arguments_from_rest({"agents": 2, "duration": 0.01, "interval": 0.1, "response_timeout": 20})
    assert problems == []
    code, out, _ = conclave(*command_line(arguments), "--coord-dir", "coord", "--output-dir", "out", "--json")
    assert (code, json.loads(out)["messages_sent"]) == (0, 12)


def test_a_name_that_a_living_agent_has_is_refused(conclave: Command, tmp_path: Path) -> None:
    status = tmp_path / "coord/status"
    status.mkdir(parents=True)
    (status / "agent-5-status.json").write_text(json.dumps({"agentId": "5", "status": "ready", "pid": os.getpid()}))
    code, _, err = conclave("soak", "agent", "--id", "5", "--coord-dir", "coord")
    assert (code, str(os.getpid()) in err) == (2, True)


def test_the_folders_of_a_run_that_a_server_starts_are_its_own(
    conclave: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from api.bootstrap import load_settings
    from api.bootstrap.soak import default_folders

    monkeypatch.setenv("CONCLAVE_RUN_FOLDER", str(tmp_path / "run"))
    folders = default_folders(load_settings(), coordination=None, output=None)
    assert folders.output == tmp_path / "run"
    assert folders.coordination != Path("/dev/shm/agent-coordination")  # noqa: S108 - the default of a run by hand
    assert folders.coordination_is_own
