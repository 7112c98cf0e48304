"""What the commands that train a policy are asked for: a model, how, rows and a folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import click

from drsow_plugin.cli.configfile import merge_config
from drsow_plugin.cli.lines import DATA, load_rows
from drsow_plugin.cli.paths import require_paths
from drsow_plugin.config.parse import parse_positive
from drsow_plugin.errors import ConfigError
from drsow_plugin.tuning.options import NAME

if TYPE_CHECKING:
    from datasets import Dataset

S = TypeVar("S")

RUN = ("input", "output", "limit", *DATA)


@dataclass(frozen=True)
class Training(Generic[S]):
    """What is to be trained, on what, and where it is written.

    Attributes:
        setup: The policy, and how it is trained.
        folder: Of what is trained.
    """

    setup: S
    folder: Path
    _inputs: list[str]
    _data: Mapping[str, Any]
    _limit: int | None

    @classmethod
    def read(
        cls,
        paths: tuple[str, ...],
        options: Mapping[str, Any],
        known: frozenset[str],
        parse: Callable[[object, dict[str, Any]], S],
        usage: str,
    ) -> Training[S]:
        """Check what a command was given.

        Args:
            paths: Words of the command line.
            options: Those of the command, with ``config``.
            known: Names of those that say how is trained.
            parse: Turns the policy and these into ``setup``.
            usage: What to say where inputs or output are not given.

        Raises:
            ConfigError: Something is missing, unknown or wrong.
        """
        given = dict(options)
        merged = merge_config(given, given.pop("config"), frozenset((*known, *RUN)))
        ours = {name: merged.pop(name) for name in RUN if name in merged}
        policy = merged.pop(NAME, None)
        if policy is None:
            raise ConfigError("No policy was given. Name the model to train with --policy MODEL.")
        setup = parse(policy, merged)
        inputs, folder = require_paths(paths, ours, usage)
        limit = parse_positive("limit", ours.get("limit"))
        return cls(setup, Path(folder).expanduser(), inputs, ours, limit)

    def rows(self) -> Dataset:
        """Load what is trained on.

        Raises:
            DataError: It cannot be read, or has several splits.
        """
        return load_rows(self._inputs, self._data, self._limit)

    def tell(self, found: object) -> None:
        """Say what came of it, and where it is."""
        click.echo(str(found))
        click.echo(f"Wrote {self.folder}")
