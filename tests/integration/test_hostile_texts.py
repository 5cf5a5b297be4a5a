"""Hostile texts in every place that takes a text: given back as they were, and shown as text wherever they are shown."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote

import pytest
from markdown_it import MarkdownIt

from tests.command_line import commands
from tests.conclave_fixture import RunningServer
from tests.hostile_chamber import Carried, HostileChamber, batches, harmless, hostile_chamber
from tests.hostile_texts import CATEGORIES, HIT, MAX_BYTES, hostile_texts, texts_by_category
from tests.html_reader import HtmlReader

TEXTS = hostile_texts()
PARTS = list(batches(TEXTS))
# Of the answers in agents' own words.
SPOKEN = list(batches(TEXTS, 72))
ADDRESSES = (
    "href",
    "src",
    "action",
    "formaction",
    "data",
    "poster",
    "srcset",
    "cite",
    "hx-get",
    "hx-post",
    "xlink:href",
)
# What an attribute may say that depends on the text: labels, data for scripts, and sizes of bars.
FREE = frozenset({"aria-label", "value", "content", "datetime", "width", "x", "y", "d", "transform", "points"})
JOINERS = "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"
OUTSIDE = frozenset({"Cc", "Cf", "Co", "Cs", "Cn", "Zl", "Zp"})
BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
NUMBERED = re.compile(r"\b[0-9a-f]{8}-[0-9a-f-]{27}\b|[0-9]+")
WARNING = re.compile(r'<p class="(?:notice )?warn(?:ing)?">.*?</p>')


@pytest.fixture(scope="module")
def hostile() -> Iterator[HostileChamber]:
    """Every text in a deliberation that chooses among them."""
    with hostile_chamber() as chamber:
        for part in PARTS:
            chamber.choose(part)
        yield chamber


@pytest.fixture(scope="module")
def twin() -> Iterator[HostileChamber]:
    """The same deliberations of harmless texts."""
    with hostile_chamber() as chamber:
        for part in PARTS:
            chamber.choose([harmless(place, text) for place, text in enumerate(part)])
        yield chamber


@pytest.fixture(scope="module")
def spoken() -> Iterator[HostileChamber]:
    """Every text as what an agent answers in its own words."""
    with hostile_chamber() as chamber:
        for part in SPOKEN:
            chamber.answer(part)
        yield chamber


def page(server: RunningServer, path: str) -> str:
    answered = server.ask("GET", path, headers={"Accept": "text/html"})
    assert answered.status == 200, (path, answered.body[:300])
    return answered.body.decode()


def skeleton(text: str) -> list[tuple[object, ...]]:
    """The elements of a page in order, with their attributes, but for what an attribute says of a text or a deliberation.

    Warnings are left out: whether some agents used the same words is for the texts to say.
    """
    found: list[tuple[object, ...]] = []
    for tag, attributes in HtmlReader(WARNING.sub("", text)).tags:
        said = {
            name: "" if name in FREE or name.startswith("data-") else NUMBERED.sub("", value or "")
            for name, value in attributes.items()
        }
        found.append((tag, *sorted(said.items())))
    return found


def raw(text: str) -> set[str]:
    """Characters of a page that nobody sees, or that turn what is seen; the very bytes of an entry are a script's."""
    reader = HtmlReader(text)
    said = [
        value for _, attributes in reader.tags for name, value in attributes.items() if name != "data-text" and value
    ]
    return {
        character
        for character in "".join([reader.words, *said])
        if unicodedata.category(character) in OUTSIDE and character not in JOINERS + "\n"
    }


def addresses(text: str) -> set[str]:
    return {
        value or ""
        for _, attributes in HtmlReader(text).tags
        for name, value in attributes.items()
        if name in ADDRESSES
    }


def assert_alike(hostile: HostileChamber, twin: HostileChamber, path: str) -> None:
    """`path` names deliberations by `{n}`; the pages of both have the same elements, and no character that is not to be there."""
    shown, plain = (
        page(each.server, re.sub(r"\{(\d+)\}", lambda found, each=each: each.asked[int(found[1])].id, path))  # type: ignore[misc]
        for each in (hostile, twin)
    )
    assert raw(shown) == set(), path
    assert_same(skeleton(shown), skeleton(plain), path)


def assert_same(shown: Sequence[Any], plain: Sequence[Any], path: str) -> None:
    odd = next((pair for pair in zip(shown, plain, strict=False) if pair[0] != pair[1]), None)
    assert odd is None, (path, odd)
    assert len(shown) == len(plain), (path, (list(shown) + list(plain))[min(len(shown), len(plain)) :][:3])


def test_there_are_enough_texts_of_every_category_and_no_two_are_the_same() -> None:
    found = texts_by_category()
    assert len(TEXTS) >= 676
    assert len(set(TEXTS)) == len(TEXTS)
    assert list(found) == list(CATEGORIES)
    assert len(found) == 26
    assert {name: texts for name, texts in found.items() if len(texts) < 20} == {}
    assert hostile_texts() == TEXTS


