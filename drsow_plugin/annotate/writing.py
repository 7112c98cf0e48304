"""Writes rows to disk as they come, as a data set that no later run changes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path

import datasets
import pyarrow as pa
from datasets.arrow_writer import ArrowWriter

from drsow_plugin.cache import hold, storage_errors, unfinished
from drsow_plugin.hashing import file_sha256


def write_rows(
    tables: Iterator[pa.Table], features: datasets.Features, split: str, folder: Path
) -> datasets.Dataset:
    """Write labelled rows as they come, and return them as a data set on disk.

    Args:
        tables: The rows.
        features: The types of their columns.
        split: Name of their split.
        folder: Where the file is written.

    Raises:
        StorageError: There is no room, or nothing can be written there.
    """

    def trouble() -> AbstractContextManager[None]:
        return storage_errors(
            f"Labelled rows cannot be written into {folder}",
            "Scores are kept: make room, or name another folder, and run again.",
        )

    with ExitStack() as stack:
        with trouble():
            path = stack.enter_context(unfinished(folder)) / "rows.arrow"
            writer = ArrowWriter(features=features, path=str(path))
            stack.callback(_close, writer)
        for table in tables:
            with trouble():
                writer.write_table(table)
        with trouble():
            writer.finalize()
            # Named by what is in it: a later run never changes a file that a data set reads.
            final = folder / f"{file_sha256(path)[:32]}.arrow"
            path.replace(final)
            hold(final)
    return datasets.Dataset.from_file(str(final), split=datasets.NamedSplit(split))


def _close(writer: ArrowWriter) -> None:
    """Close what was finished, or failed already: then what is left cannot be written either."""
    with suppress(OSError):
        writer.close()
