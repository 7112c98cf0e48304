"""Repositories of the stand-in for the Hub, in memory: commits, branches, files."""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

LFS = ("*.parquet", "*.png", "*.arrow")  # as the Hub's default .gitattributes has them


@dataclass(frozen=True)
class Commit:
    oid: str
    files: Mapping[str, bytes]
    message: str


@dataclass
class Repository:
    id: str
    private: bool
    branches: dict[str, list[Commit]] = field(default_factory=lambda: {"main": []})

    def __post_init__(self) -> None:
        self.add({}, "initial commit")

    def add(
        self,
        files: Mapping[str, bytes],
        message: str,
        branch: str = "main",
        gone: Iterable[str] = (),
    ) -> Commit:
        """Commit files on top of a branch."""
        history = self.branches[branch]
        kept = {path: data for path, data in self.files(branch).items() if path not in set(gone)}
        kept |= files
        number = sum(len(commits) for commits in self.branches.values())
        oid = hashlib.sha1(f"{self.id} {branch} {number} {message}".encode()).hexdigest()
        history.append(Commit(oid, kept, message))
        return history[-1]

    def files(self, branch: str = "main") -> Mapping[str, bytes]:
        history = self.branches[branch]
        return history[-1].files if history else {}

    def find(self, revision: str) -> Commit | None:
        if revision in self.branches:
            return self.branches[revision][-1]
        every = [commit for history in self.branches.values() for commit in history]
        return next((commit for commit in every if commit.oid == revision), None)


def is_lfs(path: str) -> bool:
    return any(fnmatch.fnmatch(path, pattern) for pattern in LFS)


def etag(path: str, files: Mapping[str, bytes]) -> str:
    content = files[path]
    if is_lfs(path):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def entry(path: str, files: Mapping[str, bytes]) -> dict[str, Any]:
    size, oid = len(files[path]), etag(path, files)
    lfs = {"lfs": {"oid": oid, "size": size, "pointerSize": 130}} if is_lfs(path) else {}
    return {"type": "file", "path": path, "size": size, "oid": oid, **lfs}


def walk(files: Mapping[str, bytes], inside: str, *, recursive: bool) -> Iterator[dict[str, Any]]:
    folders = set()
    for path in sorted(files):
        if not path.startswith(inside):
            continue
        parts = path.removeprefix(inside).split("/")
        for depth in range(1, len(parts) if recursive else min(len(parts), 2)):
            folders.add(inside + "/".join(parts[:depth]))
        if recursive or len(parts) == 1:
            yield entry(path, files)
    for folder in sorted(folders):
        oid = hashlib.sha1(folder.encode()).hexdigest()
        yield {"type": "directory", "path": folder, "oid": oid, "size": 0}
