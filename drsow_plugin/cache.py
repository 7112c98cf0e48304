"""The cache folder, which is safe to delete, and locks that keep runs apart in it."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from drsow_plugin.addresses import Address, is_address, parse_place
from drsow_plugin.errors import ConfigError, StorageError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

UNFINISHED = "writing-"
"""What the names of files and folders begin with that are not whole yet."""
PAIR = "pair.json"
"""What says, in a folder of scores, which pair they are of."""

_LOCK = "lock"
# Without a lock it was left by a run that was killed within the instant between the two.
_ABANDONED_AFTER_S = 24 * 3600.0


def cache_folder(chosen: str | None = None) -> Path:
    """Return the cache folder, safe to delete: ``DRSOW_CACHE``, or ``~/.cache/drsow``.

    Args:
        chosen: Another, where one was given.

    Raises:
        ConfigError: It is no folder that can be read, or there is none and it cannot be made.
    """
    name = chosen or os.environ.get("DRSOW_CACHE") or "~/.cache/drsow"
    if is_address(name):
        raise ConfigError(
            f"The cache folder is a folder of this machine, got {name!r}. An address is where the "
            "scores of labelled data may be kept: give it as cache_dir of 'drsow annotate' or of "
            "Annotator.run."
        )
    try:
        path = Path(name).expanduser()
        path.mkdir(parents=True, exist_ok=True)
        os.scandir(path).close()
    except (OSError, RuntimeError) as error:
        raise ConfigError(
            f"The cache folder {name!r} cannot be used: {reason(error)}. Name a folder that can be "
            "read and written, with DRSOW_CACHE or, to label data, cache_dir."
        ) from error
    return path


def scores_place(chosen: str | None) -> Path | Address:
    """Return where the scores of labelled data are kept: a folder here, or an address.

    Args:
        chosen: An address or a folder; ``None`` is the cache folder.

    Raises:
        ConfigError: It cannot be read.
    """
    if chosen is None or not is_address(chosen):
        return cache_folder(chosen)
    place = parse_place("cache_dir", chosen)
    if isinstance(place, Path):
        return cache_folder(str(place))
    try:
        (place / PAIR).is_file()
    except OSError as error:
        raise ConfigError(
            f"cache_dir={chosen!r} cannot be read: {reason(error)}. Check the address, and what "
            "the environment says of keys and servers."
        ) from error
    return place


def reason(error: Exception) -> str:
    """Return what an error says, without the path and the number of an error of the system."""
    return (getattr(error, "strerror", None) or str(error)).rstrip(".")


@contextmanager
def storage_errors(what: str, advice: str) -> Iterator[None]:
    """Tell in one line what could not be read or written, and what to do.

    Raises:
        StorageError: The system refused, or the disk is full.
    """
    try:
        yield
    except OSError as error:
        raise StorageError(f"{what}: {reason(error)}. {advice}") from error


@contextmanager
def unfinished(folder: Path) -> Iterator[Path]:
    """Make a folder, inside of another, for what is not whole yet; it goes at the end.

    Killed runs leave theirs, which go here. Those of live runs are locked, and stay.

    Raises:
        OSError: It cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remove_abandoned(folder)
    path, lock = _locked(folder)
    try:
        yield path
    finally:
        lock.release()
        shutil.rmtree(path, ignore_errors=True)


def _locked(folder: Path) -> tuple[Path, FileLock]:
    while True:
        path = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=folder))
        lock = FileLock(path / _LOCK)
        with suppress(FileNotFoundError):
            lock.acquire()
            if (path / _LOCK).is_file():
                return path, lock
            lock.release()
        # Another run, that cleans up, was faster than the lock.


def remove_abandoned(folder: Path) -> None:
    """Remove what killed runs left half written in a folder, as far as that is allowed."""
    for left in folder.glob(f"{UNFINISHED}*"):
        with suppress(OSError, Timeout):
            if (left / _LOCK).is_file() and not left.is_symlink():
                with FileLock(left / _LOCK, timeout=0):
                    shutil.rmtree(left, ignore_errors=True)
            elif time.time() - left.lstat().st_mtime > _ABANDONED_AFTER_S:
                _remove(left)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink()


def is_in_use(folder: Path) -> bool:
    """Tell whether a live run writes into a folder."""
    for left in folder.glob(f"{UNFINISHED}*/{_LOCK}"):
        try:
            with FileLock(left, timeout=0):
                pass
        except (OSError, Timeout):
            return True
    return False


_held: dict[Path, int] = {}


def hold(path: Path) -> None:
    """Keep a file from ``drsow cache clean`` for as long as this process lives."""
    if fcntl is None:  # Windows removes no file that is open
        return
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        if path in _held:
            os.close(_held[path])
        _held[path] = descriptor


def is_held(path: Path) -> bool:
    """Tell whether a live process holds a file."""
    if fcntl is None:
        return False
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False
