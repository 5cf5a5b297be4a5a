"""Cases for a verifier in the browser, each with what the verifier of the command line makes of it."""

from __future__ import annotations

import hashlib
import json
import random
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from domain.errors.witness import VerificationRefusedError
from domain.witness.checkpoint import ED25519, VerifierKey, open_checkpoint
from domain.witness.proof import consistency_proof, verify_consistency, verify_inclusion
from infrastructure.witness.canonical_json import parse_canonical
from tests.witness_formats import LogKey, check_signature, leaf_of, path_of, tree_of
from tests.witness_log import Log
from tests.witness_specimens import choice, erased, free_text, inquorate

__all__ = ["checkpoint_cases", "consistency_cases", "entry_cases", "inclusion_cases", "key_cases"]

Case = dict[str, Any]

_LEAVES = [leaf_of(b"entry %d" % number) for number in range(300)]
_ODD_NOTE_CHARACTERS = "0zA+/= \n\t\r\x00\u00e9\u2014\u2028\ufeff\U0001f697"


def inclusion_cases(*, seed: int) -> Iterator[Case]:
    """Proofs of trees of 1 to 300 leaves, whole and tampered with in every way; hashes in hex."""
    draw = random.Random(seed)
    for size in [*range(1, 230), 255, 256, 257, 299, 300]:
        leaves = _LEAVES[:size]
        root = tree_of(leaves)
        for index in {0, size - 1, draw.randrange(size)}:
            proof = path_of(index, leaves)
            for what, change in _changed_inclusions(index, size, leaves[index], root, proof, draw):
                accepted = _holds(verify_inclusion, **change)
                yield {
                    "what": f"{what}, entry {index} of {size}",
                    "genuine": what == "genuine",
                    "accepted": accepted,
                    "index": change["index"],
                    "size": change["tree_size"],
                    "leaf": change["leaf"].hex(),
                    "root": change["root"].hex(),
                    "hashes": [each.hex() for each in change["proof"]],
                }


def _changed_inclusions(
    index: int, size: int, leaf: bytes, root: bytes, proof: list[bytes], draw: random.Random
) -> Iterator[tuple[str, Case]]:
    genuine: Case = {"index": index, "tree_size": size, "leaf": leaf, "root": root, "proof": proof}
    yield "genuine", genuine
    for what, changed in _changed_proofs(proof, draw):
        yield what, {**genuine, "proof": changed}
    yield "one bit of the leaf", {**genuine, "leaf": _flipped(leaf, draw)}
    yield "one bit of the root", {**genuine, "root": _flipped(root, draw)}
    yield "the next index", {**genuine, "index": index + 1}
    yield "a larger tree", {**genuine, "tree_size": size + 1}
    yield "a tree of twice the size", {**genuine, "tree_size": size * 2}
    if index:
        yield "the index before", {**genuine, "index": index - 1}
        yield "a smaller tree", {**genuine, "tree_size": size - 1}


def consistency_cases(*, seed: int) -> Iterator[Case]:
    """Proofs between sizes of one tree, whole and tampered with in every way; hashes in hex."""
    draw = random.Random(seed)
    roots = [tree_of(_LEAVES[:size]) for size in range(301)]
    chosen = {(first, second) for second in range(20) for first in range(second + 1)}
    chosen |= {(1 << height, second) for height in range(8) for second in (129, 200, 256, 257)}
    chosen |= {
        (first, second) for second in (64, 127, 128, 299) for first in (draw.randrange(second), second - 1, second)
    }
    for first, second in sorted(chosen):
        if first > second:
            continue
        proof = consistency_proof(
            first, second, lambda height, place: tree_of(_LEAVES[place << height : (place + 1) << height])
        )
        genuine: Case = {
            "first": first,
            "second": second,
            "first_root": roots[first],
            "second_root": roots[second],
            "proof": proof,
        }
        changes: list[tuple[str, Case]] = [("genuine", genuine)]
        changes += [(what, {**genuine, "proof": changed}) for what, changed in _changed_proofs(proof, draw)]
        changes += [
            ("one bit of the first root", {**genuine, "first_root": _flipped(roots[first], draw)}),
            ("one bit of the second root", {**genuine, "second_root": _flipped(roots[second], draw)}),
            ("both sizes exchanged", {**genuine, "first": second, "second": first}),
            ("a larger first size", {**genuine, "first": first + 1}),
            ("a larger second size", {**genuine, "second": second + 1}),
        ]
        for what, change in changes:
            yield {
                "what": f"{what}, {first} to {second}",
                "genuine": what == "genuine",
                "accepted": _holds(verify_consistency, **change),
                "first": change["first"],
                "second": change["second"],
                "firstRoot": change["first_root"].hex(),
                "secondRoot": change["second_root"].hex(),
                "hashes": [each.hex() for each in change["proof"]],
            }


