"""RM-Bench: three chosen and three rejected responses in three styles, each with each.

Source of the rule: ``compute_accuracy`` in ``scripts/utils.py`` of ``THU-KEG/RM-Bench``. The styles
are concise, detailed, and detailed with Markdown. With *won* the matrix of chosen (rows) above
rejected (columns), a tie being lost:

    easy, normal, hard     means of won below, on and above the diagonal
    a domain's score       mean of these three, over its prompts
    all                    mean of four domains: of their scores, and of easy, normal and hard each
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import datasets

from drsow_plugin.errors import DataError
from drsow_plugin.harness.benchmarks.loading import (
    SOURCE,
    Splits,
    candidates,
    check_subset,
    load_published,
    require_columns,
)
from drsow_plugin.harness.documents import Document, share_won
from drsow_plugin.harness.subsets import Rule, SubsetsTask, mean

METADATA = SOURCE

HUB_ID, SPLIT = "THU-KEG/RM-Bench", "train"
_COLUMNS = ("id", "prompt", "chosen", "rejected", "domain")
_STYLES = range(3)

SIZES = {"chat": 129, "code": 228, "math": 529, "safety": 441}
"""The published rows of each domain; safety is safety-refuse and safety-response."""

_DOMAINS = {"chat": "chat", "code": "reasoning", "math": "reasoning", "safety": "safety"}
"""By RM-Bench's domain the one that a router is compared with."""

_PAIRS = {
    "easy": [(i, 3 + j) for i in _STYLES for j in _STYLES if i > j],
    "normal": [(i, 3 + i) for i in _STYLES],
    "hard": [(i, 3 + j) for i in _STYLES for j in _STYLES if i < j],
}
"""The three comparisons of each kind, among three chosen and then three rejected responses."""


def count(_doc: Document, rewards: Sequence[float]) -> dict[str, float]:
    """Return the shares of the comparisons that one prompt's responses win."""
    kinds = {kind: share_won(rewards, pairs) for kind, pairs in _PAIRS.items()}
    return {"score": mean(kinds.values()), **kinds}


RULE = Rule("RM-Bench", SIZES, count, scores=("score", *_PAIRS), beside=("overflow",))


def load(**metadata: Any) -> Splits:
    """Load all domains.

    Args:
        **metadata: ``data`` names a local copy, complete or not, instead of the Hub's.

    Raises:
        DataError: The data is empty or of another version.
    """
    loaded, name = load_published(HUB_ID, SPLIT, metadata, METADATA)
    require_columns(loaded, _COLUMNS, name, f"Give a copy of {HUB_ID}, all domains in one file.")
    rows = [_row(row, f"{name}, row {index}") for index, row in enumerate(loaded)]
    return {"test": datasets.Dataset.from_list(rows)}


def _row(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    domain = str(row["domain"]).partition("-")[0]
    check_subset(domain, SIZES, where, "RM-Bench")
    document = candidates(row, where, _DOMAINS[domain])
    styles = document["num_correct"], len(document["responses"]) - document["num_correct"]
    if styles != (3, 3):
        raise DataError(
            f"{where}: a prompt has three chosen and three rejected responses, one of each "
            f"style, got {styles[0]} and {styles[1]}. Give a copy of {HUB_ID}."
        )
    return {**document, "id": str(row["id"]), "subset": domain}


class RMBenchTask(SubsetsTask):
    """All of RM-Bench."""

    def __init__(self, config: dict[str, Any]) -> None:
        """Score by RM-Bench's rule."""
        super().__init__(config, RULE)
