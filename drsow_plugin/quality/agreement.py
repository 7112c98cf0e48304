"""Whether the sum and the mean of log-probs prefer the same responses."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from drsow_plugin.bootstrap import RESAMPLES, Estimate, share, wins
from drsow_plugin.quality.length import correlations
from drsow_plugin.quality.rows import Responses, Rows


@dataclass(frozen=True)
class Agreement:
    """How ``reduction=sum`` and ``reduction=mean`` go together, from the log-probs in the rows.

    Attributes:
        same: How often both prefer the same one of two responses; one of two that ties counts half.
        spearman: Rank correlation of the two margins; of single responses, of the two rewards.
        sum_accuracy: How often the better response has the higher sum, where that is known.
        mean_accuracy: The same of the mean.
        without_tokens: Responses without a token, of which there is no mean; they are left out.
    """

    same: Estimate | None
    spearman: Estimate | None
    sum_accuracy: Estimate | None
    mean_accuracy: Estimate | None
    without_tokens: int

    def values(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def agreement(rows: Rows, *, resamples: int = RESAMPLES, seed: int = 0) -> Agreement:
    """Hold the sum of log-probs, per model, against their mean.

    Args:
        rows: Labelled rows.
        resamples: Of the intervals.
        seed: Of the resamples.
    """
    responses, drawn = rows.responses, (resamples, seed)
    total, mean = reductions(responses)
    known = np.isfinite(mean)
    pairs = rows.pairs.where(known[rows.pairs.better] & known[rows.pairs.other])
    margins = [values[pairs.better] - values[pairs.other] for values in (total, mean)]
    gold = pairs.gold
    if len(pairs):
        found = correlations(margins[0], margins[1], pairs.prompt, *drawn)[1]
    else:
        found = correlations(total[known], mean[known], responses.prompt[known], *drawn)[1]
    same = 1 - np.abs(np.sign(margins[0]) - np.sign(margins[1])) / 2
    accuracies = [
        share(wins(margin[gold]), pairs.prompt[gold], *drawn) if gold.any() else None
        for margin in margins
    ]
    return Agreement(
        same=share(same, pairs.prompt, *drawn) if len(pairs) else None,
        spearman=found,
        sum_accuracy=accuracies[0],
        mean_accuracy=accuracies[1],
        without_tokens=int((~known).sum()),
    )


def reductions(responses: Responses) -> tuple[np.ndarray, np.ndarray]:
    """Return the rewards of both reductions, each (responses,); NaN for a mean of no tokens.

    ``sum`` is in nats, ``mean`` in nats a token: each model's sum divided by its own number of
    tokens; see :func:`~drsow_plugin.scoring.reward.reward`.
    """
    strong, weak = responses.strong_logprob, responses.weak_logprob
    counts = np.minimum(responses.strong_tokens, responses.weak_tokens)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = strong / responses.strong_tokens - weak / responses.weak_tokens
    return strong - weak, np.where(counts > 0, mean, np.nan)
