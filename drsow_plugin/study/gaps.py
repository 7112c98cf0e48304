"""Whether the gap between two models predicts how good a reward their pair makes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from drsow_plugin.bootstrap import Estimate, interval
from drsow_plugin.stats import pearson, spearman

_FEWEST_MODELS = 4
_FEWEST_DRAWN = 3  # two make one pair and its reverse, which lie on a line by construction
_DEFINED = 0.9  # share of the resamples that a correlation has to exist in


@dataclass(frozen=True)
class GapLaw:
    """A gap of scores held against the accuracies of pairs.

    Attributes:
        score: What the gap is the difference of, strong minus weak.
        held_out: Whether it was taken from other prompts than the accuracies.
        gaps: (models, models), of the strong model (row) over the weak one (column).
        accuracies: Likewise, on the prompts that are not held out.
        pearson: Correlation over all ordered pairs; ``None`` where nothing varies.
        spearman: Rank correlation over all ordered pairs.
        pearson_upward: Correlation over the pairs whose strong model has the higher score.
        spearman_upward: Rank correlation over these.
        agreeing: Share of these whose accuracy is above 1/2; ``None`` where there are none.
    """

    score: str
    held_out: bool
    gaps: np.ndarray
    accuracies: np.ndarray
    pearson: Estimate | None
    spearman: Estimate | None
    pearson_upward: Estimate | None
    spearman_upward: Estimate | None
    agreeing: float | None


def gap_law(
    score: str,
    scores: tuple[np.ndarray, np.ndarray],
    accuracies: tuple[np.ndarray, np.ndarray],
    seed: int,
    *,
    held_out: bool,
) -> GapLaw:
    """Hold the gaps of a score against the accuracies of pairs.

    The gap and the accuracy of a pair the other way round are minus the one and 1 minus the other,
    so all ordered pairs make a cloud that is symmetric about (0, 1/2): its correlation says whether
    the better model should be the strong one, and by how much. Over the pairs whose strong model
    has the higher score the correlation says only whether a wider gap makes a better reward.

    Pairs share models, so they are no independent points, and an interval that drew pairs would be
    too narrow. Here models are drawn with replacement, and prompts too (of the accuracies, and of
    the scores where these are of rows); a resample has all pairs of two different models that were
    drawn, as often as they were, and one of fewer than three different models is drawn again.
    Source: Owen, The pigeonhole bootstrap, Annals of Applied Statistics 1, 2007.

    Args:
        score: Its name.
        scores: Of each model, (models,), and in each resample of prompts, (resamples, models).
        accuracies: Of each ordered pair, (models, models), and in each resample of prompts,
            (resamples, models, models).
        seed: Of the draws.
        held_out: Whether the scores are of other prompts than the accuracies.
    """
    whole, drawn = scores
    gaps = whole[:, None] - whole[None, :]
    models = len(whole)
    pairs = ~np.eye(models, dtype=bool)
    upward = gaps > 0
    chance = np.random.default_rng(seed)
    draws = _draws(models, len(drawn), chance)
    points = [_points(d, s, a) for d, s, a in zip(draws, drawn, accuracies[1], strict=True)]

    def estimate(
        correlation: Callable[[np.ndarray, np.ndarray], float | None], chosen: np.ndarray
    ) -> Estimate | None:
        value = correlation(gaps[chosen], accuracies[0][chosen])
        if value is None:
            return None
        forward = chosen is upward
        found = [correlation(*(_upward(*xy) if forward else xy)) for xy in points]
        defined = np.array([f for f in found if f is not None])
        n = int(chosen.sum())
        if models < _FEWEST_MODELS or len(defined) < _DEFINED * len(found):
            return Estimate(value, None, None, n)
        low, high = interval(defined)
        return Estimate(value, float(low), float(high), n)

    won = accuracies[0][upward]
    return GapLaw(
        *(score, held_out, gaps, accuracies[0]),
        pearson=estimate(pearson, pairs),
        spearman=estimate(spearman, pairs),
        pearson_upward=estimate(pearson, upward),
        spearman_upward=estimate(spearman, upward),
        agreeing=float((won > 0.5).mean()) if len(won) else None,
    )


def _draws(models: int, number: int, chance: np.random.Generator) -> np.ndarray:
    """Return models drawn with replacement, (number, models), at least three different ones."""
    draws = chance.integers(models, size=(number, models))
    if models >= _FEWEST_MODELS:
        while (few := np.array([len(set(draw)) < _FEWEST_DRAWN for draw in draws.tolist()])).any():
            draws[few] = chance.integers(models, size=(int(few.sum()), models))
    return draws


def _points(
    draw: np.ndarray, scores: np.ndarray, accuracies: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return gap and accuracy of all pairs of two different models that were drawn."""
    strong, weak = draw[:, None], draw[None, :]
    apart = strong != weak
    return (scores[strong] - scores[weak])[apart], accuracies[strong, weak][apart]


def _upward(gaps: np.ndarray, accuracies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return gaps[gaps > 0], accuracies[gaps > 0]
