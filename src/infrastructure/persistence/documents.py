"""Turns the nouns of the domain into JSON documents and back, exactly, so that they can be stored as text."""

from __future__ import annotations

import dataclasses
import json
import types
from collections.abc import Callable, Hashable, Mapping
from datetime import UTC, datetime
from enum import Enum
from functools import cache
from typing import Any, ClassVar, TypeVar, Union, get_args, get_origin, get_type_hints

from domain.errors.conclave_error import ConclaveError
from domain.models.roll_call import AgentState, RollCall

__all__ = [
    "UnreadableDocumentError",
    "dump",
    "from_document",
    "is_storable",
    "load",
    "time_from_text",
    "time_to_text",
    "to_document",
]

_T = TypeVar("_T")
_Codec = Callable[[Any], Any]

_COUNTED = frozenset({"asked", *(state.value for state in AgentState)})
_encode_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


class UnreadableDocumentError(ConclaveError):
    """A stored document is not what this version writes: nothing of it is guessed, and nothing of it is dropped."""

    slug: ClassVar[str] = "unreadable-document"

    def __init__(self, *, kind: str, problem: str) -> None:
        super().__init__(
            f"a stored {kind} cannot be read: {problem}. Run the version that wrote it, or upgrade the database."
        )
        self.kind = kind
        self.problem = problem


def to_document(value: object) -> Any:
    """The JSON-able document of a dataclass of the domain: fields by their names, tuples as lists, times in RFC 3339."""
    hint: Any = type(value)
    return _encoder(hint)(value)


def from_document(kind: type[_T], document: Any) -> _T:
    """The inverse of `to_document`. A field that is missing takes its default.

    Raises `UnreadableDocumentError` for a field that is unknown, of another type, or missing without a default.
    """
    hint: Any = kind
    decoded: _T = _decoder(hint)(document)
    return decoded


def dump(document: Any) -> str:
    """The document as compact JSON text. Raises `ValueError` for what JSON or UTF-8 cannot hold (NaN, lone surrogates)."""
    text = _encode_json(document)
    if not text.isascii():
        text.encode()
    return text


