"""The keys of webhooks: made once, private, rotated without a gap, and named as receivers look them up."""

from __future__ import annotations

import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from domain.errors.configuration import ConfigurationError
from infrastructure.webhooks import key_ring
from infrastructure.webhooks.key_ring import WebhookKeyRing, jwk_of, thumbprint
from infrastructure.witness.ed25519 import SigningKey
from infrastructure.witness.key_file import open_signing_key
from tests.deliberation_specimens import SettableClock

# RFC 8032, section 7.1, the first test, which RFC 8037 takes for its appendices A.2 and A.3.
PUBLIC = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
THUMBPRINT = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


def test_the_name_of_a_key_is_its_thumbprint_as_the_rfc_computes_it() -> None:
    assert thumbprint(PUBLIC) == THUMBPRINT
    assert jwk_of(PUBLIC) == {
        "kty": "OKP",
        "crv": "Ed25519",
        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
        "kid": THUMBPRINT,
        "use": "sig",
    }


def test_reading_the_public_keys_makes_none(tmp_path: Path) -> None:
    assert WebhookKeyRing(tmp_path).public_keys() == {"keys": []}
    assert list(tmp_path.iterdir()) == []


def test_the_key_is_made_once_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    first = WebhookKeyRing(tmp_path).signing_key()
    assert WebhookKeyRing(tmp_path).signing_key().key_id == first.key_id
    assert stat.S_IMODE((tmp_path / "webhook.key").stat().st_mode) == 0o600
    public = WebhookKeyRing(tmp_path).public_keys()
    assert [key["kid"] for key in public["keys"]] == [first.key_id]
    assert set(public["keys"][0]) == {"kty", "crv", "x", "kid", "use"}


def test_many_who_make_it_at_once_have_the_same_key(tmp_path: Path) -> None:
    together = threading.Barrier(8)

    def make(_: int) -> str:
        together.wait()
        return WebhookKeyRing(tmp_path).signing_key().key_id

    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(make, range(8)))) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["webhook.key"]


def test_a_new_key_signs_and_the_one_before_is_named_for_a_week(tmp_path: Path) -> None:
    clock = SettableClock()
    other_process, keys = WebhookKeyRing(tmp_path, clock=clock), WebhookKeyRing(tmp_path, clock=clock)
    before = other_process.signing_key().key_id
    after = keys.rotate().key_id
    assert after != before
    assert other_process.signing_key().key_id == after
    assert [key["kid"] for key in keys.public_keys()["keys"]] == [after, before]
    third = keys.rotate().key_id
    assert [key["kid"] for key in keys.public_keys()["keys"]] == [third, after, before]
    clock.advance(timedelta(days=7).total_seconds() + 1)
    assert [key["kid"] for key in keys.public_keys()["keys"]] == [third]
    assert stat.S_IMODE((tmp_path / "webhook.key").stat().st_mode) == 0o600


def test_a_crash_in_the_middle_of_a_rotation_leaves_the_key_that_signs_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = WebhookKeyRing(tmp_path)
    before = keys.signing_key().key_id

    replaced = Path.replace

    def crash(self: Path, target: Path) -> None:
        if Path(target).name == "webhook.key":
            raise OSError("the machine stopped")
        replaced(self, target)

    monkeypatch.setattr(Path, "replace", crash)
    with pytest.raises(OSError, match="stopped"):
        keys.rotate()
    monkeypatch.undo()
    again = WebhookKeyRing(tmp_path)
    assert again.signing_key().key_id == before
    assert [key["kid"] for key in again.public_keys()["keys"]] == [before]


def test_a_key_that_others_may_read_is_refused_as_that_of_webhooks(tmp_path: Path) -> None:
    WebhookKeyRing(tmp_path).signing_key()
    (tmp_path / "webhook.key").chmod(0o640)
    with pytest.raises(ConfigurationError, match="others may use the key") as refused:
        WebhookKeyRing(tmp_path).signing_key()
    assert refused.value.variable == "CONCLAVE_DATA_DIR"
    assert "webhook.key" in refused.value.remedy


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        "[1]",
        '{"retired": 1}',
        '{"retired": [{"key": {}, "retired_at": "x"}]}',
        '{"retired": [{"key": {"x": "Ü"}}]}',
    ],
)
def test_a_damaged_list_of_retired_keys_is_refused_in_words(tmp_path: Path, content: str) -> None:
    keys = WebhookKeyRing(tmp_path)
    keys.rotate()
    (tmp_path / "webhook.retired.json").write_text(content)
    with pytest.raises(ConfigurationError, match="retired") as refused:
        keys.public_keys()
    assert "move it away" in refused.value.remedy


def test_a_key_that_is_replaced_while_it_is_read_signs_once_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    WebhookKeyRing(tmp_path).signing_key()

    def late(path: Path, *, create: bool, name: str) -> SigningKey:
        found = open_signing_key(path, create=create, name=name)
        monkeypatch.undo()
        WebhookKeyRing(tmp_path).rotate()
        return found

    monkeypatch.setattr(key_ring, "open_signing_key", late)
    keys = WebhookKeyRing(tmp_path)
    old, new = keys.signing_key().key_id, keys.signing_key().key_id
    assert new != old
    assert [key["kid"] for key in keys.public_keys()["keys"]] == [new, old]


def test_after_a_rotation_that_stopped_half_way_each_key_is_named_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = WebhookKeyRing(tmp_path)
    before = keys.signing_key().key_id

    def crash(self: Path, target: Path) -> None:
        raise OSError("the machine stopped")

    monkeypatch.setattr(Path, "replace", crash)
    with pytest.raises(OSError, match="stopped"):
        keys.rotate()
    monkeypatch.undo()
    after = keys.rotate().key_id
    assert [key["kid"] for key in keys.public_keys()["keys"]] == [after, before]


def test_a_key_is_rotated_no_oftener_than_all_its_forerunners_can_be_named(tmp_path: Path) -> None:
    clock = SettableClock()
    keys = WebhookKeyRing(tmp_path, clock=clock)
    kids = [keys.rotate().key_id for _ in range(100)]
    with pytest.raises(ConfigurationError, match="retired within a week") as refused:
        keys.rotate()
    assert refused.value.remedy == "Rotate less often."
    named = [key["kid"] for key in keys.public_keys()["keys"]]
    assert (named[0], len(named)) == (kids[-1], 101)
    clock.advance(timedelta(days=7).total_seconds() + 1)
    assert keys.rotate().key_id not in kids
