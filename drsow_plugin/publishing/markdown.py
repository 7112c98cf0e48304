"""Pieces of Markdown: tables, code, links, settings; whatever else is put into them is escaped."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from drsow_plugin.printable import json_line, printable

_ACTIVE = re.compile(
    r"""[\\`*\[\]~$#@!]         # of emphasis, code, links, maths, headings, addresses, pictures
      | _(?![^\W_]) | (?<![^\W_])_  # but not in a name such as best_of
      | (?<=:)/(?=/) | (?<=\bwww)\.  # what would become a link by itself
      | ^[-+=](?=[-+=\s]|$)         # of lists and lines
    """,
    re.VERBOSE | re.IGNORECASE,
)
_NUMBERED = re.compile(r"^(\d{1,9})([.)])(?=\s|$)")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "&#124;"}  # the last in tables too


class Markdown(Markup):
    """Text that is Markdown already; values that are put into it are escaped."""

    __slots__ = ()

    @classmethod
    def escape(cls, s: Any, /) -> Markdown:
        """Return a value as Markdown that shows it as it is, in one line; nothing for ``None``."""
        if isinstance(s, Markdown):
            return s
        text = " ".join(printable("" if s is None else str(s)).split())
        text = _NUMBERED.sub(r"\1\\\2", _ACTIVE.sub(r"\\\g<0>", text))
        return cls("".join(_ENTITIES.get(character, character) for character in text))


def code(value: object) -> Markdown:
    """Return a value as code in a line: nothing in it is Markdown, HTML or a link.

    A bar between the cells of a table cannot be written inside of code in a way that all
    renderers read, so it stands between two pieces of code.
    """
    text = printable(str(value))
    return Markdown("&#124;".join(map(_code, text.split("|"))) if text.strip() else "(empty)")


def _code(text: str) -> str:
    if not text.strip():
        return text
    ticks = _ticks(text, 1)
    # The renderer takes one space away from both ends; without it a back-tick there would merge.
    pad = " " if text.startswith(("`", " ")) or text.endswith(("`", " ")) else ""
    return f"{ticks}{pad}{text}{pad}{ticks}"


def _ticks(text: str, minimum: int) -> str:
    """Return more back-ticks than there are in any run of them."""
    return "`" * max([minimum, *(len(run) + 1 for run in re.findall("`+", text))])


def fence(value: object, language: str = "text") -> Markdown:
    """Return a code block whose fence is longer than any run of back-ticks in the text."""
    text = printable(str(value), lines=True)
    ticks = _ticks(text, 3)
    return Markdown(f"{ticks}{language}\n{text}\n{ticks}")


def link(text: str, address: str) -> Markdown:
    """Return a link."""
    return Markdown("[{}]({})").format(text, Markdown(quote(address, safe=":/")))


def json(value: object) -> Markdown:
    """Return a value as JSON, for a code block."""
    return Markdown(json_line(value))


def table(rows: Iterable[Mapping[str, object]], *, transpose: bool = False) -> Markdown:
    """Return a Markdown table without the columns that are empty in every row.

    Args:
        rows: Cells by name of the column; the first column names the row.
        transpose: Whether each row is written as a column.

    Returns:
        The table, or nothing where nothing but the names of the rows is known.
    """
    listed = [dict(row) for row in rows]
    names = list(dict.fromkeys(name for row in listed for name in row))
    names = [name for name in names if any(row.get(name) not in (None, "") for row in listed)]
    if len(names) < 2:
        return Markdown()
    grid: list[list[object]] = [[*names], *([row.get(name) for name in names] for row in listed)]
    if transpose:
        grid = [list(column) for column in zip(*grid, strict=True)]
    lines = ["| " + " | ".join(map(Markdown.escape, row)) + " |" for row in grid]
    return Markdown("\n".join([lines[0], "|" + " --- |" * len(grid[0]), *lines[1:]]))


def settings(values: Mapping[str, Any] | None, names: Iterable[str]) -> Markdown:
    """Return the settings that are known as ``name value`` in one line."""
    pairs = ((name, (values or {}).get(name)) for name in names)
    return Markdown(", ").join(code(f"{n}={_plain(v)}") for n, v in pairs if v is not None)


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def conversation(messages: object) -> str:
    """Return an example as text: its turns, each behind its role; anything else as JSON."""
    if isinstance(messages, str):
        return messages
    if not isinstance(messages, list) or not all(isinstance(m, Mapping) for m in messages):
        return json_line(messages)
    return "\n\n".join(f"{m.get('role')}: {m.get('content')}" for m in messages)


def short(digest: str | None) -> Markdown | None:
    """Return the beginning of a hash as code."""
    return code(digest[:12]) if digest else None
