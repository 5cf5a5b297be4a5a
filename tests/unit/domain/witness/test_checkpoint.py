"""Signed checkpoints: the published examples are read and verified, and everything malformed is refused."""

from __future__ import annotations

from base64 import b64encode

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from domain.errors.witness import VerificationRefusedError
from domain.witness.checkpoint import (
    COSIGNATURE_V1,
    ED25519,
    Checkpoint,
    NoteSignature,
    SignedNote,
    VerifierKey,
    cosignature_message,
    open_checkpoint,
)

_EXAMPLE_VKEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
_EXAMPLE_NOTE = (
    "This is an example message.\n"
    "\n"
    "\u2014 example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
)
_GO_VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
_COSIGNED = (
    "example.com/behind-the-sofa\n"
    "20852163\n"
    "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    "\n"
    "\u2014 example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
    "\u2014 witness.example.com/w1 "
    "jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n"
)

_ORIGIN = "conclave.example/log"
_PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
_KEY = VerifierKey(_ORIGIN, ED25519, _PRIVATE.public_key().public_bytes_raw())
_CHECKPOINT = Checkpoint(_ORIGIN, 151, bytes(range(32)))
_ROOT_LINE = b64encode(bytes(range(32))).decode()


def _check(public_key: bytes, message: bytes, signature: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except InvalidSignature:
        return False
    return True


def _signed(text: str, key: VerifierKey = _KEY) -> str:
    return str(SignedNote(text, (NoteSignature(key.name, key.key_id, _PRIVATE.sign(text.encode())),)))


def _cosigned(text: str, timestamp: int) -> tuple[VerifierKey, NoteSignature]:
    key = VerifierKey("witness.example/w1", COSIGNATURE_V1, _KEY.public_key)
    signature = _PRIVATE.sign(cosignature_message(text, timestamp))
    return key, NoteSignature(key.name, key.key_id, timestamp.to_bytes(8, "big") + signature)


def test_the_published_note_is_read_and_written_back_the_same() -> None:
    note = SignedNote.parse(_EXAMPLE_NOTE)
    assert note.text == "This is an example message.\n"
    assert [(each.name, each.key_id.hex()) for each in note.signatures] == [("example.com/foo", "530d903a")]
    assert str(note) == _EXAMPLE_NOTE


def test_the_published_note_is_signed_by_the_published_key() -> None:
    note = SignedNote.parse(_EXAMPLE_NOTE)
    key = VerifierKey.parse(_EXAMPLE_VKEY)
    assert note.signatures[0].key_id == key.key_id
    assert _check(key.public_key, note.text.encode(), note.signatures[0].signature)
    assert not _check(key.public_key, b"This is another message.\n", note.signatures[0].signature)


@pytest.mark.parametrize("vkey", [_EXAMPLE_VKEY, _GO_VKEY])
def test_a_published_key_is_read_and_written_back_the_same(vkey: str) -> None:
    key = VerifierKey.parse(vkey)
    assert key.algorithm == ED25519
    assert str(key) == vkey
    assert key.key_id.hex() == vkey.split("+")[1]


def test_a_key_with_a_plus_in_its_base64_is_read() -> None:
    key = VerifierKey("example.com/log", ED25519, b"\xef\xbe\xfb" * 10 + b"\xef\xbe")
    assert str(key).count("+") > 2
    assert VerifierKey.parse(str(key)) == key


def test_a_published_note_whose_text_has_empty_lines_is_parted_at_the_last() -> None:
    text = "Ognuno sta solo sul cuor della terra\ntrafitto da un raggio di sole:\n\ned \u00e8 subito sera.\n"
    signature = NoteSignature("quasimodo.example/salvatore", b"\x36\x7b\xa0\x49", bytes(64))
    assert SignedNote.parse(str(SignedNote(text, (signature,)))) == SignedNote(text, (signature,))


@pytest.mark.parametrize("text", ["\n", "a\n\n", "a\n\n\n", "\n\na\n"])
def test_a_text_of_any_empty_lines_reads_back_the_same(text: str) -> None:
    assert SignedNote.parse(_signed(text)).text == text


def test_the_published_cosigned_checkpoint_is_read() -> None:
    note = SignedNote.parse(_COSIGNED)
    checkpoint = Checkpoint.parse(note.text)
    assert (checkpoint.origin, checkpoint.tree_size) == ("example.com/behind-the-sofa", 20852163)
    assert checkpoint.body() == note.text
    assert str(note) == _COSIGNED
    cosignature = note.signatures[1].signature
    assert (len(cosignature), int.from_bytes(cosignature[:8], "big")) == (72, 1679315147)


def test_the_cosigned_message_is_the_published_one() -> None:
    text = SignedNote.parse(_COSIGNED).text
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
        cosignature_message(_CHECKPOINT.body(), timestamp)


@pytest.mark.parametrize("text", [_COSIGNED, "no newline", ""])
def test_only_a_body_is_cosigned(text: str) -> None:
    with pytest.raises(ValueError, match="body"):
        cosignature_message(text, 1)


def test_a_signed_checkpoint_is_opened() -> None:
    checkpoint, note = open_checkpoint(_signed(_CHECKPOINT.body()), _KEY, _check, origin=_ORIGIN)
    assert checkpoint == _CHECKPOINT
    assert note.text == _CHECKPOINT.body()


def test_an_origin_that_nobody_asked_for_is_not_compared() -> None:
    other = Checkpoint("other.example/log", 1, bytes(32))
    assert open_checkpoint(_signed(other.body()), _KEY, _check)[0] == other


def test_extensions_are_signed_and_read() -> None:
    checkpoint = Checkpoint(_ORIGIN, 0, bytes(32), ("one line", "\u2014 and another"))
    assert open_checkpoint(_signed(checkpoint.body()), _KEY, _check)[0] == checkpoint


def test_signatures_by_other_keys_are_passed_over() -> None:
    body = _CHECKPOINT.body()
    stranger = NoteSignature("stranger.example", b"\x00\x01\x02\x03", b"whatever")
    same_name = NoteSignature(_KEY.name, b"\x00\x01\x02\x03", bytes(64))
    same_id = NoteSignature("stranger.example", _KEY.key_id, bytes(64))
    own = NoteSignature(_KEY.name, _KEY.key_id, _PRIVATE.sign(body.encode()))
    note = SignedNote(body, (stranger, same_name, same_id, own))
    assert open_checkpoint(str(note), _KEY, _check) == (_CHECKPOINT, note)


def test_a_cosigned_checkpoint_is_opened_with_the_witness_key() -> None:
    body = _CHECKPOINT.body()
    key, cosignature = _cosigned(body, 1_679_315_147)
    own = SignedNote.parse(_signed(body)).signatures
    assert open_checkpoint(str(SignedNote(body, (*own, cosignature))), key, _check)[0] == _CHECKPOINT


@pytest.mark.parametrize("start", [0, 7, 8, 71])
def test_a_cosignature_with_another_time_or_signature_is_refused(start: int) -> None:
    body = _CHECKPOINT.body()
    key, cosignature = _cosigned(body, 1_679_315_147)
    bad = bytearray(cosignature.signature)
    bad[start] ^= 0x80
    note = SignedNote(body, (NoteSignature(key.name, key.key_id, bytes(bad)),))
    with pytest.raises(VerificationRefusedError, match="not one of this text"):
        open_checkpoint(str(note), key, _check)


def test_a_plain_signature_does_not_pass_for_a_cosignature() -> None:
    body = _CHECKPOINT.body()
    key, _ = _cosigned(body, 1)
    note = SignedNote(body, (NoteSignature(key.name, key.key_id, _PRIVATE.sign(body.encode())),))
    with pytest.raises(VerificationRefusedError, match="not one of this text"):
        open_checkpoint(str(note), key, _check)


def test_a_checkpoint_by_another_key_is_refused_with_both_keys() -> None:
    key = VerifierKey.parse(_GO_VKEY)
    with pytest.raises(VerificationRefusedError, match="no signature by 'PeterNeumann'") as refused:
        open_checkpoint(_signed(_CHECKPOINT.body()), key, _check)
    signer = f"{_ORIGIN}+{_KEY.key_id.hex()}"
    assert refused.value.evidence == {"expected_key": "PeterNeumann+c74f20a3", "signed_by": signer}


def test_a_changed_checkpoint_is_refused() -> None:
    with pytest.raises(VerificationRefusedError, match="not one of this text"):
        open_checkpoint(_signed(_CHECKPOINT.body()).replace("\n151\n", "\n152\n"), _KEY, _check)


def test_one_wrong_signature_of_the_key_spoils_the_note() -> None:
    body = _CHECKPOINT.body()
    good = NoteSignature(_KEY.name, _KEY.key_id, _PRIVATE.sign(body.encode()))
    bad = NoteSignature(_KEY.name, _KEY.key_id, bytes(64))
    for signatures in ((good, bad), (bad, good)):
        with pytest.raises(VerificationRefusedError, match="not one of this text"):
            open_checkpoint(str(SignedNote(body, signatures)), _KEY, _check)


@pytest.mark.parametrize("length", [1, 63, 65])
def test_a_signature_of_another_length_is_refused_before_it_is_checked(length: int) -> None:
    note = SignedNote(_CHECKPOINT.body(), (NoteSignature(_KEY.name, _KEY.key_id, bytes(length)),))
    with pytest.raises(VerificationRefusedError, match="not one of this text"):
        open_checkpoint(str(note), _KEY, lambda *_: True)


def test_a_checkpoint_of_another_log_is_refused_with_both_origins() -> None:
    with pytest.raises(VerificationRefusedError, match="another log") as refused:
        open_checkpoint(_signed(_CHECKPOINT.body()), _KEY, _check, origin="other.example/log")
    assert refused.value.evidence == {"expected_origin": "other.example/log", "origin": _ORIGIN}


def test_a_signed_text_that_is_no_checkpoint_is_refused() -> None:
    with pytest.raises(VerificationRefusedError, match="it needs an origin"):
        open_checkpoint(_EXAMPLE_NOTE, VerifierKey.parse(_EXAMPLE_VKEY), _check)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no blank line"),
        ("\n", "no blank line"),
        (_EXAMPLE_NOTE.replace("\n\n", "\n"), "no blank line"),
        (_EXAMPLE_NOTE.partition("\n\n")[2], "no blank line"),
        ("\n" + _EXAMPLE_NOTE.partition("\n\n")[2], "no blank line"),
        (_EXAMPLE_NOTE.partition("\n\n")[0] + "\n", "no blank line"),
        (_EXAMPLE_NOTE.partition("\n\n")[0] + "\n\n", "no signature after"),
        (_EXAMPLE_NOTE + "\n", "no signature after"),
        (_EXAMPLE_NOTE[:-1], "does not end in a newline"),
        (_EXAMPLE_NOTE + "x", "does not end in a newline"),
        (_EXAMPLE_NOTE + "trailing\n", "em dash"),
        (_EXAMPLE_NOTE + "\ntrailing\n", "em dash"),
        (_EXAMPLE_NOTE.replace("\n", "\r\n"), r"control character '\\r'"),
        (_EXAMPLE_NOTE.replace("message", "mess\x00age"), r"control character '\\x00'"),
        (_EXAMPLE_NOTE.replace("an example", "an\texample"), r"control character '\\t'"),
        (_EXAMPLE_NOTE.replace("=\n", "=\x00\n"), r"control character '\\x00'"),
        (_EXAMPLE_NOTE.replace("message", "\ud800"), "UTF-8"),
        (_EXAMPLE_NOTE.replace("\u2014", "-"), "em dash"),
        (_EXAMPLE_NOTE.replace("\u2014", "\u2013"), "em dash"),
        (_EXAMPLE_NOTE.replace("\u2014 ", "\u2014"), "em dash"),
        (_EXAMPLE_NOTE.replace("\u2014 ", " \u2014 "), "em dash"),
        (_EXAMPLE_NOTE.replace("\u2014 ", "\u2014\u00a0"), "em dash"),
        (_EXAMPLE_NOTE.replace("\u2014 ", "\u2014  "), "base64"),
        (_EXAMPLE_NOTE.replace("foo Uw2", "foo  Uw2"), "base64"),
        (_EXAMPLE_NOTE.replace("foo Uw2", "fooUw2"), "no signature after its key name"),
        (_EXAMPLE_NOTE.replace("foo", "f+oo"), "key name 'example.com/f"),
        (_EXAMPLE_NOTE.replace("foo", "f\u00a0oo"), "key name 'example.com/f"),
        (_EXAMPLE_NOTE.replace("foo", "f\u2028oo"), "key name 'example.com/f"),
        (_EXAMPLE_NOTE.replace("example.com/foo", ""), "key name '' is empty"),
        (_EXAMPLE_NOTE.replace("Uw2Q", "Uw2_"), "not base64"),
        (_EXAMPLE_NOTE.replace("Uw2Q", "Uw2\u00e9"), "not base64"),
        (_EXAMPLE_NOTE.replace("aQM=", "aQM"), "not base64"),
        (_EXAMPLE_NOTE.replace("aQM=", "aQM= "), "not base64"),
        (_EXAMPLE_NOTE.replace("aQM=", "aQM=="), "base64"),
        (_EXAMPLE_NOTE.replace("aQM=", "aQN="), "canonical base64"),
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
        open_checkpoint(text, VerifierKey.parse(_EXAMPLE_VKEY), _check)


def test_a_hundred_signatures_are_read() -> None:
    assert len(SignedNote.parse("text\n\n" + "\u2014 name AAAAAAA=\n" * 100).signatures) == 100


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "0 lines"),
        ("\n", "1 lines"),
        (f"{_ORIGIN}\n151\n", "2 lines"),
        (f"{_ORIGIN}\n151\n{_ROOT_LINE}", "does not end in a newline"),
        (f"{_ORIGIN}\n151\n{_ROOT_LINE}\n\n", "extension ''"),
        (f"{_ORIGIN}\n151\n{_ROOT_LINE}\n\nmore\n", "extension ''"),
        (f"{_ORIGIN}\n151\n{_ROOT_LINE}\nmo\x00re\n", "extension"),
        (f"{_ORIGIN}\r\n151\n{_ROOT_LINE}\n", "origin"),
        (f"{_ORIGIN}\n151\r\n{_ROOT_LINE}\n", "tree size"),
        (f"\n151\n{_ROOT_LINE}\n", "origin ''"),
        (f"a log\n151\n{_ROOT_LINE}\n", "origin 'a log'"),
        (f"a+log\n151\n{_ROOT_LINE}\n", r"origin 'a\+log'"),
        (f"{_ORIGIN}\n0151\n{_ROOT_LINE}\n", "leading zeros"),
        (f"{_ORIGIN}\n00\n{_ROOT_LINE}\n", "leading zeros"),
        (f"{_ORIGIN}\n\n{_ROOT_LINE}\n", "tree size ''"),
        (f"{_ORIGIN}\n-1\n{_ROOT_LINE}\n", "tree size '-1'"),
        (f"{_ORIGIN}\n+1\n{_ROOT_LINE}\n", r"tree size '\+1'"),
        (f"{_ORIGIN}\n1_0\n{_ROOT_LINE}\n", "tree size '1_0'"),
        (f"{_ORIGIN}\n 1\n{_ROOT_LINE}\n", "tree size ' 1'"),
        (f"{_ORIGIN}\n0x1\n{_ROOT_LINE}\n", "tree size '0x1'"),
        (f"{_ORIGIN}\n\u0661\n{_ROOT_LINE}\n", "tree size"),
        (f"{_ORIGIN}\n{2**63}\n{_ROOT_LINE}\n", "tree size 9223372036854775808"),
        (f"{_ORIGIN}\n{'9' * 5000}\n{_ROOT_LINE}\n", "tree size"),
        (f"{_ORIGIN}\n151\n{_ROOT_LINE[:-1]}\n", "not base64"),
        (f"{_ORIGIN}\n151\n{_ROOT_LINE} \n", "not base64"),
        (f"{_ORIGIN}\n151\n{_ROOT_LINE[:-2]}9=\n", "canonical base64"),
        (f"{_ORIGIN}\n151\n{b64encode(bytes(31)).decode()}\n", "31 bytes"),
        (f"{_ORIGIN}\n151\n{b64encode(bytes(33)).decode()}\n", "33 bytes"),
        (f"{_ORIGIN}\n151\n{bytes(32).hex()}\n", "48 bytes"),
    ],
)
def test_a_malformed_checkpoint_is_refused(text: str, reason: str) -> None:
    with pytest.raises(VerificationRefusedError, match=reason):
        Checkpoint.parse(text)


