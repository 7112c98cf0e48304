"""Labels a whole data set: resume, progress, several processes, a report at the end."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import pyarrow as pa
from datasets.arrow_writer import ArrowWriter

from drsow_plugin.annotate.batches import shards_of, tables_of, with_class_names
from drsow_plugin.annotate.columns import OK, PARTIAL
from drsow_plugin.annotate.devices import parse_processes
from drsow_plugin.annotate.drivers.processes import Scored, Shard, score_here, score_in_processes
from drsow_plugin.annotate.failures import nothing_labelled, tell_left_out
from drsow_plugin.annotate.items import raise_first
from drsow_plugin.annotate.kinds import make_labeller
from drsow_plugin.annotate.labeller import Labeller
from drsow_plugin.annotate.layout import PAIR, find_layout
from drsow_plugin.annotate.options import Kind
from drsow_plugin.annotate.report import Report
from drsow_plugin.annotate.store import Shards, open_shards
from drsow_plugin.annotate.summary import Summary
from drsow_plugin.annotate.tables import labelled_table
from drsow_plugin.cache import hold, storage_errors, unfinished
from drsow_plugin.config.parse import parse_positive
from drsow_plugin.data.loading import check_split_name
from drsow_plugin.errors import DataError, Interrupted
from drsow_plugin.hashing import file_sha256
from drsow_plugin.progress import RowProgress

if TYPE_CHECKING:
    from drsow_plugin.annotate.annotator import Annotator

_PAIR = ("prompt_column", "chosen_column", "rejected_column")

AnySplit = Any  # a Dataset or an IterableDataset


@dataclass(frozen=True)
class Folders:
    """Where finished scores are kept, and where labelled rows are written."""

    scores: Path
    rows: Path


@dataclass(frozen=True)
class _Split:
    """A split whose columns were found to be in order."""

    name: str
    rows: int | None
    shards: Iterator[Shard]
    labeller: Labeller
    features: datasets.Features


def run(
    annotator: Annotator,
    data: Any,
    num_proc: int | None,
    folders: Folders,
    *,
    keep_unusable: bool,
    shard_rows: int,
) -> tuple[datasets.Dataset | datasets.DatasetDict, Report]:
    """Label a data set; see :meth:`drsow_plugin.Annotator.run`."""
    processes = parse_processes(num_proc)
    if processes > 1:
        annotator.check_reopens()
    size = parse_positive("shard_rows", shard_rows) or 1
    several = isinstance(data, Mapping)
    named: Mapping[str, AnySplit] = data if several else {_split_name(data): data}
    if not named:
        raise DataError("The data set has no split. Give at least one with rows.")
    for name in named:
        check_split_name(name)
    splits = [_open_split(annotator, name, split, size) for name, split in named.items()]
    kinds = {split.name: split.labeller.layout.kind for split in splits}
    if len(set(kinds.values())) > 1:
        raise DataError(f"The splits are of different kinds: {kinds}. Label them one by one.")
    run = _Run(annotator, folders, keep_unusable, _count_shards(splits, size))
    finished, summaries = run.label(splits, min(processes, run.shards or processes))
    if not any(len(split) for split in finished.values()):
        raise DataError(nothing_labelled(summaries))
    if not keep_unusable:
        tell_left_out(summaries)
    labeller = splits[0].labeller
    report = Report.of(annotator, summaries, labeller, keep_unusable=keep_unusable)
    if several:
        return datasets.DatasetDict(finished), report
    return next(iter(finished.values())), report


@dataclass(frozen=True)
class _Run:
    """What a run needs to know; ``shards`` is how many there are, or ``None``."""

    annotator: Annotator
    folders: Folders
    keep_unusable: bool
    shards: int | None

    def label(
        self, splits: Sequence[_Split], processes: int
    ) -> tuple[dict[str, datasets.Dataset], dict[str, Summary]]:
        """Return the labelled splits and what came out.

        Raises:
            Interrupted: Ctrl-C or a signal came.
        """
        finished: dict[str, datasets.Dataset] = {}
        summaries: dict[str, Summary] = {}
        with open_shards(self.folders.scores, self.annotator.reduction) as done:
            done.describe(self.annotator.pair_options())
            try:
                for split in splits:
                    summaries[split.name] = Summary(split.labeller.layout, self.annotator.config)
                    finished[split.name] = self._split(
                        split, done, processes, summaries[split.name]
                    )
            except KeyboardInterrupt:
                of = "" if self.shards is None else f" of {self.shards}"
                raise Interrupted(
                    f"{done.kept}{of} shards are kept; the same run goes on from there"
                ) from None
        return finished, summaries

    def _split(
        self, split: _Split, done: Shards, processes: int, summary: Summary
    ) -> datasets.Dataset:
        progress = RowProgress(split.rows, f"drsow: {split.name}")
        scored = (
            score_here(self.annotator, split.shards, done, progress)
            if processes == 1
            else score_in_processes(self.annotator, split.shards, done, progress, processes)
        )
        try:
            return _write(split, self._tables(split, scored, summary), self.folders.rows)
        finally:
            scored.close()  # ends processes that are at work still
            progress.close()

    def _tables(
        self, split: _Split, scored: Iterable[Scored], summary: Summary
    ) -> Iterator[pa.Table]:
        for shard, rewards in scored:
            if self.annotator.config.on_error == "raise":  # what was kept is of any policy
                raise_first(shard.items, rewards, shard.first_row)
            labels = split.labeller.label(shard.values, shard.items, rewards)
            summary.add(shard.values, labels.columns, labels.usable)
            table = labelled_table(shard.table, labels, split.labeller, rename=True)
            yield table if self.keep_unusable else table.filter(pa.array(labels.usable))


def _count_shards(splits: Sequence[_Split], size: int) -> int | None:
    rows = [split.rows for split in splits if split.rows is not None]
    return sum(-(-count // size) for count in rows) if len(rows) == len(splits) else None


def report_on(annotator: Annotator, data: Any) -> Report:
    """Return the report on labelled rows; see :meth:`drsow_plugin.Annotator.report_on`."""
    prefix = annotator.config.prefix
    named = data if isinstance(data, Mapping) else {_split_name(data): data}
    summaries: dict[str, Summary] = {}
    for name, split in named.items():
        columns = split.column_names
        marks: dict[str, Kind] = {"rewards": "candidates", "margin": "pairs", "reward": "single"}
        kind = next((k for mark, k in marks.items() if f"{prefix}{mark}" in columns), None)
        if kind is None:
            raise DataError(
                f"The rows have no columns that begin with {prefix!r}, as labelled rows have. "
                "Give what map(annotate, …) returned."
            )
        config = replace(annotator.config, kind=kind)
        gone: dict[str, Any] = {n: None for n in _PAIR if getattr(config, n) not in columns}
        config = replace(config, **gone)  # these were renamed
        layout = find_layout(columns, config, annotator.routing)
        layout = replace(layout, prefixed=f"{prefix}{PAIR[0]}" in columns)
        summaries[name] = Summary(layout, config)
        for part in tables_of(split, 1000):
            values = with_class_names(part[:], part.features)
            labeller = make_labeller(layout, config, values)
            usable = [s.startswith((OK, PARTIAL)) for s in values[f"{prefix}status"]]
            labels = {n: values[n] for n in labeller.schema() if n in values}
            summaries[name].add(values, labels, usable)
    return Report.of(annotator, summaries, labeller, keep_unusable=True)


def _split_name(data: Any) -> str:
    """Return the name of a split, such as ``train`` of ``train[:10]``."""
    found = re.match(r"[\w.]+", str(getattr(data, "split", None) or ""))
    return found[0] if found else "train"


def _open_split(annotator: Annotator, name: str, data: AnySplit, size: int) -> _Split:
    """Check a split's columns and read its first rows."""
    if not isinstance(data, (datasets.Dataset, datasets.IterableDataset)):
        raise DataError(
            f"An Annotator runs over a Dataset, an IterableDataset or a DatasetDict, got "
            f"{type(data).__name__}. For a list of rows: Dataset.from_list(rows)."
        )
    tables = tables_of(data, size)
    first = next(tables, None)
    if first is None:
        raise DataError(f"The split {name!r} is empty. Give at least one row.")
    layout = annotator.find_layout(first.column_names)
    shards = shards_of(chain([first], tables), layout)
    head = next(shards)
    labeller = annotator.labeller(layout, head.values, head.table.schema)
    annotator.check_free(labeller, first.column_names)
    added = pa.schema([(n, column.type) for n, column in labeller.schema().items()])
    return _Split(
        name=name,
        rows=len(data) if isinstance(data, datasets.Dataset) else None,
        shards=chain([head], shards),
        labeller=labeller,
        features=datasets.Features(
            {**_kept(first.features, labeller), **datasets.Features.from_arrow_schema(added)}
        ),
    )


