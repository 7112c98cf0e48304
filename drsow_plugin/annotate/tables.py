"""Labels joined to rows, as Arrow tables or as plain columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from drsow_plugin.annotate.labeller import Labeller, Labels
from drsow_plugin.annotate.layout import Layout


def labelled_table(table: pa.Table, labels: Labels, labeller: Labeller) -> pa.Table:
    """Return Arrow rows with the labels added, each column of its own type."""
    if any(labels.swapped):
        mask = pa.array(labels.swapped)
        names = labeller.layout.responses
        first, second = (table.column(name).combine_chunks() for name in names)
        for name, own, other in ((names[0], first, second), (names[1], second, first)):
            exchanged = pc.if_else(mask, other, own)
            table = table.set_column(table.schema.get_field_index(name), name, exchanged)
    for name, column in labeller.schema().items():
        values = pa.array(labels.columns[name], type=column.type)
        index = table.schema.get_field_index(name)
        if index < 0:
            table = table.append_column(name, values)
        else:
            table = table.set_column(index, name, values)
    return table


def swapped_columns(
    values: Mapping[str, list[Any]], labels: Labels, layout: Layout
) -> dict[str, list[Any]]:
    """Return the chosen and the rejected column, exchanged where that is to be."""
    if not any(labels.swapped):
        return {}
    first, second = (values[name] for name in layout.responses)
    rows = list(zip(first, second, labels.swapped, strict=True))
    return {
        layout.responses[0]: [b if swap else a for a, b, swap in rows],
        layout.responses[1]: [a if swap else b for a, b, swap in rows],
    }


def has_null_column(labels: Labels) -> bool:
    """Tell whether a column holds no value at all, so that its type cannot be seen."""
    return any(
        all(value is None or value == [] for value in values) for values in labels.columns.values()
    )