def _changed_proofs(proof: Sequence[bytes], draw: random.Random) -> Iterator[tuple[str, list[bytes]]]:
    hashes = list(proof)
    yield "lengthened", [*hashes, draw.randbytes(32)]
    yield "lengthened in front", [draw.randbytes(32), *hashes]
    if not hashes:
        return
    place = draw.randrange(len(hashes))
    yield "cut at its end", hashes[:-1]
    yield "cut in front", hashes[1:]
    yield "one bit", [*hashes[:place], _flipped(hashes[place], draw), *hashes[place + 1 :]]
    yield "a hash that is too short", [*hashes[:place], hashes[place][:31], *hashes[place + 1 :]]
    if len(hashes) > 1:
        yield "swapped", [*hashes[:-2], hashes[-1], hashes[-2]]
        yield "turned round", hashes[::-1]


def checkpoint_cases(*, seed: int) -> Iterator[Case]:
    """Signed notes and the key that is pinned, whole and tampered with."""
    draw = random.Random(seed)
    key, other = LogKey(), LogKey(seed=b"\x08" * 32)
    log = Log(key)
    log.entries = [b"entry %d" % number for number in range(7)]
    genuine = log.checkpoint()
    body, signature = genuine.split("\n\n")
    origin, size, root = body.split("\n")
    foreign = other.sign(f"{body}\n").split("\n\n")[1]
    cosignature = LogKey("witness.example/w", seed=b"\x09" * 32).sign(f"{body}\n").split("\n\n")[1]
    raw = b64decode(signature.split(" ")[2])
    noted: dict[str, str] = {
        "genuine": genuine,
        "another size": genuine.replace(f"\n{size}\n", "\n8\n"),
        "a size with a leading zero": key.sign(f"{origin}\n07\n{root}\n"),
        "a negative size": key.sign(f"{origin}\n-7\n{root}\n"),
        "a size beyond 64 bits": key.sign(f"{origin}\n9223372036854775808\n{root}\n"),
        "the largest size": key.sign(f"{origin}\n9223372036854775807\n{root}\n"),
        "an empty log": log.checkpoint(0),
        "another root": genuine.replace(root, b64encode(bytes(32)).decode()),
        "a short root": key.sign(f"{origin}\n{size}\n{b64encode(bytes(31)).decode()}\n"),
        "a root in sloppy base64": key.sign(f"{origin}\n{size}\n{root[:-2]}{chr(ord(root[-2]) + 1)}=\n"),
        "another origin, signed": key.sign(f"other.example/log\n{size}\n{root}\n"),
        "another origin": genuine.replace(f"{origin}\n{size}", f"other.example/log\n{size}"),
        "an origin with a space": key.sign(f"conclave example\n{size}\n{root}\n"),
        "no root": key.sign(f"{origin}\n{size}\n"),
        "an extension": key.sign(f"{body}\nmore\n"),
        "an empty extension": key.sign(f"{body}\n\nmore\n"),
        "one bit of the signature": f"{body}\n\n\u2014 {origin} {b64encode(raw[:-1] + bytes([raw[-1] ^ 1])).decode()}\n",
        "one bit of the key's id": f"{body}\n\n\u2014 {origin} {b64encode(bytes([raw[0] ^ 1]) + raw[1:]).decode()}\n",
        "a signature cut": f"{body}\n\n\u2014 {origin} {b64encode(raw[:-1]).decode()}\n",
        "a signature lengthened": f"{body}\n\n\u2014 {origin} {b64encode(raw + b'x').decode()}\n",
        "a signature of nothing": f"{body}\n\n\u2014 {origin} {b64encode(raw[:4]).decode()}\n",
        "no newline at the end": genuine[:-1],
        "no blank line": genuine.replace("\n\n", "\n"),
        "no signature": f"{body}\n\n",
        "carriage returns": genuine.replace("\n", "\r\n"),
        "a byte order mark": f"\ufeff{genuine}",
        "text after the signature": f"{genuine}more\n",
        "signed by another key of the same name": f"{body}\n\n{foreign}",
        "a second signature by another key of the same name": f"{genuine}{foreign}",
        "a second signature in front": f"{body}\n\n{foreign}{signature}",
        "a cosignature": f"{genuine}{cosignature}",
        "only a cosignature": f"{body}\n\n{cosignature}",
        "a second signature of the key, wrong": f"{genuine}\u2014 {origin} {b64encode(raw[:4] + bytes(64)).decode()}\n",
        "a hundred and one signatures": genuine
        + "".join(
            LogKey("witness.example/w", seed=bytes([number]) * 32).sign(f"{body}\n").split("\n\n")[1]
            for number in range(100)
        ),
        "a hyphen for the dash": genuine.replace("\u2014", "-"),
        "a lone surrogate": f"{genuine}\ud800",
        "nothing": "",
    }
    for number in range(300):
        odd = draw.choice(_ODD_NOTE_CHARACTERS)
        noted[f"{odd!r} put in, {number}"] = _edited(genuine, odd, draw)
    for what, note in noted.items():
        yield {
            "what": what,
            "genuine": what in {"genuine", "an empty log", "an extension", "a cosignature"},
            "accepted": _holds(_open, note, key.vkey, key.name),
            "note": note,
            "vkey": key.vkey,
        }
    # What the verifier of a bundle refuses beyond the note's own rules.
    yield {
        "what": "the same signature twice",
        "genuine": False,
        "accepted": False,
        "note": f"{genuine}{signature}",
        "vkey": key.vkey,
    }


