"""What a preference document counts, as metrics and aggregations that lm-eval knows by name."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import lm_eval.api.metrics  # noqa: F401  (registers the aggregations that are named here)
from lm_eval.api.registry import register_aggregation, register_metric

from drsow_plugin.harness.documents import best_of, lead, responses_of, share_on_top

T = TypeVar("T")
Metrics = dict[str, Any]


def preference_metrics(doc: Mapping[str, Any], results: Sequence[tuple[float, bool]]) -> Metrics:
    """Return what one document counts; usable as ``process_results`` of any task file.

    Args:
        doc: A pair, with ``chosen`` and ``rejected``, or candidates; see
            :mod:`~drsow_plugin.harness.documents`.
        results: ``(reward, _)`` of each response; NaN where it has no reward.

    Returns:
        ``acc``: 1 where a best response has a higher reward than all others, else 0, so a tie
        or a missing reward is a loss, as in RewardBench; ``acc_tie_half``: the same with 0.5
        for a tie or a missing reward (of candidates: what drawing one of those that tie gets,
        or one of all); ``acc_longer``: the length-only baseline, what picking the longest
        response gets, 0.5 where both have the same length; ``margin``: the reward of chosen
        minus that of rejected, of candidates the highest one of the best minus the highest one
        of the others, in nats; ``ties`` and ``overflow``: 1 where the margin is 0, or missing.
    """
    rewards, best = [reward for reward, _ in results], best_of(doc)
    margin = lead(rewards, best)
    missing = math.isnan(margin)
    return {
        "acc": float(margin > 0),
        "acc_tie_half": len(best) / len(rewards) if missing else share_on_top(rewards, best),
        "acc_longer": share_on_top(lengths_of(doc), best),
        "margin": margin,
        "ties": int(margin == 0),
        "overflow": int(missing),
    }


def lengths_of(doc: Mapping[str, Any]) -> list[float]:
    """Return the number of characters of each response, the rewards of the length baseline."""
    return [float(len(response)) for response in responses_of(doc)]


@register_aggregation("drsow_mean_margin")
def mean_margin(margins: Iterable[float]) -> float:
    """Return the mean over the pairs that have a margin, in nats; NaN if none has."""
    finite = [value for value in margins if not math.isnan(value)]
    return math.fsum(finite) / len(finite) if finite else math.nan


@register_metric(metric="drsow_acc_tie_half", higher_is_better=True, aggregation="mean")
def acc_tie_half(values: T) -> T:
    """Pass on the share of pairs won, a tie counting half; see :func:`preference_metrics`."""
    return values


@register_metric(metric="drsow_acc_longer", higher_is_better=True, aggregation="mean")
def acc_longer(values: T) -> T:
    """Pass on the length-only baseline; see :func:`preference_metrics`."""
    return values


@register_metric(metric="drsow_margin", higher_is_better=True, aggregation="drsow_mean_margin")
def margin(values: T) -> T:
    """Pass on the margin, in nats; see :func:`preference_metrics`."""
    return values
