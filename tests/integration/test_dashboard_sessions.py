"""Signing in over HTTP: what the cookie is, what it opens, what a change needs besides, and how it ends.

It is one file, because each test follows one cookie from the sign-in page on, by the same few steps.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator, Mapping
from http.client import HTTPResponse
from pathlib import Path
from urllib.parse import urlencode

import pytest

from api.rest.event_stream import SIGNED_OUT
from infrastructure.stubs.agent_orchestrator_stub import AgentOrchestratorStub
from tests.conclave_fixture import Answer, RunningServer, running_server

KEYS = "ann:observer:ann-secret-1,bob:operator:bob-secret-1,root:admin:root-secret-1"
QUESTION = {"question": "Shall we?", "agents": {"count": 2}}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture(scope="module")
def keyed() -> Iterator[RunningServer]:
    with running_server(keys=KEYS) as running:
        yield running


@pytest.fixture(scope="module")
def keyless() -> Iterator[RunningServer]:
    with running_server() as running:
        yield running


def sign_in(
    server: RunningServer, secret: str, *, target: str = "/ask", headers: Mapping[str, str] | None = None
) -> Answer:
    body = urlencode({"key": secret, "next": target}).encode()
    return server.ask("POST", "/sign-in", body, headers={**FORM, "Sec-Fetch-Site": "same-origin", **(headers or {})})


def cookie_of(answer: Answer) -> str:
    return answer.headers["set-cookie"].partition(";")[0]


def rest_of(stream: HTTPResponse) -> bytes:
    """What a stream says to its end, which has to come before it says that nothing happens."""
    said = b""
    while line := stream.readline():
        assert not line.startswith((b"event: alive", b": ping")), said
        said += line
    return said


def token_of(server: RunningServer, cookie: str) -> str:
    return str(server.ask("GET", "/session", headers={"Cookie": cookie}).document["csrf_token"])


def signed_in(server: RunningServer, name: str) -> dict[str, str]:
    """The headers of a change by that key's browser."""
    cookie = cookie_of(sign_in(server, f"{name}-secret-1"))
    return {"Cookie": cookie, "X-CSRF-Token": token_of(server, cookie)}


def test_a_known_key_gets_a_cookie_that_no_script_and_no_other_site_can_use(keyed: RunningServer) -> None:
    answer = sign_in(keyed, "bob-secret-1")
    assert (answer.status, answer.headers["location"]) == (303, "/ask")
    value, *flags = (part.strip().lower() for part in answer.headers["set-cookie"].split(";"))
    assert re.match("conclave_session_[0-9a-f]{16}=", value)
    assert set(flags) == {"httponly", "samesite=strict", "path=/", "max-age=43200"}
    assert "bob-secret-1" not in str(answer.headers)


def test_a_wrong_key_gets_no_cookie_and_is_told_so(keyed: RunningServer) -> None:
    answer = sign_in(keyed, "bob-secret-2", target="/archive?a=1")
    assert "set-cookie" not in answer.headers
    assert answer.status == 303
    page = keyed.ask("GET", answer.headers["location"])
    assert page.status == 200
    assert "not known here" in page.body.decode()
    assert 'name="next" value="/archive?a=1"' in page.body.decode()


@pytest.mark.parametrize("target", ["https://example.org/", "//example.org", "/\\example.org", "/\t/example.org"])
def test_a_sign_in_leads_to_no_other_site(keyed: RunningServer, target: str) -> None:
    assert sign_in(keyed, "bob-secret-1", target=target).headers["location"] == "/"


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://127.0.0.1"},
    ],
)
def test_another_sites_form_signs_nobody_in(keyed: RunningServer, headers: dict[str, str]) -> None:
    answer = sign_in(keyed, "bob-secret-1", headers=headers)
    assert (answer.status, answer.problem) == (403, "foreign-page")
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    ("origin", "status"), [("http://example.org", 403), ("null", 403), ("http://127.0.0.1:{port}", 303)]
)
def test_where_a_browser_says_nothing_of_the_site_its_origin_counts(
    keyed: RunningServer, origin: str, status: int
) -> None:
    body = urlencode({"key": "bob-secret-1"}).encode()
    headers = {**FORM, "Origin": origin.format(port=keyed.port)}
    assert keyed.ask("POST", "/sign-in", body, headers=headers).status == status


