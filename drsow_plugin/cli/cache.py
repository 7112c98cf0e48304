"""The command ``drsow cache``: shows what is in the cache folder, and removes it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click

from drsow_plugin.cache import (
    PAIR,
    cache_folder,
    is_held,
    is_in_use,
    remove_abandoned,
    storage_errors,
)
from drsow_plugin.cli.options import CONTEXT
from drsow_plugin.errors import ConfigError
from drsow_plugin.printable import printable

_DAY_S = 24 * 3600.0


@dataclass(frozen=True)
class _Entry:
    """Files that belong together, and whether a live process uses them."""

    name: str
    files: list[Path]
    in_use: bool

    @property
    def size(self) -> int:
        return sum(status.st_size for status in _statuses(self.files))

    @property
    def written(self) -> float:
        return max((status.st_mtime for status in _statuses(self.files)), default=0.0)


@click.group(context_settings=CONTEXT, invoke_without_command=True)
@click.option("--cache-dir", help="The folder. [DRSOW_CACHE or ~/.cache/drsow]")
@click.pass_context
def cache(context: click.Context, cache_dir: str | None) -> None:
    """Show what is kept: scores, log-probs, responses, labelled rows and converted models.

    All of it is safe to delete; 'drsow cache clean' removes it.
    """
    root = context.obj = cache_folder(cache_dir)
    if context.invoked_subcommand is not None:
        return
    entries = list(_entries(root))
    click.echo(f"{root}: {_size(sum(entry.size for entry in entries))}")
    for entry in entries:
        age = int((time.time() - entry.written) / _DAY_S)
        days = "in use" if entry.in_use else "today" if age < 1 else f"{age} days old"
        click.echo(f"{len(entry.files):8,} files  {_size(entry.size):>9}  {days:>13}  {entry.name}")


@cache.command()
@click.option("--older-than", metavar="DAYS", type=click.FloatRange(min=0), default=0.0)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def clean(root: Path, older_than: float, yes: bool) -> None:
    """Remove what is kept, but for what a live process uses, and the demo model.

    With --older-than only pairs, rows and models of which nothing was written for so many days.
    """
    now = time.time()
    entries = [e for e in _entries(root) if now - min(now, e.written) >= older_than * _DAY_S]
    free = [entry for entry in entries if not entry.in_use]
    what = f"{sum(len(e.files) for e in free):,} files, {_size(sum(e.size for e in free))}"
    if free and not yes:
        try:
            click.confirm(f"Remove {what} from {root}?", abort=True)
        except click.Abort:
            raise ConfigError("Nothing was removed. Give --yes to be asked nothing.") from None
    with storage_errors(f"{root} cannot be cleaned", "Finished work in it is whole still."):
        for entry in free:
            _remove(entry)
        kept = [folder for kind in _KINDS for folder in root.glob(f"{kind}/*")]
        for folder in (root, *kept, root / "labelled", root / "converted"):
            remove_abandoned(folder)
    left = len(entries) - len(free)
    click.echo(f"Removed {what}." + (f" In use, and left: {left}." if left else ""))


def _entries(root: Path) -> Iterator[_Entry]:
    """Yield what is there; what a link leads to is none of it."""
    for kind, (what, named) in _KINDS.items():
        for folder in sorted((root / kind).glob("*")):
            files = [*folder.glob("*.parquet")]
            if files and not folder.is_symlink():
                yield _Entry(f"{what} of {named(folder)}", files, is_in_use(folder))
    for file in sorted((root / "labelled").glob("*.arrow")):
        yield _Entry("labelled rows", [file], is_held(file))
    for folder in sorted((root / "converted").glob("*")):
        manifest = folder / "converted.json"
        if manifest.is_file() and not folder.is_symlink():
            name = f"converted model {folder.name}"
            yield _Entry(name, [*folder.iterdir()], is_held(manifest))


def _pair(folder: Path) -> str:
    """Return the pair and its options, as the run that scored says them."""
    try:
        options = json.loads((folder / PAIR).read_text(encoding="utf-8"))
        options.pop("shard_rows", None)
        return _with_options(f"{options.pop('strong')} over {options.pop('weak')}", options)
    except (OSError, ValueError, AttributeError, KeyError):
        return f"a pair that is not named, {folder.name}"


def _model(folder: Path, key: str = "source") -> str:
    """Return the model and its options, as the run that used it says them."""
    try:
        options = json.loads((folder / PAIR).read_text(encoding="utf-8"))
        return _with_options(str(options.pop(key)), options)
    except (OSError, ValueError, AttributeError, KeyError):
        return f"a model that is not named, {folder.name}"


_KINDS: dict[str, tuple[str, Callable[[Path], str]]] = {
    "scores": ("scores", _pair),
    "logprobs": ("log-probs", _model),
    "responses": ("responses", partial(_model, key="policy")),
}


def _with_options(name: str, options: Mapping[str, object]) -> str:
    return printable(", ".join([name, *(f"{n}={v}" for n, v in options.items())]))


def _remove(entry: _Entry) -> None:
    for file in entry.files:
        file.unlink(missing_ok=True)
    folder = entry.files[0].parent
    if folder.name != "labelled":
        (folder / PAIR).unlink(missing_ok=True)
        with suppress(OSError):  # others write there
            folder.rmdir()


def _statuses(files: list[Path]) -> Iterator[os.stat_result]:
    for file in files:
        with suppress(FileNotFoundError):  # another run was faster
            yield file.stat()


def _size(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
