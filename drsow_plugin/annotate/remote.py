"""Labels parquet files at addresses on a cluster: the rows never pass through this process."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from drsow_plugin.addresses import Address, parse_place
from drsow_plugin.annotate.annotator import Annotator
from drsow_plugin.annotate.drivers import Where
from drsow_plugin.annotate.kinds import make_labeller
from drsow_plugin.annotate.layout import find_layout
from drsow_plugin.annotate.pieces import Done, Job, Plan
from drsow_plugin.annotate.place import MANIFEST, REPORT
from drsow_plugin.annotate.report import Report
from drsow_plugin.annotate.sharding import described, sizes_in, usual_size
from drsow_plugin.annotate.store import RewardStore, open_store
from drsow_plugin.annotate.summary import Summary, nothing_labelled, tell_left_out
from drsow_plugin.annotate.tables import read_shard
from drsow_plugin.cache import reason, scores_place, storage_errors
from drsow_plugin.errors import ConfigError, DataError, Interrupted
from drsow_plugin.progress import RowProgress

_SPLIT = "train"
_PIECE = re.compile(r"train-\d{5}-of-\d{5}\.parquet")


@dataclass(frozen=True)
class Remote:
    """What is read, and where it is written.

    Attributes:
        files: Parquet files, in order.
        output: A folder.
    """

    files: tuple[Address, ...]
    output: Address

    @classmethod
    def of(cls, inputs: Sequence[str], output: str) -> Remote:
        """Find the files, and check that the output is free.

        Args:
            inputs: Addresses of parquet files, or of folders of them.
            output: Address of a folder that is empty, or was written by this.

        Raises:
            ConfigError: An address is of no use, or something else is at the output.
            DataError: There are no parquet files.
        """
        named = [_address("INPUT", name) for name in inputs]
        target = _address("OUTPUT", output)
        for one in named:
            if one == target or f"{one}/".startswith(f"{target}/"):
                raise ConfigError(f"OUTPUT {output!r} is, or holds, INPUT {one}. Give another.")
        try:
            files = [file for one in named for file in _files(one)]
            if not (target / REPORT).is_file() and target.glob("*"):
                raise ConfigError(
                    f"OUTPUT {output!r} holds other things. Give a new or empty folder, or one "
                    "that 'drsow annotate' wrote."
                )
        except OSError as error:
            raise ConfigError(f"An address cannot be read: {reason(error)}.") from error
        return cls(tuple(files), target)

    @property
    def source(self) -> str:
        """What tells this input from others."""
        return ", ".join(map(str, self.files))

    def check_source(self) -> None:
        """Check that the output is of the same input, if there is one.

        Raises:
            ConfigError: It is of another.
        """
        try:
            report = json.loads((self.output / REPORT).read_text("utf-8"))
            source = report[MANIFEST]["source"]
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{self.output / REPORT} is no report of ours: {error}.") from error
        if source != self.source:
            raise ConfigError(
                f"OUTPUT {str(self.output)!r} holds the labels of another input, {source:.200}. "
                "Give another OUTPUT, or remove it first."
            )


def _address(option: str, name: str) -> Address:
    place = parse_place(option, name)
    if not isinstance(place, Address):
        place = Address(f"file://{place.absolute()}")
    return place


def _files(named: Address) -> list[Address]:
    if named.is_file():
        return [named]
    found = named.glob("*.parquet") or named.glob("data/*.parquet")
    if not found:
        raise DataError(
            f"{named} is no parquet file, and no folder that has any in it. Give one: other "
            "formats are read where they are files of this machine."
        )
    return found


def label_remote(
    annotator: Annotator,
    remote: Remote,
    where: Where,
    complete: Callable[[Report], Report],
    *,
    shard_rows: int | None = None,
    cache_dir: str | None = None,
    keep_unusable: bool = False,
) -> Report:
    """Label files at addresses on a cluster, and write the report beside the rows.

    Args:
        annotator: The pair, and how rows are labelled.
        remote: What is read, and where it is written.
        where: A cluster.
        complete: Adds to the report what only the caller knows.
        shard_rows: See :meth:`drsow_plugin.Annotator.run`, as for the next two.
        cache_dir: See there.
        keep_unusable: See there.

    Raises:
        DataError: The rows are of no known kind, or none could be labelled.
        EngineError: The models failed, or the cluster. Finished work is kept.
        StorageError: Something cannot be written. Likewise.
        Interrupted: Ctrl-C or a signal came. Likewise.
    """
    scorer, config = annotator.scorer, annotator.config
    scorer.check_reopens()
    remote.check_source()
    scores = scores_place(cache_dir) / "scores" / scorer.work_key[:32]
    size = shard_rows or next(iter(sizes_in(scores)), usual_size(scorer.open(), None, 1))
    plan = Plan.of(remote.files, size)
    head = plan.head()
    layout = find_layout(head.column_names, config, scorer.pair.routing)
    shard = read_shard(head, layout)
    labeller = make_labeller(layout, config, shard.values, shard.table.schema)
    labeller.check_free(head.column_names)
    job = Job(plan, labeller, config, remote.output, _SPLIT, keep_unusable)
    summary = Summary(layout, config)
    progress = RowProgress(plan.rows, f"drsow: {_SPLIT}")
    with open_store(scores, scorer.pair.scoring) as store:
        store.describe(described(scorer.options(), scores, size))
        try:
            done = [*_count(_pieces(job, annotator, store, progress, where), summary)]
        except KeyboardInterrupt:
            raise Interrupted(
                f"{store.kept} shards are kept; the same run goes on from there"
            ) from None
        finally:
            progress.close()
    summaries = {_SPLIT: summary}
    if not any(piece.written for piece in done):
        raise DataError(nothing_labelled(summaries))
    if not keep_unusable:
        tell_left_out(summaries)
    report = Report.of(
        scorer, config, summaries, labeller, keep_unusable=keep_unusable, shard_rows=size
    )
    report = annotator.report = complete(report)
    _write_report(remote, report, {piece.name: piece.sha256 for piece in done})
    return report


def _pieces(
    job: Job, annotator: Annotator, store: RewardStore, progress: RowProgress, where: Where
) -> Generator[Done, None, None]:
    from drsow_plugin.annotate.drivers.ray import label_pieces

    return label_pieces(job, annotator.scorer, store, progress, where)


def _count(pieces: Generator[Done, None, None], summary: Summary) -> Generator[Done, None, None]:
    """Count the rows of pieces, and yield these without them."""
    with closing(pieces) as coming:
        for piece in coming:
            for values, labels, prompts in piece.counted:
                summary.add(values, labels, prompts)
            yield replace(piece, counted=())


def _write_report(remote: Remote, report: Report, hashes: Mapping[str, str]) -> None:
    """Write the report, which names the files, after what goes with it; remove former pieces."""
    output = remote.output
    advice = "Scores are kept: run again."
    with storage_errors(f"OUTPUT {str(output)!r} cannot be written", advice):
        for old in (output / "data").glob("*.parquet"):
            if _PIECE.fullmatch(old.name) and f"data/{old.name}" not in hashes:
                old.unlink()
        files = dict(report.files())
        files.pop(REPORT)
        for name, content in files.items():
            (output / name).write_bytes(content)
        manifest = {"source": remote.source, "files": dict(hashes)}
        (output / REPORT).write_bytes(report.json(**{MANIFEST: manifest}))
