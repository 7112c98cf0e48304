"""Running statistics: a proportion with its standard error, a correlation, quantiles."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from drsow_plugin.bootstrap import share_interval


@dataclass(frozen=True)
class Proportion:
    """A share of some rows.

    Attributes:
        value: The share, 0 to 1.
        stderr: Its standard error, as if each row had a prompt of its own; ``None`` of a single
            row.
        n: Rows that it is taken over.
        ties: Rows that were undecided, whether or not they are among ``n``.
        low: Lower end of its interval, of which :data:`~drsow_plugin.bootstrap.LEVEL` says how
            much it holds: a bootstrap that draws prompts. ``None`` of a single prompt.
        high: Upper end.
    """

    value: float
    stderr: float | None
    n: int
    ties: int = 0
    low: float | None = None
    high: float | None = None


class Share:
    """Running proportion with its interval; ties count as they are added or are left out.

    It holds twelve bytes a row.
    """

    def __init__(self) -> None:
        self._number = self._ties = 0
        self._sum = self._squares = 0.0
        self._prompts, self._values = array("Q"), array("f")

    def add(self, value: float, prompt: int, *, tie: bool = False) -> None:
        """Count one row.

        Args:
            value: 1 if it is so, 0 if it is not, 0.5 if half of it is.
            prompt: A number below 2**64, the same for rows of one prompt.
            tie: Whether it is undecided.
        """
        self._number += 1
        self._ties += tie
        self._sum += value
        self._squares += value * value
        self._prompts.append(prompt)
        self._values.append(value)

    def leave_out_tie(self) -> None:
        """Note an undecided row that is no part of the share."""
        self._ties += 1

    def update(self, other: Share) -> None:
        """Add the rows that another share counted."""
        self._number += other._number
        self._ties += other._ties
        self._sum += other._sum
        self._squares += other._squares
        self._prompts.extend(other._prompts)
        self._values.extend(other._values)

    def proportion(self) -> Proportion | None:
        """Return the share so far; ``None`` without a row."""
        if not self._number:
            return None
        mean = self._sum / self._number
        variance = max(self._squares / self._number - mean * mean, 0.0)
        error = standard_error(variance, self._number)
        low, high = share_interval(self._values, self._prompts) or (None, None)
        return Proportion(mean, error, self._number, self._ties, low, high)


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


def pearson(x: np.ndarray, y: np.ndarray) -> float | None:
    """Return Pearson's correlation; ``None`` of fewer than three points, or where one is flat."""
    if len(x) < 3 or not np.ptp(x) > 0 or not np.ptp(y) > 0:  # NaN is no point either
        return None
    return float(np.corrcoef(x, y)[0, 1])


def spearman(x: np.ndarray, y: np.ndarray) -> float | None:
    """Return Spearman's rank correlation; ``None`` likewise."""
    from scipy.stats import rankdata

    return pearson(rankdata(x), rankdata(y))
