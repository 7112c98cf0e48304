"""Spans of whole numbers, (start, stop), and the numbers in them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]
Span = tuple[int, int]


class Path:
    """The slots of one path from the root, as spans, (start, stop)."""

    def __init__(self, length: int) -> None:
        """Begin with the first slots, so many."""
        self._spans = [(0, length)] if length else []
        self._length = length

    def cut(self, length: int) -> None:
        """Leave the first slots only."""
        while self._length > length:
            start, stop = self._spans.pop()
            rest = self._length - (stop - start)
            if rest < length:
                self._spans.append((start, start + length - rest))
            self._length = max(rest, length)

    def add(self, start: int, stop: int) -> None:
        """Go on with a span."""
        self._length += stop - start
        if self._spans and self._spans[-1][1] == start:
            start = self._spans.pop()[0]
        self._spans.append((start, stop))

    def spans(self) -> tuple[Span, ...]:
        """Return the spans, from the root on; no two of them are contiguous."""
        return tuple(self._spans)


def slots_of(spans: Sequence[Span]) -> Ids:
    """Return the numbers of spans, one span behind the other, such as 3, 4, 8 of (3, 5), (8, 9)."""
    starts, stops = np.array(spans, dtype=np.int64).reshape(-1, 2).T
    return numbers(starts, stops - starts)


def numbers(starts: Ids, lengths: Ids) -> Ids:
    """Return the same of the starts and the lengths of spans."""
    begins = lengths.cumsum() - lengths
    return np.repeat(starts - begins, lengths) + np.arange(lengths.sum())
