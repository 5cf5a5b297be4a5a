"""Every section of a report says what the documents say, for every kind of answer and every end."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import pytest

from api.report.page import Receipt, report_of
from domain.models.question import AnswerFormat, AnswerKind
from domain.models.roll_call import AgentState
from domain.voting.rule import Rule, RuleKind
from tests.html_reader import HtmlReader
from tests.report_specimens import NOTE, OPTIONS, ended, page, words

RANKING = AnswerFormat(AnswerKind.RANKING, OPTIONS)
NUMBER = AnswerFormat(AnswerKind.NUMBER, unit="trams")
TEXT = AnswerFormat(AnswerKind.TEXT)
TIMED_OUT, FAILED = AgentState.TIMED_OUT, AgentState.FAILED


def section(found: tuple[dict[str, Any], list[dict[str, Any]]], name: str, **receipt: Any) -> str:
    """The words of one section."""
    html = report_of(*found, receipt=Receipt(**receipt)).html
    inside = re.search(rf'<section id="{name}".*?</section>', html, re.DOTALL)
    assert inside is not None
    return HtmlReader(inside[0]).words


def test_the_minority_report_stands_beside_the_decision_with_headings_of_one_rank_and_as_many_reasons() -> None:
    found = ended(("yes",) * 9 + ("no",) * 8)
    html = report_of(*found).html
    assert re.search(r'<h2 id="decision-title">Decision: <bdi>yes</bdi></h2>', html)
    assert re.search(r'<h2 id="minority-title">Minority report</h2>', html)
    decision, minority = (section(found, name) for name in ("decision", "minority"))
    assert "A yes: 9 agents" in decision
    assert "47.1 % of those who answered did not want this." in minority
    assert "B no: 8 agents archon-9," in minority
    assert decision.count("because") == minority.count("because") == 5
    assert "archon-9: because 9" in minority
    assert "and 3 more reasons in other words" in minority


def test_an_echo_takes_the_place_of_no_other_reason() -> None:
    minority = section(ended(("yes", "yes", "yes", "no", "no"), reason="As  they SAY"), "minority")
    assert minority.count("SAY") == 1


def test_a_long_reason_is_cut_and_says_by_how_much() -> None:
    assert "(64,936 more characters)" in words(("yes", "no"), reason="x" * 65_536)


def test_a_tie_shows_all_positions_and_no_decision() -> None:
    found = ended(("yes", "yes", "no", "no"))
    assert "Tie: yes and no have 2 each, so there is no decision" in section(found, "decision")
    assert section(found, "minority").startswith("The positions What those who answered wanted")


def test_an_inquorate_one_says_what_was_counted_and_that_it_decides_nothing() -> None:
    document, outputs = ended(("yes", "no", TIMED_OUT, TIMED_OUT, TIMED_OUT), status="inquorate", outcome=None)
    document["quorum"] = {"min_answered_fraction": 0.5}
    found = document, outputs
    told = section(found, "decision")
    assert "No decision: fewer took part than the quorum asks for" in told
    assert "The quorum was 50 % of 5 asked, and 2 took part." in told
    assert "decides nothing" in section(found, "minority")
    assert page(found).words.startswith("Conclave: Close it? Degraded: 3 of 5 did not take part.")


def test_unanimity_has_an_empty_minority_report() -> None:
    assert "Nobody who answered wanted anything else." in section(ended(("yes", "yes")), "minority")


def test_the_tally_names_every_option_with_its_count_share_and_letter() -> None:
    told = section(ended(("yes", "yes", "yes", "no")), "tally")
    assert "A yes 3 75.0 %" in told
    assert "B no 1 25.0 %" in told
    assert "C weekends only 0 0.0 %" in told


@pytest.mark.parametrize(
    ("rule", "unit"), [("borda", "points"), ("copeland", "wins"), ("schulze", "first places"), ("irv", "first places")]
)
def test_a_tally_says_what_its_rule_counts(rule: str, unit: str) -> None:
    found = ended((("yes", "no"), ("no", "yes", "weekends only"), ("yes",)), answer=RANKING, rule=Rule(RuleKind(rule)))
    assert f"Tally in {unit}" in section(found, "tally")


def test_rankings_show_who_is_ranked_above_whom() -> None:
    found = ended((("yes", "no"), ("no", "yes"), ("yes",)), answer=RANKING)
    told = section(found, "tally")
    # Whoever is not named stands below everybody who is.
    assert "yes · 2 3" in told.replace("A yes", "yes")
    assert re.search(r"B no 1 · 2", told)


def test_ballots_that_count_by_confidence_are_compared_by_confidence() -> None:
    rule = Rule(RuleKind.SCHULZE, weighted_by="confidence")
    told = section(ended((("yes", "no"), ("yes", "no")), answer=RANKING, rule=rule), "tally")
    assert "Tally in first places, weighted" in told
    assert re.search(r"A yes · 1 1", told)


def test_numbers_are_a_histogram_with_the_decision_quartiles_and_outliers() -> None:
    found = ended((1.0, 2.0, 2.0, 3.0, 2.5, 900.0), answer=NUMBER)
    told = section(found, "tally")
    assert "the line is the decision, 2.25 trams" in told
    assert "Far from all others (Tukey's fences): archon-5." in told
    assert "least 1 trams" in told
    assert "Decision: 2.25 trams" in section(found, "decision")
    (drawn,) = (each for each in page(found).all("svg") if "Histogram" in (each.get("aria-label") or ""))
    assert drawn["role"] == "img"


@pytest.mark.parametrize("numbers", [(5.0, 5.0), (7.0,), (-1e308, 1e308), (0.0, 5e-324)])
def test_numbers_that_no_histogram_can_show_make_a_page_all_the_same(numbers: tuple[float, ...]) -> None:
    assert "The numbers that were given" in section(ended(numbers, answer=NUMBER), "tally")


def test_texts_show_the_claims_with_who_makes_them() -> None:
    same = "Trams carry the most people through the city."
    told = section(ended((same, same, "Parking pays for hospitals and schools."), answer=TEXT), "decision")
    assert f"{same} (archon-0 and archon-1)" in told
    assert "cluster 1: 2 agents" in told


def test_the_flow_counts_who_stayed_who_moved_and_who_fell_silent() -> None:
    found = ended(("yes", "yes", "no", "no", "no"), ("yes", "no", "no", None, FAILED))
    told = section(found, "changes")
    assert "yes to yes" in told
    assert "yes to no" in told
    assert "no to no answer" in told
    assert "archon-1 A" not in told
    assert re.search(r"archon-1 B yes A no", told)
    (drawn,) = (each for each in page(found).all("svg") if "blind round" in (each.get("aria-label") or ""))
    assert "yes to no 1" in str(drawn["aria-label"])


def test_streams_leave_a_position_side_by_side_and_fill_it() -> None:
    html = report_of(
        *ended(("yes",) * 6 + ("no",) * 2, ("yes", "yes", "no", "no", "no", "weekends only", "no", "no"))
    ).html
    streams = re.findall(r'd="M128\.0 ([\d.]+)C320\.0 [\d.]+ 320\.0 ([\d.]+) 512\.0 [\d.]+V([\d.]+)C', html)
    bars = re.findall(r'<rect x="(112|512)\.0" y="([\d.]+)" width="16\.0" height="([\d.]+)"/>', html)
    assert len(streams) == 4
    for side, at in ((0, "112"), (1, "512")):
        taken = sorted((float(each[side]), float(each[2]) - float(each[1])) for each in streams)
        for top, high in ((float(y), float(height)) for x, y, height in bars if x == at):
            inside = [(start, size) for start, size in taken if top - 0.2 <= start < top + high - 0.2]
            assert sum(size for _, size in inside) == pytest.approx(high, abs=0.5)
            assert all(start + size == pytest.approx(after, abs=0.3) for (start, size), (after, _) in pairwise(inside))


def test_without_outputs_the_flow_is_drawn_from_the_outcome() -> None:
    document, _ = ended(("yes", "yes", "no"), ("yes", "no", "no"))
    assert "yes to no" in section((document, []), "changes")


def test_numbers_that_changed_are_lines() -> None:
    told = section(ended((1.0, 2.0, 3.0), (1.0, 2.5, 3.0), answer=NUMBER), "changes")
    assert "archon-1: 2 to 2.5" in told
    assert "1 of 3 changed." in told


def test_one_round_has_no_flow() -> None:
    html = report_of(*ended(("yes", "no"))).html
    assert 'id="changes"' not in html
    assert 'id="rounds"' not in html


def test_a_round_says_how_many_kept_an_earlier_ballot() -> None:
    told = section(ended(("yes", "no"), ("yes", FAILED)), "rounds")
    assert "0 (blind) answer 2 of 2 0" in told
    assert "1 revise 1 of 2 1" in told


def test_a_poll_that_stopped_early_says_what_it_saved_and_seats_those_not_asked() -> None:
    found = ended(("yes", "yes"), saved={"agents": 3, "calls": 3, "cost_usd": 0.1}, agents={"roster": "x", "count": 5})
    assert "3 agents were not asked" in section(found, "rounds")
    assert "not asked 3" in section(found, "seats")


def test_what_the_result_is_worth_is_said_in_figures() -> None:
    told = section(ended(("yes",) * 4 + ("no",) * 3, ("yes",) * 5 + ("no",) * 2), "worth")
    assert "votes to flip 2 ballots" in told
    assert "without one agent (jackknife) the same result, whichever it is" in told
    assert "entropy, bits 0.99 blind, 0.86 in the end" in told
    assert "conformity 100% of those who changed, towards yes, which led the blind round" in told
    assert "effective votes, from this one alone not known, 1 to 7 of 7" in told


def test_a_rule_that_would_decide_otherwise_is_named() -> None:
    told = section(ended(("yes", "yes", "yes", "no", "no", "weekends only", "weekends only")), "worth")
    assert "What every rule decides on these ballots" in told
    assert "plurality A yes the same" in told
    assert "threshold no majority another result" in told


def test_measured_effective_votes_copies_and_echoes_are_named() -> None:
    document, outputs = ended(("yes", "yes", "no"))
    across = {
        "value": 2.04,
        "low": 1.5,
        "high": 2.6,
        "voters": 3,
        "correlation": 0.2,
        "questions": 40,
        "note": "measured",
    }
    document["worth"] = {
        **document["worth"],
        "effective_votes": {"across": across, "within": None},
        "copies": [{"agents": ["archon-0", "archon-1"], "agreement": 0.9, "questions": 33}],
        "same_words": [["archon-1", "archon-2"]],
        "warnings": ["Groupthink: look again."],
    }
    told = section((document, outputs), "worth")
    assert "effective votes, over earlier deliberations 2.0 (1.5 to 2.6 of 3) measured (40 questions)" in told
    assert "like copies of each other archon-0 and archon-1" in told
    assert "the same reason word for word archon-1 and archon-2" in told
    assert "Warning: Groupthink: look again." in told


def test_the_control_stands_beside_the_tally() -> None:
    control = {
        "model": "small",
        "status": "completed",
        "asked": 4,
        "outcome_status": "decided",
        "decision": "no",
        "tally": {"no": 4},
    }
    told = section(ended(("yes", "yes", "no"), control=control), "worth")
    assert "small was asked alone 4 times: B no." in told
    assert "A yes 2 0" in told


def test_the_roll_call_names_everyone_and_every_failure_with_its_round() -> None:
    told = section(ended(("yes", "no", TIMED_OUT, None), ("yes", FAILED, "no", None)), "roll-call")
    assert re.search(r"archon-2 0 timed out server_error: HTTP 503 <b> 1 \d+ ms none", told)
    assert re.search(r"archon-1 1 failed server_error: HTTP 503 <b> 1 \d+ ms of round 0", told)
    assert "failed, ballot of round 0 kept" in told
    assert all(f"archon-{number}" in told.partition("Every agent")[2] for number in range(4))


def test_whoever_abstains_in_the_end_holds_no_position_any_more() -> None:
    found = ended(("yes", "yes", "no"), ("yes", None, "no"))
    assert "abstained 1" in section(found, "seats")
    assert "archon-1" not in section(found, "decision")


def test_cost_is_said_with_what_is_uncertain() -> None:
    usage = {
        "calls": 74,
        "input_tokens": 1_234_567,
        "output_tokens": 8,
        "cost_usd": 1.5,
        "uncertain_tokens": 10,
        "uncertain_usd": 0.2,
    }
    told = section(ended(("yes",), usage=usage), "cost")
    assert "calls 74 tokens in 1,234,567 tokens out 8 cost 1.5000 USD time 3.0 s" in told
    assert "at most 10 tokens and 0.2000 USD besides" in told


def test_the_receipt_has_what_it_takes_to_verify_offline() -> None:
    told = section(ended(("yes",)), "receipt", checkpoint=NOTE, server="http://127.0.0.1:8000")
    assert "first entry 3 last entry 11 tree size at its end 12" in told
    assert "ab" * 32 in told
    assert "conclave.test/witness 12 abc=" in told
    assert "-o bundle.json http://127.0.0.1:8000/v1/deliberations/d-1/bundle" in told
    assert "conclave witness verify bundle.json --key VKEY" in told


def test_no_id_and_no_address_gets_into_a_command_that_could_do_anything_else() -> None:
    told = section(ended(("yes",), id="$(reboot)"), "receipt", server="http://x/;reboot")
    assert "reboot" not in told
    assert "SERVER/v1/deliberations/ID/bundle" in told


def test_a_log_that_signs_no_checkpoint_is_warned_of() -> None:
    told = section(ended(("yes",)), "receipt", problem="a <leaf> is missing")
    assert "Warning: no checkpoint is signed: a <leaf> is missing" in told


def test_landmarks_headings_and_tables_can_be_found_without_seeing_them() -> None:
    found = page(ended(("yes", "no", "no"), ("no", "no", "no")))
    names = [tag for tag, _ in found.tags]
    assert names.count("h1") == names.count("main") == names.count("nav") == names.count("footer") == 1
    levels = [int(name[1]) for name in names if re.fullmatch("h[1-6]", name)]
    assert all(after <= before + 1 for before, after in pairwise(levels))
    ids = {attributes["id"] for _, attributes in found.tags if "id" in attributes}
    assert all((each["href"] or "")[1:] in ids for each in found.all("a"))
    assert all(each["aria-labelledby"] in ids for each in found.all("section"))
    assert all(
        (each.get("role") == "img" and each.get("aria-label")) or each.get("aria-hidden") for each in found.all("svg")
    )
    assert all(each.get("scope") in {"col", "row"} for each in found.all("th"))
    assert names.count("caption") == names.count("table") == names.count("thead") > 3