def load(text: str) -> Any:
    """The document that `dump` wrote. Raises `UnreadableDocumentError` when it is no JSON."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise UnreadableDocumentError(kind="document", problem=f"it is no JSON ({error})") from error


def is_storable(text: str) -> bool:
    """Whether every database takes the text: no NUL, no lone surrogate."""
    if "\x00" in text:
        return False
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def time_to_text(moment: datetime) -> str:
    """The moment in UTC as RFC 3339 text of fixed width, so that texts sort as moments. Raises `ValueError` without a zone."""
    if moment.tzinfo is None:
        raise ValueError(f"{moment!r} has no time zone: times are stored in UTC.")
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    # Without microseconds `isoformat` leaves them out; told to write them, it takes twice the time.
    text = moment.isoformat() if moment.microsecond else moment.isoformat(timespec="microseconds")
    return text[:-6] + "Z"


def time_from_text(document: Any) -> datetime:
    """The inverse of `time_to_text`. Raises `UnreadableDocumentError`."""
    try:
        return datetime.fromisoformat(_checked(document, str, "time"))
    except ValueError as error:
        raise UnreadableDocumentError(kind="time", problem=f"{document!r} is no RFC 3339 time") from error


def _same(value: Any) -> Any:
    return value


@cache
def _encoder(hint: Any) -> _Codec:
    if hint is RollCall:
        return RollCall.as_counts
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _dataclass_encoder(hint)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return lambda member: member.value
    if hint is datetime:
        return time_to_text
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is tuple:
        item = _encoder(arguments[0])
        return list if item is _same else lambda values: [item(value) for value in values]
    if origin is not None and issubclass(origin, Mapping):
        encode = _encoder(arguments[1])
        return dict if encode is _same else lambda mapping: {name: encode(value) for name, value in mapping.items()}
    if origin in {Union, types.UnionType}:
        return _union_encoder(arguments)
    return _same


@cache
def _decoder(hint: Any) -> _Codec:
    if hint is RollCall:
        return _roll_call
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _dataclass_decoder(hint)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _enum_decoder(hint)
    if hint is datetime:
        return time_from_text
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is tuple:
        item = _decoder(arguments[0])
        if item is _text:
            return _texts
        return lambda document: tuple([item(value) for value in _checked(document, list, "list")])
    if origin is not None and issubclass(origin, Mapping):
        value_decoder = _decoder(arguments[1])
        return lambda document: {
            _checked(name, str, "name"): value_decoder(value)
            for name, value in _checked(document, dict, "mapping").items()
        }
    if origin in {Union, types.UnionType}:
        return _union_decoder(arguments)
    if hint is str:
        return _text
    if hint in {int, float, bool}:
        return _number_decoder(hint)
    raise TypeError(f"{hint!r} has no document form: give it one in this module.")


def _dataclass_encoder(kind: type[Any]) -> _Codec:
    hints = get_type_hints(kind)
    plan = [(field.name, _encoder(hints[field.name])) for field in dataclasses.fields(kind)]
    plain = [name for name, encode in plan if encode is _same]
    turned = [(name, encode) for name, encode in plan if encode is not _same]
    order = [name for name, _ in plan]

    def encode_all(value: Any) -> dict[str, Any]:
        document = dict.fromkeys(order)
        for name in plain:
            document[name] = getattr(value, name)
        for name, encode in turned:
            document[name] = encode(getattr(value, name))
        return document

    return encode_all


def _dataclass_decoder(kind: type[Any]) -> _Codec:
    hints = get_type_hints(kind)
    fields = dataclasses.fields(kind)
    decoders = {field.name: _decoder(hints[field.name]) for field in fields}
    required = {
        field.name
        for field in fields
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }

    def decode_all(document: Any) -> Any:
        values = {}
        for name, value in _checked(document, dict, kind.__name__).items():
            decode = decoders.get(name)
            if decode is None:
                raise UnreadableDocumentError(kind=kind.__name__, problem=f"it has an unknown field {name!r}")
            values[name] = decode(value)
        if missing := required - values.keys():
            raise UnreadableDocumentError(kind=kind.__name__, problem=f"it lacks {', '.join(sorted(missing))}")
        return kind(**values)

    return decode_all


def _union_encoder(arms: tuple[Any, ...]) -> _Codec:
    encoders = {get_origin(arm) or arm: _encoder(arm) for arm in arms}
    if all(encode is _same for encode in encoders.values()):
        return _same
    return lambda value: encoders.get(type(value), _same)(value)


def _union_decoder(arms: tuple[Any, ...]) -> _Codec:
    """Tells the arms of a union apart by the JSON type, so a union may hold at most one arm of each."""
    by_type: dict[type, _Codec] = {}
    for arm in arms:
        for json_type in _json_types(arm):
            if json_type in by_type:
                raise TypeError(f"two arms of {arms!r} look the same in JSON: give them one form.")
            # Of these the type is all there is to check, and it is how the arm was found.
            by_type[json_type] = _same if arm in {type(None), str, int, float, bool} else _decoder(arm)

    def decode(document: Any) -> Any:
        found = by_type.get(type(document))
        if found is None:
            raise UnreadableDocumentError(kind="field", problem=f"it holds a {type(document).__name__}")
        return found(document)

    return decode


def _json_types(arm: Any) -> tuple[type, ...]:
    if arm is type(None):
        return (type(None),)
    if get_origin(arm) is tuple:
        return (list,)
    if dataclasses.is_dataclass(arm) or get_origin(arm) is not None:
        return (dict,)
    return (int, float) if arm is float else (arm,) if arm in {int, bool} else (str,)


def _checked(document: Any, kind: type[_T], what: str) -> _T:
    if type(document) is not kind:
        raise UnreadableDocumentError(kind=what, problem=f"it holds a {type(document).__name__}")
    return document


def _text(document: Any) -> str:
    return document if type(document) is str else _checked(document, str, "text")


def _texts(document: Any) -> tuple[str, ...]:
    found = tuple(_checked(document, list, "list"))
    # At once, because an outcome names everybody who took part, several times.
    return found if set(map(type, found)) <= {str} else tuple(map(_text, found))


def _number_decoder(kind: type) -> _Codec:
    def decode(document: Any) -> Any:
        if type(document) is kind or (kind is float and type(document) is int):
            return document
        raise UnreadableDocumentError(kind=kind.__name__, problem=f"it holds a {type(document).__name__}")

    return decode


def _enum_decoder(kind: type[Enum]) -> _Codec:
    members = {member.value: member for member in kind}

    def decode(document: Any) -> Enum:
        found = members.get(document) if isinstance(document, Hashable) else None
        if found is None:
            raise UnreadableDocumentError(kind=kind.__name__, problem=f"{document!r} is none of its values")
        return found

    return decode


def _roll_call(document: Any) -> RollCall:
    counts = _checked(document, dict, "RollCall")
    for name, count in counts.items():
        if name not in _COUNTED:
            raise UnreadableDocumentError(kind="RollCall", problem=f"it has an unknown field {name!r}")
        if type(count) is not int:
            raise UnreadableDocumentError(kind="int", problem=f"it holds a {type(count).__name__}")
    return RollCall.from_counts(counts)
