"""Labels a whole data set: resume, progress, several processes, a report at the end."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
from datasets.arrow_writer import ArrowWriter

from drsow_plugin.annotate.drivers import Driver, parse_processes
from drsow_plugin.annotate.drivers.processes import score_here, score_in_processes
from drsow_plugin.annotate.items import Rewards, raise_first
from drsow_plugin.annotate.kinds import make_labeller
from drsow_plugin.annotate.labeller import Labeller
from drsow_plugin.annotate.layout import PAIR, find_layout
from drsow_plugin.annotate.options import Kind, LabelConfig
from drsow_plugin.annotate.report import Report
from drsow_plugin.annotate.scorer import Scorer
from drsow_plugin.annotate.store import RewardStore, open_store
from drsow_plugin.annotate.summary import Summary, nothing_labelled, tell_left_out
from drsow_plugin.annotate.tables import (
    Shard,
    labelled_table,
    shards_of,
    tables_of,
    with_class_names,
)
from drsow_plugin.cache import hold, storage_errors, unfinished
from drsow_plugin.config.parse import parse_positive
from drsow_plugin.data.loading import check_split_name
from drsow_plugin.errors import DataError, Interrupted
from drsow_plugin.hashing import file_sha256
from drsow_plugin.progress import RowProgress

_PAIR = ("prompt_column", "chosen_column", "rejected_column")

AnySplit = Any  # a Dataset or an IterableDataset


@dataclass(frozen=True)
class _Split:
    """A split whose columns were found to be in order."""

    name: str
    rows: int | None
    shards: Iterator[Shard]
    labeller: Labeller
    features: datasets.Features


@dataclass(frozen=True)
class Run:
    """A pass over a data set, as :meth:`drsow_plugin.Annotator.run` makes it.

    Attributes:
        scorer: Gives the rewards.
        config: How rows are read and labelled.
        scores: Folder of finished rewards.
        rows: Folder for labelled rows.
        keep_unusable: Whether rows without a reward, or without a pair, stay.
    """

    scorer: Scorer
    config: LabelConfig
    scores: Path
    rows: Path
    keep_unusable: bool

    def label(
        self, data: Any, num_proc: int | None, shard_rows: int
    ) -> tuple[datasets.Dataset | datasets.DatasetDict, Report]:
        """Label a data set; see :meth:`drsow_plugin.Annotator.run`."""
        processes = parse_processes(num_proc)
        if processes > 1:
            self.scorer.check_reopens()
        size = parse_positive("shard_rows", shard_rows) or 1
        splits = self._open_splits(data, size)
        shards = _count_shards(splits, size)
        processes = min(processes, shards or processes)
        driver = partial(score_in_processes, num_proc=processes) if processes > 1 else score_here
        labelled, summaries = self._label(splits, driver, shards)
        if not any(len(split) for split in labelled.values()):
            raise DataError(nothing_labelled(summaries))
        if not self.keep_unusable:
            tell_left_out(summaries)
        report = Report.of(
            self.scorer,
            self.config,
            summaries,
            splits[0].labeller,
            keep_unusable=self.keep_unusable,
        )
        if isinstance(data, Mapping):
            return datasets.DatasetDict(labelled), report
        return next(iter(labelled.values())), report

    def _open_splits(self, data: Any, size: int) -> list[_Split]:
        """Check all splits and read the first rows of each."""
        parts = _splits_of(data)
        for name in parts:
            check_split_name(name)
        splits = [self._open_split(name, part, size) for name, part in parts.items()]
        kinds = {split.name: split.labeller.layout.kind for split in splits}
        if len(set(kinds.values())) > 1:
            raise DataError(f"The splits are of different kinds: {kinds}. Label them one by one.")
        return splits

    def _open_split(self, name: str, data: AnySplit, size: int) -> _Split:
        if not isinstance(data, (datasets.Dataset, datasets.IterableDataset)):
            raise DataError(
                f"An Annotator runs over a Dataset, an IterableDataset or a DatasetDict, got "
                f"{type(data).__name__}. For a list of rows: Dataset.from_list(rows)."
            )
        tables = tables_of(data, size)
        first = next(tables, None)
        if first is None:
            raise DataError(f"The split {name!r} is empty. Give at least one row.")
        layout = find_layout(first.column_names, self.config, self.scorer.pair.routing)
        shards = shards_of(chain([first], tables), layout)
        head = next(shards)
        labeller = make_labeller(layout, self.config, head.values, head.table.schema)
        labeller.check_free(first.column_names)
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

    def _label(
        self, splits: Sequence[_Split], driver: Driver, shards: int | None
    ) -> tuple[dict[str, datasets.Dataset], dict[str, Summary]]:
        """Return the labelled splits and what came out."""
        labelled: dict[str, datasets.Dataset] = {}
        summaries = {split.name: Summary(split.labeller.layout, self.config) for split in splits}
        with open_store(self.scores, self.scorer.pair.scoring) as store:
            store.describe(self.scorer.options())
            try:
                for split in splits:
                    summary = summaries[split.name]
                    labelled[split.name] = self._label_split(split, driver, store, summary)
            except KeyboardInterrupt:
                of = "" if shards is None else f" of {shards}"
                raise Interrupted(
                    f"{store.kept}{of} shards are kept; the same run goes on from there"
                ) from None
        return labelled, summaries

    def _label_split(
        self, split: _Split, driver: Driver, store: RewardStore, summary: Summary
    ) -> datasets.Dataset:
        progress = RowProgress(split.rows, f"drsow: {split.name}")
        shards = driver(self.scorer, split.shards, store, progress)
        try:
            return _write(split, self._tables(split, shards, summary), self.rows)
        finally:
            shards.close()  # ends processes that are at work still
            progress.close()

    def _tables(
        self, split: _Split, shards: Iterable[tuple[Shard, Rewards]], summary: Summary
    ) -> Iterator[pa.Table]:
        for shard, rewards in shards:
            if self.config.on_error == "raise":
                raise_first(shard.items, rewards, shard.first_row)
            labels = split.labeller.label(shard.values, shard.items, rewards)
            summary.add(shard.values, labels.columns)
            table = labelled_table(shard.table, labels, split.labeller, rename=True)
            yield table if self.keep_unusable else table.filter(pa.array(labels.usable))


def _splits_of(data: Any) -> Mapping[str, AnySplit]:
    """Return the splits of a data set by name; one split has the name that it knows of itself."""
    if isinstance(data, Mapping):
        if not data:
            raise DataError("The data set has no split. Give at least one with rows.")
        return data
    name = re.match(r"[\w.]+", str(getattr(data, "split", None) or ""))  # train of train[:10]
    return {name[0] if name else "train": data}


def _count_shards(splits: Sequence[_Split], size: int) -> int | None:
    rows = [split.rows for split in splits if split.rows is not None]
    return sum(-(-count // size) for count in rows) if len(rows) == len(splits) else None


def report_on(scorer: Scorer, config: LabelConfig, data: Any) -> Report:
    """Return the report on labelled rows; see :meth:`drsow_plugin.Annotator.report_on`."""
    prefix = config.prefix
    summaries: dict[str, Summary] = {}
    for name, split in _splits_of(data).items():
        columns = split.column_names
        marks: dict[str, Kind] = {"rewards": "candidates", "margin": "pairs", "reward": "single"}
        kind = next((k for mark, k in marks.items() if f"{prefix}{mark}" in columns), None)
        if kind is None:
            raise DataError(
                f"The rows have no columns that begin with {prefix!r}, as labelled rows have. "
                "Give what map(annotate, …) returned."
            )
        renamed: dict[str, Any] = {n: None for n in _PAIR if getattr(config, n) not in columns}
        in_place = replace(config, kind=kind, **renamed)
        layout = find_layout(columns, in_place, scorer.pair.routing)
        layout = replace(layout, prefixed=f"{prefix}{PAIR[0]}" in columns)
        summaries[name] = Summary(layout, in_place)
        for part in tables_of(split, 1000):
            values = with_class_names(part[:], part.features)
            labeller = make_labeller(layout, in_place, values)
            labels = {n: values[n] for n in labeller.schema() if n in values}
            summaries[name].add(values, labels)
    return Report.of(scorer, config, summaries, labeller, keep_unusable=True)


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
