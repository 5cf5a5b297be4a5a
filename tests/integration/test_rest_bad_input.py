"""No document makes the server answer 5xx, repeat what it was sent or accept a part of it; what is only odd text comes back as it was."""

from __future__ import annotations

import json

import pytest

from tests.conclave_fixture import RunningServer
from tests.integration.rest_refusals import MARKER, post_refused, with_fields

MALFORMED = {
    "nothing": b"",
    "blanks": b" \n\t ",
    "a word": MARKER.encode(),
    "an open object": f'{{"question": "{MARKER}"'.encode(),
    "a comma too many": f'{{"question": "{MARKER}",}}'.encode(),
    "two documents": f'{{"question": "{MARKER}"}} {{}}'.encode(),
    "NaN": f'{{"question": "{MARKER}", "seed": NaN}}'.encode(),
    "Infinity": f'{{"question": "{MARKER}", "seed": Infinity}}'.encode(),
    "minus Infinity": f'{{"question": "{MARKER}", "limits": {{"deadline_s": -Infinity}}}}'.encode(),
    "the same name twice": f'{{"question": "a", "question": "{MARKER}"}}'.encode(),
    "the same name twice, once escaped": f'{{"question": "a", "qu\\u0065stion": "{MARKER}"}}'.encode(),
    "the same name twice, deep inside": f'{{"question": "{MARKER}", "metadata": {{"a": "b", "a": "c"}}}}'.encode(),
    "no UTF-8": f'{{"question": "{MARKER} \xff"}}'.encode("latin-1"),
    "a surrogate in UTF-8": f'{{"question": "{MARKER} '.encode() + b'\xed\xa0\x80"}',
    "a byte order mark": b"\xef\xbb\xbf" + with_fields(),
    "UTF-16": json.dumps({"question": MARKER}).encode("utf-16"),
    "UTF-32": json.dumps({"question": MARKER}).encode("utf-32"),
    "a raw NUL": f'{{"question": "{MARKER} \x00"}}'.encode(),
    "a raw line feed": f'{{"question": "{MARKER} \n"}}'.encode(),
    "33 levels": with_fields(metadata=json.loads('{"a":' * 32 + "1" + "}" * 32)),
    "a hundred thousand open lists": b"[" * 100_000,
    "a hundred thousand open objects": b'{"question":' * 80_000,
    "half a million lists in lists": b"[" * 500_000 + b"]" * 500_000,
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED.keys())
def test_what_is_not_json_is_400(server: RunningServer, body: bytes) -> None:
    answer = post_refused(server, body)
    assert (answer.status, answer.problem) == (400, "malformed-json")


