"""Anchors are read from one setting, and a bad one is refused without repeating what may be secret."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from domain.errors.configuration import ConfigurationError
from domain.witness.checkpoint import COSIGNATURE_V1, ED25519, VerifierKey
from infrastructure.witness.anchors import (
    CosignerAnchorSpec,
    FileAnchorSpec,
    WebhookAnchorSpec,
    open_anchor,
    parse_anchors,
)

_KEY = VerifierKey("witness.example/w1", COSIGNATURE_V1, bytes(range(32)))
_LOG_KEY = VerifierKey("log.example", ED25519, bytes(range(32)))


def test_each_kind_of_anchor_is_read_in_order(tmp_path: Path) -> None:
    text = f"file:{tmp_path}/a.jsonl, webhook:https://hook.example/t0ken?x=1 ,witness:https://witness.example/w/#{_KEY}"
    assert parse_anchors(text) == [
        FileAnchorSpec(tmp_path / "a.jsonl"),
        WebhookAnchorSpec("https://hook.example/t0ken?x=1"),
        CosignerAnchorSpec("https://witness.example/w", _KEY),
    ]


@pytest.mark.parametrize("text", ["", "  ", ",", " , "])
def test_nothing_chosen_is_no_anchor(text: str) -> None:
    assert parse_anchors(text) == []


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("file:", "names no place"),
        ("s3kr3t", "names no place"),
        ("ftp:s3kr3t", "no known kind"),
        ("https://hook.example/s3kr3t", "no known kind"),
        ("webhook:hook.example/s3kr3t", "no address"),
        ("webhook:ftp://hook.example/s3kr3t", "no address"),
        ("webhook:https:///s3kr3t", "no address"),
        ("webhook:https://[s3kr3t", "no address"),
        ("webhook:https://hook.example:s3kr3t/", "no address"),
        ("webhook:https://me:s3kr3t@hook.example/", "password"),
        ("webhook:https://hook.example/s3kr3t a", "characters"),
        ("webhook:https://hook.example/s3kr3t\n", "no place|characters|^$"),
        ("witness:https://witness.example/s3kr3t", "no C2SP vkey"),
        ("witness:https://witness.example/s3kr3t#nonsense", "no C2SP vkey"),
        (f"witness:https://witness.example/s3kr3t#{_LOG_KEY}", "algorithm 4"),
    ],
)
def test_a_bad_anchor_is_counted_and_not_repeated(entry: str, problem: str) -> None:
    if entry.endswith("\n"):
        entry = entry.replace("s3kr3t", "s3kr\n3t")
    with pytest.raises(ConfigurationError, match=problem) as caught:
        parse_anchors(f"file:/var/lib/anchor,{entry}")
    assert caught.value.variable == "CONCLAVE_WITNESS_ANCHORS"
    assert "anchor number 2" in caught.value.problem
    assert "s3kr" not in str(caught.value)


def test_the_same_anchor_twice_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="anchor number 3 stands there twice"):
        parse_anchors("file:/a,file:/b,file:/a")


def test_neither_a_description_nor_a_name_shows_the_address_of_a_webhook() -> None:
    spec = parse_anchors("webhook:https://hook.example/s3kr3t?key=s3kr3t")[0]
    assert "s3kr3t" not in repr(spec)
    assert open_anchor(spec).name == "webhook:hook.example"


def test_an_anchor_is_called_by_its_kind_and_place(tmp_path: Path) -> None:
    file, witness = parse_anchors(f"file:{tmp_path}/a,witness:https://witness.example#{_KEY}")
    assert open_anchor(file).name == f"file:{tmp_path}/a"
    assert open_anchor(witness).name == "witness:witness.example/w1"


def test_a_file_anchor_brings_in_no_http_client(tmp_path: Path) -> None:
    code = (
        "import sys; from infrastructure.witness.anchors import open_anchor, parse_anchors; "
        f"open_anchor(parse_anchors('file:{tmp_path}/a')[0]); print('aiohttp' in sys.modules)"
    )
    sources = Path(__file__).resolve().parents[4] / "src"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=sources)
    assert done.stdout.strip() == "False"
