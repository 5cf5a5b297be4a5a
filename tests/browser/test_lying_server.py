"""A browser that has pinned a key, and a server that lies to it: about an entry, a proof, a checkpoint or the past of its log."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import rfc8785
from playwright.sync_api import Browser, Page

from tests import witness_specimens as specimens
from tests.browser.lying_server import Document, LyingServer
from tests.browser.watched_page import Watch
from tests.conclave_fixture import RunningServer, running_server
from tests.witness_formats import LogKey, leaf_of
from tests.witness_log import Log

_KEY = LogKey()
_VERIFY = """async ([name, vkey, index, options]) => {
  const verify = await import("/static/verify.js");
  const given = {pinnedKey: vkey, ...options};
  const report = name === "head" ? await verify.verifyHead(given) : await verify.verifyEntry(index, given);
  return {result: report.result, step: report.step, words: report.words, steps: report.steps.map(({name, result}) => [name, result])};
}"""
_FORGET = "() => localStorage.clear()"
_FAILED = ("Failed to load resource",)


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_server() as running:
        yield running


@pytest.fixture(scope="module")
def opened(server: RunningServer, chromium: Browser) -> Iterator[Page]:
    with chromium.new_context() as context:
        page = context.new_page()
        origin = f"http://127.0.0.1:{server.port}"
        watch = Watch(page, origin=origin, allowed=_FAILED)
        page.goto(f"{origin}/record")
        yield page
        assert watch.faults == []


@pytest.fixture
def page(opened: Page) -> Iterator[Page]:
    opened.evaluate(_FORGET)
    yield opened
    opened.unroute_all()


def _log(*, key: LogKey = _KEY) -> Log:
    return Log(key).tell(specimens.choice(), specimens.tie())


def _head(page: Page, vkey: str | None = _KEY.vkey) -> dict[str, Any]:
    found: dict[str, Any] = page.evaluate(_VERIFY, ["head", vkey, 0, {}])
    return found


def _entry(page: Page, index: object, vkey: str | None = _KEY.vkey, **options: object) -> dict[str, Any]:
    found: dict[str, Any] = page.evaluate(_VERIFY, ["entry", vkey, index, options])
    return found


def _index_of(log: Log, kind: str) -> int:
    return next(index for index, entry in enumerate(log.entries) if json.loads(entry)["type"] == kind)


def test_every_entry_of_an_honest_log_is_verified(page: Page) -> None:
    log = _log()
    LyingServer(page, log)
    for index in (0, 1, 2, 7, 8, 15, 16, len(log.entries) - 1):
        assert _entry(page, index)["result"] == "verified"


def test_each_step_of_a_check_is_named(page: Page) -> None:
    LyingServer(page, _log())
    names = ["pinned key", "checkpoint", "consistency", "entry", "leaf hash", "inclusion proof"]
    results = ["verified", "verified", "noted", "verified", "verified", "verified"]
    assert _entry(page, 3)["steps"] == [list(each) for each in zip(names, results, strict=True)]


def test_an_entry_that_says_anything_else_is_refused(page: Page) -> None:
    log = _log()
    index = _index_of(log, "agent.ended")
    liar = LyingServer(page, log)
    genuine = json.loads(log.entries[index])
    lies: list[Document] = [{**genuine, name: f"{value}x"} for name, value in genuine.items()]
    lies += [{name: value for name, value in genuine.items() if name != left_out} for left_out in genuine]
    lies += [{**genuine, "state": "failed"}, {**genuine, "answer": 2}, {**genuine, "more": True}]
    for place, lie in enumerate(lies):
        text = rfc8785.dumps(lie)
        # Whether the server names the leaf of its lie or the true one.
        leaf, step = (
            (leaf_of(text), "inclusion proof"),
            (leaf_of(log.entries[index]), "leaf hash"),
        )[place % 2]
        liar.say("entries", entry=text.decode(), leaf_hash=leaf.hex())
        found = _entry(page, index)
        assert found["result"] == "refused", lie
        assert found["step"] == (step if "type" in lie else "entry")


@pytest.mark.parametrize(
    "change",
    [
        lambda text: f" {text}",
        lambda text: text.replace('"at"', '"AT"'),
        lambda text: json.dumps(json.loads(text)),
        lambda text: text[:-1],
        lambda _: None,
        lambda _: "",
    ],
    ids=["a blank", "a name", "not canonical", "cut", "none", "empty"],
)
def test_an_entry_that_is_written_otherwise_is_refused(page: Page, change: Any) -> None:
    liar = LyingServer(page, _log())
    liar.rewrite("entries", "entry", change)
    assert _entry(page, 4)["result"] == "refused"


def test_another_entry_of_the_same_log_is_refused(page: Page) -> None:
    log = _log()
    liar = LyingServer(page, log)
    other = log.entries[5]
    liar.say("entries", entry=other.decode(), leaf_hash=leaf_of(other).hex())
    assert _entry(page, 4)["step"] == "inclusion proof"
    liar.say("entries", index=5)
    assert _entry(page, 4)["step"] == "entry"


def test_an_entry_beyond_the_checkpoint_is_refused(page: Page) -> None:
    log = _log()
    liar = LyingServer(page, log)
    liar.note = log.checkpoint(9)
    assert _entry(page, 8)["result"] == "verified"
    found = _entry(page, 9)
    assert (found["result"], found["step"]) == ("refused", "entry")


def test_a_page_that_was_given_another_text_than_the_log_has_is_refused(page: Page) -> None:
    log = _log()
    LyingServer(page, log)
    assert _entry(page, 4, text=log.entries[4].decode())["result"] == "verified"
    assert _entry(page, 4, text=log.entries[5].decode())["result"] == "refused"


def test_a_proof_that_leads_elsewhere_is_refused(page: Page) -> None:
    liar = LyingServer(page, _log())
    changes: list[Any] = [
        lambda hashes: hashes[::-1],
        lambda hashes: hashes[:-1],
        lambda hashes: hashes[1:],
        lambda hashes: [*hashes, hashes[-1]],
        lambda hashes: [hashes[1], hashes[0], *hashes[2:]],
        lambda hashes: ["00" * 32, *hashes[1:]],
        lambda hashes: [each.upper() for each in hashes],
        lambda _: [],
        lambda _: None,
        lambda hashes: hashes * 20,
    ]
    for change in changes:
        liar.rewrite("inclusion", "hashes", change)
        found = _entry(page, 10)
        assert (found["result"], found["step"]) == ("refused", "inclusion proof")


def test_a_checkpoint_that_the_pinned_key_did_not_sign_is_refused(page: Page) -> None:
    log = _log()
    liar = LyingServer(page, log)
    genuine = log.checkpoint()
    for note in (
        log.checkpoint(key=LogKey(seed=b"\x08" * 32)),
        log.checkpoint(origin="other.example/log"),
        genuine.replace(f"\n{len(log.entries)}\n", f"\n{len(log.entries) - 1}\n"),
        genuine[:-1],
        "",
    ):
        liar.note = note or "\n"
        found = _entry(page, 4)
        assert (found["result"], found["step"]) == ("refused", "checkpoint"), note
    assert page.evaluate("localStorage.length") == 0


def test_another_key_than_the_one_that_signs_is_refused(page: Page) -> None:
    LyingServer(page, _log())
    for vkey in (LogKey(seed=b"\x08" * 32).vkey, LogKey("other.example/log").vkey):
        assert _entry(page, 4, vkey)["step"] == "checkpoint"
    assert _entry(page, 4, _KEY.vkey.replace("+", "+0", 1))["step"] == "pinned key"


def test_without_a_key_nothing_is_checked(page: Page) -> None:
    liar = LyingServer(page, _log())
    found = _entry(page, 4, None)
    assert (found["result"], liar.asked) == ("unable", [])


def test_a_log_that_grew_is_verified_and_remembered(page: Page) -> None:
    log = _log()
    liar = LyingServer(page, log)
    for size in (1, 2, 3, 7, 8, 8, 13, len(log.entries)):
        liar.note = log.checkpoint(size)
        assert _head(page)["result"] == "verified"
    assert liar.asked.count("consistency") == 6
    assert page.evaluate("key => localStorage.getItem('conclave.seen ' + key)", _KEY.vkey) == log.checkpoint()


def test_a_log_that_grew_out_of_nothing_is_verified(page: Page) -> None:
    log = _log()
    liar = LyingServer(page, log)
    liar.note = log.checkpoint(0)
    assert _head(page)["result"] == "verified"
    liar.be_honest()
    assert _entry(page, 0)["result"] == "verified"


def test_a_log_that_was_rolled_back_is_refused_and_what_was_seen_stays(page: Page) -> None:
    log = _log()
    liar = LyingServer(page, log)
    assert _head(page)["result"] == "verified"
    liar.note = log.checkpoint(9)
    for found in (_head(page), _entry(page, 4)):
        assert (found["result"], found["step"]) == ("refused", "consistency")
        assert "rolled back" in found["words"]
    liar.be_honest()
    assert _head(page)["result"] == "verified"


def _forked() -> tuple[Log, Log]:
    """Two logs of one key that differ in entry 4, and have the same size."""
    one, other = _log(), _log()
    other.entries[4] = rfc8785.dumps({**json.loads(other.entries[4]), "at": "2026-11-21T11:00:00.000000Z"})
    return one, other


def test_a_log_that_was_forked_at_the_same_size_is_refused(page: Page) -> None:
    one, other = _forked()
    LyingServer(page, one)
    assert _head(page)["result"] == "verified"
    page.unroute_all()
    LyingServer(page, other)
    found = _head(page)
    assert (found["result"], found["step"]) == ("refused", "consistency")
    assert "forked" in found["words"]


def test_a_log_that_was_forked_and_grew_is_refused_whatever_proof_it_gives(page: Page) -> None:
    one, other = _forked()
    liar = LyingServer(page, one)
    liar.note = one.checkpoint(10)
    assert _head(page)["result"] == "verified"
    page.unroute_all()
    liar = LyingServer(page, other)
    honest_roots: Document = {"first_root": one.root(10).hex(), "second_root": other.root().hex()}
    for change in (
        {},
        honest_roots,
        {**honest_roots, "hashes": []},
        {**honest_roots, "hashes": ["00" * 32] * 4},
        {**honest_roots, "hashes": None},
    ):
        liar.say("consistency", **change)
        found = _head(page)
        assert (found["result"], found["step"]) == ("refused", "consistency")
        assert "forked" in found["words"]


def test_logs_of_two_keys_are_remembered_apart(page: Page) -> None:
    small = LogKey("small.example/log")
    liar = LyingServer(page, _log())
    assert _head(page)["result"] == "verified"
    liar.note = _log(key=small).checkpoint(3)
    assert _head(page, small.vkey)["result"] == "verified"
    liar.be_honest()
    assert _head(page)["result"] == "verified"


_TWO_AT_A_TIME = """async (vkey) => {
  const { verifyHead } = await import("/static/verify.js");
  const [real, done] = [window.fetch, Promise.withResolvers()];
  const waits = async () => {
    while (!(await navigator.locks.query()).pending.length) await new Promise((resolve) => setTimeout(resolve, 1));
  };
  let asked = 0;
  window.fetch = async (path, options) => {
    const answer = await real(path, options);
    // The first check has its checkpoint and goes on once the second one is through, or waits for the first.
    if (path.endsWith("/checkpoint") && asked++ === 0) await Promise.race([done.promise, waits()]);
    return answer;
  };
  try {
    const first = verifyHead({pinnedKey: vkey});
    const second = verifyHead({pinnedKey: vkey}).finally(done.resolve);
    return [(await first).result, (await second).result];
  } finally {
    window.fetch = real;
  }
}"""


def test_of_two_checks_at_the_same_time_the_larger_checkpoint_is_remembered(page: Page) -> None:
    log = _log()
    LyingServer(page, log).sizes = iter([5, 9])
    assert page.evaluate(_TWO_AT_A_TIME, _KEY.vkey) == ["verified", "verified"]
    assert page.evaluate("key => localStorage.getItem('conclave.seen ' + key)", _KEY.vkey) == log.checkpoint(9)


@pytest.mark.parametrize("kind", ["checkpoint", "entries", "inclusion"])
def test_a_server_that_gives_no_answer_or_a_broken_one_verifies_nothing(page: Page, kind: str) -> None:
    liar = LyingServer(page, _log())
    liar.status[kind] = 503
    assert _entry(page, 4)["result"] == "unable"
    liar.be_honest()
    for body in (b"", b"\xff\xfe", b"null", b"[]", b"{", b'"text"', b"{}"):
        liar.body[kind] = body
        assert _entry(page, 4)["result"] == "refused", body
    liar.is_away = True
    assert _entry(page, 4)["result"] == "unable"


@pytest.mark.parametrize("index", [-1, 10**6, "7", "x", 1.5, None])
def test_an_index_that_is_none_verifies_nothing(page: Page, index: object) -> None:
    LyingServer(page, _log())
    assert _entry(page, index)["result"] == (
        "verified" if index == "7" else "refused" if isinstance(index, int) else "unable"
    )
