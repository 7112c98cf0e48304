"""On-disk cache of sampled responses: a file for each run of prompts that is kept together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from drsow_plugin.addresses import Address
from drsow_plugin.errors import DataError
from drsow_plugin.generation.policy import Sample
from drsow_plugin.hashing import text_sha256
from drsow_plugin.records import BAD_ROW, TOO_LONG, Problem
from drsow_plugin.table_store import TableStore, opened

Outcome = list[Sample] | Problem
"""The responses to a prompt, or why there are none."""

_LASTING = (TOO_LONG, BAD_ROW)  # another try may cure what a server refuses


class SampleStore(TableStore):
    """A folder with the responses of one policy, sampled in one way."""

    schema = pa.schema(
        {
            "texts": pa.list_(pa.string()),
            "tokens": pa.list_(pa.int64()),
            "finishes": pa.list_(pa.string()),
            "reason": pa.string(),
        }
    )

    def load(self, contents: Sequence[str], candidates: int) -> list[Outcome] | None:
        """Return what came of some prompts, or ``None`` if it is not there, whole."""

        def parse(rows: list[dict[str, Any]]) -> list[Outcome]:
            if len(rows) != len(contents):
                raise DataError(f"it holds {len(rows)} prompts")
            return [_outcome(row, candidates) for row in rows]

        return self.load_table(self._path(contents), parse)

    def save(self, contents: Sequence[str], outcomes: Sequence[Outcome]) -> None:
        """Keep what came of some prompts; not where another try may give more.

        Raises:
            StorageError: There is no room, or it cannot be written.
        """
        if any(isinstance(o, Problem) and o.kind not in _LASTING for o in outcomes):
            return
        self.save_table(self._path(contents), [_row(outcome) for outcome in outcomes])

    def _path(self, contents: Sequence[str]) -> Path | Address:
        return self.folder / f"{text_sha256(chr(10).join(contents))}.parquet"


@contextmanager
def open_store(folder: Path) -> Iterator[SampleStore]:
    """Open, or make, a folder of responses; where nothing can be written it is only read."""
    with opened(SampleStore, folder) as store:
        yield store


def _row(outcome: Outcome) -> dict[str, Any]:
    if isinstance(outcome, Problem):
        return {"texts": None, "tokens": None, "finishes": None, "reason": str(outcome)}
    return {
        "texts": [sample.text for sample in outcome],
        "tokens": [sample.tokens for sample in outcome],
        "finishes": [sample.finish for sample in outcome],
        "reason": None,
    }


def _outcome(row: dict[str, Any], candidates: int) -> Outcome:
    problems = Problem.parse(row["reason"])
    if problems:
        return problems[0]
    samples = [
        Sample(text, tokens, finish)
        for text, tokens, finish in zip(row["texts"], row["tokens"], row["finishes"], strict=True)
    ]
    if len(samples) != candidates:
        raise DataError(f"it holds {len(samples)} responses to a prompt")
    return samples
