"""Signed and cosigned checkpoints: opened with the right key alone, and everything malformed is refused."""

from __future__ import annotations

from base64 import b64encode

import pytest

from domain.errors.witness import VerificationRefusedError
from domain.witness.checkpoint import (
    ED25519,
    Checkpoint,
    NoteSignature,
    SignedNote,
    VerifierKey,
    cosignature_message,
    open_checkpoint,
)
from tests.unit.domain.witness.signed_notes import (
    CHECKPOINT,
    COSIGNED,
    EXAMPLE_NOTE,
    EXAMPLE_VKEY,
    GO_VKEY,
    KEY,
    ORIGIN,
    PRIVATE,
    ROOT_LINE,
    check,
    cosigned,
    signed,
)


def test_the_published_cosigned_checkpoint_is_read() -> None:
    note = SignedNote.parse(COSIGNED)
    checkpoint = Checkpoint.parse(note.text)
    assert (checkpoint.origin, checkpoint.tree_size) == ("example.com/behind-the-sofa", 20852163)
    assert checkpoint.body() == note.text
    assert str(note) == COSIGNED
    cosignature = note.signatures[1].signature
    assert (len(cosignature), int.from_bytes(cosignature[:8], "big")) == (72, 1679315147)


def test_the_cosigned_message_is_the_published_one() -> None:
    text = SignedNote.parse(COSIGNED).text
    assert cosignature_message(text, 1679315147) == (
        b"cosignature/v1\n"
        b"time 1679315147\n"
        b"example.com/behind-the-sofa\n"
        b"20852163\n"
        b"CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    )


@pytest.mark.parametrize("timestamp", [-1, 2**63])
def test_a_time_out_of_range_is_not_cosigned(timestamp: int) -> None:
    with pytest.raises(ValueError, match="seconds since 1970"):
        cosignature_message(CHECKPOINT.body(), timestamp)


@pytest.mark.parametrize("text", [COSIGNED, "no newline", ""])
def test_only_a_body_is_cosigned(text: str) -> None:
    with pytest.raises(ValueError, match="body"):
        cosignature_message(text, 1)


def test_a_signed_checkpoint_is_opened() -> None:
    checkpoint, note = open_checkpoint(signed(CHECKPOINT.body()), KEY, check, origin=ORIGIN)
    assert checkpoint == CHECKPOINT
    assert note.text == CHECKPOINT.body()


def test_an_origin_that_nobody_asked_for_is_not_compared() -> None:
    other = Checkpoint("other.example/log", 1, bytes(32))
    assert open_checkpoint(signed(other.body()), KEY, check)[0] == other


def test_extensions_are_signed_and_read() -> None:
    checkpoint = Checkpoint(ORIGIN, 0, bytes(32), ("one line", "\u2014 and another"))
    assert open_checkpoint(signed(checkpoint.body()), KEY, check)[0] == checkpoint


def test_signatures_by_other_keys_are_passed_over() -> None:
    body = CHECKPOINT.body()
    stranger = NoteSignature("stranger.example", b"\x00\x01\x02\x03", b"whatever")
    same_name = NoteSignature(KEY.name, b"\x00\x01\x02\x03", bytes(64))
    same_id = NoteSignature("stranger.example", KEY.key_id, bytes(64))
    own = NoteSignature(KEY.name, KEY.key_id, PRIVATE.sign(body.encode()))
    note = SignedNote(body, (stranger, same_name, same_id, own))
    assert open_checkpoint(str(note), KEY, check) == (CHECKPOINT, note)


def test_a_cosigned_checkpoint_is_opened_with_the_witness_key() -> None:
    body = CHECKPOINT.body()
    key, cosignature = cosigned(body, 1_679_315_147)
    own = SignedNote.parse(signed(body)).signatures
    assert open_checkpoint(str(SignedNote(body, (*own, cosignature))), key, check)[0] == CHECKPOINT


@pytest.mark.parametrize("start", [0, 7, 8, 71])
def test_a_cosignature_with_another_time_or_signature_is_refused(start: int) -> None:
    body = CHECKPOINT.body()
    key, cosignature = cosigned(body, 1_679_315_147)
    bad = bytearray(cosignature.signature)
    bad[start] ^= 0x80
    note = SignedNote(body, (NoteSignature(key.name, key.key_id, bytes(bad)),))
    with pytest.raises(VerificationRefusedError, match="not one of this text"):
        open_checkpoint(str(note), key, check)


def test_a_plain_signature_does_not_pass_for_a_cosignature() -> None:
    body = CHECKPOINT.body()
    key, _ = cosigned(body, 1)
    note = SignedNote(body, (NoteSignature(key.name, key.key_id, PRIVATE.sign(body.encode())),))
    with pytest.raises(VerificationRefusedError, match="not one of this text"):
        open_checkpoint(str(note), key, check)


def test_a_checkpoint_by_another_key_is_refused_with_both_keys() -> None:
    key = VerifierKey.parse(GO_VKEY)
    with pytest.raises(VerificationRefusedError, match="no signature by 'PeterNeumann'") as refused:
        open_checkpoint(signed(CHECKPOINT.body()), key, check)
    signer = f"{ORIGIN}+{KEY.key_id.hex()}"
    assert refused.value.evidence == {"expected_key": "PeterNeumann+c74f20a3", "signed_by": signer}


def test_a_changed_checkpoint_is_refused() -> None:
    with pytest.raises(VerificationRefusedError, match="not one of this text"):
        open_checkpoint(signed(CHECKPOINT.body()).replace("\n151\n", "\n152\n"), KEY, check)


def test_one_wrong_signature_of_the_key_spoils_the_note() -> None:
    body = CHECKPOINT.body()
    good = NoteSignature(KEY.name, KEY.key_id, PRIVATE.sign(body.encode()))
    bad = NoteSignature(KEY.name, KEY.key_id, bytes(64))
    for signatures in ((good, bad), (bad, good)):
        with pytest.raises(VerificationRefusedError, match="not one of this text"):
            open_checkpoint(str(SignedNote(body, signatures)), KEY, check)


@pytest.mark.parametrize("length", [1, 63, 65])
def test_a_signature_of_another_length_is_refused_before_it_is_checked(length: int) -> None:
    note = SignedNote(CHECKPOINT.body(), (NoteSignature(KEY.name, KEY.key_id, bytes(length)),))
    with pytest.raises(VerificationRefusedError, match="not one of this text"):
        open_checkpoint(str(note), KEY, lambda *_: True)


def test_a_checkpoint_of_another_log_is_refused_with_both_origins() -> None:
    with pytest.raises(VerificationRefusedError, match="another log") as refused:
        open_checkpoint(signed(CHECKPOINT.body()), KEY, check, origin="other.example/log")
    assert refused.value.evidence == {"expected_origin": "other.example/log", "origin": ORIGIN}


def test_a_signed_text_that_is_no_checkpoint_is_refused() -> None:
    with pytest.raises(VerificationRefusedError, match="it needs an origin"):
        open_checkpoint(EXAMPLE_NOTE, VerifierKey.parse(EXAMPLE_VKEY), check)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "0 lines"),
        ("\n", "1 lines"),
        (f"{ORIGIN}\n151\n", "2 lines"),
        (f"{ORIGIN}\n151\n{ROOT_LINE}", "does not end in a newline"),
        (f"{ORIGIN}\n151\n{ROOT_LINE}\n\n", "extension ''"),
        (f"{ORIGIN}\n151\n{ROOT_LINE}\n\nmore\n", "extension ''"),
        (f"{ORIGIN}\n151\n{ROOT_LINE}\nmo\x00re\n", "extension"),
        (f"{ORIGIN}\r\n151\n{ROOT_LINE}\n", "origin"),
        (f"{ORIGIN}\n151\r\n{ROOT_LINE}\n", "tree size"),
        (f"\n151\n{ROOT_LINE}\n", "origin ''"),
        (f"a log\n151\n{ROOT_LINE}\n", "origin 'a log'"),
        (f"a+log\n151\n{ROOT_LINE}\n", r"origin 'a\+log'"),
        (f"{ORIGIN}\n0151\n{ROOT_LINE}\n", "leading zeros"),
        (f"{ORIGIN}\n00\n{ROOT_LINE}\n", "leading zeros"),
        (f"{ORIGIN}\n\n{ROOT_LINE}\n", "tree size ''"),
        (f"{ORIGIN}\n-1\n{ROOT_LINE}\n", "tree size '-1'"),
        (f"{ORIGIN}\n+1\n{ROOT_LINE}\n", r"tree size '\+1'"),
        (f"{ORIGIN}\n1_0\n{ROOT_LINE}\n", "tree size '1_0'"),
        (f"{ORIGIN}\n 1\n{ROOT_LINE}\n", "tree size ' 1'"),
        (f"{ORIGIN}\n0x1\n{ROOT_LINE}\n", "tree size '0x1'"),
        (f"{ORIGIN}\n\u0661\n{ROOT_LINE}\n", "tree size"),
        (f"{ORIGIN}\n{2**63}\n{ROOT_LINE}\n", "tree size 9223372036854775808"),
        (f"{ORIGIN}\n{'9' * 5000}\n{ROOT_LINE}\n", "tree size"),
        (f"{ORIGIN}\n151\n{ROOT_LINE[:-1]}\n", "not base64"),
        (f"{ORIGIN}\n151\n{ROOT_LINE} \n", "not base64"),
        (f"{ORIGIN}\n151\n{ROOT_LINE[:-2]}9=\n", "canonical base64"),
        (f"{ORIGIN}\n151\n{b64encode(bytes(31)).decode()}\n", "31 bytes"),
        (f"{ORIGIN}\n151\n{b64encode(bytes(33)).decode()}\n", "33 bytes"),
        (f"{ORIGIN}\n151\n{bytes(32).hex()}\n", "48 bytes"),
    ],
)
def test_a_malformed_checkpoint_is_refused(text: str, reason: str) -> None:
    with pytest.raises(VerificationRefusedError, match=reason):
        Checkpoint.parse(text)