def _kept(features: datasets.Features, labeller: Labeller) -> dict[str, Any]:
    """Return the types of the columns that stay, under the names that they get."""
    names = labeller.renames()
    gone = set(labeller.superseded()) - set(names)
    return {names.get(name, name): kind for name, kind in features.items() if name not in gone}


def _write(split: _Split, tables: Iterator[pa.Table], folder: Path) -> datasets.Dataset:
    """Write the labelled rows as they come and return them as a data set on disk."""

    def trouble() -> AbstractContextManager[None]:
        return storage_errors(
            f"Labelled rows cannot be written into {folder}",
            "Scores are kept: make room, or name another folder, and run again.",
        )

    with ExitStack() as stack:
        with trouble():
            path = stack.enter_context(unfinished(folder)) / "rows.arrow"
            writer = ArrowWriter(features=split.features, path=str(path))
            stack.callback(_close, writer)
        for table in tables:
            with trouble():
                writer.write_table(table)
        with trouble():
            writer.finalize()
            # Named by what is in it: a later run never changes a file that a data set reads.
            final = folder / f"{file_sha256(path)[:32]}.arrow"
            path.replace(final)
            hold(final)
    return datasets.Dataset.from_file(str(final), split=datasets.NamedSplit(split.name))


def _close(writer: ArrowWriter) -> None:
    """Close what was finished, or failed already: then what is left cannot be written either."""
    with suppress(OSError):
        writer.close()
