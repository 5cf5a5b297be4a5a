"""Calls: what is sent, what an answer means, and when the same is asked again."""

from __future__ import annotations

import json
from typing import Any

import pytest

from api.rest.examples import EXAMPLES
from conclave_client import calls
from conclave_client.answer import Head
from conclave_client.errors import (
    ConflictError,
    ConnectionLostError,
    ForbiddenError,
    HaltedError,
    InvalidError,
    NotFoundError,
    OversizedAnswerError,
    ProtocolViolationError,
    RedirectRefusedError,
    RefusedError,
    TooManyError,
    UnauthenticatedError,
    UnavailableError,
    UnusableArgumentError,
    WaitTimeoutError,
)
from conclave_client.exchange import Call, Lost
from conclave_client.records import Pool
from tests.unit.conclave_client.scripted import CUT, REFUSED, Answered, FarEnd, answered, refused, sent_document

POOL = {"capacity": 72, "active": 0, "available": 72, "waiting": 0}
ENDED = EXAMPLES["Deliberation"]
RUNNING = {**ENDED, "status": "running"}
QUEUED = answered({**ENDED, "status": "queued"}, status=202)


def ask_for_pool(far: FarEnd, **settings: Any) -> Pool:
    return far.carry_out(calls.pool().plan(far.exchange(**settings)))


def test_a_question_is_sent_under_the_same_key_until_its_answer_arrives() -> None:
    far = FarEnd([CUT, refused(409, "idempotency-in-progress"), refused(503, "service-stopping"), REFUSED, QUEUED])
    call = calls.deliberate("Why?", options=["a", "b"])
    assert far.carry_out(call.plan(far.exchange())).status == "queued"
    assert len({asked.headers["Idempotency-Key"] for asked in far.asked}) == 1
    assert {asked.body for asked in far.asked} == {far.asked[0].body}
    assert far.pauses == [0.2, 0.5, 1.0, 2.0]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", float("nan")),
        ("quorum", float("inf")),
        ("metadata", {"who": {"a", "set"}}),
        ("limits", {"deadline_s": float("nan")}),
        ("context", b"bytes"),
    ],
    ids=["nan", "infinity", "set", "within", "bytes"],
)
def test_a_term_that_no_json_holds_is_named_and_nothing_is_sent(name: str, value: Any) -> None:
    far = FarEnd([QUEUED])
    with pytest.raises(UnusableArgumentError, match=name) as raised:
        far.carry_out(calls.deliberate("Why?", **{name: value}).plan(far.exchange()))
    assert raised.value.name == name
    assert far.asked == []


def test_a_term_without_an_end_is_named_and_nothing_is_sent() -> None:
    far = FarEnd([QUEUED])
    endless: dict[str, Any] = {}
    endless["itself"] = endless
    with pytest.raises(UnusableArgumentError, match="metadata"):
        far.carry_out(calls.deliberate("Why?", metadata=endless).plan(far.exchange()))
    assert far.asked == []


def test_a_body_is_one_json_document_whatever_its_texts_hold() -> None:
    far = FarEnd([QUEUED])
    question, metadata = 'A "quoted" {text}, \u2028 and \\', {'k"': "v\n"}
    far.carry_out(calls.deliberate(question, options=["ä", ""], metadata=metadata).plan(far.exchange()))
    body = far.asked[0].body
    assert body is not None
    document = json.loads(body)
    assert (document["question"], document["metadata"], document["answer"]["options"]) == (
        question,
        metadata,
        ["ä", ""],
    )


def test_two_questions_have_two_keys() -> None:
    assert calls.deliberate("Why?").headers != calls.deliberate("Why?").headers


def test_the_key_is_sent_and_shown_nowhere() -> None:
    far = FarEnd([answered(POOL)])
    exchange = far.exchange(key="secret-1")
    far.carry_out(calls.pool().plan(exchange))
    assert far.asked[0].headers["Authorization"] == "Bearer secret-1"
    assert "secret-1" not in repr(exchange) + repr(far.asked[0])


