"""The verifier in the browser, in a real one, against the verifier of the command line: both accept and refuse the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.browser import verification_vectors as vectors
from tests.browser.watched_page import Watch
from tests.conclave_fixture import RunningServer, running_server

_SEED = 20261121

# Each gives the indexes of the cases that are accepted; whatever is thrown and is no refusal fails the test.
_VERDICTS = """async ([kind, text]) => {
  const verify = await import("/static/verify.js");
  const bytes = (hex) => Uint8Array.from(hex.match(/../g) ?? [], (digits) => parseInt(digits, 16));
  const check = {
    inclusion: (each) => verify.verifyInclusion({index: BigInt(each.index), size: BigInt(each.size), leaf: bytes(each.leaf),
      root: bytes(each.root), hashes: each.hashes}),
    consistency: (each) => verify.verifyConsistency({first: BigInt(each.first), second: BigInt(each.second),
      firstRoot: bytes(each.firstRoot), secondRoot: bytes(each.secondRoot), hashes: each.hashes}),
    checkpoint: async (each) => verify.openCheckpoint(each.note, await verify.parseKey(each.vkey)),
    key: (each) => verify.parseKey(each.vkey),
    entry: (each) => verify.parseEntry(each.entry),
  }[kind];
  const accepted = [];
  for (const [place, each] of JSON.parse(text).entries()) {
    try {
      await check(each);
      accepted.push(place);
    } catch (error) {
      if (!(error instanceof verify.Refused)) throw new Error(`${each.what}: ${error.stack}`);
    }
  }
  return accepted;
}"""


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_server() as running:
        yield running


@pytest.fixture(scope="module")
def page(server: RunningServer, chromium: Browser) -> Iterator[Page]:
    with chromium.new_context() as context:
        page = context.new_page()
        origin = f"http://127.0.0.1:{server.port}"
        watch = Watch(page, origin=origin)
        page.goto(f"{origin}/record")
        yield page
        assert watch.faults == []


def _compare(page: Page, kind: str, cases: list[dict[str, Any]]) -> None:
    accepted = set(page.evaluate(_VERDICTS, [kind, vectors.as_script(cases)]))
    differing = [
        (case["what"], "accepted" if place in accepted else "refused")
        for place, case in enumerate(cases)
        if (place in accepted) != case["accepted"]
    ]
    assert differing == []
    assert all(case["accepted"] for case in cases if case["genuine"])


def test_inclusion_proofs_are_accepted_and_refused_as_by_the_command_line(page: Page) -> None:
    cases = list(vectors.inclusion_cases(seed=_SEED))
    assert len(cases) > 5_000
    tampered = [case["what"] for case in cases if case["accepted"] and not case["genuine"]]
    assert all("tree" in what for what in tampered), tampered
    _compare(page, "inclusion", cases)


def test_consistency_proofs_are_accepted_and_refused_as_by_the_command_line(page: Page) -> None:
    cases = list(vectors.consistency_cases(seed=_SEED))
    assert len(cases) > 1_500
    _compare(page, "consistency", cases)


def test_checkpoints_are_accepted_and_refused_as_by_the_command_line(page: Page) -> None:
    cases = list(vectors.checkpoint_cases(seed=_SEED))
    assert len([case for case in cases if not case["accepted"]]) > 300
    _compare(page, "checkpoint", cases)


def test_only_the_pinned_key_opens_a_checkpoint(page: Page) -> None:
    cases = list(vectors.key_cases(seed=_SEED))
    assert [case["what"] for case in cases if case["accepted"] and not case["genuine"]] == []
    _compare(page, "checkpoint", cases)


def test_only_a_well_formed_key_of_a_log_can_be_pinned(page: Page) -> None:
    cases = [{**case, "accepted": case["well_formed"]} for case in vectors.key_cases(seed=_SEED)]
    assert {"another hash", "a witness's algorithm"} <= {case["what"] for case in cases if not case["accepted"]}
    _compare(page, "key", cases)


def test_entries_are_accepted_and_refused_as_by_the_command_line(page: Page) -> None:
    _compare(page, "entry", list(vectors.entry_cases(seed=_SEED)))


def test_a_hash_has_one_spelling(page: Page) -> None:
    leaf = "00" * 32
    odd = [
        "ab" * 31,
        "AB" * 32,
        "ab" * 32 + "\n",
        " " + "ab" * 32,
        "0x" + "ab" * 31,
        "zz" * 32,
        "",
        None,
        7,
        ["ab" * 32],
    ]
    found = page.evaluate(
        """async ([leaf, odd]) => {
          const verify = await import("/static/verify.js");
          const bytes = new Uint8Array(32);
          const refused = [];
          for (const hashes of [...odd.map((each) => [each]), null, {}, "ab", undefined]) {
            try {
              await verify.verifyInclusion({index: 0n, size: 2n, leaf: bytes, root: bytes, hashes});
              refused.push("accepted");
            } catch (error) {
              refused.push(error instanceof verify.Refused && /hash/.test(error.message) ? "refused" : String(error.stack));
            }
          }
          return refused;
        }""",
        [leaf, odd],
    )
    assert found == ["refused"] * (len(odd) + 4)
