"""Finds which of several files cannot be read, and where."""

from __future__ import annotations

import gzip
import json
import tempfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

_LINES = (".jsonl",)
_TEXT = (*_LINES, ".json", ".csv", ".tsv")


def suffix_of(path: Path) -> str:
    """Return what tells the format of a file: its ending, without ``.gz``."""
    return path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix


def open_text(path: Path) -> BinaryIO:
    """Open a file, compressed or not, to read bytes."""
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def is_blank(path: Path) -> bool:
    """Tell whether a text file holds nothing but white space.

    Raises:
        OSError: It cannot be read, or is not compressed as its name says.
        EOFError: It ends too early.
        zlib.error: It is damaged.
    """
    if suffix_of(path) not in _TEXT:
        return False
    with open_text(path) as file:
        return not file.read(1 << 16).strip()


def first_fault(paths: Sequence[Path], load: Callable[[Path, str], Any]) -> str | None:
    """Return what is wrong with the first file that cannot be read, or ``None``.

    Args:
        paths: The files.
        load: Loads one of them, given a folder for what is left over.

    Returns:
        One line that names the file, and the line of a text.
    """
    for path in paths:
        fault = _fault_of_text(path) if suffix_of(path) in _TEXT else None
        fault = fault or _fault_of_loading(path, load)
        if fault is not None:
            return f"{path} cannot be read as {suffix_of(path)[1:]}: {fault}"
    return None


def _fault_of_text(path: Path) -> str | None:
    number = 0
    try:
        with open_text(path) as file:
            for line in file:
                number += 1
                line.decode()
                if suffix_of(path) in _LINES and line.strip():
                    json.loads(line)
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        return f"line {number}: not valid UTF-8 (byte 0x{byte:02x}). Save it as UTF-8."
    except ValueError as error:
        return f"line {number}: not JSON: {error}."
    except (EOFError, OSError, zlib.error) as error:
        return f"damaged or cut short after line {number}: {error}."
    return None


def _fault_of_loading(path: Path, load: Callable[[Path, str], Any]) -> str | None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            load(path, folder)
        except Exception as error:  # whatever a reader trips over
            return first_line(error.__cause__ or error)
    return None


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, or its name where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
