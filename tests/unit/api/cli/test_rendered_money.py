"""Quotes and usage as a person reads them: every figure in its column, and nothing hidden."""

from __future__ import annotations

from typing import Any

from api.cli.rendered_money import render_quote, render_usage
from tests.unit.api.cli.samples import console, printed

_QUOTE: dict[str, Any] = {
    "calls": {"expected": 72, "at_most": 144},
    "tokens": {"expected": 82_800, "at_most": 291_456},
    "cost_usd": {"expected": 0.11, "at_most": 0.73},
    "notices": [],
}


def _item(key: str, **figures: float) -> dict[str, Any]:
    nothing = {"calls": 1, "input_tokens": 0, "output_tokens": 0, "cost_usd": 0.0, "uncertain_usd": 0.0}
    return {"key": key, **nothing, **figures}


def test_a_quote_shows_what_is_expected_beside_what_it_is_at_most() -> None:
    target = console()
    render_quote(target, _QUOTE)
    assert printed(target).splitlines() == [
        "          Expected     At most",
        "Calls           72         144",
        "Tokens      82,800     291,456",
        "Cost    0.1100 USD  0.7300 USD",
        "",
        "Nobody was asked, and nothing was spent.",
    ]


def test_a_cost_that_is_not_known_is_not_shown_as_nothing() -> None:
    target = console()
    unknown = {"expected": None, "at_most": None}
    render_quote(target, {**_QUOTE, "cost_usd": unknown, "notices": ["The price of 'p/m\x1b[2J' is not known."]})
    assert "Cost     unknown  unknown" in printed(target)
    assert "The price of 'p/m\\x1b[2J' is not known." in printed(target)
    assert "0.0000" not in printed(target)


def test_usage_has_a_line_for_each_and_one_for_all() -> None:
    target = console()
    items = [
        _item("openai/small", calls=1_200, input_tokens=1_000_000, output_tokens=9_000, cost_usd=1.5),
        _item("", calls=3, cost_usd=0.25, uncertain_usd=0.07),
    ]
    render_usage(target, {"items": items}, by="model")
    assert printed(target).splitlines() == [
        "Model         Calls  Tokens in  Tokens out        Cost   Uncertain",
        "openai/small  1,200  1,000,000       9,000  1.5000 USD  0.0000 USD",
        "(none)            3          0           0  0.2500 USD  0.0700 USD",
        "All of these  1,203  1,000,000       9,000  1.7500 USD  0.0700 USD",
    ]


def test_one_item_needs_no_sum() -> None:
    target = console()
    render_usage(target, {"items": [_item("2026-11-21")]}, by="day")
    assert printed(target).count("\n") == 2
    assert "All of these" not in printed(target)


def test_where_nothing_was_called_it_says_so() -> None:
    target = console()
    render_usage(target, {"items": []}, by="day")
    assert printed(target) == "No call was made yet.\n"


def test_a_hostile_key_stays_on_its_line_and_in_its_column() -> None:
    target = console()
    render_usage(target, {"items": [_item("a\nb\x1b[2J[bold]" + "x" * 200), _item("日本")]}, by="key")
    lines = printed(target).splitlines()
    assert len(lines) == 4
    assert "a b\\x1b[2J[bold]xxx" in lines[1]
    assert lines[1].endswith("0.0000 USD")


def test_a_server_that_leaves_figures_out_is_not_believed_to_say_nothing() -> None:
    target = console()
    render_usage(target, {"items": [{"key": "k", "calls": "many"}]}, by="key")
    assert printed(target).splitlines()[1].split() == ["k", *["unknown"] * 5]
