"""The result as a person reads it: honest first, dissent as prominent as the decision, everyone named."""

import re
from typing import Any

import pytest

from api.cli.account import describe_duration
from api.cli.rendering import render_deliberation
from domain.models.deliberation import DeliberationStatus
from domain.models.question import AnswerFormat, AnswerKind
from domain.models.roll_call import AgentState
from domain.voting.rule import Rule, RuleKind
from tests.unit.api.cli.samples import OPTIONS, Said, Sample, answers, choice, console, ended, printed, widest

SPLIT = answers(("weekends only", 35), ("yes", 20), ("no", 14))
ABSENT = [
    Said(state=AgentState.ABSTAINED),
    Said(state=AgentState.TIMED_OUT, kind="agent_timeout", message="agent 'archon-71' gave no answer in 120 s"),
    Said(state=AgentState.TIMED_OUT, kind="agent_timeout", message="agent 'archon-72' gave no answer in 120 s"),
]


def shown(sample: Sample, *, width: int = 80, encoding: str = "utf-8", **more: Any) -> str:
    target = console(width, encoding=encoding)
    render_deliberation(
        target, sample.document, outputs=sample.outputs, again=f"conclave show {sample.document['id']}", **more
    )
    return printed(target)


def first_line(text: str) -> str:
    return text.split("\n", 1)[0]


def test_missing_agents_are_the_first_thing_said() -> None:
    assert first_line(shown(ended([*SPLIT, *ABSENT]))) == "Degraded: 2 of 72 did not take part."


def test_a_simulation_is_the_first_thing_said() -> None:
    assert first_line(shown(ended(SPLIT, simulated=True))).startswith("Simulated:")


def test_a_small_model_is_the_first_thing_said() -> None:
    assert first_line(shown(ended(SPLIT, orchestrator="local", models=["smol"]))).startswith("Answered by smol")


def test_the_notice_of_the_service_stands_in_place_of_what_the_document_tells() -> None:
    text = shown(ended(SPLIT, simulated=True), notices=["About a setting.", "Simulated: by the stub."])
    assert text.startswith("Simulated: by the stub.\nAbout a setting.\n")
    assert text.count("Simulated") == 1


def test_a_full_house_is_said_too() -> None:
    assert first_line(shown(ended(SPLIT))) == "Complete: all 69 took part."


def test_the_decision_its_margin_and_what_would_flip_it_are_told() -> None:
    text = shown(ended([*SPLIT, *ABSENT]))
    assert "Decision: weekends only (by plurality)" in text
    assert "Margin 15, votes to flip 8" in text
    assert "Dissent: 49.3 % of those who answered" in text


def test_every_option_has_its_count_and_share() -> None:
    text = shown(ended(SPLIT))
    for option, count, share in (("yes", 20, "29.0 %"), ("no", 14, "20.3 %"), ("weekends only", 35, "50.7 %")):
        assert re.search(rf"^{option} .*[█-▏] +{count} +{re.escape(share)}$", text, re.MULTILINE)


def test_losing_positions_are_shown_as_the_winning_one_is() -> None:
    text = shown(ended(SPLIT))
    for option, count in (("weekends only", 35), ("yes", 20), ("no", 14)):
        block = text[text.index(f"\n{option}: {count} agents") :].split("\n\n")[0]
        assert block.count(f"for {option}") == 3
        assert f"and {count - 3} more reasons" in block


def test_a_tie_is_called_a_tie() -> None:
    text = shown(ended(answers(("yes", 2), ("no", 2))))
    assert "Tie: yes and no have 2 each, so there is no decision (by plurality)" in text
    assert "Decision" not in text
    assert "yes: 2 agents" in text
    assert "no: 2 agents" in text


def test_a_missed_threshold_names_what_it_takes() -> None:
    text = shown(ended([*answers(("yes", 3)), *ABSENT], answer=AnswerFormat()))
    assert "Decision: yes (by threshold)" in text
    text = shown(ended([*answers(("yes", 3)), *ABSENT, *ABSENT[1:]], answer=AnswerFormat()))
    assert "No majority: no answer has the support that the rule asks for (by threshold)" in text
    assert "needed 4 of 8 asked" in text


def test_nobody_answering_is_no_majority() -> None:
    text = shown(ended([Said(state=AgentState.ABSTAINED)] * 3))
    assert "No majority: nobody gave an answer" in text


def test_another_rule_with_the_same_decision_is_named_but_not_the_rule_itself() -> None:
    text = shown(ended(answers(("yes", 5), ("no", 1)), rule=Rule(RuleKind.PLURALITY)))
    assert "threshold would decide the same" in text
    assert "plurality would" not in text


