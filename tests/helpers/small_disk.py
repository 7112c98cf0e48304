"""A disk of some kilobytes, which is really full once it is: a file system in memory, mounted."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def _mount(*arguments: str) -> bool:
    done = subprocess.run(["mount", *arguments], capture_output=True, check=False)
    return done.returncode == 0


class SmallDisk:
    """A disk; a block of :func:`small_disk`.

    Attributes:
        path: Where it is mounted.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def resize(self, kilobytes: int) -> None:
        assert _mount("-o", f"remount,size={kilobytes}k", str(self.path))

    def make_read_only(self) -> None:
        assert _mount("-o", "remount,ro", str(self.path))

    def make_writable(self) -> None:
        assert _mount("-o", "remount,rw", str(self.path))


@contextmanager
def small_disk(path: Path, kilobytes: int) -> Iterator[SmallDisk]:
    """Mount a disk of a size; skip the test where that is not allowed."""
    path.mkdir(parents=True)
    if os.name != "posix" or not _mount(
        *("-t", "tmpfs", "-o", f"size={kilobytes}k", "drsow-test", str(path))
    ):
        pytest.skip("needs leave to mount a file system")
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)
