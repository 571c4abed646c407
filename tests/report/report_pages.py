"""What the tests of all pages share: a page as its elements, scores, and text that means harm."""

from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

VOID = frozenset({"meta", "br", "wbr", "link", "img", "path", "use"})
HOSTILE = '<script>alert("x")</script><img src=x onerror=alert(1)> &lt; \' {{ 7 * 7 }} $\\frac$ --> </style>\x00\x1b[31m\u202e\ud800 中文'
# What stands where something else was expected.
ODD: list[Any] = [None, True, -1, 0, "x", [], {}, [1], [[1, 2]], [None], {"a": None}, {"value": 1}, float("nan"), 1e308, 10**40, 0.5]


class Page(HTMLParser):
    """A page as its elements: checks nesting, and gathers text, tags, attributes and tables."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.tables: list[tuple[list[str], list[list[str]]]] = []  # classes, rows of cells
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append((str(dict(attributes).get("class")).split(), []))
        elif tag == "tr":
            self.tables[-1][1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][1][-1].append("")

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, text: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.words.append(text)
            if {"td", "th"} & set(self.open):
                self.tables[-1][1][-1][-1] += text

    @property
    def text(self) -> str:
        return flat(" ".join(self.words))

    @property
    def headings(self) -> list[str]:
        return [str(attributes.get("id")) for tag, attributes in self.tags if tag == "section"]

    def table(self, kind: str) -> list[list[str]]:
        """Return the cells of the first table of a class, its head too."""
        return next([[flat(cell) for cell in row] for row in rows] for classes, rows in self.tables if kind in classes)

    def all(self, tag: str, kind: str = "") -> list[dict[str, str | None]]:
        """Return the attributes of every element of a name, and perhaps of a class."""
        found = [attributes for name, attributes in self.tags if name == tag]
        return [attributes for attributes in found if not kind or kind in str(attributes.get("class")).split()]

    def is_harmless(self) -> bool:
        """Return whether nothing in it runs or is fetched."""
        active = {"script", "img", "link", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in self.tags}
        return not active and not [name for _, attributes in self.tags for name in attributes if name.startswith("on")]


def flat(text: str) -> str:
    return " ".join(text.split())


def score(value: float, margin: float = 0.0) -> dict[str, float]:
    return {"value": value, "low": value - margin, "high": value + margin}


def places(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of everything within a JSON value."""
    inner = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in inner:
        yield (*path, key)
        yield from places(value, (*path, key))


def with_odd(content: Any, path: tuple[Any, ...], odd: Any) -> Any:
    """Return a copy of a JSON value with something else at a path."""
    if not path:
        return odd
    copy = dict(content) if isinstance(content, dict) else list(content)
    copy[path[0]] = with_odd(copy[path[0]], path[1:], odd)
    return copy
