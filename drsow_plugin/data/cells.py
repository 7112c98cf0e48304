"""Tables of texts (csv, tsv): each cell as it stands, and conversations as JSON in cells."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drsow_plugin.errors import DataError

if TYPE_CHECKING:
    import datasets

_KEYS = ({"role", "content"}, {"from", "value"})


def column_names(path: Path, separator: str) -> list[str]:
    """Return the names of a table's columns, as pandas has them.

    Where they are known all cells can be read as texts: ``42.50``, ``007`` and ``None`` are
    answers, and no numbers or missing values.

    Raises:
        DataError: A name is there twice.
        ValueError: It is no text in UTF-8, or no table.
    """
    try:
        opened = gzip.open if path.suffix == ".gz" else open
        with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file, delimiter=separator)
            header = next(filter(None, rows), [])
    except csv.Error as error:
        raise ValueError(str(error)) from error
    names = [name or f"Unnamed: {index}" for index, name in enumerate(header)]
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"{path}: the column {name!r} is there twice. Rename or remove one.")
    return names


def parse_cells(data: datasets.Dataset) -> datasets.Dataset:
    """Return a table with the columns of conversations as lists of messages.

    A column is one where every cell that is not empty is a JSON list of messages; any other
    stays the text that it is.
    """
    text = ("string", "large_string")
    texts = [n for n, kind in data.features.items() if getattr(kind, "dtype", "") in text]
    columns = [name for name in texts if _are_conversations(data[name])]
    return data.map(partial(_parsed, columns=columns), batched=True) if columns else data


def _are_conversations(cells: Iterable[str | None]) -> bool:
    checked = map(_is_conversation, filter(None, cells))
    return next(checked, False) and all(checked)


def _is_conversation(cell: str) -> bool:
    if not cell.lstrip().startswith("["):
        return False
    try:
        turns = json.loads(cell)
    except ValueError:
        return False
    return bool(turns) and all(
        isinstance(turn, Mapping) and any(keys <= set(turn) for keys in _KEYS) for turn in turns
    )


def _parsed(
    batch: Mapping[str, Sequence[str | None]], columns: Sequence[str]
) -> dict[str, list[Any]]:
    return {name: [json.loads(cell) if cell else None for cell in batch[name]] for name in columns}
