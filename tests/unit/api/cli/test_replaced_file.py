"""A file is the old one or the whole new one, and nothing lies about."""

import errno
import stat
from contextlib import suppress
from pathlib import Path

import pytest

from api.cli.replaced_file import replaced_file
from domain.errors.configuration import ConfigurationError


def test_the_new_text_takes_the_place_of_the_old(tmp_path: Path) -> None:
    place = tmp_path / "file"
    place.write_text("old", encoding="utf-8")
    with replaced_file(place, private=False) as file:
        file.write("n\u00e9w\n")
        assert place.read_text(encoding="utf-8") == "old"
    assert place.read_bytes() == "n\u00e9w\n".encode()
    assert list(tmp_path.iterdir()) == [place]


def test_where_it_breaks_off_the_old_one_stays_alone(tmp_path: Path) -> None:
    place = tmp_path / "file"
    place.write_text("old", encoding="utf-8")
    with suppress(KeyboardInterrupt), replaced_file(place, private=False) as file:
        file.write("new")
        raise KeyboardInterrupt
    assert place.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [place]


def test_a_private_one_is_nobody_else_s_from_its_first_byte(tmp_path: Path) -> None:
    with replaced_file(tmp_path / "file", private=True):
        (beside,) = tmp_path.iterdir()
        assert stat.S_IMODE(beside.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600


def test_a_link_goes_on_leading_there(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    link.symlink_to(target)
    with replaced_file(link, private=False) as file:
        file.write("new")
    assert link.is_symlink()
    assert target.read_text(encoding="utf-8") == "new"


@pytest.mark.parametrize("place", [".", "missing/file"])
def test_a_place_for_no_file_is_named(tmp_path: Path, place: str) -> None:
    with pytest.raises(ConfigurationError) as raised, replaced_file(tmp_path / place, private=False):
        pytest.fail("there is no such file")
    assert (raised.value.variable, repr(str(tmp_path / place)) in raised.value.problem) == ("FILE", True)


def test_a_disk_that_is_full_is_told_by_the_name_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left") as raised, replaced_file(tmp_path / "file", private=False):
        pass
    assert raised.value.filename == str(tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


def test_a_device_is_never_replaced() -> None:
    with pytest.raises(ConfigurationError, match="is not a file"), replaced_file(Path("/dev/full"), private=False):
        pytest.fail("a device is never replaced")


def test_no_file_is_made_that_is_called_like_standard_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with (
        pytest.raises(ConfigurationError, match="'-' stands for standard output"),
        replaced_file(Path("-"), private=True),
    ):
        pass
    assert list(tmp_path.iterdir()) == []
