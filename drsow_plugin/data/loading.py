"""Loads data sets: files, saved folders, or the Hub, with errors that say what to do."""

from __future__ import annotations

import contextlib
import copy
import errno
import glob
import os
import re
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import datasets
import pyarrow as pa
from datasets.exceptions import DatasetGenerationError

from drsow_plugin.cache import reason
from drsow_plugin.data.broken import first_fault, first_line, is_blank, suffix_of
from drsow_plugin.data.cells import column_names, parse_cells
from drsow_plugin.errors import DataError, HubError, StorageError
from drsow_plugin.hub import require_data

Data: TypeAlias = datasets.Dataset | datasets.DatasetDict

READERS: dict[str, tuple[str, dict[str, Any]]] = {
    ".parquet": ("parquet", {}),
    ".jsonl": ("json", {}),
    ".json": ("json", {}),
    ".csv": ("csv", {}),
    ".tsv": ("csv", {"sep": "\t"}),
}
"""By a file's ending: the reader of ``datasets``, and its options."""

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_SPLIT_NAME = re.compile(r"\w+(\.\w+)*")


def load_data(names: Sequence[str], **options: Any) -> Data:
    """Load one data set.

    Args:
        names: One Hub id, saved data set or folder, or files of one format (parquet, jsonl,
            json, csv, tsv, also with ``.gz``). A name is that of one file, whatever signs are
            in it: never a pattern.
        **options: ``split``, ``name``, ``data_dir`` and ``revision`` of a Hub data set.

    Returns:
        A data set; all of its splits where there are several and none was named.

    Raises:
        DataError: It cannot be read, or is empty, or an option says nothing about it.
        StorageError: There is no room for what is read.
        HubError: The Hub does not have it or cannot be reached.
    """
    options = {key: value for key, value in options.items() if value is not None}
    label = ", ".join(names)
    paths = [Path(name).expanduser() for name in names]
    others = [str(path) for path in paths if not path.is_file()]
    if others and len(names) > 1:
        raise DataError(f"Several inputs have to be files; these are not: {others}.")
    if not others:
        loaded: Data = _load_files(paths, options)
    elif paths[0].is_dir():
        loaded = _load_folder(paths[0], label, options)
    else:
        loaded = _load_from_hub(label, options)
    if isinstance(loaded, datasets.DatasetDict):
        loaded = _one_split(loaded, options.get("split"), label)
    splits = dict(loaded) if isinstance(loaded, datasets.DatasetDict) else {"": loaded}
    if sum(map(len, splits.values())) == 0:
        raise DataError(f"{label} is empty. Give a data set with at least one row.")
    files = _files_in(paths[0]) if others else paths
    for name, split in splits.items():
        _check_unicode(split, files, label)
        if split.info.builder_name == "csv":
            splits[name] = parse_cells(split)
    return datasets.DatasetDict(splits) if isinstance(loaded, Mapping) else splits[""]


def first_rows(data: Data, limit: int | None) -> Data:
    """Return at most so many rows of a data set, or of each of its splits; all for ``None``."""
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


def _one_split(loaded: datasets.DatasetDict, split: str | None, label: str) -> Data:
    if split is not None and split not in loaded:
        raise DataError(
            f"{label} has no split {split!r}, only {', '.join(sorted(loaded))}. Name one of "
            "them, or none for all."
        )
    if split is None and len(loaded) > 1:
        return loaded
    name = split or next(iter(loaded))
    return named_split(loaded[name], name)


def named_split(data: datasets.Dataset, name: str) -> datasets.Dataset:
    """Return a data set that knows which split it is; saved ones and single files do not."""
    copied = copy.copy(data)
    copied._split = datasets.NamedSplit(name)
    return copied


def check_there(name: str) -> None:
    """Check that a name that can only be that of a file, is.

    Raises:
        DataError: It is not there.
    """
    is_path = Path(name).suffix in (*READERS, ".gz") or name.startswith(("/", ".", "~"))
    if (is_path or " " in name) and not Path(name).expanduser().exists():
        raise DataError(f"{name}: there is no such file. Check the path.")


