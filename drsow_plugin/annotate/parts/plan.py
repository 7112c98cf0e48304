"""Which rows of a data set are in a shard: as many tokens as in any other, or nearly so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import datasets
import numpy as np

from drsow_plugin.annotate.items import read_rows
from drsow_plugin.annotate.layout import Layout
from drsow_plugin.annotate.parts.content import ContentHash
from drsow_plugin.annotate.parts.part import Part
from drsow_plugin.annotate.scorer import Scorer
from drsow_plugin.annotate.tables import with_class_names
from drsow_plugin.errors import DataError
from drsow_plugin.progress import told

COUNTED = 8192
"""Of how many rows the tokens are counted at most: of all where there are no more, else of every
n-th. Between those, tokens are bytes times the ratio of the counted rows near by, which is a ratio
estimator: W. G. Cochran, Sampling Techniques, 3rd edition, chapter 6."""

_NEAR = 256  # counted rows that a ratio is taken of


@dataclass(frozen=True)
class Plan:
    """The rows of one shard, and what all of them were found out by.

    Attributes:
        part: The shard.
        rows: Its rows, by split.
        all_rows: How many there are, by split.
        tokens: Of its rows, and of all: of both models, and where several responses follow a
            prompt, that once; prompts, where those are what there is to do.
        counted_rows: Of how many rows they were counted.
        data_sha256: A hash of all rows.
    """

    part: Part
    rows: Mapping[str, range]
    all_rows: Mapping[str, int]
    tokens: tuple[int, int]
    counted_rows: int
    data_sha256: str


@dataclass(frozen=True)
class Unit:
    """Rows that are scored, or answered, and kept together."""

    split: str
    rows: range
    tokens: int


def make_plan(
    scorer: Scorer,
    splits: Mapping[str, object],
    layouts: Mapping[str, Layout],
    size: int,
    part: Part,
) -> Plan:
    """Find out which rows are in a shard; for the others of the data it comes out alike.

    A shard ends where rows that are scored together do, so that rewards do not depend on it. It
    is where the tokens up to there are nearest to its share.

    Args:
        scorer: Counts tokens.
        splits: The data.
        layouts: The columns that are read, by split.
        size: How many rows are scored together.
        part: The shard.

    Raises:
        DataError: A split is a stream, or the labels of a row number the responses otherwise
            than the columns do.
    """
    whole: dict[str, datasets.Dataset] = {}
    for name, data in splits.items():
        if not isinstance(data, datasets.Dataset):
            raise DataError(
                f"shard={part}: the split {name!r} is a stream, whose rows cannot be counted "
                "before they are read. Load it whole (streaming=False), or give each run a part "
                "of the stream, without shard."
            )
        whole[name] = data
    number = sum(map(len, whole.values()))
    step = max(1, -(-number // COUNTED))
    content = ContentHash()
    units: list[Unit] = []
    with told(f"which of {number:,} rows are in shard {part} is found out"):
        for name, data in whole.items():
            content.add(data.select([]).with_format("arrow")[:])  # its columns, without a row
            units += _units(scorer, name, data, layouts[name], (size, step), content)
    counted = sum(-(-len(data) // step) for data in whole.values())
    return plan_of(units, whole, part, counted, content)


def plan_of(
    units: Sequence[Unit],
    whole: Mapping[str, datasets.Dataset],
    part: Part,
    counted_rows: int,
    content: ContentHash,
) -> Plan:
    """Return which of the units are in a shard: those of its share of the tokens.

    Args:
        units: All rows, in order.
        whole: The data.
        part: The shard.
        counted_rows: Of how many rows tokens were counted.
        content: A hash of all rows.
    """
    first, last = _bounds([unit.tokens for unit in units], part)
    rows = {name: _joined(name, units[first:last]) for name in whole}
    return Plan(
        part=part,
        rows=rows,
        all_rows={name: len(data) for name, data in whole.items()},
        tokens=(sum(u.tokens for u in units[first:last]), sum(u.tokens for u in units)),
        counted_rows=counted_rows,
        data_sha256=content.hexdigest(),
    )


def _units(
    scorer: Scorer,
    name: str,
    data: datasets.Dataset,
    layout: Layout,
    sizes: tuple[int, int],
    content: ContentHash,
) -> Iterator[Unit]:
    """Yield the rows of a split that are scored together, with their tokens."""
    size, step = sizes
    tokens_near = bytes_near = 0
    many = size * -(-_NEAR * step // size)
    for start in range(0, len(data), many):
        rows = range(start, min(start + many, len(data)))
        table = data.select(rows).with_format("arrow")[:]
        content.add(table)
        some = range(start + -start % step, rows.stop, step)
        counts = _counts(scorer, data.select(some), layout, some)
        read = table.select(layout.columns)
        if some:  # else there are those of the rows before: these are the last few
            tokens_near = sum(counts)
            bytes_near = sum(read.slice(row - start, 1).nbytes for row in some if step > 1)
        for first in range(start, rows.stop, size):
            unit = range(first, min(first + size, rows.stop))
            if step == 1:
                tokens = sum(counts[unit.start - start : unit.stop - start])
            else:
                whole = read.slice(first - start, len(unit)).nbytes
                tokens = whole * tokens_near // max(bytes_near, 1)
            yield Unit(name, unit, tokens)


def _counts(
    scorer: Scorer, rows: datasets.Dataset, layout: Layout, numbers: Sequence[int]
) -> list[int]:
    """Return the tokens of some rows, given their numbers."""
    plain = rows.with_format(None).select_columns(layout.columns)
    values = with_class_names(plain[:], rows.features)
    items = []
    for place, number in enumerate(numbers):
        one = {name: column[place : place + 1] for name, column in values.items()}
        items += read_rows(one, layout, number)
    return scorer.tokens(items)


def _bounds(tokens: Sequence[int], part: Part) -> tuple[int, int]:
    """Return the first of the units that are in a shard, and the first after them."""
    weights = tokens if any(tokens) else [1] * len(tokens)
    before = np.concatenate([[0], np.cumsum(np.array(weights, dtype=np.int64))])

    def bound(number: int) -> int:
        """Return how many units are before where the tokens are nearest to a share of them."""
        share = int(before[-1]) * number
        distances = np.abs(before * part.of - share)
        return int(np.argmin(distances))  # the first of those that are as near

    return bound(part.number - 1), bound(part.number) if part.number < part.of else len(tokens)


def _joined(name: str, units: Sequence[Unit]) -> range:
    own = [unit.rows for unit in units if unit.split == name]
    return range(own[0].start, own[-1].stop) if own else range(0)
