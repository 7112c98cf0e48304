"""``drsow annotate`` of parquet files at addresses, which a cluster reads and writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from drsow_plugin.annotate.drivers import DriverOptions, Where
from drsow_plugin.annotate.options import LabelConfig
from drsow_plugin.config.pair import PairConfig
from drsow_plugin.config.parse import parse_flag, parse_positive
from drsow_plugin.errors import ConfigError

if TYPE_CHECKING:
    from drsow_plugin.annotate.report import Report

_TAKEN = (*DriverOptions.__annotations__, "shard_rows", "cache_dir", "keep_unusable")


def annotate_addresses(
    inputs: list[str],
    target: str,
    pair: PairConfig,
    labels: LabelConfig,
    ours: Mapping[str, Any],
    complete: Callable[[Report], Report],
) -> None:
    """Label parquet files at addresses, and say what came out.

    Args:
        inputs: Addresses of files, or of folders of them.
        target: Address of a folder.
        pair: The models.
        labels: How rows are labelled.
        ours: The other options of the command.
        complete: Adds to the report what the command line knows.

    Raises:
        ConfigError: No cluster is asked for, or an option says nothing here.
    """
    where: Any = {name: ours.get(name) for name in DriverOptions.__annotations__}
    chosen = Where.of(where)
    if chosen.driver != "ray":
        raise ConfigError(
            "An address as INPUT or OUTPUT is read and written by a cluster: give --driver ray, or "
            "files of this machine."
        )
    for name, value in ours.items():
        if name not in (*_TAKEN, "input", "output") and value not in (None, False):
            raise ConfigError(
                f"--{name.replace('_', '-')} says nothing of parquet files at addresses, which are "
                "labelled whole. Leave it out."
            )
    shard_rows = parse_positive("shard_rows", ours.get("shard_rows"))
    keep = parse_flag("keep_unusable", ours.get("keep_unusable", False))

    from drsow_plugin.annotate.annotator import Annotator
    from drsow_plugin.annotate.remote import Remote, label_remote

    remote = Remote.of(inputs, target)
    report = label_remote(
        Annotator.from_config(pair, labels),
        remote,
        chosen,
        complete,
        shard_rows=shard_rows,
        cache_dir=ours.get("cache_dir"),
        keep_unusable=keep,
    )
    click.echo(str(report))
    click.echo(f"Wrote {remote.output}")
