"""Bars: true to the counts, never wider than the terminal, whatever the script."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from api.cli.bars import bar, cut, fit, histogram, tally_lines

TALLY = {"yes": 20, "no": 14, "weekends only": 35}


def test_the_longest_bar_is_that_of_the_leader_and_all_shares_are_of_the_total() -> None:
    yes, no, weekends = (line.plain for line in tally_lines(TALLY, total=69, width=80, blocks=True))
    assert weekends.count("█") > yes.count("█") > no.count("█")
    assert [line.split()[-3:] for line in (yes, no, weekends)] == [
        ["20", "29.0", "%"],
        ["14", "20.3", "%"],
        ["35", "50.7", "%"],
    ]


def test_an_encoding_without_blocks_gets_number_signs() -> None:
    lines = "\n".join(line.plain for line in tally_lines(TALLY, total=69, width=80, blocks=False))
    assert "#" in lines
    assert lines.isascii()


def test_a_single_vote_is_seen_beside_many() -> None:
    assert bar(1 / 7200, 20, blocks=True) == "▏"
    assert bar(1 / 7200, 20, blocks=False) == "#"


def test_no_vote_has_no_bar() -> None:
    assert bar(0.0, 20, blocks=True) == ""


def test_a_long_option_stands_whole_above_its_bar() -> None:
    long = "close it on weekends and on public holidays, but never on market days"
    lines = [line.plain for line in tally_lines({long: 3, "no": 1}, total=4, width=40, blocks=True)]
    assert "".join(lines[:2]) == long
    assert lines[2].startswith("  █")


def test_a_long_option_is_cut_where_lines_must_not_multiply() -> None:
    lines = tally_lines({"x" * 100: 3, "no": 1}, total=4, width=40, blocks=True, whole_labels=False)
    assert len(lines) == 2
    assert "..." in lines[0].plain


@given(
    tally=st.dictionaries(st.text(min_size=1, max_size=80), st.integers(0, 7200), min_size=1, max_size=6),
    width=st.integers(30, 100),
    blocks=st.booleans(),
    whole=st.booleans(),
)
def test_no_line_is_wider_than_the_terminal(tally: dict[str, int], width: int, blocks: bool, whole: bool) -> None:
    lines = tally_lines(tally, total=sum(tally.values()), width=width, blocks=blocks, whole_labels=whole)
    assert max(cell_len(line.plain) for line in lines) <= width


@pytest.mark.parametrize("text", ["汽车禁止在市中心", "👩\u200d💻 code", "plain"])
@pytest.mark.parametrize("cells", [2, 5, 30])
def test_fitting_fills_exactly_the_cells(text: str, cells: int) -> None:
    assert cell_len(fit(text, cells)) == cells


def test_cutting_leaves_short_text_alone() -> None:
    assert cut("short", 10) == "short"


def test_many_distinct_numbers_become_ranges_that_count_everyone_once() -> None:
    tally = {f"{number:g}": 1 for number in range(33)}
    ranges = histogram(tally)
    assert len(ranges) == 8
    assert sum(ranges.values()) == 33


def test_few_distinct_numbers_stay_as_they_are() -> None:
    assert histogram({"1": 2, "5": 3}) == {"1": 2, "5": 3}


@given(
    st.dictionaries(st.floats(allow_nan=False, allow_infinity=False).map("{:g}".format), st.integers(1, 9), max_size=72)
)
def test_a_histogram_loses_nobody(tally: dict[str, int]) -> None:
    assert sum(histogram(tally).values()) == sum(tally.values())


def test_a_tally_of_words_is_no_histogram() -> None:
    words = {f"option {number}": 1 for number in range(20)}
    assert histogram(words) == words
