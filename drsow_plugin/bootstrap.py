"""Figures with intervals: a bootstrap that draws prompts, each with all of its rows.

Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 8 (drawing whole
clusters) and 13 (percentile intervals).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

LEVEL = 0.95
"""The share of resamples that an interval holds."""

RESAMPLES = 1000
_CELLS = 1 << 22  # of counts that are held at a time


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval.

    Attributes:
        value: The figure over all rows.
        low: Lower end of the interval; ``None`` where there is none.
        high: Upper end.
        n: Rows, or pairs of models, that it is taken over.
    """

    value: float
    low: float | None
    high: float | None
    n: int


def wins(margins: np.ndarray) -> np.ndarray:
    """Return 1 where a margin is positive, 0 where it is negative and 0.5 for a tie.

    So the accuracy of a pair and that of the pair the other way round add up to 1.
    """
    won: np.ndarray = (np.sign(margins) + 1) / 2
    return won


def interval(resampled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of percentile intervals, over the first axis; NaN is left out."""
    ends = (1 - LEVEL) / 2, (1 + LEVEL) / 2
    low, high = np.nanquantile(resampled, ends, axis=0)
    return low, high


def sums_by_prompt(prompts: ArrayLike, *figures: ArrayLike) -> np.ndarray:
    """Return the sums of figures over the rows of each prompt.

    Args:
        prompts: What is the same for rows that are drawn together, (rows,).
        *figures: Each (rows,).

    Returns:
        (prompts, figures).
    """
    _, codes = np.unique(np.asarray(prompts), return_inverse=True)
    sums = [np.bincount(codes, weights=np.asarray(figure, dtype=float)) for figure in figures]
    return np.stack(sums, axis=1)


def resampled_sums(
    table: np.ndarray, resamples: int, seed: int, counts: np.ndarray | None = None
) -> np.ndarray:
    """Return the sums of figures over prompts that are drawn with replacement.

    Args:
        table: The figures of each prompt, (prompts, figures).
        resamples: How often to draw.
        seed: Of the draws.
        counts: How many prompts have the figures of each line, (prompts,); ``None`` for one each.

    Returns:
        (resamples, figures).
    """
    chance = np.random.default_rng(seed)
    lines = len(table)
    if counts is None:
        draws = (chance.integers(lines, size=lines) for _ in range(resamples))
        return np.stack([np.bincount(draw, minlength=lines) @ table for draw in draws])
    number, step = int(counts.sum()), max(1, _CELLS // lines)
    parts = [
        chance.multinomial(number, counts / number, size=min(step, resamples - start)) @ table
        for start in range(0, resamples, step)
    ]
    return np.concatenate(parts)


def share_interval(
    values: ArrayLike, prompts: ArrayLike, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float] | None:
    """Return the interval of the mean of values, 0 to 1 each.

    Where all rows are 1, or all are 0, all resamples are alike and say nothing; the interval is
    then that of Clopper and Pearson, of as many draws as there are prompts.

    Args:
        values: (rows,).
        prompts: What is the same for rows that are drawn together, (rows,).
        resamples: How often to draw.
        seed: Of the draws.

    Returns:
        Its ends; ``None`` of fewer than two prompts, or where all of them are undecided.
    """
    if np.size(values) and np.ptp(np.asarray(values)) == 0:
        number = len(np.unique(np.asarray(prompts)))
        return _of_no_exception(float(np.asarray(values).flat[0]), number)
    return mean_interval(values, prompts, resamples, seed)


def mean_interval(
    values: ArrayLike, prompts: ArrayLike, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float] | None:
    """Return the interval of the mean of any values.

    Prompts with the same sum over the same number of rows are drawn as one kind, as often as there
    are such: the same as drawing them one by one, at any number of rows.

    Args:
        values: (rows,).
        prompts: What is the same for rows that are drawn together, (rows,).
        resamples: How often to draw.
        seed: Of the draws.

    Returns:
        Its ends; ``None`` of fewer than two prompts, or where all values are the same.
    """
    if not np.size(values) or np.ptp(np.asarray(values)) == 0:
        return None
    sums, sizes = sums_by_prompt(prompts, values, np.ones(np.size(values))).T
    if len(sums) < 2:
        return None
    kinds, counts = np.unique(sums + 1j * sizes, return_counts=True)
    drawn = resampled_sums(np.stack([kinds.real, kinds.imag], axis=1), resamples, seed, counts)
    low, high = interval(drawn[:, 0] / drawn[:, 1])
    return float(low), float(high)


def share(
    values: np.ndarray, prompts: np.ndarray, resamples: int = RESAMPLES, seed: int = 0
) -> Estimate:
    """Return the mean of values, of at least one, with its interval; see :func:`share_interval`."""
    low, high = share_interval(values, prompts, resamples, seed) or (None, None)
    return Estimate(float(np.mean(values)), low, high, len(values))


def _of_no_exception(value: float, number: int) -> tuple[float, float] | None:
    if value not in (0.0, 1.0) or number < 2:
        return None
    from scipy.stats import binomtest

    found = binomtest(int(value) * number, number).proportion_ci(LEVEL, method="exact")
    return float(found.low), float(found.high)


class PromptBootstrap:
    """Resamples of rows: prompts are drawn with replacement, each with all of its rows.

    Plainly, for one figure::

        draws = rng.integers(prompts, size=(resamples, prompts))
        [values[rows_of(draw)].mean() for draw in draws]

    Every figure of a study comes from the same draws, so that figures of two pairs may be compared
    draw by draw.

    Attributes:
        prompts: How many different prompts there are.
        counts: How often each is in each resample, (resamples, prompts).
        codes: The prompt of each row, (rows,).
    """

    def __init__(self, prompts: Sequence[str], resamples: int, seed: int) -> None:
        """Draw.

        Args:
            prompts: What is the same for rows that are drawn together.
            resamples: How many.
            seed: Of the draws.
        """
        numbers: dict[str, int] = {}
        codes = [numbers.setdefault(prompt, len(numbers)) for prompt in prompts]
        self.prompts = len(numbers)
        self.codes = np.array(codes)
        chance = np.random.default_rng(seed)
        even = np.full(self.prompts, 1 / self.prompts)
        self.counts = chance.multinomial(self.prompts, even, size=resamples).astype(np.float64)

    def by_prompt(self, values: np.ndarray) -> np.ndarray:
        """Return the sums of values over the rows of each prompt.

        Args:
            values: (figures, rows).

        Returns:
            (prompts, figures).
        """
        sums = [np.bincount(self.codes, weights=v, minlength=self.prompts) for v in values]
        return np.stack(sums, axis=1)

    def ratios(
        self, values: np.ndarray, sizes: np.ndarray | None = None, rows: np.ndarray | None = None
    ) -> np.ndarray:
        """Return ``sum(values) / sum(sizes)`` over the rows of each resample.

        Args:
            values: (figures, rows).
            sizes: (rows,); ``None`` for 1 each, which gives means.
            rows: Which of them count, (rows,); ``None`` for all.

        Returns:
            (resamples, figures); NaN where a resample has none of the rows.
        """
        counted = np.ones(len(self.codes)) if rows is None else rows.astype(float)
        sizes = counted if sizes is None else sizes * counted
        drawn = self.counts @ self.by_prompt(sizes[None])
        sums = self.counts @ self.by_prompt(values * counted)
        found: np.ndarray = sums / np.where(drawn, drawn, np.nan)
        return found

    def means(self, values: np.ndarray, rows: np.ndarray | None = None) -> list[Estimate]:
        """Return the mean of each figure over the rows that count, with its interval."""
        mask = np.ones(len(self.codes), dtype=bool) if rows is None else rows
        low, high = interval(self.ratios(values, rows=mask))
        whole = values[:, mask].mean(axis=1)
        n = int(mask.sum())
        return [
            Estimate(float(v), float(a), float(b), n)
            for v, a, b in zip(whole, low, high, strict=True)
        ]

    def weighted_means(
        self, values: np.ndarray, parts: Sequence[tuple[float, np.ndarray]]
    ) -> list[Estimate]:
        """Return the weighted mean of the means over parts of the rows, with its interval.

        Args:
            values: (figures, rows).
            parts: For each its weight and its rows.
        """
        total = sum(weight for weight, _ in parts)
        whole = sum(weight * values[:, rows].mean(axis=1) for weight, rows in parts) / total
        drawn = sum(weight * self.ratios(values, rows=rows) for weight, rows in parts) / total
        low, high = interval(np.asarray(drawn))
        n = int(sum(rows.sum() for _, rows in parts))
        return [
            Estimate(float(v), float(a), float(b), n)
            for v, a, b in zip(np.asarray(whole), low, high, strict=True)
        ]
