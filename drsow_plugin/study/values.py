"""Values of a study's options as texts hold them: sizes, numbers, scores, whole models."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

from drsow_plugin.config.parse import parse_number
from drsow_plugin.errors import ConfigError

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kKMGT]?i?B?)", re.IGNORECASE)


def parse_size(name: str, value: object) -> int | None:
    """Return a number of bytes, such as ``24GB``; ``None`` for ``None``."""
    if value is None:
        return None
    found = _SIZE.fullmatch(str(value).strip())
    unit = found[2].upper() if found else ""
    size = float(found[1]) * UNITS[unit] if found and unit in UNITS else 0.0
    if isinstance(value, bool) or size < 1:
        raise ConfigError(f"{name} is a size such as 24GB or 24GiB, got {value!r}.")
    return int(size)


def read_scores(file: str) -> dict[str, dict[str, float]]:
    """Return the benchmark scores of models, by their names, from a CSV file.

    Raises:
        ConfigError: It cannot be read, or a value is no number.
    """
    said = f"scores={file!r}"
    try:
        with Path(file).expanduser().open(encoding="utf-8-sig", newline="") as lines:
            rows = list(csv.DictReader(lines, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error, RuntimeError) as error:
        raise ConfigError(f"{said} cannot be read: {error}") from error
    if not rows or "model" not in rows[0] or len(rows[0]) < 2:
        raise ConfigError(
            f"{said}: needed are a column 'model' with the names of the study's models, and at "
            "least one column of numbers."
        )
    table: dict[str, dict[str, float]] = {}
    for row in rows:
        name = row.pop("model")
        if name in table:
            raise ConfigError(f"{said} has two lines for the model {name!r}. Leave one out.")
        table[name] = {
            column: parse_number(f"{said}, model {name}, {column}", value)
            for column, value in row.items()
            if value not in (None, "")  # what misses is told of the study's models
        }
    return table


def parse_model_text(text: str) -> tuple[str, dict[str, Any]]:
    """Return a model written as ``name=source,option=value`` with its options.

    A part without an equals sign belongs to the value before it, so that JSON may hold commas.

    Raises:
        ConfigError: It is not written so.
    """
    name, equals, rest = text.partition("=")
    if not name or not equals or not rest:
        raise ConfigError(
            f"--model {text!r:.80}: write NAME=SOURCE, and options behind it: "
            "--model plain=demo,template=none."
        )
    source, *parts = rest.split(",")
    options: dict[str, Any] = {"source": source}
    last = "source"
    for part in parts:
        key, equals, value = part.partition("=")
        if equals and re.fullmatch(r"\w+", key):
            last = key
            options[key] = value
        else:
            options[last] = f"{options[last]},{part}"
    return name, options