def key_cases(*, seed: int) -> Iterator[Case]:
    """Keys to pin, right and wrong, each with a checkpoint that the right one signed."""
    draw = random.Random(seed)
    key = LogKey()
    log = Log(key)
    log.entries = [b"entry"]
    note = log.checkpoint()
    name, key_id, encoded = key.vkey.split("+", 2)
    material = b64decode(encoded)

    # Only the two known algorithms are written by the class; the others need the same hash.
    def vkey_of(algorithm: int, public: bytes, own_name: str = name) -> str:
        full = bytes([algorithm]) + public
        digest = hashlib.sha256(own_name.encode() + b"\n" + full).hexdigest()[:8]
        return f"{own_name}+{digest}+{b64encode(full).decode()}"

    keys = {
        "genuine": key.vkey,
        "another key": LogKey(seed=b"\x08" * 32).vkey,
        "another name": LogKey("other.example/log").vkey,
        "another hash": f"{name}+00000000+{encoded}",
        "the hash in capitals": f"{name}+{key_id.upper()}+{encoded}",
        "no hash": f"{name}++{encoded}",
        "an unknown algorithm": vkey_of(2, material[1:]),
        "algorithm 0": vkey_of(0, material[1:]),
        "a witness's algorithm": vkey_of(4, material[1:]),
        "a key that is too short": vkey_of(1, material[1:-1]),
        "a key that is too long": vkey_of(1, material[1:] + b"x"),
        "the hash of another key of the name": f"{name}+{key_id}+{b64encode(bytes([1]) + bytes(32)).decode()}",
        "a point that is none": vkey_of(1, b"\x02" + bytes(31)),
        "no parts": name,
        "nothing": "",
        "a space at the end": f"{key.vkey} ",
        "a name with a space": f"conclave example+{key_id}+{encoded}",
    }
    for _ in range(100):
        place = draw.randrange(len(key.vkey))
        odd = draw.choice([each for each in "0fA+/= \n\u00e9" if each != key.vkey[place]])
        keys[f"{odd!r} at {place}"] = key.vkey[:place] + odd + key.vkey[place + 1 :]
    for what, vkey in keys.items():
        yield {
            "what": what,
            "genuine": what == "genuine",
            "accepted": _holds(_open, note, vkey, name),
            "well_formed": _holds(VerifierKey.parse, vkey) and VerifierKey.parse(vkey).algorithm == ED25519,
            "note": note,
            "vkey": vkey,
        }