def test_a_form_that_is_too_large_is_not_read(keyed: RunningServer) -> None:
    assert keyed.ask("POST", "/sign-in", b"key=" + b"a" * 10_000, headers=FORM).status == 413


@pytest.mark.parametrize("body", [b"", b"key", b"key=%ff%fe", b"\xff\x00", b"a=1&" * 15, b"key=bob-secret-1&key=x"])
def test_a_form_that_says_no_key_signs_nobody_in(keyed: RunningServer, body: bytes) -> None:
    answer = keyed.ask("POST", "/sign-in", body, headers=FORM)
    assert answer.status == 303
    assert "set-cookie" not in answer.headers


def test_a_form_of_too_many_fields_is_refused(keyed: RunningServer) -> None:
    assert keyed.ask("POST", "/sign-in", b"a=1&" * 100, headers=FORM).status == 422


def test_a_page_without_a_session_leads_to_the_sign_in_and_back(keyed: RunningServer) -> None:
    answer = keyed.ask("GET", "/ask?a=1&b=%20")
    assert (answer.status, answer.headers["location"]) == (303, "/sign-in?next=/ask%3Fa%3D1%26b%3D%2520")
    page = keyed.ask("GET", answer.headers["location"]).body.decode()
    assert 'name="next" value="/ask?a=1&amp;b=%20"' in page


def test_a_part_of_a_page_without_a_session_sends_the_whole_page_there(keyed: RunningServer) -> None:
    answer = keyed.ask("GET", "/ask", headers={"HX-Request": "true"})
    assert (answer.status, answer.headers["hx-redirect"]) == (401, "/sign-in")


def test_programs_without_a_key_are_refused_as_before(keyed: RunningServer) -> None:
    answer = keyed.ask("GET", "/v1/pool", headers={"Accept": "text/html"})
    assert (answer.status, answer.problem) == (401, "unauthenticated")


def test_a_session_reads_what_its_key_reads(keyed: RunningServer) -> None:
    cookie = cookie_of(sign_in(keyed, "ann-secret-1"))
    assert keyed.ask("GET", "/v1/pool", headers={"Cookie": cookie}).status == 200
    page = keyed.ask("GET", "/ask", headers={"Cookie": cookie})
    assert page.status == 200
    assert "<bdi>ann</bdi>" in page.body.decode()


def test_a_wrong_bearer_is_not_made_good_by_a_cookie(keyed: RunningServer) -> None:
    cookie = cookie_of(sign_in(keyed, "bob-secret-1"))
    assert keyed.ask("GET", "/v1/pool", headers={"Cookie": cookie, "Authorization": "Bearer x"}).status == 401


def test_a_bearer_needs_no_token_also_beside_a_cookie(keyed: RunningServer) -> None:
    headers = {"Authorization": "Bearer bob-secret-1", "Cookie": cookie_of(sign_in(keyed, "ann-secret-1"))}
    assert keyed.post(QUESTION, headers=headers).status == 202


def every_change(server: RunningServer) -> list[tuple[str, str]]:
    paths = server.ask("GET", "/openapi.json").document["paths"]
    return [
        (method.upper(), re.sub(r"\{[^}]*\}", "some-id", path))
        for path, methods in paths.items()
        for method in methods
        if method in {"post", "put", "patch", "delete"}
    ]


def test_every_change_by_cookie_needs_the_sessions_token(keyed: RunningServer) -> None:
    headers = signed_in(keyed, "root")
    other = signed_in(keyed, "root")["X-CSRF-Token"]
    changes = every_change(keyed)
    assert len(changes) >= 8
    for method, path in changes:
        for token in (None, "", "x", other, headers["X-CSRF-Token"][:-1]):
            given = {"Cookie": headers["Cookie"], **({} if token is None else {"X-CSRF-Token": token})}
            answer = keyed.ask(method, path, {}, headers=given)
            assert (answer.status, answer.problem, method, path) == (403, "token-mismatch", method, path)


