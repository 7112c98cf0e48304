"""The rows that score and route read: lines of text, or whatever annotate reads."""

from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from drsow_plugin.data.broken import open_text, suffix_of
from drsow_plugin.errors import DataError, DrSoWError
from drsow_plugin.printable import finite

if TYPE_CHECKING:
    from datasets import Dataset

F = TypeVar("F", bound=Callable[..., Any])

DATA = ("data_split", "data_name", "data_revision")
_TABLES = (".parquet", ".csv", ".tsv", ".json")


def data_options(command: F) -> F:
    """Add the options of a data set that is read to a command."""
    for option, text in (
        ("--data-revision", "Branch, tag or commit of a Hub data set."),
        ("--data-name", "Configuration of a Hub data set."),
        ("--data-split", "Split of a Hub data set or folder. [all of them]"),
    ):
        command = click.option(option, help=text)(command)
    return command


def load_rows(names: Sequence[str], options: Mapping[str, Any], limit: int | None) -> Dataset:
    """Load a data set of one split.

    Args:
        names: What :func:`~drsow_plugin.data.loading.load_data` takes.
        options: Of these, those of ``DATA`` count.
        limit: Rows that are read, from the first; ``None`` for all.

    Raises:
        DataError: It cannot be read, or has several splits.
    """
    from datasets import DatasetDict

    from drsow_plugin.data.loading import first_rows, load_data

    source = {name.removeprefix("data_"): options.get(name) for name in DATA}
    data = first_rows(load_data(names, **source), limit)
    if isinstance(data, DatasetDict):
        raise DataError(
            f"The data has the splits {', '.join(data)}. Name the one to read with --data-split."
        )
    return data


def read_lines(name: str, options: Mapping[str, Any]) -> Iterator[bytes]:
    """Read lines, one at a time: those of a text, or the rows of a data set as JSON.

    Args:
        name: ``-`` for the standard input, a file of lines, compressed or not, or what
            :func:`~drsow_plugin.data.loading.load_data` takes.
        options: Of these, those of ``DATA`` count.

    Raises:
        DataError: It cannot be read, or an option says nothing about it.
    """
    own = {n: options[n] for n in DATA if options.get(n) is not None}
    path = Path(name).expanduser()
    is_there = path.exists() and not path.is_dir()  # a pipe that has a name, too
    is_text = name == "-" or (is_there and suffix_of(path) not in _TABLES)
    if is_text and own:
        raise DataError(
            f"{name} holds lines, about which --{next(iter(own)).replace('_', '-')} says "
            "nothing. Leave it out."
        )
    if name == "-" and sys.stdin is None:
        raise DataError("The standard input is closed. Give the name of a file, or a pipe.")
    return _of_text(name, path) if is_text else _of_data(name, own)


def write_line(line: str) -> None:
    """Write a line to the standard output.

    Raises:
        DrSoWError: It is closed, or full.
    """
    if sys.stdout is None:
        raise DrSoWError("The standard output is closed. Give it a file or a pipe.")
    try:
        click.echo(line)
    except BrokenPipeError:
        raise  # whoever read it has had enough
    except OSError as error:
        raise DrSoWError(f"The standard output cannot be written: {error.strerror}.") from error


def _of_text(name: str, path: Path) -> Iterator[bytes]:
    try:
        with click.open_file("-", "rb") if name == "-" else open_text(path) as file:
            yield from file
    except (OSError, EOFError, zlib.error) as error:
        message = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{name} cannot be read: {message}") from error


def _of_data(name: str, options: Mapping[str, Any]) -> Iterator[bytes]:
    """Load a data set now, and return its rows as they are asked for, split after split."""
    import datasets

    from drsow_plugin.data.loading import load_data

    loaded = load_data([name], **{n.removeprefix("data_"): v for n, v in options.items()})
    splits = loaded.values() if isinstance(loaded, datasets.DatasetDict) else [loaded]
    return (json.dumps(finite(row), default=str).encode() for split in splits for row in split)
