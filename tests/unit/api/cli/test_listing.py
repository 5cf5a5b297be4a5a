"""A page of deliberations: whole for scripts, fitting for people."""

from typing import Any

from api.cli.listing import render_page
from domain.models.question import AnswerFormat, AnswerKind
from tests.unit.api.cli.samples import Said, answers, console, ended, printed, widest

SAMPLE = ended(answers(("yes", 3), ("no", 1)), question="Close the centre?\nReally? " + "x" * 90)


def page(*items: Any, cursor: str | None = None) -> dict[str, Any]:
    return {"items": list(items), "next_cursor": cursor}


def test_a_script_gets_whole_ids_first_on_the_line() -> None:
    target = console(40)
    render_page(target, page(SAMPLE.document))
    line = printed(target)
    assert line.split()[0] == SAMPLE.document["id"]
    assert line.count("\n") == 1
    assert "x" * 90 in line
    assert "2026-05-04 12:00" in line


def test_a_terminal_gets_lines_that_fit() -> None:
    for width in (40, 80):
        target = console(width, terminal=True)
        render_page(target, page(SAMPLE.document))
        assert widest(printed(target)) <= width
        assert printed(target).startswith(SAMPLE.document["id"][:8] + "  completed")


def test_the_decision_stands_before_the_question() -> None:
    target = console()
    estimate = ended([Said(3.0), Said(5.0)], answer=AnswerFormat(AnswerKind.NUMBER), question="How long?")
    tied = ended(answers(("yes", 1), ("no", 1)), question="Tied?")
    render_page(target, page(SAMPLE.document, estimate.document, tied.document))
    text = printed(target)
    assert "[yes] Close the centre? Really?" in text
    assert "[4] How long?" in text
    assert "[tied] Tied?" in text


def test_hostile_questions_stay_on_their_line() -> None:
    target = console()
    render_page(target, page(ended(answers(("yes", 1)), question="a\x1b[2J\nb [bold]c").document))
    assert "a\\x1b[2J b [bold]c" in printed(target)


def test_an_empty_page_says_so() -> None:
    target = console()
    render_page(target, page())
    assert printed(target) == "There are no such deliberations.\n"


def test_more_pages_are_pointed_at() -> None:
    target = console()
    render_page(target, page(SAMPLE.document, cursor="abc"))
    assert "--cursor abc" in printed(target)
