"""The signing key's file is private, whole, and the same for every process that starts at once."""

from __future__ import annotations

import base64
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from domain.errors.configuration import ConfigurationError
from infrastructure.witness.key_file import open_signing_key


def _refusal(path: Path, *, create: bool = True) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        open_signing_key(path, create=create)
    assert caught.value.variable == "CONCLAVE_WITNESS_KEY_FILE"
    return caught.value


def _key_file(path: Path, content: bytes, *, mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_a_first_start_creates_a_private_file_and_later_ones_use_it(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "witness.key"
    before = os.umask(0)
    try:
        key = open_signing_key(path, create=True)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert open_signing_key(path, create=True).public_key == key.public_key
    assert open_signing_key(path, create=False).public_key == key.public_key
    assert [entry.name for entry in path.parent.iterdir()] == ["witness.key"]


def test_a_restrictive_umask_still_gives_a_key_that_its_owner_can_read(tmp_path: Path) -> None:
    before = os.umask(0o777)
    try:
        open_signing_key(tmp_path / "key", create=True)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


def test_the_file_holds_one_line_in_signed_note_form(tmp_path: Path) -> None:
    key = open_signing_key(tmp_path / "key", create=True, name="log.example/conclave")
    prefix, word, name, _, material = (tmp_path / "key").read_text().removesuffix("\n").split("+", 4)
    assert (prefix, word, name) == ("PRIVATE", "KEY", "log.example/conclave")
    assert base64.b64decode(material) == b"\x01" + key.seed


def test_a_published_key_in_signed_note_form_is_read(tmp_path: Path) -> None:
    # From the documentation of golang.org/x/mod/sumdb/note, with the public key that it shows beside it.
    line = b"PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
    public = base64.b64decode("ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
    assert open_signing_key(_key_file(tmp_path / "key", line), create=False).public_key == public[1:]


def test_many_that_start_at_once_use_one_key(tmp_path: Path) -> None:
    barrier = Barrier(16)

    def start(_: int) -> bytes:
        barrier.wait()
        return open_signing_key(tmp_path / "key", create=True).public_key

    with ThreadPoolExecutor(16) as pool:
        assert len(set(pool.map(start, range(16)))) == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]


def test_a_missing_file_is_refused_where_none_may_be_created(tmp_path: Path) -> None:
    assert "No such file" in _refusal(tmp_path / "key", create=False).problem
    assert not (tmp_path / "key").exists()


def test_a_link_to_a_key_elsewhere_is_followed(tmp_path: Path) -> None:
    key = open_signing_key(tmp_path / "there", create=True)
    (tmp_path / "here").symlink_to(tmp_path / "there")
    assert open_signing_key(tmp_path / "here", create=True).public_key == key.public_key


def test_a_link_to_nothing_creates_the_key_where_it_points(tmp_path: Path) -> None:
    (tmp_path / "here").symlink_to(tmp_path / "there")
    open_signing_key(tmp_path / "here", create=True)
    assert (tmp_path / "here").is_symlink()
    assert (tmp_path / "there").is_file()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o602, 0o610])
def test_a_file_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    open_signing_key(tmp_path / "key", create=True)
    (tmp_path / "key").chmod(mode)
    assert f"mode {mode:04o}" in _refusal(tmp_path / "key").problem


def test_an_empty_file_is_refused_and_never_filled(tmp_path: Path) -> None:
    path = _key_file(tmp_path / "key", b"")
    assert "is empty" in _refusal(path).problem
    assert path.read_bytes() == b""


@pytest.mark.parametrize(
    "spoil",
    [
        lambda line: line[:-4],
        lambda line: b"PUBLIC" + line.removeprefix(b"PRIVATE"),
        lambda line: line + line,
        lambda line: line.strip() + b"A" * 5000,
        lambda line: b"\xff\xfe" + line,
        lambda line: b"not a key at all\n",
        lambda line: b"+".join([*line.split(b"+", 4)[:4], base64.b64encode(b"\x04" + bytes(32))]),
        lambda line: b"+".join([*line.split(b"+", 4)[:4], base64.b64encode(b"\x01" + bytes(32))]),
        lambda line: b"+".join([*line.split(b"+", 4)[:3], b"00000000", line.split(b"+", 4)[4]]),
    ],
)
def test_a_malformed_file_is_refused_without_showing_it(tmp_path: Path, spoil: object) -> None:
    open_signing_key(tmp_path / "key", create=True)
    line = (tmp_path / "key").read_bytes()
    material = line.split(b"+", 4)[4].strip().decode()
    error = _refusal(_key_file(tmp_path / "key", spoil(line)))  # type: ignore[operator]
    assert material[:20] not in str(error)
    assert error.__cause__ is None


def test_a_folder_and_a_pipe_are_no_key_files(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe", 0o600)
    assert "folder" in _refusal(tmp_path / "folder").problem
    assert "is no file" in _refusal(tmp_path / "pipe").problem


def test_a_place_that_cannot_be_written_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot be used" in _refusal(tmp_path / "file" / "key").problem
