"""Parquet files in an object store, labelled on a cluster whose nodes read and write them."""

from __future__ import annotations

import io
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import ray_nodes
from helpers.commands import drsow, wrong

from drsow_plugin.addresses import Address
from drsow_plugin.annotate.drivers import Where
from drsow_plugin.annotate.remote import Remote, label_remote
from drsow_plugin.errors import ConfigError, DataError

pytestmark = [pytest.mark.ray, pytest.mark.slow]
ROWS, SHARD = 160, 4
INPUT = Address("s3://bucket/in")
WHERE = Where("ray", num_actors=2)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Start a cluster and an object store with two files, in small row groups and one large one."""
    with ray_nodes.object_store("bucket"), ray_nodes.nodes() as cluster:
        data = datasets.Dataset.from_list(ray_nodes.rows(ROWS)).with_format("arrow")[:]
        for name, rows, size in (("a", data.slice(0, 90), 10), ("b", data.slice(90), 1000)):
            written = io.BytesIO()
            pq.write_table(rows, written, row_group_size=size)
            (INPUT / f"{name}.parquet").write_bytes(written.getvalue())
        yield cluster


def label(folder: Path, output: str, cache: str, latency: float = 0.0) -> Any:
    return label_remote(
        ray_nodes.followed(folder, latency),
        Remote.of([str(INPUT)], output),
        WHERE,
        lambda report: report,
        shard_rows=SHARD,
        cache_dir=cache,
    )


def rows_of(output: str) -> pa.Table:
    files = (Address(output) / "data").glob("*.parquet")
    return pa.concat_tables(pq.read_table(io.BytesIO(file.read_bytes())) for file in files)


def test_rows_and_report_are_those_of_this_machine_and_a_killed_actor_costs_a_shard(
    cluster: Any, tmp_path: Path
) -> None:
    log, output = tmp_path / "log", "s3://bucket/out"
    killed: list[str] = []
    kept: set[str] = set()

    def kill() -> None:
        ray_nodes.wait_for(lambda: len(ray_nodes.seen(log, "done")) >= 4, "shards are done")
        ray_nodes.wait_for(lambda: ray_nodes.seen(log, "begun"), "a shard is begun")
        pid, first = ray_nodes.seen(log, "begun")[0]
        os.kill(pid, signal.SIGKILL)
        killed.append(first)
        kept.update(path.stem for path in Address("s3://bucket/cache/scores").glob("*/*.parquet"))

    thread, failures = ray_nodes.meanwhile(kill)
    report = label(log, output, "s3://bucket/cache", 0.02)
    thread.join()
    assert not failures and killed
    # Files of 90 and 70 rows; pieces of 64: 70 and 20 rows of whole row groups, then 64 and 6.
    names = [file.name for file in (Address(output) / "data").glob("*")]
    assert names == [f"train-{number:05d}-of-00005.parquet" for number in range(5)]
    ray_nodes.check_done(log, 16 + 2 + 5 + 16 + 2, kept, most=1)
    assert [first for _, first in ray_nodes.seen(log, "begun")] == killed

    here = ray_nodes.followed(tmp_path / "here", 0.0)
    data = datasets.Dataset.from_list(ray_nodes.rows(ROWS))
    expected = here.run(data, cache_dir=str(tmp_path), shard_rows=SHARD)
    table = rows_of(output)
    assert table.to_pylist() == list(expected)
    assert datasets.Features.from_arrow_schema(table.schema) == expected.features
    assert report.splits == here.report.splits and report.splits["train"].rows == ROWS
    manifest = json.loads((Address(output) / "report.json").read_text("utf-8"))["output"]
    assert sorted(manifest["files"]) == [f"data/{name}" for name in names]

    again = label(tmp_path / "again", output, "s3://bucket/cache")
    assert not ray_nodes.seen(tmp_path / "again", "done") and rows_of(output).equals(table)
    assert again.splits == report.splits


def test_the_command_reads_and_writes_addresses(
    cluster: Any, models: list[str], tmp_path: Path
) -> None:
    how = ["--driver", "ray", "--num-actors", "1", "--shard-rows", "16", *models]
    result = drsow("annotate", INPUT, "s3://bucket/command", *how, "--cache-dir", "s3://bucket/c")
    assert result.exit_code == 0, result.output
    assert "Wrote s3://bucket/command" in result.stdout
    for name in ("a", "b"):
        (tmp_path / f"{name}.parquet").write_bytes((INPUT / f"{name}.parquet").read_bytes())
    local = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    here = drsow("annotate", *local, tmp_path / "out", *models, "--cache-dir", tmp_path / "cache")
    assert here.exit_code == 0, here.output
    expected = pq.read_table(tmp_path / "out/data").to_pylist()
    found = rows_of("s3://bucket/command").to_pylist()
    assert [row["prompt"] for row in found] == [row["prompt"] for row in expected]
    margins = [row["drsow_margin"] for row in expected]
    assert [row["drsow_margin"] for row in found] == pytest.approx(margins, abs=1e-4)
    said = result.stdout.split("Wrote")[0]
    assert said.splitlines()[:3] == here.stdout.splitlines()[:3]
    options = (Address("s3://bucket/command") / "drsow.yaml").read_text("utf-8")
    assert "driver: ray" in options and "input: s3://bucket/in" in options


def test_what_is_wrong_with_addresses_is_told_before_a_row_is_scored(
    cluster: Any, models: list[str], tmp_path: Path
) -> None:
    ray = ["--driver", "ray", *models]
    output = "s3://bucket/elsewhere"
    assert "give --driver ray" in wrong("annotate", INPUT, output, *models)
    assert "--limit says nothing" in wrong("annotate", INPUT, output, *ray, "--limit", "3")
    assert "no parquet file" in wrong("annotate", "s3://bucket/nothing", output, *ray)
    assert "is, or holds, INPUT" in wrong("annotate", INPUT, INPUT, *ray)
    assert "bucket does not exist" in wrong("annotate", "s3://nosuch/in", output, *ray).lower() or (
        "no parquet file" in wrong("annotate", "s3://nosuch/in", output, *ray)
    )
    (Address("s3://bucket/taken") / "notes.txt").write_bytes(b"mine")
    with pytest.raises(ConfigError, match="'s3://bucket/taken' holds other things"):
        Remote.of([str(INPUT)], "s3://bucket/taken")
    (Address("s3://bucket/mixed") / "a.parquet").write_bytes((INPUT / "a.parquet").read_bytes())
    other = io.BytesIO()
    pq.write_table(pa.table({"prompt": ["p"], "chosen": [1], "rejected": ["r"]}), other)
    (Address("s3://bucket/mixed") / "b.parquet").write_bytes(other.getvalue())
    (Address("s3://bucket/broken") / "a.parquet").write_bytes(b"PAR1 no more")
    for folder, message in (("mixed", "has other columns than"), ("broken", "as parquet")):
        remote = Remote.of([f"s3://bucket/{folder}"], output)
        with pytest.raises(DataError, match=message):
            label_remote(
                ray_nodes.followed(tmp_path / "log", 0.0),
                remote,
                WHERE,
                lambda report: report,
                cache_dir=str(tmp_path),
            )
    assert not ray_nodes.seen(tmp_path / "log", "done")
