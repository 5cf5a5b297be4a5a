"""Reads one entry: canonical, of a known type, every field of that type there and of its kind, every committed text found."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterator, Mapping
from datetime import datetime
from typing import Any

from application.services.verification.reading import shown
from domain.errors.witness import VerificationRefusedError
from domain.models.deliberation import DeliberationStatus
from domain.models.roll_call import AgentState
from domain.witness.checkpoint import VerifierKey
from domain.witness.entry import COMPARISON

__all__ = ["AFTER_THE_END", "MAX_ENTRY_BYTES", "WITHIN", "commitments", "read_entry"]

MAX_ENTRY_BYTES = 60_000

_LONGEST_NAME = 128
_WITHOUT_WORDS = frozenset({"call.intended", "agent.ended"})

_Check = Callable[[Any], bool]

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)")
_HASH = re.compile(r"[0-9a-f]{64}")
_STATES = frozenset(state.value for state in AgentState)
_ENDINGS = frozenset(status.value for status in DeliberationStatus if status.is_terminal)


def read_entry(
    raw: bytes, *, index: int, parse_canonical: Callable[[bytes], Mapping[str, Any]]
) -> tuple[Mapping[str, Any], str | None]:
    """The entry with the id of the deliberation it belongs to, None for one of the whole system.

    Raises `VerificationRefusedError` naming the field. Fields beyond those of the type are let be, as a later version
    may write them, but for texts in what agents' calls leave behind.
    """
    if len(raw) > MAX_ENTRY_BYTES:
        raise VerificationRefusedError(
            f"it is {len(raw)} bytes long, at most {MAX_ENTRY_BYTES} are allowed", index=index
        )
    try:
        entry = parse_canonical(raw)
    except VerificationRefusedError as error:
        raise VerificationRefusedError(error.what, index=index, evidence=error.evidence) from error
    except (ValueError, RecursionError) as error:
        raise VerificationRefusedError(f"it is not canonical JSON (RFC 8785): {error}", index=index) from error
    kind = entry.get("type")
    required = _REQUIRED.get(kind) if isinstance(kind, str) else None
    if required is None:
        raise VerificationRefusedError("its type is not known", index=index, evidence={"type": shown(kind)})
    for name, check in (*_EVERY.items(), *required.items()):
        if name not in entry:
            raise VerificationRefusedError(f"an entry of type {kind!r} lacks the field {name!r}", index=index)
        if not check(entry[name]):
            raise _wrong(name, entry[name], index)
    for name, check in _OPTIONAL.get(str(kind), {}).items():
        if name in entry and not check(entry[name]):
            raise _wrong(name, entry[name], index)
    if kind in _WITHOUT_WORDS:
        _want_no_words(entry, {*_EVERY, *required, *_OPTIONAL.get(str(kind), {}), "type", "deliberation_id"}, index)
    return entry, _deliberation_id(entry, index)


def _want_no_words(entry: Mapping[str, Any], known: Container[str], index: int) -> None:
    """Raise `VerificationRefusedError` where a field that no version up to this one has holds words: a log has only their hashes."""
    inner = {name: entry[name] for name in ("usage", "failure") if type(entry.get(name)) is dict}
    beyond = [(name, value) for name, value in entry.items() if name not in known]
    beyond += [each for fields in inner.values() for each in fields.items() if each[0] not in {"kind", "message"}]
    for name, value in beyond:
        if _has_words(value):
            raise VerificationRefusedError(
                f"the field {shown(name)} is not known, and holds a text where only the hash of one may stand",
                index=index,
                evidence={"found": shown(value)},
            )


def _has_words(value: Any) -> bool:
    """Whether there is a text in it that is no name, hash or time."""
    if type(value) is str:
        return len(value) > _LONGEST_NAME or any(letter.isspace() for letter in value)
    if type(value) is dict:
        return any(_has_words(name) or _has_words(each) for name, each in value.items())
    return type(value) is list and any(map(_has_words, value))


def commitments(entry: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Each committed text of an entry that was read: its field and its SHA-256 in hexadecimal digits."""
    for name in _TEXTS[entry["type"]]:
        value = entry[name]
        # A ballot is a commitment only where free text was asked for.
        if isinstance(value, dict):
            yield name, value["sha256"]
    if entry["type"] == "deliberation.accepted":
        for place, member in enumerate(entry["members"]):
            if member["persona"] is not None:
                yield f"members/{place}/persona", member["persona"]["sha256"]
    elif entry["type"] == "agent.ended" and entry["failure"] is not None and entry["failure"]["message"] is not None:
        yield "failure/message", entry["failure"]["message"]["sha256"]


