"""Labelled rows as arrays: responses with their rewards, and the pairs among them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import permutations
from typing import Any

import numpy as np

from drsow_plugin.annotate.options import Kind
from drsow_plugin.bootstrap import wins
from drsow_plugin.errors import DataError
from drsow_plugin.quality import MAX_ROWS
from drsow_plugin.quality.arrays import Arrays, Columns, joined
from drsow_plugin.quality.labelled import Batch, LabelledData, columns_of

_MOST = 5_000_000  # responses, or pairs, that are held
_CHUNK = 10_000  # rows that are read before it is looked how many responses they have


@dataclass(frozen=True)
class Responses(Arrays):
    """Responses that have a reward; each attribute is an array (responses,).

    Attributes:
        row: Number of its row, counted over all splits.
        place: Where it stands in its row: 0 chosen, 1 rejected, or its place in the list.
        prompt: A hash of the prompt.
        reward: The reward, nats (with ``reduction=mean`` nats a token).
        strong_logprob: Summed log-prob under the strong model, nats.
        weak_logprob: The same under the weak model.
        strong_tokens: Tokens of the strong model.
        weak_tokens: Tokens of the weak model.
    """

    row: np.ndarray
    place: np.ndarray
    prompt: np.ndarray
    reward: np.ndarray
    strong_logprob: np.ndarray
    weak_logprob: np.ndarray
    strong_tokens: np.ndarray
    weak_tokens: np.ndarray


@dataclass(frozen=True)
class Pairs(Arrays):
    """Two responses to one prompt each, the better one first; arrays (pairs,).

    Which one is better is what the data said before it was labelled: its chosen one (where rows
    were exchanged, the one that is called rejected now), or the candidate with the higher rating.
    Of candidates without ratings it is what the reward chose, and ``gold`` is false.

    Attributes:
        row: Number of its row, counted over all splits.
        prompt: A hash of the prompt.
        margin: Reward of the better one minus reward of the other, nats.
        length: Tokens of the better one minus tokens of the other, of the strong model.
        gold: Whether the data says which is better, and its label is to be trusted.
        group: Number of the part of the data that the row is of.
        better: Place of the better one among the responses.
        other: Place of the other one.
    """

    row: np.ndarray
    prompt: np.ndarray
    margin: np.ndarray
    length: np.ndarray
    gold: np.ndarray
    group: np.ndarray
    better: np.ndarray
    other: np.ndarray

    def wins(self) -> np.ndarray:
        """Return 1 where the better one has the higher reward, 0.5 where they tie, else 0."""
        return wins(self.margin)


@dataclass(frozen=True)
class Rows:
    """Labelled rows that were read.

    Attributes:
        rows: How many.
        of_rows: How many the data has; more where these are a sample.
        responses: Their responses with a reward.
        pairs: The pairs among them.
        groups: What the numbers of groups stand for.
        failures: Rows without a reward or a pair among them, by reason.
        numbers: The number of each, counted over all splits, in order.
    """

    rows: int
    of_rows: int
    responses: Responses
    pairs: Pairs
    groups: Sequence[str]
    failures: Counter[str]
    numbers: np.ndarray

    @property
    def gold(self) -> Pairs:
        """The pairs of which the data says which response is better."""
        return self.pairs.where(self.pairs.gold)

    @property
    def sampled(self) -> str:
        """What to say of the rows: all of them, or a sample."""
        if self.rows == self.of_rows:
            return f"{self.rows:,} rows"
        return f"a random sample of {self.rows:,} of {self.of_rows:,} rows"


class RowReader:
    """Turns batches of labelled rows into arrays, batch by batch."""

    def __init__(self, data: LabelledData) -> None:
        """Read rows of some data; numbers of rows are counted over its splits, in order."""
        self._data = data
        self.groups: dict[str, int] = {}
        self._first = dict(zip(data.splits, data.first_rows(), strict=True))

    def first_row(self, split: str) -> int:
        """Return the number of a split's first row, counted over all splits."""
        return self._first[split]

    def read(self, batch: Batch) -> tuple[Responses, Pairs]:
        """Return the responses of a batch and the pairs among them.

        Raises:
            DataError: The columns of a row do not go together.
        """
        responses, pairs = Columns(Responses), Columns(Pairs)
        for at, number in enumerate(batch.numbers):
            try:
                self._read(batch, at, responses, pairs)
            except (IndexError, TypeError, ValueError) as error:
                raise DataError(
                    f"row {number} of {batch.split}: the columns that labelling added do not go "
                    f"together ({error}). Label it again."
                ) from error
        return responses.arrays(), pairs.arrays()

    def _read(self, batch: Batch, at: int, responses: Columns, pairs: Columns) -> None:
        row = self._first[batch.split] + batch.numbers[at]
        prompt = batch.items[at].prompt_key(row) if batch.items else row
        group = self.groups.setdefault(batch.groups[at], len(self.groups))
        places: dict[int, int] = {}
        numbers = response_numbers(batch, at, self._data.kind)
        for place, values in enumerate(numbers):
            if values is not None:
                places[place] = len(responses)
                responses.add(row, place, prompt, *values)
        for better, other, gold in self._compared(batch, at):
            first, second = numbers[better], numbers[other]
            if first is not None and second is not None:
                pairs.add(
                    *(row, prompt, first[0] - second[0], first[3] - second[3]),
                    *(gold and batch.gold[at], group, places[better], places[other]),
                )

    def _compared(self, batch: Batch, at: int) -> Iterator[tuple[int, int, bool]]:
        """Yield the places of the better and the other response, and whether a label says so."""
        if self._data.kind == "pairs":
            swapped = bool((batch.values.get("swapped") or [False] * len(batch))[at])
            yield (1, 0, True) if swapped else (0, 1, True)
        if self._data.kind != "candidates":
            return
        ratings = batch.ratings[at]
        if ratings is not None and any(rating is not None for rating in ratings):
            for better, other in permutations(range(len(ratings)), 2):
                more, less = ratings[better], ratings[other]
                if more is not None and less is not None and more > less:
                    yield better, other, True
            return
        chosen, rejected = (batch.values[f"{side}_index"][at] for side in ("chosen", "rejected"))
        if chosen is not None and rejected is not None:
            yield int(chosen), int(rejected), False


