"""Ids that nobody gave out, each of them trouble for some database."""

__all__ = ["STRANGE_IDS"]

STRANGE_IDS = ["", "unknown", "\x00", "a\x00b", "\ud800", "x" * 100_000, "'; DROP TABLE events; --", "%s", "🚗"]
