"""Labels joined to rows, as Arrow tables or as plain columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from drsow_plugin.annotate.labeller import Labeller, Labels


def labelled_table(
    table: pa.Table, labels: Labels, labeller: Labeller, *, rename: bool = False
) -> pa.Table:
    """Return Arrow rows with the labels added, each column of its own type.

    Args:
        table: The rows.
        labels: What labelling made of them.
        labeller: What labelled them.
        rename: Whether columns that are there again under another name are left out.
    """
    if any(labels.swapped):
        mask = pa.array(labels.swapped)
        names = labeller.layout.responses
        first, second = (table.column(name).combine_chunks() for name in names)
        for name, own, other in ((names[0], first, second), (names[1], second, first)):
            exchanged = pc.if_else(mask, other, own)
            table = table.set_column(table.schema.get_field_index(name), name, exchanged)
    renames = labeller.renames()
    if rename:
        gone = set(labeller.superseded()) - {*renames, *labeller.schema()}
        table = table.drop_columns(list(gone))
        table = table.rename_columns([renames.get(name, name) for name in table.column_names])
    else:
        for name, column in {new: table.column(old) for old, new in renames.items()}.items():
            table = _with_column(table, name, column)
    for name, column in labeller.schema().items():
        values = pa.array(labels.columns[name], type=column.type)
        table = _with_column(table, name, values)
    return table


def _with_column(table: pa.Table, name: str, values: Any) -> pa.Table:
    index = table.schema.get_field_index(name)
    if index < 0:
        return table.append_column(name, values)
    return table.set_column(index, name, values)


def own_columns(
    values: Mapping[str, list[Any]], labels: Labels, labeller: Labeller
) -> dict[str, list[Any]]:
    """Return the data's own columns that change: exchanged where that is to be, or renamed."""
    changed: dict[str, list[Any]] = {}
    if any(labels.swapped):
        names = labeller.layout.responses
        first, second = (values[name] for name in names)
        rows = list(zip(first, second, labels.swapped, strict=True))
        changed[names[0]] = [b if swap else a for a, b, swap in rows]
        changed[names[1]] = [a if swap else b for a, b, swap in rows]
    renamed = {new: {**values, **changed}[old] for old, new in labeller.renames().items()}
    return {**changed, **renamed}


def has_null_column(labels: Labels) -> bool:
    """Tell whether a column holds no value at all, so that its type cannot be seen."""
    return any(
        all(value is None or value == [] for value in values) for values in labels.columns.values()
    )
