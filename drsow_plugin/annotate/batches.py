"""Rows of a data set as plain columns: a batch of ``datasets.map``, or runs of a whole one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import datasets

from drsow_plugin.annotate.drivers.processes import Shard
from drsow_plugin.annotate.items import read_rows
from drsow_plugin.annotate.layout import Layout
from drsow_plugin.errors import DataError

_NOT_BATCHED = "An Annotator takes batches: call ds.map(annotate, batched=True)."


def check_mapping(batch: object) -> None:
    """Check that a batch is columns by name; of another format ``map`` would lose the rest.

    Raises:
        DataError: It is something else.
    """
    if not isinstance(batch, Mapping):
        raise DataError(
            f"An Annotator takes columns by name, got a {type(batch).__name__}. Call "
            "ds.with_format(None).map(annotate, batched=True)."
        )


def plain_columns(batch: Mapping[str, Sequence[Any]], layout: Layout) -> dict[str, list[Any]]:
    """Return the columns that are read as lists, of whatever format the data set is.

    Raises:
        DataError: This is a single row: texts, or a list of messages, instead of columns.
    """
    features = getattr(getattr(batch, "formatter", None), "features", None)
    values = with_class_names({name: _listed(batch[name]) for name in layout.columns}, features)
    first = values[layout.prompt or layout.responses[0]]
    lengths = {len(column) for column in values.values()}
    if len(lengths) > 1 or any(isinstance(value, Mapping) for value in first):
        raise DataError(_NOT_BATCHED)
    return values


def _listed(column: Any) -> list[Any]:
    if isinstance(column, str):
        raise DataError(_NOT_BATCHED)
    return list(column.tolist() if hasattr(column, "tolist") else column)


def with_class_names(
    values: Mapping[str, list[Any]], features: Mapping[str, Any] | None
) -> dict[str, list[Any]]:
    """Return columns with the names of classes in the place of their numbers.

    Args:
        values: The columns.
        features: What ``datasets`` knows of them, if anything.
    """
    named = dict(values)
    for name, column in values.items():
        feature = (features or {}).get(name)
        if isinstance(feature, datasets.ClassLabel):
            known = feature.names
            named[name] = [
                known[v] if isinstance(v, int) and 0 <= v < len(known) else None for v in column
            ]
    return named


def tables_of(data: Any, size: int) -> Iterator[datasets.Dataset]:
    """Yield the rows in runs of ``size``."""
    if isinstance(data, datasets.Dataset):
        for start in range(0, len(data), size):
            yield data.select(range(start, min(start + size, len(data)))).with_format(None)
        return
    features = data.features
    for batch in data.with_format(None).iter(batch_size=size):
        part = datasets.Dataset.from_dict(dict(batch), features=features)
        if features is None:
            _require_types(part)
            features = part.features
        yield part


def _require_types(first: datasets.Dataset) -> None:
    """Check that the first rows of a stream show what the columns hold."""
    empty = [n for n, kind in first.features.items() if getattr(kind, "dtype", "") == "null"]
    if empty:
        raise DataError(
            f"The first rows of this stream have no value in {', '.join(empty)}, so their type "
            "cannot be seen. Give the types (load_dataset(…, features=…)), or remove the columns."
        )


def shards_of(tables: Iterator[datasets.Dataset], layout: Layout) -> Iterator[Shard]:
    """Yield runs of rows with what is read of them.

    Raises:
        DataError: A text is not valid UTF-8.
    """
    first_row = 0
    for part in tables:
        try:
            values = with_class_names(part.select_columns(layout.columns)[:], part.features)
        except UnicodeDecodeError as error:
            raise DataError(
                f"rows {first_row} to {first_row + len(part) - 1}: a text is not valid UTF-8: "
                f"{error}. Fix or remove it."
            ) from error
        yield Shard(
            first_row, part.with_format("arrow")[:], values, read_rows(values, layout, first_row)
        )
        first_row += len(part)
