"""The user's own preference data."""

from __future__ import annotations

from typing import Any

from drsow_plugin.errors import DataError
from drsow_plugin.harness.benchmarks.loading import (
    COLUMNS,
    SOURCE,
    Splits,
    load_rows,
    normalised,
    require_columns,
)

_NAMED = (*COLUMNS, "domain")
METADATA = SOURCE | {f"{name}_column" for name in _NAMED}


def load(**metadata: Any) -> Splits:
    """Load the data that ``--metadata data=…`` names.

    Raises:
        DataError: No data was named, it is empty, or a column or value is missing.
    """
    data = str(metadata.get("data") or "")
    if not data:
        raise DataError(
            "The task 'preference' evaluates your own data: name a parquet, jsonl or csv file, "
            "a saved data set or a Hub id with --metadata data=FILE."
        )
    columns = {name: str(metadata.get(f"{name}_column") or name) for name in _NAMED}
    loaded = load_rows(data, metadata, METADATA)
    needed = [columns[name] for name in ("chosen", "rejected")]
    needed += [columns[name] for name in ("prompt", "domain") if f"{name}_column" in metadata]
    advice = f"Name the columns with --metadata {' '.join(f'{name}_column=…' for name in COLUMNS)}."
    require_columns(loaded, needed, data, advice)
    return {"test": normalised(loaded, data, columns)}
