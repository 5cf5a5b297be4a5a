"""Plans of a soak, how they are described over REST, and the four criteria."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from domain.errors.configuration import ConfigurationError
from domain.models.soak import MessageKind, ScaleStep, SoakPlan, arguments_from_rest, command_line, parse_scale
from domain.models.soak_criteria import (
    GrowthWatch,
    judge_completeness,
    judge_crashes,
    judge_growth,
    judge_variance,
    percentile,
)

MIB = 2**20
FLOOR = 2 * MIB


def grown(values: Sequence[float], *, warm_up: int = 0) -> float | None:
    watch = GrowthWatch(warm_up, FLOOR)
    for cycle, value in enumerate(values, start=1):
        watch.add(cycle, 1, 0, value)
    return watch.value


@pytest.mark.parametrize(
    ("minutes", "interval_s", "cycles"),
    [(480, 300, 96), (0.1, 0.5, 12), (0.2, 0.5, 24), (1, 7, 8), (0.001, 5, 1), (60, 5, 720)],
)
def test_planned_cycles_are_duration_over_interval(minutes: float, interval_s: float, cycles: int) -> None:
    assert SoakPlan(duration_s=minutes * 60, interval_s=interval_s).cycles == cycles


def test_the_kinds_take_turns() -> None:
    assert [MessageKind.of_cycle(cycle).value for cycle in range(1, 5)] == ["ping", "compute", "memory_test", "ping"]


def test_the_number_of_agents_changes_at_the_cycles_of_the_scale() -> None:
    plan = SoakPlan(agents=50, scale=parse_scale(["20@cycle10", "70@12"]))
    assert [plan.agents_in(cycle) for cycle in (1, 9, 10, 11, 12, 99)] == [50, 50, 20, 20, 70, 70]
    assert plan.most_agents == 70


def test_a_plan_survives_being_a_document() -> None:
    plan = SoakPlan(agents=3, kill_every_s=2.5, scale=(ScaleStep(4, 2),), transport="shm", messages_per_cycle=2)
    assert SoakPlan.from_document(plan.document()) == plan


@pytest.mark.parametrize(
    ("changed", "option"),
    [
        ({"agents": 0}, "--agents"),
        ({"agents": 1_001}, "--agents"),
        ({"duration_s": 0.0}, "--duration"),
        ({"interval_s": float("nan")}, "--interval"),
        ({"response_timeout_s": -1.0}, "--response-timeout"),
        ({"kill_every_s": 0.0}, "--kill-every"),
        ({"messages_per_cycle": 0}, "--messages-per-cycle"),
        ({"transport": "pigeon"}, "--transport"),
        ({"scale": (ScaleStep(0, 1),)}, "--scale"),
        ({"scale": (ScaleStep(1, 0),)}, "--scale"),
    ],
)
def test_a_plan_that_cannot_be_carried_out_names_the_option(changed: dict[str, object], option: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        SoakPlan(**changed)  # type: ignore[arg-type]
    assert raised.value.variable == option


@pytest.mark.parametrize("text", ["", "20", "20@", "@10", "20@cycle", "-1@3", "20@cycle10;ls", "٢@١"])
def test_a_scale_is_of_one_form(text: str) -> None:
    with pytest.raises(ConfigurationError):
        parse_scale([text])


def test_rest_fills_in_what_is_not_given() -> None:
    arguments, problems = arguments_from_rest({"agents": 5, "duration": 1, "interval": 5})
    assert problems == []
    assert arguments == {
        "agents": 5,
        "duration": 1,
        "interval": 5,
        "response_timeout": 30,
        "messages_per_cycle": 1,
        "transport": "files",
    }


def test_what_rest_took_is_a_command_line() -> None:
    arguments, _ = arguments_from_rest(
        {"agents": 5, "duration": 0.5, "interval": 5, "scale": ["3@cycle2", "4@5"], "kill_every": 2, "transport": "shm"}
    )
    words = command_line(arguments)
    assert words[:2] == ["soak", "run"]
    assert " ".join(words[2:]) == (
        "--agents 5 --duration 0.5 --interval 5 --response-timeout 30 --kill-every 2 --messages-per-cycle 1 --transport shm "
        "--scale 3@cycle2 --scale 4@5"
    )


@pytest.mark.parametrize(
    ("document", "pointers"),
    [
        ({"coord_dir": "/etc"}, ["/arguments/coord_dir"]),
        ({"output_dir": "/etc", "a/b~c": 1}, ["/arguments/output_dir", "/arguments/a~1b~0c"]),
        ({"agents": "50"}, ["/arguments/agents"]),
        ({"agents": 2.5}, ["/arguments/agents"]),
        ({"agents": True}, ["/arguments/agents"]),
        ({"agents": 201}, ["/arguments/agents"]),
        ({"agents": None}, ["/arguments/agents"]),
        ({"duration": 1e9}, ["/arguments/duration"]),
        ({"interval": float("nan")}, ["/arguments/interval"]),
        ({"interval": 0}, ["/arguments/interval"]),
        ({"transport": "pigeon"}, ["/arguments/transport"]),
        ({"transport": ["shm"]}, ["/arguments/transport"]),
        ({"scale": ["20@cycle10", "x"]}, ["/arguments/scale/1"]),
        ({"scale": ["900@cycle10"]}, ["/arguments/scale/0"]),
        ({"scale": {}}, ["/arguments/scale"]),
        ({"scale": ["1@1"] * 21}, ["/arguments/scale"]),
        ({"messages_per_cycle": 21}, ["/arguments/messages_per_cycle"]),
    ],
)
def test_rest_says_where_each_problem_is(document: dict[str, object], pointers: list[str]) -> None:
    _, problems = arguments_from_rest(document)
    assert [problem.pointer for problem in problems] == pointers


@pytest.mark.parametrize(
    "document",
    [
        {"duration": 1_440, "interval": 0.1},
        {"duration": 1_440, "interval": 5, "agents": 200},
        {"duration": 1_440, "interval": 10, "agents": 1, "scale": ["200@cycle2"], "messages_per_cycle": 20},
    ],
)
def test_rest_takes_no_more_work_in_all_than_it_allows(document: dict[str, object]) -> None:
    _, problems = arguments_from_rest(document)
    assert [problem.pointer for problem in problems] == ["/arguments/duration"]


def test_a_percentile_is_by_nearest_rank() -> None:
    assert [percentile([3, 1, 2, 4], fraction) for fraction in (0.25, 0.5, 0.95, 1.0)] == [1, 2, 4, 4]
    assert percentile([], 0.5) == 0


def test_memory_that_stays_does_not_grow() -> None:
    assert grown([10 * MIB] * 30) == pytest.approx(0)


def test_growth_is_the_rise_of_the_line_over_the_level_at_its_beginning() -> None:
    assert grown([10 * MIB * (1 + 0.2 * place / 19) for place in range(20)]) == pytest.approx(20, abs=0.1)


def test_what_comes_in_during_the_warm_up_is_no_growth() -> None:
    values = [5 * MIB, 8 * MIB, 9 * MIB, *[10 * MIB] * 20]
    assert grown(values, warm_up=3) == pytest.approx(0)
    assert (grown(values) or 0) > 10


def test_noise_is_no_growth() -> None:
    rolled = random.Random(5)
    assert abs(grown([10 * MIB + rolled.uniform(-0.3, 0.3) * MIB for _ in range(96)]) or 0) < 2


def test_a_leak_in_one_of_fifty_shows() -> None:
    watch = GrowthWatch(3, FLOOR)
    for cycle in range(1, 25):
        for process in range(50):
            watch.add(cycle, process, 0, 10 * MIB + (cycle * 100_000 if process == 17 else 0))
    assert watch.common is not None
    assert watch.common < 1
    assert watch.value is not None
    assert watch.value > 15


def test_a_leak_in_processes_that_are_killed_time_and_again_shows_all_the_same() -> None:
    watch = GrowthWatch(1, FLOOR)
    process = 0
    for cycle in range(1, 97):
        if cycle % 8 == 1:
            watch.forget(process)
            process += 1
        watch.add(cycle, process, 0, 4 * MIB + (cycle % 8) * 100_000)
    assert watch.value is not None
    assert watch.value > 10


def test_fewer_agents_that_share_the_same_pages_are_no_leak() -> None:
    watch = GrowthWatch(3, FLOOR)
    for cycle in range(1, 41):
        for process in range(50 if cycle < 20 else 5):
            watch.add(cycle, process, 0 if cycle < 20 else 1, 3 * MIB if cycle < 20 else 4 * MIB)
    assert watch.value == pytest.approx(0)


def test_growth_and_variance_are_judged_from_twelve_cycles_on() -> None:
    for criterion in (judge_growth(11, 99.0), judge_variance([10.0] * 10 + [9_000.0])):
        assert (criterion.value, criterion.passed) == (None, True)
    assert not judge_growth(12, 99.0).passed
    assert not judge_variance([10.0] * 11 + [9_000.0]).passed


def test_memory_that_could_not_be_measured_does_not_pass() -> None:
    assert judge_growth(12, None, None).document() == {"value": None, "limit": 10.0, "passed": False}


def test_the_limit_itself_is_allowed() -> None:
    assert judge_growth(12, 10.0).passed
    assert not judge_growth(12, 10.01).passed


@pytest.mark.parametrize("cycles", [*range(12, 97), 480, 720, 1_519, 1_520])
def test_one_slow_cycle_shows_wherever_it_is(cycles: int) -> None:
    assert judge_variance([30.0] * cycles).passed
    for place in range(0, cycles, 1 if cycles < 97 else 13):
        times = [30.0] * cycles
        times[place] = 400.0
        assert not judge_variance(times).passed


def test_hiccups_of_a_busy_machine_are_no_spread() -> None:
    rolled = random.Random(3)
    assert judge_variance([30 + rolled.expovariate(1 / 30) for _ in range(96)]).passed


def test_cycles_that_get_slower_all_the_time_show() -> None:
    assert not judge_variance([1_000.0 + 6 * cycle for cycle in range(96)]).passed


def test_a_long_run_is_judged_by_its_slowest_stretch() -> None:
    times = [30.0] * 9_600
    times[100:106] = [5_000.0] * 6
    assert judge_variance(times).passed
    times[100:110] = [5_000.0] * 10
    assert not judge_variance(times).passed


def test_only_crashes_on_purpose_are_allowed() -> None:
    assert judge_crashes(3, 3).passed
    assert judge_crashes(3, 2).document() == {"value": 1, "limit": 0, "passed": False}


@pytest.mark.parametrize(
    ("rows", "completed", "lost", "passed"),
    [(9, 9, 0, True), (8, 9, 0, False), (10, 9, 0, False), (9, 8, 0, False), (9, 9, 1, False)],
)
def test_rows_completed_and_planned_cycles_have_to_be_equal(rows: int, completed: int, lost: int, passed: bool) -> None:
    assert judge_completeness(rows=rows, completed=completed, planned=9, lost=lost).passed is passed
