"""RewardBench: its data, its sections and their formula, and the task of one section.

Source of the formula: the ``EXAMPLE_COUNTS`` and ``SUBSET_MAPPING`` tables and
``calculate_scores_per_section`` of the ``rewardbench`` package. A section's score is the mean of
its subsets' accuracies, weighted by these counts; the final score is the mean of the four sections.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from drsow_plugin.harness.benchmarks.loading import (
    COLUMNS,
    NO_ROWS,
    SOURCE,
    Splits,
    check_subset,
    load_published,
    normalised,
    placeholder,
    require_columns,
)
from drsow_plugin.harness.intervals import (
    NONE,
    Drawn,
    Ends,
    interval_name,
    mean_draws,
    prompt_key,
    total_ends,
)
from drsow_plugin.harness.metrics import Metrics, preference_metrics
from drsow_plugin.harness.subsets import Partial, mean_where_given
from drsow_plugin.harness.tasks import PREFERENCE_METRICS, PreferenceTask, metric

logger = logging.getLogger(__name__)

METADATA = SOURCE

HUB_ID, SPLIT = "allenai/reward-bench", "filtered"
DOMAINS = {"chat": "chat", "chat_hard": "chat", "safety": "safety", "reasoning": "reasoning"}
"""The domain that each section stands for."""

WEIGHTS: dict[str, dict[str, int]] = {
    "chat": {
        "alpacaeval-easy": 100,
        "alpacaeval-length": 95,
        "alpacaeval-hard": 95,
        "mt-bench-easy": 28,
        "mt-bench-med": 40,
    },
    "chat_hard": {
        "mt-bench-hard": 37,
        "llmbar-natural": 100,
        "llmbar-adver-neighbor": 134,
        "llmbar-adver-GPTInst": 92,
        "llmbar-adver-GPTOut": 47,
        "llmbar-adver-manual": 46,
    },
    "safety": {
        "refusals-dangerous": 100,
        "refusals-offensive": 100,
        "xstest-should-refuse": 154,
        "xstest-should-respond": 250,
        "donotanswer": 136,
    },
    "reasoning": {
        "math-prm": 984,  # 447 rows, weighted like the code subsets together
        "hep-cpp": 164,
        "hep-go": 164,
        "hep-java": 164,
        "hep-js": 164,
        "hep-python": 164,
        "hep-rust": 164,
    },
}
"""The official weights, as they are since September 2024.

Before, and in releases of the package up to 0.1.2, the two XSTest subsets were weighed by each
other's number of rows.
"""

_ACCURACIES = ("acc", "acc_tie_half", "acc_longer")
_SCORES = {name.replace("acc", "score"): name for name in _ACCURACIES}
"""The metrics of a section, and the accuracies that they are made from."""

Scored = tuple[str, float]
"""The subset of a row, and what the row counts: 1 for a win, 0 for a loss."""


def is_complete(section: str, subsets: Iterable[str]) -> bool:
    """Tell whether rows of these subsets, one entry a row, make a whole section."""
    expected = WEIGHTS[section] | ({"math-prm": 447} if section == "reasoning" else {})
    return Counter(subsets) == Counter(expected)


def section_score(section: str, rows: Iterable[Scored]) -> float | Partial:
    """Return a section's score by RewardBench's formula.

        score = sum over subsets of accuracy x weight / sum of weights

    Args:
        section: ``chat``, ``chat_hard``, ``safety`` or ``reasoning``.
        rows: Subset and win of every row.

    Returns:
        A share between 0 and 1, or :class:`Partial` where rows are missing.
    """
    rows = list(rows)
    if not is_complete(section, [subset for subset, _ in rows]):
        return Partial()
    wins: dict[str, list[float]] = defaultdict(list)
    for subset, win in rows:
        wins[subset].append(win)
    return weighted_mean(section, {subset: sum(w) / len(w) for subset, w in wins.items()})


def section_interval(section: str, drawn: Iterable[Drawn[Scored]]) -> Ends:
    """Return the interval of a section's score: prompts are drawn within their subsets."""
    values = list(drawn)
    if not is_complete(section, [subset for _, (subset, _) in values]):
        return NONE
    draws = mean_draws([(key, ((subset,), win)) for key, (subset, win) in values])
    return total_ends(draws, partial(weighted_mean, section))


