"""The report: whole in itself, harmless whatever agents wrote, honest in its first line, and the same for the same documents."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest

from api.report.page import report_of
from application.pages.frame import content_policy
from domain.models.question import AnswerFormat, AnswerKind
from domain.models.roll_call import AgentState
from domain.voting.rule import Rule, RuleKind
from tests.html_reader import HtmlReader
from tests.report_specimens import HOSTILE, NAUGHTY, OPTIONS, ended, page, words

TEXT = AnswerFormat(AnswerKind.TEXT)
RANKING = AnswerFormat(AnswerKind.RANKING, OPTIONS)
PLAIN = ("yes", "yes", "no", None, AgentState.TIMED_OUT)


def test_nothing_is_fetched_and_nothing_runs() -> None:
    found = page(ended(PLAIN, ("yes", "no", "no", "no", AgentState.FAILED)))
    assert {tag for tag, _ in found.tags}.isdisjoint(
        {"script", "iframe", "object", "embed", "img", "form", "input", "base"}
    )
    for tag, attributes in found.tags:
        assert not {
            name for name in attributes if name.startswith("on") or name in {"style", "src", "srcset", "action"}
        }
        if "href" in attributes:
            assert (attributes["href"] or "").startswith("#") or (tag, attributes["href"]) == ("link", "data:,")
    assert not re.search(r"url\(|@import|expression", found.style)


def test_the_policies_allow_the_one_style_that_is_there_and_nothing_else() -> None:
    made = report_of(*ended(PLAIN))
    found = HtmlReader(made.html)
    digest = base64.b64encode(hashlib.sha256(found.style.encode()).digest()).decode()
    (meta,) = (each["content"] for each in found.all("meta") if each.get("http-equiv") == "Content-Security-Policy")
    expected = f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    assert meta == expected == content_policy(found.style, pictures=True)
    assert made.policy == f"{expected}; frame-ancestors 'none'"
    assert len(found.all("style")) == 1
    assert made.html.index("Content-Security-Policy") < made.html.index("<style>")


def shape(found: HtmlReader) -> list[tuple[str, tuple[str, ...]]]:
    """The page without its texts."""
    return [(tag, tuple(sorted(attributes))) for tag, attributes in found.tags]


@pytest.mark.parametrize("naughty", NAUGHTY, ids=range(len(NAUGHTY)))
def test_no_text_of_anybody_changes_what_the_page_is_made_of(naughty: str) -> None:
    def named(text: str) -> HtmlReader:
        document, outputs = ended(PLAIN, ("no", "yes", "no", None, AgentState.FAILED), reason="{agent}" + text)
        document |= {"question": f"q{text}", "reason": f"r{text}", "orchestrator": f"o{text}", "models": [f"m{text}"]}
        document["failures"] = [{**each, "kind": f"k{text}", "message": f"w{text}"} for each in document["failures"]]
        document["agents"] = {"roster": f"x{text}", "count": 5}
        document["worth"] = {**document["worth"], "warnings": [f"Beware: {text}"]}
        for output in outputs:
            output["model"] = f"y{text}"
        return page((document, outputs), checkpoint=f"c{text}")

    harmless = named("z" * len(" ".join(naughty.split())))
    found = named(naughty)
    if "\n" in naughty or "\r" in naughty or len(naughty) > 200:
        # A long question stands below its heading as well, by its lines.
        kinds = [{tag for tag, _ in shape(each)} for each in (found, harmless)]
        assert kinds[0] <= kinds[1] | {"p"}
    else:
        assert shape(found) == shape(harmless)


@pytest.mark.parametrize("naughty", [HOSTILE, "\u202e\u2066\u200f\x1b\x00\u200b"])
def test_unseen_characters_are_spelt_out_wherever_they_stand(naughty: str) -> None:
    answer = AnswerFormat(AnswerKind.CHOICE, (f"a{naughty.replace(chr(0), '')}", "b"))
    option = answer.options[0]
    html = report_of(*ended((option, "b"), answer=answer, reason=naughty)).html
    assert not set(html) & set("\u202e\u2066\u200f\x1b\x00\u200b")
    assert "\\u202e" in html
    assert "<script" not in html


def test_a_degraded_result_says_so_in_its_first_line_and_then_that_it_is_simulated() -> None:
    found = page(ended(PLAIN, simulated=True))
    assert (
        found.words.partition("Close it?")[2]
        .lstrip()
        .startswith("Degraded: 1 of 5 did not take part. Simulated: no model was asked")
    )
    assert words(("yes", "yes")).partition("Conclave: Close it?")[2].startswith(" Close it?")


def test_drop_out_that_is_not_random_is_said_before_the_result() -> None:
    document, outputs = ended(PLAIN)
    document["worth"] = {**document["worth"], "warnings": ["Degraded: x", "Drop-out is not random: 2 of <2> agents"]}
    told = page((document, outputs)).words
    assert told.index("Drop-out is not random: 2 of <2> agents") < told.index("Decision")
    assert told.count("Drop-out is not random") == 1


def test_a_simulated_result_says_so_with_every_heading_in_the_title_and_on_paper() -> None:
    simulated, real = (report_of(*ended(PLAIN, simulated=flag)).html for flag in (True, False))
    assert simulated.count("</h2>") == simulated.count('<span class="badge">simulated</span></h2>') > 8
    assert "<title>Conclave: Simulated: Close it?</title>" in simulated
    assert '<body class="simulated">' in simulated
    assert 'class="badge"' not in real


def test_the_same_documents_make_the_same_page() -> None:
    document, outputs = ended(PLAIN)
    assert report_of(document, outputs) == report_of(document, list(outputs))


@pytest.mark.parametrize(
    "found",
    [
        {},
        {"id": "d-1", "status": "queued"},
        {"status": "running", "rounds": [], "agents": {"roster": "archons", "count": 72}},
        {"status": "halted", "reason": HOSTILE},
        {"outcome": {"status": "decided", "decision": "yes"}},
        {"outcome": {"status": "tied", "tally": {"a": 1, "b": 1}}},
        {"outcome": {"status": "decided", "decision": 1.5}, "answer": {"kind": "number"}},
        {
            "outcome": [],
            "worth": 7,
            "rounds": {},
            "failures": "x",
            "usage": None,
            "answer": 1,
            "witness": {"tree_size": "x"},
        },
    ],
    ids=str,
)
def test_whatever_is_missing_in_the_documents_is_missing_in_the_page(found: dict[str, object]) -> None:
    HtmlReader(report_of(found).html)
    HtmlReader(report_of(found, [{}, {"agent_id": None, "round": "x", "answer": [], "state": "answered"}]).html)


def test_every_field_that_is_left_out_leaves_a_page() -> None:
    document, outputs = ended(PLAIN, ("no", "yes", "no", None, AgentState.FAILED))
    for name in document:
        HtmlReader(report_of({key: value for key, value in document.items() if key != name}, outputs).html)
    for name in document["outcome"]:
        less = {key: value for key, value in document["outcome"].items() if key != name}
        HtmlReader(report_of({**document, "outcome": less}, outputs).html)
    for name in document["worth"]:
        less = {key: value for key, value in document["worth"].items() if key != name}
        HtmlReader(report_of({**document, "worth": less}, outputs).html)


def test_erased_texts_are_said_to_be_erased() -> None:
    document, outputs = ended(PLAIN, question=None, erased=True)
    document["failures"] = [{**each, "message": None} for each in document["failures"]]
    told = page((document, [{**each, "reasoning": None, "content": None} for each in outputs])).words
    assert "Conclave: (erased)" in told
    assert "server_error: (erased)" in told


@pytest.mark.parametrize(
    "given",
    [
        [("yes",) * 72],
        [tuple(range(72))],
        [(("no", "yes"),) * 72, (("yes",),) * 72],
        [tuple(f"Text {number}. " * 5_000 for number in range(72))],
    ],
    ids=["choice", "number", "ranking", "64 KiB of text"],
)
def test_a_report_of_seventy_two_agents_is_a_page_of_half_a_megabyte_at_most(given: list[tuple[object, ...]]) -> None:
    kinds = {str: AnswerFormat(AnswerKind.CHOICE, OPTIONS), int: AnswerFormat(AnswerKind.NUMBER), tuple: RANKING}
    first = given[0][0]
    answer = TEXT if isinstance(first, str) and first not in OPTIONS else kinds[type(first)]
    rule = Rule(RuleKind.BORDA) if answer is RANKING else None
    document, outputs = ended(*given, answer=answer, rule=rule)  # type: ignore[arg-type]
    assert len(report_of(document, outputs).html) < 500_000


def _luminance(colour: str) -> float:
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _contrast(one: str, other: str) -> float:
    """WCAG 2.2, from 1 to 21."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark", "print"])
def test_every_text_and_every_mark_stands_out_from_its_ground(scheme: str) -> None:
    style = HtmlReader(report_of({}).html).style
    medium = {"light": r"\A|^:root", "dark": r"prefers-color-scheme: dark", "print": r"@media print"}[scheme]
    colours = dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{6})", style.partition("@media")[0]))
    colours["on"] = "#ffffff"
    if scheme != "light":
        for block in re.findall(rf"@media [^{{]*{medium.removeprefix('@media ')}[^{{]*{{\s*:root {{([^}}]*)}}", style):
            colours |= dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{6})", block))
    texts = [("ink", "ground"), ("ink", "panel"), ("soft", "ground"), ("soft", "panel"), ("accent", "ground")]
    texts += [("accent", "panel"), ("mark", "mark-ground"), *(("on", f"s{number}") for number in range(8))]
    found = {pair: _contrast(colours[pair[0]], colours[pair[1]]) for pair in texts}
    assert {pair: contrast for pair, contrast in found.items() if contrast < 4.5} == {}
    assert all(_contrast(colours[f"s{number}"], colours["panel"]) >= 3 for number in range(8))
