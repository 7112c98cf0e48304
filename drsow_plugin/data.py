"""Loads data sets: files, saved folders, or the Hub, with errors that say what to do."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drsow_plugin.errors import DataError, HubError

if TYPE_CHECKING:
    import datasets

READERS = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".csv": "csv"}


def load_data(names: Sequence[str], **options: Any) -> datasets.Dataset | datasets.DatasetDict:
    """Load one data set.

    Args:
        names: One Hub id, saved data set or folder, or files of one format (parquet, jsonl,
            json, csv, also with ``.gz``).
        **options: ``split``, ``name`` and ``revision`` of a Hub data set.

    Returns:
        A data set; all of its splits where there are several and none was named.

    Raises:
        DataError: It cannot be read, or is empty.
        HubError: The Hub does not have it or cannot be reached.
    """
    import datasets

    options = {key: value for key, value in options.items() if value is not None}
    paths = [Path(name).expanduser() for name in names]
    if not all(path.is_file() for path in paths):
        if len(names) > 1:
            missing = [str(p) for p in paths if not p.is_file()]
            raise DataError(f"Several inputs have to be files; these are not: {missing}.")
        loaded = _load_folder_or_hub(paths[0], names[0], options)
    else:
        loaded = _load_files(paths, options)
    if isinstance(loaded, datasets.DatasetDict):
        split = options.get("split")
        if split is not None and split not in loaded:
            raise DataError(
                f"{names[0]} has no split {split!r}, only {', '.join(sorted(loaded))}. Name one of "
                "them, or none for all."
            )
        if split is not None or len(loaded) == 1:
            loaded = loaded[split or next(iter(loaded))]
    if not isinstance(loaded, datasets.DatasetDict) and len(loaded) == 0:
        raise DataError(f"{', '.join(names)} is empty. Give a data set with at least one row.")
    return loaded


def _load_folder_or_hub(
    path: Path, name: str, options: dict[str, Any]
) -> datasets.Dataset | datasets.DatasetDict:
    import datasets

    if path.is_dir() and any((path / n).is_file() for n in ("state.json", "dataset_dict.json")):
        loaded: datasets.Dataset | datasets.DatasetDict = datasets.load_from_disk(str(path))
        single = not isinstance(loaded, datasets.DatasetDict)
        refused = [n for n in ("name", "revision", *["split"] * single) if n in options]
        if refused:
            raise DataError(
                f"{name} is a saved data set, where {' and '.join(refused)} says nothing. Leave "
                "it out."
            )
        return loaded
    if not path.is_dir() and _looks_like_a_file(name):
        raise DataError(f"{name}: there is no such file. Check the path.")
    try:
        found: datasets.Dataset | datasets.DatasetDict = datasets.load_dataset(
            str(path) if path.is_dir() else name, **options
        )
        return found
    except (ConnectionError, FileNotFoundError, OSError) as error:
        raise HubError(
            f"The data set {name!r} is neither a file here nor could it be loaded from the Hub: "
            f"{str(error).splitlines()[0]} Check the name and the network, or give a local copy."
        ) from error
    except ValueError as error:
        raise DataError(f"{name}: {str(error).splitlines()[0]}") from error


def _looks_like_a_file(name: str) -> bool:
    return Path(name).suffix in (*READERS, ".gz") or name.startswith(("/", ".", "~")) or " " in name


def _load_files(paths: Sequence[Path], options: dict[str, Any]) -> datasets.Dataset:
    import datasets

    label = ", ".join(map(str, paths))
    if options.get("split") is not None:
        raise DataError(
            f"{label} is a single file, which has no split {options['split']!r}. Leave the split "
            "out, or give a folder or a Hub id."
        )
    readers = {_reader(path) for path in paths}
    if len(readers) > 1:
        raise DataError(f"The inputs have to be of one format, got {', '.join(sorted(readers))}.")
    reader = readers.pop()
    try:
        for path in paths:
            if _is_blank(path):
                raise DataError(f"{path} is empty. Give a data set with at least one row.")
        loaded: datasets.Dataset = datasets.load_dataset(
            reader, data_files={"train": [str(path) for path in paths]}, split="train"
        )
        return loaded
    except (datasets.exceptions.DatasetGenerationError, ValueError, OSError) as error:
        cause = error.__cause__ or error
        raise DataError(
            f"{label} cannot be read as {reader}: {str(cause).splitlines()[0]}"
        ) from error


def _reader(path: Path) -> str:
    suffix = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    reader = READERS.get(suffix)
    if reader is None:
        raise DataError(
            f"{path}: cannot tell the format from the ending {suffix!r}. Valid: "
            f"{', '.join(sorted(READERS))} (also with .gz), or the folder of a saved data set."
        )
    return reader


def _is_blank(path: Path) -> bool:
    """Tell whether a text file holds nothing but white space."""
    if path.suffix == ".parquet":
        return False
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rb") as file:
        return not file.read(1 << 16).strip()
