"""Tables of finished work on disk: each file whole or not there, and damage noticed."""

from __future__ import annotations

import io
import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, ClassVar, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from drsow_plugin.addresses import Address
from drsow_plugin.cache import PAIR, reason, storage_errors, unfinished
from drsow_plugin.errors import DataError, StorageError
from drsow_plugin.hashing import text_sha256
from drsow_plugin.printable import json_line
from drsow_plugin.redaction import without_tokens

T = TypeVar("T")
S = TypeVar("S", bound="TableStore")
_DIGEST = b"drsow.sha256"
_ADVICE = (
    "Make room, or name another folder with DRSOW_CACHE or cache_dir. What is finished is kept."
)
_log = logging.getLogger(__name__)


class TableStore:
    """A folder of tables with one schema, each named by the hash of what it is about.

    A file appears whole or not at all, so that runs may be killed, repeated and share the folder.
    It holds a hash of what is in it; one that does not fit is dropped. The folder may be an
    address, whose files are read and written in one piece.

    Attributes:
        schema: That of every table.
        folder: The folder.
        writing: A folder in it for files that are not whole yet, at an address the folder itself;
            ``None`` where nothing can be written.
        kept: How many tables were found there, or written.
    """

    schema: ClassVar[pa.Schema]

    def __init__(
        self, folder: Path | Address, writing: Path | Address | None, refused: str = ""
    ) -> None:
        """Set out with a folder; :func:`opened` is the way to one.

        Args:
            folder: The folder.
            writing: A folder in it for files that are not whole yet, or ``None``.
            refused: Why nothing can be written, where that is so.
        """
        self.folder = folder
        self.writing = writing
        self.kept = 0
        self._refused = refused

    def describe(self, options: Mapping[str, Any]) -> None:
        """Note, for ``drsow cache``, which models these are the scores of."""
        content = json_line(without_tokens(options))
        if isinstance(self.folder, Address):
            try:
                (self.folder / PAIR).write_bytes(content.encode())
            except OSError as error:
                self.writing, self._refused = None, reason(error)
        elif isinstance(self.writing, Path):
            with suppress(OSError):  # where scores are missing too, it is told then
                temporary = self.writing / PAIR
                temporary.write_text(content, encoding="utf-8")
                temporary.replace(self.folder / PAIR)

    def check_writable(self) -> None:
        """Check, before rows are scored, that what comes of them can be kept.

        Raises:
            StorageError: It cannot.
        """
        if self.writing is None:
            raise StorageError(
                f"Scores cannot be kept in {self.folder}: {self._refused}. {_ADVICE}"
            )

    def load_table(
        self, path: Path | Address, parse: Callable[[list[dict[str, Any]]], T]
    ) -> T | None:
        """Return what a file holds, or ``None`` where it is not there, whole.

        Args:
            path: The file.
            parse: Makes it of the rows; what it raises is damage.

        Raises:
            StorageError: An address cannot be asked whether it is there.
        """
        source = _source(path)
        if source is None:
            return None
        try:
            parsed = parse(self._rows(path, source))
        except Exception as error:  # damaged bytes may make the reader raise anything
            _log.warning("%s is damaged and scored again: %s", path, " ".join(str(error).split()))
            with suppress(OSError):
                path.unlink()
            return None
        self.kept += 1
        return parsed

    def save_table(self, path: Path | Address, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write a file.

        Raises:
            StorageError: There is no room, or it cannot be written.
        """
        self.check_writable()
        table = pa.Table.from_pylist([*rows], self.schema)
        table = table.replace_schema_metadata({_DIGEST: _digest(path, table.to_pylist())})
        with storage_errors(f"Scores cannot be kept in {self.folder}", _ADVICE):
            if isinstance(path, Address):
                written = io.BytesIO()
                _write(table, written)
                path.write_bytes(written.getvalue())
            else:
                handle, temporary = tempfile.mkstemp(dir=str(self.writing))
                with os.fdopen(handle, "wb") as file:
                    _write(table, file)
                    file.flush()
                    os.fsync(file.fileno())
                Path(temporary).replace(path)
        self.kept += 1

    def _rows(self, path: Path | Address, source: Any) -> list[dict[str, Any]]:
        table = pq.read_table(source, page_checksum_verification=True)
        if not table.schema.equals(self.schema):
            raise DataError("its columns are others")
        rows: list[dict[str, Any]] = table.to_pylist()
        if (table.schema.metadata or {}).get(_DIGEST) != _digest(path, rows):
            raise DataError("its hash is another")
        return rows


@contextmanager
def opened(make: Callable[[Any, Any, str], S], folder: Path | Address) -> Iterator[S]:
    """Open, or make, a folder of finished work; where nothing can be written it is only read.

    Args:
        make: Given the folder, the one for unfinished files and why there is none.
        folder: The folder.
    """
    with ExitStack() as stack:
        if isinstance(folder, Address):
            yield make(folder, folder, "")
            return
        try:
            store = make(folder, stack.enter_context(unfinished(folder)), "")
        except OSError as error:
            store = make(folder, None, reason(error))
        yield store


def _write(table: pa.Table, file: IO[bytes]) -> None:
    pq.write_table(table, file, compression="zstd", write_page_checksum=True)


def _source(path: Path | Address) -> Path | io.BytesIO | None:
    """Return what a file is read from, ``None`` where it is not there."""
    if not isinstance(path, Address):
        return path if path.is_file() else None
    with storage_errors(f"{path} cannot be read", "What is finished is kept: run again."):
        try:
            return io.BytesIO(path.read_bytes())
        except FileNotFoundError:
            return None


def _digest(path: Path | Address, rows: list[dict[str, Any]]) -> bytes:
    """Return the hash of some rows and of what they are about."""
    return text_sha256(json.dumps([path.stem, rows])).encode()
