"""How far a reward follows length, and what is left of it when length is taken out.

Within a prompt::

    reward = a(prompt) + slope * tokens + rest

is a regression with an intercept for each prompt (the *within*, or fixed-effects, estimator:
Wooldridge, Econometric Analysis of Cross Section and Panel Data, section 10.5), in nats a token of
the strong model. The length-controlled reward is ``reward - slope * tokens``. It takes out all that
goes along with length, also where the better responses are longer because they are better: it
answers whether a reward says anything beyond length, and is no better reward by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from drsow_plugin.bootstrap import RESAMPLES, Estimate, interval, resampled_sums, share, wins
from drsow_plugin.quality.rows import Pairs, Responses, Rows
from drsow_plugin.stats import pearson, spearman

FOLDS = 5
_DEFINED = 0.9  # share of the resamples that a correlation has to exist in


@dataclass(frozen=True)
class LengthEffect:
    """How reward and length go together; ``None`` where there is nothing to say.

    Attributes:
        within_pearson: Correlation of reward and tokens among the responses to one prompt, as
            differences from their mean over the prompt.
        within_spearman: Rank correlation of the same differences.
        across_pearson: Correlation of the means of each prompt.
        across_spearman: Rank correlation of these.
        slope: Nats a token by which the reward rises among the responses to one prompt.
        picks_longer: How often the reward prefers the longer of two responses, over the pairs of
            different length; a tie counts half.
        accuracy: How often the better response has the higher reward, where that is known.
        longer: How often it is the longer one, on the same pairs.
        controlled: How often it has the higher length-controlled reward, likewise; the slope for
            a pair is from other prompts.
    """

    within_pearson: Estimate | None
    within_spearman: Estimate | None
    across_pearson: Estimate | None
    across_spearman: Estimate | None
    slope: Estimate | None
    picks_longer: Estimate | None
    accuracy: Estimate | None
    longer: Estimate | None
    controlled: Estimate | None

    def values(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def length_effect(
    rows: Rows, *, folds: int = FOLDS, resamples: int = RESAMPLES, seed: int = 0
) -> LengthEffect:
    """Return how reward and length go together in labelled rows.

    Args:
        rows: The rows.
        folds: Parts of the prompts, for the slope of pairs that it was not fitted on.
        resamples: Of the intervals.
        seed: Of parts and resamples.
    """
    responses, gold = rows.responses, rows.gold
    within = _within(responses)
    apart = rows.pairs.where(rows.pairs.length != 0)
    longer = wins(apart.margin * np.sign(apart.length))
    drawn = resamples, seed
    controlled = controlled_margins(gold, responses, folds=folds, seed=seed) if len(gold) else None
    pooled = correlations(within.tokens, within.reward, within.prompt, *drawn)
    across = correlations(*_means(responses), *drawn)
    return LengthEffect(
        within_pearson=pooled[0],
        within_spearman=pooled[1],
        across_pearson=across[0],
        across_spearman=across[1],
        slope=within.slope(*drawn),
        picks_longer=share(longer, apart.prompt, *drawn) if len(apart) else None,
        accuracy=share(gold.wins(), gold.prompt, *drawn) if len(gold) else None,
        longer=share(wins(gold.length), gold.prompt, *drawn) if len(gold) else None,
        controlled=(None if controlled is None else share(wins(controlled), gold.prompt, *drawn)),
    )


def fit_slope(responses: Responses) -> float | None:
    """Return the nats a token by which the reward rises among the responses to one prompt.

    Returns:
        The slope; ``None`` where no prompt has responses of different lengths.
    """
    return _within(responses).least_squares()


def controlled_margins(
    pairs: Pairs, responses: Responses, *, folds: int = FOLDS, seed: int = 0
) -> np.ndarray | None:
    """Return margins of the length-controlled reward, with slopes from other prompts.

    Args:
        pairs: The pairs.
        responses: The responses that the slopes are fitted on.
        folds: Parts of the prompts; pairs of one part get the slope of the others.
        seed: Of the parts.

    Returns:
        Nats, (pairs,); ``None`` where some part has no slope.
    """
    found = controlled(
        responses.prompt, responses.strong_tokens, responses.reward, folds=folds, seed=seed
    )
    return None if found is None else found[pairs.better] - found[pairs.other]


def controlled(
    prompts: np.ndarray,
    lengths: np.ndarray,
    rewards: np.ndarray,
    *,
    folds: int = FOLDS,
    seed: int = 0,
) -> np.ndarray | None:
    """Return length-controlled rewards, with slopes from other prompts.

    Args:
        prompts: What is the same for responses to one prompt, (responses,).
        lengths: In any unit, (responses,).
        rewards: Nats, (responses,).
        folds: Parts of the prompts; responses of one part get the slope of the others.
        seed: Of the parts.

    Returns:
        Nats, (responses,); ``None`` where some part has no slope.
    """
    unique, codes = np.unique(prompts, return_inverse=True)
    if len(unique) < 2:
        return None
    parts = np.random.default_rng(seed).permutation(len(unique)) % min(folds, len(unique))
    found = np.array(rewards, dtype=float)
    for part in range(parts.max() + 1):
        own = parts[codes] == part
        slope = _Within(codes[~own], lengths[~own], rewards[~own]).least_squares()
        if slope is None:
            return None
        found[own] -= slope * lengths[own]
    return found


class _Within:
    """Rewards and tokens as differences from their mean over the prompt, of several responses."""

    def __init__(self, prompts: np.ndarray, tokens: np.ndarray, reward: np.ndarray) -> None:
        _, codes, sizes = np.unique(prompts, return_inverse=True, return_counts=True)
        several = sizes[codes] > 1
        self.prompt = codes[several]
        self.tokens, self.reward = (
            (values - (np.bincount(codes, values) / sizes)[codes])[several]
            for values in (np.asarray(tokens, dtype=float), reward)
        )

    def least_squares(self) -> float | None:
        spread = float(self.tokens @ self.tokens)
        return float(self.tokens @ self.reward) / spread if spread > 0 else None

    def slope(self, resamples: int, seed: int) -> Estimate | None:
        value = self.least_squares()
        if value is None:
            return None
        _, codes = np.unique(self.prompt, return_inverse=True)
        products = self.tokens * self.reward, self.tokens**2
        table = np.stack([np.bincount(codes, weights=w) for w in products], axis=1)
        drawn = resampled_sums(table, resamples, seed)
        kept = drawn[drawn[:, 1] > 0]
        ends = interval(kept[:, 0] / kept[:, 1]) if len(table) > 1 else (None, None)
        low, high = (None if end is None else float(end) for end in ends)
        return Estimate(value, low, high, len(self.tokens))


def _within(responses: Responses) -> _Within:
    return _Within(responses.prompt, responses.strong_tokens, responses.reward)


def _means(responses: Responses) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the mean tokens and the mean reward of each prompt, and a number for each."""
    _, codes, sizes = np.unique(responses.prompt, return_inverse=True, return_counts=True)
    tokens, rewards = (
        np.bincount(codes, values) / sizes for values in (responses.strong_tokens, responses.reward)
    )
    return tokens, rewards, np.arange(len(sizes))


