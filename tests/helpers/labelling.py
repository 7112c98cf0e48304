"""Labelling a few rows, by map and by run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets

from drsow_plugin import Annotator


def label(rows: list[dict[str, Any]], annotator: Annotator, **options: Any) -> datasets.Dataset:
    return datasets.Dataset.from_list(rows).map(
        annotator, batched=True, **{"batch_size": 4, **options}
    )


def scores(folder: Path) -> list[Path]:
    return sorted(folder.glob("scores/*/*.parquet"))


def run(annotator: Annotator, rows: list[dict[str, Any]], folder: Path, **options: Any) -> Any:
    data = datasets.Dataset.from_list(rows)
    return annotator.run(data, cache_dir=str(folder), **{"shard_rows": 4, **options})
