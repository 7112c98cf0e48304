"""Splits a data set of prompts in two, with no prompt in both."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import datasets

from drsow_plugin.cache import storage_errors
from drsow_plugin.data.prompts import check_prompts, read_prompts
from drsow_plugin.errors import ConfigError
from drsow_plugin.hashing import text_sha256
from drsow_plugin.printable import finite

TRAIN, HELD_OUT = "train", "held_out"
LAST = f"{HELD_OUT}.jsonl"
"""The folder gets its name when all is in it: with this file, it is whole."""


@dataclass(frozen=True)
class Split:
    """How many prompts went where.

    Attributes:
        train: Those to train on.
        held_out: Those that are kept for measuring.
        repeats: Those that were left out, as they were there before.
        unreadable: Those that were left out, as they are no prompts.
    """

    train: int
    held_out: int
    repeats: int
    unreadable: int

    def __str__(self) -> str:
        text = f"{self.train:,} prompts to train on, {self.held_out:,} held out"
        left = [(self.repeats, "repeats"), (self.unreadable, "unreadable")]
        said = ", ".join(f"{count:,} {why}" for count, why in left if count)
        return text + (f"; left out: {said}" if said else "")


def split_prompts(
    data: datasets.Dataset, folder: Path, held_out: int, column: str, *, unique: bool
) -> Split:
    """Write ``train.jsonl`` and ``held_out.jsonl``.

    Held out are the prompts with the smallest SHA-256: the same ones whatever the order, and
    mostly the same ones when others come to the data.

    Args:
        data: Rows with prompts.
        folder: Where the files go.
        held_out: How many are held out.
        column: The column with the prompts.
        unique: Whether a prompt that is there before is left out; else that is an error.

    Raises:
        ConfigError: No prompt is left to train on, or there is something in the folder.
        DataError: The column is missing, or prompts repeat.
        StorageError: There is no room.
    """
    check_vacant(folder)
    check_prompts(data, column, "The data", may_repeat=unique)
    keys: dict[str, int] = {}
    repeats = unreadable = 0
    for index, prompt in enumerate(read_prompts(data, column)):
        if prompt.problem is not None:
            unreadable += 1
            continue
        key = text_sha256(prompt.content)
        repeats += key in keys
        keys.setdefault(key, index)
    if len(keys) <= held_out:
        raise ConfigError(
            f"held_out={held_out} leaves nothing to train on: there are {len(keys)} prompts."
        )
    apart = sorted(keys)[:held_out]
    kept = {HELD_OUT: sorted(keys.pop(key) for key in apart), TRAIN: sorted(keys.values())}
    with storage_errors(f"{folder} cannot be written", "Make room, and run again."):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".split-", dir=folder.parent) as made:
            part = Path(made) / folder.name
            part.mkdir()
            for name, indices in kept.items():
                _write(part / f"{name}.jsonl", data, indices)
            part.replace(folder)
    return Split(len(kept[TRAIN]), len(kept[HELD_OUT]), repeats, unreadable)


def check_vacant(folder: Path) -> None:
    """Check that nothing is written over.

    Raises:
        ConfigError: It is a file, or there is something in the folder.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file. Give a new folder as OUTPUT.")
    if folder.is_dir() and any(folder.iterdir()):
        raise ConfigError(f"{folder} is not empty. Give a new folder as OUTPUT, or remove it.")


def _write(file: Path, data: datasets.Dataset, indices: list[int]) -> None:
    rows: Any = data.select(indices).with_format(None)
    with file.open("w", encoding="utf-8") as lines:
        for row in rows:
            lines.write(json.dumps(finite(row), ensure_ascii=False, default=str) + "\n")