def correlations(
    x: np.ndarray, y: np.ndarray, prompts: np.ndarray, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[Estimate | None, Estimate | None]:
    """Return Pearson's and Spearman's correlation with intervals; ``None`` where one is flat.

    A resample draws prompts with all of their rows, and ranks them anew.

    Args:
        x: (rows,).
        y: (rows,).
        prompts: What is the same for rows that are drawn together, (rows,).
        resamples: How often to draw.
        seed: Of the draws.
    """
    found = pearson(x, y), spearman(x, y)
    if found[0] is None or found[1] is None:
        return None, None
    _, codes = np.unique(prompts, return_inverse=True)
    ranks = _Ranks(x), _Ranks(y)
    drawn = np.array(
        [
            (_weighted(x, y, often), _weighted(ranks[0].of(often), ranks[1].of(often), often))
            for often in _draws(codes, resamples, seed)
        ]
    ).reshape(-1, 2)
    return tuple(  # type: ignore[return-value]  # two of them
        Estimate(value, *_ends(column), len(x))
        for value, column in zip(found, drawn.T, strict=True)
        if value is not None
    )


def _draws(codes: np.ndarray, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yield how often each row is in a resample of prompts; nothing of a single prompt."""
    chance = np.random.default_rng(seed)
    number = int(codes.max()) + 1
    for _ in range(resamples if number > 1 else 0):
        yield np.bincount(chance.integers(number, size=number), minlength=number)[codes]


def _ends(drawn: np.ndarray) -> tuple[float | None, float | None]:
    known = drawn[np.isfinite(drawn)]
    if not len(drawn) or len(known) < _DEFINED * len(drawn):
        return None, None
    low, high = interval(known)
    return float(low), float(high)


class _Ranks:
    """Ranks of values of which each is there several times, or not at all."""

    def __init__(self, values: np.ndarray) -> None:
        _, self._codes = np.unique(values, return_inverse=True)

    def of(self, often: np.ndarray) -> np.ndarray:
        """Return the mean rank of each value; ``scipy.stats.rankdata(np.repeat(values, often))``.

        Args:
            often: How often each value is there.
        """
        number = np.bincount(self._codes, weights=often)
        ranks: np.ndarray = (np.cumsum(number) - (number - 1) / 2)[self._codes]
        return ranks


def _weighted(x: np.ndarray, y: np.ndarray, often: np.ndarray) -> float:
    """Return Pearson's correlation of values that are there so often; NaN where one is flat."""
    there, total = often > 0, often.sum()
    if not np.ptp(x[there]) or not np.ptp(y[there]):
        return np.nan
    x, y = x - (often @ x) / total, y - (often @ y) / total
    return float((often @ (x * y)) / np.sqrt((often @ x**2) * (often @ y**2)))
