"""Loads data sets: files, saved folders, or the Hub, with errors that say what to do."""

from __future__ import annotations

import contextlib
import glob
import os
import re
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drsow_plugin.data.broken import first_fault, first_line, is_blank, suffix_of
from drsow_plugin.data.cells import column_names, parse_cells
from drsow_plugin.errors import DataError, HubError
from drsow_plugin.hub import require_data

if TYPE_CHECKING:
    import datasets

READERS: dict[str, tuple[str, dict[str, Any]]] = {
    ".parquet": ("parquet", {}),
    ".jsonl": ("json", {}),
    ".json": ("json", {}),
    ".csv": ("csv", {}),
    ".tsv": ("csv", {"sep": "\t"}),
}
"""By a file's ending: the reader of ``datasets``, and its options."""

_SPLIT_NAME = re.compile(r"\w+(\.\w+)*")


def load_data(names: Sequence[str], **options: Any) -> datasets.Dataset | datasets.DatasetDict:
    """Load one data set.

    Args:
        names: One Hub id, saved data set or folder, or files of one format (parquet, jsonl,
            json, csv, tsv, also with ``.gz``). A name is that of one file, whatever signs are
            in it: never a pattern.
        **options: ``split``, ``name`` and ``revision`` of a Hub data set.

    Returns:
        A data set; all of its splits where there are several and none was named.

    Raises:
        DataError: It cannot be read, or is empty, or an option says nothing about it.
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
        files = _files_in(paths[0])
    else:
        loaded, files = _load_files(paths, options), paths
    if isinstance(loaded, datasets.DatasetDict):
        loaded = _one_split(loaded, options.get("split"), names[0])
    splits = dict(loaded) if isinstance(loaded, datasets.DatasetDict) else {"": loaded}
    if sum(map(len, splits.values())) == 0:
        raise DataError(f"{', '.join(names)} is empty. Give a data set with at least one row.")
    for name, split in splits.items():
        _check_unicode(split, files, ", ".join(names))
        if split.info.builder_name == "csv":
            splits[name] = parse_cells(split)
    return datasets.DatasetDict(splits) if isinstance(loaded, Mapping) else splits[""]


def first_rows(
    data: datasets.Dataset | datasets.DatasetDict, limit: int | None
) -> datasets.Dataset | datasets.DatasetDict:
    """Return at most so many rows of a data set, or of each of its splits; all for ``None``."""
    import datasets

    if limit is None:
        return data
    if isinstance(data, datasets.DatasetDict):
        return datasets.DatasetDict({k: first_rows(split, limit) for k, split in data.items()})
    return data.select(range(min(limit, len(data))))


def check_split_name(name: str) -> None:
    """Check that a split may be called so, before any work is done.

    Raises:
        DataError: ``datasets`` could not write it.
    """
    if not _SPLIT_NAME.fullmatch(name):
        raise DataError(
            f"The split name {name!r} cannot be written: it may hold letters, digits, '_' and "
            "'.'. Rename the split."
        )


def _one_split(
    loaded: datasets.DatasetDict, split: str | None, name: str
) -> datasets.Dataset | datasets.DatasetDict:
    if split is not None and split not in loaded:
        raise DataError(
            f"{name} has no split {split!r}, only {', '.join(sorted(loaded))}. Name one of "
            "them, or none for all."
        )
    if split is None and len(loaded) > 1:
        return loaded
    chosen = split or next(iter(loaded))
    return named_split(loaded[chosen], chosen)


def named_split(data: datasets.Dataset, name: str) -> datasets.Dataset:
    """Return a data set that knows which split it is; saved ones and single files do not."""
    import datasets

    named = datasets.Dataset(
        *(data.data, data.info.copy(), datasets.NamedSplit(name)), data._indices, data._fingerprint
    )
    return named.with_format(**data.format) if data.format["type"] else named


def _load_folder_or_hub(
    path: Path, name: str, options: dict[str, Any]
) -> datasets.Dataset | datasets.DatasetDict:
    import datasets

    if path.is_dir() and any((path / n).is_file() for n in ("state.json", "dataset_dict.json")):
        return _load_saved(path, name, options)
    if not path.is_dir() and _looks_like_a_file(name):
        raise DataError(f"{name}: there is no such file. Check the path.")
    if not path.is_dir():
        require_data(name)
    if path.absolute().parent == path.absolute():
        raise DataError(f"{name} is the root of the file system. Give a folder of data files.")
    try:
        with _plain_name(path) as folder:
            found: datasets.Dataset | datasets.DatasetDict = datasets.load_dataset(
                str(folder) if path.is_dir() else name, **options
            )
        return found
    except (datasets.exceptions.DatasetGenerationError, EOFError, zlib.error) as error:
        fault = first_fault(_files_in(path), _load_one)
        said = first_line(error.__cause__ or error)
        raise DataError(fault or f"{name} cannot be read: {said}") from error
    except OSError as error:
        if path.is_dir():
            raise DataError(f"{name} cannot be read: {first_line(error)}") from error
        raise HubError(
            f"The data set {name!r} is neither a file here nor could it be loaded from the Hub: "
            f"{first_line(error)} Check the name and the network, or give a local copy."
        ) from error
    except ValueError as error:
        fault = first_fault(_files_in(path), _load_one)
        raise DataError(fault or f"{name}: {first_line(error)}") from error


def _load_saved(
    path: Path, name: str, options: dict[str, Any]
) -> datasets.Dataset | datasets.DatasetDict:
    import datasets

    try:
        loaded: datasets.Dataset | datasets.DatasetDict = datasets.load_from_disk(str(path))
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"{name} is a saved data set that cannot be read: {first_line(error)}"
        ) from error
    single = not isinstance(loaded, datasets.DatasetDict)
    refused = [n for n in ("name", "revision", *["split"] * single) if n in options]
    if refused:
        raise DataError(
            f"{name} is a saved data set, where {' and '.join(refused)} says nothing. Leave it out."
        )
    return loaded


@contextlib.contextmanager
def _plain_name(path: Path) -> Iterator[Path]:
    """Give a folder whose path ``datasets`` would take for a pattern another one, of links."""
    real = path.resolve() if path.is_dir() else path
    if not path.is_dir() or (glob.escape(str(real)) == str(real) and "::" not in str(real)):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / (re.sub(r"\W", "_", path.name) or "data")
        for parent, _, names in os.walk(real):
            target = plain / Path(parent).relative_to(real)
            target.mkdir(parents=True)
            for name in names:
                (target / name).symlink_to(Path(parent) / name)
        yield plain


def _files_in(path: Path) -> list[Path]:
    """Return the files of a folder that hold data, as their endings say."""
    found = sorted(path.rglob("*")) if path.is_dir() else []
    return [file for file in found if file.is_file() and suffix_of(file) in READERS]


def _looks_like_a_file(name: str) -> bool:
    return Path(name).suffix in (*READERS, ".gz") or name.startswith(("/", ".", "~")) or " " in name


def _load_files(paths: Sequence[Path], options: dict[str, Any]) -> datasets.Dataset:
    import datasets

    label = ", ".join(map(str, paths))
    _check_files(paths, options, label)
    reader = _reader(paths[0])[0]
    try:
        for path in paths:
            if is_blank(path):
                raise DataError(f"{path} is empty. Give a data set with at least one row.")
        return _load(paths)
    except (
        *(datasets.exceptions.DatasetGenerationError, ValueError),
        *(OSError, EOFError, zlib.error),
    ) as error:
        said = first_line(error.__cause__ or error)
        fault = first_fault(paths, _load_one)
        raise DataError(fault or f"{label} cannot be read as {reader}: {said}") from error


def _check_files(paths: Sequence[Path], options: dict[str, Any], label: str) -> None:
    """Check that files can be read together, and that no option says nothing about them."""
    if options.get("split") is not None:
        raise DataError(
            f"{label} is a single file, which has no split {options['split']!r}. Leave the split "
            "out, or give a folder or a Hub id."
        )
    for name in ("name", "revision"):
        if name in options:
            raise DataError(
                f"{label} is a file, where data_{name}={options[name]} says nothing. Leave it out."
            )
    for path in paths:
        if "::" in str(path.absolute()):
            raise DataError(f"{path}: a path with '::' cannot be read. Rename it.")
    formats = {suffix: _reader(Path(f"x{suffix}")) for suffix in sorted(set(map(_suffix, paths)))}
    if any(one != next(iter(formats.values())) for one in formats.values()):
        raise DataError(f"The inputs have to be of one format, got {', '.join(formats)}.")


def _load(paths: Sequence[Path], **options: Any) -> datasets.Dataset:
    import datasets

    reader, how = _reader(paths[0])
    # Names are taken for patterns unless their signs are escaped.
    names = [glob.escape(str(path)) for path in paths]
    if reader == "csv":
        columns = column_names(paths[0], how.get("sep", ","))
        texts = datasets.Features({name: datasets.Value("string") for name in columns})
        how = {**how, "features": texts, "keep_default_na": False}
    loaded: datasets.Dataset = datasets.load_dataset(
        reader, data_files={"train": names}, split="train", **how, **options
    )
    return loaded


def _load_one(path: Path, folder: str) -> datasets.Dataset:
    return _load([path], cache_dir=folder)


def _suffix(path: Path) -> str:
    _reader(path)
    return suffix_of(path)


def _reader(path: Path) -> tuple[str, dict[str, Any]]:
    suffix = suffix_of(path)
    reader = READERS.get(suffix)
    if reader is None:
        raise DataError(
            f"{path}: cannot tell the format from the ending {suffix!r}. Valid: "
            f"{', '.join(sorted(READERS))} (also with .gz), or the folder of a saved data set."
        )
    return reader


def _check_unicode(data: datasets.Dataset, files: Sequence[Path], label: str) -> None:
    """Check that all texts are valid UTF-8, which JSON and parquet files are not checked for."""
    import pyarrow as pa

    try:
        data.data.validate(full=True)
    except pa.ArrowInvalid as error:
        fault = first_fault(files, lambda path, folder: _check_rows(_load_one(path, folder), ""))
        if fault is None:
            _check_rows(data, f"{label}, ")
        raise DataError(fault or f"{label}: {first_line(error)}") from error


def _check_rows(data: datasets.Dataset, where: str) -> None:
    for index in range(len(data)):
        try:
            data.data.slice(index, 1).to_pylist()
        except UnicodeDecodeError as error:
            raise DataError(f"{where}row {index}: {error}. Give texts in UTF-8.") from None
