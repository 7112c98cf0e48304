"""On-disk cache of the log-probs of single models, keyed by the prompt and the response."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from drsow_plugin.errors import DataError
from drsow_plugin.hashing import text_sha256
from drsow_plugin.models.language_model import LanguageModel
from drsow_plugin.records import BAD_ROW, NOT_FINITE, TOO_LONG, Batching, Problem
from drsow_plugin.scoring.drsow import SCORING_VERSION
from drsow_plugin.table_store import TableStore, opened

_LASTING = (TOO_LONG, BAD_ROW, NOT_FINITE)  # another try may cure what else an engine says
_OF_REWARDS = ("reduction", "refine")
"""The policies that change no log-prob."""


@dataclass(frozen=True)
class Scored:
    """What a model says of a response.

    Attributes:
        logprob: Sum over the response tokens of ln p, in nats; ``None`` where there is none.
        tokens: How many tokens were scored.
        truncated: Prompt tokens that were cut from the left.
        problem: Why there is no log-prob, or ``None``.
    """

    logprob: float | None
    tokens: int
    truncated: int = 0
    problem: Problem | None = None


class LogProbStore(TableStore):
    """A folder with the log-probs of one model: a file for each run of rows scored together.

    What is there counts row by row, whatever data set it was scored for.

    Attributes:
        found: What is known, by the key of prompt and response.
    """

    schema = pa.schema(
        {
            "key": pa.string(),
            "logprob": pa.float64(),
            "tokens": pa.int64(),
            "truncated": pa.int64(),
            "reason": pa.string(),
        }
    )

    def __init__(self, folder: Path, writing: Path | None, refused: str = "") -> None:
        """Read what is in a folder; see :class:`~drsow_plugin.table_store.TableStore`."""
        super().__init__(folder, writing, refused)
        self.found: dict[str, Scored] = {}
        for path in sorted(folder.glob("*.parquet")):
            self.found |= self.load_table(path, _parse) or {}

    def save(self, scored: Mapping[str, Scored]) -> None:
        """Keep log-probs by their keys; not where memory ran out, which another time may not.

        Raises:
            StorageError: There is no room, or they cannot be written.
        """
        self.found |= scored
        rows = [
            {
                "key": key,
                "logprob": value.logprob,
                "tokens": value.tokens,
                "truncated": value.truncated,
                "reason": value.problem and str(value.problem),
            }
            for key, value in scored.items()
            if value.problem is None or value.problem.kind in _LASTING
        ]
        if rows:
            name = text_sha256("\n".join(str(row["key"]) for row in rows))
            self.save_table(self.folder / f"{name}.parquet", rows)


@contextmanager
def open_store(folder: Path) -> Iterator[LogProbStore]:
    """Open, or make, a folder of log-probs; where nothing can be written it is only read."""
    with opened(LogProbStore, folder) as store:
        yield store


def model_key(model: LanguageModel, batching: Batching) -> str:
    """Return what the log-probs of a model are kept under: all that decides them.

    Raises:
        ConfigError: It is an engine that does not say what it is.
        EngineError: A file was changed.
    """
    policies = asdict(model.identity.scoring)
    described = {
        "fingerprint": model.identity.fingerprint(),
        "scoring": {name: value for name, value in policies.items() if name not in _OF_REWARDS},
        "scoring_version": SCORING_VERSION,
        "batching": asdict(batching),  # decides the rounding
    }
    return text_sha256(json.dumps(described, sort_keys=True))


def _parse(rows: list[dict[str, Any]]) -> dict[str, Scored]:
    scored = {}
    for row in rows:
        problems = Problem.parse(row["reason"])
        value = row["logprob"]
        if (value is None) != bool(problems) or (value is not None and not math.isfinite(value)):
            raise DataError("a log-prob is missing without a reason, or not finite")
        problem = problems[0] if problems else None
        scored[row["key"]] = Scored(value, row["tokens"], row["truncated"], problem)
    return scored