UNUSABLE: dict[str, tuple[bytes, str]] = {
    "a list": (b'["' + MARKER.encode() + b'"]', ""),
    "a text": (f'"{MARKER}"'.encode(), ""),
    "a number": (b"1", ""),
    "null": (b"null", ""),
    "no question": (b"{}", "/question"),
    "an empty question": (b'{"question": ""}', "/question"),
    "a blank question": (b'{"question": " \\t\\n\\u2003"}', "/question"),
    "a question that is a number": (b'{"question": 1}', "/question"),
    "a question that is null": (b'{"question": null}', "/question"),
    "a question that is a list": (f'{{"question": ["{MARKER}"]}}'.encode(), "/question"),
    "a question of 32 KiB and a byte": (json.dumps({"question": MARKER + "x" * 32 * 1024}).encode(), "/question"),
    "an escaped NUL": (f'{{"question": "{MARKER}\\u0000"}}'.encode(), "/question"),
    "a lone high surrogate": (f'{{"question": "{MARKER}\\ud800"}}'.encode(), "/question"),
    "a lone low surrogate": (f'{{"question": "{MARKER}\\udc00 x"}}'.encode(), "/question"),
    "surrogates in the wrong order": (f'{{"question": "{MARKER}\\udc00\\ud800"}}'.encode(), "/question"),
    "a NUL in a name": (f'{{"question": "{MARKER}", "metadata": {{"\\u0000": "x"}}}}'.encode(), "/metadata"),
    "a lone surrogate in a name": (f'{{"question": "{MARKER}", "metadata": {{"\\ud800": "x"}}}}'.encode(), "/metadata"),
    "a lone surrogate in a value": (b'{"question": "?", "metadata": {"k": "\\ud800"}}', "/metadata/k"),
    "1e400": (f'{{"question": "{MARKER}", "seed": 1e400}}'.encode(), "/seed"),
    "minus 1e400": (f'{{"question": "{MARKER}", "limits": {{"deadline_s": -1e400}}}}'.encode(), "/limits/deadline_s"),
    "a whole number of 5,000 digits": (b'{"question": "?", "seed": ' + b"9" * 5000 + b"}", "/seed"),
    "a whole number of a million digits": (b'{"question": "?", "seed": ' + b"9" * 1_000_000 + b"}", "/seed"),
    "400 digits for seconds": (
        b'{"question": "?", "limits": {"deadline_s": ' + b"9" * 400 + b"}}",
        "/limits/deadline_s",
    ),
    "400 digits for attempts": (
        b'{"question": "?", "limits": {"max_attempts": ' + b"9" * 400 + b"}}",
        "/limits/max_attempts",
    ),
    "a float for a whole number": (with_fields(seed=1.5), "/seed"),
    "true for a number": (with_fields(limits={"deadline_s": True}), "/limits/deadline_s"),
    "a text for a number": (with_fields(limits={"max_attempts": "2"}), "/limits/max_attempts"),
    "no attempt": (with_fields(limits={"max_attempts": 0}), "/limits/max_attempts"),
    "negative money": (with_fields(limits={"max_cost_usd": -0.01}), "/limits/max_cost_usd"),
    "a temperature of 3": (with_fields(sampling={"temperature": 3}), "/sampling/temperature"),
    "a quorum of 1.5": (with_fields(quorum={"min_answered_fraction": 1.5}), "/quorum/min_answered_fraction"),
    "an unknown field": (with_fields(model="x"), "/model"),
    "an unknown field inside": (with_fields(limits={"timeout": 3}), "/limits/timeout"),
    "an unknown kind of answer": (with_fields(answer={"kind": MARKER}), "/answer/kind"),
    "an unknown protocol": (with_fields(protocol={"kind": MARKER}), "/protocol/kind"),
    "an unknown rule": (with_fields(rule={"kind": MARKER}), "/rule/kind"),
    "a rule that does not count such answers": (with_fields(rule={"kind": "median"}), "/rule/kind"),
    "a choice without options": (with_fields(answer={"kind": "choice"}), "/answer/options"),
    "one option": (with_fields(answer={"kind": "choice", "options": ["a"]}), "/answer/options"),
    "51 options": (with_fields(answer={"kind": "choice", "options": [str(n) for n in range(51)]}), "/answer/options"),
    "5,000 options": (with_fields(answer={"kind": "choice", "options": ["x"] * 5000}), "/answer/options"),
    "options that look alike": (
        with_fields(answer={"kind": "choice", "options": ["a", "Ａ\u200b"]}),
        "/answer/options/1",
    ),
    "an option that cannot be seen": (
        with_fields(answer={"kind": "choice", "options": ["a", "\u200b"]}),
        "/answer/options/1",
    ),
    "a question that cannot be seen": (json.dumps({"question": "\u200b"}).encode(), "/question"),
    "a question of a bell": (json.dumps({"question": "\u0007"}).encode(), "/question"),
    "a context that cannot be seen": (with_fields(context="\u202e\ufeff"), "/context"),
    "a persona that cannot be seen": (
        with_fields(agents={"members": [{"id": MARKER, "persona": "\u2060"}]}),
        "/agents/members/0/persona",
    ),
    "an id that cannot be seen": (
        with_fields(agents={"members": [{"id": "\u3164", "persona": MARKER}]}),
        "/agents/members/0/id",
    ),
    "options on a verdict": (with_fields(answer={"kind": "verdict", "options": ["a", "b"]}), "/answer/options"),
    "no agents": (with_fields(agents={"count": 0}), "/agents/count"),
    "73 agents": (with_fields(agents={"count": 73}), "/agents/count"),
    "an unknown roster": (with_fields(agents={"roster": MARKER}), "/agents/roster"),
    "a roster that is a path": (with_fields(agents={"roster": "../../etc/passwd"}), "/agents/roster"),
    "members and a roster": (
        with_fields(agents={"roster": "archons", "members": [{"id": "a", "persona": "p"}]}),
        "/agents",
    ),
    "no members": (with_fields(agents={"members": []}), "/agents/members"),
    "73 members": (
        with_fields(agents={"members": [{"id": f"a{n}", "persona": "p"} for n in range(73)]}),
        "/agents/members",
    ),
    "the same member twice": (
        with_fields(agents={"members": [{"id": MARKER, "persona": "p"}] * 2}),
        "/agents/members/1/id",
    ),
    "a member without a persona": (with_fields(agents={"members": [{"id": MARKER}]}), "/agents/members/0/persona"),
    "a persona of 8 KiB and a byte": (
        with_fields(agents={"members": [{"id": "a", "persona": MARKER + "x" * 8192}]}),
        "/agents/members/0/persona",
    ),
    "an id with a control character": (
        with_fields(agents={"members": [{"id": f"{MARKER}\x1b[31m", "persona": "p"}]}),
        "/agents/members/0/id",
    ),
    "metadata that is no text": (with_fields(metadata={"a": 1}), "/metadata/a"),
    "33 entries of metadata": (with_fields(metadata={str(n): "x" for n in range(33)}), "/metadata"),
    "a seed of 65 bits": (with_fields(seed=2**64), "/seed"),
    "more values than anyone needs": (with_fields(metadata={"a": [0] * 30_000}), ""),
}


