"""PPE's human preferences: which of two answers people chose in Chatbot Arena.

Accuracy over the pairs that have a winner (arXiv 2410.14872); those that people called a tie are
left out, and a tie of rewards is lost. Beside all pairs the same for each kind of prompt that the
data set marks; a prompt may be of several kinds. The rule is that of the paper and of judges that
were evaluated on it since, which keep rows whose winner is ``model_a`` or ``model_b``; PPE's own
code (github.com/lmarena/PPE) was not compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import datasets

from drsow_plugin.errors import DataError
from drsow_plugin.harness.benchmarks.loading import (
    SOURCE,
    Splits,
    load_published,
    logger,
    normalised,
    require_columns,
)
from drsow_plugin.harness.documents import Document
from drsow_plugin.harness.metrics import Metrics, preference_metrics
from drsow_plugin.harness.subsets import mean_where_given
from drsow_plugin.harness.tasks import PREFERENCE_METRICS, PreferenceTask, metric

METADATA = SOURCE

HUB_ID, SPLIT = "lmarena-ai/PPE-Human-Preference-V1", "test"
KINDS = ("hard_prompt", "easy_prompt", "if_prompt", "is_code", "math_prompt")
"""The columns that mark kinds of prompts: true or false."""

_COLUMNS = ("question_id", "prompt", "response_1", "response_2", "winner", *KINDS)
_REASONING = ("is_code", "math_prompt")
_SIDES = {"model_a": ("response_1", "response_2"), "model_b": ("response_2", "response_1")}
_ACCURACIES = ("acc", "acc_tie_half", "acc_longer")


def load(**metadata: Any) -> Splits:
    """Load the pairs that have a winner.

    Args:
        **metadata: ``data`` names a local copy instead of the Hub's.

    Raises:
        DataError: The data is empty, of another version, or has no winner.
    """
    loaded, name = load_published(HUB_ID, SPLIT, metadata, METADATA)
    require_columns(loaded, _COLUMNS, name, f"Give a copy of {HUB_ID}.")
    rows = [_pair(row, f"{name}, row {index}") for index, row in enumerate(loaded)]
    pairs = [row for row in rows if row is not None]
    if not pairs:
        raise DataError(f"{name}: all rows are ties, so none has a winner. Give rows that have.")
    logger.info("%s: %d of %d rows are ties and left out.", name, len(rows) - len(pairs), len(rows))
    return {"test": normalised(datasets.Dataset.from_list(pairs), name)}


def _pair(row: Mapping[str, Any], where: str) -> dict[str, Any] | None:
    winner = str(row["winner"])
    if winner.startswith("tie"):
        return None
    if winner not in _SIDES:
        raise DataError(
            f"{where}: a winner is model_a, model_b or a tie, got {winner!r:.80}. Give a copy of "
            f"{HUB_ID}."
        )
    kinds = [kind for kind in KINDS if _marked(row[kind], f"{where}, {kind}")]
    chosen, rejected = _SIDES[winner]
    return {
        "prompt": row["prompt"],
        "chosen": row[chosen],
        "rejected": row[rejected],
        "id": row["question_id"],
        "subset": kinds,
        "domain": "reasoning" if any(kind in kinds for kind in _REASONING) else "chat",
    }


def _marked(value: object, where: str) -> bool:
    """Return whether a row is of a kind; cells of csv files are texts."""
    text = str(value).lower()
    if text not in ("true", "false"):
        raise DataError(f"{where}: true or false, got {value!r:.80}. Give a copy of {HUB_ID}.")
    return text == "true"


class PPETask(PreferenceTask):
    """The human preferences of PPE."""

    def __init__(self, config: dict[str, Any]) -> None:
        """Add the accuracy for each kind of prompt."""
        kinds = [metric(f"{k}/{acc}", mean_where_given) for k in KINDS for acc in _ACCURACIES]
        super().__init__({**config, "metric_list": [*PREFERENCE_METRICS, *kinds]})
        present = {kind for kinds in self.eval_docs["subset"] for kind in kinds}
        self._kinds = [kind for kind in KINDS if kind in present]

    def count(self, doc: Document, results: Sequence[tuple[float, bool]]) -> Metrics:
        """Return what one pair counts: for all, and for its kinds of prompts; ``None`` else."""
        metrics = preference_metrics(doc, results)
        of_kinds = {
            f"{kind}/{acc}": metrics[acc] if kind in doc["subset"] else None
            for kind in self._kinds
            for acc in _ACCURACIES
        }
        return {**metrics, **of_kinds}