def test_with_its_token_a_session_changes_what_its_role_may(keyed: RunningServer) -> None:
    accepted = keyed.post(QUESTION, headers=signed_in(keyed, "bob"))
    assert accepted.status == 202
    place = accepted.headers["location"]
    assert keyed.ask("GET", place, headers={"Cookie": signed_in(keyed, "bob")["Cookie"]}).status == 200
    assert keyed.ask("GET", place, headers={"Cookie": signed_in(keyed, "ann")["Cookie"]}).status == 404


def test_an_observers_session_is_given_quotes_and_puts_no_question(keyed: RunningServer) -> None:
    headers = signed_in(keyed, "ann")
    assert keyed.ask("POST", "/v1/quotes", QUESTION, headers=headers).status == 200
    refused = keyed.post(QUESTION, headers=headers)
    assert (refused.status, refused.problem) == (403, "forbidden")
    page = keyed.ask("GET", "/ask", headers=headers).body.decode()
    assert 'id="ask"' not in page
    assert "role observer" in page


def test_an_operators_session_halts_nothing(keyed: RunningServer) -> None:
    refused = keyed.ask("POST", "/v1/halt", {"reason": "now"}, headers=signed_in(keyed, "bob"))
    assert (refused.status, refused.problem) == (403, "forbidden")


def test_after_sign_out_no_copy_of_the_cookie_is_of_use(keyed: RunningServer) -> None:
    headers = signed_in(keyed, "bob")
    body = urlencode({"csrf_token": headers["X-CSRF-Token"]}).encode()
    answer = keyed.ask("POST", "/sign-out", body, headers={**FORM, "Cookie": headers["Cookie"]})
    assert (answer.status, answer.headers["location"]) == (303, "/sign-in")
    assert "max-age=0" in answer.headers["set-cookie"].lower()
    assert keyed.ask("GET", "/v1/pool", headers={"Cookie": headers["Cookie"]}).status == 401
    assert keyed.post(QUESTION, headers=headers).status == 401


def test_nobody_is_signed_out_by_another_page(keyed: RunningServer) -> None:
    headers = signed_in(keyed, "bob")
    assert keyed.ask("POST", "/sign-out", b"csrf_token=x", headers={**FORM, "Cookie": headers["Cookie"]}).status == 403
    assert keyed.ask("GET", "/v1/pool", headers={"Cookie": headers["Cookie"]}).status == 200


def test_signing_in_anew_ends_the_session_before(keyed: RunningServer) -> None:
    before = signed_in(keyed, "ann")["Cookie"]
    after = cookie_of(sign_in(keyed, "bob-secret-1", headers={"Cookie": before}))
    assert keyed.ask("GET", "/v1/pool", headers={"Cookie": before}).status == 401
    assert keyed.ask("GET", "/session", headers={"Cookie": after}).document["name"] == "bob"


def test_whoever_is_signed_in_goes_on_from_the_sign_in_at_once(keyed: RunningServer) -> None:
    answer = keyed.ask("GET", "/sign-in?next=/archive", headers={"Cookie": signed_in(keyed, "ann")["Cookie"]})
    assert (answer.status, answer.headers["location"]) == (303, "/archive")


def test_whoever_wants_to_come_in_by_another_key_is_let_and_leaves_the_first_session(keyed: RunningServer) -> None:
    before = {"Cookie": signed_in(keyed, "ann")["Cookie"]}
    page = keyed.ask("GET", "/sign-in?other=yes&next=/ask", headers=before)
    assert page.status == 200
    assert "signed in as <bdi>ann</bdi>" in page.body.decode()
    wrong = sign_in(keyed, "nobody", headers=before)
    again = keyed.ask("GET", wrong.headers["location"], headers=before)
    assert (again.status, "not known here" in again.body.decode()) == (200, True)
    after = {"Cookie": cookie_of(sign_in(keyed, "bob-secret-1", headers=before))}
    assert keyed.ask("GET", "/session", headers=after).document["role"] == "operator"
    assert keyed.ask("GET", "/v1/pool", headers=before).status == 401