@pytest.mark.parametrize(("body", "pointer"), UNUSABLE.values(), ids=UNUSABLE.keys())
def test_what_cannot_be_run_is_422_and_points_at_the_field(server: RunningServer, body: bytes, pointer: str) -> None:
    answer = post_refused(server, body)
    assert answer.status == 422
    assert pointer in {error["pointer"] for error in answer.document["errors"]}


def test_every_bad_field_is_pointed_at(server: RunningServer) -> None:
    answer = post_refused(server, with_fields(seed="x", limits={"max_attempts": "y"}, surprise=1))
    assert {error["pointer"] for error in answer.document["errors"]} == {"/seed", "/limits/max_attempts", "/surprise"}


EACH = {
    "values beside a shape": (
        {
            "question": "Q",
            "agents": {"count": 0},
            "quorum": {"min_answered_fraction": 2},
            "answer": {"kind": "choice", "options": ["a"]},
            "limits": {"max_attempts": 11},
            "sampling": {"temperature": 3},
        },
        [
            "/agents/count",
            "/answer/options",
            "/quorum/min_answered_fraction",
            "/limits/max_attempts",
            "/sampling/temperature",
        ],
    ),
    "a long question beside a seed": ({"question": "x" * 40_000, "seed": "x"}, ["/seed", "/question"]),
    "three members of four": (
        {
            "question": "",
            "agents": {
                "members": [
                    {"id": "a", "persona": "x" * 9_000},
                    {"id": "b"},
                    {"id": "", "persona": "p"},
                    {"id": "d", "persona": "p"},
                ]
            },
        },
        ["/agents/members/1/persona", "/question", "/agents/members/0/persona", "/agents/members/2/id"],
    ),
    "no question": ({"seed": 2**63 - 1, "context": " "}, ["/question", "/context"]),
    "an unknown roster hides nothing": (
        {"question": "", "agents": {"roster": MARKER}, "limits": {"max_attempts": 0}},
        ["/question", "/limits/max_attempts", "/agents/roster"],
    ),
    "members too many and bad": (
        {"question": "Q", "agents": {"members": [{"id": f"a{n}", "persona": "p" * (n > 0)} for n in range(73)]}},
        ["/agents/members", "/agents/members/0/persona"],
    ),
    "options too few and bad": (
        {"question": "Q", "answer": {"kind": "choice", "options": [""]}, "rule": {"kind": "median", "fraction": 2}},
        ["/answer/options", "/answer/options/0", "/rule/kind", "/rule/fraction"],
    ),
    "an option that is no text keeps its place": (
        {"question": "Q", "answer": {"kind": "choice", "options": [1, "a", "A"]}},
        ["/answer/options/0", "/answer/options/2"],
    ),
    "nothing is said of what an unknown kind would take": (
        {"question": "", "answer": {"kind": "x", "options": ["a"]}, "rule": {"kind": "median"}},
        ["/answer/kind", "/question"],
    ),
    "an answer that is no object": ({"question": "Q", "answer": 5, "rule": {"kind": "median"}}, ["/answer"]),
    "an unknown protocol": (
        {"question": "Q", "protocol": {"kind": "x", "rounds": 99}, "seed": 2.5},
        ["/protocol/kind", "/seed"],
    ),
    "metadata by name": (
        {"question": "Q", "metadata": {"a/b": "", "c~d": " ", "e f": 5, "g": "\u200b", "ok": "x", " ": "x"}},
        ["/metadata/e f", "/metadata/a~1b", "/metadata/c~0d", "/metadata/g", "/metadata"],
    ),
    "a member that is no object": (
        {"question": "Q", "agents": {"members": ["x", {"id": "a", "persona": ""}]}},
        ["/agents/members/0", "/agents/members/1/persona"],
    ),
}


