"""On-disk cache of rewards, keyed by a hash of prompts and responses."""

from __future__ import annotations

import json
import logging
import math
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from drsow_plugin.annotate.items import Item, Rewards
from drsow_plugin.cache import PAIR, reason, storage_errors, unfinished
from drsow_plugin.errors import DataError, StorageError
from drsow_plugin.hashing import text_sha256
from drsow_plugin.printable import json_line
from drsow_plugin.records import BAD_ROW, NOT_FINITE, TOO_LONG, LogProb, Problem, Reward, Scoring
from drsow_plugin.redaction import without_tokens
from drsow_plugin.scoring.reward import reward as difference

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
_LASTING = (TOO_LONG, BAD_ROW, NOT_FINITE)  # another try may cure what else an engine says
_DIGEST = b"drsow.sha256"
_ADVICE = (
    "Make room, or name another folder with DRSOW_CACHE or cache_dir. What is finished is kept."
)
_log = logging.getLogger(__name__)


class RewardStore:
    """A folder with one file for each run of rows that was scored together.

    A file is named by the hash of the rows' prompts and responses, and appears whole or not
    at all, so that runs may be killed, repeated and share the folder. It holds a hash of what
    is in it; one that does not fit is dropped, and its rows are scored again.

    Attributes:
        kept: How many such runs of rows were found there, or written.
    """

    def __init__(
        self, folder: Path, scoring: Scoring, writing: Path | None, refused: str = ""
    ) -> None:
        """Set out with a folder; :func:`open_store` is the way to one.

        Args:
            folder: The folder.
            scoring: The policies that the rewards are made by; they are checked by the reduction.
            writing: A folder in it for files that are not whole yet, or ``None`` where
                nothing can be written.
            refused: Why not.
        """
        self.folder = folder
        self.writing = writing
        self.kept = 0
        self._scoring = scoring
        self._refused = refused

    def path(self, items: Sequence[Item]) -> Path:
        """Return where the rewards of some rows are kept."""
        key = text_sha256("\n".join(item.content() for item in items))
        return self.folder / f"{key}.parquet"

    def load(self, items: Sequence[Item]) -> Rewards | None:
        """Return the rewards of some rows, or ``None`` if they are not there, whole."""
        path = self.path(items)
        if not path.is_file():
            return None
        try:
            flat = self._read(path)
            if len(flat) != sum(text is not None for item in items for text in item.responses):
                raise DataError(f"it holds {len(flat)} rewards")
        except Exception as error:  # damaged bytes may make the reader raise anything
            _log.warning("%s is damaged and scored again: %s", path, " ".join(str(error).split()))
            with suppress(OSError):
                path.unlink()
            return None
        self.kept += 1
        rewards = iter(flat)
        return [
            [None if text is None else next(rewards) for text in item.responses] for item in items
        ]

    def describe(self, options: Mapping[str, Any]) -> None:
        """Note, for ``drsow cache``, which pair these are the scores of."""
        if self.writing is not None:
            with suppress(OSError):  # where scores are missing too, it is told then
                temporary = self.writing / PAIR
                temporary.write_text(json_line(without_tokens(options)), encoding="utf-8")
                temporary.replace(self.folder / PAIR)

    def check_writable(self) -> None:
        """Check, before rows are scored, that their rewards can be kept.

        Raises:
            StorageError: They cannot.
        """
        if self.writing is None:
            raise StorageError(
                f"Scores cannot be kept in {self.folder}: {self._refused}. {_ADVICE}"
            )

    def save(self, items: Sequence[Item], rewards: Rewards) -> None:
        """Keep the rewards of some rows; not where memory ran out, which another time may not.

        Raises:
            StorageError: There is no room, or they cannot be written.
        """
        flat = [reward for row in rewards for reward in row if reward is not None]
        if any(problem.kind not in _LASTING for reward in flat for problem in reward.problems):
            return
        self.check_writable()
        path = self.path(items)
        table = pa.Table.from_pylist(
            [{name: getattr(reward, name) for name in _TYPES} for reward in flat], _SCHEMA
        )
        table = table.replace_schema_metadata({_DIGEST: _digest(path, table.to_pylist())})
        with storage_errors(f"Scores cannot be kept in {self.folder}", _ADVICE):
            handle, temporary = tempfile.mkstemp(dir=self.writing)
            with os.fdopen(handle, "wb") as file:
                pq.write_table(table, file, compression="zstd", write_page_checksum=True)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(path)
        self.kept += 1

    def _read(self, path: Path) -> list[Reward]:
        table = pq.read_table(path, page_checksum_verification=True)
        if not table.schema.equals(_SCHEMA):
            raise DataError("its columns are others")
        rows = table.to_pylist()
        if (table.schema.metadata or {}).get(_DIGEST) != _digest(path, rows):
            raise DataError("its hash is another")
        return [_reward(row, self._scoring) for row in rows]


@contextmanager
def open_store(folder: Path, scoring: Scoring) -> Iterator[RewardStore]:
    """Open, or make, a folder of finished work; where nothing can be written it is only read.

    Args:
        folder: The folder.
        scoring: The policies that the rewards are made by.
    """
    with ExitStack() as stack:
        try:
            store = RewardStore(folder, scoring, stack.enter_context(unfinished(folder)))
        except OSError as error:
            store = RewardStore(folder, scoring, None, reason(error))
        yield store


def _digest(path: Path, rows: list[dict[str, Any]]) -> bytes:
    """Return the hash of some rewards and of what they are the rewards of."""
    return text_sha256(json.dumps([path.stem, rows])).encode()


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
