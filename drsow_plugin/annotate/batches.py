"""What ``datasets.map`` hands to its function, as plain columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

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
    values = {name: _listed(batch[name]) for name in layout.columns}
    first = values[layout.prompt or layout.responses[0]]
    lengths = {len(column) for column in values.values()}
    if len(lengths) > 1 or any(isinstance(value, Mapping) for value in first):
        raise DataError(_NOT_BATCHED)
    return values


def _listed(column: Any) -> list[Any]:
    if isinstance(column, str):
        raise DataError(_NOT_BATCHED)
    return list(column.tolist() if hasattr(column, "tolist") else column)