def test_nothing_is_packed_because_nothing_could_be_counted_then() -> None:
    far = FarEnd([answered(POOL)])
    ask_for_pool(far)
    assert far.asked[0].headers["Accept-Encoding"] == "identity"
    with pytest.raises(ProtocolViolationError, match="packed"):
        ask_for_pool(FarEnd([answered(POOL, content_encoding="gzip")]))


@pytest.mark.parametrize("status", [429, 503])
def test_no_try_comes_sooner_than_the_server_asked(status: int) -> None:
    slug = {429: "queue-full", 503: "dependency-unavailable"}[status]
    far = FarEnd([refused(status, slug, retry_after="5")] * 2 + [answered(POOL)])
    ask_for_pool(far)
    assert far.pauses == [5.0, 5.0]


def test_a_date_to_come_back_at_is_read_by_the_clock_of_the_server() -> None:
    dates = {"date": "Sat, 21 Nov 2026 21:00:00 GMT", "retry_after": "Sat, 21 Nov 2026 21:00:07 GMT"}
    far = FarEnd([refused(503, "dependency-unavailable", **dates), answered(POOL)])
    ask_for_pool(far)
    assert far.pauses == [7.0]


def test_a_pause_longer_than_patience_is_not_begun() -> None:
    far = FarEnd([refused(503, "record-mismatch", retry_after="60")])
    with pytest.raises(UnavailableError) as raised:
        ask_for_pool(far)
    assert (raised.value.retry_after_s, far.pauses) == (60.0, [])


def test_patience_ends_with_the_last_refusal() -> None:
    far = FarEnd([refused(429, "queue-full", retry_after="4", detail="100 are queued.")])
    with pytest.raises(TooManyError, match="100 are queued"):
        ask_for_pool(far, patience_s=10.0)
    assert far.pauses == [4.0, 4.0]


def test_without_patience_everything_is_tried_once() -> None:
    far = FarEnd([CUT])
    with pytest.raises(ConnectionLostError):
        ask_for_pool(far, patience_s=0.0)
    assert len(far.asked) == 1


def test_a_halt_is_not_waited_for() -> None:
    far = FarEnd([refused(503, "system-halted", retry_after="1")])
    with pytest.raises(HaltedError):
        far.carry_out(calls.deliberate("Why?").plan(far.exchange()))
    assert len(far.asked) == 1


@pytest.mark.parametrize("call", [calls.recount("d-1", "threshold"), calls.halt("x")])
def test_what_must_not_be_done_twice_is_not_asked_for_again_in_doubt(call: Call[Any]) -> None:
    for doubtful in (CUT, refused(503, "dependency-unavailable")):
        far = FarEnd([doubtful])
        with pytest.raises((ConnectionLostError, UnavailableError)):
            far.carry_out(call.plan(far.exchange()))
        assert len(far.asked) == 1


def test_a_run_is_asked_for_again_in_doubt_under_the_same_key() -> None:
    far = FarEnd([CUT, refused(503, "dependency-unavailable"), answered(EXAMPLES["Run"], status=202)])
    assert far.carry_out(calls.start_run("swarm").plan(far.exchange())).kind == "pantheon"
    assert len({asked.headers["Idempotency-Key"] for asked in far.asked}) == 1
    assert len(far.asked) == 3


@pytest.mark.parametrize("key", ["", "two\nlines", "k" * 256, "schlüssel"])
def test_a_key_that_no_header_can_carry_is_refused_before_anything_is_sent(key: str) -> None:
    with pytest.raises(UnusableArgumentError, match="idempotency_key"):
        calls.start_run("swarm", idempotency_key=key)