def test_every_text_is_one_that_the_interface_takes_and_every_control_is_among_them() -> None:
    assert [text for text in TEXTS if not text.strip() or "\x00" in text or len(text.encode()) > MAX_BYTES] == []
    every = {character for text in TEXTS for character in text}
    assert {chr(code) for code in (*range(1, 0x20), *range(0x7F, 0xA0))} <= every
    assert every >= BIDI


def test_questions_contexts_options_and_metadata_are_given_back_as_they_were(hostile: HostileChamber) -> None:
    for each in hostile.asked:
        document = hostile.server.ask("GET", f"/v1/deliberations/{each.id}").document
        assert (document["question"], document["context"]) == (each.body["question"], each.body["context"])
        assert document["answer"]["options"] == each.body["answer"]["options"]
        assert document["metadata"]["note"] == each.body["metadata"]["note"]
        assert document["origin"] == each.body["metadata"]["origin"]


def test_answers_and_reasons_and_what_went_wrong_are_given_back_as_they_were(hostile: HostileChamber) -> None:
    for each in hostile.asked:
        outputs = hostile.server.ask("GET", f"/v1/deliberations/{each.id}/outputs").document["items"]
        found = {output["agent_id"]: output for output in outputs}
        for place, text in enumerate(each.texts):
            output = found[f"voice-{place}"]
            assert (output["answer"], output["reasoning"]) == (each.body["answer"]["options"][place], text)
        for place in range(len(each.texts), len(found)):
            assert found[f"voice-{place}"]["failure"]["message"] == each.texts[place - len(each.texts)]


def test_answers_in_agents_own_words_are_given_back_as_they_were(spoken: HostileChamber) -> None:
    for each in spoken.asked:
        outputs = spoken.server.ask("GET", f"/v1/deliberations/{each.id}/outputs").document["items"]
        found = {output["agent_id"]: output["answer"] for output in outputs}
        assert [found[f"voice-{place}"] for place in range(len(each.texts))] == list(each.texts)


def test_personas_are_kept_as_they_were(hostile: HostileChamber) -> None:
    for each in hostile.asked:
        kept = hostile.server.call(hostile.server.conclave.deliberations.get(each.id, key_name=None))
        agents = kept.specification.roster.agents
        assert [agent.persona.text for agent in agents][: len(each.texts)] == list(each.texts)


@pytest.mark.parametrize(
    "path",
    [
        "/deliberations/{%d}",
        "/v1/deliberations/{%d}/report",
        "/archive/compare?a={%d}",
    ],
)
def test_no_page_of_a_deliberation_has_an_element_more_than_that_of_its_twin(
    hostile: HostileChamber, twin: HostileChamber, path: str
) -> None:
    for number in range(len(PARTS)):
        assert_alike(hostile, twin, path % number)


@pytest.mark.parametrize("path", ["/", "/archive", "/operations", "/record"])
def test_no_page_of_all_has_an_element_more_than_that_of_its_twin(
    hostile: HostileChamber, twin: HostileChamber, path: str
) -> None:
    assert_alike(hostile, twin, path)


def test_two_deliberations_side_by_side_have_no_element_more_than_their_twins(
    hostile: HostileChamber, twin: HostileChamber
) -> None:
    # How many rows there are is for the texts to say: which agents answered otherwise, and in how many words.
    for number in range(1, len(PARTS)):
        shown, plain = (
            page(each.server, f"/archive/compare?a={each.asked[number - 1].id}&b={each.asked[number].id}")
            for each in (hostile, twin)
        )
        assert raw(shown) == set()
        assert set(skeleton(shown)) <= set(skeleton(plain))


def test_the_panel_of_every_seat_has_no_element_more_than_that_of_its_twin(
    hostile: HostileChamber, twin: HostileChamber
) -> None:
    for number in range(len(PARTS)):
        for seat in range(number % 9 + 1, 73, 18):
            assert_alike(hostile, twin, f"/deliberations/{{{number}}}/seats/{seat}")


def test_what_is_looked_for_in_the_archive_and_the_record_is_shown_as_text(hostile: HostileChamber) -> None:
    shapes = {
        path: {tag for tag, *_ in skeleton(page(hostile.server, path))}
        for path in ("/archive?search=x", "/record?find=x")
    }
    for text in TEXTS[::16]:
        for path, tags in shapes.items():
            given = quote(text.encode()[:60].decode(errors="ignore"))
            answered = hostile.server.ask("GET", f"{path[:-1]}{given}", headers={"Accept": "text/html"})
            assert answered.status in {200, 303, 422}
            if answered.status == 303:
                assert answered.headers["location"].startswith("/record/entries/")
                continue
            shown = answered.body.decode()
            assert {tag for tag, *_ in skeleton(shown)} <= tags | {
                "ol",
                "li",
                "div",
                "p",
                "strong",
                "h2",
                "bdi",
                "span",
                "nav",
                "time",
            }
            assert not [
                name for _, attributes in HtmlReader(shown).tags for name in attributes if name.startswith("on")
            ]


