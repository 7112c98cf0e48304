"""Pieces of Markdown: tables, code blocks, settings."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any


def fence(text: object, language: str = "text") -> str:
    """Return a code block whose fence is longer than any run of back-ticks in the text."""
    ticks = "`" * max([3, *(len(run) + 1 for run in re.findall("`+", str(text)))])
    return f"{ticks}{language}\n{text}\n{ticks}"


def as_json(value: object) -> str:
    """Return a value as JSON."""
    return json.dumps(value, ensure_ascii=False)


def table(rows: Iterable[Mapping[str, object]], *, transpose: bool = False) -> str:
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
        return ""
    grid: list[list[object]] = [[*names], *([row.get(name) for name in names] for row in listed)]
    if transpose:
        grid = [list(column) for column in zip(*grid, strict=True)]
    lines = ["| " + " | ".join(_cell(value) for value in row) + " |" for row in grid]
    return "\n".join([lines[0], "|" + " --- |" * len(grid[0]), *lines[1:]])


def _cell(value: object) -> str:
    if value is None:
        return ""
    return " ".join(str(value).replace("|", "\\|").split())


def settings(found: Mapping[str, Any] | None, names: Iterable[str]) -> str:
    """Return the settings that are known as ``name value`` in one line."""
    known = {name: (found or {}).get(name) for name in names}
    return ", ".join(f"`{k}={_plain(v)}`" for k, v in known.items() if v is not None)


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def conversation(messages: object) -> str:
    """Return an example as text: its turns, each behind its role; anything else as JSON."""
    if isinstance(messages, str):
        return messages
    if not isinstance(messages, list) or not all(isinstance(m, Mapping) for m in messages):
        return as_json(messages)
    return "\n\n".join(f"{m.get('role')}: {m.get('content')}" for m in messages)


def short(digest: str | None) -> str | None:
    """Return the beginning of a hash as code."""
    return f"`{digest[:12]}`" if digest else None
