"""The frame of a page that is whole in itself: its style allowed by hash, everything else forbidden, nothing fetched, nothing run."""

from __future__ import annotations

import base64
import hashlib

__all__ = ["content_policy", "whole_page"]


def content_policy(style: str, *, pictures: bool = False) -> str:
    """The Content-Security-Policy, for `<meta>` as for a header, that allows this style element, and `pictures` that stand in the page."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    images = "img-src data:; " if pictures else ""
    return f"default-src 'none'; style-src 'sha256-{digest}'; {images}base-uri 'none'; form-action 'none'"


def whole_page(*, title: str, style: str, body: str, pictures: bool = False, head: str = "") -> str:
    """An HTML document; all are HTML already but for `style`. `body` brings its own `<body>` element, `head` is added to what is there."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{content_policy(style, pictures=pictures)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="referrer" content="no-referrer">'
        f"{head}<title>{title}</title><style>{style}</style></head>\n{body}</html>\n"
    )