@pytest.mark.parametrize("size", [0, 1, 151, 2**63 - 1])
def test_a_checkpoint_reads_back_the_same(size: int) -> None:
    checkpoint = Checkpoint(ORIGIN, size, bytes(range(32)))
    assert checkpoint.body() == f"{ORIGIN}\n{size}\n{ROOT_LINE}\n"
    assert Checkpoint.parse(checkpoint.body()) == checkpoint


@pytest.mark.parametrize(
    "name", ["", " ", "a b", "a+b", "a\n", "a\r", "a\x00b", "a\u00a0b", "a\u3000b", "a\u2029b", "a\x85"]
)
def test_no_log_and_no_key_has_such_a_name(name: str) -> None:
    for make in (
        lambda: Checkpoint(name, 0, bytes(32)),
        lambda: NoteSignature(name, bytes(4), bytes(64)),
        lambda: VerifierKey(name, ED25519, bytes(32)),
    ):
        with pytest.raises(ValueError, match="space, plus or newline"):
            make()


@pytest.mark.parametrize("extension", ["", "two\nlines", "\r", "nul\x00"])
def test_an_extension_is_one_line_of_text(extension: str) -> None:
    with pytest.raises(ValueError, match="extension"):
        Checkpoint(ORIGIN, 0, bytes(32), (extension,))


@pytest.mark.parametrize(("size", "length"), [(-1, 32), (2**63, 32), (1, 31), (1, 0)])
def test_a_checkpoint_that_cannot_be_is_not_made(size: int, length: int) -> None:
    with pytest.raises(ValueError, match=r"the tree size|the root hash"):
        Checkpoint(ORIGIN, size, bytes(length))
