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


def read(raw: bytes) -> DeliberationRequest:
    return DeliberationRequest.read(read_strict_json(raw))


@settings(max_examples=400, derandomize=True, deadline=None)
@given(BODIES)
def test_any_document_is_run_or_refused(body: dict[str, Any]) -> None:
    raw = json.dumps(body).encode()
    try:
        specification = read(raw).specification(FileRosterSource())
    except REFUSALS:
        return
    specification.check()


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
