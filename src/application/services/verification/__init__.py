"""Checks a bundle or a whole log offline, with nothing but a pinned key."""

from application.services.verification.report import (
    UnseenText,
    VerificationReport,
    VerifiedDeliberation,
)
from application.services.verification.verifier import (
    MAX_BUNDLE_BYTES,
    MAX_LINE_BYTES,
    VerificationTools,
    is_log_header,
    verify_bundle,
    verify_log,
)

__all__ = [
    "MAX_BUNDLE_BYTES",
    "MAX_LINE_BYTES",
    "UnseenText",
    "VerificationReport",
    "VerificationTools",
    "VerifiedDeliberation",
    "is_log_header",
    "verify_bundle",
    "verify_log",
]
