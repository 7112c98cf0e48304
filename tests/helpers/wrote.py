"""Pages as a parser of HTML reads them."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any


class Tags(HTMLParser):
    """Collects what a parser of HTML makes of a page.

    Attributes:
        tags: The tags that begin, in order.
        texts: What stands in elements of each tag; of scripts with a type, that after the tag.
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: dict[str, str] = {}
        self._in = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._in = tag + "".join(f" {value}" for name, value in attributes if name == "type")

    def handle_data(self, data: str) -> None:
        self.texts[self._in] = self.texts.get(self._in, "") + data


DATA = "script application/json"


def page_data(html: str) -> dict[str, Any]:
    """Return the data that is in a page."""
    loaded: dict[str, Any] = json.loads(Tags(html).texts[DATA])
    return loaded
