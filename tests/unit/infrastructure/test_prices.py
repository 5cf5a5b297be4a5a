"""Holds prices to being known without asking anybody, dearest first, and to what the operator says before all."""

from __future__ import annotations

import subprocess
import sys
from datetime import date, time
from decimal import Decimal

import pytest
from genai_prices import data
from genai_prices.types import (
    ClauseEquals,
    ConditionalPrice,
    ModelInfo,
    ModelPrice,
    Provider,
    StartDateConstraint,
    Tier,
    TieredPrices,
    TimeOfDateConstraint,
)

from domain.models.money import Price
from infrastructure.orchestrators.prices import PriceList, listed_price

OPENAI = "https://api.openai.com/v1"
DAY = date(2026, 11, 21)


def model(prices: ModelPrice | list[ConditionalPrice], name: str = "m") -> ModelInfo:
    return ModelInfo(name, ClauseEquals(name), prices=prices)


def tokens(price_in: str, price_out: str, **more: Decimal | TieredPrices) -> ModelPrice:
    return ModelPrice(input_mtok=Decimal(price_in), output_mtok=Decimal(price_out), **more)


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> list[ModelInfo]:
    """The models of a provider at https://api.example, which are all that is listed."""
    models: list[ModelInfo] = []
    monkeypatch.setattr(data, "providers", [Provider("example", "Example", r"https://api\.example", models=models)])
    return models


def price_of(name: str = "m", *, day: date = DAY) -> Price | None:
    return listed_price("https://api.example/v1", name, day)


def million(price_in: str, price_out: str) -> Price:
    return Price.per_million(input_usd=Decimal(price_in), output_usd=Decimal(price_out))


@pytest.mark.parametrize(
    ("base_url", "name"),
    [
        (OPENAI, "gpt-4o-mini"),
        ("https://api.anthropic.com/v1", "claude-haiku-4-5"),
        ("https://generativelanguage.googleapis.com/v1beta/openai", "gemini-2.5-flash"),
        ("https://generativelanguage.googleapis.com/v1beta/openai", "models/gemini-2.5-flash"),
        ("https://api.x.ai/v1", "grok-3"),
        ("http://127.0.0.1:4000/v1", "gpt-4o-mini"),
    ],
)
def test_the_models_of_the_big_providers_have_a_price(base_url: str, name: str) -> None:
    found = listed_price(base_url, name, DAY)
    assert found is not None
    assert 0 < found.input_token < found.output_token


@pytest.mark.parametrize(
    ("base_url", "name"),
    [
        (OPENAI, "no-such-model"),
        ("http://127.0.0.1:8080/v1", "SmolLM2-135M"),
        ("http://127.0.0.1:8080/v1", "gpt-oss-20b"),
        ("http://127.0.0.1:8080/v1", "mistral-small-latest"),
        ("https://api.perplexity.ai", "sonar"),
    ],
)
def test_what_is_not_listed_runs_anywhere_or_takes_fees_besides_has_none(base_url: str, name: str) -> None:
    assert listed_price(base_url, name, DAY) is None


def test_of_prices_by_the_length_of_the_prompt_the_dearest_counts(listed: list[ModelInfo]) -> None:
    tiers = TieredPrices(Decimal(1), [Tier(200_000, Decimal(2)), Tier(300_000, Decimal("1.5"))])
    listed.append(model(ModelPrice(input_mtok=tiers, output_mtok=Decimal(9))))
    assert price_of() == million("2", "9")


def test_of_prices_by_the_time_of_day_the_dearest_counts(listed: list[ModelInfo]) -> None:
    night = TimeOfDateConstraint(time(0, 30), time(16, 30))
    listed.append(
        model([ConditionalPrice(prices=tokens("1", "2")), ConditionalPrice(night, prices=tokens("0.5", "3"))])
    )
    assert price_of() == million("1", "3")


def test_a_price_counts_from_its_date_on_and_the_one_before_no_longer(listed: list[ModelInfo]) -> None:
    later = ConditionalPrice(StartDateConstraint(date(2026, 12, 1)), prices=tokens("0.5", "1"))
    listed.append(model([ConditionalPrice(prices=tokens("1", "2")), later]))
    assert price_of(day=date(2026, 11, 30)) == million("1", "2")
    assert price_of(day=date(2026, 12, 1)) == million("0.5", "1")


def test_a_cheaper_price_of_cached_tokens_never_counts(listed: list[ModelInfo]) -> None:
    listed.append(model(tokens("1", "2", cache_read_mtok=Decimal("0.1"))))
    assert price_of() == million("1", "2")


def test_a_dearer_price_of_tokens_written_to_a_cache_counts_where_that_is_done_unasked(listed: list[ModelInfo]) -> None:
    listed.append(model(tokens("1", "2", cache_write_mtok=Decimal("1.25"))))
    listed.append(model(tokens("1", "2", cache_write_mtok=Decimal("1.25")), "claude-x"))
    assert price_of() == million("1.25", "2")
    assert price_of("claude-x") == million("1", "2")


def test_tokens_of_thought_count_by_their_price_where_it_is_dearer(listed: list[ModelInfo]) -> None:
    listed.append(model(tokens("1", "2", output_reasoning_mtok=Decimal(3))))
    assert price_of() == million("1", "3")


def test_a_model_without_one_of_the_two_prices_has_none(listed: list[ModelInfo]) -> None:
    listed.append(model(ModelPrice(input_mtok=Decimal(1))))
    listed.append(model([], "nothing"))
    assert price_of() is None
    assert price_of("nothing") is None


def test_a_free_model_is_known_to_be_free(listed: list[ModelInfo]) -> None:
    listed.append(model(tokens("0", "0")))
    assert price_of() == Price(0, 0)


def test_the_operators_own_price_comes_first_and_is_not_looked_up() -> None:
    def look_up(base_url: str, name: str, day: date) -> Price | None:
        raise AssertionError(name)

    prices = PriceList({"openai/small": Price(1, 2)}, look_up=look_up)
    assert prices.price("openai/small", base_url=OPENAI, model="small") == Price(1, 2)


def test_a_price_is_looked_up_once_a_day() -> None:
    asked: list[date] = []
    today = date(2026, 11, 30)

    def look_up(base_url: str, name: str, day: date) -> Price | None:
        asked.append(day)
        return None

    prices = PriceList(look_up=look_up, today=lambda: today)
    for _ in range(3):
        assert prices.price("a/b", base_url=OPENAI, model="b") is None
    today = date(2026, 12, 1)
    prices.price("a/b", base_url=OPENAI, model="b")
    assert asked == [date(2026, 11, 30), date(2026, 12, 1)]


def test_prices_are_looked_up_without_a_socket_a_thread_or_a_setting() -> None:
    script = (
        "import socket, sys, threading\n"
        "from datetime import date\n"
        "def refuse(*_, **__): raise AssertionError('a socket was opened')\n"
        "socket.socket.connect = refuse\n"
        "socket.getaddrinfo = refuse\n"
        "from infrastructure.orchestrators.prices import listed_price\n"
        "assert 'genai_prices' not in sys.modules\n"
        f"assert listed_price({OPENAI!r}, 'gpt-4o-mini', date(2026, 11, 21)) is not None\n"
        "assert threading.active_count() == 1, threading.enumerate()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
