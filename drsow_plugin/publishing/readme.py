"""Merging our section and our keys into the README of a data set, which may be the user's."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from drsow_plugin.bounded_yaml import Loader, load_yaml
from drsow_plugin.errors import DataError

BEGIN = "<!-- drsow:begin -->"
END = "<!-- drsow:end -->"
_MARKER = re.compile(r"^<!-- drsow:(begin|end) -->[ \t]*(?:\r?\n|\Z)", re.MULTILINE)
# As huggingface_hub and the Hub itself find the front matter.
_FRONT = re.compile(r"(\s*---(?:\r\n|\r|\n))([\S\s]*?)((?:\r\n|\r|\n)---[ \t]*(?:\r\n|\n|$))")
_TAIL = re.compile(r"(?:^[ \t]*(?:#.*)?(?:\r?\n|\Z))+\Z", re.MULTILINE)
_BY_CLIENT = ("configs", "dataset_info")  # keys that `push_to_hub` keeps up to date
_REPAIR = "Repair it on the Hub and publish again; nothing was uploaded."
_log = logging.getLogger(__name__)


def check(readme: str) -> None:
    """Raise a `DataError` if a README has a front matter that is no YAML mapping."""
    _metadata(_split(readme)[1])


def merge(
    readme: str, section: str, metadata: Mapping[str, Any], *, pushed: str | None = None
) -> str:
    """Return a README with our section and our front matter in it.

    Text outside the markers stays as it is. Where they are damaged (one is missing, or there
    are several) nothing tells our text from the user's: then all of it is kept, only the markers
    go, and the section is appended.

    Args:
        readme: The README as it is, perhaps empty.
        section: Our section, with its markers.
        metadata: Keys for the front matter; what is there wins, unless it is what this has
            written with another section, and tags are united.
        pushed: The README after `push_to_hub`, which parses and dumps the front matter and so
            loses comments, quotes and null values. Only the keys that the client keeps up to
            date are taken from it, unless someone else has edited it since.

    Returns:
        The README to upload.

    Raises:
        DataError: The front matter of the README is no YAML mapping.
    """
    pushed = readme if pushed is None else pushed
    by_client = {k: v for k, v in _metadata(_split(pushed)[1]).items() if k in _BY_CLIENT}
    if _edited(readme, pushed):
        readme = pushed
    opening, front, closing, body = _split(readme)
    newline = "\r\n" if "\r\n" in readme else "\n"
    there = _metadata(front)
    again = _is_whole(body)  # then these keys may be ours, of rows that are no longer there
    missing = {
        key: value
        for key, value in metadata.items()
        if there.get(key) is None or (again and _is_ours(key, there[key]))
    }
    tags = {"tags": _union(there.get("tags"), metadata.get("tags", []))}
    for key, value in (by_client | missing | tags).items():
        front = _with_key(front, key, value, newline)
    if not opening:
        opening, closing = f"---{newline}", f"{newline}---{newline}"
    return opening + front + closing + _with_section(body, section.replace("\n", newline), newline)


def _edited(before: str, now: str) -> bool:
    """Return whether more than the keys of the client is other than it was."""
    *_, front, _, body = _split(before)
    *_, new_front, _, new_body = _split(now)
    old, new = (
        {k: v for k, v in _metadata(text).items() if k not in _BY_CLIENT and v is not None}
        for text in (front, new_front)
    )
    return not front or body != new_body or old != new


def _split(readme: str) -> tuple[str, str, str, str]:
    """Return what opens the front matter, the front matter, what closes it, and the text."""
    match = _FRONT.match(readme)
    if not match:
        return "", "", "", readme
    return match[1], match[2], match[3], readme[match.end() :]


def _metadata(front: str) -> dict[str, Any]:
    try:
        loaded = load_yaml(front)
    except ValueError as error:
        raise DataError(f"The front matter of README.md is no YAML: {error}. {_REPAIR}") from error
    if loaded is not None and not isinstance(loaded, dict):
        raise DataError(
            f"The front matter of README.md is a {type(loaded).__name__}, not keys and values. "
            f"{_REPAIR}"
        )
    return loaded or {}


def _union(there: object, ours: Iterable[str]) -> list[Any]:
    listed = there if isinstance(there, list) else [] if there is None else [there]
    return [*listed, *(tag for tag in ours if tag not in listed)]


def _with_key(front: str, key: str, value: object, newline: str) -> str:
    """Return a front matter with one key set and the text of all others as it was."""
    wanted = {**_metadata(front), key: value}
    if _metadata(front) == wanted:
        return front
    block = _dump({key: value}, newline)
    edited = front.rstrip("\r\n") + newline + block if front.strip() else block
    root = yaml.compose(front, Loader=Loader)
    names = [name for name, _ in root.value] if root else []
    starts = [name.start_mark.index for name in names]
    for name, start, end in zip(names, starts, [*starts[1:], len(front)], strict=False):
        if name.value == key:
            # Comments and blank lines above the next key belong to that one.
            tail = _TAIL.search(front[start:end])
            rest = (tail[0] if tail else "") + front[end:]
            edited = front[:start] + block + (newline + rest if rest else "")
    try:
        if _metadata(edited) == wanted:
            return edited
    except DataError:
        pass
    return _dump(wanted, newline)  # in a style that lines cannot be put into, such as {a: b}


def _dump(values: Mapping[str, Any], newline: str) -> str:
    text: str = yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True)
    return text.strip("\n").replace("\n", newline)


def _is_ours(key: str, value: object) -> bool:
    """Return whether a value follows from the rows, or may be what we wrote of former ones."""
    written = (["machine-generated"], ["found"])
    return key == "size_categories" or (key == "annotations_creators" and value in written)


def _is_whole(body: str) -> bool:
    """Return whether a text has our section, once and with both markers."""
    return [marker[1] for marker in _MARKER.finditer(body)] == ["begin", "end"]


def _with_section(body: str, section: str, newline: str) -> str:
    markers = list(_MARKER.finditer(body))
    if _is_whole(body):
        rest = body[markers[1].end() :]
        return body[: markers[0].start()] + section + newline + rest
    if markers:
        _log.warning("README.md has damaged drsow markers: kept all text, appended a new section.")
        body = _MARKER.sub("", body)
    gap = "" if not body else newline if body.endswith(newline) else 2 * newline
    return body + gap + section + newline
