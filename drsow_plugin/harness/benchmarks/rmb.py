"""RMB: helpfulness and harmlessness, in pairs and best of N.

Source of the rules: for pairs ``eval/scripts/my_run_rm.py`` of
``Zhou-Zoey/RMB-Reward-Model-Benchmark``, for lists, which have no code there, the paper (arXiv
2410.09893). A pair is right where the chosen response has the higher reward, a list of N where the
best one is above every loser. Each goal's score is the share of its rows that are right; the
leaderboard is the mean of the four: two goals, in pairs and best of N.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets

from drsow_plugin.errors import DataError
from drsow_plugin.harness.benchmarks.loading import (
    SOURCE,
    Splits,
    check_subset,
    load_rows,
    require_columns,
    texts,
)
from drsow_plugin.harness.documents import Document, share_won
from drsow_plugin.harness.subsets import Rule, SubsetsTask
from drsow_plugin.prompts import as_messages

METADATA = SOURCE

_SOURCE = "github.com/Zhou-Zoey/RMB-Reward-Model-Benchmark"
URL = f"https://{_SOURCE}"
_FOLDERS = {"pairwise": "Pairwise_set", "bon": "BoN_set"}
_COLUMNS = {
    "pairwise": ("pair_uid", "chosen", "reject"),
    "bon": ("bon_uid", "bon_best", "loser_list"),
}
"""By the kind of rows, the columns with their id, the best response and the others."""

SIZES = {
    "pairwise": {"Helpfulness": 10067, "Harmlessness": 7064},
    "bon": {"Helpfulness": 2109, "Harmlessness": 1677},
}
"""The published rows of each goal."""

_DOMAINS = {"Helpfulness": "chat", "Harmlessness": "safety"}
_REASONING = ("Code", "Reasoning")
"""The categories of helpfulness whose prompts are of the domain reasoning."""


def beats_all(rewards: Sequence[float]) -> float:
    """Return 1 where the first reward is above all others, else 0; a tie or NaN is not above."""
    return float(share_won(rewards, [(0, other) for other in range(1, len(rewards))]) == 1)


def _count(_doc: Document, rewards: Sequence[float]) -> dict[str, float]:
    return {"score": beats_all(rewards)}


def load(kind: str, **metadata: Any) -> Splits:
    """Load the pairs, or the lists of N.

    Args:
        kind: ``pairwise`` or ``bon``.
        **metadata: ``data`` names the folder ``RMB_dataset`` of a clone of RMB's repository, one
            of its folders, or a file. RMB's authors publish it nowhere else.

    Raises:
        DataError: No data was named, or it is empty, or of another version.
    """
    data = str(metadata.get("data") or "")
    if not data:
        raise DataError(
            f"RMB is published as files in {_SOURCE}: clone it, and name its folder with "
            "--metadata data=…/RMB_dataset."
        )
    whole = Path(data).expanduser() / _FOLDERS[kind]
    name = str(whole) if whole.is_dir() else data
    loaded = load_rows(name, metadata, METADATA)
    needed = (*_COLUMNS[kind], "conversation_input", "category_path")
    advice = f"Give {_FOLDERS[kind]} of {_SOURCE}."
    require_columns(loaded, needed, name, advice)
    rows = [_row(row, kind, f"{name}, row {index}") for index, row in enumerate(loaded)]
    return {"test": datasets.Dataset.from_list(rows)}


def _row(row: Mapping[str, Any], kind: str, where: str) -> dict[str, Any]:
    uid, best, others = _COLUMNS[kind]
    _, _, path = str(row["category_path"]).partition("/")
    goal, _, category = path.partition("/")
    check_subset(goal, SIZES[kind], where, "RMB")
    losers = (row[others] or ()) if kind == "bon" else [row[others]]
    answers = [_answer(row[best], f"{where}, {best}")]
    answers += [_answer(each, f"{where}, {others}") for each in _listed(losers, where, others)]
    turns = row["conversation_input"]
    if isinstance(turns, list):  # beside role and content they have the language
        own = ("role", "content")
        turns = [{k: t.get(k) for k in own} if isinstance(t, Mapping) else t for t in turns]
    return {
        "prompt": [dict(message) for message in as_messages(turns, where)],
        "responses": texts(answers, where),
        "num_correct": 1,
        "id": str(row[uid]),
        "subset": goal,
        "domain": "reasoning" if category.startswith(_REASONING) else _DOMAINS[goal],
    }


def _listed(value: object, where: str, name: str) -> Sequence[object]:
    if not isinstance(value, list | tuple):
        raise DataError(
            f"{where}: {name} is a list of responses, got {value!r:.80}. Give the files of "
            f"{_SOURCE}."
        )
    return value


def _answer(response: object, where: str) -> Any:
    if not isinstance(response, Mapping) or not isinstance(response.get("answer"), str):
        raise DataError(
            f"{where}: a response is {{'llm_name': …, 'answer': …}}, got {response!r:.80}. Give "
            f"the files of {_SOURCE}."
        )
    return response["answer"]


class RMBTask(SubsetsTask):
    """The pairs, or the lists of N, of RMB."""

    def __init__(self, config: dict[str, Any]) -> None:
        """Score by RMB's rule.

        Args:
            config: The task file; ``dataset_kwargs`` names the ``kind`` of rows.
        """
        kind = config["dataset_kwargs"]["kind"]
        super().__init__(config, Rule(f"RMB, {kind}", SIZES[kind], _count))
