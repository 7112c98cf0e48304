"""Parquet files at addresses, labelled in pieces: what a process of a cluster does with each.

A piece is a run of rows of one file, and one file of the output. Pieces and their shards follow
from the files alone, so that a run that was killed finds what it had finished.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from drsow_plugin.addresses import Address
from drsow_plugin.annotate.actor import Actor
from drsow_plugin.annotate.items import raise_first
from drsow_plugin.annotate.labeller import Labeller
from drsow_plugin.annotate.options import LabelConfig
from drsow_plugin.annotate.tables import labelled_table, read_shard, tables_of
from drsow_plugin.cache import reason, storage_errors
from drsow_plugin.errors import DataError

SHARDS = 16
"""Of a piece: what a file of the output holds."""

_ADVICE = "Scores are kept: make room, or give another OUTPUT, and run again."


@dataclass(frozen=True)
class Stretch:
    """Row groups of a file that are read one after the other, and the pieces that they make.

    Attributes:
        file: The file.
        groups: Its row groups.
        first_piece: Number of the first piece.
        first_row: Number of the first row.
        rows: How many rows they hold.
    """

    file: Address
    groups: tuple[int, ...]
    first_piece: int
    first_row: int
    rows: int


@dataclass(frozen=True)
class Plan:
    """What is read, and how it is divided.

    Attributes:
        stretches: What is read.
        features: The types of the columns.
        shard_rows: Rows that are scored together.
        rows: How many rows there are.
        pieces: How many pieces.
    """

    stretches: tuple[Stretch, ...]
    features: datasets.Features
    shard_rows: int
    rows: int
    pieces: int

    @classmethod
    def of(cls, files: Sequence[Address], shard_rows: int) -> Plan:
        """Divide files, which are looked into but not read.

        Raises:
            DataError: One cannot be read, is empty, or has other columns than the first.
        """
        stretches: list[Stretch] = []
        schema: pa.Schema | None = None
        pieces = rows = 0
        size = SHARDS * shard_rows
        for file in files:
            found, counts = _footer(file)
            schema = schema or found
            if not found.equals(schema):
                raise DataError(
                    f"{file} has other columns than {files[0]}, or of other types. Give files of "
                    "one data set."
                )
            for groups in _runs(counts, size):
                number = sum(counts[group] for group in groups)
                stretches.append(Stretch(file, groups, pieces, rows, number))
                pieces, rows = pieces - (-number // size), rows + number
        if schema is None or not rows:
            raise DataError("The input has no rows. Give parquet files with at least one.")
        features = datasets.Features.from_arrow_schema(schema)
        return cls(tuple(stretches), features, shard_rows, rows, pieces)

    def head(self) -> datasets.Dataset:
        """Return the first rows, a shard of them."""
        return self.dataset(next(read_stretch(self.stretches[0], self.shard_rows))[2])

    def dataset(self, table: pa.Table) -> datasets.Dataset:
        """Return rows with the types that the files give their columns."""
        table = table.cast(self.features.arrow_schema)
        return datasets.Dataset(table, info=datasets.DatasetInfo(features=self.features))


def _footer(file: Address) -> tuple[pa.Schema, list[int]]:
    """Return the columns of a file, and how many rows are in each row group."""
    try:
        with file.open() as opened, pq.ParquetFile(opened) as parquet:
            groups = range(parquet.metadata.num_row_groups)
            return parquet.schema_arrow, [parquet.metadata.row_group(g).num_rows for g in groups]
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{file} cannot be read as parquet: {reason(error)}.") from error


def _runs(counts: Sequence[int], size: int) -> Iterator[tuple[int, ...]]:
    """Yield row groups: those together that hold at least so many rows."""
    run: list[int] = []
    for group, count in enumerate(counts):
        if count:
            run.append(group)
        if sum(counts[g] for g in run) >= size:
            yield tuple(run)
            run = []
    if run:
        yield tuple(run)


def read_stretch(stretch: Stretch, size: int) -> Iterator[tuple[int, int, pa.Table]]:
    """Yield runs of rows, with their number and that of their first row.

    Raises:
        DataError: The file cannot be read.
    """
    number, row = stretch.first_piece, stretch.first_row
    try:
        with stretch.file.open() as opened, pq.ParquetFile(opened) as parquet:
            held: pa.Table | None = None
            for batch in parquet.iter_batches(size, row_groups=list(stretch.groups)):
                table = pa.Table.from_batches([batch])
                held = table if held is None else pa.concat_tables([held, table])
                while len(held) >= size:
                    yield number, row, held.slice(0, size).combine_chunks()
                    held, number, row = held.slice(size), number + 1, row + size
            if held is not None and len(held):
                yield number, row, held.combine_chunks()
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{stretch.file} cannot be read: {reason(error)}.") from error


def read_blocks(plan: Plan, batch: pa.Table) -> Iterator[pa.Table]:
    """Yield the pieces of a stretch, each as a block of one row, or why it cannot be read."""
    stretch: Stretch = pickle.loads(batch["stretch"][0].as_py())  # noqa: S301 — of the driver
    number = stretch.first_piece
    try:
        for number, first_row, table in read_stretch(stretch, SHARDS * plan.shard_rows):
            table = table.replace_schema_metadata({"first_row": str(first_row)})
            yield pa.table({"number": [number], "content": [_to_bytes(table)]})
    except DataError as error:
        content = pa.schema([], metadata={"error": str(error)}).serialize().to_pybytes()
        yield pa.table({"number": [number], "content": [content]})


def _to_bytes(table: pa.Table) -> bytes:
    """Return rows as an Arrow stream."""
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


@dataclass(frozen=True)
class Job:
    """How pieces are labelled and where they are written.

    Attributes:
        plan: What is read.
        labeller: Labels rows.
        config: How.
        folder: Where files of pieces go.
        split: What their names begin with.
        keep_unusable: Whether rows without a reward, or without a pair, stay.
    """

    plan: Plan
    labeller: Labeller
    config: LabelConfig
    folder: Address
    split: str
    keep_unusable: bool

    def name(self, number: int) -> str:
        """Return the name of the file of a piece, as ``load_dataset`` knows splits."""
        return f"data/{self.split}-{number:05d}-of-{self.plan.pieces:05d}.parquet"


@dataclass(frozen=True)
class Done:
    """What an actor made of a piece.

    Attributes:
        name: Its file.
        sha256: Hash of that.
        rows: How many rows it was made of.
        written: How many rows are in there.
        tokens: How many were scored.
        kept: How many of its shards are in the store.
        counted: What the summary takes of each shard.
    """

    name: str
    sha256: str
    rows: int
    written: int
    tokens: int
    kept: int
    counted: Sequence[tuple[Mapping[str, Any], Mapping[str, Any], list[int]]]


class PieceActor(Actor):
    """Labels pieces, and writes them."""

    def __init__(self, job: Job, *of_actor: Any) -> None:
        """Remember how; ``of_actor`` are the arguments of :class:`Actor`."""
        super().__init__(*of_actor)
        self._job = job

    def _finish(self, number: int, content: bytes) -> Done:
        """Label the rows of a piece, shard by shard, and write them."""
        job, labeller = self._job, self._job.labeller
        with pa.ipc.open_stream(content) as stream:
            said = stream.schema.metadata or {}
            if b"error" in said:
                raise DataError(said[b"error"].decode())
            first_row = int(said[b"first_row"])
            rows = job.plan.dataset(stream.read_all().replace_schema_metadata(None))
        tables, counted, tokens, kept = [], [], 0, 0
        for index, piece in enumerate(tables_of(rows, job.plan.shard_rows)):
            shard = read_shard(piece, labeller.layout, first_row)
            finished = self.finish_shard(number * SHARDS + index, shard.items)
            tokens, kept = tokens + finished.tokens, kept + finished.is_kept
            if job.config.on_error == "raise":
                raise_first(shard.items, finished.rewards, first_row)
            labels = labeller.label(shard.values, shard.items, finished.rewards)
            table = labelled_table(shard.table, labels, labeller, rename=True)
            tables.append(table if job.keep_unusable else table.filter(pa.array(labels.usable)))
            counted.append((_counted(shard.values, labeller), labels.columns, shard.prompt_keys()))
            first_row += len(piece)
        written = io.BytesIO()
        table = pa.concat_tables(tables)
        datasets.Dataset(table).to_parquet(written)
        with storage_errors(f"OUTPUT {str(job.folder)!r} cannot be written", _ADVICE):
            (job.folder / job.name(number)).write_bytes(written.getvalue())
        sha256 = hashlib.sha256(written.getbuffer()).hexdigest()
        return Done(job.name(number), sha256, len(rows), len(table), tokens, kept, counted)


def _counted(values: Mapping[str, Any], labeller: Labeller) -> Mapping[str, Any]:
    """Return the columns that a summary reads: texts only where they are candidates."""
    layout = labeller.layout
    if layout.kind == "candidates":
        return values
    return {n: values[n] for n in (layout.group, layout.domain) if n is not None and n in values}
