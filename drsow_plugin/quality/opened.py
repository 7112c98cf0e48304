"""Runs on disk: labelled rows, or the samples that lm-eval logged."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from drsow_plugin.annotate.place import REPORT, Place
from drsow_plugin.errors import DataError
from drsow_plugin.harness.documents import best_of
from drsow_plugin.quality.labelled import Batch, LabelledData, open_labelled
from drsow_plugin.quality.logged import logged_files, logged_lines, read_sample
from drsow_plugin.quality.options import QualityConfig
from drsow_plugin.quality.rows import batches_of, response_numbers
from drsow_plugin.quality.runs import Run, RunRow


class LabelledRun:
    """Rows that 'drsow annotate' labelled."""

    def __init__(self, data: LabelledData) -> None:
        """Read labelled pairs, or candidates with ratings."""
        self._data = data
        self.name = data.name

    def __len__(self) -> int:
        return len(self._data)

    def rows(self, places: Sequence[int] | None = None) -> Iterator[tuple[int, RunRow | None]]:
        """See :class:`Run`."""
        numbers = np.arange(len(self)) if places is None else np.asarray(places, dtype=int)
        firsts = dict(zip(self._data.splits, self._data.first_rows(), strict=True))
        for batch in batches_of(self._data, numbers):
            for at, number in enumerate(batch.numbers):
                yield firsts[batch.split] + number, self._row(batch, at)

    def _row(self, batch: Batch, at: int) -> RunRow | None:
        item = batch.items[at]
        if item.problem is not None or not batch.gold[at] or self._data.kind == "single":
            return None
        numbers = response_numbers(batch, at, self._data.kind)
        rewards = [math.nan if own is None else own[0] for own in numbers]
        texts = list(item.responses)
        if len(rewards) != len(texts):
            raise DataError(
                f"row {batch.numbers[at]} of {batch.split}: {len(texts)} responses and "
                f"{len(rewards)} rewards. Label it again."
            )
        group = batch.groups[at] or (batch.values.get("domain") or [None] * len(batch))[at]
        subsets = [str(group)] if group else []
        if self._data.kind == "pairs":
            swapped = (batch.values.get("swapped") or [False] * len(batch))[at]
            order = (1, 0) if swapped else (0, 1)
            pair = [str(texts[n]) for n in order], [rewards[n] for n in order]
            return RunRow(item.prompt, *pair, [0], subsets)
        rated = [
            (text, reward, rating)
            for text, reward, rating in zip(
                texts, rewards, batch.ratings[at] or [None] * len(texts), strict=True
            )
            if text is not None and rating is not None
        ]
        if not rated:
            return None
        best = best_of({"ratings": [rating for _, _, rating in rated]})
        return RunRow(
            item.prompt, [text for text, _, _ in rated], [r for _, r, _ in rated], best, subsets
        )

    def names(self, places: Sequence[int]) -> dict[int, str]:
        """See :class:`Run`."""
        splits, firsts = list(self._data.splits), self._data.first_rows()
        of = np.searchsorted(firsts, places, side="right") - 1
        return {
            place: f"{splits[at]}:{place - firsts[at]}"
            for place, at in zip(places, of.tolist(), strict=True)
        }


class LoggedRun:
    """Samples that lm-eval logged: rows of preference tasks, with any model."""

    def __init__(self, name: str, files: Sequence[Path]) -> None:
        """Read files that ``--log_samples`` wrote, one for each task."""
        self.name = name
        self._files = files

    def __len__(self) -> int:
        return 0

    def rows(self, places: Sequence[int] | None = None) -> Iterator[tuple[int, RunRow | None]]:
        """See :class:`Run`."""
        wanted = None if places is None else set(places)
        for number, (file, line, text) in enumerate(logged_lines(self._files)):
            if wanted is None or number in wanted:
                sample = read_sample(file, line, text)
                texts = sample.prompt, sample.responses
                yield number, RunRow(*texts, sample.rewards, sample.best, sample.subsets)

    def names(self, places: Sequence[int]) -> dict[int, str]:
        """See :class:`Run`."""
        wanted = set(places)
        return {
            number: f"{file.name}:{line}"
            for number, (file, line, _) in enumerate(logged_lines(self._files))
            if number in wanted
        }


def open_run(name: str, config: QualityConfig, **options: Any) -> Run:
    """Open a run by its name.

    Args:
        name: What 'drsow annotate' wrote, a file ``samples_….jsonl`` of lm-eval, or a folder of
            such, of which the newest of each task is taken.
        config: How labelled rows are read.
        **options: See :func:`~drsow_plugin.quality.labelled.open_labelled`.

    Raises:
        DataError: It cannot be read, or is neither.
    """
    path = Path(name).expanduser()
    if not Place.of(path).at(REPORT).is_file() and (files := logged_files(path)):
        return LoggedRun(name, files)
    gold = config.rows.gold_column
    return LabelledRun(open_labelled(name, config.columns, gold_column=gold, **options))
