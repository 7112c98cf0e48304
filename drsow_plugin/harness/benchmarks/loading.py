"""What benchmarks share: preference data from a file, a folder or the Hub, as rows of one shape."""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets

from drsow_plugin.annotate.items import listed
from drsow_plugin.config.pair import OPTIONS
from drsow_plugin.data.loading import load_data
from drsow_plugin.errors import DataError, HubError, unknown_name
from drsow_plugin.prompts import as_messages, as_preference, check_text, response_text, unscored

logger = logging.getLogger(__name__)

COLUMNS = ("prompt", "chosen", "rejected")
DOMAINS = ("chat", "safety", "reasoning")
"""The domains that prompts of benchmarks are labelled with; a router is compared with them."""

NO_ROWS = "(no rows)"
"""The subset of the row that stands for a task without rows; it counts for nothing."""

_OF_DATA = {
    "data_split": "split",
    "data_name": "name",
    "data_dir": "data_dir",
    "data_revision": "revision",
}
SOURCE = frozenset(("data", *_OF_DATA))
"""The names in ``--metadata`` that say where data comes from."""

Splits = dict[str, datasets.Dataset]


def load_rows(data: str, metadata: Mapping[str, Any], valid: Collection[str]) -> datasets.Dataset:
    """Load a file, a saved data set or a Hub data set as one split.

    Args:
        data: Where the data is.
        metadata: All that lm-eval passes on.
        valid: The names in it that say something to this benchmark.

    Raises:
        DataError: It cannot be read or has several splits, or a name in ``metadata`` looks like
            one of ours and is not.
    """
    loaded = load_data([data], **_named_source(metadata, valid))
    if isinstance(loaded, datasets.DatasetDict):
        raise DataError(
            f"{data} has the splits {', '.join(sorted(loaded))}; name one with "
            "--metadata data_split=NAME."
        )
    return loaded


def load_published(
    hub_id: str, split: str, metadata: Mapping[str, Any], valid: Collection[str], **where: str
) -> tuple[datasets.Dataset, str]:
    """Load a benchmark from the Hub, or a copy of it that ``--metadata data=…`` names.

    Args:
        hub_id: Where it is published.
        split: Its split there; a copy that is a file need not be told apart by it.
        metadata: All that lm-eval passes on.
        valid: The names in it that say something to this benchmark.
        **where: What else names it on the Hub, as in ``--metadata``.

    Returns:
        The rows, and what errors call them.

    Raises:
        DataError: It cannot be read.
        HubError: The Hub does not have it or cannot be reached.
    """
    data = str(metadata.get("data") or hub_id)
    named = metadata.get("data_split")
    if data == hub_id:
        metadata = {**where, **metadata, "data_split": named or split}
    elif named == split and Path(data).expanduser().is_file():
        metadata = {**metadata, "data_split": None}
    try:
        return load_rows(data, metadata, valid), data
    except HubError as error:
        raise HubError(f"{error} A local copy is named with --metadata data=FILE.") from error


def _named_source(metadata: Mapping[str, Any], valid: Collection[str]) -> dict[str, Any]:
    """Return what the user said of the data set, out of all that lm-eval passes on.

    That holds the model's arguments too, so that only what is near to one of our names, and of
    none of theirs, is known to be a mistake. The command line is checked before; see
    :mod:`~drsow_plugin.harness.command`.
    """
    theirs = {*OPTIONS, "data_sha256"}
    for name in metadata:
        ours = name.startswith("data_") or name.endswith("_column")
        near = difflib.get_close_matches(name, valid, n=1, cutoff=0.8)
        if name not in valid and name not in theirs and (ours or near):
            raise DataError(unknown_name("name in --metadata", name, valid))
    return {_OF_DATA[k]: str(v) for k, v in metadata.items() if k in _OF_DATA and v is not None}


def require_columns(data: datasets.Dataset, columns: Sequence[str], name: str, advice: str) -> None:
    """Check that a data set has these columns.

    Args:
        data: The data set.
        columns: What it must have.
        name: What errors call it.
        advice: What to do where it has not, as a sentence.

    Raises:
        DataError: One is missing.
    """
    missing = [column for column in columns if column not in data.column_names]
    if missing:
        raise DataError(
            f"{name} has no column {', '.join(map(repr, missing))}; it has "
            f"{', '.join(map(repr, data.column_names))}. {advice}"
        )


