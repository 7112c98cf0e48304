"""M-RewardBench: RewardBench's pairs in 23 languages, one at a time.

Source of the rule: ``get_scores`` in ``analysis/plot_utils.py`` of ``for-ai/m-rewardbench``: a
category's score is the mean of its subsets' accuracies, weighted by these counts, and a language's
score is the mean of its four categories. It is RewardBench's rule with the rows that were kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import datasets

from drsow_plugin.errors import DataError
from drsow_plugin.harness.benchmarks import rewardbench
from drsow_plugin.harness.benchmarks.loading import (
    COLUMNS,
    SOURCE,
    Splits,
    check_subset,
    load_published,
    normalised,
    require_columns,
)
from drsow_plugin.harness.documents import Document
from drsow_plugin.harness.subsets import Partial, Rule, Score, SubsetsTask, mean

METADATA = SOURCE

HUB_ID, SPLIT = "CohereLabsCommunity/multilingual-reward-bench", "test"
SIZES = {
    "alpacaeval-easy": 79,
    "alpacaeval-length": 79,
    "alpacaeval-hard": 76,
    "mt-bench-easy": 24,
    "mt-bench-med": 38,
    "mt-bench-hard": 35,
    "math-prm": 447,
    "refusals-dangerous": 100,
    "refusals-offensive": 100,
    "llmbar-natural": 76,
    "llmbar-adver-neighbor": 124,
    "llmbar-adver-GPTInst": 87,
    "llmbar-adver-GPTOut": 42,
    "llmbar-adver-manual": 43,
    "xstest-should-refuse": 154,
    "xstest-should-respond": 247,
    "donotanswer": 135,
    "hep-cpp": 164,
    "hep-go": 164,
    "hep-java": 164,
    "hep-js": 164,
    "hep-python": 163,
    "hep-rust": 164,
}
"""The published rows of each subset, in every language."""

_WEIGHTS = SIZES | {"math-prm": 983}  # as much as the code subsets together
_CATEGORIES = {
    subset: category for category, subsets in rewardbench.WEIGHTS.items() for subset in subsets
}
_ALL = SIZES | {
    category: sum(SIZES[subset] for subset in subsets)
    for category, subsets in rewardbench.WEIGHTS.items()
}

Scored = tuple[str, float]
"""The subset of a row, and 1 for a win or 0 for a loss."""


def _count(doc: Document, rewards: Sequence[float]) -> dict[str, Scored]:
    return {"score": (doc["subset"][0], float(rewards[0] > rewards[1]))}


def category_score(subsets: Sequence[str], rows: Sequence[Scored]) -> Score:
    """Return the score of a category; ``Partial`` where rows of it are missing."""
    wins: dict[str, list[float]] = {subset: [] for subset in subsets}
    for subset, win in rows:
        wins[subset].append(win)
    if any(len(of) != SIZES[subset] for subset, of in wins.items()):
        return Partial()
    return _weighted(subsets, {subset: mean(of) for subset, of in wins.items()})


def _weighted(subsets: Sequence[str], means: Mapping[str, float]) -> float:
    weighted = sum(means[subset] * _WEIGHTS[subset] for subset in subsets)
    return weighted / sum(_WEIGHTS[subset] for subset in subsets)


def _of_subset(name: str, rows: Sequence[Scored]) -> Score:
    if name in rewardbench.WEIGHTS:
        return category_score(tuple(rewardbench.WEIGHTS[name]), rows)
    return mean(win for _, win in rows)


def _mean_of_categories(scores: Mapping[str, float]) -> float:
    return mean(scores[category] for category in rewardbench.WEIGHTS)


def _of_means(means: Mapping[str, float]) -> float:
    return mean(_weighted(tuple(subsets), means) for subsets in rewardbench.WEIGHTS.values())


RULE = Rule("M-RewardBench", _ALL, _count, _of_subset, _mean_of_categories, means=_of_means)


def load(**metadata: Any) -> Splits:
    """Load one language.

    Args:
        **metadata: ``data_name`` is the language on the Hub; ``data`` names a local copy of one
            language instead.

    Raises:
        DataError: No language or more than one is named, or the data is of another version.
    """
    if not metadata.get("data") and not metadata.get("data_name"):
        raise DataError(
            "M-RewardBench is one set of pairs in 23 languages: name one with --metadata "
            "data_name=deu_Latn, or the like."
        )
    loaded, name = load_published(HUB_ID, SPLIT, metadata, METADATA)
    require_columns(loaded, (*COLUMNS, "source", "language"), name, f"Give a copy of {HUB_ID}.")
    languages = sorted(set(map(str, loaded["language"])))
    if not all(isinstance(language, str) for language in loaded["language"]) or languages == [""]:
        raise DataError(f"{name}: a row names no language. Give a copy of {HUB_ID}.")
    if len(languages) > 1:
        raise DataError(
            f"{name} has the languages {', '.join(languages)}. Give one of them at a time."
        )
    rows = [_pair(row, f"{name}, row {index}") for index, row in enumerate(loaded)]
    return {"test": normalised(datasets.Dataset.from_list(rows), name)}


def _pair(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    source = row["source"]
    check_subset(source, SIZES, where, "M-RewardBench")
    category = _CATEGORIES[source]
    return {
        **{column: row[column] for column in COLUMNS},
        "subset": [source, category],
        "domain": rewardbench.DOMAINS[category],
    }


class MRewardBenchTask(SubsetsTask):
    """One language of M-RewardBench."""

    def __init__(self, config: dict[str, Any]) -> None:
        """Score by M-RewardBench's rule."""
        super().__init__(config, RULE)
