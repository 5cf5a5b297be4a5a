"""From a refused field back to the option that set it."""

import pytest
import typer

from api.cli.options import finite, in_words_of_the_command_line
from domain.errors.deliberation import FieldProblem, InvalidSpecificationError


@pytest.mark.parametrize(
    ("pointer", "option"),
    [
        ("/question", "QUESTION"),
        ("/answer/kind", "--answer"),
        ("/answer/options", "--option"),
        ("/answer/options/2", "--option number 3"),
        ("/agents/count", "--agents"),
        ("/limits/agent_timeout_s", "--timeout"),
        ("/query/cursor", "--cursor"),
        ("/metadata", "/metadata"),
    ],
)
def test_a_field_is_named_as_its_option(pointer: str, option: str) -> None:
    error = InvalidSpecificationError.at(pointer, "is off")
    assert in_words_of_the_command_line(str(error)) == f"{option}: is off"


def test_every_field_of_several_is_named() -> None:
    error = InvalidSpecificationError([FieldProblem("/seed", "a"), FieldProblem("/rule/fraction", "b")])
    assert in_words_of_the_command_line(str(error)) == "--seed: a; --fraction: b"


def test_an_address_in_a_message_stays_as_it_is() -> None:
    message = "the server 'http://localhost:8000' cannot be used: refused."
    assert in_words_of_the_command_line(message) == message


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_no_document_carries_are_refused(number: float) -> None:
    with pytest.raises(typer.BadParameter):
        finite(number)


def test_an_absent_number_stays_absent() -> None:
    assert finite(None) is None
