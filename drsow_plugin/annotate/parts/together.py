"""Shards on disk, of whatever they were made by: which belong together, and their rows as one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from drsow_plugin.annotate.parts.part import NAMES, Part, parse_part
from drsow_plugin.annotate.parts.plan import Plan
from drsow_plugin.annotate.place import REPORT, Place
from drsow_plugin.errors import DataError


@dataclass(frozen=True)
class FinishedPart:
    """A shard that is on disk, whole.

    Attributes:
        path: Its folder.
        part: Which one it is.
        rows: Its rows, by split.
        all_rows: How many rows all of them have, by split.
        data_sha256: A hash of those.
        same: What all shards of one data set have in common beside the data, by name.
    """

    path: Path
    part: Part
    rows: Mapping[str, range]
    all_rows: Mapping[str, int]
    data_sha256: str
    same: Mapping[str, Any]

    @property
    def data(self) -> tuple[object, ...]:
        """What says of which data it is a shard."""
        return (self.all_rows, self.data_sha256)


P = TypeVar("P", bound=FinishedPart)


def describe_part(plan: Plan) -> dict[str, Any]:
    """Return what the report on a shard says of it, for :func:`read_part`."""
    return {
        "shard": str(plan.part),
        "rows": {name: [rows.start, rows.stop] for name, rows in plan.rows.items()},
        "all_rows": dict(plan.all_rows),
        "data_sha256": plan.data_sha256,
    }


def read_part(path: Path, said: Any, command: str) -> dict[str, Any]:
    """Return the attributes of a shard, but for what it has in common with others.

    Args:
        path: Its folder.
        said: What the report says of it; ``None`` where it is no shard.
        command: What writes such shards, such as ``annotate``.

    Raises:
        DataError: It is no shard, or the report does not say which.
    """
    if said is None:
        raise DataError(
            f"{path} holds a whole data set and no shard of one. Give a folder with what 'drsow "
            f"{command} --shard' wrote."
        )
    try:
        part = parse_part(said["shard"])
        assert part is not None
        return {
            "path": path,
            "part": part,
            "rows": {str(name): range(*bounds) for name, bounds in said["rows"].items()},
            "all_rows": {str(name): int(number) for name, number in said["all_rows"].items()},
            "data_sha256": str(said["data_sha256"]),
        }
    except (KeyError, TypeError, ValueError, AttributeError, AssertionError) as error:
        raise unsaid(path, error) from error


def unsaid(path: Path, error: Exception) -> DataError:
    """Return what to raise where a report does not say which shard it is on."""
    return DataError(
        f"{Place.of(path).at(REPORT)} does not say which shard it is of ({error!r}). Run the shard "
        "again."
    )


def find_parts(folder: Path) -> list[Path]:
    """Return the folders of shards that are in a folder and finished.

    Raises:
        DataError: There is none, or some are not finished.
    """
    folders = sorted(path for path in folder.glob("[!.]*/") if path.is_dir())
    finished = [path for path in folders if Place.of(path).at(REPORT).is_file()]
    if not folders:
        raise DataError(f"There are no shards in {folder}. Run 'drsow annotate … --shard 1/16'.")
    begun = [NAMES.fullmatch(path.name) for path in folders if path not in finished]
    of = {int(name[2]) for name in begun if name is not None}
    if not finished and len(of) == 1:
        there = [int(name[1]) for name in begun if name is not None]
        raise DataError(missing_shards(there, of.pop()))
    if not finished:
        raise DataError(
            f"No shard in {folder} is finished. Run the commands that began them again."
        )
    return finished


def check_together(parts: Sequence[P]) -> list[P]:
    """Return the shards of one data set in order, if all of them are there.

    Raises:
        DataError: They are of other data or of other options, or one is missing or there twice.
    """
    numbers = {part.part.of for part in parts}
    if len(numbers) > 1:
        groups = (
            f"of {of} (" + listed(p.part.number for p in parts if p.part.of == of) + ")"
            for of in sorted(numbers)
        )
        raise DataError(
            f"There are shards {' and '.join(groups)}, which do not belong together. Remove the "
            "folders of those that are of an earlier division."
        )
    (of,) = numbers
    ordered = sorted(parts, key=lambda part: part.part.number)
    for before, after in pairwise(ordered):
        if before.part == after.part:
            raise DataError(
                f"Shard {after.part} is there twice: {before.path} and {after.path}. Remove one."
            )
    missing = sorted({*range(1, of + 1)} - {part.part.number for part in ordered})
    if missing:
        raise DataError(missing_shards(missing, of))
    for part in ordered[1:]:
        _check_alike(ordered[0], part)
    return ordered


def missing_shards(missing: Iterable[int], of: int) -> str:
    """Return what to say where shards are not there, or not finished."""
    numbers = sorted(missing)
    be = ("Shard", "is") if len(numbers) == 1 else ("Shards", "are")
    return (
        f"{be[0]} {listed(numbers)} of {of} {be[1]} missing, or not finished. Run the same command "
        f"with --shard {numbers[0]}/{of}, and so on; what they have done is kept."
    )


def _check_alike(first: FinishedPart, other: FinishedPart) -> None:
    """Check that two shards are of the same data, models and options."""
    if first.data != other.data:
        raise DataError(
            f"Shards {first.part} and {other.part} are of different data: the rows of each are "
            f"those of another whole ({_rows(first)} and {_rows(other)} rows, of which not all "
            "are the same). Run the ones of the wrong data again."
        )
    for name in first.same:
        ours, theirs = first.same[name], other.same[name]
        if ours != theirs:
            if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
                keys = [k for k in {**ours, **theirs} if ours.get(k) != theirs.get(k)]
                ours, theirs = ({key: of.get(key) for key in keys} for of in (ours, theirs))
            advice = f"Give --shard-rows {ours} to all of them." if name == "shard_rows" else ""
            raise DataError(
                f"Shards {first.part} and {other.part} were made with other options: {name} "
                f"is {ours!s:.200} and {theirs!s:.200}. Run the ones with the wrong options "
                f"again. {advice}".rstrip()
            )


def _rows(part: FinishedPart) -> str:
    return f"{sum(part.all_rows.values()):,}"


def features_of(parts: Sequence[FinishedPart], split: str) -> datasets.Features:
    """Return the types of the columns, which are those of every shard."""
    found = [
        datasets.Features.from_arrow_schema(pq.read_schema(file))
        for part in parts
        for file in _files(part, split)
    ]
    if any(features != found[0] for features in found):
        raise DataError(
            f"The columns of the split {split!r} are not the same in all shards. Run them again, "
            "with one version of datasets and pyarrow."
        )
    return found[0]


def tables_of(parts: Sequence[P], split: str, size: int) -> Iterator[tuple[P, pa.Table]]:
    """Yield the rows of shards in order, as many at once as were worked on together.

    Args:
        parts: What :func:`check_together` returned.
        split: Of which split.
        size: How many rows were worked on together.

    Raises:
        DataError: They are not those that the reports say.
    """
    end = 0
    for part in parts:
        rows = part.rows[split]
        number = 0
        for table in _read(part, split, size):
            number += len(table)
            yield part, table
        if number != len(rows) or (rows and rows.start != end):
            raise DataError(
                f"{part.path} holds {number:,} rows of {split!r}, and not those from {end:,} to "
                f"{rows.stop:,}, which are to follow. Run shard {part.part} again."
            )
        end = max(end, rows.stop)
    if end != parts[0].all_rows[split]:
        raise DataError(f"Of {parts[0].all_rows[split]:,} rows of {split!r} {end:,} are there.")


def _read(part: FinishedPart, split: str, size: int) -> Iterator[pa.Table]:
    """Yield the rows of a shard as they were worked on together."""
    left = None
    for file in _files(part, split):
        whole = pq.ParquetFile(file)
        for batch in whole.iter_batches(batch_size=size):
            table = pa.Table.from_batches([batch], whole.schema_arrow)
            left = table if left is None else pa.concat_tables([left, table])
            while len(left) >= size:
                yield left.slice(0, size)
                left = left.slice(size)
    if left is not None and len(left):
        yield left


def _files(part: FinishedPart, split: str) -> list[Path]:
    return sorted((part.path / "data").glob(f"{split}-[0-9]*-of-[0-9]*.parquet"))


def listed(numbers: Iterable[int]) -> str:
    """Return numbers in order, runs of them as ``3 to 5``."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(
        text
        for run in runs
        for text in ([f"{run[0]} to {run[-1]}"] if len(run) > 2 else map(str, run))
    )