@pytest.mark.parametrize(
    ("path", "who", "role", "form"),
    [
        ("/ask", "ann", "operator", 'id="ask"'),
        ("/operations", "ann", "admin", 'id="halt-form"'),
        ("/operations", "bob", "admin", 'id="halt-form"'),
        ("/operations/runs", "ann", "operator", "data-run="),
    ],
)
def test_in_the_place_of_a_form_stands_who_may_use_it(
    keyed: RunningServer, path: str, who: str, role: str, form: str
) -> None:
    page = keyed.ask("GET", path, headers={"Cookie": signed_in(keyed, who)["Cookie"]}).body.decode()
    assert form not in page
    assert f"takes a key with the role {role}" in page
    assert f'href="/sign-in?other=yes&amp;next={path}"' in page
    allowed = keyed.ask("GET", path, headers={"Cookie": signed_in(keyed, "root")["Cookie"]}).body.decode()
    assert form in allowed
    assert "takes a key with the role" not in allowed


def test_the_page_of_what_runs_leads_whoever_may_not_cancel_it_to_another_key_and_back() -> None:
    hanging = [f"archon-{number}" for number in range(1, 73)]
    with running_server(keys=KEYS, orchestrator=AgentOrchestratorStub(hanging=hanging)) as server:
        headers = signed_in(server, "bob")
        own = server.post(QUESTION, headers=headers).document["id"]
        page = server.ask("GET", f"/deliberations/{own}", headers={"Cookie": headers["Cookie"]}).body.decode()
    assert "Cancelling takes a key with the role operator." in page
    assert f'href="/sign-in?other=yes&amp;next=/deliberations/{own}"' in page


@pytest.mark.parametrize("path", ["/v1/deliberations/{own}/events", "/room/feed?deliberation={own}", "/room/feed"])
def test_a_stream_ends_with_the_session_that_opened_it_and_with_no_other(path: str) -> None:
    hanging = [f"archon-{number}" for number in range(1, 73)]
    with running_server(keys=KEYS, orchestrator=AgentOrchestratorStub(hanging=hanging)) as server:
        headers = signed_in(server, "bob")
        own = server.post(QUESTION, headers=headers).document["id"]
        place = path.format(own=own)
        bearer = {"Authorization": "Bearer bob-secret-1", "Cookie": headers["Cookie"]}
        with (
            server.events(place, headers={"Cookie": headers["Cookie"]}) as ends,
            server.events(place, headers=bearer) as stays,
        ):
            assert ends.readline()
            body = urlencode({"csrf_token": headers["X-CSRF-Token"]}).encode()
            server.ask("POST", "/sign-out", body, headers={**FORM, "Cookie": headers["Cookie"]})
            assert rest_of(ends).endswith(SIGNED_OUT)
            server.ask("POST", f"/v1/deliberations/{own}/cancel", headers={"Authorization": "Bearer bob-secret-1"})
            said = b""
            while b"cancelled" not in said:
                line = stays.readline()
                assert line, said
                said += line
            assert b"signed-out" not in said


def test_a_sign_out_at_one_server_ends_the_streams_of_another_on_the_same_folder(tmp_path: Path) -> None:
    with running_server(keys=KEYS, data_dir=tmp_path) as first, running_server(keys=KEYS, data_dir=tmp_path) as second:
        headers = signed_in(second, "bob")
        with first.events("/room/feed", headers={"Cookie": headers["Cookie"]}) as stream:
            assert stream.readline()
            body = urlencode({"csrf_token": headers["X-CSRF-Token"]}).encode()
            second.ask("POST", "/sign-out", body, headers={**FORM, "Cookie": headers["Cookie"]})
            assert rest_of(stream).endswith(SIGNED_OUT)


def test_two_servers_of_one_host_keep_their_sessions_apart(keyed: RunningServer) -> None:
    with running_server(keys=KEYS) as other:
        here, there = (cookie_of(sign_in(server, "bob-secret-1")) for server in (keyed, other))
        both = {"Cookie": f"{here}; {there}"}
        assert here.partition("=")[0] != there.partition("=")[0]
        assert [server.ask("GET", "/v1/pool", headers=both).status for server in (keyed, other)] == [200, 200]
        token = token_of(other, f"{here}; {there}")
        gone = other.ask("POST", "/sign-out", urlencode({"csrf_token": token}).encode(), headers={**FORM, **both})
        assert gone.headers["set-cookie"].partition("=")[0] == there.partition("=")[0]
        assert [server.ask("GET", "/v1/pool", headers=both).status for server in (keyed, other)] == [200, 401]


