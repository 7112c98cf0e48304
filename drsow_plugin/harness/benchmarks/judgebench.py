"""JudgeBench: pairs of responses of one model, of which one is objectively right.

Source of the rule: ``compute_final_metrics`` in ``utils/metrics.py`` of ``ScalerLab/JudgeBench``.
Each pair is judged in both orders, a right verdict counts +1 and a wrong one -1, and the pair is
correct where the sum is positive. A reward does not depend on the order, so both verdicts agree;
where both responses have the same reward the first one shown loses in both orders, the sum is 0,
and the pair is not correct. (With the option ``--single_game``, meant for judges that do not
depend on the order, the second one wins a tie, and is right where it happens to be the label.) The
score is the share of correct pairs, of each of four sources and of all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import datasets

from drsow_plugin.errors import DataError
from drsow_plugin.harness.benchmarks.loading import (
    SOURCE,
    Splits,
    check_subset,
    load_published,
    normalised,
    require_columns,
)
from drsow_plugin.harness.documents import Document
from drsow_plugin.harness.subsets import Rule, SubsetsTask

METADATA = SOURCE

HUB_ID = "ScalerLab/JudgeBench"
_COLUMNS = ("pair_id", "source", "question", "response_model", "response_A", "response_B", "label")

_SOURCES = ("mmlu-pro", "livebench-reasoning", "livebench-math", "livecodebench")
"""The beginnings of a pair's ``source``; JudgeBench calls them knowledge to coding."""

SIZES = {
    "gpt": dict(zip(_SOURCES, (154, 98, 56, 42), strict=True)),
    "claude": dict(zip(_SOURCES, (154, 51, 34, 31), strict=True)),
}
"""By the split the published pairs of each source; a split is of one model's responses."""

_SIDES = {"A>B": ("response_A", "response_B"), "B>A": ("response_B", "response_A")}


def judged(rewards: Sequence[float]) -> float:
    """Return 1 where a pair is judged right in both orders, else 0.

    Args:
        rewards: Of the right and of the wrong response, in nats; NaN where one is missing.
    """
    right, wrong = rewards
    return float(right > wrong)


def _count(_doc: Document, rewards: Sequence[float]) -> dict[str, float]:
    return {"score": judged(rewards)}


def rule(split: str) -> Rule:
    """Return the rule for the pairs of a split."""
    sizes = SIZES[split]

    def share_of_all(scores: Mapping[str, float]) -> float:
        return sum(score * sizes[source] for source, score in scores.items()) / sum(sizes.values())

    return Rule(f"JudgeBench, {split}", sizes, _count, total=share_of_all)


def load(pairs: str, **metadata: Any) -> Splits:
    """Load the pairs of one split.

    Args:
        pairs: ``gpt`` or ``claude``: the split on the Hub.
        **metadata: ``data`` names a local copy instead of the Hub's.

    Raises:
        DataError: The data is empty, of another version, or of the other split.
    """
    loaded, name = load_published(HUB_ID, pairs, metadata, METADATA)
    require_columns(loaded, _COLUMNS, name, f"Give a copy of {HUB_ID}.")
    rows = [_pair(row, pairs, f"{name}, row {index}") for index, row in enumerate(loaded)]
    return {"test": normalised(datasets.Dataset.from_list(rows), name)}


def _pair(row: Mapping[str, Any], pairs: str, where: str) -> dict[str, Any]:
    if not str(row["response_model"]).startswith(pairs):
        raise DataError(
            f"{where}: the responses are of {row['response_model']!r:.80}, and this task has the "
            f"pairs of {pairs}. Use --tasks "
            f"{' or '.join(f'judgebench_{split}' for split in SIZES if split != pairs)}, or give "
            f"a copy of {HUB_ID}'s split {pairs}."
        )
    label = str(row["label"])
    if label not in _SIDES:
        raise DataError(
            f"{where}: a label is A>B or B>A, got {row['label']!r:.80}. Give a copy of {HUB_ID}."
        )
    source = next((s for s in _SOURCES if str(row["source"]).startswith(s)), row["source"])
    check_subset(source, _SOURCES, where, "JudgeBench")
    chosen, rejected = _SIDES[label]
    return {
        "prompt": row["question"],
        "chosen": row[chosen],
        "rejected": row[rejected],
        "id": row["pair_id"],
        "subset": source,
        "domain": "reasoning",
    }


class JudgeBenchTask(SubsetsTask):
    """The pairs of one split of JudgeBench."""

    def __init__(self, config: dict[str, Any]) -> None:
        """Score by JudgeBench's rule.

        Args:
            config: The task file; ``dataset_kwargs`` names the split as ``pairs``.
        """
        super().__init__(config, rule(config["dataset_kwargs"]["pairs"]))
