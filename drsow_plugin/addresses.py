"""Places for finished work that are no folder of this machine: any file system of fsspec."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from drsow_plugin.errors import ConfigError

_SIGN = "://"
_HERE = ("file", "local")
_WITH_FOLDERS = (*_HERE, "memory", "sftp", "ssh", "ftp", "smb", "hdfs", "arrow_hdfs", "webhdfs")


@dataclass(frozen=True)
class Address:
    """A file or a folder at an address, with those methods of a path that are needed.

    An object appears whole or not at all where the file system is an object store, or a memory;
    elsewhere one that a killed process left half written is there, which who reads has to notice.
    It pickles as its address: where keys are is known to the environment alone.

    Attributes:
        url: The address, without a slash at its end.
    """

    url: str

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> Address:
        return Address(f"{self.url}/{name}")

    def __getstate__(self) -> dict[str, str]:
        return {"url": self.url}

    def __setstate__(self, state: dict[str, str]) -> None:
        self.__dict__.update(state)

    @property
    def name(self) -> str:
        """Its last part."""
        return self.url.rsplit("/", 1)[-1]

    @property
    def stem(self) -> str:
        """Its last part, without the ending."""
        return Path(self.name).stem

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        from fsspec.core import url_to_fs

        opened: tuple[Any, str] = url_to_fs(self.url)
        return opened

    @contextmanager
    def _as_os_errors(self) -> Iterator[tuple[Any, str]]:
        """Raise what a file system says in its own words as an ``OSError``."""
        try:
            yield self._opened
        except OSError:
            raise
        except Exception as error:
            said = " ".join(str(error).split())
            raise OSError(f"{type(error).__name__}: {said:.200}") from error

    def is_file(self) -> bool:
        """Tell whether there is a file.

        Raises:
            OSError: That cannot be asked.
        """
        with self._as_os_errors() as (files, path):
            return bool(files.isfile(path))

    def read_bytes(self) -> bytes:
        """Return what is in the file.

        Raises:
            FileNotFoundError: It is not there.
            OSError: It cannot be read.
        """
        with self._as_os_errors() as (files, path):
            content: bytes = files.cat_file(path)
            return content

    def read_text(self, encoding: str) -> str:
        """Return the text that is in the file; raises as :meth:`read_bytes`."""
        return self.read_bytes().decode(encoding)

    def write_bytes(self, content: bytes) -> None:
        """Write the file, in one request where that is what the file system does.

        Raises:
            OSError: It cannot be written.
        """
        with self._as_os_errors() as (files, path):
            if urlsplit(self.url).scheme in _WITH_FOLDERS:  # an object store would make a bucket
                files.makedirs(files._parent(path), exist_ok=True)
            files.pipe_file(path, content)

    def open(self) -> Any:
        """Open the file, to read parts of it.

        Raises:
            OSError: It is not there, or cannot be read.
        """
        with self._as_os_errors() as (files, path):
            return files.open(path, "rb")

    def glob(self, pattern: str) -> list[Address]:
        """Return the files of a folder whose names fit a pattern, in order.

        Raises:
            OSError: They cannot be listed.
        """
        with self._as_os_errors() as (files, path):
            found = files.glob(f"{path}/{pattern}")
            return [Address(files.unstrip_protocol(name)) for name in sorted(found)]

    def unlink(self) -> None:
        """Remove the file.

        Raises:
            OSError: It is not there, or cannot be removed.
        """
        with self._as_os_errors() as (files, path):
            files.rm_file(path)


def is_address(name: str) -> bool:
    """Tell whether a name is an address, not a path of this machine."""
    return _SIGN in name


def parse_place(option: str, name: str) -> Path | Address:
    """Return a path for a path, also where it is written as an address, and else an address.

    Args:
        option: What it is the value of.
        name: Such as ``/shared/scores``, ``file:///shared/scores`` or ``s3://bucket/scores``.

    Raises:
        ConfigError: The file system is not known, a package for it is not installed, or there is
            a password in the address.
    """
    if not is_address(name):
        return Path(name).expanduser()
    parts = urlsplit(name)
    if parts.password or parts.query:
        raise ConfigError(
            f"{option} is an address with a password, a key or other options in it, which would be "
            "written down with the output. Give the address without, and the rest to the "
            "environment, as the file system's package for fsspec says."
        )
    if parts.scheme in _HERE:
        return Path(parts.netloc + parts.path)
    address = Address(name.rstrip("/"))
    try:
        address._opened  # noqa: B018
    except (ImportError, ValueError) as error:
        said = " ".join(str(error).split()).rstrip(".")
        raise ConfigError(f"{option}={name!r} cannot be used: {said}.") from error
    return address
