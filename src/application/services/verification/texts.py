"""Matches disclosed texts with the commitments of the log, in memory that grows with neither."""

from __future__ import annotations

import hashlib
import struct
import tempfile
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any

from application.services.verification.reading import read_hash, want_fields
from application.services.verification.report import MAX_LISTED, UnseenText
from domain.errors.witness import VerificationRefusedError

__all__ = ["CommittedTexts", "SettledTexts"]

_SALT_BYTES = 16
_RECORD = struct.Struct(">QII?32s")
_RECORDS_A_TIME = 4096
_IN_MEMORY_BYTES = 8 * 1024 * 1024
_DISCLOSURES_A_TIME = 50_000
_PROMPT = "prompt"
_DIGITS = frozenset("0123456789abcdef")


class SettledTexts:
    """How many texts are disclosed, withheld and erased, and the first of those that are not there."""

    def __init__(self) -> None:
        self.withheld: list[UnseenText] = []
        self.erased: list[UnseenText] = []
        self.withheld_count = 0
        self.erased_count = 0
        self.prompts = 0


class CommittedTexts:
    """Every commitment of the log: in memory while there are few, in a temporary file when there are many.

    To be used in a `with` statement, which removes that file.
    """

    def __init__(
        self, *, in_memory_bytes: int = _IN_MEMORY_BYTES, disclosures_a_time: int = _DISCLOSURES_A_TIME
    ) -> None:
        """`disclosures_a_time` are held in memory until they are matched, in one pass over all commitments."""
        self._file = tempfile.SpooledTemporaryFile(max_size=in_memory_bytes)  # noqa: SIM115 - closed by `__exit__`
        self._at_a_time = disclosures_a_time
        self._fields: dict[str, int] = {}
        self._waiting: dict[bytes, str] = {}
        self.disclosed = 0

    def __enter__(self) -> CommittedTexts:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, *, index: int, owner: int, field: str, sha256: str) -> None:
        """A commitment of the entry at `index`. `owner` is the number of its deliberation, 0 for none."""
        place = self._fields.setdefault(field, len(self._fields))
        self._file.write(_RECORD.pack(index, owner, place, False, bytes.fromhex(sha256)))

    def disclose(self, disclosure: Mapping[str, Any]) -> None:
        """Take a disclosed text. Raises `VerificationRefusedError` unless it is what it says, and was not given before."""
        want_fields(disclosure, {"sha256": str, "salt": str, "text": str}, what="a disclosure")
        name: str = disclosure["sha256"]
        digest = read_hash(name, what="'sha256' of a disclosure")
        salt: str = disclosure["salt"]
        if len(salt) != 2 * _SALT_BYTES or not _DIGITS.issuperset(salt):
            raise VerificationRefusedError(
                f"the salt of a disclosure is not {_SALT_BYTES} bytes in lower-case hexadecimal digits",
                evidence={"sha256": name},
            )
        try:
            text = disclosure["text"].encode()
        except UnicodeEncodeError as error:
            raise VerificationRefusedError(
                "a disclosed text holds a lone surrogate", evidence={"sha256": name}
            ) from error
        computed = hashlib.sha256(bytes.fromhex(salt) + text).hexdigest()
        if computed != name:
            index, field = self._place_of(digest)
            raise VerificationRefusedError(
                f"{'a disclosed text' if field is None else f'the disclosed text of {field!r}'} "
                "is not the one that was committed to",
                index=index,
                evidence={"sha256": name, "computed": computed},
            )
        if digest in self._waiting:
            raise _twice(name)
        self._waiting[digest] = name
        self.disclosed += 1
        if len(self._waiting) >= self._at_a_time:
            self._match()

    def settle(self, erased_until: Mapping[int, int]) -> SettledTexts:
        """What is not disclosed. `erased_until` gives, for each deliberation with erased texts, the index of the last erasure.

        Raises `VerificationRefusedError` when a disclosed text was never committed to.
        """
        self._match()
        fields = list(self._fields)
        settled = SettledTexts()
        for records in self._chunks():
            for index, owner, place, disclosed, _ in _RECORD.iter_unpack(records):
                if disclosed:
                    continue
                if fields[place] == _PROMPT:
                    settled.prompts += 1
                elif index < erased_until.get(owner, -1):
                    settled.erased_count += 1
                    if len(settled.erased) < MAX_LISTED:
                        settled.erased.append(UnseenText(index, fields[place]))
                else:
                    settled.withheld_count += 1
                    if len(settled.withheld) < MAX_LISTED:
                        settled.withheld.append(UnseenText(index, fields[place]))
        return settled

    def _place_of(self, digest: bytes) -> tuple[int | None, str | None]:
        """The first entry that commits to it, and the field there; None and None where none does."""
        for records in self._chunks():
            for index, _, place, _, committed in _RECORD.iter_unpack(records):
                if committed == digest:
                    return index, list(self._fields)[place]
        return None, None

    def _match(self) -> None:
        """Mark the commitments that the waiting disclosures open, in one pass over all of them."""
        if not self._waiting:
            return
        found: set[bytes] = set()
        start = 0
        for records in self._chunks():
            changed = False
            marked = bytearray(records)
            for place, (index, owner, field, disclosed, digest) in enumerate(_RECORD.iter_unpack(records)):
                if digest in self._waiting:
                    if disclosed:
                        raise _twice(digest.hex())
                    found.add(digest)
                    changed = True
                    _RECORD.pack_into(marked, place * _RECORD.size, index, owner, field, True, digest)
            if changed:
                self._file.seek(start)
                self._file.write(marked)
            start += len(records)
            self._file.seek(start)
        for digest, name in self._waiting.items():
            if digest not in found:
                raise VerificationRefusedError("a disclosed text belongs to no entry", evidence={"sha256": name})
        self._waiting = {}

    def _chunks(self) -> Iterator[bytes]:
        self._file.seek(0)
        while records := self._file.read(_RECORD.size * _RECORDS_A_TIME):
            yield records


def _twice(name: str) -> VerificationRefusedError:
    return VerificationRefusedError("a text is disclosed twice", evidence={"sha256": name})