def read_labelled(data: LabelledData, max_rows: int | None = MAX_ROWS, seed: int = 0) -> Rows:
    """Read labelled rows: all of them, or a random sample.

    Args:
        data: The rows.
        max_rows: How many at most; ``None`` for all. It may be fewer where rows have very many
            responses, so that at most five million of these, and of their pairs, are held.
        seed: Of the sample.
    """
    order = chosen_rows(data, max_rows, seed)
    reader, failures = RowReader(data), Counter[str]()
    responses: list[Responses] = []
    pairs: list[Pairs] = []
    held = read = offset = 0
    for start in range(0, len(order), _CHUNK):
        chunk = np.sort(order[start : start + _CHUNK])
        for batch in batches_of(data, chunk):
            found, compared = reader.read(batch)
            failures.update(filter(None, batch.failures()))
            responses.append(found)
            pairs.append(_shifted(compared, offset))
            offset += len(found)
            held += max(len(found), len(compared))
        read += len(chunk)
        if held > _MOST and max_rows is not None:
            break
    return Rows(
        rows=read,
        of_rows=len(data),
        responses=joined(Responses, responses),
        pairs=joined(Pairs, pairs),
        groups=list(reader.groups),
        failures=failures,
        numbers=np.sort(order[:read]),
    )


def chosen_rows(data: LabelledData, max_rows: int | None, seed: int) -> np.ndarray:
    """Return the numbers of all rows, in order, or of a random sample, in any order."""
    if max_rows is None or max_rows >= len(data):
        return np.arange(len(data))
    return np.random.default_rng(seed).choice(len(data), max_rows, replace=False)


def batches_of(data: LabelledData, rows: np.ndarray) -> Iterator[Batch]:
    """Yield batches of rows that are numbered over all splits, in order."""
    for (name, split), first in zip(data.splits.items(), data.first_rows(), strict=True):
        own = rows[(rows >= first) & (rows < first + len(split))] - first
        yield from data.batches(name, own)


def response_numbers(batch: Batch, at: int, kind: Kind) -> list[tuple[float, ...] | None]:
    """Return the numbers of each response of a row, as :class:`Responses` has them from ``reward``.

    Returns:
        ``None`` for a response without a reward.
    """
    values = [batch.values[name][at] for name in columns_of(kind)]
    if kind == "candidates":
        lists = [value or [] for value in values]
        return [_complete(numbers) for numbers in zip(*lists, strict=True)]
    if kind == "pairs":
        half = len(values) // 2
        return [_complete(values[:half]), _complete(values[half:])]
    return [_complete(values)]


def _complete(values: Sequence[Any]) -> tuple[float, ...] | None:
    """Return numbers if all of them are there and finite."""
    known = [float(value) for value in values if value is not None]
    return tuple(known) if len(known) == len(values) and all(map(math.isfinite, known)) else None


def _shifted(pairs: Pairs, offset: int) -> Pairs:
    values = {f.name: getattr(pairs, f.name) for f in fields(pairs)}
    return Pairs(**{**values, "better": pairs.better + offset, "other": pairs.other + offset})