def test_entries_of_the_record_that_hold_options_have_no_element_more_than_their_twins(
    hostile: HostileChamber, twin: HostileChamber
) -> None:
    for number in range(len(PARTS)):
        spans = []
        for chamber in (hostile, twin):
            document = chamber.server.ask("GET", f"/v1/deliberations/{chamber.asked[number].id}").document
            spans.append((document["witness"]["first_index"], document["witness"]["last_index"]))
        assert spans[0] == spans[1]
        for index in spans[0]:
            assert_alike(hostile, twin, f"/record/entries/{index}")


def test_answers_in_agents_own_words_add_no_kind_of_element_and_no_address(
    spoken: HostileChamber, twin: HostileChamber
) -> None:
    with hostile_chamber() as plain:
        for part in SPOKEN[:1]:
            plain.answer([harmless(place, text) for place, text in enumerate(part)])
        for path in ("/deliberations/{}", "/v1/deliberations/{}/report", "/archive/compare?a={}"):
            alike = page(plain.server, path.format(plain.asked[0].id))
            kinds, leads = set(skeleton(alike)), {NUMBERED.sub("", each) for each in addresses(alike)}
            tags = {tag for tag, *_ in kinds}
            for each in spoken.asked:
                shown = page(spoken.server, path.format(each.id))
                assert raw(shown) == set()
                assert {tag for tag, *_ in skeleton(shown)} <= tags | {"details", "summary", "blockquote"}
                found = {NUMBERED.sub("", address) for address in addresses(shown)}
                assert found <= leads | {"#shape-"}
                assert HIT not in str([each for each in skeleton(shown) if each[0] == "script"])


def test_the_reason_of_a_halt_is_shown_as_text_on_every_page(twin: HostileChamber) -> None:
    server = twin.server
    joined: list[str] = [""]
    for text in TEXTS:
        if len(joined[-1]) + len(text) > 900:
            joined.append("")
        joined[-1] = f"{joined[-1]} {text}".strip()
    assert server.ask("POST", "/v1/halt", {"reason": "quiet" * 60}).status == 200
    plain = {path: skeleton(page(server, path)) for path in ("/operations", "/ask")}
    try:
        for reason in joined:
            assert server.ask("DELETE", "/v1/halt", {"reason": reason}).status == 200
            assert server.ask("POST", "/v1/halt", {"reason": reason}).status == 200
            assert server.ask("GET", "/v1/halt").document["reason"] == reason
            for path, alike in plain.items():
                shown = page(server, path)
                assert raw(shown) == set()
                assert_same(skeleton(shown), alike, path)
    finally:
        server.ask("DELETE", "/v1/halt", {"reason": "the end of the test"})


def blocks(markdown: str) -> list[str]:
    """What CommonMark with tables and strikes makes of it: every block, and all that is more than text within a line."""
    found = []
    for token in MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(markdown):
        inline = [
            child.type
            for child in token.children or ()
            if child.type not in {"text", "text_special", "softbreak", "hardbreak"}
        ]
        found.append(" ".join([token.type, token.tag, token.info.strip(), *inline]))
    return found


def minutes(server: RunningServer, asked: Carried) -> str:
    return server.ask("GET", f"/v1/deliberations/{asked.id}/minutes").body.decode()


def test_no_text_forges_a_heading_a_list_a_link_or_a_row_in_the_minutes(
    hostile: HostileChamber, twin: HostileChamber
) -> None:
    for each, other in zip(hostile.asked, twin.asked, strict=True):
        said = minutes(hostile.server, each)
        assert {character for character in said if unicodedata.category(character) == "Cc"} <= {"\n", "\t"}
        assert BIDI.isdisjoint(said)
        alike = blocks(minutes(twin.server, other))
        assert_same(procedure(blocks(said)), procedure(alike), each.id)


def procedure(found: Sequence[str]) -> list[str]:
    """Without the paragraphs of a quoted text, which follow its lines: all else is the procedure's."""
    return [block for block in found if "paragraph" not in block and block.strip() != "inline"]


def test_the_command_line_writes_no_control_and_nothing_unseen(
    hostile: HostileChamber, capsys: pytest.CaptureFixture[str]
) -> None:
    address = f"http://127.0.0.1:{hostile.server.port}"
    with commands(capsys) as conclave:
        said = [conclave("list", "--server", address)]
        said += [conclave("minutes", each.id, "--server", address) for each in hostile.asked[:3]]
        for each in hostile.asked:
            said.append(conclave("show", each.id, "--server", address))
    for ran in said:
        assert ran.code == 0
        written = ran.stdout + ran.stderr
        assert {
            character
            for character in written
            if unicodedata.category(character) in OUTSIDE and character not in JOINERS + "\n"
        } == set()


def test_machines_are_told_on_the_command_line_in_ascii_or_as_it_was(
    hostile: HostileChamber, capsys: pytest.CaptureFixture[str]
) -> None:
    each = hostile.asked[0]
    with commands(capsys) as conclave:
        ran = conclave("show", each.id, "--json", "--server", f"http://127.0.0.1:{hostile.server.port}")
    assert json.loads(ran.stdout)["answer"]["options"] == each.body["answer"]["options"]
    assert "\x1b" not in ran.stdout
