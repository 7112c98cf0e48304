"""On-disk cache of rewards, keyed by a hash of prompts and responses."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from drsow_plugin.addresses import Address
from drsow_plugin.annotate.items import Item, Rewards
from drsow_plugin.errors import DataError
from drsow_plugin.hashing import text_sha256
from drsow_plugin.records import BAD_ROW, NOT_FINITE, TOO_LONG, LogProb, Problem, Reward, Scoring
from drsow_plugin.scoring.reward import reward as difference
from drsow_plugin.table_store import TableStore, opened

_TYPES: dict[str, pa.DataType] = {
    "reward": pa.float64(),
    "strong_logprob": pa.float64(),
    "weak_logprob": pa.float64(),
    "strong_tokens": pa.int64(),
    "weak_tokens": pa.int64(),
    "strong_truncated": pa.int64(),
    "weak_truncated": pa.int64(),
    "reason": pa.string(),
    "notes": pa.list_(pa.string()),
    "strong_token_logprobs": pa.list_(pa.float64()),
    "weak_token_logprobs": pa.list_(pa.float64()),
    "domain": pa.string(),
    "domain_confidence": pa.float64(),
}
_TUPLES = ("notes", "strong_token_logprobs", "weak_token_logprobs")
_LASTING = (TOO_LONG, BAD_ROW, NOT_FINITE)  # another try may cure what else an engine says


class RewardStore(TableStore):
    """A folder with one file for each run of rows that was scored together.

    A file is named by the hash of the rows' prompts and responses.
    """

    schema = pa.schema(list(_TYPES.items()))

    def __init__(
        self,
        folder: Path | Address,
        scoring: Scoring,
        writing: Path | Address | None,
        refused: str = "",
    ) -> None:
        """Set out with a folder; :func:`open_store` is the way to one.

        Args:
            folder: The folder.
            scoring: The policies that the rewards are made by; they are checked by the reduction.
            writing: See :class:`~drsow_plugin.table_store.TableStore`.
            refused: Likewise.
        """
        super().__init__(folder, writing, refused)
        self._scoring = scoring

    def path(self, items: Sequence[Item]) -> Path | Address:
        """Return where the rewards of some rows are kept."""
        return file_of(self.folder, items)

    def load(self, items: Sequence[Item]) -> Rewards | None:
        """Return the rewards of some rows, or ``None`` if they are not there, whole."""

        def parse(rows: list[dict[str, Any]]) -> Rewards:
            if len(rows) != sum(text is not None for item in items for text in item.responses):
                raise DataError(f"it holds {len(rows)} rewards")
            rewards = (_reward(row, self._scoring) for row in rows)
            return [
                [None if text is None else next(rewards) for text in item.responses]
                for item in items
            ]

        return self.load_table(self.path(items), parse)

    def save(self, items: Sequence[Item], rewards: Rewards) -> bool:
        """Keep the rewards of some rows; not where memory ran out, which another time may not.

        Returns:
            Whether they are kept.

        Raises:
            StorageError: There is no room, or they cannot be written.
        """
        flat = [reward for row in rewards for reward in row if reward is not None]
        if any(problem.kind not in _LASTING for reward in flat for problem in reward.problems):
            return False
        rows = [{name: getattr(reward, name) for name in _TYPES} for reward in flat]
        self.save_table(self.path(items), rows)
        return True


def file_of(folder: Path | Address, items: Sequence[Item]) -> Path | Address:
    """Return where in a folder the rewards of some rows are kept, if they are."""
    key = text_sha256("\n".join(item.content() for item in items))
    return folder / f"{key}.parquet"


@contextmanager
def open_store(folder: Path | Address, scoring: Scoring) -> Iterator[RewardStore]:
    """Open, or make, a folder of finished work; where nothing can be written it is only read.

    Args:
        folder: The folder, or its address.
        scoring: The policies that the rewards are made by.
    """
    with opened(lambda at, writing, why: RewardStore(at, scoring, writing, why), folder) as store:
        yield store


def _reward(row: dict[str, Any], scoring: Scoring) -> Reward:
    """Return a reward as it was saved, if it is the difference of its log-probs."""
    for name in _TUPLES:
        row[name] = None if row[name] is None else tuple(row[name])
    if row["reward"] is None:
        fits = row["reason"] is not None
    else:
        fits = math.isfinite(row["reward"]) and row["reward"] == difference(
            _logprob(row, "strong"), _logprob(row, "weak"), scoring.reduction
        )
    if not fits:
        raise DataError("a reward is not strong - weak")
    problems = Problem.parse(row.pop("reason"))
    return Reward(**row, problems=problems, scoring=scoring)


def _logprob(row: Mapping[str, Any], side: str) -> LogProb:
    return LogProb(row[f"{side}_logprob"], row[f"{side}_tokens"])
