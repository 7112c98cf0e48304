"""The best of many pairs: how sure that is, and by how much it will fall on new rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from drsow_plugin.bootstrap import Estimate, PromptBootstrap

REPEATS = 20
"""How often the prompts are parted anew for cross-validation."""
_RIVALS = 5


@dataclass(frozen=True)
class Choice:
    """The pair with the highest accuracy among several.

    Attributes:
        strong: Its strong model.
        weak: Its weak model.
        accuracy: On all rows, those that it was chosen by.
        expected: What is to be expected on new rows, by cross-validation; ``None`` of a single
            prompt.
        share: Share of the resamples of prompts that it is the best pair in.
        rivals: The pairs that are the best one most often, this one included, as strong, weak
            and share.
        candidates: How many pairs it was chosen among.
    """

    strong: str
    weak: str
    accuracy: Estimate
    expected: float | None
    share: float
    rivals: tuple[tuple[str, str, float], ...]
    candidates: int

    @property
    def fall(self) -> float | None:
        """How much of the accuracy is luck: what it is expected to fall by on new rows."""
        return None if self.expected is None else self.accuracy.value - self.expected


def choose(
    pairs: Sequence[tuple[str, str]],
    wins: np.ndarray,
    bootstrap: PromptBootstrap,
    folds: int,
    seed: int,
) -> Choice:
    """Choose the pair that wins most rows.

    Args:
        pairs: Strong and weak, of each candidate.
        wins: What :func:`~drsow_plugin.bootstrap.wins` returned, (candidates, rows).
        bootstrap: The resamples of prompts.
        folds: Parts for cross-validation.
        seed: Of the parts.
    """
    accuracies = bootstrap.means(wins)
    best = int(np.argmax([estimate.value for estimate in accuracies]))
    shares = best_shares(bootstrap.ratios(wins))
    order = np.argsort(-shares, kind="stable")[:_RIVALS]
    sums = bootstrap.by_prompt(wins)
    sizes = np.bincount(bootstrap.codes, minlength=bootstrap.prompts).astype(float)
    return Choice(
        *pairs[best],
        accuracy=accuracies[best],
        expected=cross_validated(sums, sizes, folds, seed),
        share=float(shares[best]),
        rivals=tuple((*pairs[i], float(shares[i])) for i in order if shares[i] > 0),
        candidates=len(pairs),
    )


def best_shares(resampled: np.ndarray) -> np.ndarray:
    """Return for each pair the share of resamples that it is the best in; ties are shared out.

    Args:
        resampled: Accuracies, (resamples, candidates).
    """
    is_best = resampled == resampled.max(axis=1, keepdims=True)
    shares: np.ndarray = (is_best / is_best.sum(axis=1, keepdims=True)).mean(axis=0)
    return shares


def cross_validated(sums: np.ndarray, sizes: np.ndarray, folds: int, seed: int) -> float | None:
    """Return the accuracy of choosing the best pair, on rows that it was not chosen by.

    Plainly, for one parting of the prompts into folds::

        for fold in folds:
            winner = argmax(accuracy of each pair on all other folds)
            won += wins of winner on fold
        won / rows

    which is repeated with ``REPEATS`` partings. It is the accuracy to expect of whatever pair this
    way of choosing finds, from slightly fewer rows than there are; the difference to the winner's
    accuracy on all rows is what the choice among many has added by luck. Source: Varma and Simon,
    Bias in error estimation when using cross-validation for model selection, BMC Bioinformatics 7,
    2006.

    Args:
        sums: Wins over the rows of each prompt, (prompts, candidates).
        sizes: Rows of each prompt, (prompts,).
        folds: How many parts; at most one for each prompt.
        seed: Of the parts.

    Returns:
        A share, 0 to 1; ``None`` of a single prompt.
    """
    chance = np.random.default_rng(seed)
    prompts, rates = len(sizes), []
    if prompts < 2:
        return None
    parts = np.arange(prompts) % min(folds, prompts)
    for _ in range(REPEATS):
        fold = chance.permutation(parts)
        inside = (fold == np.arange(parts.max() + 1)[:, None]).astype(float)
        won, rows = inside @ sums, inside @ sizes
        others = (sums.sum(axis=0) - won) / (sizes.sum() - rows)[:, None]
        winners = others.argmax(axis=1)
        rates.append(won[np.arange(len(won)), winners].sum() / rows.sum())
    return float(np.mean(rates))
