"""The offline verifier with the specimens' key pinned, asked for its report or for its refusal."""

from __future__ import annotations

from typing import Any

import pytest

from application.services.verification import VerificationReport, VerificationTools, verify_bundle, verify_log
from domain.errors.witness import VerificationRefusedError
from domain.witness.checkpoint import VerifierKey
from tests.witness_formats import Document, LogKey, check_signature, parse_canonical
from tests.witness_log import as_bytes, as_lines

__all__ = ["KEY", "TOOLS", "check_bundle", "check_export", "refusal_of", "refusal_of_export"]


TOOLS = VerificationTools(check_signature=check_signature, parse_canonical=parse_canonical)
KEY = VerifierKey.parse(LogKey().vkey)


def check_bundle(bundle: Document | bytes) -> VerificationReport:
    document = bundle if isinstance(bundle, bytes) else as_bytes(bundle)
    return verify_bundle(document, key=KEY, tools=TOOLS)


def check_export(lines: list[Any] | list[bytes]) -> VerificationReport:
    raw = lines if lines and isinstance(lines[0], bytes) else as_lines(lines)
    return verify_log(iter(raw), key=KEY, tools=TOOLS)


def refusal_of(bundle: Document | bytes) -> VerificationRefusedError:
    with pytest.raises(VerificationRefusedError) as refused:
        check_bundle(bundle)
    return refused.value


def refusal_of_export(lines: list[Any] | list[bytes]) -> VerificationRefusedError:
    with pytest.raises(VerificationRefusedError) as refused:
        check_export(lines)
    return refused.value
