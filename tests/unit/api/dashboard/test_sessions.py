"""A session is what its cookie says and the secret signed, until its time, its end or its key's end."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import stat
import threading
from pathlib import Path

import pytest

from api.rest.sessions import SESSION_S, Sessions
from application.services.api_keys import ApiKey, ApiKeyring

KEYS = ApiKeyring.parse("ann:observer:ann-secret-1,bob:operator:bob-secret-1")
NOON = 1_800_000_000.0


class Hands:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.at = NOON

    def __call__(self) -> float:
        return self.at


def key(name: str, keys: ApiKeyring = KEYS) -> ApiKey:
    return next(each for each in keys if each.name == name)


@pytest.fixture
def hands() -> Hands:
    return Hands()


@pytest.fixture
def sessions(tmp_path: Path, hands: Hands) -> Sessions:
    return Sessions(tmp_path, KEYS, now=hands)


def test_a_cookie_brings_its_session_back(sessions: Sessions) -> None:
    opened, cookie = sessions.open(key("bob"))
    found = sessions.find(cookie)
    assert found == opened
    assert found is not None
    assert found.key == key("bob")


def test_a_cookie_holds_neither_the_secret_nor_its_digest(sessions: Sessions) -> None:
    _, cookie = sessions.open(key("bob"))
    said = b"".join(base64.urlsafe_b64decode(part + "==") for part in cookie.split("."))
    assert b"bob" not in said
    for length in range(8, 33):
        assert key("bob").secret_sha256[:length] not in said


def test_it_ends_after_twelve_hours_and_not_before(sessions: Sessions, hands: Hands) -> None:
    _, cookie = sessions.open(key("bob"))
    hands.at += SESSION_S - 1
    assert sessions.find(cookie) is not None
    hands.at += 1
    assert sessions.find(cookie) is None
    assert SESSION_S == 12 * 3600


def test_every_changed_bit_makes_it_a_forgery(sessions: Sessions) -> None:
    _, cookie = sessions.open(key("bob"))
    said, signature = cookie.split(".")
    for part, data in enumerate((said, signature)):
        raw = base64.urlsafe_b64decode(data + "=" * (-len(data) % 4))
        for bit in range(len(raw) * 8):
            changed = bytearray(raw)
            changed[bit // 8] ^= 1 << bit % 8
            text = base64.urlsafe_b64encode(changed).decode().rstrip("=")
            forged = f"{text}.{signature}" if part == 0 else f"{said}.{text}"
            assert sessions.find(forged) is None


def test_every_cut_makes_it_nobodys(sessions: Sessions) -> None:
    _, cookie = sessions.open(key("bob"))
    for length in range(len(cookie)):
        assert sessions.find(cookie[:length]) is None
    for longer in (cookie + "A", cookie + "=", cookie + ".", "." + cookie, cookie * 2):
        assert sessions.find(longer) is None


@pytest.mark.parametrize("cookie", ["", ".", "..", "a.b", "\udcff.x", "é.é", "=.=", "A" * 100_000, "A" * 255 + "."])
def test_what_is_no_cookie_is_nobodys(sessions: Sessions, cookie: str) -> None:
    assert sessions.find(cookie) is None


def test_a_cookie_of_another_server_is_nobodys(sessions: Sessions, tmp_path: Path, hands: Hands) -> None:
    elsewhere = Sessions(tmp_path / "elsewhere", KEYS, now=hands)
    _, cookie = elsewhere.open(key("bob"))
    assert elsewhere.find(cookie) is not None
    assert sessions.find(cookie) is None


def test_a_removed_key_takes_its_sessions_along(sessions: Sessions, tmp_path: Path, hands: Hands) -> None:
    _, of_bob = sessions.open(key("bob"))
    _, of_ann = sessions.open(key("ann"))
    later = Sessions(tmp_path, ApiKeyring.parse("ann:observer:ann-secret-1"), now=hands)
    assert later.find(of_bob) is None
    assert later.find(of_ann) is not None


def test_a_key_with_a_new_secret_is_another_key(sessions: Sessions, tmp_path: Path, hands: Hands) -> None:
    _, cookie = sessions.open(key("bob"))
    later = Sessions(tmp_path, ApiKeyring.parse("bob:operator:bob-secret-2"), now=hands)
    assert later.find(cookie) is None


def test_a_changed_role_holds_at_once(sessions: Sessions, tmp_path: Path, hands: Hands) -> None:
    _, cookie = sessions.open(key("bob"))
    found = Sessions(tmp_path, ApiKeyring.parse("bob:observer:bob-secret-1"), now=hands).find(cookie)
    assert found is not None
    assert found.key is not None
    assert found.key.role.value == "observer"


def test_a_session_of_nobody_is_worth_nothing_once_there_are_keys(tmp_path: Path, hands: Hands) -> None:
    without = Sessions(tmp_path, ApiKeyring(), now=hands)
    session, cookie = without.open()
    assert without.find(cookie) == session
    assert Sessions(tmp_path, KEYS, now=hands).find(cookie) is None


def test_a_keys_session_is_no_session_without_keys(sessions: Sessions, tmp_path: Path, hands: Hands) -> None:
    _, cookie = sessions.open(key("bob"))
    assert Sessions(tmp_path, ApiKeyring(), now=hands).find(cookie) is None


def test_a_session_outlives_the_server(sessions: Sessions, tmp_path: Path, hands: Hands) -> None:
    opened, cookie = sessions.open(key("bob"))
    restarted = Sessions(tmp_path, KEYS, now=hands)
    assert restarted.find(cookie) == opened
    assert restarted.token(opened) == sessions.token(opened)


def test_an_ended_session_is_ended_in_every_process(sessions: Sessions, tmp_path: Path, hands: Hands) -> None:
    other = Sessions(tmp_path, KEYS, now=hands)
    opened, cookie = sessions.open(key("bob"))
    _, stays = sessions.open(key("bob"))
    assert other.find(cookie) is not None
    sessions.end(opened)
    assert sessions.find(cookie) is None
    assert other.find(cookie) is None
    assert Sessions(tmp_path, KEYS, now=hands).find(cookie) is None
    assert other.find(stays) is not None


def test_notes_of_ended_sessions_go_when_they_say_nothing_more(
    sessions: Sessions, tmp_path: Path, hands: Hands
) -> None:
    first, _ = sessions.open(key("bob"))
    sessions.end(first)
    (note,) = (tmp_path / "signed-out").iterdir()
    hands.at += SESSION_S
    second, _ = sessions.open(key("bob"))
    sessions.end(second)
    assert note not in list((tmp_path / "signed-out").iterdir())
    assert len(list((tmp_path / "signed-out").iterdir())) == 1


def test_the_token_is_the_sessions_own(sessions: Sessions) -> None:
    mine, cookie = sessions.open(key("bob"))
    other, _ = sessions.open(key("bob"))
    assert sessions.knows(mine, sessions.token(mine))
    for wrong in (
        "",
        sessions.token(other),
        sessions.token(mine)[:-1],
        sessions.token(mine).upper(),
        cookie,
        "\udcff",
        "é",
    ):
        assert not sessions.knows(mine, wrong)


def test_the_secret_is_the_owners_alone(sessions: Sessions, tmp_path: Path) -> None:
    sessions.open(key("bob"))
    file = tmp_path / "session.key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(bytes.fromhex(file.read_text(encoding="ascii").strip())) == 32
    assert [entry.name for entry in tmp_path.iterdir()] == ["session.key"]


def test_servers_that_start_at_once_have_one_secret(tmp_path: Path, hands: Hands) -> None:
    folder, gate = tmp_path / "new", threading.Barrier(16)
    made = [Sessions(folder, KEYS, now=hands) for _ in range(16)]
    cookies: list[str] = []

    def work(each: Sessions) -> None:
        gate.wait(10)
        cookies.append(each.open(key("bob"))[1])

    threads = [threading.Thread(target=work, args=(each,)) for each in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(cookies) == 16
    assert all(each.find(cookie) is not None for each in made for cookie in cookies)


@pytest.mark.parametrize("held", ["", "zz", "ab" * 31, "ab" * 33, "\x00" * 64])
def test_a_file_that_is_no_secret_is_not_used_and_not_replaced(
    sessions: Sessions, tmp_path: Path, hands: Hands, held: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "session.key"
    file.write_text(held, encoding="ascii")
    file.chmod(0o600)
    opened, cookie = sessions.open(key("bob"))
    assert sessions.find(cookie) == opened
    assert Sessions(tmp_path, KEYS, now=hands).find(cookie) is None
    assert file.read_text(encoding="ascii") == held
    assert "session.key" in caplog.text


def test_a_secret_that_others_can_read_is_not_used(
    sessions: Sessions, tmp_path: Path, hands: Hands, caplog: pytest.LogCaptureFixture
) -> None:
    sessions.open(key("bob"))
    (tmp_path / "session.key").chmod(0o644)
    _, cookie = Sessions(tmp_path, KEYS, now=hands).open(key("bob"))
    assert sessions.find(cookie) is None
    assert "0644" in caplog.text


def test_a_pipe_in_the_place_of_the_secret_keeps_nobody_waiting(sessions: Sessions, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "session.key", 0o600)
    _, cookie = sessions.open(key("bob"))
    assert sessions.find(cookie) is not None


def test_sign_out_holds_here_also_where_nothing_can_be_written(sessions: Sessions, tmp_path: Path) -> None:
    opened, cookie = sessions.open(key("bob"))
    (tmp_path / "signed-out").write_text("in the way", encoding="ascii")
    sessions.end(opened)
    assert sessions.find(cookie) is None


def test_each_data_folder_has_a_cookie_of_its_own_name(tmp_path: Path) -> None:
    here, there = Sessions(tmp_path / "a", KEYS), Sessions(tmp_path / "b", KEYS)
    assert here.cookie != there.cookie
    assert here.cookie == Sessions(tmp_path / "a", KEYS).cookie
    assert re.fullmatch("conclave_session_[0-9a-f]{16}", here.cookie)


def test_among_the_cookies_of_a_host_each_server_finds_its_own(tmp_path: Path) -> None:
    here, there = Sessions(tmp_path / "a", KEYS), Sessions(tmp_path / "b", KEYS)
    own, foreign = here.open(key("ann")), there.open(key("bob"))
    cookies = {here.cookie: own[1], there.cookie: foreign[1], "conclave_session": foreign[1]}
    assert here.among(cookies) == own[0]
    assert there.among(cookies) == foreign[0]
    assert here.among({there.cookie: own[1]}) is None


def test_who_has_no_such_cookie_leaves_the_folder_as_it_is(tmp_path: Path) -> None:
    assert Sessions(tmp_path / "data", KEYS).among({"other": "x"}) is None
    assert not (tmp_path / "data").exists()


async def test_the_end_of_a_session_is_noticed_wherever_it_was_ended(tmp_path: Path, hands: Hands) -> None:
    here, there = (Sessions(tmp_path, KEYS, now=hands) for _ in range(2))
    session, cookie = here.open(key("bob"))
    assert here.lasts(session)
    found = there.find(cookie)
    assert found is not None
    there.end(found)
    assert not here.lasts(session)
    await asyncio.wait_for(here.over(session), 10)


async def test_a_session_is_over_with_its_time(sessions: Sessions, hands: Hands) -> None:
    session, _ = sessions.open(key("bob"))
    waiting = asyncio.create_task(sessions.over(session, look_s=0))
    await asyncio.sleep(0)
    assert not waiting.done()
    hands.at += SESSION_S
    await asyncio.wait_for(waiting, 10)
