"""Where labelled rows and the report on them are written to: a folder or a file."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from drsow_plugin.annotate.place import MANIFEST, REPORT, ROWS, Place, Write
from drsow_plugin.errors import ConfigError, DataError
from drsow_plugin.printable import finite

if TYPE_CHECKING:
    from datasets import Dataset

_FILE_BYTES = 500_000_000  # of one parquet file in a folder


class _Report(Protocol):
    """What :class:`drsow_plugin.Report` gives of itself to be written beside the rows."""

    @property
    def splits(self) -> Mapping[str, object]: ...
    def files(self) -> dict[str, bytes]: ...
    def json(self, **more: object) -> bytes: ...


def open_output(path: str | Path) -> Output:
    """Find out where to write to, and check it.

    Args:
        path: A folder, or a file whose name ends in ``.parquet`` or ``.jsonl``.

    Raises:
        ConfigError: It cannot be written, or something else is there.
    """
    place = Place.of(Path(path).expanduser())
    if place.path.suffix in (".json", ".csv", ".tsv", ".txt", ".gz", ".arrow"):
        raise ConfigError(f"OUTPUT is a folder, a .parquet or a .jsonl file, got {str(path)!r}.")
    if place.path.is_file() and not place.is_file:
        raise ConfigError(f"OUTPUT {str(path)!r} is a file without .parquet or .jsonl at its end.")
    place.check()
    return _File(place) if place.is_file else _Folder(place)


def splits_of(data: Any, default: str = "train") -> dict[str, Dataset]:
    """Return the splits of labelled rows by name.

    Args:
        data: A ``Dataset`` or a ``DatasetDict``.
        default: Name of a ``Dataset`` that does not know which split it is.

    Raises:
        DataError: It is neither.
    """
    from datasets import Dataset

    parts = data if isinstance(data, Mapping) else {getattr(data, "split", None) or default: data}
    for name, part in parts.items():
        if not isinstance(part, Dataset):
            raise DataError(
                f"Labelled rows are a datasets.Dataset or DatasetDict; split {str(name)!r} is a "
                f"{type(part).__name__}. Load it with datasets first."
            )
    return {str(name): part for name, part in parts.items()}


@dataclass(frozen=True)
class Output(ABC):
    """A place on disk for labelled rows and the report on them."""

    place: Place

    @property
    def name(self) -> str:
        """The place, as an absolute path."""
        return str(self.place.path)

    @property
    def shards(self) -> Path:
        """The folder beside it for shards of what is to be there."""
        return self.place.path.with_name(f"{self.place.path.name}.shards")

    def part(self, name: str) -> Output:
        """Return the place for the shard of a name.

        Raises:
            ConfigError: It cannot be written, or something else is there.
        """
        return open_output(self.shards / name)

    @abstractmethod
    def check(self, data: Any) -> None:
        """Check, before the work, that rows such as these can be written there."""

    def reserved(self, source: str) -> AbstractContextManager[Path]:
        """Keep other runs out of it; gives a folder for what is not whole yet."""
        return self.place.reserved(source)

    def write(self, data: Any, report: _Report, folder: Path) -> str:
        """Write both, by way of that folder, and return where they are."""
        files = self._rows(data, report)
        for name, content in report.files().items():
            if name != REPORT:
                files[name] = partial(_write_bytes, content)
        self.place.write(folder, files, lambda manifest: report.json(**{MANIFEST: manifest}))
        return self.name

    @abstractmethod
    def _rows(self, data: Any, report: _Report) -> dict[str, Write]:
        """Return what writes each file of rows, by its name."""


class _Folder(Output):
    def check(self, data: Any) -> None:
        splits_of(data)

    def _rows(self, data: Any, report: _Report) -> dict[str, Write]:
        files: dict[str, Write] = {}
        for name, split in splits_of(data, next(iter(report.splits))).items():
            count = max(1, -(-split.data.nbytes // _FILE_BYTES))
            for index in range(count):
                part = split.shard(count, index, contiguous=True)
                files[f"data/{name}-{index:05d}-of-{count:05d}.parquet"] = part.to_parquet
        return files


class _File(Output):
    def check(self, data: Any) -> None:
        if isinstance(data, Mapping):
            raise ConfigError(
                f"The data has the splits {', '.join(data)}, and {self.name!r} is a single file. "
                "Give one of them (--data-split), or a folder."
            )
        splits_of(data)
        if self.place.path.suffix == ".jsonl":
            _require_json(data.features, self.name)

    def _rows(self, data: Any, report: _Report) -> dict[str, Write]:
        is_parquet = self.place.path.suffix == ".parquet"
        return {ROWS: data.to_parquet if is_parquet else partial(_write_json, data)}


def _write_bytes(content: bytes, path: str) -> None:
    Path(path).write_bytes(content)


def _write_json(data: Any, path: str) -> None:
    """Write rows as JSON lines; unlike ``Dataset.to_json`` it rounds no number."""
    with Path(path).open("w", encoding="utf-8") as file:
        for row in data.with_format(None):
            file.write(json.dumps(finite(row), ensure_ascii=False, default=str) + "\n")


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
