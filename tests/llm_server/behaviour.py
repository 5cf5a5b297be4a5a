"""Holds what tests asked the server to do: how long to wait, what to say, and which request gets which fault."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from random import Random
from typing import Any

from tests.llm_server.completion import ChatRequest
from tests.llm_server.dialects import DIALECTS, OPENAI, Dialect
from tests.llm_server.faults import FAULTS
from tests.llm_server.rate_limit import RateLimit
from tests.llm_server.reply import FaultSettings

DEFAULT_MODEL = "test-model"
_BOUNDS = frozenset({"least", "most"})


class ConfigurationError(Exception):
    """A configuration the server does not understand, so that no test runs with a fault it never got."""

    def __init__(self, place: str, value: object, wanted: str) -> None:
        super().__init__(f"{place} is {value!r}: {wanted}")
        self.place = place
        self.value = value


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds from the complete head of a request to the first byte of its answer, fixed or log-normal within bounds."""

    median: float = 0.0
    sigma: float = 0.0
    least: float = 0.0
    most: float = math.inf

    @classmethod
    def read(cls, value: object, *, place: str) -> "Latency":
        """Read a number of seconds or `{"lognormal": {"median", "sigma", "least", "most"}}`, the last two if wanted."""
        if isinstance(value, Mapping) and set(value) == {"lognormal"} and isinstance(value["lognormal"], Mapping):
            inner = dict(value["lognormal"])
            median = _number(inner.pop("median", None), place=f"{place}.lognormal.median")
            sigma = _number(inner.pop("sigma", None), place=f"{place}.lognormal.sigma")
            bounds = {
                name: _number(inner.pop(name), place=f"{place}.lognormal.{name}") for name in _BOUNDS & set(inner)
            }
            if inner:
                raise ConfigurationError(f"{place}.lognormal", value, "give median, sigma, least and most only")
            return cls(median=median, sigma=sigma, **bounds)
        return cls(median=_number(value, place=place))

    def seconds(self, key: str) -> float:
        """Draw the latency of one request; the same key draws the same."""
        if not self.sigma:
            return self.median
        drawn = self.median * math.exp(self.sigma * Random(key).gauss(0.0, 1.0))
        return min(max(drawn, self.least), self.most)


@dataclass(slots=True)
class Rule:
    """Chooses requests, and gives them a fault, a latency or both.

    All selectors given must agree. `contains` (any of several substrings of the message texts), `agent` and `model`
    match; `nth` counts the matching requests from 1; `fraction` picks prompts by the hash of `seed` and prompt, so that
    a picked prompt stays picked, or with `each_call` decides anew for each call of a prompt; `times` lets a prompt go once the rule has
    applied to it that often.
    """

    fault: str | None = None
    settings: FaultSettings = field(default_factory=FaultSettings)
    latency: Latency | None = None
    contains: tuple[str, ...] = ()
    agent: tuple[str, ...] = ()
    model: tuple[str, ...] = ()
    nth: frozenset[int] = frozenset()
    fraction: float | None = None
    each_call: bool = False
    seed: int = 0
    times: int | None = None
    matched: int = 0
    calls: Counter[str] = field(default_factory=Counter)
    applied: Counter[str] = field(default_factory=Counter)

    @classmethod
    def read(cls, value: object, *, place: str) -> "Rule":
        """Read a fault's name, or an object of selectors, `fault`, `latency_seconds` and the fault's own settings."""
        given = {"fault": value} if value is None or isinstance(value, str) else value
        if not isinstance(given, Mapping):
            raise ConfigurationError(place, value, "give a fault's name or an object")
        rest = dict(given)
        fault = rest.pop("fault", None)
        if fault is not None and fault not in FAULTS:
            raise ConfigurationError(f"{place}.fault", fault, f"choose one of {', '.join(sorted(FAULTS))}")
        latency = rest.pop("latency_seconds", None)
        fraction = rest.pop("fraction", None)
        times = rest.pop("times", None)
        rule = cls(
            fault=fault,
            latency=None if latency is None else Latency.read(latency, place=f"{place}.latency_seconds"),
            contains=_texts(rest.pop("contains", ()), place=f"{place}.contains"),
            agent=_texts(rest.pop("agent", ()), place=f"{place}.agent"),
            model=_texts(rest.pop("model", ()), place=f"{place}.model"),
            nth=frozenset(_wholes(rest.pop("nth", ()), place=f"{place}.nth")),
            fraction=None if fraction is None else _number(fraction, place=f"{place}.fraction"),
            each_call=_flag(rest.pop("each_call", False), place=f"{place}.each_call"),
            seed=_whole(rest.pop("seed", 0), place=f"{place}.seed"),
            times=None if times is None else _whole(times, place=f"{place}.times"),
        )
        try:
            rule.settings = FaultSettings(**rest)
        except TypeError as error:
            raise ConfigurationError(place, value, f"{error}") from error
        return rule

    def takes(self, request: ChatRequest, *, agent: str | None) -> bool:
        """Say whether this request is the rule's, and count it if so."""
        if self.fault == "400_response_format" and not request.has_response_format:
            return False
        if self.contains and not any(text in request.text for text in self.contains):
            return False
        if (self.agent and agent not in self.agent) or (self.model and request.model not in self.model):
            return False
        self.matched += 1
        if self.nth and self.matched not in self.nth:
            return False
        if self.fraction is not None and _share(self._drawn_by(request)) >= self.fraction:
            return False
        if self.times is not None and self.applied[request.prompt_sha256] >= self.times:
            return False
        self.applied[request.prompt_sha256] += 1
        return True

    def _drawn_by(self, request: ChatRequest) -> str:
        self.calls[request.prompt_sha256] += 1
        call = f":{self.calls[request.prompt_sha256]}" if self.each_call else ""
        return f"{self.seed}:{request.prompt_sha256}{call}"


