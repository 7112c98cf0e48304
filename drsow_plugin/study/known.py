"""Pairs of models of which something is known: published, or measured by a study."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import Any

from drsow_plugin.cache import storage_errors
from drsow_plugin.errors import ConfigError
from drsow_plugin.printable import json_line, printable
from drsow_plugin.publishing.markdown import Markdown, code, table
from drsow_plugin.study.findings import Findings
from drsow_plugin.study.text import spelled

OWN_FILE = "DRSOW_PAIRS"
"""The environment variable that names a user's file of pairs."""


@dataclass(frozen=True)
class KnownPair:
    """What is known of a pair on one data set.

    Attributes:
        strong: The strong model, with its options as ``drsow study --model`` takes them.
        weak: The weak one.
        data: What it was measured on.
        accuracy: In percent; of a benchmark with sections the mean of these.
        source: Who measured it.
        sections: Accuracy of each section, in percent.
        low: Lower end of the interval of 95 %, where there is one.
        high: Upper end.
        expected: What is to be expected on new rows, where the pair was chosen among others.
        rows: Number of rows, where that is known.
        memory: Bytes of both models' weights, in the dtype that was used, or in bfloat16.
        date: When, where that is known.
        version: Of this package, where it measured.
    """

    strong: str
    weak: str
    data: str
    accuracy: float
    source: str
    sections: Mapping[str, float] = field(default_factory=dict)
    low: float | None = None
    high: float | None = None
    expected: float | None = None
    rows: int | None = None
    memory: int | None = None
    date: str | None = None
    version: str | None = None


_NAMES = {entry.name for entry in fields(KnownPair)}
_TEXTS = ("strong", "weak", "data", "source")


def known_pairs() -> list[KnownPair]:
    """Return the pairs that the package knows."""
    file = resources.files("drsow_plugin.study") / "pairs.jsonl"
    return _parse(file.read_text(encoding="utf-8"), "pairs.jsonl")


def own_file() -> Path:
    """Return the file of a user's own pairs, which need not be there."""
    return Path(os.environ.get(OWN_FILE) or "~/.config/drsow/pairs.jsonl").expanduser()


def read_pairs(file: Path) -> list[KnownPair]:
    """Return the pairs of a file: a JSON object a line.

    Raises:
        ConfigError: It cannot be read, or a line is no pair.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The pairs of {file} cannot be read: {error}") from error
    return _parse(text, str(file))


def _parse(text: str, file: str) -> list[KnownPair]:
    pairs = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            values: dict[str, Any] = json.loads(line)
            accuracy = float(values["accuracy"])
            if not set(values) <= _NAMES or not all(isinstance(values[n], str) for n in _TEXTS):
                raise ValueError("its names are others")
            if not math.isfinite(accuracy):
                raise ValueError("its accuracy is not finite")
            pairs.append(KnownPair(**values))
        except (ValueError, LookupError, TypeError) as error:
            raise ConfigError(
                f"{file}, line {number} is no pair ({error}). Remove it; 'drsow study --record' "
                "writes such lines."
            ) from error
    return pairs


def record_best(report: Findings) -> Path:
    """Add the best pair of a study to the user's file, and return that.

    Raises:
        ConfigError: The study chose none.
        StorageError: The file cannot be written.
    """
    choice, file = report.choice, own_file()
    if choice is None:
        raise ConfigError("No pair is within memory and cost, so there is none to record.")
    models = {model.name: spelled(model.options) for model in report.models}
    accuracy = choice.accuracy
    line = {
        "strong": models[choice.strong],
        "weak": models[choice.weak],
        "data": report.data,
        "accuracy": round(100 * accuracy.value, 2),
        "low": None if accuracy.low is None else round(100 * accuracy.low, 2),
        "high": None if accuracy.high is None else round(100 * accuracy.high, 2),
        "expected": None if choice.expected is None else round(100 * choice.expected, 2),
        "rows": report.rows,
        "memory": report.pair(choice.strong, choice.weak).memory,
        "date": report.date,
        "version": report.version,
        "source": "drsow study",
    }
    with storage_errors(f"{file} cannot be written", f"Name another file with {OWN_FILE}."):
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8") as lines:
            lines.write(json_line(line) + "\n")
    return file


def fitting(pairs: Iterable[KnownPair], memory: int | None) -> list[KnownPair]:
    """Return the pairs whose weights fit, by data set and the most accurate first."""
    kept = [p for p in pairs if memory is None or (p.memory is not None and p.memory <= memory)]
    return sorted(kept, key=lambda pair: (pair.data.casefold(), -pair.accuracy))


def _cells(pair: KnownPair) -> dict[str, str]:
    interval = "" if pair.low is None or pair.high is None else f" [{pair.low:g}, {pair.high:g}]"
    measured = ", ".join(filter(None, [pair.source, pair.date, pair.version]))
    return {
        "accuracy (%)": f"{pair.accuracy:g}{interval}",
        "memory": "" if pair.memory is None else f"{pair.memory / 1e9:.1f} GB",
        "data": pair.data + ("" if pair.rows is None else f" ({pair.rows:,} rows)"),
        "sections": ", ".join(f"{name} {value:g}" for name, value in pair.sections.items()),
        "source": measured,
    }


def text_table(pairs: Sequence[KnownPair]) -> str:
    """Return pairs as lines for a terminal: what a pair is, and below it what is known."""
    lines = []
    for pair in pairs:
        lines.append(f"{pair.strong} over {pair.weak}")
        cells = [f"{name} {value}" for name, value in _cells(pair).items() if value]
        lines.append(f"    {'; '.join(cells)}")
    return printable("\n".join(lines) or "no pair", lines=True)


def markdown_table(pairs: Sequence[KnownPair]) -> Markdown:
    """Return pairs as a table in Markdown, as docs/models.md has it."""
    return table(
        {"strong": code(pair.strong), "weak": code(pair.weak), **_cells(pair)} for pair in pairs
    )