@pytest.mark.parametrize("size", [0, 1, 151, 2**63 - 1])
def test_a_checkpoint_reads_back_the_same(size: int) -> None:
    checkpoint = Checkpoint(_ORIGIN, size, bytes(range(32)))
    assert checkpoint.body() == f"{_ORIGIN}\n{size}\n{_ROOT_LINE}\n"
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
        Checkpoint(_ORIGIN, 0, bytes(32), (extension,))


@pytest.mark.parametrize(("size", "length"), [(-1, 32), (2**63, 32), (1, 31), (1, 0)])
def test_a_checkpoint_that_cannot_be_is_not_made(size: int, length: int) -> None:
    with pytest.raises(ValueError, match=r"the tree size|the root hash"):
        Checkpoint(_ORIGIN, size, bytes(length))


@pytest.mark.parametrize("text", ["", "no newline", "carriage\r\n", "nul\x00\n"])
def test_a_note_of_such_a_text_is_not_made(text: str) -> None:
    with pytest.raises(ValueError, match="note's text"):
        SignedNote(text, ())


@pytest.mark.parametrize(("key_id", "signature"), [(b"", b"x"), (bytes(3), b"x"), (bytes(5), b"x"), (bytes(4), b"")])
def test_a_signature_that_cannot_be_is_not_made(key_id: bytes, signature: bytes) -> None:
    with pytest.raises(ValueError, match=r"key id|is empty"):
        NoteSignature("name", key_id, signature)


