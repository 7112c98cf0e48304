"""What a preference pair counts, as metrics and aggregations that lm-eval knows by name."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import lm_eval.api.metrics  # noqa: F401  (registers the aggregations that are named here)
from lm_eval.api.registry import register_aggregation, register_metric

T = TypeVar("T")
Metrics = dict[str, Any]


def preference_metrics(doc: Mapping[str, Any], results: Sequence[tuple[float, bool]]) -> Metrics:
    """Return what one pair counts; usable as ``process_results`` of any task file.

    Args:
        doc: The row, with ``chosen`` and ``rejected``.
        results: ``(reward, _)`` of the chosen and of the rejected response; NaN where a
            response has no reward.

    Returns:
        ``acc``: 1 where the margin is positive, else 0, so a tie or a missing reward is a
        loss, as in RewardBench; ``acc_tie_half``: the same with 0.5 for a tie or a missing
        reward; ``acc_longer``: the length-only baseline, 1 where the chosen response has
        more characters, 0.5 where both have the same; ``margin`` in nats; ``ties`` and
        ``overflow``: 1 where the margin is 0, or missing.
    """
    difference = results[0][0] - results[1][0]
    missing = math.isnan(difference)
    return {
        "acc": float(difference > 0),
        "acc_tie_half": 0.5 if missing else _win(difference),
        "acc_longer": _win(len(doc["chosen"]) - len(doc["rejected"])),
        "margin": difference,
        "ties": int(difference == 0),
        "overflow": int(missing),
    }


def _win(difference: float) -> float:
    return 0.5 if difference == 0 else float(difference > 0)


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
