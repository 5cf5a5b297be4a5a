"""Signed notes: the published ones are read and written back the same, and everything malformed is refused."""

from __future__ import annotations

import pytest

from domain.errors.witness import VerificationRefusedError
from domain.witness.checkpoint import (
    NoteSignature,
    SignedNote,
    VerifierKey,
    open_checkpoint,
)
from tests.unit.domain.witness.signed_notes import (
    EXAMPLE_NOTE,
    EXAMPLE_VKEY,
    check,
    signed,
)


def test_the_published_note_is_read_and_written_back_the_same() -> None:
    note = SignedNote.parse(EXAMPLE_NOTE)
    assert note.text == "This is an example message.\n"
    assert [(each.name, each.key_id.hex()) for each in note.signatures] == [("example.com/foo", "530d903a")]
    assert str(note) == EXAMPLE_NOTE


def test_the_published_note_is_signed_by_the_published_key() -> None:
    note = SignedNote.parse(EXAMPLE_NOTE)
    key = VerifierKey.parse(EXAMPLE_VKEY)
    assert note.signatures[0].key_id == key.key_id
    assert check(key.public_key, note.text.encode(), note.signatures[0].signature)
    assert not check(key.public_key, b"This is another message.\n", note.signatures[0].signature)


def test_a_published_note_whose_text_has_empty_lines_is_parted_at_the_last() -> None:
    text = "Ognuno sta solo sul cuor della terra\ntrafitto da un raggio di sole:\n\ned \u00e8 subito sera.\n"
    signature = NoteSignature("quasimodo.example/salvatore", b"\x36\x7b\xa0\x49", bytes(64))
    assert SignedNote.parse(str(SignedNote(text, (signature,)))) == SignedNote(text, (signature,))


@pytest.mark.parametrize("text", ["\n", "a\n\n", "a\n\n\n", "\n\na\n"])
def test_a_text_of_any_empty_lines_reads_back_the_same(text: str) -> None:
    assert SignedNote.parse(signed(text)).text == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no blank line"),
        ("\n", "no blank line"),
        (EXAMPLE_NOTE.replace("\n\n", "\n"), "no blank line"),
        (EXAMPLE_NOTE.partition("\n\n")[2], "no blank line"),
        ("\n" + EXAMPLE_NOTE.partition("\n\n")[2], "no blank line"),
        (EXAMPLE_NOTE.partition("\n\n")[0] + "\n", "no blank line"),
        (EXAMPLE_NOTE.partition("\n\n")[0] + "\n\n", "no signature after"),
        (EXAMPLE_NOTE + "\n", "no signature after"),
        (EXAMPLE_NOTE[:-1], "does not end in a newline"),
        (EXAMPLE_NOTE + "x", "does not end in a newline"),
        (EXAMPLE_NOTE + "trailing\n", "em dash"),
        (EXAMPLE_NOTE + "\ntrailing\n", "em dash"),
        (EXAMPLE_NOTE.replace("\n", "\r\n"), r"control character '\\r'"),
        (EXAMPLE_NOTE.replace("message", "mess\x00age"), r"control character '\\x00'"),
        (EXAMPLE_NOTE.replace("an example", "an\texample"), r"control character '\\t'"),
        (EXAMPLE_NOTE.replace("=\n", "=\x00\n"), r"control character '\\x00'"),
        (EXAMPLE_NOTE.replace("message", "\ud800"), "UTF-8"),
        (EXAMPLE_NOTE.replace("\u2014", "-"), "em dash"),
        (EXAMPLE_NOTE.replace("\u2014", "\u2013"), "em dash"),
        (EXAMPLE_NOTE.replace("\u2014 ", "\u2014"), "em dash"),
        (EXAMPLE_NOTE.replace("\u2014 ", " \u2014 "), "em dash"),
        (EXAMPLE_NOTE.replace("\u2014 ", "\u2014\u00a0"), "em dash"),
        (EXAMPLE_NOTE.replace("\u2014 ", "\u2014  "), "base64"),
        (EXAMPLE_NOTE.replace("foo Uw2", "foo  Uw2"), "base64"),
        (EXAMPLE_NOTE.replace("foo Uw2", "fooUw2"), "no signature after its key name"),
        (EXAMPLE_NOTE.replace("foo", "f+oo"), "key name 'example.com/f"),
        (EXAMPLE_NOTE.replace("foo", "f\u00a0oo"), "key name 'example.com/f"),
        (EXAMPLE_NOTE.replace("foo", "f\u2028oo"), "key name 'example.com/f"),
        (EXAMPLE_NOTE.replace("example.com/foo", ""), "key name '' is empty"),
        (EXAMPLE_NOTE.replace("Uw2Q", "Uw2_"), "not base64"),
        (EXAMPLE_NOTE.replace("Uw2Q", "Uw2\u00e9"), "not base64"),
        (EXAMPLE_NOTE.replace("aQM=", "aQM"), "not base64"),
        (EXAMPLE_NOTE.replace("aQM=", "aQM= "), "not base64"),
        (EXAMPLE_NOTE.replace("aQM=", "aQM=="), "base64"),
        (EXAMPLE_NOTE.replace("aQM=", "aQN="), "canonical base64"),
        ("text\n\n\u2014 name \n", "key id"),
        ("text\n\n\u2014 name AAAA\n", "key id"),
        ("text\n\n\u2014 name AAAAAA==\n", "is empty"),
        ("text\n\n" + "\u2014 name AAAAAAA=\n" * 101, "101 signatures"),
        ("x" * 1_000_001, "1000001 characters"),
    ],
)
def test_a_malformed_note_is_refused(text: str, reason: str) -> None:
    with pytest.raises(VerificationRefusedError, match=reason):
        SignedNote.parse(text)
    with pytest.raises(VerificationRefusedError, match=reason):
        open_checkpoint(text, VerifierKey.parse(EXAMPLE_VKEY), check)


def test_a_hundred_signatures_are_read() -> None:
    assert len(SignedNote.parse("text\n\n" + "\u2014 name AAAAAAA=\n" * 100).signatures) == 100


@pytest.mark.parametrize("text", ["", "no newline", "carriage\r\n", "nul\x00\n"])
def test_a_note_of_such_a_text_is_not_made(text: str) -> None:
    with pytest.raises(ValueError, match="note's text"):
        SignedNote(text, ())


@pytest.mark.parametrize(("key_id", "signature"), [(b"", b"x"), (bytes(3), b"x"), (bytes(5), b"x"), (bytes(4), b"")])
def test_a_signature_that_cannot_be_is_not_made(key_id: bytes, signature: bytes) -> None:
    with pytest.raises(ValueError, match=r"key id|is empty"):
        NoteSignature("name", key_id, signature)
