"""What a server answered: the checks that hold for every answer, and the refusals in those that are none."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, NoReturn, TypeVar

from conclave_client.document import Document, UnexpectedDocumentError, read_document
from conclave_client.errors import (
    FieldError,
    Problem,
    ProtocolViolationError,
    RedirectRefusedError,
    RefusedError,
    refusal,
)

__all__ = ["Answer", "Head"]

_Document = TypeVar("_Document", bound=Document)

_MOST_FIELD_ERRORS = 100
_MOST_CHARACTERS = 2000


@dataclass(frozen=True, slots=True)
class Head:
    """The status of an answer and its headers, by names in lower case."""

    status: int
    headers: Mapping[str, str]

    @property
    def media_type(self) -> str:
        """What it says its content is, without parameters, in lower case."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def retry_after_s(self) -> float | None:
        """After how many seconds to come back (RFC 9110, section 10.2.3): a number, or a date by the clock of the server itself."""
        value = self.headers.get("retry-after", "").strip()
        if value.isascii() and value.isdigit():
            return float(value[:9])
        until, now = _date(value), _date(self.headers.get("date", ""))
        return None if until is None or now is None else max(0.0, (until - now).total_seconds())


def _date(value: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(value)
    except ValueError:
        return None
    return None if found.tzinfo is None else found


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer of the server at that address. What is read from it raises `ProtocolViolationError` where it is something else."""

    server: str
    head: Head
    content: bytes

    def require(self, *statuses: int, media_type: str) -> None:
        """Check what was answered. Raises `RefusedError` for a refusal, and `RedirectRefusedError` for a redirect."""
        self.check_head(self.server, self.head)
        if self.head.status not in statuses:
            if self.head.status >= 400:
                raise self.refusal()
            self.fail(f"the status is {self.head.status}")
        if self.head.media_type != media_type:
            self.fail(f"the content is no {media_type}")

    @staticmethod
    def check_head(server: str, head: Head) -> None:
        """Refuse an answer that points elsewhere, or whose content is packed: it was asked for as it is."""
        if 300 <= head.status < 400:
            raise RedirectRefusedError(server, f"it points elsewhere ({head.status}), which is not followed")
        if head.headers.get("content-encoding", "identity").strip().lower() not in {"identity", ""}:
            raise ProtocolViolationError(server, "the content is packed, though it was asked for as it is")

    def document(self, kind: type[_Document]) -> _Document:
        """The document that it holds."""
        try:
            return read_document(kind, self.json())
        except UnexpectedDocumentError as error:
            self.fail(str(error))

    def page(self, kind: type[_Document]) -> tuple[tuple[_Document, ...], str | None]:
        """The items of a page, and where the next one begins."""
        page = self.json()
        items, cursor = (page.get("items"), page.get("next_cursor")) if isinstance(page, dict) else (None, None)
        if not isinstance(items, list) or not isinstance(cursor, str | None):
            self.fail("it is no page")
        try:
            return tuple(read_document(kind, item) for item in items), cursor
        except UnexpectedDocumentError as error:
            self.fail(f"in an item of a page, {error}")

    def text(self) -> str:
        """The text that it holds."""
        try:
            return self.content.decode()
        except UnicodeDecodeError:
            self.fail("the text is not UTF-8")

    def json(self) -> Any:
        """The JSON that it holds."""
        try:
            return json.loads(self.content, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            self.fail("the content is no JSON")

    def fail(self, problem: str) -> NoReturn:
        """Raise `ProtocolViolationError`."""
        raise ProtocolViolationError(self.server, problem) from None

    def refusal(self) -> RefusedError:
        """The error that it says, as far as it does: whoever stands in between refuses in words of its own."""
        status, found = self.head.status, self._problem()
        return refusal(
            Problem(
                status=status,
                type=_text(found.get("type")) or "about:blank",
                title=_text(found.get("title")),
                detail=_text(found.get("detail")),
                errors=_field_errors(found.get("errors")),
                state=_text(found.get("state")) or None,
                retry_after_s=self.head.retry_after_s,
                document=found,
            )
        )

    def _problem(self) -> Mapping[str, Any]:
        if self.head.media_type not in {"application/problem+json", "application/json"}:
            return {}
        try:
            found = json.loads(self.content)
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}


def _text(value: object) -> str:
    return value[:_MOST_CHARACTERS] if isinstance(value, str) else ""


def _field_errors(value: object) -> tuple[FieldError, ...]:
    found = [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
    return tuple(
        FieldError(_text(each.get("pointer")), _text(each.get("detail"))) for each in found[:_MOST_FIELD_ERRORS]
    )


def _refuse_constant(_name: str) -> NoReturn:
    raise ValueError("NaN and Infinity are not JSON")