@pytest.mark.parametrize(("algorithm", "length"), [(0, 32), (2, 32), (6, 32), (255, 32), (1, 31), (1, 33), (4, 0)])
def test_a_key_that_cannot_be_is_not_made(algorithm: int, length: int) -> None:
    with pytest.raises(ValueError, match=r"algorithm|public key"):
        VerifierKey("name", algorithm, bytes(length))


@pytest.mark.parametrize(
    ("vkey", "reason"),
    [
        ("", "malformed"),
        ("example.com/foo", "malformed"),
        ("example.com/foo+530d903a", "there is no NAME"),
        (_EXAMPLE_VKEY.replace("example.com/foo", ""), "malformed"),
        (_EXAMPLE_VKEY.replace("foo", "f oo"), "malformed"),
        (_EXAMPLE_VKEY.replace("foo", "\ud800"), "malformed"),
        (_EXAMPLE_VKEY.replace("foo", "fop"), "names the id '530d903a'"),
        (_EXAMPLE_VKEY.replace("530d903a", "530d903b"), "names the id '530d903b'"),
        (_EXAMPLE_VKEY.replace("530d903a", "530D903A"), "names the id '530D903A'"),
        (_EXAMPLE_VKEY.replace("530d903a", "530d903"), "names the id '530d903'"),
        (_EXAMPLE_VKEY.replace("530d903a", "0530d903a"), "names the id '0530d903a'"),
        (_EXAMPLE_VKEY.replace("AekyeRrm", "AekyeRrn"), "names the id '530d903a'"),
        (_EXAMPLE_VKEY.replace("AekyeRrm", "BOkyeRrm"), "names the id '530d903a'"),
        (_EXAMPLE_VKEY.replace("AekyeRrm", "BekyeRrm"), "algorithm 5 is unknown"),
        (_EXAMPLE_VKEY.replace("AekyeRrm", "AukyeRrm"), "algorithm 2 is unknown"),
        (_EXAMPLE_VKEY.replace("AekyeRrm", "Aeky*Rrm"), "not base64"),
        (_EXAMPLE_VKEY[:-1], "not base64"),
        (_EXAMPLE_VKEY[:-4], "29 bytes"),
        (_EXAMPLE_VKEY + "AAAA", "35 bytes"),
        (_EXAMPLE_VKEY + "\n", "not base64"),
        (" " + _EXAMPLE_VKEY, "malformed"),
    ],
)
def test_a_malformed_key_is_refused(vkey: str, reason: str) -> None:
    with pytest.raises(VerificationRefusedError, match=reason):
        VerifierKey.parse(vkey)
