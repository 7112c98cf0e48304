"""Replaces an output on disk: rows, the report on them and what goes with it, all of one run.

The report is the manifest: it names the files with their hashes, and comes last. While files
are exchanged a marker stands there that names those of before and of after. So a run that is
killed at any moment leaves either the former output, or one that says that it is not whole;
the same command makes it so. Names of files that are read from there are never trusted: what
is removed has a name of ours, and is in the output itself.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from drsow_plugin.cache import storage_errors
from drsow_plugin.errors import ConfigError, DataError
from drsow_plugin.hashing import sha256_of

REPORT, OPTIONS = "report.json", "drsow.yaml"
PICTURES = ("margins.png", "lengths.png")
PAGE = "report.html"
DRAWN = ("margins.svg", "lengths.svg", "calibration.svg", "by-domain.svg", "by-group.svg")
"""The pictures of the page."""
ROWS = "rows"
"""What the rows of an output that is a file are called in the report."""
MANIFEST = "output"
"""Where the report says which files belong to it."""
_FILES = (".parquet", ".jsonl")  # how the name of an output ends that is a file
_PART = re.compile(r"data/[^/\\]+-\d{5}-of-\d{5}\.parquet")
_SOURCE = "source"
_ADVICE = "Scores are kept: make room, or give another OUTPUT, and run again."
_OURS = (REPORT, OPTIONS, *PICTURES, PAGE, *DRAWN)
Write = Callable[[str], Any]
"""Writes a file of the name that it is given."""


@dataclass(frozen=True)
class Place:
    """A folder, or a file of rows with the rest beside it.

    Attributes:
        path: The folder or the file, as an absolute path.
        is_file: Whether it is a file.
    """

    path: Path
    is_file: bool

    @classmethod
    def of(cls, path: Path) -> Place:
        """Return the output of a name: ``.parquet`` and ``.jsonl`` are files."""
        return cls(path.absolute(), path.suffix in _FILES)

    def at(self, name: str) -> Path:
        """Return where a file of the output is; the rows of a file are named ``rows``."""
        if not self.is_file:
            return self.path / name
        return self.path if name == ROWS else self.path.with_name(f"{self.path.name}.{name}")

    def check(self) -> None:
        """Check that nothing is there that was not written as an output.

        Raises:
            ConfigError: Something is.
        """
        if self.is_file:
            if self.path.exists() and not self._is_ours():
                raise ConfigError(
                    f"OUTPUT {str(self.path)!r} is there already, and 'drsow annotate' did not "
                    "write it. Give another name, or remove it."
                )
            return
        if not self.path.is_dir():
            return
        hidden = {self._hidden(name).name for name in ("lock", "writing", "unfinished")}
        if {path.name for path in self.path.iterdir()} - hidden and not self._is_ours():
            raise ConfigError(
                f"The folder {str(self.path)!r} holds other things. Give a new or empty folder, or "
                "one that 'drsow annotate' wrote."
            )
        self._check_parts()

    def _check_parts(self) -> None:
        """Check that ``load_dataset`` would read no file that is not ours."""
        if (self.path / "data").is_symlink():
            raise ConfigError(
                f"{self.path / 'data'} is a link, and nothing is written or removed through one. "
                "Give the folder that it leads to a place of its own as OUTPUT."
            )
        parts = (f"data/{path.name}" for path in (self.path / "data").glob("*.parquet"))
        strange = sorted(filter(_PART.fullmatch, set(parts) - self._names()))
        if strange:
            raise ConfigError(
                f"The folder {str(self.path)!r} holds {strange[0]}, which {REPORT} does not name: "
                "it would be read as rows of this output. Remove it, or give another OUTPUT."
            )

    @contextmanager
    def reserved(self, source: str) -> Iterator[Path]:
        """Keep other runs out, and yield a folder for what is not whole yet.

        What a killed run left unfinished is removed.

        Args:
            source: Hash of what the rows come from.

        Raises:
            ConfigError: Another run is writing there, something else is there, or the output
                of other rows.
            StorageError: Nothing can be written there.
        """
        with storage_errors(f"OUTPUT {str(self.path)!r} cannot be written", "Give another OUTPUT."):
            (self.path.parent if self.is_file else self.path).mkdir(parents=True, exist_ok=True)
            lock = FileLock(self._hidden("lock"), timeout=0)
            try:
                lock.acquire()
            except Timeout:
                raise ConfigError(
                    f"Another run is writing to OUTPUT {str(self.path)!r}. Wait until it is done, "
                    "or give another OUTPUT."
                ) from None
        try:
            self.check()
            self._check_source(source)
            with self._writing(source) as folder:
                yield folder
        finally:
            Path(lock.lock_file).unlink(missing_ok=True)  # before it is free for others
            lock.release()

    @contextmanager
    def _writing(self, source: str) -> Iterator[Path]:
        folder = self._hidden("writing")
        with storage_errors(f"OUTPUT {str(self.path)!r} cannot be written", "Give another OUTPUT."):
            if folder.is_dir():
                shutil.rmtree(folder)
            folder.mkdir()
        try:
            with storage_errors(f"OUTPUT {str(self.path)!r} cannot be written", _ADVICE):
                (folder / _SOURCE).write_text(source, encoding="utf-8")
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _check_source(self, source: str) -> None:
        manifest = self._manifest()
        if manifest and manifest[MANIFEST].get("source", source) != source:
            name = f", {manifest['input']}" if manifest.get("input") else ""
            raise ConfigError(
                f"OUTPUT {str(self.path)!r} holds the labels of another input{name}. Give another "
                "OUTPUT, or remove it first."
            )

    def write(
        self, folder: Path, files: Mapping[str, Write], report: Callable[[Mapping[str, Any]], bytes]
    ) -> None:
        """Write all files, then put them in the place of the former ones.

        Args:
            folder: What :meth:`reserved` gave.
            files: What writes each file, by its name in the output, without the report.
            report: Returns the report, given what it is to say of the files.

        Raises:
            StorageError: There is no room, or a file cannot be written. Until all of them are
                written the former output stays as it is.
        """
        with storage_errors(f"OUTPUT {str(self.path)!r} cannot be written", _ADVICE):
            hashes = {}
            for number, (name, write) in enumerate(files.items()):
                temporary = folder / f"{number}{Path(name).suffix}"
                write(str(temporary))
                hashes[name] = sha256_of(temporary)
            source = (folder / _SOURCE).read_text(encoding="utf-8")
            (folder / REPORT).write_bytes(report({"source": source, "files": hashes}))
            self._exchange(folder, list(files))

    def _exchange(self, folder: Path, names: list[str]) -> None:
        former = self._names()
        marker = self._hidden("unfinished")
        listed = json.dumps({"files": sorted({*former, *names})})
        (folder / "marker").write_text(listed, encoding="utf-8")
        (folder / "marker").replace(marker)
        for name in [REPORT, *sorted(former)]:  # first what says that the rest is whole
            self.at(name).unlink(missing_ok=True)
        for number, name in enumerate(names):
            self.at(name).parent.mkdir(exist_ok=True)
            (folder / f"{number}{Path(name).suffix}").replace(self.at(name))
        (folder / REPORT).replace(self.at(REPORT))
        marker.unlink()

    def check_whole(self) -> None:
        """Check that a finished output is as it was written.

        Raises:
            DataError: It is not finished, or a file was changed since.
        """
        if self._hidden("unfinished").exists():
            raise DataError(
                f"{self.path} is not whole: a run that wrote it was ended. Run the same "
                "command again."
            )
        for name, sha256 in ((self._manifest() or {}).get(MANIFEST) or {}).get("files", {}).items():
            path = self.at(name)
            if self._may_be_ours(name) and not (path.is_file() and sha256_of(path) == sha256):
                raise DataError(
                    f"{path} is missing or was changed since its report was written, which would "
                    "say what is not so. Run the same command again, or publish the rows in "
                    "Python, with a report of yours."
                )

    @property
    def source(self) -> str | None:
        """What :meth:`reserved` was given when a finished output was written, if one is there."""
        manifest = (self._manifest() or {}).get(MANIFEST) or {}
        return str(manifest["source"]) if "source" in manifest else None

    def _is_ours(self) -> bool:
        return self._hidden("unfinished").is_file() or self._manifest() is not None

    def _manifest(self) -> dict[str, Any] | None:
        """Return the report that is there, if it is one of an output."""
        report = _read(self.at(REPORT))
        return report if isinstance(report.get(MANIFEST), dict) else None

    def _names(self) -> set[str]:
        """Return the names of the files that the report, or a killed run, says are there."""
        names: set[str] = set()
        for manifest in ((self._manifest() or {}).get(MANIFEST), _read(self._hidden("unfinished"))):
            with suppress(AttributeError, TypeError):
                names |= set((manifest or {}).get("files") or ())
        return {name for name in names if self._may_be_ours(name)}

    def _may_be_ours(self, name: object) -> bool:
        if not isinstance(name, str):
            return False
        if self.is_file:
            return name in (ROWS, *_OURS)
        return name in _OURS or _PART.fullmatch(name) is not None

    def _hidden(self, name: str) -> Path:
        if self.is_file:
            return self.path.with_name(f".{self.path.name}.{name}")
        return self.path / f".drsow-{name}"


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
