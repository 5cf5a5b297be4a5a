"""Holds the log to its promise: one event is one entry, its fields are there, and neither forgery nor secret gets in."""

import asyncio
import io
import json
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from application.ports.agent_orchestrator import AgentOutput, AgentRequest, ContextBundle
from application.services.concurrent_deliberation_service import ConcurrentDeliberationService
from application.services.log_ids import log_ids, unbound_context
from infrastructure.stubs.agent_orchestrator_stub import AgentOrchestratorStub
from infrastructure.stubs.halt_checker_stub import HaltCheckerStub
from infrastructure.stubs.virtual_time import run_in_virtual_time
from infrastructure.telemetry.logs import configure_logging
from infrastructure.telemetry.named_calls import NamedCalls

SECRET = "correct-horse-battery"
Format = Literal["text", "json"]
Configured = Callable[..., io.StringIO]

logger = logging.getLogger("application.services.test")


@pytest.fixture
def configured() -> Iterator[Configured]:
    """Configures logging into a text, and puts back afterwards what was there."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)

    def configure(format_: Format = "json", level: str = "info", **options: Any) -> io.StringIO:
        stream = io.StringIO()
        configure_logging(format_, level, stream=stream, **options)
        return stream

    yield configure
    root.setLevel(level)
    for handler in [known for known in root.handlers if known not in handlers]:
        root.removeHandler(handler)


def entries(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_extras_become_fields_of_the_entry(configured: Configured) -> None:
    stream = configured("json")
    extra = {"batch_id": "b-1", "agent_id": "archon-3", "deliberation_id": "d-1", "kind": "timeout", "attempts": 2}
    logger.warning("agent %r ended", "archon-3", extra=extra)
    (entry,) = entries(stream)
    assert entry.pop("timestamp").endswith("+00:00")
    assert entry == {
        "level": "warning",
        "logger": "application.services.test",
        "event": "agent 'archon-3' ended",
        **extra,
    }


def test_marks_that_a_library_puts_on_every_record_are_no_fields(configured: Configured) -> None:
    stream = configured("json")
    logger.warning("agent ended", extra={"_library_time_ns": 1, "batch_id": "b-1"})
    (entry,) = entries(stream)
    assert entry.keys() == {"timestamp", "level", "logger", "event", "batch_id"}


def test_the_text_format_is_one_line_with_the_same_fields(configured: Configured) -> None:
    stream = configured("text")
    logger.warning("agent ended", extra={"batch_id": "b-1", "agent_id": "two words", "attempts": 2, "none": None})
    _, _, rest = stream.getvalue().partition(" ")
    assert rest == (
        'warning  application.services.test: agent ended batch_id=b-1 agent_id="two words" attempts=2 none=null\n'
    )


def test_every_failed_agent_is_logged_with_batch_and_kind(configured: Configured) -> None:
    stream = configured("json")
    service = ConcurrentDeliberationService(
        orchestrator=AgentOrchestratorStub(failing={"archon-3"}), halt_checker=HaltCheckerStub()
    )
    context = ContextBundle(topic_id="t", topic_content="q")
    requests = [AgentRequest(agent_id=f"archon-{n}", context=context) for n in range(5)]
    result = run_in_virtual_time(service.invoke_concurrent(requests))
    (entry,) = entries(stream)
    assert (entry["batch_id"], entry["agent_id"]) == (result.batch_id, "archon-3")
    assert entry["kind"] == result.failures[0].kind


@pytest.mark.parametrize("format_", ["text", "json"])
def test_no_text_can_forge_a_second_entry(configured: Configured, format_: Format) -> None:
    stream = configured(format_)
    forged = "\n2026-01-01T00:00:00.000+00:00 info     api: all is well\r\n\x1b[2K\u2028\x85"
    logger.info("said %s", forged, extra={"kind": forged, f"key{forged}": 1})
    assert stream.getvalue().count("\n") == 1
    assert stream.getvalue().endswith("\n")
    assert len(stream.getvalue().splitlines()) == 1
    assert "\x1b" not in stream.getvalue()


def test_what_cannot_be_seen_is_made_visible_in_text(configured: Configured) -> None:
    stream = configured("text")
    logger.info("a\nb\x00c\x1b[31m\u202ed\u2066e\ud800\u200bf\x85g")
    assert r"a\nb\x00c\x1b[31m\u202ed\u2066e\ud800\u200bf\x85g" in stream.getvalue()


def test_ordinary_letters_of_any_language_stay_readable(configured: Configured) -> None:
    stream = configured("text")
    logger.info("Zürich, Ελλάδα, 東京, العربية, 🗳", extra={"kind": "größer"})
    assert "Zürich, Ελλάδα, 東京, العربية, 🗳 kind=größer" in stream.getvalue()


def test_json_gives_back_exactly_what_was_logged(configured: Configured) -> None:
    stream = configured("json")
    logger.info("a\nb\u202ec", extra={"kind": "\x1b"})
    assert stream.getvalue().isascii()
    (entry,) = entries(stream)
    assert (entry["event"], entry["kind"]) == ("a\nb\u202ec", "\x1b")


@pytest.mark.parametrize("format_", ["text", "json"])
def test_a_known_secret_appears_nowhere(configured: Configured, format_: Format) -> None:
    stream = configured(format_, secrets=[SECRET, "pw", ""])
    try:
        int(SECRET)
    except ValueError:
        logger.exception(
            "with %s",
            SECRET,
            extra={
                "kind": SECRET,
                "url": f"https://host/{SECRET}?q",
                "short": "pw",
                "nested": {"list": [SECRET, {SECRET: (SECRET,)}], "object": RuntimeError(SECRET)},
            },
        )
    assert SECRET not in stream.getvalue()
    assert '"pw"' not in stream.getvalue()
    assert "=pw" not in stream.getvalue()
    assert stream.getvalue().count("[redacted]") >= 8


def test_a_short_secret_does_not_tear_words_apart(configured: Configured) -> None:
    stream = configured("json", secrets=["pw"])
    logger.info("upwards")
    assert entries(stream)[0]["event"] == "upwards"


def test_of_a_secret_that_begins_with_another_nothing_is_left(configured: Configured) -> None:
    stream = configured("json", secrets=[SECRET, f"{SECRET}-and-more"])
    logger.info("with %s!", f"{SECRET}-and-more")
    assert entries(stream)[0]["event"] == "with [redacted]!"


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("Authorization: Bearer abcdefgh.ijkl-mn", "Authorization: Bearer [redacted]"),
        ("connect to postgresql://ann:pa@ss@host/db failed", "connect to postgresql://[redacted]@host/db failed"),
        ("see https://host:8000/a@b", "see https://host:8000/a@b"),
        ("the bearer of news", "the bearer of news"),
    ],
)
def test_credentials_that_nobody_announced_are_kept_out_too(configured: Configured, said: str, shown: str) -> None:
    stream = configured("json")
    logger.info("%s", said)
    assert entries(stream)[0]["event"] == shown


def test_a_traceback_is_indented_so_that_none_of_its_lines_begins_like_an_entry(configured: Configured) -> None:
    stream = configured("text")
    error = ValueError("first\n2026-01-01T00:00:00.000+00:00 info     api: all is well")
    logger.error("failed", exc_info=error)
    head, *following = stream.getvalue().splitlines()
    assert head.endswith("failed")
    assert "ValueError: first" in stream.getvalue()
    assert [line for line in following if not line.startswith("    ")] == []


def test_a_stack_is_that_of_the_caller(configured: Configured) -> None:
    stream = configured("json")
    logger.info("here", stack_info=True)
    assert "test_a_stack_is_that_of_the_caller" in entries(stream)[0]["stack"].splitlines()[-2]


def test_no_extra_takes_the_place_of_what_the_entry_says_itself(configured: Configured) -> None:
    stream = configured("json")
    logger.warning(
        "true", extra={"event": "false", "level": "info", "logger": "x", "timestamp": "0", "exception": "no"}
    )
    (entry,) = entries(stream)
    assert (entry["event"], entry["level"], entry["logger"]) == ("true", "warning", "application.services.test")
    assert (entry["event_"], entry["level_"], entry["exception_"]) == ("false", "info", "no")
    assert "exception" not in entry


def test_values_that_json_does_not_know_are_written_as_text(configured: Configured) -> None:
    stream = configured("json")
    loop: list[Any] = []
    loop.append(loop)
    logger.info("odd", extra={"nan": float("nan"), "many": {2, 1}, "bytes": b"\xff", "loop": loop, "deep": {1: {2: 3}}})
    (entry,) = entries(stream)
    assert entry["nan"] == "nan"
    assert entry["many"] == [1, 2]
    assert entry["bytes"] == "b'\\xff'"
    assert entry["deep"] == {"1": {"2": 3}}
    assert "[...]" in json.dumps(entry["loop"])


def test_only_what_is_grave_enough_is_written(configured: Configured) -> None:
    stream = configured("json", "WARNING")
    logger.info("quiet")
    logger.warning("loud")
    assert [entry["event"] for entry in entries(stream)] == ["loud"]


def test_configuring_again_takes_the_place_of_the_first_time(configured: Configured) -> None:
    first, second = configured("text"), configured("json")
    logger.info("once")
    assert first.getvalue() == ""
    assert len(entries(second)) == 1


def test_the_loggers_of_uvicorn_are_folded_in(configured: Configured) -> None:
    access = logging.getLogger("uvicorn.access")
    access.addHandler(logging.StreamHandler(io.StringIO()))
    access.propagate = False
    stream = configured("json")
    access.info('%s - "%s %s"', "127.0.0.1", "GET", "/", extra={"color_message": "\x1b[1mGET"})
    (entry,) = entries(stream)
    assert (entry["logger"], entry["event"]) == ("uvicorn.access", '127.0.0.1 - "GET /"')
    assert "color_message" not in entry
    assert access.handlers == []


def test_logs_go_to_stderr_unless_told_otherwise(configured: Configured, capsys: pytest.CaptureFixture[str]) -> None:
    configured()
    configure_logging("text", "info")
    logger.info("where am I")
    captured = capsys.readouterr()
    assert "where am I" in captured.err
    assert captured.out == ""


def test_an_exception_is_one_line_of_json_without_the_secret_that_it_names(configured: Configured) -> None:
    stream = configured("json", secrets=[SECRET])
    logger.error("failed", exc_info=ValueError(f"first\nsecond {SECRET}"))
    (entry,) = entries(stream)
    assert entry["exception"].splitlines()[-2:] == ["ValueError: first", "second [redacted]"]


@pytest.mark.parametrize("format_", ["text", "json"])
@pytest.mark.parametrize("name", ["uvicorn.error", "sqlalchemy.pool", "asyncio", "alembic.runtime"])
def test_a_line_of_a_library_carries_the_ids_that_hold_around_it(
    configured: Configured, format_: Format, name: str
) -> None:
    stream = configured(format_)
    with log_ids(deliberation_id="d-1"), log_ids(batch_id="b-1", agent_id="archon-3"):
        logging.getLogger(name).warning("something is odd")
    (line,) = stream.getvalue().splitlines()
    said = json.loads(line) if format_ == "json" else dict(part.split("=") for part in line.split() if "=" in part)
    assert [said[key] for key in ("deliberation_id", "batch_id", "agent_id")] == ["d-1", "b-1", "archon-3"]


def test_ids_hold_no_longer_than_what_they_were_bound_for(configured: Configured) -> None:
    stream = configured("json")
    with log_ids(deliberation_id="d-1"):
        with log_ids(agent_id="archon-3"):
            pass
        logger.info("between")
    logger.info("after")
    between, after = entries(stream)
    assert (between["deliberation_id"], "agent_id" in between) == ("d-1", False)
    assert "deliberation_id" not in after


def test_what_a_call_says_itself_stands_before_what_holds_around_it(configured: Configured) -> None:
    stream = configured("json")
    with log_ids(agent_id="archon-3"):
        logger.info("another one failed", extra={"agent_id": "archon-9"})
    (entry,) = entries(stream)
    assert entry["agent_id"] == "archon-9"
    assert "agent_id_" not in entry


async def test_tasks_begun_within_carry_the_ids_and_those_of_many_do_not(configured: Configured) -> None:
    stream = configured("json")

    async def log(text: str) -> None:
        logger.info(text)

    with log_ids(deliberation_id="d-1"):
        own = asyncio.create_task(log("own"))
        shared = asyncio.create_task(log("shared"), context=unbound_context())
    await asyncio.gather(own, shared)
    assert {entry["event"]: entry.get("deliberation_id") for entry in entries(stream)} == {"own": "d-1", "shared": None}


async def test_whatever_an_orchestrator_logs_names_the_agent_that_it_asks(configured: Configured) -> None:
    stream = configured("json")

    class Talkative(AgentOrchestratorStub):
        async def invoke(self, request: AgentRequest) -> AgentOutput:
            await asyncio.sleep(0)
            logging.getLogger("vendor").info("asked")
            return await super().invoke(request)

    service = ConcurrentDeliberationService(
        orchestrator=NamedCalls(Talkative(failing={"archon-1"})), halt_checker=HaltCheckerStub()
    )
    context = ContextBundle(topic_id="t", topic_content="q")
    result = await service.invoke_concurrent(
        [AgentRequest(agent_id=f"archon-{n}", context=context, batch_id="b-1") for n in range(3)]
    )
    assert result.failed_agents == ("archon-1",)
    asked = [entry for entry in entries(stream) if entry["event"] == "asked"]
    assert {(entry["batch_id"], entry["agent_id"]) for entry in asked} == {("b-1", f"archon-{n}") for n in range(3)}


def test_named_calls_hide_no_prompt() -> None:
    class Outspoken(AgentOrchestratorStub):
        def prompt_of(self, request: AgentRequest) -> str:
            return f"prompt of {request.agent_id}"

    request = AgentRequest(agent_id="archon-1", context=ContextBundle(topic_id="t", topic_content="q"))
    assert NamedCalls(Outspoken()).prompt_of(request) == "prompt of archon-1"
    assert NamedCalls(AgentOrchestratorStub()).prompt_of(request) is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.text(), st.text(), st.sampled_from(["text", "json"]))
def test_whatever_is_logged_is_one_printable_line(
    configured: Configured, event: str, value: str, format_: Format
) -> None:
    stream = configured(format_)
    logger.info("%s", event, extra={"kind": value, "agent_id": [value]})
    line = stream.getvalue()
    assert line.endswith("\n")
    assert len(line.splitlines()) == 1
    assert not set(line[:-1]) & {*map(chr, range(32)), *map(chr, range(0x7F, 0xA0)), *map(chr, range(0x202A, 0x202F))}


def test_hostile_text_does_not_hold_up_the_log(configured: Configured) -> None:
    stream = configured("text", secrets=[SECRET])
    began = time.process_time()
    for hostile in ("://" + ":" * 50_000, "bearer " * 7_000, "://a:" * 10_000, "\u202e" * 50_000):
        logger.info("%s", hostile)
    assert len(stream.getvalue().splitlines()) == 4
    # A hundredth of it is usual; a search that tries each beginning with each end would take hours.
    assert time.process_time() - began < 60
