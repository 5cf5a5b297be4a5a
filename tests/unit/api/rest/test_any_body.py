"""Whatever stands in a body, it becomes a deliberation that can be run or a refusal that is on purpose."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from api.requests import DeliberationRequest
from api.rest.strict_json import MalformedJsonError, UnusableValuesError, read_strict_json
from domain.errors.deliberation import InvalidSpecificationError
from infrastructure.rosters.file_roster_source import FileRosterSource

ROSTERS = FileRosterSource()
REFUSALS = (MalformedJsonError, UnusableValuesError, InvalidSpecificationError)
NAMES = st.sampled_from(
    [
        *(
            "question",
            "context",
            "answer",
            "protocol",
            "rule",
            "agents",
            "quorum",
            "limits",
            "sampling",
            "metadata",
            "seed",
        ),
        *(
            "kind",
            "options",
            "min",
            "max",
            "unit",
            "wave_size",
            "fraction",
            "roster",
            "count",
            "members",
            "id",
            "persona",
        ),
        *("model", "min_answered_fraction", "agent_timeout_s", "deadline_s", "max_attempts", "max_total_tokens"),
        *("max_cost_usd", "temperature", "max_output_tokens", "", "\x00", "a/b~c"),
    ]
)
TEXTS = st.one_of(
    st.text(max_size=8),
    st.text(st.characters(categories=["Cs", "Cc", "Cf"]), max_size=3),
    st.sampled_from(
        ["verdict", "choice", "score", "number", "probability", "text", "poll", "median", "threshold", "archons"]
    ),
)
NUMBERS = st.one_of(
    st.integers(),
    st.floats(),
    st.sampled_from([0, -1, 10**30, 10**400, 1e308, 5e-324, 2**63, -(2**63) - 1, 72, 73]),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=4)),
    max_leaves=12,
)
BODIES = st.dictionaries(NAMES, VALUES, max_size=6).map(lambda body: {"question": "?", **body})
VALID: dict[str, Any] = {
    "question": "?",
    "context": "c",
    "answer": {"kind": "score", "min": 0, "max": 10},
    "protocol": {"kind": "poll", "wave_size": 3},
    "rule": {"kind": "median", "fraction": None},
    "agents": {"members": [{"id": "a", "persona": "p", "model": "m"}, {"id": "b", "persona": "q"}]},
    "quorum": {"min_answered_fraction": 0.5},
    "limits": {"agent_timeout_s": 1, "deadline_s": 2, "max_attempts": 2, "max_total_tokens": 3, "max_cost_usd": 1.5},
    "sampling": {"temperature": 0.7, "max_output_tokens": 10},
    "metadata": {"k": "v"},
    "seed": 7,
}


def places(part: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Where a value stands in `part`, at any depth."""
    members = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ()
    return [found for step, member in members for found in [(*path, step), *places(member, (*path, step))]]


def with_value(part: Any, path: tuple[str | int, ...], value: Any) -> Any:
    """A copy of `part` in which `value` stands at `path`."""
    if not path:
        return value
    changed = part.copy()
    changed[path[0]] = with_value(part[path[0]], path[1:], value)
    return changed


NEARLY_VALID = st.builds(with_value, st.just(VALID), st.sampled_from(places(VALID)), VALUES)


def read(raw: bytes) -> DeliberationRequest:
    return DeliberationRequest.read(read_strict_json(raw), ROSTERS)


def pointers_of(body: Any) -> list[str]:
    """Where the problems are, none for a deliberation that can be run."""
    try:
        DeliberationRequest.read(body, ROSTERS).specification(ROSTERS)
    except InvalidSpecificationError as error:
        return [problem.pointer for problem in error.problems]
    return []


@settings(max_examples=400, derandomize=True, deadline=None)
@given(st.one_of(BODIES, NEARLY_VALID))
def test_any_document_is_run_or_refused(body: dict[str, Any]) -> None:
    raw = json.dumps(body).encode()
    try:
        specification = read(raw).specification(ROSTERS)
    except REFUSALS:
        return
    specification.check()


@settings(max_examples=200, derandomize=True, deadline=None)
@given(NEARLY_VALID)
def test_a_field_of_the_wrong_type_hides_no_value_that_is_off(body: Any) -> None:
    """Found alone and beside something unreadable are the same problems."""
    if not isinstance(body, dict):
        return
    assert sorted(pointers_of({**body, "surprise": 1})) == sorted([*pointers_of(body), "/surprise"])


def test_a_name_that_is_no_text_breaks_nothing() -> None:
    assert pointers_of({"question": "?", "metadata": {"\ud800": 5}}) == ["/metadata/\ufffd\ufffd\ufffd"]


def test_the_example_is_valid() -> None:
    read(json.dumps(VALID).encode()).specification(ROSTERS)


@settings(max_examples=400, derandomize=True, deadline=None)
@given(st.binary(max_size=64))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    try:
        read(raw)
    except REFUSALS:
        return


@settings(max_examples=400, derandomize=True, deadline=None)
@given(st.text('[]{}":,\\u0d8 1e+-.tfn\x00\ud800é', max_size=40))
def test_anything_that_nearly_is_json_is_read_or_refused(text: str) -> None:
    try:
        read(text.encode(errors="surrogatepass"))
    except REFUSALS:
        return
