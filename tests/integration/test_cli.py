"""The command line as a person and a script meet it: real settings, a real database, simulated agents."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.command_line import Command, Ran, commands

OPTIONS = ("--option", "yes", "--option", "no", "--option", "weekends only")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, str]:
    """Simulated agents and an empty data folder."""
    chosen = {"CONCLAVE_DATA_DIR": str(tmp_path / "data"), "CONCLAVE_ORCHESTRATOR": "simulated"}
    for name, value in chosen.items():
        monkeypatch.setenv(name, value)
    return chosen


@pytest.fixture
def conclave(settings: Mapping[str, str], capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Runs a command in this process."""
    with commands(capsys) as run:
        yield run


def spawned(*arguments: str, settings: Mapping[str, str], stdin: str | None = None, **more: str) -> Ran:
    """Runs a command in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "api.cli.main", *arguments],
        env={**os.environ, **settings, **more},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def test_help_and_version_import_nothing_heavy() -> None:
    script = (
        "import sys\n"
        "from api.cli.main import execute\n"
        "codes = [execute(arguments) for arguments in (['--help'], ['deliberate', '--help'], ['db', '--help'], ['--version'])]\n"
        "print(codes, sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    codes, _, modules = done.stderr.partition("] ")
    assert codes == "[0, 0, 0, 0"
    heavy = "pydantic pydantic_settings sqlalchemy alembic aiohttp fastapi starlette uvicorn prometheus_client structlog rich asyncio ssl"
    assert set(heavy.split()).isdisjoint(json.loads(modules.replace("'", '"')))
    assert "deliberate" in done.stdout


def test_the_console_script_is_installed() -> None:
    script = Path(sys.executable).with_name("conclave")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, timeout=60)
    assert re.fullmatch(r"conclave \d+\.\d+\.\d+\n", done.stdout)


def test_every_command_takes_json(conclave: Command) -> None:
    for command in (("deliberate",), ("serve",), ("list",), ("show",), ("cancel",), ("db", "upgrade"), ("doctor",)):
        assert "--json" in conclave(*command, "--help").stdout
    assert conclave("--version", "--json").document["version"]


def test_a_question_is_put_to_seventy_two_agents_and_every_one_is_accounted_for(conclave: Command) -> None:
    ran = conclave("deliberate", "Close the centre to cars?", *OPTIONS, "--seed", "7")
    assert ran.code == 0
    assert ran.stdout.startswith("Simulated:")
    assert "Close the centre to cars?" in ran.stdout
    assert re.search(r"Roll call: 72 asked = \d+ answered", ran.stdout)
    assert "Dissent:" in ran.stdout
    assert ran.stderr == ""


def test_json_is_one_document_and_nothing_else(settings: Mapping[str, str]) -> None:
    ran = spawned("deliberate", "Why?", *OPTIONS, "--json", settings=settings, CONCLAVE_LOG_LEVEL="debug")
    assert ran.code == 0
    assert ran.document["status"] == "completed"
    assert ran.document["roll_call"]["asked"] == 72
    assert ran.document["simulated"] is True
    assert ran.stdout.isascii()


def test_what_was_deliberated_is_listed_and_shown(conclave: Command) -> None:
    first = conclave("deliberate", "First?", "--agents", "3", "--json").document
    second = conclave("deliberate", "Second?", "--agents", "3", "--json").document
    listed = conclave("list", "--json").document
    assert [item["id"] for item in listed["items"]] == [second["id"], first["id"]]
    assert [line.split()[0] for line in conclave("list").stdout.splitlines()] == [second["id"], first["id"]]
    assert conclave("show", first["id"], "--json").document == first
    shown = conclave("show", first["id"][:8])
    assert "First?" in shown.stdout
    assert first["id"] in shown.stdout


def test_pages_go_on_where_they_ended(conclave: Command) -> None:
    ids = [conclave("deliberate", "Why?", "--agents", "1", "--json").document["id"] for _ in range(3)]
    page = conclave("list", "--limit", "2", "--json").document
    rest = conclave("list", "--limit", "2", "--cursor", page["next_cursor"], "--json").document
    assert [item["id"] for item in [*page["items"], *rest["items"]]] == ids[::-1]
    assert conclave("list", "--cursor", "nonsense").code == 2


def test_only_deliberations_of_a_status_are_listed(conclave: Command) -> None:
    conclave("deliberate", "Why?", "--agents", "1")
    assert len(conclave("list", "--status", "completed", "--json").document["items"]) == 1
    assert conclave("list", "--status", "failed", "--json").document["items"] == []
    refused = conclave("list", "--status", "sleeping")
    assert refused.code == 2
    assert refused.stderr.startswith("conclave: --status: is none of queued,")


def test_every_option_reaches_the_deliberation(conclave: Command) -> None:
    document = conclave(
        *("deliberate", "How good?", "--answer", "score", "--min", "-5", "--max", "5", "--context", "Told."),
        *("--agents", "4", "--roster", "archons", "--protocol", "poll", "--rule", "median", "--quorum", "0.25"),
        *("--timeout", "9", "--deadline", "90", "--max-attempts", "1", "--max-cost", "0.5", "--seed", "-3", "--json"),
    ).document
    assert document["answer"] == {"kind": "score", "min": -5.0, "max": 5.0}
    assert document["context"] == "Told."
    assert document["agents"] == {"roster": "archons", "count": 4}
    assert document["rule"] == {"kind": "median"}
    assert document["quorum"] == {"min_answered_fraction": 0.25}
    limits = {
        name: document["limits"][name] for name in ("agent_timeout_s", "deadline_s", "max_attempts", "max_cost_usd")
    }
    assert limits == {"agent_timeout_s": 9.0, "deadline_s": 90.0, "max_attempts": 1, "max_cost_usd": 0.5}
    assert document["seed"] == -3


def test_a_fraction_alone_means_a_threshold(conclave: Command) -> None:
    document = conclave("deliberate", "Why?", "--fraction", "0.9", "--agents", "2", "--json").document
    assert document["rule"] == {"kind": "threshold", "fraction": 0.9}


def test_without_options_the_answer_is_a_verdict(conclave: Command) -> None:
    assert conclave("deliberate", "Why?", "--agents", "1", "--json").document["answer"] == {"kind": "verdict"}


def test_an_estimate_is_read_as_one(conclave: Command) -> None:
    ran = conclave("deliberate", "How many days?", "--answer", "number", "--unit", "days", "--agents", "20")
    assert re.search(r"Decision: [\d.]+ days \(by median\)", ran.stdout)


def test_the_question_and_its_context_come_from_outside(settings: Mapping[str, str], tmp_path: Path) -> None:
    context = tmp_path / "context.txt"
    context.write_text("Zusätzliches.\n", encoding="utf-8")
    ran = spawned(
        *("deliberate", "-", "--context-file", str(context), "--agents", "1", "--json"),
        settings=settings,
        stdin="Warum?\nUnd wie?\n",
    )
    assert (ran.document["question"], ran.document["context"]) == ("Warum?\nUnd wie?", "Zusätzliches.")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("deliberate",), "Missing argument 'QUESTION'"),
        (("deliberate", ""), "QUESTION: must not be empty"),
        (("deliberate", "a\udcffb"), "QUESTION: must not hold a lone surrogate"),
        (("deliberate", "x" * 40_000), "QUESTION: is 40000 bytes long"),
        (("deliberate", "q", "--option", "one"), "--option: has 1 option, 2 to 50"),
        (("deliberate", "q", "--option", "Yes", "--option", "yes"), "--option number 2: reads the same"),
        (("deliberate", "q", "--answer", "opinion"), "--answer: Input should be"),
        (("deliberate", "q", "--answer", "score", "--min", "1"), "--max: a score needs"),
        (("deliberate", "q", "--min", "nan"), "'--min': is not a finite number"),
        (("deliberate", "q", "--unit", "days"), "--unit: an answer of kind verdict takes no unit"),
        (("deliberate", "q", "--agents", "0"), "--agents: "),
        (("deliberate", "q", "--agents", "73"), "--agents: "),
        (("deliberate", "q", "--agents", "many"), "'--agents'"),
        (("deliberate", "q", "--roster", "nobody"), "--roster: is not known; there is archons"),
        (("deliberate", "q", "--protocol", "duel"), "--protocol: Input should be"),
        (("deliberate", "q", "--rule", "median"), "--rule: answers of kind verdict are counted by"),
        (("deliberate", "q", "--fraction", "1.5"), "--fraction: must be"),
        (("deliberate", "q", "--quorum", "2"), "--quorum: must be 0 to 1"),
        (("deliberate", "q", "--timeout", "-1"), "--timeout: must be"),
        (("deliberate", "q", "--seed", str(2**70)), "--seed: "),
        (("deliberate", "q", "--context", "a", "--context-file", "b"), "not both"),
        (("deliberate", "q", "--context-file", "/nowhere/file"), "cannot be read: No such file"),
        (("deliberate", "q", "--server", "ftp://x"), "--server: is not the http:// or https:// address"),
        (("deliberate", "\u200b"), "QUESTION: must hold a visible character"),
        (("list", "--limit", "0"), "'--limit'"),
        (("show", "abc"), "is too short: give at least 6 characters"),
        (("show", "00000000-0000-4000-8000-000000000000"), "no such deliberation"),
        (("cancel", "x\x1b[2J\nconclave: all is well"), "no such deliberation"),
        (("frobnicate",), "No such command 'frobnicate'"),
        (("list", "--colour"), "--colour"),
        (("--json", "list"), "--json belongs after the command"),
        (("serve", "--port", "70000"), "'--port'"),
    ],
)
def test_bad_input_is_one_clear_line_and_code_two(conclave: Command, arguments: tuple[str, ...], said: str) -> None:
    ran = conclave(*arguments)
    assert ran.code == 2
    assert ran.stdout == ""
    assert said in ran.stderr
    assert re.fullmatch(r"conclave: [^\n\x1b]+\n", ran.stderr)


@pytest.mark.parametrize("arguments", [(), ("db",)])
def test_a_group_without_a_command_shows_its_help_as_a_mistake(conclave: Command, arguments: tuple[str, ...]) -> None:
    ran = conclave(*arguments)
    assert (ran.code, ran.stdout) == (2, "")
    assert "Commands:" in ran.stderr


def test_an_unknown_setting_stops_a_command_and_is_named(conclave: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONCLAVE_DATA_DRI", "x")
    ran = conclave("list")
    assert (ran.code, ran.stdout) == (2, "")
    assert ran.stderr.startswith("conclave: CONCLAVE_DATA_DRI:")


def test_a_database_that_is_away_is_code_four(conclave: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONCLAVE_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    ran = conclave("list")
    assert (ran.code, ran.stdout) == (4, "")
    assert ran.stderr.count("\n") == 1
    assert conclave("doctor").code == 4


def test_a_server_that_is_away_is_code_four(conclave: Command) -> None:
    for arguments in (("deliberate", "q"), ("list",), ("show", "x"), ("cancel", "x")):
        ran = conclave(*arguments, "--server", "http://127.0.0.1:1")
        assert (ran.code, ran.stdout) == (4, "")
        assert "Connection refused" in ran.stderr


def test_too_few_taking_part_is_code_one(conclave: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONCLAVE_ORCHESTRATOR", "openai")
    monkeypatch.setenv("CONCLAVE_LLM_BASE_URL", "http://127.0.0.1:1/v1")
    monkeypatch.setenv("CONCLAVE_LLM_MODEL", "nobody")
    ran = conclave("deliberate", "Why?", "--agents", "3", "--max-attempts", "1")
    assert ran.code == 1
    assert ran.stdout.startswith("Degraded: 3 of 3 did not take part.")
    assert "No decision: fewer took part than the quorum asks for" in ran.stdout
    assert "archon-1, archon-2, archon-3" in ran.stdout


def test_an_ended_deliberation_cannot_be_cancelled(conclave: Command) -> None:
    ended = conclave("deliberate", "Why?", "--agents", "1", "--json").document
    ran = conclave("cancel", ended["id"])
    assert (ran.code, ran.stdout) == (1, "")
    assert "already ended as 'completed'" in ran.stderr


def test_changed_content_is_refused_with_code_three(conclave: Command, settings: Mapping[str, str]) -> None:
    import sqlite3
    from contextlib import closing

    ended = conclave("deliberate", "Why?", "--agents", "1", "--json").document
    with closing(sqlite3.connect(Path(settings["CONCLAVE_DATA_DIR"]) / "conclave.db")) as database, database:
        tables = [name for (name,) in database.execute("select name from sqlite_master where type = 'table'")]
        table = next(name for name in tables if _has_content(database, name))
        database.execute(f"drop trigger {table}_no_update")
        database.execute(f"update {table} set content = 'forged'")  # noqa: S608 - a name from the schema
    ran = conclave("show", ended["id"])
    assert (ran.code, ran.stdout) == (3, "")
    assert "does not match its record" in ran.stderr


def _has_content(database: Any, table: str) -> bool:
    return "content" in {row[1] for row in database.execute(f"pragma table_info({table})")}


def test_the_database_is_upgraded_as_often_as_one_likes(conclave: Command) -> None:
    first = conclave("db", "upgrade", "--json")
    assert first.code == 0
    assert first.document["revision"]
    assert first.document["revision"] in conclave("db", "upgrade").stdout


def test_doctor_finds_all_well(conclave: Command) -> None:
    ran = conclave("doctor")
    assert ran.code == 0
    assert re.search(r"^works  database: ", ran.stdout, re.MULTILINE)
    assert "FAILS" not in ran.stdout
    found = conclave("doctor", "--json").document
    assert found["works"] is True
    assert {check["name"] for check in found["checks"]} >= {"database", "orchestrator"}


def test_doctor_names_an_impossible_setting_with_code_two(conclave: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONCLAVE_MAX_CONCURRENT_AGENTS", "0")
    ran = conclave("doctor")
    assert ran.code == 2
    assert ran.stdout.startswith("FAILS  CONCLAVE_MAX_CONCURRENT_AGENTS")
    found = conclave("doctor", "--json")
    assert (found.code, found.document["works"]) == (2, False)


def test_doctor_names_a_choice_that_lacks_something_with_code_two(
    conclave: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONCLAVE_ORCHESTRATOR", "openai")
    ran = conclave("doctor")
    assert ran.code == 2
    assert re.search(r"^FAILS  orchestrator: ", ran.stdout, re.MULTILINE)
    assert "CONCLAVE_LLM_BASE_URL" in ran.stdout


def test_a_fault_of_ours_is_one_line_with_a_hint_and_a_traceback_on_request(
    conclave: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from api.cli import listing

    def broken(*_: object) -> None:
        raise KeyError("items")

    monkeypatch.setattr(listing, "render_page", broken)
    ran = conclave("list")
    assert (ran.code, ran.stdout) == (1, "")
    assert ran.stderr.startswith("conclave: KeyError: 'items' (")
    assert "Traceback" not in ran.stderr
    monkeypatch.setenv("CONCLAVE_LOG_LEVEL", "debug")
    assert "Traceback" in conclave("list").stderr


def test_a_reader_that_leaves_is_no_error_message(settings: Mapping[str, str]) -> None:
    command = f"'{sys.executable}' -m api.cli.main deliberate q --json | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command], env={**os.environ, **settings}, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (141, "")


def test_a_full_disk_is_said_and_is_no_success(settings: Mapping[str, str]) -> None:
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = subprocess.run(
            [sys.executable, "-m", "api.cli.main", "--version"],
            env={**os.environ, **settings},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    assert done.returncode == 1
    assert done.stderr == "conclave: No space left on device: 'standard output'\n"


def test_an_encoding_that_lacks_a_character_gets_it_spelt_out(settings: Mapping[str, str]) -> None:
    ran = spawned("deliberate", "Größe 汽车?", "--agents", "2", settings=settings, PYTHONIOENCODING="ascii")
    assert ran.code == 0
    assert ran.stdout.isascii()
    assert "Gr\\xf6\\xdfe \\u6c7d\\u8f66?" in ran.stdout
    assert "#" in ran.stdout


def test_a_pipe_gets_no_colours_and_columns_are_kept_to(settings: Mapping[str, str]) -> None:
    ran = spawned("deliberate", "Why? " * 30, *OPTIONS, settings=settings, COLUMNS="40", TERM="xterm-256color")
    assert "\x1b" not in ran.stdout
    assert max(len(line) for line in ran.stdout.splitlines()) <= 40
