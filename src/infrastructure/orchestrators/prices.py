"""What models take for their tokens, as far as that is known without asking anybody."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import TYPE_CHECKING

from domain.models.money import Price

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice

__all__ = ["PriceList", "listed_price"]

# Those that give their models to nobody: whoever else offers one of these passes the questions, and the bill, on to them.
_MAKERS_OF_CLOSED_MODELS = frozenset({"openai", "anthropic", "google", "x-ai"})
_OPEN_MODELS = "gpt-oss"
# What a text costs besides its tokens: their price alone would tell too little.
_FEES = ("requests_kcount", "input_text_messages_kcount")


def _today() -> date:
    return datetime.now(UTC).date()


class PriceList:
    """The price of each model: the operator's own, else the listed one, looked up once a day (UTC)."""

    def __init__(
        self,
        own: Mapping[str, Price] | None = None,
        *,
        look_up: Callable[[str, str, date], Price | None] | None = None,
        today: Callable[[], date] = _today,
    ) -> None:
        """`own` is by the full name of a model, `provider/model`. `look_up` is `listed_price` unless given."""
        self._own = dict(own or {})
        self._look_up = look_up if look_up is not None else listed_price
        self._today = today
        self._found: dict[tuple[str, str], tuple[date, Price | None]] = {}

    def price(self, name: str, *, base_url: str, model: str) -> Price | None:
        """What the model of that full name takes, which is called `model` at `base_url`; None where nobody here knows.

        The first look-up of a process imports the list, which takes half a second.
        """
        own = self._own.get(name)
        if own is not None:
            return own
        today, key = self._today(), (base_url, model)
        found = self._found.get(key)
        if found is None or found[0] != today:
            found = self._found[key] = (today, self._look_up(base_url, model, today))
        return found[1]


def listed_price(base_url: str, model: str, day: date) -> Price | None:
    """The dearest that a token in and a token out of that model take on that day, by the list in `genai-prices`.

    The list is the one that was installed: nothing is fetched. Whose price it is, is told by the address, else by the name of the
    model, where only its maker has it. Where prices differ by the length of a prompt or the time of day, the dearest counts. What a
    provider takes more for tokens that it writes into its cache unasked counts, what it takes less for those it finds there does
    not. None for a model that is not listed, or that takes money for more than tokens.
    """
    listed = _find(base_url, model.removeprefix("models/"))
    if listed is None:
        return None
    inputs: list[Decimal | None] = []
    outputs: list[Decimal | None] = []
    for prices in _prices_on(day, listed):
        price_in, price_out = _dearest(prices, "input_mtok"), _dearest(prices, "output_mtok")
        if price_in is None or price_out is None or any(_dearest(prices, fee) for fee in _FEES):
            return None
        inputs += [price_in, _dearest(prices, "cache_write_mtok") if _caches_unasked(listed) else None]
        outputs += [price_out, _dearest(prices, "output_reasoning_mtok")]
    if not inputs:
        return None
    return Price.per_million(
        input_usd=max(price for price in inputs if price is not None),
        output_usd=max(price for price in outputs if price is not None),
    )


def _find(base_url: str, model: str) -> ModelInfo | None:
    # Imported here: who names the prices of all models never needs it.
    from genai_prices.data import providers
    from genai_prices.data_snapshot import DataSnapshot

    snapshot = DataSnapshot(providers=providers, from_auto_update=False)
    try:
        provider = snapshot.find_provider(None, None, f"{base_url}/")
    except LookupError:
        provider = None
    try:
        maker, found = snapshot.find_provider_model(model, provider, None, None)
    except LookupError:
        return None
    if provider is None and (maker.id not in _MAKERS_OF_CLOSED_MODELS or _OPEN_MODELS in found.id):
        return None
    return found


def _prices_on(day: date, model: ModelInfo) -> list[ModelPrice]:
    """Those that hold at some time of that day, the last of the list before the others, as the list has it."""
    from genai_prices.types import ModelPrice, StartDateConstraint

    if isinstance(model.prices, ModelPrice):
        return [model.prices]
    found = []
    noon = datetime.combine(day, time(12), UTC)
    for conditional in reversed(model.prices):
        constraint = conditional.constraint
        holds_all_day = constraint is None or isinstance(constraint, StartDateConstraint)
        if constraint is None or not holds_all_day or constraint.active(noon):
            found.append(conditional.prices)
            if holds_all_day:
                break
    return found


def _dearest(prices: ModelPrice, unit: str) -> Decimal | None:
    """The most that so much of that unit takes, whatever the length of the prompt; None where it has no price."""
    from genai_prices.types import TieredPrices

    price = prices.__dict__.get(unit)
    if isinstance(price, TieredPrices):
        return max([price.base, *(tier.price for tier in price.tiers)])
    return price if isinstance(price, Decimal) else None


def _caches_unasked(model: ModelInfo) -> bool:
    # Claude writes into its cache only what it is told to, and it is told nothing.
    return "claude" not in model.id
