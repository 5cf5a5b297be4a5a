"""Tiles: their paths are those of the specification, no other spelling is read, and bundles read back the same."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.witness.tile import TILE_HEIGHT, TILE_WIDTH, Tile, entry_bundle, read_entry_bundle, tiles_of


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        (Tile(0, 1_234_067), "0/x001/x234/067"),
        (Tile(0, 0), "0/000"),
        (Tile(1, 999), "1/999"),
        (Tile(1, 1000), "1/x001/000"),
        (Tile(63, 5, 1), "63/005.p/1"),
        (Tile(0, 273, 112), "0/273.p/112"),
        (Tile(0, 1234, 5), "0/x001/234.p/5"),
        (Tile(None, 0), "entries/000"),
        (Tile(None, 1_234_067, 255), "entries/x001/x234/067.p/255"),
    ],
)
def test_a_tile_has_the_path_of_the_specification(tile: Tile, path: str) -> None:
    assert str(tile) == path
    assert Tile.parse(path) == tile


@given(
    st.builds(Tile, st.none() | st.integers(0, 63), st.integers(0, 2**63 - 1), st.integers(1, 256)),
)
def test_every_path_leads_back_to_its_tile(tile: Tile) -> None:
    assert Tile.parse(str(tile)) == tile


@pytest.mark.parametrize(
    "path",
    [
        "",
        "0",
        "0/",
        "/000",
        "0/0",
        "0/00",
        "0/0000",
        "00/000",
        "01/000",
        "64/000",
        "100/000",
        "-1/000",
        "+1/000",
        "0/x000/001",
        "0/x000/x000/001",
        "0/x001/x234/x067",
        "0/001/234",
        "0/X001/234",
        "0/x1/234",
        "0/-01",
        "0/000.p/0",
        "0/000.p/00",
        "0/000.p/01",
        "0/000.p/256",
        "0/000.p/257",
        "0/000.p/-1",
        "0/000.p/",
        "0/000.p",
        "0/000.P/1",
        "0/000/p/1",
        "0/000.p/1/",
        "0/000.p/1\n",
        " 0/000",
        "0/000 ",
        "0/000\n",
        "0/000/",
        "0//000",
        "tile/0/000",
        "Entries/000",
        "entries",
        "entries/0",
        "data/000",
        "0/\u0660\u0660\u0660",
        "\u0661/000",
        "../000",
        "0/000?x=1",
        "0/" + "x001/" * 400 + "000",
    ],
)
def test_a_path_in_any_other_spelling_is_not_read(path: str) -> None:
    with pytest.raises(ValueError, match="tile"):
        Tile.parse(path)


@given(st.text(alphabet="0123456789x/.p entris-\n", max_size=20))
def test_whatever_is_read_is_written_back_the_same(path: str) -> None:
    try:
        tile = Tile.parse(path)
    except ValueError:
        return
    assert str(tile) == path


@pytest.mark.parametrize(("level", "index", "width"), [(-1, 0, 1), (64, 0, 1), (0, -1, 1), (0, 0, 0), (None, 0, 257)])
def test_a_tile_that_cannot_be_is_not_made(level: int | None, index: int, width: int) -> None:
    with pytest.raises(ValueError, match="tile"):
        Tile(level, index, width)


def test_a_tile_is_eight_levels_of_the_tree() -> None:
    assert 2**TILE_HEIGHT == TILE_WIDTH


def test_a_tree_of_70000_leaves_has_the_tiles_of_the_specification() -> None:
    tiles = list(tiles_of(70_000))
    assert Counter(tile.level for tile in tiles if tile.width == TILE_WIDTH) == {0: 273, 1: 1}
    assert [tile for tile in tiles if tile.width < TILE_WIDTH] == [Tile(0, 273, 112), Tile(1, 1, 17), Tile(2, 0, 1)]
    assert all(tile.exists_in(70_000) for tile in tiles)


def test_a_tree_of_one_full_tile_has_a_partial_one_above() -> None:
    assert list(tiles_of(256)) == [Tile(0, 0), Tile(1, 0, 1)]


@pytest.mark.parametrize(("size", "tiles"), [(0, []), (1, [Tile(0, 0, 1)]), (255, [Tile(0, 0, 255)])])
def test_a_small_tree_has_one_partial_tile_at_most(size: int, tiles: list[Tile]) -> None:
    assert list(tiles_of(size)) == tiles


def test_a_tree_of_a_size_below_zero_has_no_tiles() -> None:
    with pytest.raises(ValueError, match="-1"):
        list(tiles_of(-1))


@pytest.mark.parametrize(
    ("tile", "size", "exists"),
    [
        (Tile(0, 0), 255, False),
        (Tile(0, 0), 256, True),
        (Tile(0, 0, 255), 254, False),
        (Tile(0, 0, 255), 255, True),
        (Tile(0, 0, 5), 1000, True),
        (Tile(0, 1, 1), 256, False),
        (Tile(1, 0, 1), 255, False),
        (Tile(1, 0, 1), 256, True),
        (Tile(1, 0), 65_535, False),
        (Tile(1, 0), 65_536, True),
        (Tile(63, 0, 1), 2**63, False),
        (Tile(None, 0, 3), 2, False),
        (Tile(None, 0, 3), 3, True),
        (Tile(0, 0, 1), 0, False),
    ],
)
def test_a_tile_exists_when_the_tree_has_all_its_hashes(tile: Tile, size: int, exists: bool) -> None:
    assert tile.exists_in(size) is exists


def test_a_tile_names_its_places_at_its_height() -> None:
    tile = Tile(1, 2, 17)
    assert (tile.start, tile.end) == (512, 529)


def test_a_bundle_has_the_length_before_each_entry() -> None:
    assert entry_bundle([b"ab", b"", b"c" * 258]) == b"\x00\x02ab\x00\x00\x01\x02" + b"c" * 258


@given(st.lists(st.binary(max_size=300), max_size=256))
def test_a_bundle_reads_back_the_same(entries: list[bytes]) -> None:
    assert read_entry_bundle(entry_bundle(entries)) == entries


def test_the_longest_entry_fits_a_bundle() -> None:
    longest = bytes(65_535)
    assert read_entry_bundle(entry_bundle([longest])) == [longest]


def test_an_entry_that_is_too_long_is_not_bundled() -> None:
    with pytest.raises(ValueError, match="entry 1 of the bundle has 65536 bytes"):
        entry_bundle([b"", bytes(65_536)])


def test_more_entries_than_a_tile_holds_are_not_bundled() -> None:
    with pytest.raises(ValueError, match="257 entries"):
        entry_bundle([b""] * 257)


@pytest.mark.parametrize("cut", range(1, 8))
def test_a_truncated_bundle_is_not_read(cut: int) -> None:
    whole = entry_bundle([b"first", b"twelve bytes"])
    with pytest.raises(ValueError, match="ends inside entry 1"):
        read_entry_bundle(whole[:-cut])


def test_a_bundle_that_ends_inside_a_length_is_not_read() -> None:
    with pytest.raises(ValueError, match="ends inside entry 0"):
        read_entry_bundle(b"\x00")


def test_a_bundle_of_more_entries_than_a_tile_holds_is_not_read() -> None:
    with pytest.raises(ValueError, match="goes on after 256"):
        read_entry_bundle(bytes(2 * 257))
