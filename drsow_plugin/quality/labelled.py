"""Labelled data, opened: what 'drsow annotate' wrote, or rows that ``map`` labelled."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from drsow_plugin.annotate.columns import Status
from drsow_plugin.annotate.items import Item, read_ratings, read_rows
from drsow_plugin.annotate.layout import PAIR, Layout, find_layout
from drsow_plugin.annotate.options import Kind, LabelConfig
from drsow_plugin.annotate.place import REPORT, Place
from drsow_plugin.annotate.report import Report
from drsow_plugin.annotate.tables import splits_of, with_class_names
from drsow_plugin.config.options import given_options, parse_options
from drsow_plugin.data.loading import load_data
from drsow_plugin.errors import DataError, unknown_name
from drsow_plugin.quality import READ_OPTIONS

SUBSET = "subset"
"""The column that parts the rows, where no other is named."""

_MARKS: dict[str, Kind] = {"rewards": "candidates", "margin": "pairs", "reward": "single"}
_OF_RESPONSE = ("reward", "strong_logprob", "weak_logprob", "strong_tokens", "weak_tokens")
_OF_PAIR = {"prompt_column", "chosen_column", "rejected_column"}
_BATCH = 1000


@dataclass(frozen=True)
class Batch:
    """Some rows of one split.

    Attributes:
        split: Its name.
        numbers: The rows' numbers in the split.
        items: Prompt and responses of each, in the order in which they stand in the rows.
        values: What labelling added, by column without the prefix.
        ratings: For candidates, what :func:`read_ratings` returned for each row.
        groups: The part of the data that each row is of; empty where it has none.
        gold: Whether the label of each row is to be trusted.
    """

    split: str
    numbers: Sequence[int]
    items: list[Item]
    values: Mapping[str, list[Any]]
    ratings: list[list[float | None] | None]
    groups: list[str]
    gold: list[bool]

    def __len__(self) -> int:
        return len(self.numbers)

    def failures(self) -> Iterator[str | None]:
        """Yield for each row the kind of the problem that it has no reward or pair for."""
        for status in self.values.get("status") or [None] * len(self):
            failure = Status.parse(status).failure if status else None
            yield failure.kind if failure else None


@dataclass(frozen=True)
class LabelledData:
    """Labelled rows on disk, which are read in batches.

    Attributes:
        name: What they are called.
        kind: ``pairs``, ``candidates`` or ``single``.
        splits: The rows, by split.
        layouts: Which columns hold the prompt and the responses, by split.
        prefix: What the columns that labelling added begin with.
        report: What was written beside the rows, or ``None``.
        gold_column: Column that says which labels are to be trusted; ``None`` for all of them.
    """

    name: str
    kind: Kind
    splits: Mapping[str, datasets.Dataset]
    layouts: Mapping[str, Layout]
    prefix: str
    report: Report | None = None
    gold_column: str | None = None

    def __len__(self) -> int:
        return sum(map(len, self.splits.values()))

    def first_rows(self) -> list[int]:
        """Return the number of each split's first row, counted over all splits."""
        return [0, *accumulate(map(len, self.splits.values()))][:-1]

    @classmethod
    def of(
        cls,
        data: Any,
        config: LabelConfig | None = None,
        *,
        name: str = "The data",
        report: Report | None = None,
        gold_column: str | None = None,
    ) -> LabelledData:
        """Find the columns of labelled rows.

        Args:
            data: A ``Dataset`` or a ``DatasetDict``.
            config: Where things are, where that is not as labelling writes it: of its options
                those in ``READ_OPTIONS`` count.
            name: What errors call the rows.
            report: What was written beside them; it knows the options that labelled them.
            gold_column: Column that says which labels are to be trusted: all rows of which it
                is neither false, 0, empty nor missing.

        Raises:
            DataError: They are not labelled, or a column is missing.
        """
        config = config or LabelConfig()
        splits = splits_of(data)
        layouts = {}
        kinds: dict[str, Kind] = {}
        prefix = config.prefix
        for split, rows in splits.items():
            if not isinstance(rows, datasets.Dataset):
                raise DataError(
                    f"{name} is no data set on disk, but a {type(rows).__name__}. Give a Dataset, "
                    "a DatasetDict, or the name of a file or folder."
                )
            own = _configured(config, report, rows.column_names)
            prefix = own.prefix
            kinds[split] = _kind(rows, prefix, name)
            layout = find_layout(rows.column_names, replace(own, kind=kinds[split]))
            group = layout.group or (SUBSET if SUBSET in rows.column_names else None)
            prefixed = f"{prefix}{PAIR[0]}" in rows.column_names
            layouts[split] = replace(layout, group=group, prefixed=prefixed)
            _check_columns(rows, kinds[split], prefix, name)
            if gold_column is not None and gold_column not in rows.column_names:
                message = unknown_name("column", gold_column, rows.column_names)
                raise DataError(f"gold_column: {message}")
        if len(set(kinds.values())) > 1:
            raise DataError(f"The splits of {name} are of different kinds: {kinds}. Name one.")
        kind = next(iter(kinds.values()))
        return cls(name, kind, splits, layouts, prefix, report, gold_column)

    def batches(
        self, split: str, rows: Sequence[int] | np.ndarray | None = None, *, texts: bool = True
    ) -> Iterator[Batch]:
        """Yield rows of a split.

        Args:
            split: Its name.
            rows: Their numbers, in order; ``None`` for all.
            texts: Whether prompts and responses are read; without, items are empty.
        """
        whole, layout = self.splits[split].with_format(None), self.layouts[split]
        read = layout.columns if texts or self.kind == "candidates" else [layout.group]
        own = [n for n in whole.column_names if n.startswith(self.prefix)]
        names = dict.fromkeys(filter(None, [*read, *own, self.gold_column]))
        whole = whole.select_columns(list(names))
        number = len(whole) if rows is None else len(rows)
        for start in range(0, number, _BATCH):
            places = range(start, min(start + _BATCH, number))
            numbers = list(places) if rows is None else [int(rows[place]) for place in places]
            contiguous = numbers[-1] - numbers[0] == len(numbers) - 1
            found = whole[numbers[0] : numbers[-1] + 1] if contiguous else whole[numbers]
            columns = with_class_names(found, whole.features)
            yield self._batch(split, layout, numbers, columns, texts=texts)

    def _batch(
        self,
        split: str,
        layout: Layout,
        numbers: list[int],
        columns: Mapping[str, list[Any]],
        *,
        texts: bool,
    ) -> Batch:
        rated: list[list[float | None] | None] = [None] * len(numbers)
        if self.kind == "candidates":
            rated = [
                read_ratings({n: columns[n][at] for n in layout.columns}, layout)
                for at in range(len(numbers))
            ]
        group = columns[layout.group] if layout.group else [None] * len(numbers)
        gold = columns[self.gold_column] if self.gold_column else [True] * len(numbers)
        start = len(self.prefix)
        return Batch(
            split=split,
            numbers=numbers,
            items=read_rows(columns, layout, numbers[0]) if texts else [],
            values={n[start:]: v for n, v in columns.items() if n.startswith(self.prefix)},
            ratings=rated,
            groups=["" if value is None else str(value) for value in group],
            gold=[_is_true(value) for value in gold],
        )


