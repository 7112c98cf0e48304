"""Running statistics: a proportion with its standard error, a correlation, quantiles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Proportion:
    """A share of some rows.

    Attributes:
        value: The share, 0 to 1.
        stderr: Its standard error; ``None`` of a single row.
        n: Rows that it is taken over.
        ties: Rows that were undecided, whether or not they are among ``n``.
    """

    value: float
    stderr: float | None
    n: int
    ties: int = 0


class Share:
    """Running proportion with standard error; ties count as they are added or are left out."""

    def __init__(self) -> None:
        self._number = self._ties = 0
        self._sum = self._squares = 0.0

    def add(self, value: float, *, tie: bool = False) -> None:
        """Count one row: 1 if it is so, 0 if it is not, 0.5 if half of it is."""
        self._number += 1
        self._ties += tie
        self._sum += value
        self._squares += value * value

    def leave_out_tie(self) -> None:
        """Note an undecided row that is no part of the share."""
        self._ties += 1

    def update(self, other: Share) -> None:
        """Add the rows that another share counted."""
        self._number += other._number
        self._ties += other._ties
        self._sum += other._sum
        self._squares += other._squares

    def proportion(self) -> Proportion | None:
        """Return the share so far; ``None`` without a row."""
        if not self._number:
            return None
        mean = self._sum / self._number
        variance = max(self._squares / self._number - mean * mean, 0.0)
        return Proportion(mean, standard_error(variance, self._number), self._number, self._ties)


class Correlation:
    """Running Pearson correlation.

    ``numpy.corrcoef(x, y)[0, 1]`` of all values added, in constant memory.
    """

    def __init__(self) -> None:
        self._number = 0
        self._sums = np.zeros(5)

    def add(self, xs: Sequence[float], ys: Sequence[float], *, centred: bool) -> None:
        """Add the values of a group, as differences from the group's means if ``centred``."""
        x, y = np.asarray(xs, dtype=float), np.asarray(ys, dtype=float)
        if centred:
            x, y = x - x.mean(), y - y.mean()
        self._number += len(x)
        self._sums += (x.sum(), y.sum(), (x * x).sum(), (y * y).sum(), (x * y).sum())

    def value(self) -> float | None:
        """Return the correlation so far; ``None`` where nothing varies."""
        if not self._number:
            return None
        x, y, xx, yy, xy = self._sums
        spread = (xx - x * x / self._number) * (yy - y * y / self._number)
        varies = spread > 1e-12 * xx * yy  # and not by rounding alone
        return float((xy - x * y / self._number) / math.sqrt(spread)) if varies else None


def standard_error(variance: float, number: int) -> float | None:
    """Return the standard error of a mean: ``sqrt(variance / (number - 1))``.

    Args:
        variance: Mean squared deviation from the mean, that is, with ``number`` as divisor.
        number: How many values there are; of fewer than two there is no error.
    """
    return math.sqrt(variance / (number - 1)) if number > 1 else None


def quantiles(values: ArrayLike, at: Sequence[float]) -> dict[str, float] | None:
    """Return linearly interpolated quantiles by their probability; ``None`` without a value."""
    array = np.asarray(values, dtype=float)
    return {str(q): float(np.quantile(array, q)) for q in at} if array.size else None