def test_what_was_not_done_is_asked_for_again() -> None:
    far = FarEnd([REFUSED, refused(429, "too-many-runs"), answered(EXAMPLES["Run"], status=202)])
    assert far.carry_out(calls.start_run("pantheon").plan(far.exchange())).kind == "pantheon"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, RefusedError),
        (401, UnauthenticatedError),
        (403, ForbiddenError),
        (404, NotFoundError),
        (409, ConflictError),
        (413, RefusedError),
        (422, InvalidError),
        (500, RefusedError),
    ],
)
def test_each_refusal_is_an_error_of_its_kind_and_final(status: int, kind: type[RefusedError]) -> None:
    far = FarEnd([refused(status, "some-problem", detail="because")])
    with pytest.raises(RefusedError, match="because") as raised:
        ask_for_pool(far)
    assert (type(raised.value), raised.value.status, raised.value.slug) == (kind, status, "some-problem")
    assert len(far.asked) == 1


def test_a_refusal_names_each_bad_field() -> None:
    errors = [{"pointer": "/answer/options", "detail": "has 1"}, {"pointer": "/seed", "detail": "is no number"}, "?"]
    problem = {"type": "urn:conclave:problem:invalid-specification", "errors": errors, "state": 7, "new": {"field": 1}}
    far = FarEnd([answered(problem, status=422, media_type="application/problem+json")])
    with pytest.raises(InvalidError, match="/answer/options: has 1; /seed: is no number") as raised:
        ask_for_pool(far)
    assert [found.pointer for found in raised.value.errors] == ["/answer/options", "/seed"]
    assert raised.value.problem.document["new"] == {"field": 1}


@pytest.mark.parametrize("body", [b"<html>Bad gateway</html>", b"[]", b"\xff", b"[" * 100_000, b""])
def test_somebody_in_between_refuses_in_words_of_its_own(body: bytes) -> None:
    far = FarEnd([answered(body, status=404, media_type="application/json")])
    with pytest.raises(NotFoundError, match="no reason given"):
        ask_for_pool(far)


@pytest.mark.parametrize(
    "reply",
    [
        answered(b"<html></html>", media_type="text/html"),
        answered(b"<html></html>"),
        answered(b"[]"),
        answered(b"\xff\xfe"),
        answered(POOL, media_type="text/html"),
        answered({**POOL, "more": float("nan")}),
        answered(b"[" * 200_000),
        answered(b"1" * 10_000),
        answered({**POOL, "active": "3"}),
        answered({**POOL, "active": True}),
        answered({"capacity": 72}),
        answered(POOL, status=206),
        answered(POOL, status=202),
    ],
)
def test_an_answer_of_something_else_is_none(reply: Answered) -> None:
    far = FarEnd([reply])
    with pytest.raises(ProtocolViolationError):
        ask_for_pool(far)
    assert len(far.asked) == 1


def test_what_is_wrong_with_an_answer_is_said_without_repeating_it() -> None:
    far = FarEnd([answered({**ENDED, "outcome": {**ENDED["outcome"], "margin": "secret"}})])
    with pytest.raises(ProtocolViolationError, match="/outcome/margin") as raised:
        far.carry_out(calls.get("d-1").plan(far.exchange()))
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_an_error_that_does_not_say_where_to(status: int) -> None:
    far = FarEnd([answered(b"", status=status, location="http://evil.example/")])
    with pytest.raises(RedirectRefusedError) as raised:
        ask_for_pool(far, key="secret-1")
    assert len(far.asked) == 1
    assert "evil" not in str(raised.value)


def test_an_endless_answer_is_cut_at_the_bound() -> None:
    far = FarEnd([Answered(Head(200, {"content-type": "application/json"}), [b" " * 100] * 1000)])
    with pytest.raises(OversizedAnswerError):
        ask_for_pool(far, max_answer_bytes=1000)
    assert len(far.reading) == 1000 - 11


@pytest.mark.parametrize("length", ["1001", "9" * 400])
def test_an_answer_that_announces_too_much_is_not_read_at_all(length: str) -> None:
    far = FarEnd([answered(POOL, content_length=length)])
    with pytest.raises(OversizedAnswerError):
        ask_for_pool(far, max_answer_bytes=1000)
    assert len(far.reading) == 1


