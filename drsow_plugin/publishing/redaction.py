"""Nothing of what is published tells how the folders of a machine are called."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

_TEXTS = {"instruction", "description", "prompts", "examples"}  # of domains, not of a machine
_OF_THE_RUN = {"output", "cache_dir"}  # options that say nothing about the data


def without_places(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return a report with local paths reduced to their last component.

    Args:
        report: Plain values, as :class:`drsow_plugin.Report` has them.
    """
    values = {name: _shortened(value) for name, value in report.items()}
    if values.get("options"):
        values["options"] = {k: v for k, v in values["options"].items() if k not in _OF_THE_RUN}
    if report.get("input"):
        values["input"] = ", ".join(_name(part) for part in report["input"].split(", "))
    if report.get("command"):
        values["command"] = shlex.join(_argument(part) for part in shlex.split(report["command"]))
    return values


def _shortened(value: Any) -> Any:
    if isinstance(value, str):
        return _name(value)
    if isinstance(value, Mapping):
        return {n: inner if n in _TEXTS else _shortened(inner) for n, inner in value.items()}
    return [_shortened(inner) for inner in value] if isinstance(value, list) else value


def _argument(text: str) -> str:
    """Return an argument of the command without local paths; plugins may be joined by a plus."""
    parts = text.split("+")
    several = len(parts) > 1 and not Path(text).exists()
    return "+".join(map(_name, parts)) if several else _name(text)


def _name(text: str) -> str:
    """Return the last component of a local path, and any other text as it is."""
    option, equals, path = text.rpartition("=") if text.startswith("--") else ("", "", text)
    if "\n" in path or len(path) > 4096:
        return text
    local = PurePath(path).is_absolute() or path.startswith(("~", "./", "../"))
    if local or ("/" in path and Path(path).exists()):
        return f"{option}{equals}{PurePath(path).name}"
    return text