def _deliberation_id(entry: Mapping[str, Any], index: int) -> str | None:
    kind: str = entry["type"]
    deliberation_id: object = entry.get("deliberation_id")
    if kind in _OF_THE_SYSTEM:
        if deliberation_id is not None:
            raise VerificationRefusedError(f"an entry of type {kind!r} belongs to no deliberation", index=index)
        return None
    if not isinstance(deliberation_id, str) or not deliberation_id:
        raise VerificationRefusedError(f"an entry of type {kind!r} names no deliberation", index=index)
    return deliberation_id


def _wrong(name: str, value: object, index: int) -> VerificationRefusedError:
    return VerificationRefusedError(
        f"the field {name!r} does not hold what it must", index=index, evidence={"found": shown(value)}
    )


def _is_text(value: Any) -> bool:
    return type(value) is str


def _is_time(value: Any) -> bool:
    if type(value) is not str or _TIME.fullmatch(value) is None:
        return False
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return False
    return True


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_number(value: Any) -> bool:
    return type(value) in {int, float}


def _is_amount(value: Any) -> bool:
    return _is_number(value) and value >= 0


def _is_commitment(value: Any) -> bool:
    return type(value) is dict and value.keys() == {"sha256"} and _is_hash(value["sha256"])


def _is_hash(value: Any) -> bool:
    return type(value) is str and _HASH.fullmatch(value) is not None


def _is_key(value: Any) -> bool:
    if type(value) is not str:
        return False
    try:
        VerifierKey.parse(value)
    except VerificationRefusedError:
        return False
    return True


def _or_null(check: _Check) -> _Check:
    return lambda value: value is None or check(value)


def _one_of(names: frozenset[str]) -> _Check:
    return lambda value: type(value) is str and value in names


def _is_object(**fields: _Check) -> _Check:
    def check_object(value: Any) -> bool:
        return type(value) is dict and all(name in value and check(value[name]) for name, check in fields.items())

    return check_object


def _and_optionally(is_object: _Check, **fields: _Check) -> _Check:
    """That object, in which those fields need not be, as entries of an earlier version lack them."""
    return lambda value: is_object(value) and all(check(value[name]) for name, check in fields.items() if name in value)


def _is_list(check: _Check) -> _Check:
    return lambda value: type(value) is list and all(check(item) for item in value)


_text_or_null = _or_null(_is_commitment)
_is_usage = _and_optionally(
    _is_object(calls=_is_count, input_tokens=_is_count, output_tokens=_is_count, cost_usd=_is_amount),
    uncertain_tokens=_is_count,
    uncertain_usd=_is_amount,
)
_is_roll_call = _is_object(asked=_is_count, **dict.fromkeys(_STATES, _is_count))


_is_decision = _or_null(lambda value: type(value) in {int, float, str})
_is_outcome = _is_object(
    status=_is_text,
    decision=_is_decision,
    dissent=_is_object(
        percentage=_or_null(_is_amount),
        positions=_is_list(_is_object(answer=_is_text, count=_is_count, agents=_is_list(_is_text))),
    ),
)


def _is_answer(value: Any) -> bool:
    if value is None or type(value) in {int, float, str}:
        return True
    return _is_commitment(value) or _is_list(_is_count)(value)


def _is_confidence(value: Any) -> bool:
    return value is None or (_is_number(value) and 0 <= value <= 1)


_EVERY: Mapping[str, _Check] = {"at": _is_time}
_ASKED: Mapping[str, _Check] = {"key_name": _text_or_null, "reason": _text_or_null}
_CALL: Mapping[str, _Check] = {"round": _is_count, "agent_id": _is_text, "attempt": _is_count}

