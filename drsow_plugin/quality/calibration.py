"""Whether a margin says how likely it is to be right: one temperature, and how well it fits.

    probability that the first response is the better one = 1 / (1 + exp(-margin / temperature))

This is the model of Bradley and Terry (1952) with rewards in units of the temperature; the
temperature is fitted as by Guo et al., On Calibration of Modern Neural Networks, ICML 2017
(arXiv 1706.04599), section 4.2, from which the expected calibration error (section 2) is too.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from drsow_plugin.bootstrap import RESAMPLES, Estimate, share
from drsow_plugin.errors import DataError
from drsow_plugin.scoring.reward import probability

FOLDS = 5
BINS = 10
_FEWEST = 2  # prompts


@dataclass(frozen=True)
class Bin:
    """Pairs whose confidence lies between two bounds.

    Attributes:
        low: Lower bound of the confidence, which begins at 1/2.
        high: Upper bound.
        n: How many pairs.
        confidence: Their mean confidence; ``None`` where there are none.
        accuracy: The share of them that is right, a tie counting half, with its interval.
    """

    low: float
    high: float
    n: int
    confidence: float | None
    accuracy: Estimate | None


@dataclass(frozen=True)
class Calibration:
    """How far margins can be believed.

    The errors are of pairs that the temperature was not fitted on: it is fitted on the prompts of
    all other folds.

    Attributes:
        temperature: Nats, fitted on all pairs; ``inf`` where a larger margin is no more likely to
            be right, ``None`` where every pair is right, so that none is too small.
        low: Smallest of the temperatures of the folds, a measure of how certain it is; ``None``
            where some fold has none.
        high: The largest one.
        pairs: How many pairs.
        prompts: How many prompts.
        ece: Expected calibration error, 0 to 1/2: how far confidence and share of right pairs are
            apart, in the mean over bins; ``None`` where some fold has no temperature.
        brier: Mean squared distance of the probability from what is so; 1/4 for a coin.
        log_loss: Mean of ``-ln`` of the probability of what is so, nats; ``ln 2`` for a coin.
        bins: Pairs by confidence, in bins of the same width.
    """

    temperature: float | None
    low: float | None
    high: float | None
    pairs: int
    prompts: int
    ece: float | None
    brier: float | None
    log_loss: float | None
    bins: tuple[Bin, ...]

    def values(self) -> dict[str, Any]:
        """Return plain values; an infinite temperature is the text ``inf``."""
        values = asdict(self)
        for name in ("temperature", "low", "high"):
            if values[name] == math.inf:
                values[name] = "inf"
        return values


def fit_temperature(margins: np.ndarray) -> float | None:
    """Return the temperature, in nats, that makes the labels the most likely.

    It is where the log-loss ``mean(ln(1 + exp(-margin / temperature)))`` is least: a logistic
    regression without an intercept, of which ``1 / temperature`` is the coefficient.

    Args:
        margins: Reward of the better response minus reward of the other one, nats, (pairs,).

    Returns:
        The temperature; ``inf`` where the mean margin is not positive, so that no temperature is
        better than saying 1/2 each time; ``None`` where no margin is negative, so that the lower
        one is always the better.
    """
    from scipy.optimize import brentq
    from scipy.special import expit

    scale = float(np.abs(margins).max(initial=0.0))
    if scale == 0 or margins.mean() <= 0:
        return math.inf
    if margins.min() >= 0:
        return None
    units = margins / scale

    def slope(log_inverse: float) -> float:
        """Return minus the derivative of the log-loss by the coefficient, which only falls."""
        return float(np.mean(units * expit(-units * math.exp(log_inverse))))

    low, high = -1.0, 1.0
    while slope(low) <= 0:
        low *= 2
        if low < -600:
            return math.inf
    while slope(high) >= 0:
        high *= 2
        if high > 600:  # so near to always right that numbers cannot tell
            return None
    return scale / math.exp(brentq(slope, low, high, xtol=1e-12))


def calibrate(
    margins: np.ndarray,
    prompts: np.ndarray,
    *,
    folds: int = FOLDS,
    bins: int = BINS,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Calibration:
    """Fit a temperature, and say how well it does on pairs that it was not fitted on.

    Args:
        margins: Reward of the better response minus reward of the other one, nats, (pairs,).
        prompts: What is the same for pairs of one prompt, (pairs,).
        folds: Parts of the prompts; the pairs of each get a temperature from the other parts.
        bins: Of confidence, of the same width between 1/2 and 1.
        resamples: Of the intervals.
        seed: Of the parts and the resamples.

    Raises:
        DataError: There are fewer than two prompts.
    """
    unique, codes = np.unique(prompts, return_inverse=True)
    if len(unique) < _FEWEST:
        raise DataError(
            f"A temperature is fitted on some prompts and tried on others; there are "
            f"{len(unique)}. Give pairs of at least {_FEWEST} prompts whose better response is "
            "known."
        )
    parts = np.random.default_rng(seed).permutation(len(unique)) % min(folds, len(unique))
    fold = parts[codes]
    fitted = [fit_temperature(margins[fold != part]) for part in range(fold.max() + 1)]
    known = [value for value in fitted if value is not None]
    errors: tuple[float | None, ...] = (None, None, None)
    counted: tuple[Bin, ...] = ()
    if len(known) == len(fitted):
        each = np.array(known)[fold]
        right = probability(margins, each)
        sure = np.maximum(right, 1 - right)
        won = (np.sign(margins) + 1) / 2
        counted = reliability(sure, won, prompts, bins, resamples, seed)
        errors = (_ece(counted), float(np.mean((1 - right) ** 2)), _log_loss(margins, each))
    return Calibration(
        temperature=fit_temperature(margins),
        low=min(known, default=None) if len(known) == len(fitted) else None,
        high=max(known, default=None),
        pairs=len(margins),
        prompts=len(unique),
        ece=errors[0],
        brier=errors[1],
        log_loss=errors[2],
        bins=counted,
    )


def reliability(
    confidence: np.ndarray,
    right: np.ndarray,
    prompts: np.ndarray,
    bins: int = BINS,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[Bin, ...]:
    """Return pairs by how confident their probability is, with the share that is right.

    Args:
        confidence: Probability of the response with the higher reward, 1/2 to 1, (pairs,).
        right: 1 where that is the better one, 0 where it is not, 0.5 for a tie.
        prompts: What is the same for pairs of one prompt.
        bins: How many, of the same width; all but the first leave out their lower bound.
        resamples: Of the intervals.
        seed: Of the resamples.
    """
    edges = np.linspace(0.5, 1, bins + 1)
    places = np.clip(np.digitize(confidence, edges, right=True) - 1, 0, bins - 1)
    found = []
    for place in range(bins):
        inside = places == place
        n = int(inside.sum())
        accuracy = None
        if n:
            accuracy = share(right[inside], prompts[inside], resamples, seed)
        mean = float(confidence[inside].mean()) if n else None
        found.append(Bin(float(edges[place]), float(edges[place + 1]), n, mean, accuracy))
    return tuple(found)


def _ece(bins: tuple[Bin, ...]) -> float:
    """Return the mean over all pairs of how far their bin's confidence and accuracy are apart."""
    apart = [
        part.n * abs(part.confidence - part.accuracy.value)
        for part in bins
        if part.confidence is not None and part.accuracy is not None
    ]
    return math.fsum(apart) / sum(part.n for part in bins)


def _log_loss(margins: np.ndarray, temperature: np.ndarray) -> float:
    return float(np.mean(np.logaddexp(0, -margins / temperature)))
