"""Makes text from outside harmless on a terminal, by the same words as on a page."""

from __future__ import annotations

from application.pages.visible_text import visible, visible_document, visible_lines

__all__ = ["visible", "visible_document", "visible_lines"]