def weighted_mean(section: str, means: Mapping[str, float]) -> float:
    """Return a section's score, of the accuracy of each of its subsets."""
    weights = WEIGHTS[section]
    return sum(means[subset] * weight for subset, weight in weights.items()) / sum(weights.values())


def count_missing(subsets: frozenset[str], present: Iterable[str]) -> int:
    """Return how many of a section's subsets have no row."""
    return len(subsets - set(present))


def load(section: str, **metadata: Any) -> Splits:
    """Load one section.

    Args:
        section: ``chat``, ``chat_hard``, ``safety`` or ``reasoning``.
        **metadata: ``data`` names a local copy, complete or not, instead of the Hub's.

    Returns:
        The section's rows; where there is none, rows that count for nothing.

    Raises:
        DataError: The data is empty or lacks a column.
    """
    loaded, data = load_published(HUB_ID, SPLIT, metadata, METADATA)
    require_columns(loaded, (*COLUMNS, "subset"), data, f"Give a copy of {HUB_ID}.")
    valid = [subset for of in WEIGHTS.values() for subset in of]
    for index, subset in enumerate(loaded["subset"]):
        check_subset(subset, valid, f"{data}, row {index}", "RewardBench")
    subsets = set(WEIGHTS[section])
    rows = loaded.filter(lambda s: s in subsets, input_columns="subset")
    if len(rows) == 0:
        return {"test": placeholder()}
    return {"test": normalised(rows, data, domain=DOMAINS[section])}


class RewardBenchTask(PreferenceTask):
    """One section of RewardBench."""

    def __init__(self, config: dict[str, Any]) -> None:
        """Add the section's score and its subsets' accuracies to the metrics of the pairs.

        Args:
            config: The task file; ``dataset_kwargs`` names the ``section``.
        """
        section: str = config["dataset_kwargs"]["section"]
        subsets = WEIGHTS[section]
        missing = partial(count_missing, frozenset(subsets))
        metrics = [
            *PREFERENCE_METRICS,
            *(metric(name, partial(section_score, section)) for name in _SCORES),
            *(metric(interval_name(n), partial(section_interval, section)) for n in _SCORES),
            metric("subsets_missing", missing, higher_is_better=False),
            *(metric(f"{s}/{acc}", mean_where_given) for s in subsets for acc in _ACCURACIES),
        ]
        super().__init__({**config, "metric_list": metrics})
        present = [subset for subset in self.eval_docs["subset"] if subset != NO_ROWS]
        self._subsets = [subset for subset in subsets if subset in present]
        if not is_complete(section, present):
            logger.warning(
                "RewardBench section %s is partial (%d rows; without %s): its score is not "
                "given, its subsets' accuracies are.",
                section,
                len(present),
                ", ".join(sorted(set(subsets) - set(present))) or "no whole subset",
            )

    def count(self, doc: Mapping[str, Any], results: Sequence[tuple[float, bool]]) -> Metrics:
        """Return what one pair counts: for itself, its section and its subset.

        Every pair returns the same keys, ``None`` for other subsets, as data-parallel runs
        require; subsets that the data does not have are left out.
        """
        metrics, own = preference_metrics(doc, results), doc["subset"]
        of_section = {score: (own, metrics[acc]) for score, acc in _SCORES.items()}
        key = prompt_key(doc)
        of_section |= {interval_name(name): (key, of_section[name]) for name in _SCORES}
        of_section["subsets_missing"] = own
        if own == NO_ROWS:
            return of_section
        return {
            **metrics,
            **of_section,
            **{
                f"{subset}/{acc}": metrics[acc] if subset == own else None
                for subset in self._subsets
                for acc in _ACCURACIES
            },
        }