def open_labelled(
    name: str,
    config: LabelConfig | None = None,
    *,
    gold_column: str | None = None,
    **options: Any,
) -> LabelledData:
    """Open what 'drsow annotate' wrote, or labelled rows of another place.

    Args:
        name: A folder, a file or a Hub id; see :func:`~drsow_plugin.data.loading.load_data`.
        config: See :meth:`LabelledData.of`.
        gold_column: See :meth:`LabelledData.of`.
        **options: ``split``, ``name``, ``data_dir`` and ``revision``, as for ``load_data``.

    Raises:
        DataError: It cannot be read, or is not labelled.
        HubError: The Hub does not have it or cannot be reached.
    """
    path = Path(name).expanduser()
    there = path.exists() and Place.of(path).at(REPORT).is_file()
    report = Report.load(path) if there else None
    data = load_data([name], **options)
    return LabelledData.of(data, config, name=name, report=report, gold_column=gold_column)


def _configured(config: LabelConfig, report: Report | None, columns: Sequence[str]) -> LabelConfig:
    """Return where things are: as given, or else as the report says, where it is still so."""
    given = {n: v for n, v in given_options(config).items() if n in READ_OPTIONS}
    noted = {} if report is None else report.options
    # Of a pair that labelling wrote anew the columns that it was made of say something else.
    is_written = report is not None and report.kind == "pairs" and "chosen" in report.columns
    names = set(READ_OPTIONS) - (_OF_PAIR if is_written else set())
    known = {
        name: noted[name]
        for name in sorted(names)
        if name in noted and (name == "prefix" or noted[name] in columns)
    }
    return LabelConfig(**parse_options(LabelConfig, {**known, **given}))


def _is_true(value: Any) -> bool:
    if isinstance(value, str):
        return value.strip().lower() not in ("", "0", "false", "no")
    return bool(value) and not (isinstance(value, float) and math.isnan(value))


def _kind(rows: datasets.Dataset, prefix: str, name: str) -> Kind:
    columns = rows.column_names
    kind = next((k for mark, k in _MARKS.items() if f"{prefix}{mark}" in columns), None)
    if kind is not None:
        return kind
    other = next((n.removesuffix("status") for n in columns if n.endswith("_status")), None)
    hint = "Label them first: drsow annotate INPUT OUTPUT --strong … --weak …"
    if other is not None and any(f"{other}{mark}" in columns for mark in _MARKS):
        hint = f"There are columns that begin with {other!r}: prefix={other}"
    raise DataError(
        f"{name} holds no labelled rows: no column {prefix}margin, {prefix}reward or "
        f"{prefix}rewards among {', '.join(columns)}. {hint}."
    )


def columns_of(kind: Kind) -> list[str]:
    """Return what labelling adds for each response of a kind of data, without the prefix."""
    if kind == "pairs":
        return [f"{side}_{name}" for side in ("chosen", "rejected") for name in _OF_RESPONSE]
    if kind == "candidates":
        return [name if name.endswith("s") else f"{name}s" for name in _OF_RESPONSE]
    return list(_OF_RESPONSE)


def _check_columns(rows: datasets.Dataset, kind: Kind, prefix: str, name: str) -> None:
    """Check that the numbers of each response are there, and are numbers."""
    wanted = [f"{prefix}{column}" for column in columns_of(kind)]
    if kind == "candidates":
        wanted += [f"{prefix}{column}" for column in ("chosen_index", "rejected_index")]
    missing = [column for column in wanted if column not in rows.column_names]
    if missing:
        raise DataError(
            f"{name} lacks columns that labelling adds: {', '.join(missing)}. Label it again."
        )
    for column in wanted:
        feature = rows.features[column]
        inner = getattr(feature, "feature", feature)
        dtype = str(getattr(inner, "dtype", ""))
        if not dtype.startswith(("float", "int", "uint", "null")):
            raise DataError(
                f"{name}: the column {column} holds no numbers ({feature}). Label it again."
            )