@dataclass(slots=True)
class Behaviour:
    """All that `POST /_configure` may set, one field a key; a key not given keeps its value."""

    models: tuple[str, ...] = (DEFAULT_MODEL,)
    seed: int = 0
    latency: Latency = field(default_factory=Latency)
    fault: Rule = field(default_factory=Rule)
    faults: tuple[Rule, ...] = ()
    answers: Mapping[str, str] = field(default_factory=dict)
    answer_weights: Mapping[str, float] = field(default_factory=dict)
    agents: Mapping[str, str] = field(default_factory=dict)
    record_bodies: bool = False
    dialect: Dialect = OPENAI
    rates: tuple[RateLimit, ...] = ()
    usage: Mapping[str, int] = field(default_factory=dict)

    def changed(self, configuration: object) -> "Behaviour":
        """Return this behaviour with the given keys replaced; raises ConfigurationError and then changes nothing."""
        if not isinstance(configuration, Mapping):
            raise ConfigurationError("the configuration", configuration, "give a JSON object")
        new = Behaviour(**{name: getattr(self, name) for name in BEHAVIOUR_FIELDS})
        for key, value in configuration.items():
            match key:
                case "models":
                    new.models = _texts(value, place=key)
                case "seed":
                    new.seed = _whole(value, place=key)
                case "latency_seconds":
                    new.latency = Latency.read(value, place=key)
                case "fault":
                    new.fault = Rule.read(value, place=key)
                case "faults":
                    if not isinstance(value, list):
                        raise ConfigurationError(key, value, "give a list of rules")
                    new.faults = tuple(Rule.read(rule, place=f"faults[{at}]") for at, rule in enumerate(value))
                case "answers":
                    new.answers = _text_map(value, place=key)
                case "answer_weights":
                    new.answer_weights = {
                        option: _number(share, place=f"{key}.{option}")
                        for option, share in _map(value, place=key).items()
                    }
                case "agents":
                    # The longest text first, so that "archon-12" is not taken for "archon-1".
                    texts = _text_map(value, place=key)
                    new.agents = dict(sorted(texts.items(), key=lambda each: len(each[1]), reverse=True))
                case "record_bodies":
                    new.record_bodies = _flag(value, place=key)
                case "dialect":
                    if value not in DIALECTS:
                        raise ConfigurationError(key, value, f"choose one of {', '.join(DIALECTS)}")
                    new.dialect = DIALECTS[value]
                case "rates":
                    if not isinstance(value, list):
                        raise ConfigurationError(key, value, "give a list of limits")
                    new.rates = tuple(_rate(rate, place=f"rates[{at}]") for at, rate in enumerate(value))
                case "usage":
                    new.usage = _usage(value, place=key)
                case _:
                    known = (
                        "models, seed, latency_seconds, fault, faults, answers, answer_weights, agents, record_bodies, "
                        "dialect, rates, usage"
                    )
                    raise ConfigurationError("the configuration", key, f"known keys are {known}")
        return new

    def rule_for(self, request: ChatRequest, *, agent: str | None) -> Rule | None:
        """Return the first rule that takes the request, else the default fault, else None."""
        for rule in self.faults:
            if rule.takes(request, agent=agent):
                return rule
        return self.fault if self.fault.fault is not None and self.fault.takes(request, agent=agent) else None

    def answer_for(self, request: ChatRequest) -> str | None:
        """Return the raw content ordered for this prompt, or None."""
        return next((content for text, content in self.answers.items() if text in request.text), None)

    def agent_in(self, text: str) -> tuple[str, str] | None:
        """Return the agent whose text stands in the prompt, and that text."""
        return next(((agent, persona) for agent, persona in self.agents.items() if persona in text), None)