_REQUIRED: Mapping[str, Mapping[str, _Check]] = {
    "deliberation.accepted": {
        "question": _text_or_null,
        "context": _text_or_null,
        "answer": _is_object(kind=_is_text),
        "protocol": _is_object(kind=_is_text),
        "rule": _is_object(kind=_is_text),
        "quorum": _is_object(min_answered_fraction=_is_number),
        "limits": _is_object(),
        "members": _is_list(_is_object(agent_id=_is_text, model=_or_null(_is_text), persona=_text_or_null)),
        "seed": _or_null(lambda value: type(value) in {int, str}),
        "origin": _or_null(_is_text),
        "key_name": _text_or_null,
    },
    "round.started": {"round": _is_count, "agents": _is_list(_is_text)},
    "call.intended": {**_CALL, "purpose": _is_text, "model": _or_null(_is_text), "prompt": _text_or_null},
    "texts.compared": {
        **_CALL,
        "purpose": _one_of(frozenset({COMPARISON})),
        "model": _or_null(_is_text),
        "usage": _is_usage,
        "failure": _or_null(_is_text),
    },
    "agent.ended": {
        **_CALL,
        "state": _one_of(_STATES),
        "answer": _is_answer,
        "confidence": _is_confidence,
        "content": _text_or_null,
        "reasoning": _text_or_null,
        "model": _or_null(_is_text),
        "usage": _is_usage,
        "failure": _or_null(_is_object(kind=_is_text, message=_text_or_null)),
    },
    "deliberation.ended": {
        "status": _one_of(_ENDINGS),
        "outcome": _or_null(_is_outcome),
        "roll_call": _is_roll_call,
        "usage": _is_usage,
        "record_sha256": _is_hash,
    },
    **dict.fromkeys(
        ("recounted", "resolved", "erased", "halt.set", "halt.cleared", "key.added", "key.retired", "restore.accepted"),
        _ASKED,
    ),
}
_OPTIONAL: Mapping[str, Mapping[str, _Check]] = {
    "deliberation.accepted": {
        "orchestrator": _is_text,
        "simulated": lambda value: type(value) is bool,
        "roster": _is_text,
        "sampling": _is_object(),
    },
    "call.intended": {
        "prompt_version": _or_null(_is_text),
        "held": _is_object(tokens=_is_count, cost_usd=_or_null(_is_amount)),
        "previous": _or_null(_and_optionally(_is_object(state=_one_of(_STATES), kind=_is_text), usage=_is_usage)),
    },
    "agent.ended": {
        "started_at": _or_null(_is_time),
        "duration_s": _is_amount,
        "truncated": lambda value: type(value) is bool,
        "model_asked": _or_null(_is_text),
        "fell_back": lambda value: type(value) is bool,
    },
    "recounted": {"rule": _is_object(kind=_is_text), "outcome": _or_null(_is_outcome)},
    "resolved": {
        "answer": _is_answer,
        "brier": _or_null(_is_amount),
        "scores": _is_list(_or_null(_is_amount)),
    },
    "key.added": {"vkey": _is_key},
    "key.retired": {"vkey": _is_key},
    "deliberation.ended": {
        "cause": _or_null(_is_text),
        "rounds": _is_list(_is_object(round=_is_count, roll_call=_is_roll_call, tally=_is_object())),
        "certificate": _is_object(
            dissent=_or_null(_is_object(positions=_is_count, agents=_is_count)),
            participation=_is_object(asked=_is_count, took_part=_is_count),
            record=_is_object(entries=_is_count, root_hash=_is_hash),
        ),
    },
}
_TEXTS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(_REQUIRED, ("key_name", "reason")),
    "deliberation.accepted": ("question", "context", "key_name"),
    "round.started": (),
    "call.intended": ("prompt",),
    "texts.compared": (),
    "agent.ended": ("content", "reasoning", "answer"),
    "deliberation.ended": (),
}
_OF_THE_SYSTEM = frozenset({"halt.set", "halt.cleared", "key.added", "key.retired", "restore.accepted"})

WITHIN = frozenset({"round.started", "call.intended", "texts.compared", "agent.ended"})
"""What may stand between the acceptance of a deliberation and its end."""
AFTER_THE_END = frozenset({"recounted", "resolved", "erased"})
"""What may follow the end of a deliberation."""