def _load_from_hub(name: str, options: Mapping[str, Any]) -> Data:
    check_there(name)
    require_data(name)
    with _faults_named((), name):
        try:
            return datasets.load_dataset(name, **options)
        except OSError as error:
            raise HubError(
                f"The data set {name!r} is neither a file here nor could it be loaded from the "
                f"Hub: {first_line(error)} Check the name and the network, or give a local copy."
            ) from error


def _load_folder(path: Path, name: str, options: Mapping[str, Any]) -> Data:
    if any((path / n).is_file() for n in ("state.json", "dataset_dict.json")):
        return _load_saved(path, name, options)
    if path.absolute().parent == path.absolute():
        raise DataError(f"{name} is the root of the file system. Give a folder of data files.")
    with _faults_named(_files_in(path), name), _plain_name(path) as folder:
        return datasets.load_dataset(str(folder), **options)


def _load_saved(path: Path, name: str, options: Mapping[str, Any]) -> Data:
    try:
        loaded: Data = datasets.load_from_disk(str(path))
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"{name} is a saved data set that cannot be read: {first_line(error)}"
        ) from error
    has_splits = isinstance(loaded, datasets.DatasetDict)
    refused = [option for option in options if option != "split" or not has_splits]
    if refused:
        raise DataError(
            f"{name} is a saved data set, where {' and '.join(refused)} says nothing. Leave it out."
        )
    return loaded


@contextlib.contextmanager
def _faults_named(files: Sequence[Path], label: str) -> Iterator[None]:
    """Tell which file cannot be read, and where, in place of what ``datasets`` says."""
    try:
        yield
    except (DatasetGenerationError, ValueError, OSError, EOFError, zlib.error) as error:
        if full := _without_room(error):
            raise StorageError(
                f"{label} cannot be read: {reason(full)}. It is read by way of "
                f"{datasets.config.HF_DATASETS_CACHE} and the folder for temporary files: make "
                "room, or name others with HF_DATASETS_CACHE and TMPDIR."
            ) from error
        fault = first_fault(files, _load_one)
        cause = first_line(error.__cause__ or error)
        raise DataError(fault or f"{label} cannot be read: {cause}") from error


def _without_room(error: BaseException | None) -> OSError | None:
    """Return what says, of an exception or what it came of, that a disk takes nothing more."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            return error
        error = error.__cause__ or error.__context__
    return None


@contextlib.contextmanager
def _plain_name(path: Path) -> Iterator[Path]:
    """Give a folder whose path ``datasets`` would take for a pattern another one, of links."""
    real = path.resolve()
    if glob.escape(str(real)) == str(real) and "::" not in str(real):
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
    return [
        file for file in sorted(path.rglob("*")) if file.is_file() and suffix_of(file) in READERS
    ]


def _load_files(paths: Sequence[Path], options: Mapping[str, Any]) -> datasets.Dataset:
    label = ", ".join(map(str, paths))
    if options:
        names = " and ".join(
            f"data_{name.removeprefix('data_')}={value}" for name, value in options.items()
        )
        raise DataError(
            f"{label} is a file, where {names} says nothing. Leave it out, or give a folder or a "
            "Hub id."
        )
    for path in paths:
        if "::" in str(path.absolute()):
            raise DataError(f"{path}: a path with '::' cannot be read. Rename it.")
    readers = {suffix_of(path): _reader(path) for path in paths}
    if any(reader != _reader(paths[0]) for reader in readers.values()):
        raise DataError(f"The inputs have to be of one format, got {', '.join(sorted(readers))}.")
    with _faults_named(paths, label):
        for path in paths:
            if is_blank(path):
                raise DataError(f"{path} is empty. Give a data set with at least one row.")
        return _load(paths)


def _load(paths: Sequence[Path], **options: Any) -> datasets.Dataset:
    reader, how = _reader(paths[0])
    # Names are taken for patterns unless their signs are escaped.
    names = [glob.escape(str(path)) for path in paths]
    if reader == "csv":
        columns = column_names(paths[0], how.get("sep", ","))
        texts = datasets.Features({name: datasets.Value("string") for name in columns})
        how = {**how, "features": texts, "keep_default_na": False}
    return datasets.load_dataset(
        reader, data_files={"train": names}, split="train", **how, **options
    )


def _load_one(path: Path, folder: str) -> datasets.Dataset:
    return _load([path], cache_dir=folder)


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
