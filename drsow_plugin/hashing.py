"""SHA-256 of files and texts, in hexadecimal, and what tells that a file was changed."""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

# A file system may give two changes within so many nanoseconds of each other the same time.
_COARSEST_NS = 2_000_000_000


@dataclass(frozen=True)
class Stamp:
    """What the file system says of a file; another one where the file was changed.

    Attributes:
        size: In bytes.
        mtime_ns: When its contents were last changed.
        ctime_ns: When its contents or its attributes were last changed; cannot be set back.
        inode: Which file it is.
        is_settled: Whether it was looked at so long after the last change that another one
            would show in the times.
    """

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    is_settled: bool = field(compare=False)

    @classmethod
    def of(cls, path: Path) -> Stamp | None:
        """Look at a file; ``None`` if it is not there, no file, or cannot be read."""
        try:
            with path.open("rb") as file:  # which makes a network file system look again
                now, status = time.time_ns(), os.fstat(file.fileno())
        except OSError:
            return None
        return cls(
            size=status.st_size,
            mtime_ns=status.st_mtime_ns,
            ctime_ns=status.st_ctime_ns,
            inode=status.st_ino,
            is_settled=now - max(status.st_mtime_ns, status.st_ctime_ns) > _COARSEST_NS,
        )


def text_sha256(text: str) -> str:
    """Return the SHA-256 of a text in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def text_key(text: str) -> int:
    """Return a hash of a text in 64 bits: texts that differ share one by accident alone.

    Among ten million texts that is a chance of three in a million.
    """
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file; remembered while the file is unchanged."""
    stamp = Stamp.of(path)
    return _remembered(path, stamp) if stamp and stamp.is_settled else sha256_of(path)


@lru_cache(maxsize=1024)
def _remembered(path: Path, _stamp: Stamp) -> str:
    return sha256_of(path)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, read now."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
