"""Fills in a ballot for any request: the JSON schema it carries says which, the hash of its prompt says what."""

import json
import re
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

DEEPEST_SCHEMA = 24
REASONS = (
    "The benefits reach most people and the costs stay bounded.",
    "It can be undone later, which the alternatives cannot.",
    "Those who would bear the cost were not asked.",
    "The evidence is thin, so the smaller step is wiser.",
    "Experience elsewhere points the same way.",
    "Fairness to those with the least choice decides it.",
    "What is measured today will not matter in ten years.",
    "Upkeep is where such plans fail, and this one has a plan.",
)
JSON_LIST = re.compile(r'\[\s*"(?:[^"\\\n]|\\.)*"(?:\s*,\s*"(?:[^"\\\n]|\\.)*")+\s*\]')
BULLET = re.compile(r"^\s*(?:[-*]|\d{1,2}[.)])\s+(\S.*?)\s*$", re.MULTILINE)
RANKING = re.compile(r"\brank", re.IGNORECASE)


def ballot_content(
    *,
    schema: Mapping[str, Any] | None,
    text: str,
    prompt_sha256: str,
    seed: int,
    weights: Mapping[str, float],
) -> str:
    """Return the JSON text of a ballot that fits `schema`; the same seed and prompt give the same ballot.

    Without a schema the options are looked for in `text`, first as a JSON list of strings, then as bullets after the
    word "options"; without those the answer is a sentence. `weights` maps an option (`null` for none) to its share.
    """
    random = Random(int(prompt_sha256, 16) + (seed << 256))
    options = [] if schema is not None else options_in(text)
    if schema is None:
        answer: dict[str, Any] = {"enum": options} if options else {"type": "string"}
        schema = {
            "type": "object",
            "properties": {"answer": answer, "confidence": {"type": "number"}, "reasoning": {"type": "string"}},
        }
    writer = _BallotWriter(random=random, weights=weights, definitions=schema, text=text)
    return json.dumps(writer.value(schema, name="", depth=0))


def options_in(text: str) -> list[str]:
    """Return the options that a prompt without a schema seems to offer, in its order; empty when it names none."""
    for found in JSON_LIST.finditer(text):
        try:
            return [str(option) for option in json.loads(found.group())]
        except ValueError:
            continue
    _, heading, rest = text.lower().partition("options")
    return BULLET.findall(text[len(text) - len(rest) :]) if heading else []


