"""What is drawn and said of a run: the same in figure, words and table, whatever its result holds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from api.bootstrap.runs import form_of
from api.dashboard.run_facts import facts_of
from api.dashboard.run_figures import MAX_TABLE_ROWS, Figure, figure_document, figures_of, said
from api.dashboard.run_forms import RUN_FORMS, FieldKind, RunField
from application.ports.run_series import Distribution, LineSummary, RunMark, RunSeries
from domain.models.deliberation import DeliberationStatus
from domain.models.run import Run, RunKind

COMPLETED = DeliberationStatus.COMPLETED


def run_of(kind: RunKind, result: dict[str, Any] | None = None, **arguments: Any) -> Run:
    status = DeliberationStatus.RUNNING if result is None else COMPLETED
    return Run("01a1fff3-5216-7370-b239-662218857b42", kind, status, arguments, result=result)


def ticks(values: list[float]) -> RunSeries:
    summary = LineSummary(len(values), min(values), max(values), sum(values) / len(values), 2.0, 3.0, values[-1])
    positions = [float(place) for place in range(1, len(values) + 1)]
    return RunSeries("tick", positions, {"tick_ms": values}, {"tick_ms": summary}, rows=len(values))


def named(figures: Sequence[Figure], name: str) -> Figure:
    return next(figure for figure in figures if figure.name == name)


def test_a_figure_says_in_words_what_its_line_shows() -> None:
    figure = named(figures_of(run_of(RunKind.POPULATION), ticks([1.0, 3.0, 2.0])), "tick_ms")
    assert figure.summary == (
        "3 ticks: time of a tick from 1 ms to 3 ms, 2 ms on average, 2 ms last. Half are below 2 ms, 95 % below 3 ms."
    )
    assert [line.label for line in figure.lines] == ["time of a tick", "half are below (p50)", "95 % are below (p95)"]


RATES = {"messages_per_second": LineSummary(2, 10.0, 30.0, 12.0, 10.0, 30.0, 30.0)}


@pytest.mark.parametrize(("result", "rate"), [(None, "12"), ({"messages_per_second": 11.5}, "11.5")])
def test_the_tile_and_the_words_of_a_figure_name_one_rate(result: Any, rate: str) -> None:
    run = run_of(RunKind.POPULATION, result)
    series = RunSeries("tick", [1.0, 2.0], {"messages_per_second": [10.0, 30.0]}, RATES, rows=2, is_whole=True)
    assert dict(facts_of(run, series).tiles)["Messages a second"] == rate
    assert f", {rate} messages/s on average," in named(figures_of(run, series), "messages_per_second").summary


@pytest.mark.parametrize(
    ("kind", "line", "told", "tiles"),
    [
        (RunKind.POPULATION, "tick_ms", "tick_ms", ("Tick, p50", "Tick, p95")),
        (RunKind.SOAK, "duration_ms", "cycle_ms", ("Cycle, p50", "Cycle, p95")),
    ],
)
def test_the_quantiles_of_a_figure_are_those_of_the_result(
    kind: RunKind, line: str, told: str, tiles: tuple[str, str]
) -> None:
    whole = ticks([1.0, 3.0, 2.0])
    series = RunSeries("tick", whole.positions, {line: [1.0, 3.0, 2.0]}, {line: whole.summaries["tick_ms"]}, rows=3)
    run = run_of(kind, {told: {"p50": 2.25, "p95": 2.75}})
    assert [dict(facts_of(run, series).tiles)[name] for name in tiles] == ["2.25 ms", "2.75 ms"]
    figure = named(figures_of(run, series), line)
    assert "Half are below 2.25 ms, 95 % below 2.75 ms." in figure.summary
    assert [line.values[0] for line in figure.lines[1:]] == [2.25, 2.75]


def test_the_latency_of_a_swarm_is_said_by_the_rows_that_have_one_and_not_by_another_measure() -> None:
    summary = LineSummary(3, 17.9, 18.1, 18.0, 18.0, 18.09, 18.1)
    series = RunSeries(
        "message", [1.0, 2.0, 3.0, 4.0], {"latency_ms": [None, 17.9, 18.0, 18.1]}, {"latency_ms": summary}, rows=4
    )
    run = run_of(RunKind.SWARM, {"latency_us": {"p50": 17_410.0, "p95": 17_510.0}})
    figure = named(figures_of(run, series), "latency_ms")
    assert figure.summary.startswith("3 messages: from delegation to the Log's note from 17.9 ms to 18.1 ms")
    assert figure.summary.endswith("Half are below 18 ms, 95 % below 18.09 ms.")
    assert [line.values[0] for line in figure.lines[1:]] == [18.0, 18.09]
    assert dict(facts_of(run, series).latencies)["p50"] == "17,410 µs"


@pytest.mark.parametrize("rows", [1, 2, MAX_TABLE_ROWS, MAX_TABLE_ROWS + 1, 2_000])
def test_a_table_has_few_rows_and_the_first_and_the_last_of_all(rows: int) -> None:
    figure = named(figures_of(run_of(RunKind.POPULATION), ticks([float(each) for each in range(rows)])), "tick_ms")
    positions = [position for position, _ in figure.table]
    assert len(positions) == min(rows, MAX_TABLE_ROWS)
    assert (positions[0], positions[-1]) == (1, rows)


def test_opinions_are_drawn_at_first_and_now_and_in_the_end() -> None:
    series = RunSeries(opinions=(Distribution(0, 0.5, 0.08, (1, 2)), Distribution(9, 0.4, 0.02, (3, 0))))
    going_on = named(figures_of(run_of(RunKind.POPULATION), series), "opinions")
    assert [line.label for line in going_on.lines] == ["at first (tick 0)", "now (tick 9)"]
    ended = named(figures_of(run_of(RunKind.POPULATION, {}), series), "opinions")
    assert [line.label for line in ended.lines] == ["at first (tick 0)", "at the end (tick 9)"]
    assert list(ended.positions) == [0.25, 0.75]


def test_the_opinions_of_a_run_of_the_command_line_come_from_its_report() -> None:
    opinions = {name: {"mean": 0.5, "variance": 0.1, "histogram": [1, 1]} for name in ("initial", "final")}
    run = run_of(RunKind.POPULATION, {"ticks": 4, "opinions": opinions})
    assert len(named(figures_of(run, RunSeries()), "opinions").lines) == 2


def test_marks_are_said_in_words_and_drawn_with_their_label() -> None:
    series = ticks([1.0, 2.0])
    summaries = {"duration_ms": series.summaries["tick_ms"]}
    marks = (RunMark(2, "kill", 1), RunMark(2, "crash", 2))
    soak = RunSeries("cycle", series.positions, {"duration_ms": [1.0, 2.0]}, summaries, marks=marks, rows=2)
    figure = named(figures_of(run_of(RunKind.SOAK), soak), "duration_ms")
    assert "Marked: 1 kill and 2 crashes." in figure.summary
    assert figure_document(figure)["marks"] == [
        {"position": 2, "label": "kill"},
        {"position": 2, "label": "2 crashes"},
    ]


def test_criteria_say_value_limit_and_verdict() -> None:
    criteria = {
        "crashes": {"value": 1, "limit": 0, "passed": False},
        "memory_growth": {"value": None, "limit": 10, "passed": True},
        "complete_metrics": {"value": 12, "limit": 12, "passed": True},
    }
    facts = facts_of(run_of(RunKind.SOAK, {"passed": False, "criteria": criteria}), RunSeries())
    assert (facts.verdict, facts.is_good) == ("Not all criteria are met.", False)
    assert [(each.value, each.limit, each.passed) for each in facts.criteria] == [
        ("not judged: fewer than 12 cycles", "at most 10 %", True),
        ("1", "at most 0", False),
        ("12", "at least 12", True),
    ]


def test_a_split_says_how_likely_it_is() -> None:
    facts = facts_of(run_of(RunKind.SWARM, {"heads": 3, "tails": 1, "split_p_value": 0.625}), RunSeries())
    assert [(bar.name, bar.percent) for bar in facts.split] == [("heads", 75.0), ("tails", 25.0)]
    assert "62.5 %" in facts.split_note


def test_handoffs_are_summed_up_by_role_in_the_order_of_the_row() -> None:
    handoffs = [
        {"cycle": cycle, "from": sender, "to": to, "latency_us": latency}
        for cycle, latency in ((1, 30.0), (2, 10.0), (3, 20.0))
        for sender, to in (("observer", "reasoner"), ("pantheon", "observer"))
    ]
    facts = facts_of(run_of(RunKind.PANTHEON, {"status": "executed", "handoffs": handoffs}), RunSeries())
    found = [(each.recipient, each.count, each.median_us, each.longest_us) for each in facts.handoffs]
    assert found == [("observer", 3, 20.0, 30.0), ("reasoner", 3, 20.0, 30.0)]


@pytest.mark.parametrize("kind", list(RunKind))
@pytest.mark.parametrize(
    "garbage", [None, 3, "x", [], [None, 3, {}], {}, {"initial": {"histogram": ["x"]}}, float("nan")]
)
def test_whatever_a_result_holds_makes_no_page_fail(kind: RunKind, garbage: Any) -> None:
    names = ("opinions", "ticks", "criteria", "passed", "cycle_ms", "handoffs", "executed", "heads", "tails", "status")
    run = run_of(kind, dict.fromkeys(names, garbage), agents=garbage, ticks=garbage, duration=garbage, interval=garbage)
    assert facts_of(run, RunSeries()) is not None
    json.dumps([figure_document(figure) for figure in figures_of(run, RunSeries())], allow_nan=False)


@pytest.mark.parametrize(
    ("value", "words"),
    [(None, "–"), (float("inf"), "–"), (0, "0"), (1234567, "1,234,567"), (1.5, "1.5"), (0.01234, "0.0123")],
)
def test_numbers_are_said_in_so_many_digits_as_say_something(value: float | None, words: str) -> None:
    assert said(value) == words


def _sample(field: RunField) -> Any:
    """What somebody might write there."""
    if field.kind is FieldKind.FLAG:
        return True
    if field.kind is FieldKind.CHOICE:
        return field.choices[0]
    if field.kind is FieldKind.SEVERAL:
        return list(field.choices)
    if field.kind in {FieldKind.WHOLE, FieldKind.NUMBER}:
        return float(field.value) if "." in field.value else int(field.value) if field.value else None
    return field.value or None


@pytest.mark.parametrize("form", RUN_FORMS, ids=lambda form: form.kind.value)
def test_a_form_has_every_argument_that_rest_takes_and_no_other(form: Any) -> None:
    described = form_of(form.kind)
    assert described is not None
    given = {field.name: _sample(field) for field in (*form.fields, *form.more)}
    filled = {name: value for name, value in given.items() if value is not None and name not in {"tiers", "inference"}}
    needed = {"task": "count"} if form.kind is RunKind.PANTHEON else {}
    checked, problems = described.check({**filled, **needed})
    assert problems == []
    # What is not asked for unless it is given is not among the arguments.
    unasked = {"seed", "timeout", "question", "kill_every", "scale", "step"}
    renamed = {"steps"} if form.kind is RunKind.PANTHEON else set()
    assert set(checked) - set(given) == renamed
    assert set(given) - set(checked) <= unasked