@pytest.mark.parametrize(("body", "pointers"), EACH.values(), ids=EACH.keys())
def test_bad_shapes_and_bad_values_are_pointed_at_together(
    server: RunningServer, body: dict[str, object], pointers: list[str]
) -> None:
    answer = post_refused(server, json.dumps(body).encode())
    assert (answer.status, answer.problem) == (422, "invalid-specification")
    assert [error["pointer"] for error in answer.document["errors"]] == pointers


def test_a_refusal_of_a_quote_names_each_field_too(server: RunningServer) -> None:
    answer = server.ask("POST", "/v1/quotes", {"question": "", "seed": "x"})
    assert [error["pointer"] for error in answer.document["errors"]] == ["/seed", "/question"]


def test_a_flood_of_unknown_fields_gets_a_short_answer(server: RunningServer) -> None:
    answer = post_refused(server, with_fields(**{f"f{number}": 0 for number in range(15_000)}))
    assert answer.document["further_errors"] > 10_000


@pytest.mark.parametrize(
    "content_type", ["", "text/plain", "application/xml", "multipart/form-data", "application/json; charset=utf-16"]
)
def test_what_is_not_sent_as_json_is_415(server: RunningServer, content_type: str) -> None:
    answer = post_refused(server, with_fields(), content_type=content_type)
    assert (answer.status, answer.problem) == (415, "unsupported-media-type")


HARMLESS = {
    "markup": "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "SQL": "'; DROP TABLE deliberations; --",
    "controls": "bell \x07 escape \x1b[2J delete \x7f",
    "right to left": "\u202egnihtemos\u202c",
    "astral": "🏛️ 👩‍👩‍👧 𝔘𝔫𝔦𝔠𝔬𝔡𝔢",
    "a template": "{{7*7}} ${jndi:ldap://x} %s %n {0.__class__}",
    "a very long word": "x" * 32_000,
    "separators": "a\u2028b\u2029c\r\ndata: forged\n\nevent: forged",
    "noncharacters": "\ufffe\uffff\U0010ffff",
}


@pytest.mark.parametrize("text", HARMLESS.values(), ids=HARMLESS.keys())
def test_text_is_data_and_comes_back_as_it_was(server: RunningServer, text: str) -> None:
    body = {
        "question": text,
        "answer": {"kind": "choice", "options": [text[:200], "another"]},
        "agents": {"members": [{"id": "a", "persona": text[:2000]}]},
        "metadata": {text[:200]: text[:200]},
    }
    answer = server.post(body, query="?wait=30")
    assert answer.status == 200
    assert answer.document["question"] == text
    assert answer.document["answer"]["options"][0] == text[:200]
    assert answer.document["metadata"] == {text[:200]: text[:200]}
    with server.events(f"{answer.headers['location']}/events") as stream:
        assert b"\nevent: forged" not in stream.read()
