"""Removes tokens of the Hugging Face Hub, and local paths from everything that is published."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

# A token has 34 characters behind hf_; what is shorter may be the name of a folder, hf_datasets.
_TOKEN = re.compile(r"hf_(?:oauth_|jwt_)[\w.-]{8,}|(?:hf_|api_org_)[A-Za-z0-9]{20,}")
_KEYS = {"token", "hf_token"}
_TEXTS = {"instruction", "description", "prompts", "examples"}  # of domains, not of a machine
_OF_THE_RUN = {"output", "cache_dir"}  # options that say nothing about the data
_OF_SERVERS = re.compile(r"(?:\w+_)?server(?:_key)?")  # addresses, and where a key is


_HIDDEN = "…"


def without_tokens(value: Any, secret: str | None = None) -> Any:
    """Return plain values without anything that is, or looks like, a token of the Hub.

    Args:
        value: A text, or mappings and lists of plain values; left as it is.
        secret: A token that is known, whatever it looks like; one of under 8 characters is none.
    """
    if isinstance(value, str):
        known = secret is not None and len(secret) >= 8
        return _TOKEN.sub("hf_***", value.replace(str(secret), "hf_***") if known else value)
    if isinstance(value, Mapping):
        # A group of rows may be called token; what it holds is no text.
        kept = {k: v for k, v in value.items() if k not in _KEYS or not isinstance(v, str)}
        return {without_tokens(k, secret): without_tokens(v, secret) for k, v in kept.items()}
    if isinstance(value, list | tuple):
        return [without_tokens(item, secret) for item in value]
    return value


def without_local_paths(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return a report with local paths reduced to their last component, and no addresses.

    Args:
        report: Plain values, as ``report.json`` has them.
    """
    values: dict[str, Any] = {name: _shortened(value) for name, value in report.items()}
    if values.get("options"):
        values["options"] = {k: v for k, v in values["options"].items() if k not in _OF_THE_RUN}
    if report.get("input"):
        values["input"] = ", ".join(_name(part) for part in report["input"].split(", "))
    if report.get("command"):
        values["command"] = shlex.join(_arguments(shlex.split(report["command"])))
    return values


def _arguments(given: Iterable[str]) -> Iterator[str]:
    """Yield the words of a command without local paths, and without addresses of servers."""
    is_hidden = False
    for word in given:
        option, equals, _ = word.partition("=")
        names_one = _OF_SERVERS.fullmatch(option.removeprefix("--").replace("-", "_"))
        if option.startswith("--") and names_one:
            is_hidden = not equals
            yield f"{option}={_HIDDEN}" if equals else option
        else:
            yield _HIDDEN if is_hidden else _argument(word)
            is_hidden = False


def _shortened(value: Any) -> Any:
    if isinstance(value, str):
        return _name(value)
    if isinstance(value, Mapping):
        # A group of rows may be called server; what it holds are numbers of it.
        kept = {
            name: inner
            for name, inner in value.items()
            if isinstance(inner, Mapping) or not _OF_SERVERS.fullmatch(name)
        }
        return {n: inner if n in _TEXTS else _shortened(inner) for n, inner in kept.items()}
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