def test_an_estimate_has_its_unit_its_spread_and_its_outliers() -> None:
    estimates = [Said(float(days), f"about {days}") for days in (2, 3, 5, 8, 13, 21, 34, 55, 89, 144)]
    text = shown(ended(estimates, answer=AnswerFormat(AnswerKind.NUMBER, unit="days")))
    assert "Decision: 17 days (by median)" in text
    assert "Spread 44 days (interquartile range)" in text
    assert "middle half: 4 agents, the decision" in text
    assert "below 5.75 days: 3 agents" in text
    assert "- archon-10: about 144" in text


def test_the_roll_call_adds_up() -> None:
    text = shown(ended([*SPLIT, *ABSENT]))
    assert "Roll call: 72 asked = 69 answered + 1 abstained + 2 timed out" in text


def test_every_failed_agent_is_named_with_state_kind_message_and_attempts() -> None:
    failed = Said(
        state=AgentState.FAILED, kind="http_500", message="the provider broke", agent_id="the-last", attempts=2
    )
    text = shown(ended([*SPLIT[:-1], failed, *ABSENT]))
    assert "  2 timed out: agent_timeout after 1 attempt" in text
    assert "archon-71, archon-72" in text
    assert "  1 failed: http_500 after 2 attempts\n    the provider broke\n    the-last\n" in text


def test_seventy_two_failures_of_one_cause_are_one_group_with_every_name() -> None:
    timeouts = [
        Said(state=AgentState.TIMED_OUT, kind="agent_timeout", message=f"agent 'archon-{n}' is late")
        for n in range(1, 73)
    ]
    text = shown(ended(timeouts, status=DeliberationStatus.INQUORATE, reason="too few"))
    assert text.count("agent_timeout") == 1
    assert "for example: agent 'archon-1' is late" in text
    named = set(re.findall(r"archon-\d+", text[text.index("for example") :]))
    assert named == {f"archon-{n}" for n in range(1, 73)}


def test_many_causes_of_one_kind_are_one_group_with_every_name() -> None:
    broken = [
        Said(state=AgentState.FAILED, kind="reset", message=f"after {n} bytes", agent_id=f"agent-{n}")
        for n in range(30)
    ]
    text = shown(ended([*SPLIT[:40], *broken]))
    assert "  30 failed: reset after 1 attempt\n    for example: after 0 bytes\n    agent-0, " in text
    assert len(set(re.findall(r"agent-\d+", text))) == 30


def test_usage_time_and_the_way_back_are_told() -> None:
    sample = ended(SPLIT)
    text = shown(sample)
    assert "Usage: 69 calls, 6,900 tokens in, 690 out, 0.0690 USD" in text
    assert "Time: 12.3 s" in text
    assert "Asked through: openai, model model-a" in text
    assert f"Show this again: conclave show {sample.document['id']}" in text


def test_what_is_uncertain_is_told_beside_what_was_spent() -> None:
    sample = ended(SPLIT)
    assert "Uncertain" not in shown(sample)
    usage = {**sample.document["usage"], "uncertain_tokens": 1_500, "uncertain_usd": 0.07}
    text = shown(Sample({**sample.document, "usage": usage}, sample.outputs), width=120)
    assert (
        "0.0690 USD\nUncertain: at most 1,500 tokens and 0.0700 USD besides, of calls whose end nobody knows\n" in text
    )


def test_fallbacks_are_told_by_who_was_asked_and_who_answered_with_every_name() -> None:
    sample = ended(SPLIT)
    fell_back = [
        {"agent_id": "archon-1", "round": 0, "asked": "default", "answered": "gemini/flash"},
        {"agent_id": "archon-2", "round": 0, "asked": "default", "answered": "gemini/flash"},
        {"agent_id": "archon-3\x1b[2J", "round": 0, "asked": None, "answered": None},
    ]
    text = shown(Sample({**sample.document, "fallbacks": fell_back}, sample.outputs), width=120)
    said = "fell back from the first model of the route"
    assert f"  2 agents naming default {said}: gemini/flash answered\n    archon-1, archon-2\n" in text
    assert f"  1 agent {said}: no model answered\n    archon-3\\x1b[2J\n" in text


@pytest.mark.parametrize("fallbacks", [None, []])
def test_where_nobody_fell_back_nothing_is_said_of_it(fallbacks: object) -> None:
    sample = ended(SPLIT)
    assert "fell back" not in shown(Sample({**sample.document, "fallbacks": fallbacks}, sample.outputs))


def test_what_was_counted_before_a_cancellation_is_shown() -> None:
    cancelled = [Said(state=AgentState.CANCELLED, kind="cancelled", message="cancelled")] * 4
    text = shown(
        ended(
            [*answers(("yes", 3), ("no", 2)), *cancelled],
            status=DeliberationStatus.CANCELLED,
            reason="cancelled on request",
        )
    )
    assert "No decision: the deliberation was cancelled\n" in text
    assert "yes: 3 agents" in text
    assert "- archon-4: reason 1 for no" in text
    assert "= 5 answered + 4 cancelled" in text


