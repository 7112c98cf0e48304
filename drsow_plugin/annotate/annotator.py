"""The callable for ``datasets.map``: a batch of rows in, the same rows with labels out."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if sys.version_info >= (3, 11):
    from typing import Unpack
else:
    from typing_extensions import Unpack

from drsow_plugin.annotate.drivers import DriverOptions, Where
from drsow_plugin.annotate.items import raise_first, read_rows
from drsow_plugin.annotate.kinds import make_labeller
from drsow_plugin.annotate.layout import find_layout
from drsow_plugin.annotate.options import LabelConfig, parse_labelling
from drsow_plugin.annotate.scorer import Scorer
from drsow_plugin.annotate.tables import (
    check_mapping,
    labelled_table,
    own_columns,
    plain_columns,
)
from drsow_plugin.cache import cache_folder, scores_place
from drsow_plugin.config.keywords import AnnotatorOptions
from drsow_plugin.config.options import given_options
from drsow_plugin.config.pair import PairConfig, as_options
from drsow_plugin.config.parse import call_text

if TYPE_CHECKING:
    from drsow_plugin.annotate.report import Report
    from drsow_plugin.config.in_memory import ModelObject

LABEL_VERSION = 4
"""Raised whenever the same rewards and options would give other columns."""


class Annotator:
    """Labels preference data with the reward of a pair of models.

    Pass it to ``datasets.map`` with ``batched=True`` (and, for several processes,
    ``num_proc=…, with_rank=True`` and the start method ``spawn``), or use :meth:`run`, which
    keeps finished work. Columns, tokenizers and options are checked before weights are
    loaded; weights are loaded once in each process, on first use.

    It pickles as its configuration and a hash of the models' contents, so that the cache of
    ``datasets`` knows it again in another process and on another day.

    Attributes:
        config: How rows are read and labelled.
        scorer: Gives the rows their rewards.
        report: What the last :meth:`run` did, or ``None``.
    """

    def __init__(
        self,
        strong: str | ModelObject,
        weak: str | ModelObject,
        **options: Unpack[AnnotatorOptions],
    ) -> None:
        """Open a pair of models for labelling.

        Args:
            strong: The better-aligned model, as for :class:`~drsow_plugin.DrSoW`. With a model
                in memory, or an engine, only this process can label.
            weak: The less-aligned model.
            **options: Those of :class:`~drsow_plugin.DrSoW`, and those of labels in
                ``docs/options.md``.

        Raises:
            ConfigError: An option or a model is wrong.
        """
        self._set(*parse_labelling({"strong": strong, "weak": weak, **options}))
        self.scorer.open()  # what is wrong with the models shows now

    @classmethod
    def from_config(cls, pair: PairConfig, labels: LabelConfig) -> Annotator:
        """Open a pair of models for labelling, from configurations that are parsed already."""
        annotator = cls.__new__(cls)
        annotator._set(pair, labels)
        annotator.scorer.open()
        return annotator

    def _set(self, pair: PairConfig, labels: LabelConfig, fingerprint: str | None = None) -> None:
        self.config = labels
        self.scorer = Scorer(pair, token_logprobs=labels.token_logprobs, fingerprint=fingerprint)
        self.report: Report | None = None

    def __repr__(self) -> str:
        options = as_options(self.scorer.pair) | given_options(self.config)
        return call_text("Annotator", options)

    def __call__(
        self, batch: Mapping[str, Sequence[Any]], rank: int | None = None
    ) -> dict[str, list[Any]]:
        """Return the columns to add to a batch, for ``datasets.map``.

        Args:
            batch: Columns of rows.
            rank: Number of the process; it chooses the device.

        Returns:
            The columns as lists. A batch that ``map`` made of Arrow rows gets them put into it
            instead, with their types: a list without a value would have the type null for good.

        Raises:
            DataError: The columns are of no known kind, or a row cannot be scored and
                ``on_error`` is ``raise``.
        """
        check_mapping(batch)
        layout = find_layout(list(batch), self.config, self.scorer.pair.routing)
        values = plain_columns(batch, layout)
        items = read_rows(values, layout)
        table = getattr(batch, "pa_table", None)
        types = None if table is None else table.schema
        labeller = make_labeller(layout, self.config, values, types)
        labeller.check_free(list(batch))
        rewards = self.scorer.rewards(items, rank=rank)
        if self.config.on_error == "raise":
            raise_first(items, rewards)
        labels = labeller.label(values, items, rewards)
        if table is None:
            return {**own_columns(values, labels, labeller), **labels.columns}
        labelled = labelled_table(table, labels, labeller)
        for name in labelled.column_names:
            cast(Any, batch)[name] = labelled.column(name)
        return {}

    def run(
        self,
        data: Any,
        *,
        keep_unusable: bool = False,
        shard_rows: int | None = None,
        shard: str | tuple[int, int] | None = None,
        cache_dir: str | None = None,
        rows_dir: str | None = None,
        **where: Unpack[DriverOptions],
    ) -> Any:
        """Label a data set, with progress, and keep finished work.

        Scores are kept on disk shard by shard, by the models' and the rows' contents. A run
        that was killed goes on where it stopped and gives the rows that an uninterrupted run
        gives; other options for the labels, or rows added at the end, need no new scores.

        Args:
            data: A ``Dataset``, a ``DatasetDict``, or a streaming one of either.
            keep_unusable: Whether rows without a reward, or without a pair, stay.
            shard_rows: Rows that are scored, and kept, together; ``None`` is what an earlier run
                over the same rows took, or else 128, and 512 for small models on a GPU.
            shard: Which rows are labelled: ``"3/16"``, or ``(3, 16)``, are those of the third of
                16 shards, contiguous and of about as many tokens each. All of its rows stay, with
                a column that merging needs; save them with ``annotate.report.save`` for
                :meth:`merge`. ``None`` is all rows.
            cache_dir: Where finished work is kept; ``None`` is ``DRSOW_CACHE``, or
                ``~/.cache/drsow``. An address, such as ``s3://bucket/scores``, is for scores alone.
            rows_dir: Where the labelled rows are written; ``None`` is a folder in
                ``cache_dir``, or beside an address in the cache folder.
            **where: Where rows are scored. ``num_proc``: processes to score with, each on its own
                device; ``None`` is this one. ``driver="ray"``: actors of a Ray cluster, each with
                both models; ``num_actors`` of them, ``None`` for one on each GPU, or on each node
                where there are none; ``gpus_per_actor`` for each. See ``docs/scaling.md``.

        Returns:
            A ``Dataset``, on disk, or a ``DatasetDict``; :attr:`report` says how it was made.

        Raises:
            DataError: The columns are of no known kind, or a row cannot be scored and
                ``on_error`` is ``raise``.
            EngineError: The models failed. Finished work is kept.
            StorageError: There is no room left, or files cannot be written. Likewise.
            Interrupted: Ctrl-C or a signal came. Likewise.
        """
        from drsow_plugin.annotate.parts.part import parse_part
        from drsow_plugin.annotate.runner import Run

        root, chosen = scores_place(cache_dir), Where.of(where)
        here = root if isinstance(root, Path) else cache_folder()
        run = Run(
            self.scorer,
            self.config,
            scores=root / "scores" / self.scorer.work_key[:32],
            rows=Path(rows_dir or here / "labelled"),
            keep_unusable=keep_unusable,
            part=parse_part(shard),
        )
        labelled, self.report = run.label(data, chosen, shard_rows)
        return labelled

    def merge(self, shards: str | Path | Sequence[str | Path], rows_dir: str | None = None) -> Any:
        """Return the rows of all shards of a data set, as :meth:`run` without ``shard`` would.

        Args:
            shards: A folder with a folder for each of them, as ``annotate.report.save`` and ``drsow
                annotate --shard`` write them, or a list of those.
            rows_dir: Where the labelled rows are written; ``None`` is a folder in the cache.

        Returns:
            A ``Dataset``, or a ``DatasetDict`` where there are several splits; :attr:`report` is
            that of a single run.

        Raises:
            DataError: A shard is missing, there twice, not whole, or of other data or options
                than the rest; or no row has a reward or a pair.
            ConfigError: The shards were labelled by another pair.
            StorageError: There is no room for the rows.
        """
        from drsow_plugin.annotate.parts.merging import merge_parts
        from drsow_plugin.annotate.parts.together import find_parts

        if isinstance(shards, (str, Path)):
            paths = find_parts(Path(shards).expanduser())
        else:
            paths = [Path(path).expanduser() for path in shards]
        rows = Path(rows_dir or cache_folder() / "labelled")
        merged = merge_parts(paths, rows, self.scorer.fingerprint)
        self.report = merged.report
        return merged.data

    def report_on(self, data: Any) -> Report:
        """Return the report on rows that ``map`` labelled, for :func:`drsow_plugin.publish`.

        Args:
            data: A ``Dataset`` or ``DatasetDict`` with the columns that this annotator adds.

        Raises:
            DataError: The columns are not there.
        """
        from drsow_plugin.annotate.mapped import report_on

        return report_on(self.scorer, self.config, data)

    @property
    def fingerprint(self) -> str:
        """A hash of everything that changes a reward; see :attr:`DrSoW.fingerprint`."""
        return self.scorer.fingerprint

    def options(self) -> dict[str, Any]:
        """Return the options in force, but for defaults, with Hub revisions as commits."""
        return self.scorer.options() | given_options(self.config)

    def describe(self) -> dict[str, Any]:
        """Return the pair and the policies, as plain values; see :meth:`DrSoW.describe`."""
        return self.scorer.open().describe()

    def __reduce__(self) -> tuple[Callable[[str], Annotator], tuple[str]]:
        """Pickle as configuration: one text, the same in every process."""
        state = {
            "options": self.options(),
            "fingerprint": self.fingerprint,
            "label_version": LABEL_VERSION,
        }
        return _restore, (json.dumps(state, sort_keys=True),)


def _restore(state: str) -> Annotator:
    """Return the annotator of a pickled configuration; opens no model."""
    loaded = json.loads(state)
    annotator = Annotator.__new__(Annotator)
    annotator._set(*parse_labelling(loaded["options"]), loaded["fingerprint"])
    return annotator