def entry_cases(*, seed: int) -> Iterator[Case]:
    """Entries as they were hashed, and the same with a character changed, added or gone."""
    draw = random.Random(seed)
    log = Log().tell(choice(), erased(), free_text(), inquorate())
    said = [entry.decode() for entry in log.entries]
    cases = [("genuine", text) for text in said]
    cases += [(repr(text), text) for text in _ODD_ENTRIES]
    for _ in range(600):
        text, odd = draw.choice(said), draw.choice('0fzA/+=\n \u00e9\U0001f697\x00{}[],:".-')
        cases.append((f"{odd!r} put into {text[:40]!r}", _edited(text, odd, draw)))
    for what, text in cases:
        yield {"what": what, "genuine": what == "genuine", "accepted": _is_entry(text), "entry": text}


_ODD_ENTRIES = (
    '{"type":"a","type":"a"}',
    '{"type":"a","b":1}',
    '{"b":1,"type":"a"}',
    '{"b":1.0,"type":"a"}',
    '{"b":-0,"type":"a"}',
    '{"b":1e2,"type":"a"}',
    '{"b":1e-7,"type":"a"}',
    '{"b":1e21,"type":"a"}',
    '{"b":1e+21,"type":"a"}',
    '{"b":1e400,"type":"a"}',
    '{"b":9007199254740991,"type":"a"}',
    '{"b":9007199254740992,"type":"a"}',
    '{"b":9007199254740993,"type":"a"}',
    '{"b":100000000000000000000,"type":"a"}',
    '{"b":0.1,"type":"a"}',
    '{"b":0.10,"type":"a"}',
    '{"b":NaN,"type":"a"}',
    '{"__proto__":{"type":"x"},"type":"a"}',
    '{"__proto__":1}',
    '{"type":"\\u00e9"}',
    '{"type":"\u00e9"}',
    '{"type":"\\ud800"}',
    '{"type":"\u2028\x7f"}',
    '{"type":"\\u001f\\b\\t\\n\\f\\r\\"\\\\"}',
    '{"type":"\\/"}',
    '{"type":"\\u001F"}',
    '{"\U0001f697":1,"\ufb33":2,"type":"a"}',
    '{"\ufb33":2,"\U0001f697":1,"type":"a"}',
    '{"type":"a","\U0001f697":1,"\ufb33":2}',
    '{"type":"a","\ufb33":2,"\U0001f697":1}',
    '{"type":1}',
    '{"type":null}',
    '["type"]',
    '"type"',
    "null",
    "",
    '{"type":"a"}\n',
    '\ufeff{"type":"a"}',
    '{"type":"' + "a" * 60_000 + '"}',
    '{"a":' + "[" * 20_000 + "]" * 20_000 + ',"type":"a"}',
)


def _is_entry(text: str) -> bool:
    with suppress(VerificationRefusedError, UnicodeEncodeError):
        data = text.encode()
        return len(data) <= 60_000 and type(parse_canonical(data).get("type")) is str
    return False


def _edited(text: str, odd: str, draw: random.Random) -> str:
    """The text with that character written over another, put before one, or with a character less."""
    place = draw.randrange(len(text))
    before, after = text[:place], text[place + 1 :]
    return draw.choice((before + odd + after, before + odd + text[place:], before + after))


def _open(note: str, vkey: str, origin: str) -> None:
    open_checkpoint(note, VerifierKey.parse(vkey), check_signature, origin=origin)


def _holds(check: Callable[..., object], *given: object, **named: object) -> bool:
    try:
        check(*given, **named)
    except VerificationRefusedError:
        return False
    return True


def _flipped(data: bytes, draw: random.Random) -> bytes:
    place = draw.randrange(len(data) * 8)
    changed = bytearray(data)
    changed[place // 8] ^= 1 << place % 8
    return bytes(changed)


def as_script(cases: Sequence[Case]) -> str:
    """The cases as JSON that any JavaScript engine reads as the same texts, lone surrogates included."""
    return json.dumps(cases)
