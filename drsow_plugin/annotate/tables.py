"""Rows of a data set: as plain columns, in shards, and with the labels joined to them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.compute as pc

from drsow_plugin.annotate.items import Item, read_rows
from drsow_plugin.annotate.labeller import Labeller, Labels
from drsow_plugin.annotate.layout import Layout
from drsow_plugin.data.loading import check_split_name
from drsow_plugin.errors import DataError

_NOT_BATCHED = "An Annotator takes batches: call ds.map(annotate, batched=True)."


@dataclass(frozen=True)
class Shard:
    """Rows that are scored, and kept, together.

    Attributes:
        first_row: Number of the first.
        table: The rows as they are.
        values: The columns that are read, as Python values.
        items: The rows, read.
    """

    first_row: int
    table: pa.Table
    values: dict[str, list[Any]]
    items: list[Item]

    def prompt_keys(self) -> list[int]:
        """Return a hash of the prompt of each row; one that cannot be read has its own."""
        return [item.prompt_key(number) for number, item in enumerate(self.items, self.first_row)]


UnreadShard = Callable[[], Shard]
"""Rows that are there, as Arrow rows or on disk, and what reads them."""


def splits_of(data: Any) -> Mapping[str, Any]:
    """Return the splits of a data set by name; one split has the name that it knows of itself.

    Raises:
        DataError: There is none.
    """
    if isinstance(data, Mapping):
        if not data:
            raise DataError("The data set has no split. Give at least one with rows.")
        return data
    name = re.match(r"[\w.]+", str(getattr(data, "split", None) or ""))  # train of train[:10]
    return {name[0] if name else "train": data}


def check_split(name: str, data: Any) -> None:
    """Check that a split is one of ``datasets``, with a name that a file may have.

    Raises:
        DataError: It is not.
    """
    check_split_name(name)
    if not isinstance(data, (datasets.Dataset, datasets.IterableDataset)):
        raise DataError(
            f"An Annotator runs over a Dataset, an IterableDataset or a DatasetDict, got "
            f"{type(data).__name__}. For a list of rows: Dataset.from_list(rows)."
        )


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
        features: Their types, as ``datasets`` has them, if anything.
    """
    columns = dict(values)
    for column, numbers in values.items():
        feature = (features or {}).get(column)
        if isinstance(feature, datasets.ClassLabel):
            names = dict(enumerate(feature.names))
            columns[column] = [names.get(number) for number in numbers]
    return columns


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


def shards_of(
    tables: Iterator[datasets.Dataset], layout: Layout, first_row: int = 0
) -> Iterator[UnreadShard]:
    """Yield runs of rows, given the number of the first."""
    for part in tables:
        yield partial(read_shard, part, layout, first_row)
        first_row += len(part)


def read_shard(part: datasets.Dataset, layout: Layout, first_row: int = 0) -> Shard:
    """Return rows with what is read of them.

    Raises:
        DataError: A text is not valid UTF-8.
    """
    try:
        values = with_class_names(part.select_columns(layout.columns)[:], part.features)
    except UnicodeDecodeError as error:
        raise DataError(
            f"rows {first_row} to {first_row + len(part) - 1}: a text is not valid UTF-8: "
            f"{error}. Fix or remove it."
        ) from error
    items = read_rows(values, layout, first_row)
    return Shard(first_row, part.with_format("arrow")[:], values, items)


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
