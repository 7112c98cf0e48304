"""Where ``drsow annotate`` writes to: a folder, a file, or the Hub."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from drsow_plugin.annotate.names import MANIFEST, REPORT, ROWS
from drsow_plugin.annotate.outputs import Place, Write
from drsow_plugin.cache import cache_folder, storage_errors, unfinished
from drsow_plugin.config.parse import parse_flag
from drsow_plugin.errors import ConfigError
from drsow_plugin.printable import finite

if TYPE_CHECKING:
    from drsow_plugin.annotate.report import Report

_FILE_BYTES = 500_000_000  # of one parquet file in a folder


class Output(Protocol):
    """A place for labelled rows and the report on them."""

    @property
    def name(self) -> str:
        """The place, as a configuration file names it."""
        ...

    def check(self, data: Any) -> None:
        """Check, before the work, that rows such as these can be written there."""
        ...

    def reserved(self, source: str) -> AbstractContextManager[Path]:
        """Keep other runs out of it; gives a folder for what is not whole yet."""
        ...

    def write(self, data: Any, report: Report, folder: Path) -> str:
        """Write both, by way of that folder, and return where they are."""
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
    place = Place.of(Path(target).expanduser())
    if place.path.suffix in (".json", ".csv", ".gz", ".arrow"):
        raise ConfigError(f"OUTPUT is a folder, a .parquet or a .jsonl file, got {target!r}.")
    if place.path.is_file() and not place.is_file:
        raise ConfigError(f"OUTPUT {target!r} is a file without .parquet or .jsonl at its end.")
    place.check()
    return _File(place) if place.is_file else _Folder(place)


@dataclass(frozen=True)
class _OnDisk(ABC):
    place: Place

    @property
    def name(self) -> str:
        return str(self.place.path)

    def reserved(self, source: str) -> AbstractContextManager[Path]:
        return self.place.reserved(source)

    def write(self, data: Any, report: Report, folder: Path) -> str:
        files: dict[str, Write] = self.rows(data, report)
        contents = {n: c for n, c in report.files().items() if n != REPORT}
        files |= {name: _to_bytes(content) for name, content in contents.items()}

        def manifest(output: Mapping[str, Any]) -> bytes:
            return report.json(**{MANIFEST: output})

        self.place.write(folder, files, manifest)
        return self.name

    @abstractmethod
    def rows(self, data: Any, report: Report) -> dict[str, Write]:
        """Return what writes each file of rows, by its name."""


class _Folder(_OnDisk):
    def check(self, data: Any) -> None:
        """Take any."""

    def rows(self, data: Any, report: Report) -> dict[str, Write]:
        splits = data if isinstance(data, Mapping) else {_only_split(report): data}
        files: dict[str, Write] = {}
        for name, split in splits.items():
            count = max(1, -(-split.data.nbytes // _FILE_BYTES))
            for index in range(count):
                part = split.shard(count, index, contiguous=True)
                files[f"data/{name}-{index:05d}-of-{count:05d}.parquet"] = part.to_parquet
        return files


class _File(_OnDisk):
    def check(self, data: Any) -> None:
        if isinstance(data, Mapping):
            raise ConfigError(
                f"The data has the splits {', '.join(data)}, and {self.name!r} is a single file. "
                "Name one with --data-split, or give a folder."
            )
        if self.place.path.suffix == ".jsonl":
            _require_json(data.features, self.name)

    def rows(self, data: Any, report: Report) -> dict[str, Write]:
        return {ROWS: data.to_parquet if self.place.path.suffix == ".parquet" else _to_json(data)}


@dataclass(frozen=True)
class _Hub:
    name: str
    options: dict[str, Any]

    def check(self, data: Any) -> None:
        """Take any."""

    @contextmanager
    def reserved(self, source: str) -> Iterator[Path]:
        """Let others in: the Hub itself sees to it."""
        folder = cache_folder()
        with ExitStack() as stack:
            with storage_errors(f"{folder} cannot be written", "Name another with DRSOW_CACHE."):
                made = stack.enter_context(unfinished(folder))
            yield made

    def write(self, data: Any, report: Report, folder: Path) -> str:
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
    return str(next(iter(report.splits)))


def _to_json(data: Any) -> Callable[[str], Any]:
    """Return what writes rows as JSON lines; unlike ``Dataset.to_json`` it rounds no number."""

    def write(path: str) -> None:
        with Path(path).open("w", encoding="utf-8") as file:
            for row in data.with_format(None):
                file.write(json.dumps(finite(row), ensure_ascii=False, default=str) + "\n")

    return write


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