BEHAVIOUR_FIELDS = tuple(Behaviour.__dataclass_fields__)


def _rate(value: object, *, place: str) -> RateLimit:
    """Read `{"requests", "tokens", "seconds", "model", "counts_refused"}`; those not given do not limit."""
    rest = dict(_map(value, place=place))
    limit = RateLimit(
        requests=_whole_or_none(rest.pop("requests", None), place=f"{place}.requests"),
        tokens=_whole_or_none(rest.pop("tokens", None), place=f"{place}.tokens"),
        seconds=_number(rest.pop("seconds", 60.0), place=f"{place}.seconds"),
        model=_texts(rest.pop("model", ()), place=f"{place}.model"),
        counts_refused=_flag(rest.pop("counts_refused", False), place=f"{place}.counts_refused"),
    )
    if rest or (limit.requests is None and limit.tokens is None):
        raise ConfigurationError(place, value, "give requests or tokens, and seconds, model, counts_refused if need be")
    return limit


def _usage(value: object, *, place: str) -> Mapping[str, int]:
    """Read the tokens of every answer; those not given are a quarter of the characters, and none of thinking."""
    given = _map(value, place=place)
    if set(given) - {"prompt_tokens", "completion_tokens", "thinking_tokens"}:
        raise ConfigurationError(place, value, "give prompt_tokens, completion_tokens, thinking_tokens only")
    return {name: _whole(count, place=f"{place}.{name}") for name, count in given.items()}


def _share(key: str) -> float:
    """Return a number from 0 to below 1 that depends on the key alone."""
    return int.from_bytes(sha256(key.encode()).digest()[:6]) / 2**48


def _number(value: object, *, place: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ConfigurationError(place, value, "give a number that is not negative")
    return float(value)


def _whole(value: object, *, place: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigurationError(place, value, "give a whole number")
    return value


def _whole_or_none(value: object, *, place: str) -> int | None:
    return None if value is None else _whole(value, place=place)


def _flag(value: object, *, place: str) -> bool:
    if not isinstance(value, bool):
        raise ConfigurationError(place, value, "give true or false")
    return value


def _wholes(value: object, *, place: str) -> list[int]:
    several = value if isinstance(value, list | tuple) else [value]
    return [_whole(each, place=place) for each in several]


def _texts(value: object, *, place: str) -> tuple[str, ...]:
    several: Sequence[Any] = value if isinstance(value, list | tuple) else [value]
    if not all(isinstance(each, str) for each in several):
        raise ConfigurationError(place, value, "give a string or a list of strings")
    return tuple(several)


def _map(value: object, *, place: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigurationError(place, value, "give an object")
    return value


def _text_map(value: object, *, place: str) -> dict[str, str]:
    given = _map(value, place=place)
    if not all(isinstance(each, str) for each in given.values()):
        raise ConfigurationError(place, value, "give an object of strings")
    return dict(given)
