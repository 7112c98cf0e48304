"""Benchmarks whose score is made from those of subsets, by a rule of their own.

of a subset = rule.of_subset(subset, [what each of its documents counts])
of all      = rule.total({subset: its score}), where all published rows are there
"""

from __future__ import annotations

import logging
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from drsow_plugin.harness.documents import Document
from drsow_plugin.harness.intervals import (
    NONE,
    Drawn,
    Ends,
    interval_name,
    mean_draws,
    prompt_key,
    redrawn,
    score_draws,
    total_ends,
)
from drsow_plugin.harness.metrics import Metrics, lengths_of, preference_metrics
from drsow_plugin.harness.tasks import PREFERENCE_METRICS, PreferenceTask, metric

logger = logging.getLogger(__name__)

_LONGER = "_longer"
"""The end of the names of what picking by length gets."""

Counted = tuple[tuple[str, ...], Any]
"""The subsets of a document, and what it counts."""


class Partial:
    """Stands where a score would be, where the rows for it are not all there.

    It reads ``partial`` in tables and in ``results.json``, and stays itself in sums and means,
    so that it is never taken for the benchmark's score.
    """

    def __repr__(self) -> str:
        return "partial"

    def _same(self, _other: object) -> Partial:
        return self

    __add__ = __radd__ = __mul__ = __rmul__ = __truediv__ = _same


Score = float | Partial


def mean(values: Iterable[float]) -> float:
    """Return the mean of values, of which there is at least one."""
    numbers = list(values)
    return math.fsum(numbers) / len(numbers)


def mean_where_given(values: Iterable[float | None]) -> Score:
    """Return the mean of the values that are not ``None``; if there is none, ``Partial``."""
    numbers = [value for value in values if value is not None]
    return mean(numbers) if numbers else Partial()


def _mean_of_subset(_subset: str, values: Sequence[float]) -> Score:
    return mean(values)


def _mean_of_subsets(scores: Mapping[str, float]) -> float:
    return mean(scores.values())


@dataclass(frozen=True)
class Rule:
    """How a benchmark makes scores of rewards.

    Attributes:
        name: What warnings call the benchmark.
        sizes: Its subsets, with the number of published rows of each.
        count: What one document counts, by the name of the score, given the rewards of its
            responses (nats; NaN where one is missing). The lengths of the responses are given
            to it too, for the length-only baseline.
        of_subset: A subset's score, of its name and what its documents count.
        total: The score of all, of each subset's.
        scores: The names that ``count`` gives.
        means: For intervals: the score of all, of the mean of each subset's documents, where a
            document counts its subset and a number.
        draw: For intervals: draws what documents of one subset count, where that is no number.
        beside: Which of the metrics of preferences are reported too.
    """

    name: str
    sizes: Mapping[str, int]
    count: Callable[[Document, Sequence[float]], Mapping[str, Any]]
    of_subset: Callable[[str, Sequence[Any]], Score] = _mean_of_subset
    total: Callable[[Mapping[str, float]], float] = _mean_of_subsets
    scores: tuple[str, ...] = ("score",)
    means: Callable[[Mapping[str, float]], float] | None = None
    draw: Callable[[Sequence[Any], np.random.Generator], list[Any]] = redrawn
    beside: tuple[str, ...] = tuple(entry["metric"] for entry in PREFERENCE_METRICS)


def total_score(rule: Rule, counted: Iterable[Counted]) -> Score:
    """Return a benchmark's score; ``Partial`` where the rows are not those that it has."""
    values: dict[str, list[Any]] = defaultdict(list)
    for subsets, value in counted:
        for subset in subsets:
            values[subset].append(value)
    if {subset: len(of) for subset, of in values.items()} != dict(rule.sizes):
        return Partial()
    scores = {subset: rule.of_subset(subset, values[subset]) for subset in rule.sizes}
    whole = {subset: score for subset, score in scores.items() if not isinstance(score, Partial)}
    return rule.total(whole) if len(whole) == len(scores) else Partial()


def total_interval(rule: Rule, drawn: Iterable[Drawn[Counted]]) -> Ends:
    """Return the interval of a benchmark's score.

    Prompts are drawn within the documents of the same subsets; where the score of a subset is no
    mean over its documents, documents are.
    """
    values = list(drawn)
    if isinstance(total_score(rule, [value for _, value in values]), Partial):
        return NONE
    if rule.means is not None:
        return total_ends(mean_draws([(k, ((v[0],), v[1])) for k, (_, v) in values]), rule.means)
    draws = mean_draws([one for one in values if not isinstance(one[1][1], tuple)])
    others: dict[str, list[Any]] = defaultdict(list)
    for _, ((subset, *_rest), value) in values:
        if isinstance(value, tuple):
            others[subset].append(value)
    for subset, own in others.items():
        draws[subset] = score_draws(own, partial(rule.of_subset, subset), rule.draw)
    return total_ends(draws, rule.total)


def subset_score(rule: Rule, subset: str, values: Iterable[Any]) -> Score:
    """Return a subset's score, of whatever rows of it there are; ``None`` is of another one."""
    own = [value for value in values if value is not None]
    return rule.of_subset(subset, own) if own else Partial()


def subsets_of(doc: Document) -> tuple[str, ...]:
    """Return the subsets that a document counts in: one, or several."""
    subset = doc["subset"]
    return (subset,) if isinstance(subset, str) else tuple(subset)


class SubsetsTask(PreferenceTask):
    """A benchmark in one task: its score, and that of each subset."""

    def __init__(self, config: dict[str, Any], rule: Rule) -> None:
        """Add a rule's scores to the metrics of preferences.

        Args:
            config: The task file.
            rule: How rewards become scores.
        """
        self._rule = rule
        names = [name + kind for name in rule.scores for kind in ("", _LONGER)]
        metrics = [
            *(metric(name, partial(total_score, rule)) for name in names),
            *(metric(interval_name(name), partial(total_interval, rule)) for name in names),
            *(
                metric(f"{subset}/{name}", partial(subset_score, rule, subset))
                for subset in rule.sizes
                for name in names
            ),
            *(entry for entry in PREFERENCE_METRICS if entry["metric"] in rule.beside),
        ]
        super().__init__({**config, "metric_list": metrics})
        present = Counter(name for doc in self.eval_docs for name in subsets_of(doc))
        self._subsets = [subset for subset in rule.sizes if subset in present]
        if present != Counter(rule.sizes):
            logger.warning(
                "%s is partial (%s): its score is not given, its subsets' are.",
                rule.name,
                ", ".join(f"{s} {present[s]} of {n} rows" for s, n in rule.sizes.items()),
            )

    def count(self, doc: Document, results: Sequence[tuple[float, bool]]) -> Metrics:
        """Return what one document counts: for itself, for all, and for its subsets.

        Every document returns the same keys, ``None`` for other subsets, as data-parallel runs
        require; subsets that the data does not have are left out.
        """
        own, key = subsets_of(doc), prompt_key(doc)
        rewards = [reward for reward, _ in results]
        beside = preference_metrics(doc, results)
        metrics: Metrics = {name: beside[name] for name in self._rule.beside}
        for kind, values in (("", rewards), (_LONGER, lengths_of(doc))):
            for name, value in self._rule.count(doc, values).items():
                metrics[name + kind] = (own, value)
                metrics[interval_name(name + kind)] = (key, (own, value))
                for subset in self._subsets:
                    metrics[f"{subset}/{name}{kind}"] = value if subset in own else None
        return metrics