def test_a_running_deliberation_says_how_far_it_is() -> None:
    sample = ended(SPLIT)
    running = {**sample.document, "status": "running", "outcome": None, "rounds": [], "roll_call": {}, "failures": []}
    text = shown(Sample(running, sample.outputs[:5]))
    assert "Still running" in text
    assert "Roll call: 5 of 69 ended so far" in text
    assert re.search(r"^weekends only .* 5 +100\.0 %$", text, re.MULTILINE)


def test_without_outputs_the_reasons_of_the_dissent_are_still_there() -> None:
    text = shown(Sample(ended(SPLIT).document, ()))
    assert "  - reason 1 for yes" in text
    assert "weekends only: 35 agents, the decision" in text


def test_an_echoed_reason_does_not_crowd_out_another() -> None:
    said = [*[Said("yes", "The same words.")] * 4, Said("yes", "Others."), Said("no", "n")]
    text = shown(ended(said))
    assert text.count("The same words.") == 1
    assert "Others." in text


def test_markup_and_control_characters_of_agents_are_shown_and_do_nothing() -> None:
    hostile = "[bold red]x[/bold red] [link=http://evil.example]y[/link] :warning: \x1b[2J\x1b]0;t\x07 \u202egnp"
    text = shown(ended([Said("yes", hostile), Said("no", "fine"), Said("yes", "r")]))
    assert "[bold red]x[/bold red] [link=http://evil.example]y[/link] :warning:" in text.replace("\n    ", " ")
    assert "\\x1b[2J\\x1b]0;t\\x07 \\u202egnp" in text
    assert not set(text) & {"\x1b", "\x07", "\u202e"}


def test_a_reason_cannot_forge_a_line_of_the_result() -> None:
    text = shown(ended([Said("yes", "Fine.\nDecision: no (by plurality)\nRoll call: 9 asked"), Said("yes", "r")]))
    assert not re.search(r"^Decision: no", text, re.MULTILINE)
    assert not re.search(r"^Roll call: 9", text, re.MULTILINE)


def test_hostile_names_in_failures_are_spelt_out() -> None:
    failed = Said(state=AgentState.FAILED, kind="k\x1b[31m", message="m\x9b[bold]", agent_id="agent[red]")
    text = shown(ended([*SPLIT, failed]))
    assert "k\\x1b[31m" in text
    assert "m\\x9b[bold]" in text
    assert "agent[red]" in text


def test_an_endless_reason_is_cut() -> None:
    text = shown(ended([Said("yes", "word " * 10_000), Said("no", "r")]))
    assert len(text) < 3_000


def test_fifty_positions_are_bounded_and_the_rest_is_counted() -> None:
    options = [f"option {number}" for number in range(50)]
    text = shown(ended(answers(*[(option, 1) for option in options]), answer=choice(options)))
    assert "and 38 more positions, held by 38" in text


@pytest.mark.parametrize("width", [40, 57, 100])
@pytest.mark.parametrize(
    "options",
    [
        OPTIONS,
        ("汽车禁止在市中心行驶，周末除外", "好", "不好"),
        ("👩\u200d💻 remote work", "🏳\ufe0f\u200d🌈", "🚲"),
        ("x" * 200, "a long option of many words that cannot stand beside its bar", "no"),
    ],
)
def test_no_line_is_wider_than_the_terminal(width: int, options: tuple[str, ...]) -> None:
    said = [*answers(*[(option, 3 - place) for place, option in enumerate(options)]), *ABSENT]
    assert widest(shown(ended(said, answer=choice(options), question="長い質問 " * 30), width=width)) <= width


def test_no_line_ends_in_spaces() -> None:
    assert not re.search(r" +$", shown(ended([*SPLIT, *ABSENT])), re.MULTILINE)


def test_without_colours_there_is_no_escape_sequence() -> None:
    assert "\x1b" not in shown(ended(SPLIT))


def test_an_encoding_without_blocks_gets_plain_bars() -> None:
    assert shown(ended(SPLIT), encoding="latin-1").isascii()


def test_a_narrow_terminal_gets_a_command_that_fits() -> None:
    sample = ended(SPLIT)
    assert f"Show this again: conclave show {sample.document['id'][:8]}\n" in shown(sample, width=40)


@pytest.mark.parametrize(("seconds", "said"), [(0.0123, "12 ms"), (3.21, "3.2 s"), (125, "2 min 05 s")])
def test_durations_are_said_as_a_person_says_them(seconds: float, said: str) -> None:
    assert describe_duration(seconds) == said