class _BallotWriter:
    """Walks a JSON schema and gives one value that satisfies it, as far as ballots need."""

    def __init__(
        self, *, random: Random, weights: Mapping[str, float], definitions: Mapping[str, Any], text: str
    ) -> None:
        self._random = random
        self._weights = weights
        self._definitions = definitions
        self._text = text

    def value(self, schema: object, *, name: str, depth: int) -> Any:
        if not isinstance(schema, Mapping) or depth > DEEPEST_SCHEMA:
            return None
        schema = self._resolved(schema)
        if "const" in schema:
            return schema["const"]
        if isinstance(schema.get("enum"), list) and schema["enum"]:
            return self._one_of(schema["enum"], name=name)
        for keyword in ("anyOf", "oneOf"):
            if isinstance(schema.get(keyword), list) and schema[keyword]:
                return self._branch(schema, schema[keyword], name=name, depth=depth)
        kind = self._kind(schema, name=name)
        if kind == "object":
            properties = schema.get("properties")
            return (
                {key: self.value(inner, name=key, depth=depth + 1) for key, inner in properties.items()}
                if isinstance(properties, Mapping)
                else {}
            )
        if kind == "array":
            return self._list(schema, name=name, depth=depth)
        if kind in ("number", "integer"):
            return self._number(schema, name=name, whole=kind == "integer")
        if kind == "boolean":
            return self._random.random() < 0.5
        return self._string(schema, name=name) if kind == "string" else None

    def _resolved(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        """Follow local references and lay `allOf` together; a reference elsewhere leaves the schema as it is."""
        for _ in range(DEEPEST_SCHEMA):
            reference = schema.get("$ref")
            if isinstance(reference, str) and reference.startswith("#/"):
                target: Any = self._definitions
                for step in reference[2:].split("/"):
                    target = (
                        target.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(target, dict) else None
                    )
                rest = {key: value for key, value in schema.items() if key != "$ref"}
                schema = {**target, **rest} if isinstance(target, dict) else rest
            elif isinstance(schema.get("allOf"), list):
                merged = {key: value for key, value in schema.items() if key != "allOf"}
                for part in schema["allOf"]:
                    merged = {**(part if isinstance(part, dict) else {}), **merged}
                schema = merged
            else:
                break
        return schema

    def _branch(self, schema: Mapping[str, Any], branches: Sequence[Any], *, name: str, depth: int) -> Any:
        outer = {key: value for key, value in schema.items() if key not in ("anyOf", "oneOf")}
        resolved = [self._resolved(branch) for branch in branches if isinstance(branch, Mapping)]
        substantial = [branch for branch in resolved if not _is_null(branch)]
        if not substantial or (len(substantial) < len(resolved) and self._abstains(name)):
            return None
        # A choice is sometimes written as one `const` a branch, so those branches are the options.
        if len(substantial) > 1 and all("const" in branch for branch in substantial):
            return self._one_of([branch["const"] for branch in substantial], name=name)
        return self.value({**outer, **substantial[0]}, name=name, depth=depth + 1)

    def _kind(self, schema: Mapping[str, Any], *, name: str) -> str:
        kind = schema.get("type")
        if isinstance(kind, list):
            kinds = [each for each in kind if each != "null"]
            return "null" if not kinds or ("null" in kind and self._abstains(name)) else str(kinds[0])
        if isinstance(kind, str):
            return kind
        for keyword, implied in (("properties", "object"), ("items", "array"), ("minimum", "number")):
            if keyword in schema:
                return implied
        return "string"

    def _abstains(self, name: str) -> bool:
        share = self._weights.get("null", 0.0)
        if name != "answer" or share <= 0:
            return False
        others = sum(self._weights.values()) - share
        return self._random.random() * (share + others) < share

    def _one_of(self, options: Sequence[Any], *, name: str) -> Any:
        substantial = [option for option in options if option is not None]
        if not substantial or (len(substantial) < len(options) and self._abstains(name)):
            return None
        return self._random.choices(substantial, weights=self._shares(substantial, name=name))[0]

    def _shares(self, options: Sequence[Any], *, name: str) -> list[float]:
        if name == "answer" and self._weights:
            shares = [max(0.0, self._weights.get(str(option), 0.0)) for option in options]
            if sum(shares) > 0:
                return shares
        return [1.0] * len(options)

    def _list(self, schema: Mapping[str, Any], *, name: str, depth: int) -> list[Any]:
        items = schema.get("items")
        items = self._resolved(items) if isinstance(items, Mapping) else {}
        options = items.get("enum")
        if not isinstance(options, list):
            length = _whole(schema.get("minItems"), 1)
            return [self.value(items, name=name, depth=depth + 1) for _ in range(length)]
        remaining = [option for option in options if option is not None]
        most = min(len(remaining), _whole(schema.get("maxItems"), len(remaining)))
        least = schema.get("minItems")
        if least is None and RANKING.search(self._text):
            # Strict schemas may not say `minItems`, and a ranking that lacks some of its options would be no ballot.
            least = most
        least = min(most, _whole(least, 1))
        chosen: list[Any] = []
        for _ in range(self._random.randint(least, most)):
            option = self._random.choices(remaining, weights=self._shares(remaining, name=name))[0]
            remaining.remove(option)
            chosen.append(option)
        return chosen

    def _number(self, schema: Mapping[str, Any], *, name: str, whole: bool) -> float | int:
        low, high = _bounds(schema, default_high=1.0 if name == "confidence" else 100.0)
        given = self._weighted_text(name)
        value = self._random.uniform(low, high)
        if given is not None:
            try:
                value = float(given)
            except ValueError:
                value = low
        step = schema.get("multipleOf")
        if isinstance(step, int | float) and step > 0:
            value = round(value / step) * step
        return int(min(max(round(value), low), high)) if whole else min(max(round(value, 2), low), high)

    def _string(self, schema: Mapping[str, Any], *, name: str) -> str:
        value = self._weighted_text(name) or self._random.choice(REASONS)
        return value[: _whole(schema.get("maxLength"), len(value))].ljust(_whole(schema.get("minLength"), 0), ".")

    def _weighted_text(self, name: str) -> str | None:
        options = [option for option in self._weights if option != "null"]
        if name != "answer" or not options:
            return None
        return str(self._random.choices(options, weights=self._shares(options, name=name))[0])


def _is_null(schema: Mapping[str, Any]) -> bool:
    return schema.get("type") == "null" or ("const" in schema and schema["const"] is None)


def _whole(value: object, default: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else default


def _bounds(schema: Mapping[str, Any], *, default_high: float) -> tuple[float, float]:
    """Return the inclusive range, an exclusive bound moved inward by a hundredth of the range or less."""

    def bound(keyword: str) -> float | None:
        value = schema.get(keyword)
        return value if isinstance(value, int | float) and not isinstance(value, bool) else None

    low, high = bound("minimum"), bound("maximum")
    open_low, open_high = bound("exclusiveMinimum"), bound("exclusiveMaximum")
    start = low if low is not None else open_low
    stop = high if high is not None else open_high
    if start is None:
        start = 0.0 if stop is None or stop > 0 else stop - default_high
    if stop is None:
        stop = max(default_high, start + default_high)
    inset = 1.0 if schema.get("type") == "integer" else min(0.01, (stop - start) / 100)
    return start + (inset if start == open_low else 0), stop - (inset if stop == open_high else 0)