def normalised(
    data: datasets.Dataset,
    name: str,
    columns: Mapping[str, str] | None = None,
    domain: str | None = None,
) -> datasets.Dataset:
    """Return rows of prompt (messages), chosen and rejected (texts), subset, id and domain.

    Args:
        data: Pairs in any shape that TRL defines.
        name: What errors and warnings call the data.
        columns: The names of the columns in the data, where they are others.
        domain: The label of every prompt; else that of the data.

    Raises:
        DataError: A row is no pair.
    """
    names = {column: (columns or {}).get(column, column) for column in (*COLUMNS, "domain")}
    kept = {"subset": "subset", "id": "id", "domain": names["domain"]}
    kept = {name: column for name, column in kept.items() if column in data.column_names}

    def one(row: dict[str, Any], index: int) -> dict[str, Any]:
        values = {column: row[names[column]] for column in COLUMNS if names[column] in row}
        preference = as_preference(values, f"{name}, row {index}")
        return {
            "prompt": [dict(message) for message in preference.prompt],
            "chosen": preference.chosen,
            "rejected": preference.rejected,
            **{name: row[column] for name, column in kept.items()},
            **({"domain": domain} if domain else {}),
        }

    rows = [one(row, index) for index, row in enumerate(data)]
    _warn_of_unscored(data, name, [names["chosen"], names["rejected"]])
    return datasets.Dataset.from_list(rows)


def texts(value: object, where: str, least: int = 2) -> list[str]:
    """Return responses to one prompt as texts.

    Args:
        value: A list of texts, or of assistant messages.
        where: How to name it in an error.
        least: How many there must be.

    Raises:
        DataError: It is not.
    """
    value = listed(value)
    if not isinstance(value, list) or len(value) < least:
        got = f"{len(value)}" if isinstance(value, list) else repr(value)
        raise DataError(f"{where}: a list of at least {least} responses is needed, got {got:.80}.")
    found = []
    for index, response in enumerate(value):
        place = f"{where}, response {index}"
        response = [response] if isinstance(response, Mapping) else response
        if not isinstance(response, str | list):
            raise DataError(f"{place}: a response is a text, got {response!r:.80}.")
        found.append(response_text(response, place))
        check_text(found[-1], place)
    return found


def candidates(row: Mapping[str, Any], where: str, domain: str) -> dict[str, Any]:
    """Return a published row of a prompt, ``chosen`` and ``rejected`` texts as candidates.

    Args:
        row: Has ``prompt``, and a list of texts each in ``chosen`` and ``rejected``.
        where: How to name it in an error.
        domain: The label of its prompt.

    Raises:
        DataError: A value is missing, or no list of texts.
    """
    correct = texts(row["chosen"], f"{where}, chosen", least=1)
    return {
        "prompt": [dict(message) for message in as_messages(row["prompt"], where)],
        "responses": [*correct, *texts(row["rejected"], f"{where}, rejected", least=1)],
        "num_correct": len(correct),
        "id": row["id"],
        "domain": domain,
    }


def check_subset(subset: object, valid: Collection[str], where: str, benchmark: str) -> None:
    """Check that a row's subset is one of a benchmark's.

    Raises:
        DataError: It is not, so the file is of another version or another benchmark.
    """
    if not isinstance(subset, str) or subset not in valid:
        raise DataError(
            f"{where}: {subset!r:.80} is no subset of {benchmark}, which has "
            f"{', '.join(valid)}. Give a copy of the published version."
        )


def placeholder() -> datasets.Dataset:
    """Return a row that counts for nothing, for each process of a data-parallel launch.

    lm-eval cannot run a group with an empty task.
    """
    row = {
        "prompt": [{"role": "user", "content": NO_ROWS}],
        "chosen": NO_ROWS,
        "rejected": NO_ROWS,
        "subset": NO_ROWS,
        "id": -1,
        "domain": None,
    }
    return datasets.Dataset.from_list([row] * int(os.environ.get("WORLD_SIZE", "1")))


def _warn_of_unscored(data: datasets.Dataset, name: str, responses: list[str]) -> None:
    """Say what of the responses is not scored."""
    notes = [[note for side in responses for note in unscored(row[side])] for row in data]
    flat = [note for of_row in notes for note in of_row]
    if flat:
        logger.warning("%s: in %d of %d rows %s", name, sum(map(bool, notes)), len(data), flat[0])
