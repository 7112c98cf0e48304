"""The callable for ``datasets.map``: a batch of rows in, the same rows with labels out."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

if sys.version_info >= (3, 11):
    from typing import Unpack
else:
    from typing_extensions import Unpack

from drsow_plugin.annotate.batches import check_mapping, plain_columns
from drsow_plugin.annotate.devices import place
from drsow_plugin.annotate.items import Item, Rewards, raise_first, read_rows
from drsow_plugin.annotate.kinds import make_labeller
from drsow_plugin.annotate.labeller import Labeller
from drsow_plugin.annotate.layout import Layout, find_layout
from drsow_plugin.annotate.options import (
    AnnotatorOptions,
    label_options,
    split_options,
)
from drsow_plugin.annotate.reopening import check_reopens, reopened
from drsow_plugin.annotate.tables import has_null_column, labelled_table, own_columns
from drsow_plugin.cache import cache_folder
from drsow_plugin.config.pair import PairConfig, as_options, parse_pair
from drsow_plugin.config.parse import call_text
from drsow_plugin.config.routing import RoutingConfig
from drsow_plugin.errors import DataError
from drsow_plugin.hashing import text_sha256
from drsow_plugin.records import Reduction
from drsow_plugin.scoring.drsow import DrSoW

if TYPE_CHECKING:
    import pyarrow as pa
    from transformers import PreTrainedModel

    from drsow_plugin.annotate.report import Report

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
        report: What the last :meth:`run` did, or ``None``.
    """

    def __init__(
        self,
        strong: str | PreTrainedModel,
        weak: str | PreTrainedModel,
        **options: Unpack[AnnotatorOptions],
    ) -> None:
        """Open a pair of models for labelling.

        Args:
            strong: The better-aligned model, as for :class:`~drsow_plugin.DrSoW`. With a model
                in memory, only this process can label.
            weak: The less-aligned model.
            **options: Those of :class:`~drsow_plugin.DrSoW`, and ``kind``, ``…_column``,
                ``select``, ``min_margin``, ``seed``, ``relabel``, ``messages``,
                ``token_logprobs``, ``on_error`` and ``prefix``; see
                :class:`~drsow_plugin.annotate.options.LabelConfig`.

        Raises:
            ConfigError: An option or a model is wrong.
        """
        pair, self.config = split_options({"strong": strong, "weak": weak, **options})
        self._pair: PairConfig = parse_pair(pair)
        self._opened: DrSoW | None = DrSoW.from_config(self._pair)
        self._fingerprint: str | None = None
        self._layouts: dict[tuple[str, ...], Layout] = {}
        self.report: Report | None = None

    def __repr__(self) -> str:
        return call_text("Annotator", as_options(self._pair) | label_options(self.config))

    def __call__(
        self, batch: Mapping[str, Sequence[Any]], rank: int | None = None
    ) -> dict[str, list[Any]] | pa.Table:
        """Return the columns to add to a batch, for ``datasets.map``.

        Args:
            batch: Columns of rows.
            rank: Number of the process; it chooses the device.

        Raises:
            DataError: The columns are of no known kind, or a row cannot be scored and
                ``on_error`` is ``raise``.
        """
        check_mapping(batch)
        layout = self.find_layout(list(batch))
        values = plain_columns(batch, layout)
        items = read_rows(values, layout)
        table = getattr(batch, "pa_table", None)
        labeller = self.labeller(layout, values, None if table is None else table.schema)
        self.check_free(labeller, list(batch))
        labels = labeller.label(values, items, self.rewards(items, rank=rank))
        if table is not None and has_null_column(labels):
            # As plain lists a column without a value would get the type null for good.
            return labelled_table(table, labels, labeller)
        return {**own_columns(values, labels, labeller), **labels.columns}

    def find_layout(self, columns: Sequence[str]) -> Layout:
        """Return which columns are read.

        Raises:
            DataError: The columns are of no known kind.
        """
        key = tuple(columns)
        if key not in self._layouts:
            self._layouts[key] = find_layout(columns, self.config, self._pair.routing)
        return self._layouts[key]

    def labeller(
        self, layout: Layout, batch: Mapping[str, Sequence[Any]], types: pa.Schema | None
    ) -> Labeller:
        """Return what turns rewards into columns, for rows such as these."""
        return make_labeller(layout, self.config, batch, types)

    def check_free(self, labeller: Labeller, columns: Sequence[str]) -> None:
        """Check that no column is there that would be added.

        Raises:
            DataError: One is.
        """
        written = {*labeller.schema(), *labeller.renames().values()}
        taken = written & set(columns) - set(labeller.layout.columns)
        if taken:
            keep = ", or keep_names=true" if labeller.renames() else ""
            raise DataError(
                f"The data has columns that would be written: {', '.join(sorted(taken))}. Remove "
                f"or rename them, or give another prefix=… for ours{keep}."
            )

    def rewards(
        self,
        items: Sequence[Item],
        *,
        rank: int | None = None,
        first_row: int = 0,
        progress: Callable[[int, int], object] | None = None,
    ) -> Rewards:
        """Return the rewards of the responses of some rows.

        Args:
            items: The rows.
            rank: Number of the process; it chooses the device.
            first_row: How to number the rows in an error.
            progress: See :meth:`drsow_plugin.DrSoW.score`.

        Returns:
            For each row a reward for each response; ``None`` for a missing response. A row
            that could not be read has none.

        Raises:
            DataError: A row cannot be scored and ``on_error`` is ``raise``.
        """
        flat = [
            (row, text)
            for row, item in enumerate(items)
            for text in item.responses
            if text is not None
        ]
        scored = iter(
            self._open(rank).score(
                [list(items[row].prompt) for row, _ in flat],
                [text for _, text in flat],
                domains=[items[row].domain for row, _ in flat]
                if self._pair.routing.is_on
                else None,
                on_error="null",
                token_logprobs=self.config.token_logprobs,
                progress=progress,
            )
            if flat
            else ()
        )
        rewards: Rewards = [
            [None if text is None else next(scored) for text in item.responses] for item in items
        ]
        if self.config.on_error == "raise":
            raise_first(items, rewards, first_row)
        return rewards

    def run(
        self,
        data: Any,
        *,
        num_proc: int | None = None,
        keep_unusable: bool = False,
        shard_rows: int = 128,
        cache_dir: str | None = None,
        rows_dir: str | None = None,
    ) -> Any:
        """Label a data set, with progress, and keep finished work.

        Scores are kept on disk shard by shard, by the models' and the rows' contents. A run
        that was killed goes on where it stopped and gives the rows that an uninterrupted run
        gives; other options for the labels, or rows added at the end, need no new scores.

        Args:
            data: A ``Dataset``, a ``DatasetDict``, or a streaming one of either.
            num_proc: Processes to score with, each on its own device; ``None`` is this one.
            keep_unusable: Whether rows without a reward, or without a pair, stay.
            shard_rows: Rows that are scored, and kept, together.
            cache_dir: Where finished work is kept; ``None`` is ``DRSOW_CACHE``, or
                ``~/.cache/drsow``.
            rows_dir: Where the labelled rows are written; ``None`` is a folder in
                ``cache_dir``.

        Returns:
            A ``Dataset``, on disk, or a ``DatasetDict``; :attr:`report` says how it was made.

        Raises:
            DataError: The columns are of no known kind, or a row cannot be scored and
                ``on_error`` is ``raise``.
            EngineError: The models failed. Finished work is kept.
            StorageError: There is no room left, or files cannot be written. Likewise.
            Interrupted: Ctrl-C or a signal came. Likewise.
        """
        from drsow_plugin.annotate.runner import Folders, run

        root = cache_folder(cache_dir)
        folders = Folders(root / "scores" / self.work_key[:32], Path(rows_dir or root / "labelled"))
        labelled, self.report = run(
            *(self, data, num_proc, folders), keep_unusable=keep_unusable, shard_rows=shard_rows
        )
        return labelled

    def report_on(self, data: Any) -> Report:
        """Return the report on rows that ``map`` labelled, for :func:`drsow_plugin.publish`.

        Args:
            data: A ``Dataset`` or ``DatasetDict`` with the columns that this annotator adds.

        Raises:
            DataError: The columns are not there.
        """
        from drsow_plugin.annotate.runner import report_on

        return report_on(self, data)

    @cached_property
    def _pinned(self) -> PairConfig:
        return self._open().pinned_config

    @property
    def fingerprint(self) -> str:
        """A hash of everything that changes a reward; see :attr:`DrSoW.fingerprint`."""
        if self._fingerprint is None:
            self._fingerprint = self._open().fingerprint
        return self._fingerprint

    def options(self) -> dict[str, Any]:
        """Return the options in force, but for defaults, with Hub revisions as commits."""
        return self.pair_options() | label_options(self.config)

    def pair_options(self) -> dict[str, Any]:
        """Return those of the pair."""
        return as_options(self._pinned)

    @property
    def routing(self) -> RoutingConfig:
        """How prompts are sent to domains."""
        return self._pair.routing

    @property
    def reduction(self) -> Reduction:
        """How a reward is made from two log-probs."""
        return self._pair.scoring.reduction

    def describe(self) -> dict[str, Any]:
        """Return the pair and the policies, as plain values; see :meth:`DrSoW.describe`."""
        return self._open().describe()

    @property
    def work_key(self) -> str:
        """What finished scores are kept under."""
        described = {
            "fingerprint": self.fingerprint,
            "token_logprobs": self.config.token_logprobs,
            "batching": [self._pair.batch_tokens, self._pair.batch_size],  # decides the rounding
        }
        return text_sha256(json.dumps(described, sort_keys=True))

    def check_reopens(self) -> None:
        """Check that another process can open the same pair.

        Raises:
            ConfigError: A model or a tokenizer is in memory.
        """
        check_reopens(self._pair)

    def _open(self, rank: int | None = None) -> DrSoW:
        placed = self._pair if rank is None else place(self._pair, rank)
        if self._opened is None or (rank is not None and self._opened.config != placed):
            self._opened = None  # the former weights go before others come
            self._opened = reopened(placed, self._fingerprint)
        return self._opened

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
    pair, annotator.config = split_options(loaded["options"])
    annotator._pair = parse_pair(pair)
    annotator._opened = annotator.report = None
    annotator._fingerprint = loaded["fingerprint"]
    annotator._layouts = {}
    return annotator
