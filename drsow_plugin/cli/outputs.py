"""Where ``drsow annotate`` writes to: a folder, a file, or the Hub."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from drsow_plugin.annotate.names import OPTIONS, PICTURES, REPORT
from drsow_plugin.errors import ConfigError
from drsow_plugin.values import parse_flag

if TYPE_CHECKING:
    from drsow_plugin.annotate.report import Report

_FILE_BYTES = 500_000_000  # of one parquet file in a folder
_OURS = re.compile(r"\w+-\d{5}-of-\d{5}\.parquet")


class Output(Protocol):
    """A place for labelled rows and the report on them."""

    @property
    def name(self) -> str:
        """The place, as a configuration file names it."""
        ...

    def check(self, data: Any) -> None:
        """Check, before the work, that rows such as these can be written there."""
        ...

    def write(self, data: Any, report: Report) -> str:
        """Write both and return where they are."""
        ...


def open_output(target: str, *, push: bool, options: Mapping[str, Any]) -> Output:
    """Find out where to write to, and check it before any work is done.

    Args:
        target: A folder, a file, or a Hub id.
        push: Whether it is a Hub id.
        options: ``public``, ``license``, ``language`` and ``branch``, for the Hub.

    Raises:
        ConfigError: It cannot be written, or something else is there.
        HubError: The Hub would not take it.
    """
    if push:
        return _open_hub(target, options)
    path = Path(target).expanduser().absolute()
    if path.suffix in (".parquet", ".jsonl"):
        return _File(str(path), path)
    if path.suffix in (".json", ".csv", ".gz", ".arrow"):
        raise ConfigError(f"OUTPUT is a folder, a .parquet or a .jsonl file, got {target!r}.")
    if path.is_file():
        raise ConfigError(f"OUTPUT {target!r} is a file without .parquet or .jsonl at its end.")
    if path.is_dir() and any(path.iterdir()) and not (path / OPTIONS).is_file():
        raise ConfigError(
            f"The folder {target!r} holds other things. Give a new or empty folder, or one that "
            "'drsow annotate' wrote."
        )
    return _Folder(str(path), path)


@dataclass(frozen=True)
class _Folder:
    name: str
    path: Path

    def check(self, data: Any) -> None:
        _make(self.path, self.name)

    def write(self, data: Any, report: Report) -> str:
        files = report.files()
        (self.path / REPORT).unlink(missing_ok=True)  # of a former run: it comes back last
        (self.path / OPTIONS).write_bytes(files[OPTIONS])
        folder = self.path / "data"
        folder.mkdir(exist_ok=True)
        splits = data if isinstance(data, Mapping) else {_only_split(report): data}
        written = set()
        for name, split in splits.items():
            count = max(1, -(-split.data.nbytes // _FILE_BYTES))
            for index in range(count):
                part = split.shard(count, index, contiguous=True)
                file = folder / f"{name}-{index:05d}-of-{count:05d}.parquet"
                _replace(file, part.to_parquet)
                written.add(file)
        for stale in set(folder.glob("*.parquet")) - written:
            if _OURS.fullmatch(stale.name):
                stale.unlink()
        for name in set(PICTURES) - set(files):
            (self.path / name).unlink(missing_ok=True)
        for name in sorted(files, key=lambda name: name == REPORT):
            _replace(self.path / name, _to_bytes(files[name]))
        return str(self.path)


@dataclass(frozen=True)
class _File:
    name: str
    path: Path

    def __post_init__(self) -> None:
        if self.path.exists() and not self._beside(REPORT).is_file():
            raise ConfigError(
                f"OUTPUT {self.name!r} is there already, and 'drsow annotate' did not write it. "
                "Give another name, or remove it."
            )

    def check(self, data: Any) -> None:
        if isinstance(data, Mapping):
            raise ConfigError(
                f"The data has the splits {', '.join(data)}, and {self.name!r} is a single file. "
                "Name one with --data-split, or give a folder."
            )
        _make(self.path.parent, self.name)
        if self.path.suffix == ".jsonl":
            _require_json(data.features, self.name)

    def write(self, data: Any, report: Report) -> str:
        write = data.to_parquet if self.path.suffix == ".parquet" else _to_json(data)
        _replace(self.path, write)
        files = report.files()
        for name in set(PICTURES) - set(files):
            self._beside(name).unlink(missing_ok=True)
        for name, content in files.items():
            self._beside(name).write_bytes(content)
        return str(self.path)

    def _beside(self, name: str) -> Path:
        return self.path.with_name(f"{self.path.name}.{name}")


@dataclass(frozen=True)
class _Hub:
    name: str
    options: dict[str, Any]

    def check(self, data: Any) -> None:
        """Take any."""

    def write(self, data: Any, report: Report) -> str:
        from drsow_plugin.publishing.publish import publish

        return publish(data, self.name, report, **self.options)


def _open_hub(target: str, options: Mapping[str, Any]) -> Output:
    from drsow_plugin.publishing.publish import check_target

    private = not parse_flag("public", options.get("public", False))
    kept = {name: options.get(name) for name in ("license", "language")}
    output = _Hub(target, {"private": private, "revision": options.get("branch"), **kept})
    check_target(target, private=private)
    return output


def _only_split(report: Report) -> str:
    return str(next(iter(report.values["splits"])))


def _to_json(data: Any) -> Callable[[str], Any]:
    """Return what writes rows as JSON lines; unlike ``Dataset.to_json`` it rounds no number."""

    def write(path: str) -> None:
        with Path(path).open("w", encoding="utf-8") as file:
            for row in data.with_format(None):
                file.write(json.dumps(_finite(row), ensure_ascii=False, default=str) + "\n")

    return write


def _finite(value: Any) -> Any:
    """Return a value with null for NaN and infinities, which JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, list) else value


def _require_json(features: Mapping[str, Any], target: str) -> None:
    """Check that all columns can be written as JSON: texts, numbers, dates, lists, records."""
    import pyarrow as pa

    for name, feature in features.items():
        stored = feature.pa_type if hasattr(feature, "pa_type") else None
        binary = stored is not None and (pa.types.is_binary(stored) or pa.types.is_struct(stored))
        if binary or str(getattr(feature, "dtype", "")).endswith("binary"):
            raise ConfigError(
                f"The column {name!r} ({feature}) cannot be written as JSON into {target!r}. Give "
                "a folder or a .parquet file, or remove the column."
            )


def _to_bytes(content: bytes) -> Callable[[str], Any]:
    return lambda path: Path(path).write_bytes(content)


def _make(folder: Path, target: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(f"OUTPUT {target!r} cannot be written: {error.strerror}.") from error


def _replace(path: Path, write: Callable[[str], Any]) -> None:
    """Write a file under another name first, so that it is there whole or not at all."""
    with _temporary(path) as temporary:
        write(str(temporary))
        temporary.replace(path)


@contextlib.contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)
