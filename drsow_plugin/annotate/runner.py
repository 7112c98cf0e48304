"""Labels a whole data set: resume, progress, several processes, a report at the end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa

from drsow_plugin.addresses import Address
from drsow_plugin.annotate.drivers import Driver, Where
from drsow_plugin.annotate.drivers.processes import score_here, score_in_processes
from drsow_plugin.annotate.items import Item, Rewards, raise_first
from drsow_plugin.annotate.kinds import make_labeller
from drsow_plugin.annotate.labeller import Labeller
from drsow_plugin.annotate.layout import find_layout
from drsow_plugin.annotate.options import LabelConfig
from drsow_plugin.annotate.parts.part import Part
from drsow_plugin.annotate.parts.plan import Plan, make_plan
from drsow_plugin.annotate.parts.record import check_columns, describe, prompt_column
from drsow_plugin.annotate.report import Report
from drsow_plugin.annotate.scorer import Scorer
from drsow_plugin.annotate.sharding import (
    begun_size,
    check_begins_alike,
    described,
    sizes_in,
    usual_size,
)
from drsow_plugin.annotate.store import RewardStore, open_store
from drsow_plugin.annotate.summary import Summary, nothing_labelled, tell_left_out
from drsow_plugin.annotate.tables import (
    Shard,
    UnreadShard,
    check_split,
    labelled_table,
    read_shard,
    shards_of,
    splits_of,
    tables_of,
)
from drsow_plugin.annotate.writing import write_rows
from drsow_plugin.config.parse import parse_positive
from drsow_plugin.errors import DataError, Interrupted
from drsow_plugin.progress import RowProgress

AnySplit = Any  # a Dataset or an IterableDataset


@dataclass(frozen=True)
class _Split:
    """A split whose columns were found to be in order."""

    name: str
    rows: int | None
    shards: Iterator[UnreadShard]
    labeller: Labeller
    features: datasets.Features


@dataclass(frozen=True)
class Run:
    """A pass over a data set, as :meth:`drsow_plugin.Annotator.run` makes it.

    Attributes:
        scorer: Gives the rewards.
        config: How rows are read and labelled.
        scores: Folder of finished rewards, or its address.
        rows: Folder for labelled rows.
        keep_unusable: Whether rows without a reward, or without a pair, stay.
        part: Which rows of the data are labelled, where that is not all of them. All of these
            stay: what is left out is left out when they are merged.
    """

    scorer: Scorer
    config: LabelConfig
    scores: Path | Address
    rows: Path
    keep_unusable: bool
    part: Part | None = None

    def label(
        self, data: Any, where: Where, shard_rows: int | None
    ) -> tuple[datasets.Dataset | datasets.DatasetDict, Report]:
        """Label a data set; see :meth:`drsow_plugin.Annotator.run`."""
        if where != Where():
            self.scorer.check_reopens()
        given = parse_positive("shard_rows", shard_rows)
        parts = splits_of(data)
        for name, part in parts.items():
            check_split(name, part)
        seen: dict[str, list[Item]] = {}
        size = given or self._size(parts, where.num_actors or where.processes, seen)
        splits = self._open_splits(parts, size, seen)
        plan = None if self.part is None else self._plan(self.part, parts, splits, size)
        if plan is not None:
            splits = [_only(split, parts[split.name], plan, size) for split in splits]
        shards = _count_shards(splits, size)
        labelled, summaries = self._label(splits, _driver(where, shards), shards, size)
        if plan is None and not any(len(split) for split in labelled.values()):
            raise DataError(nothing_labelled(summaries))
        if not self._keeps:
            tell_left_out(summaries)
        report = Report.of(
            self.scorer,
            self.config,
            summaries,
            splits[0].labeller,
            keep_unusable=self.keep_unusable,
            shard_rows=size,
            shard=None if plan is None else describe(plan, splits[0].labeller.layout),
        )
        if isinstance(data, Mapping):
            return datasets.DatasetDict(labelled), report
        return next(iter(labelled.values())), report

    @property
    def _keeps(self) -> bool:
        return self.keep_unusable or self.part is not None

    def _plan(
        self, part: Part, data: Mapping[str, AnySplit], splits: Sequence[_Split], size: int
    ) -> Plan:
        layouts = {split.name: split.labeller.layout for split in splits}
        for split in splits:
            check_columns(part, split.labeller, split.features)
        return make_plan(self.scorer, data, layouts, size, part)

    def _size(
        self, parts: Mapping[str, AnySplit], processes: int, seen: dict[str, list[Item]]
    ) -> int:
        """Return how many rows make a shard: those of work that goes on, or the usual number.

        Where it takes the first rows of a split to tell, these are put into ``seen``.
        """
        rows = _count_rows(map(_length, parts.values()))
        if self.part is not None:  # what this machine has kept is none of the others' business
            return usual_size(self.scorer.open(), rows, self.part.of)
        usual = usual_size(self.scorer.open(), rows, processes)
        most = max([usual, *sizes_in(self.scores)])

        def first(name: str) -> list[Item]:
            return seen.setdefault(name, self._first(parts[name], most))

        return begun_size(self.scores, map(first, parts), usual)

    def _first(self, data: AnySplit, size: int) -> list[Item]:
        """Return the first rows of a split."""
        for table in tables_of(data, size):
            layout = find_layout(table.column_names, self.config, self.scorer.pair.routing)
            return read_shard(table, layout).items
        return []

    def _open_splits(
        self, parts: Mapping[str, AnySplit], size: int, seen: Mapping[str, list[Item]]
    ) -> list[_Split]:
        """Read the first rows of each split."""
        splits = [
            self._open_split(name, part, size, seen.get(name, [])) for name, part in parts.items()
        ]
        kinds = {split.name: split.labeller.layout.kind for split in splits}
        if len(set(kinds.values())) > 1:
            raise DataError(f"The splits are of different kinds: {kinds}. Label them one by one.")
        return splits

    def _open_split(self, name: str, data: AnySplit, size: int, seen: list[Item]) -> _Split:
        tables = tables_of(data, size)
        first = next(tables, None)
        if first is None:
            check_begins_alike(name, seen[:1], [])
            raise DataError(f"The split {name!r} is empty. Give at least one row.")
        layout = find_layout(first.column_names, self.config, self.scorer.pair.routing)
        shards = shards_of(chain([first], tables), layout)
        head = next(shards)()
        check_begins_alike(name, seen[:1], head.items[:1])
        labeller = make_labeller(layout, self.config, head.values, head.table.schema)
        labeller.check_free(first.column_names)
        added = pa.schema([(n, column.type) for n, column in labeller.schema().items()])
        return _Split(
            name=name,
            rows=_length(data),
            shards=chain([lambda: head], shards),
            labeller=labeller,
            features=datasets.Features(
                {**_kept(first.features, labeller), **datasets.Features.from_arrow_schema(added)}
            ),
        )

    def _label(
        self, splits: Sequence[_Split], driver: Driver, shards: int | None, size: int
    ) -> tuple[dict[str, datasets.Dataset], dict[str, Summary]]:
        """Return the labelled splits and what came out."""
        labelled: dict[str, datasets.Dataset] = {}
        summaries = {split.name: Summary(split.labeller.layout, self.config) for split in splits}
        with open_store(self.scores, self.scorer.pair.scoring) as store:
            store.describe(described(self.scorer.options(), self.scores, size))
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
            tables = self._tables(split, shards, summary)
            return write_rows(tables, split.features, split.name, self.rows)
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
            prompts = shard.prompt_keys()
            summary.add(shard.values, labels.columns, prompts)
            table = labelled_table(shard.table, labels, split.labeller, rename=True)
            if self.part is not None:
                name = prompt_column(self.config)
                table = table.append_column(name, pa.array(prompts, pa.uint64()))
            yield table if self._keeps else table.filter(pa.array(labels.usable))


def _only(split: _Split, data: Any, plan: Plan, size: int) -> _Split:
    """Return a split with the rows alone that are in a shard; it is opened as it is whole."""
    rows = plan.rows[split.name]
    tables = tables_of(data.select(rows), size)
    shards = shards_of(tables, split.labeller.layout, rows.start)
    key = {prompt_column(split.labeller.config): datasets.Value("uint64")}
    features = datasets.Features({**split.features, **key})
    return replace(split, rows=len(rows), shards=shards, features=features)


def _driver(where: Where, shards: int | None) -> Driver:
    """Return what scores, given how many shards there are, where that is known."""
    if where.driver == "ray":
        from drsow_plugin.annotate.drivers.ray import score_on_ray

        return partial(
            score_on_ray, num_actors=where.num_actors, gpus_per_actor=where.gpus_per_actor
        )
    processes = min(where.processes, shards or where.processes)
    return partial(score_in_processes, num_proc=processes) if processes > 1 else score_here


def _length(data: AnySplit) -> int | None:
    return len(data) if isinstance(data, datasets.Dataset) else None


def _count_rows(lengths: Iterable[int | None]) -> int | None:
    counts = [*lengths]
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def _count_shards(splits: Sequence[_Split], size: int) -> int | None:
    return _count_rows(None if split.rows is None else -(-split.rows // size) for split in splits)


def _kept(features: datasets.Features, labeller: Labeller) -> dict[str, Any]:
    """Return the types of the columns that stay, under the names that they get."""
    names = labeller.renames()
    gone = set(labeller.superseded()) - set(names)
    return {names.get(name, name): kind for name, kind in features.items() if name not in gone}
