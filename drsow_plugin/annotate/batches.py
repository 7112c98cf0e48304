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
    from datasets import ClassLabel

    named = dict(values)
    for name, column in values.items():
        feature = (features or {}).get(name)
        if isinstance(feature, ClassLabel):
            known = feature.names
            named[name] = [
                known[v] if isinstance(v, int) and 0 <= v < len(known) else None for v in column
            ]
    return named