def test_too_many_wrong_keys_make_even_the_right_one_wait() -> None:
    with running_server(keys=KEYS) as server:
        assert [sign_in(server, f"guess-{number}").status for number in range(10)] == [303] * 10
        answer = sign_in(server, "bob-secret-1")
        assert answer.status == 429
        assert 0 < int(answer.headers["retry-after"]) <= 60
        assert "set-cookie" not in answer.headers
        assert server.ask("GET", "/v1/pool", headers={"Authorization": "Bearer bob-secret-1"}).status == 200


def test_a_session_is_good_at_the_next_server_on_the_same_folder(tmp_path: Path) -> None:
    with running_server(keys=KEYS, data_dir=tmp_path) as first:
        headers = signed_in(first, "bob")
    with running_server(keys=KEYS, data_dir=tmp_path) as second:
        assert second.post(QUESTION, headers=headers).status == 202
    with running_server(keys="ann:observer:ann-secret-1", data_dir=tmp_path) as third:
        assert third.ask("GET", "/v1/pool", headers=headers).status == 401


def test_without_keys_a_page_brings_a_session_whose_changes_need_its_token(keyless: RunningServer) -> None:
    page = keyless.ask("GET", "/ask")
    cookie = {"Cookie": cookie_of(page)}
    found = re.search(r'name="csrf-token" content="([0-9a-f]{64})"', page.body.decode())
    assert found is not None
    refused = keyless.post(QUESTION, headers=cookie)
    assert (refused.status, refused.problem) == (403, "token-mismatch")
    assert keyless.post(QUESTION, headers={**cookie, "X-CSRF-Token": found[1]}).status == 202
    assert "set-cookie" not in keyless.ask("GET", "/ask", headers=cookie).headers


def test_without_keys_programs_go_on_without_session_and_token(keyless: RunningServer) -> None:
    assert keyless.post(QUESTION).status == 202
    assert keyless.post(QUESTION, headers={"Cookie": "conclave_session=of.another-server"}).status == 202


def test_without_keys_there_is_no_sign_in(keyless: RunningServer) -> None:
    assert keyless.ask("GET", "/sign-in?next=/ask").headers["location"] == "/ask"
    assert keyless.ask("POST", "/sign-in", b"key=x&next=/ask", headers=FORM).headers["location"] == "/ask"


def test_a_browser_is_told_in_a_page_what_is_not_there(keyless: RunningServer) -> None:
    page = keyless.ask("GET", "/nowhere", headers={"Accept": "text/html,*/*"})
    assert page.status == 404
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "Nothing is here" in page.body.decode()
    assert keyless.ask("GET", "/nowhere").problem == "not-found"
    assert keyless.ask("GET", "/v1/nowhere", headers={"Accept": "text/html"}).problem == "not-found"


@pytest.mark.parametrize("path", ["/ask", "/sign-in", "/nowhere", "/docs"])
def test_every_page_allows_itself_alone(keyed: RunningServer, path: str) -> None:
    headers = {"Accept": "text/html"} if path == "/sign-in" else {"Accept": "text/html", **signed_in(keyed, "bob")}
    policy = keyed.ask("GET", path, headers=headers).headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy
    assert "base-uri 'none'" in policy
    assert "frame-ancestors 'none'" in policy


def test_a_file_that_a_browser_has_is_not_sent_again(keyless: RunningServer) -> None:
    first = keyless.ask("GET", "/static/page.js")
    again = keyless.ask("GET", "/static/page.js", headers={"If-None-Match": first.headers["etag"]})
    assert (first.status, again.status, again.body) == (200, 304, b"")


def test_a_file_is_sent_packed_to_whoever_takes_that(keyless: RunningServer) -> None:
    plain = keyless.ask("GET", "/static/page.css", headers={"Accept-Encoding": "gzip;q=0, br"})
    packed = keyless.ask("GET", "/static/page.css", headers={"Accept-Encoding": "br, gzip"})
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(packed.body) == plain.body
    assert packed.headers["etag"] != plain.headers["etag"]
    assert packed.headers["vary"] == "Accept-Encoding"


@pytest.mark.parametrize(
    "path", ["../application.py", "..%2fapplication.py", "vendor", "vendor/", "", "vendor/README.md"]
)
def test_no_other_file_is_sent(keyless: RunningServer, path: str) -> None:
    assert keyless.ask("GET", f"/static/{path}").status == 404
