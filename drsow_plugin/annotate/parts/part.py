"""One of several shards of a data set, by its number."""

from __future__ import annotations

import re
from dataclasses import dataclass

from drsow_plugin.errors import ConfigError

NAMES = re.compile(r"(\d{5})-of-(\d{5})")
"""The names of the folders of shards."""

_MOST = 99_999  # the names of their folders sort


@dataclass(frozen=True)
class Part:
    """A shard of a data set.

    Attributes:
        number: Which one, from 1.
        of: How many there are.
    """

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @property
    def folder(self) -> str:
        """The name of the folder that it is written into."""
        return f"{self.number:05d}-of-{self.of:05d}"


def parse_part(value: object) -> Part | None:
    """Return a shard that is given as ``3/16`` or as ``(3, 16)``; ``None`` for ``None``.

    Raises:
        ConfigError: It is none.
    """
    if value is None or isinstance(value, Part):
        return value
    text = "/".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)
    found = re.fullmatch(r"([0-9]{1,5})/([0-9]{1,5})", text)
    number, of = map(int, found.groups()) if found else (0, 0)
    if not 1 <= number <= of <= _MOST:
        raise ConfigError(
            f"shard is the number of one and how many there are, from 1/16 to 16/16, got {value!r}."
        )
    return Part(number, of)
