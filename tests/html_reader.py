"""Reads a page as strictly as no browser does: what is open has to be closed, in order, and every id stands for one thing."""

from __future__ import annotations

from html.parser import HTMLParser

__all__ = ["HtmlReader"]

_VOID = frozenset({"meta", "link", "img", "br", "hr", "input"})
_WITHIN_A_LINE = frozenset({"b", "bdi", "code", "span"})
_SHAPES = frozenset({"circle", "rect", "line", "path", "use"})


class HtmlReader(HTMLParser):
    """The tags of a page with their attributes, and its text. Raises `AssertionError` where elements are not balanced."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.style = ""
        self._open: list[str] = []
        self._text: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []
        ids = [attributes["id"] for _, attributes in self.tags if "id" in attributes]
        assert len(ids) == len(set(ids))

    @property
    def words(self) -> str:
        """All text but the style, with single spaces, one between any two blocks."""
        return " ".join("".join(self._text).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of every element of that name."""
        return [attributes for name, attributes in self.tags if name == tag]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """An element begins, and ends at once where it is void in HTML."""
        assert len(attrs) == len(dict(attrs)), (tag, attrs)
        self.tags.append((tag, dict(attrs)))
        self._part(tag)
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """An element of SVG without content."""
        assert tag in _SHAPES, tag
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        """The innermost open element ends."""
        assert self._open.pop() == tag
        self._part(tag)

    def _part(self, tag: str) -> None:
        if tag not in _WITHIN_A_LINE:
            self._text.append(" ")

    def handle_data(self, data: str) -> None:
        """Text."""
        if self._open[-1:] == ["style"]:
            self.style += data
        else:
            self._text.append(data)