def test_an_answer_that_drips_is_given_up_after_the_time_for_answers() -> None:
    far = FarEnd([Answered(Head(200, {"content-type": "application/json"}), [b" "] * 1000)], seconds_a_read=1.0)
    with pytest.raises(ConnectionLostError, match="too slowly"):
        ask_for_pool(far, patience_s=0.0, answer_timeout_s=10.0)
    assert far.now == 11.0


def test_a_wait_looks_more_seldom_the_longer_it_takes() -> None:
    far = FarEnd([answered(RUNNING)] * 60 + [answered(ENDED)])
    assert far.carry_out(calls.wait("d-1").plan(far.exchange())).has_ended
    assert far.pauses == sorted(far.pauses)
    assert (far.pauses[0], far.pauses[-1]) == (0.1, 2.0)


def test_a_wait_ends_exactly_in_time_and_says_how_things_stand() -> None:
    far = FarEnd([answered(RUNNING)])
    with pytest.raises(WaitTimeoutError) as raised:
        far.carry_out(calls.wait("d-1", timeout_s=7.5).plan(far.exchange()))
    assert far.now == pytest.approx(7.5)
    assert raised.value.status == "running"


def test_a_wait_goes_on_over_lost_connections() -> None:
    far = FarEnd([answered(RUNNING), CUT, REFUSED, refused(503, "service-stopping"), answered(ENDED)])
    assert far.carry_out(calls.wait("d-1").plan(far.exchange())).has_ended


def test_asking_holds_the_answer_first_and_looks_then() -> None:
    far = FarEnd([QUEUED, answered(RUNNING), answered(ENDED)])
    found = far.carry_out(calls.ask("Why?", agents=9, timeout_s=20.0).plan(far.exchange()))
    assert found.has_ended
    assert [asked.url.partition("/v1/")[2] for asked in far.asked] == [
        "deliberations?wait=20",
        f"deliberations/{ENDED['id']}",
        f"deliberations/{ENDED['id']}",
    ]
    assert far.asked[0].timeout_s == 80.0


def test_pages_are_asked_for_as_they_are_needed() -> None:
    first = answered({"items": [ENDED, ENDED], "next_cursor": "c/1"})
    far = FarEnd([first, CUT, answered({"items": [ENDED], "next_cursor": None})])
    far.carry_out(calls.list_deliberations(search="city cars", page_size=2).plan(far.exchange()))
    assert len(far.emitted) == 3
    assert far.asked[0].url.endswith("?search=city+cars&limit=2")
    assert far.asked[-1].url.endswith("?search=city+cars&limit=2&cursor=c%2F1")


def test_a_list_that_goes_round_in_circles_is_left() -> None:
    far = FarEnd([answered({"items": [], "next_cursor": "c"})])
    with pytest.raises(ProtocolViolationError, match="same"):
        far.carry_out(calls.list_runs().plan(far.exchange()))


def test_not_being_ready_is_an_answer() -> None:
    far = FarEnd([answered({**EXAMPLES["Readiness"], "status": "stopping"}, status=503, retry_after="2")])
    assert not far.carry_out(calls.readiness().plan(far.exchange())).is_ready


def test_a_body_is_strict_json() -> None:
    far = FarEnd([answered(EXAMPLES["Quote"])])
    far.carry_out(calls.quote("Why? \ud83d\ude80", seed=7).plan(far.exchange()))
    assert sent_document(far.asked[0]) == {"question": "Why? \U0001f680", "seed": 7}
    with pytest.raises(ValueError, match="JSON"):
        far.carry_out(calls.quote("Why?", quorum=float("nan")).plan(far.exchange()))
    assert json.loads(far.asked[0].body or b"") is not None


def test_a_loss_before_anything_was_sent_is_no_doubt() -> None:
    far = FarEnd([Lost("cannot be reached", sent=False)])
    with pytest.raises(ConnectionLostError) as raised:
        ask_for_pool(far, patience_s=0.0)
    assert not raised.value.sent
    assert "may have received" not in str(raised.value)
