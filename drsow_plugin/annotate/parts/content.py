"""A hash of the rows of a data set: the same for the same rows, however they lie in memory."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


class ContentHash:
    """Running SHA-256 of tables: of the names of their columns and of all values.

    Which values are hashed together depends on how the rows are parted into tables, not on how
    Arrow parts them into chunks, what it pads them with, or whether they are a part of others.
    """

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()

    def add(self, table: pa.Table) -> None:
        """Add rows."""
        for name in table.column_names:
            self._text(name)
            self._array(table.column(name).combine_chunks())

    def hexdigest(self) -> str:
        """Return the hash so far."""
        return self._sha256.hexdigest()

    def _text(self, text: str) -> None:
        self._sha256.update(f"{len(text)}:{text}".encode())

    def _numbers(self, values: Any) -> None:
        self._sha256.update(np.ascontiguousarray(values).tobytes())

    def _array(self, array: Any) -> None:
        if isinstance(array, pa.ExtensionArray):
            array = array.storage
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        kind = array.type
        self._text(f"{kind} {len(array)}")
        self._numbers(array.is_valid().to_numpy(zero_copy_only=False))
        if pa.types.is_struct(kind):
            for child in array.flatten():
                self._array(child)
        elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
            self._numbers(_plain(pc.list_value_length(array)))
            self._array(array.flatten())
        elif any(is_of(kind) for is_of in _OF_BYTES):
            whole = array.drop_null().cast(pa.large_binary())
            self._numbers(_plain(pc.binary_length(whole)))
            self._sha256.update(_bytes_of(whole))
        elif any(is_of(kind) for is_of in _OF_NUMBERS):
            self._numbers(_plain(array))
        else:
            self._text(json.dumps(array.to_pylist(), default=repr))


_OF_BYTES = (
    *(pa.types.is_string, pa.types.is_large_string),
    *(pa.types.is_binary, pa.types.is_large_binary),
)
_OF_NUMBERS = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean)


def _plain(array: Any) -> Any:
    return array.drop_null().to_numpy(zero_copy_only=False)


def _bytes_of(array: Any) -> Any:
    """Return the bytes of texts one after the other; their array may be a part of another."""
    _, ends, data = array.buffers()
    if data is None or not len(array):
        return b""
    places = np.frombuffer(ends, dtype=np.int64)[array.offset : array.offset + len(array) + 1]
    return memoryview(data)[places[0] : places[-1]]
