"""Finished work on disk: the rewards of some rows, by what they were made from."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from drsow_plugin.annotate.rows import Item, Rewards
from drsow_plugin.cache import UNFINISHED, open_folder
from drsow_plugin.hashing import text_sha256
from drsow_plugin.records import OUT_OF_MEMORY, Reward

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
_SCHEMA = pa.schema(list(_TYPES.items()))


class Shards:
    """A folder with one file for each run of rows that was scored together.

    A file is named by the hash of the rows' prompts and responses, and appears whole or not
    at all, so that runs may be killed, repeated and share the folder.
    """

    def __init__(self, folder: Path) -> None:
        """Open or make the folder."""
        self.folder = open_folder(folder)

    def path(self, items: Sequence[Item]) -> Path:
        """Return where the rewards of some rows lie."""
        key = text_sha256("\n".join(item.content() for item in items))
        return self.folder / f"{key}.parquet"

    def load(self, items: Sequence[Item]) -> Rewards | None:
        """Return the rewards of some rows, or ``None`` if they are not there, whole."""
        path = self.path(items)
        if not path.is_file():
            return None
        try:
            rows = pq.read_table(path, schema=_SCHEMA).to_pylist()
        except (pa.ArrowException, OSError):
            return None  # damaged: scored and written again
        if len(rows) != sum(len(_texts(item)) for item in items):
            return None
        found = iter(rows)
        return [
            [None if text is None else _reward(next(found)) for text in item.responses]
            for item in items
        ]

    def save(self, items: Sequence[Item], rewards: Rewards) -> None:
        """Keep the rewards of some rows; not where memory ran out, which another time may not."""
        flat = [reward for scored in rewards for reward in scored if reward is not None]
        if any((reward.reason or "").startswith(OUT_OF_MEMORY) for reward in flat):
            return
        table = pa.Table.from_pylist(
            [{name: getattr(reward, name) for name in _TYPES} for reward in flat], _SCHEMA
        )
        handle, temporary = tempfile.mkstemp(prefix=UNFINISHED, dir=self.folder)
        try:
            with os.fdopen(handle, "wb") as file:
                pq.write_table(table, file, compression="zstd")
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(self.path(items))
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def _texts(item: Item) -> list[str]:
    return [text for text in item.responses if text is not None]


def _reward(row: dict[str, Any]) -> Reward:
    for name in _TUPLES:
        row[name] = None if row[name] is None else tuple(row[name])
    return Reward(**row)
