"""Intervals of what lm-eval reports: prompts, or documents, are drawn with replacement."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from drsow_plugin.bootstrap import (
    RESAMPLES,
    interval,
    resampled_sums,
    share_interval,
    sums_by_prompt,
)
from drsow_plugin.harness.documents import Document
from drsow_plugin.hashing import text_key

SHARES = ("acc", "acc_tie_half", "acc_longer", "acc_pairs")
"""The metrics that are a mean over documents of numbers from 0 to 1."""

NONE = "N/A"
"""What stands where there is no interval, as in lm-eval."""

T = TypeVar("T")
Ends = list[float] | str
Subsets = tuple[str, ...]
Drawn = tuple[int, T]
"""A hash of a document's prompt, and what the document counts."""


def interval_name(name: str) -> str:
    """Return the name of a metric's interval."""
    return f"{name}_interval"


def prompt_key(doc: Document) -> int:
    """Return a hash of a document's prompt."""
    return text_key(json.dumps(doc["prompt"], sort_keys=True, default=str))


def share_ends(values: Iterable[Drawn[float | None]]) -> Ends:
    """Return the 95 % interval of a mean; ``None`` is of a document that does not count."""
    own = [(key, value) for key, value in values if value is not None]
    keys = np.array([key for key, _ in own], dtype=np.uint64)
    return _ends(share_interval([value for _, value in own], keys))


def mean_draws(values: Sequence[Drawn[tuple[Subsets, float]]]) -> dict[str, np.ndarray]:
    """Return the mean of each subset in each resample, (resamples,) each.

    Prompts are drawn within the documents of the same subsets, so that each resample has all.

    Args:
        values: What each document counts, with its subsets.
    """
    strata: dict[Subsets, list[tuple[int, float]]] = defaultdict(list)
    for key, (subsets, value) in values:
        strata[subsets].append((key, value))
    sums: dict[str, Any] = {}
    for seed, (subsets, own) in enumerate(strata.items()):
        keys = np.array([key for key, _ in own], dtype=np.uint64)
        table = sums_by_prompt(keys, [value for _, value in own], np.ones(len(own)))
        drawn = resampled_sums(table, RESAMPLES, seed)
        for subset in subsets:
            sums[subset] = sums.get(subset, 0) + drawn
    return {subset: drawn[:, 0] / drawn[:, 1] for subset, drawn in sums.items()}


def redrawn(values: Sequence[T], chance: np.random.Generator) -> list[T]:
    """Return as many values as there are, drawn with replacement."""
    return [values[at] for at in chance.integers(len(values), size=len(values))]


def score_draws(
    values: Sequence[T],
    score: Callable[[list[T]], Any],
    draw: Callable[[Sequence[T], np.random.Generator], list[T]] = redrawn,
) -> np.ndarray:
    """Return any score of documents in each resample, (resamples,); NaN where there is none.

    Args:
        values: What each document counts.
        score: The score of a resample; none where it is no number.
        draw: Draws the documents.
    """
    chance = np.random.default_rng(0)
    found = [score(draw(values, chance)) for _ in range(RESAMPLES)]
    return np.array([value if isinstance(value, float) else np.nan for value in found])


def total_ends(draws: Mapping[str, np.ndarray], total: Callable[[dict[str, float]], float]) -> Ends:
    """Return the interval of a score that is made of the scores of subsets.

    Args:
        draws: The score of each subset in each resample.
        total: The score, of that of each subset.
    """
    number = len(next(iter(draws.values())))
    totals = [total({s: float(of[at]) for s, of in draws.items()}) for at in range(number)]
    if not np.isfinite(totals).all() or not np.ptp(totals):
        return NONE
    low, high = interval(np.array(totals))
    return _ends((float(low), float(high)))


def _ends(found: tuple[float, float] | None) -> Ends:
    return NONE if found is None else [round(end, 4) for end in found]
