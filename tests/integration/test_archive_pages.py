"""The pages of the archive as the server makes them: what they say, to whom, and that no text in them does anything."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from urllib.parse import quote

import pytest

from infrastructure.stubs.in_memory_repository import InMemoryRepository
from tests.conclave_fixture import Answer, RunningServer, running_server
from tests.integration.test_rest_hindsight import CHOICE, RANKING, Panel, Speaker

KEYS = "ada:operator:secret-of-ada,eve:observer:secret-of-eve,root:admin:secret-of-root"
HOSTILE = '<script>alert(1)</script> "><img src=x onerror=alert(1)> \u202egnp.exe\u202c \x1b[2J \x07 {{ 7321*7321 }} ${7321*7321}'


_APART = {"p", "li", "td", "th", "tr", "h1", "h2", "h3", "h4", "option", "button", "caption"}


class Texts(HTMLParser):
    """What a reader sees, and the names of the elements."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""
        self.elements: list[str] = []
        self.attributes: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        if tag in _APART:
            self.text += " "
        self.attributes += (name for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        self.text += data


def page(server: RunningServer, path: str, *, headers: Mapping[str, str] | None = None, status: int = 200) -> Answer:
    answered = server.ask("GET", path, headers={"Accept": "text/html", **(headers or {})})
    assert answered.status == status, answered.body[:500]
    return answered


def read(answered: Answer) -> Texts:
    parsed = Texts()
    parsed.feed(answered.body.decode())
    parsed.text = " ".join(parsed.text.split())
    return parsed


@pytest.fixture(scope="module")
def panel() -> Iterator[Panel]:
    speaker = Speaker()
    with running_server(orchestrator=speaker) as server:
        yield Panel(server, speaker)


def test_an_empty_archive_says_what_to_do() -> None:
    with running_server() as server:
        assert "There are no deliberations yet. Put a question" in read(page(server, "/archive")).text


def test_each_hit_says_how_it_came_out_and_who_took_part(panel: Panel) -> None:
    panel.ask(CHOICE, ["trams", "trams", "buses", None], question="Each hit?")
    text = read(page(panel.server, "/archive?search=each+hit")).text
    assert "1 deliberation found." in text
    assert "Each hit? Decision: trams completed simulated margin 1, dissent 33.3 % 3 of 4 answered, 1 abstained" in text


def test_nothing_found_says_so_and_the_form_keeps_what_was_looked_for(panel: Panel) -> None:
    answered = page(panel.server, "/archive?search=%22nowhere%22&rule=borda&origin=mine")
    assert "Nothing was found." in read(answered).text
    assert b'value="&#34;nowhere&#34;"' in answered.body
    assert re.search(rb'<option value="borda" selected>', answered.body)
    assert re.search(rb'<option value="mine" selected>', answered.body)


def test_a_part_is_only_given_to_who_asks_for_it_with_the_address_that_finds_it_again(panel: Panel) -> None:
    whole = page(panel.server, "/archive?search=x&rule=")
    part = page(panel.server, "/archive?search=x&rule=", headers={"HX-Request": "true"})
    assert (b"<html" in whole.body, b"<html" in part.body) == (True, False)
    assert part.headers["hx-replace-url"] == "/archive?search=x"
    for answered in (whole, part):
        assert (answered.headers["vary"], answered.headers["cache-control"]) == ("HX-Request", "no-store")


@pytest.mark.parametrize("query", ["rule=dice", "from=never", "cursor=nonsense", "search=" + "x" * 600])
def test_what_cannot_be_looked_for_is_refused_on_a_page(panel: Panel, query: str) -> None:
    answered = page(panel.server, f"/archive?{query}", status=422)
    assert answered.headers["content-type"].startswith("text/html")
    assert f"/query/{query.partition('=')[0]}" in read(answered).text


def test_no_text_does_anything_in_the_list_or_in_a_comparison(panel: Panel) -> None:
    answer = {"kind": "choice", "options": [f"{HOSTILE} {number}" for number in range(2)]}
    members = [{"id": f"a{place}", "persona": HOSTILE.replace("\x1b", "")} for place in range(2)]
    one = panel.ask(answer, [answer["options"][0]] * 2, question=HOSTILE, context=HOSTILE, agents={"members": members})
    two = panel.ask(answer, [answer["options"][1]] * 2, question=f"{HOSTILE} again", metadata={"origin": HOSTILE})
    panel.recount(one, {"rule": {"kind": "threshold"}})
    for path in (
        f"/archive?search={quote('<script>')}",
        f"/archive/compare?a={one['id']}&b={two['id']}",
        f"/archive/compare?a={one['id']}",
    ):
        parsed = read(page(panel.server, path))
        assert "alert(1)" in parsed.text
        assert "53597041" not in parsed.text
        assert not any(mark in parsed.text for mark in "\u202e\u202c\x1b\x07")
        assert "\\u202egnp.exe" in parsed.text
        assert not [name for name in parsed.attributes if name.startswith("on") or name == "style"]
        # Those of the layout and of the view.
        assert parsed.elements.count("img") == 1
        assert parsed.elements.count("script") <= 4


def test_fifty_options_of_200_characters_and_a_question_of_32_kib_have_a_page(panel: Panel) -> None:
    options = [f"{number:02d}" + "o" * 150 for number in range(50)]
    document = panel.ask({"kind": "choice", "options": options}, options[:20], question="Q" * 32_000 + " longest?")
    text = read(page(panel.server, "/archive?search=longest")).text
    assert "1 deliberation found." in text
    assert len(text) < 5_000
    compared = read(page(panel.server, f"/archive/compare?a={document['id']}")).text
    assert "19" + "o" * 150 in compared
    assert "and 30 more answers" in compared


def test_two_are_compared_by_terms_outcome_and_agent(panel: Panel) -> None:
    one = panel.ask(CHOICE, ["trams", "trams", "buses", None], question="First of two?")
    two = panel.ask(
        CHOICE,
        ["trams", "buses", "buses", "buses"],
        question="Second of two?",
        rule={"kind": "threshold", "fraction": 0.6},
    )
    text = read(page(panel.server, f"/archive/compare?a={one['id']}&b={two['id']}")).text
    assert "They came to different outcomes. 2 of 3 agents with the same id gave the same answer." in text
    assert "Who answered differently Agent Answer in A Answer in B a1 trams buses" in text
    assert "0 answered in A alone, 1 in B alone" in text
    assert "Rule plurality threshold (fraction 0.6) differs" in text
    assert "Protocol poll poll same" in text
    assert "Decision trams buses differs" in text
    assert text.count("Minority report") == 2


def test_a_comparison_names_what_each_rule_counts_and_of_what_its_shares_are(panel: Panel) -> None:
    one = panel.ask(CHOICE, ["trams", "trams", "trams", "buses", None], question="Of what?")
    text = read(page(panel.server, f"/archive/compare?a={one['id']}")).text
    assert "Shares of the 4 votes counted; 5 were asked" in text
    assert "Answer Bar Votes Share" in text
    orders = [["trams", "buses", "bicycles"]] * 3
    two = panel.ask(RANKING, orders, question="Points?", rule={"kind": "borda"})
    points = sum(two["outcome"]["tally"].values())
    text = read(page(panel.server, f"/archive/compare?a={two['id']}")).text
    assert f"Shares of the {points:g} points counted;" in text
    assert "were asked" not in text
    assert "Answer Bar Points Share" in text
    three = panel.ask({"kind": "number", "unit": "days"}, [10, 20, 30, 90], question="How many?")
    text = read(page(panel.server, f"/archive/compare?a={one['id']}&b={three['id']}")).text
    assert "Shares of the 4 who gave a number" in text
    assert "Spread – 27.5 days differs" in text
    assert "Decision trams 25 days differs" in text
    assert re.search(r"below 17\.5 days: 1 agent ", text)
    assert "above 45 days 1 25.0 %" in text


def test_figures_of_the_comparison_are_written_as_in_the_chamber(panel: Panel) -> None:
    one = panel.ask(CHOICE, ["trams", "trams", "trams", "buses"], question="Figures?")
    two = panel.ask(CHOICE, ["trams"], question="Others?", limits={"max_total_tokens": 1_000_000})
    text = read(page(panel.server, f"/archive/compare?a={one['id']}&b={two['id']}")).text
    assert "Quorum 50 % of those asked" in text
    assert "Most tokens 400,000 1,000,000 differs" in text
    assert "Most money $5.00 $5.00 same" in text
    assert "Cost $0.00 $0.00 same" in text


def test_one_alone_is_shown_as_it_was_decided_and_as_it_was_recounted(panel: Panel) -> None:
    orders = [
        ["trams"],
        ["trams"],
        ["trams"],
        ["buses", "bicycles"],
        ["buses", "bicycles"],
        ["bicycles", "buses"],
        ["bicycles", "buses"],
    ]
    document = panel.ask(RANKING, orders, question="Alone?", rule={"kind": "plurality"})
    path = f"/archive/compare?a={document['id']}"
    before = read(page(panel.server, path)).text
    assert "recounted" not in before
    assert "Each recount is witnessed" in before
    entries = len(panel.bundle(document)["entries"])
    page(panel.server, path)
    assert len(panel.bundle(document)["entries"]) == entries, "looking writes nothing"
    index = panel.recount(document, {"rule": {"kind": "borda"}}).document["leaf_index"]
    after = read(page(panel.server, path)).text
    assert (
        f"borda recounted Another outcome than the one that was decided. Entry {index} of the record says so." in after
    )
    assert "borda (stands above)" in after


def test_a_rule_is_not_named_among_those_that_decide_the_same_as_it(panel: Panel) -> None:
    orders = [["trams"]] * 3 + [["buses", "bicycles"]] * 2 + [["bicycles", "buses"]] * 2
    alone = panel.ask(RANKING, orders, question="Alone again?", rule={"kind": "irv"})
    assert alone["outcome"]["decision"] != "trams"
    document = panel.ask(RANKING, orders, question="Alone with it?", rule={"kind": "plurality"})
    assert document["outcome"]["robustness"]["rules_agreeing"] == ["plurality"]
    shown = read(page(panel.server, f"/deliberations/{document['id']}")).text
    assert "Rules that decide the samenone of the others" in shown.replace("same none", "samenone")
    compared = read(page(panel.server, f"/archive/compare?a={document['id']}")).text
    assert "By the record no other rule comes to the same decision." in compared
    report = read(page(panel.server, f"/v1/deliberations/{document['id']}/report")).text
    assert "rules that decide the same none of the others" in report
    others = panel.ask(CHOICE, ["trams", "trams", "trams"], question="All alike?", rule={"kind": "plurality"})
    compared = read(page(panel.server, f"/archive/compare?a={others['id']}")).text
    assert "these other rules come to the same decision: threshold" in compared
    assert "plurality" not in compared.partition("come to the same decision:")[2].partition(".")[0]


def test_a_truth_that_was_told_stands_on_the_page(panel: Panel) -> None:
    document = panel.ask(CHOICE, ["trams", "buses", "trams"], question="Told?")
    path = f"/archive/compare?a={document['id']}"
    assert "It turned out" not in read(page(panel.server, path)).text
    panel.resolve(document, {"answer": "buses"})
    assert "It turned out: buses." in read(page(panel.server, path)).text


def test_one_without_an_outcome_is_compared_too(panel: Panel) -> None:
    nobody = panel.ask(CHOICE, [None, None], question="Nobody?", quorum={"min_answered_fraction": 0.5})
    number = panel.ask({"kind": "number"}, [1, 2, 3], question="A number?")
    text = read(page(panel.server, f"/archive/compare?a={nobody['id']}&b={number['id']}")).text
    assert "The two ask for different answers" in text
    assert "No agent answered in both." in text


@pytest.mark.parametrize(
    ("kind", "media_type", "ending"),
    [
        ("bundle", "application/json", "bundle.json"),
        ("minutes", "text/markdown", "minutes.md"),
        ("report", "text/html", "report.html"),
    ],
)
def test_files_are_named_after_what_was_asked(panel: Panel, kind: str, media_type: str, ending: str) -> None:
    document = panel.ask(CHOICE, ["trams"], question='Où "là"; \r\n../../etc/passwd — ' + "x" * 200)
    answered = page(panel.server, f"/archive/{document['id']}/{kind}")
    assert answered.headers["content-type"].startswith(media_type)
    name = f"conclave-ou-la-etc-passwd-{'x' * 23}-{document['id'][:8]}-{ending}"
    assert answered.headers["content-disposition"] == f'attachment; filename="{name}"'


def test_a_question_without_a_single_letter_of_ascii_has_a_name_all_the_same(panel: Panel) -> None:
    document = panel.ask(CHOICE, ["trams"], question="首都は？")
    answered = page(panel.server, f"/archive/{document['id']}/bundle")
    assert (
        answered.headers["content-disposition"] == f'attachment; filename="conclave-{document["id"][:8]}-bundle.json"'
    )


def test_ticks_lead_to_the_comparison_where_no_script_runs(panel: Panel) -> None:
    ids = [panel.ask(CHOICE, ["trams"], question=f"Tick {place}?")["id"] for place in range(2)]
    both = page(panel.server, f"/archive/pick?pick={ids[0]}&pick={ids[1]}", status=303)
    assert both.headers["location"] == f"/archive/compare?a={ids[0]}&b={ids[1]}"
    assert page(panel.server, f"/archive/pick?pick={ids[0]}", status=303).headers["location"].endswith(ids[0])
    page(panel.server, "/archive/pick", status=422)
    page(panel.server, "/archive/compare", status=303)
    page(panel.server, "/archive/compare?a=nobody", status=404)
    page(panel.server, f"/archive/compare?a={ids[0]}&b=%00", status=404)


def test_a_caller_sees_its_own_and_an_admin_who_asked() -> None:
    with running_server(keys=KEYS) as server:

        def bearer(name: str) -> dict[str, str]:
            return {"Authorization": f"Bearer secret-of-{name}"}

        body = {"question": "Whose is it?", "agents": {"count": 3}}
        own = server.post(body, query="?wait=30", headers=bearer("ada")).document["id"]
        assert "by ada" in read(page(server, "/archive", headers=bearer("root"))).text
        mine = read(page(server, "/archive", headers=bearer("ada"))).text
        assert "Whose is it?" in mine
        assert "by ada" not in mine
        theirs = read(page(server, "/archive", headers=bearer("eve"))).text
        assert "0 deliberations" in theirs
        assert "What is asked with your key will stand here." in theirs
        for path in (f"/archive/compare?a={own}", f"/archive/{own}/bundle", f"/archive/{own}/minutes"):
            page(server, path, headers=bearer("eve"), status=404)
        page(server, "/archive?search=x", status=303)
        alone = read(page(server, f"/archive/compare?a={own}", headers=bearer("root"))).text
        assert "Count again" in alone


def test_an_observer_is_told_what_a_recount_needs() -> None:
    kept, headers = InMemoryRepository(), {"Authorization": "Bearer secret-of-ada"}
    with running_server(repository=kept, keys="ada:operator:secret-of-ada") as server:
        body = {"question": "May I?", "agents": {"count": 3}}
        own = server.post(body, query="?wait=30", headers=headers).document["id"]
    with running_server(repository=kept, keys="ada:observer:secret-of-ada") as server:
        text = read(page(server, f"/archive/compare?a={own}", headers=headers)).text
        assert "Your key has the role observer: counting again takes a key with the role operator" in text


def test_a_letter_of_the_comparison_is_the_letter_of_the_chamber(panel: Panel) -> None:
    options = panel.ask(CHOICE, ["bicycles", "bicycles", "trams"])
    compared = page(panel.server, f"/archive/compare?a={options['id']}").body.decode()
    asked_for = list(options["answer"]["options"])
    found = re.findall(r'<g class="p(\d+)">', compared)
    shown = [name for name, count in sorted(options["outcome"]["tally"].items(), key=lambda item: -item[1]) if count]
    assert [int(place) for place in found[: len(shown)]] == [asked_for.index(name) for name in shown]
