"""Loads preference data for the tasks, from the package, a file, a folder or the Hub."""

from __future__ import annotations

import difflib
import json
import logging
import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import datasets

from drsow_plugin.config.pair import OPTIONS
from drsow_plugin.data.loading import load_data
from drsow_plugin.errors import DataError, HubError, unknown_name
from drsow_plugin.harness.benchmarks.rewardbench import NO_ROWS, WEIGHTS
from drsow_plugin.prompts import as_preference, unscored

logger = logging.getLogger(__name__)

REWARDBENCH = "allenai/reward-bench"
DOMAINS = {"chat": "chat", "chat_hard": "chat", "safety": "safety", "reasoning": "reasoning"}
"""The domain that each section of RewardBench stands for; a router is compared with it."""

COLUMNS = ("prompt", "chosen", "rejected")

_OF_DATA = {"data_split": "split", "data_name": "name", "data_revision": "revision"}
METADATA: dict[str, frozenset[str]] = {
    "llmbar": frozenset(),
    "rewardbench": frozenset(("data", *_OF_DATA)),
    "preference": frozenset(("data", *_OF_DATA, *(f"{n}_column" for n in (*COLUMNS, "domain")))),
}
"""The names in --metadata that say something to a task, by what its name begins with."""

Splits = dict[str, datasets.Dataset]


def llmbar(subset: str, **_metadata: Any) -> Splits:
    """Load one of the five LLMBar sets, which the package ships."""
    file = resources.files("drsow_plugin.tasks") / "llmbar.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row["subset"] == subset]
    data = _normalised(datasets.Dataset.from_list(rows), "llmbar", {})
    return {"test": _with_domain(data, "chat")}


def rewardbench(section: str, **metadata: Any) -> Splits:
    """Load one section of RewardBench.

    Args:
        section: ``chat``, ``chat_hard``, ``safety`` or ``reasoning``.
        **metadata: ``data`` names a local copy, complete or not, instead of the Hub's.

    Returns:
        The section's rows; where there is none, rows of the subset ``NO_ROWS``, since lm-eval
        cannot run a group with an empty task.

    Raises:
        DataError: The data is empty or lacks a column.
    """
    data = str(metadata.get("data") or REWARDBENCH)
    default = {"split": "filtered"} if data == REWARDBENCH else {}
    try:
        loaded = _load(data, default | _asked("rewardbench", metadata))
    except HubError as error:
        raise HubError(f"{error} A local copy is named with --metadata data=FILE.") from error
    _require(loaded, ("prompt", "chosen", "rejected", "subset"), data)
    subsets = set(WEIGHTS[section])
    rows = loaded.filter(lambda s: s in subsets, input_columns="subset")
    if len(rows) == 0:
        return {"test": _placeholder()}
    return {"test": _with_domain(_normalised(rows, data, {}), DOMAINS[section])}


def _placeholder() -> datasets.Dataset:
    """Return a row that counts for nothing, for each process of a data-parallel launch."""
    row = {
        "prompt": [{"role": "user", "content": NO_ROWS}],
        "chosen": NO_ROWS,
        "rejected": NO_ROWS,
        "subset": NO_ROWS,
        "id": -1,
        "domain": None,
    }
    return datasets.Dataset.from_list([row] * int(os.environ.get("WORLD_SIZE", "1")))


def preference(**metadata: Any) -> Splits:
    """Load the user's own preference data, named by ``--metadata data=…``.

    Raises:
        DataError: No data was named, it is empty, or a column or value is missing.
    """
    data = metadata.get("data")
    if not data:
        raise DataError(
            "The task 'preference' evaluates your own data: name a parquet, jsonl or csv file, "
            "a saved data set or a Hub id with --metadata data=FILE."
        )
    columns = {name: str(metadata.get(f"{name}_column") or name) for name in (*COLUMNS, "domain")}
    loaded = _load(str(data), _asked("preference", metadata))
    needed = tuple(columns[name] for name in ("chosen", "rejected"))
    needed += tuple(columns[n] for n in ("prompt", "domain") if f"{n}_column" in metadata)
    _require(loaded, needed, str(data))
    return {"test": _normalised(loaded, str(data), columns)}


def _asked(task: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the user said of the data set, out of all that lm-eval passes on.

    That holds the model's arguments too, so that only what is near to one of our names, and of
    none of theirs, is known to be a mistake. The command line is checked before; see
    :mod:`~drsow_plugin.harness.command`.

    Raises:
        DataError: A name looks like one of these and is not.
    """
    known = METADATA[task]
    theirs = {*OPTIONS, "data_sha256"}
    for name in metadata:
        ours = name.startswith("data_") or name.endswith("_column")
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
        if name not in known and name not in theirs and (ours or near):
            raise DataError(unknown_name("name in --metadata", name, known))
    return {_OF_DATA[k]: str(v) for k, v in metadata.items() if k in _OF_DATA and v is not None}


def _load(data: str, options: dict[str, Any]) -> datasets.Dataset:
    """Load a file, a saved data set or a Hub data set as one split."""
    path = Path(data).expanduser()
    if path.is_file() and options.get("split") == "filtered":
        options = {**options, "split": None}  # a copy of RewardBench need not be told apart
    loaded = load_data([data], **options)
    if isinstance(loaded, datasets.DatasetDict):
        raise DataError(
            f"{data} has the splits {', '.join(sorted(loaded))}; name one with "
            "--metadata data_split=NAME."
        )
    return loaded


def _with_domain(data: datasets.Dataset, domain: str) -> datasets.Dataset:
    """Return the rows with the domain that their prompts are known to belong to."""
    return data.add_column("domain", [domain] * len(data))


def _require(data: datasets.Dataset, columns: tuple[str, ...], name: str) -> None:
    missing = [column for column in columns if column not in data.column_names]
    if missing:
        raise DataError(
            f"{name} has no column {', '.join(map(repr, missing))}; it has "
            f"{', '.join(map(repr, data.column_names))}. Name the columns with --metadata "
            "prompt_column=… chosen_column=… rejected_column=…."
        )


def _normalised(data: datasets.Dataset, name: str, columns: Mapping[str, str]) -> datasets.Dataset:
    """Return rows of prompt (messages), chosen and rejected (texts), subset, id and domain."""
    kept = {column: column for column in ("subset", "id")} | {
        "domain": columns.get("domain", "domain")
    }
    kept = {name: column for name, column in kept.items() if column in data.column_names}

    def one(row: dict[str, Any], index: int) -> dict[str, Any]:
        names = {column: columns.get(column, column) for column in COLUMNS}
        values = {column: row[name] for column, name in names.items() if name in row}
        preference = as_preference(values, f"{name}, row {index}")
        return {
            "prompt": [dict(message) for message in preference.prompt],
            "chosen": preference.chosen,
            "rejected": preference.rejected,
            **{name: row[column] for name, column in kept.items()},
        }

    rows = [one(row, index) for index, row in enumerate(data)]
    _warn(data, name, [columns.get(side, side) for side in ("chosen", "rejected")])
    return datasets.Dataset.from_list(rows)


def _warn(data: datasets.Dataset, name: str, responses: list[str]) -> None:
    """Say what of the responses is not scored."""
    notes = [[note for side in responses for note in unscored(row[side])] for row in data]
    found = [note for of_row in notes for note in of_row]
    if found:
        logger.warning("%s: in %d of %d rows %s", name, sum(map(bool, notes)), len(data), found[0])
