"""Labels by the actors of a real Ray cluster of two nodes on loopback, and what is lost there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
from helpers import ray_nodes
from helpers.labelling import scores

from drsow_plugin.errors import ConfigError, EngineError, StorageError

pytestmark = [pytest.mark.ray, pytest.mark.slow]
ROWS = 96
SHARDS = ROWS // 4
LATENCY = 0.02  # of a response and a model: a third of a second for a shard


BUCKET = "bucket"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with ray_nodes.object_store(BUCKET), ray_nodes.nodes() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def expected() -> datasets.Dataset:
    """Return what ``datasets.map`` makes of the rows, in this process."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        annotator = ray_nodes.followed(Path(folder), 0.0)
        data = datasets.Dataset.from_list(ray_nodes.rows(ROWS))
        return data.map(annotator, batched=True, batch_size=ROWS, new_fingerprint="mapped")


def check_same(labelled: datasets.Dataset, expected: datasets.Dataset) -> None:
    assert {"drsow_margin", "drsow_status", "prompt"} < {*labelled.column_names}
    for name in labelled.column_names:
        assert labelled[name][:] == expected[name][:], name


def test_rows_are_those_of_map_and_nothing_is_scored_twice(
    cluster: Any, expected: datasets.Dataset, tmp_path: Path
) -> None:
    log, cache = tmp_path / "log", str(tmp_path / "cache")
    check_same(ray_nodes.run(log, LATENCY, cache, ROWS), expected)
    done = ray_nodes.times_done(log)
    assert len(done) == SHARDS and set(done.values()) == {1}
    assert len({pid for pid, _ in ray_nodes.seen(log, "done")}) == 2
    assert all(ray_nodes.seen(log, "done", node.node_id) for node in cluster.list_all_nodes())
    # One bad row costs one row: what the engine refused, and what cannot be read.
    problems = [status for status in expected["drsow_status"] if status != "ok"]
    assert len(problems) == 1 + len(range(5, ROWS, 11))
    # The same store serves the driver of this machine.
    again = ray_nodes.run(log, LATENCY, cache, ROWS, driver=None, num_actors=None)
    check_same(again, expected)
    assert ray_nodes.times_done(log) == done


@pytest.mark.fault(
    "worker",
    "an actor of a Ray cluster is killed",
    "another scores its unfinished shard; nothing else is scored again",
)
def test_of_an_actor_that_is_killed_only_the_unfinished_shard_is_scored_again(
    cluster: Any, expected: datasets.Dataset, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    killed: list[str] = []
    kept: set[str] = set()

    def kill() -> None:
        ray_nodes.wait_for(lambda: len(ray_nodes.seen(log, "done")) >= 4, "shards are done")
        ray_nodes.wait_for(lambda: ray_nodes.seen(log, "begun"), "a shard is begun")
        pid, first = ray_nodes.seen(log, "begun")[0]
        os.kill(pid, signal.SIGKILL)
        killed.append(first)
        kept.update(path.stem for path in scores(tmp_path))

    thread, failures = ray_nodes.meanwhile(kill)
    labelled = ray_nodes.run(log, LATENCY, str(tmp_path), ROWS)
    thread.join()
    assert not failures and killed
    check_same(labelled, expected)
    ray_nodes.check_done(log, SHARDS, kept, most=1)
    assert [first for _, first in ray_nodes.seen(log, "begun")] == killed


@pytest.mark.fault(
    "worker",
    "a node of a Ray cluster is killed",
    "the actors of others score its unfinished shards; nothing else is scored again",
)
def test_of_a_node_that_is_lost_only_unfinished_shards_are_scored_again(
    cluster: Any, expected: datasets.Dataset, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    lost = cluster.add_node(**ray_nodes.NODE)
    before = {node for node in cluster.worker_nodes if node is not lost}
    kept: set[str] = set()

    def kill() -> None:
        ray_nodes.wait_for(lambda: ray_nodes.seen(log, "done", lost.node_id), "it did a shard")
        ray_nodes.wait_for(lambda: ray_nodes.seen(log, "begun", lost.node_id), "it is at work")
        cluster.remove_node(lost, allow_graceful=False)
        kept.update(path.stem for path in scores(tmp_path))

    thread, failures = ray_nodes.meanwhile(kill)
    # Slower than elsewhere: there has to be work left while the node's processes are killed.
    labelled = ray_nodes.run(log, 4 * LATENCY, str(tmp_path), ROWS, num_actors=6)
    thread.join()
    assert not failures and {*cluster.worker_nodes} == before
    check_same(labelled, expected)
    ray_nodes.check_done(log, SHARDS, kept, most=2)
    unfinished = [first for _, first in ray_nodes.seen(log, "begun", lost.node_id)]
    assert len(unfinished) in (1, 2)  # one for each of the actors that were at work there
    assert len(ray_nodes.seen(log, "begun")) == len(unfinished)


@pytest.mark.fault(
    "kill",
    "the driver of a run on a Ray cluster is killed",
    "its actors end; the same run goes on from what they kept",
)
def test_a_job_whose_driver_was_killed_goes_on_where_it_was(
    cluster: Any, expected: datasets.Dataset, tmp_path: Path
) -> None:
    log, cache = tmp_path / "log", tmp_path / "cache"
    log.mkdir()
    code = "from helpers import ray_nodes; ray_nodes.main()"
    arguments = [str(log), str(LATENCY), str(cache), str(ROWS)]
    with subprocess.Popen([sys.executable, "-c", code, *arguments]) as driver:
        ray_nodes.wait_for(lambda: len(scores(cache)) >= 5, "shards are kept")
        driver.kill()
    actors = {pid for suffix in ("begun", "done") for pid, _ in ray_nodes.seen(log, suffix)}
    ray_nodes.wait_for(lambda: not any(map(is_alive, actors)), "its actors are gone")
    kept = {path.name for path in scores(cache)}
    assert 5 <= len(kept) < SHARDS
    before = ray_nodes.times_done(log)
    assert len(before) - len(kept) in (0, 1, 2)  # done, and not yet kept by one of two actors
    check_same(ray_nodes.run(log, LATENCY, str(cache), ROWS), expected)
    twice = sum(ray_nodes.times_done(log).values()) - SHARDS
    assert twice == len(before) - len(kept)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.fault(
    "rows",
    "every actor of a Ray cluster that scores some rows dies",
    "one line that names the shard, after five deaths; the rest is kept",
)
def test_rows_of_which_every_actor_dies_end_the_run_and_not_the_work(
    cluster: Any, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    data = datasets.Dataset.from_list(ray_nodes.rows(24))
    how: dict[str, Any] = {"cache_dir": str(tmp_path), "shard_rows": 4, "driver": "ray"}
    with pytest.raises(EngineError, match=r"5 actors of the Ray cluster died .* the shard 2: "):
        ray_nodes.followed(log, 0.0, "Question 9").run(data, num_actors=1, **how)
    deaths = [first for _, first in ray_nodes.seen(log, "begun")]
    assert deaths == ["Question 8"] * 5
    kept = {path.stem for path in scores(tmp_path)}
    assert kept and kept <= {*ray_nodes.times_done(log)}


def test_what_the_cluster_has_no_room_for_is_told_at_once(cluster: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gpus_per_actor=1: no node .* the most is 0\."):
        ray_nodes.run(tmp_path / "log", 0.0, str(tmp_path), 8, gpus_per_actor=1)
    with pytest.raises(ConfigError, match=r"num_actors=9: .* 2 nodes has room for 4 with 1 CPU"):
        ray_nodes.run(tmp_path / "log", 0.0, str(tmp_path), 8, num_actors=9)


@pytest.mark.fault(
    "folder",
    "the nodes of a Ray cluster do not share the folder of scores",
    "one line, before a row is scored",
)
def test_a_folder_that_other_nodes_do_not_see_is_told(cluster: Any, tmp_path: Path) -> None:
    from drsow_plugin.annotate.actor import Actor
    from drsow_plugin.annotate.store import open_store
    from drsow_plugin.records import Scoring

    scorer = ray_nodes.followed(tmp_path / "log", 0.0).scorer
    with open_store(tmp_path / "here", Scoring()) as store:
        actor = Actor(scorer, store, lambda _: 1, 1)
    with pytest.raises(StorageError, match="not the same on all nodes"):
        actor._check_shared()


def test_scores_in_an_object_store_are_kept_by_the_actors_and_serve_the_next_run(
    cluster: Any, tmp_path: Path
) -> None:
    import fsspec

    cache = f"s3://{BUCKET}/of/scores"
    labelled = ray_nodes.run(tmp_path / "log", 0.0, cache, 24)
    files = fsspec.filesystem("s3", skip_instance_cache=True).find(cache)
    assert sum(name.endswith(".parquet") for name in files) == 24 // 4
    again = tmp_path / "again"
    here = ray_nodes.run(again, 0.0, cache, 24, driver=None, num_actors=None)
    check_same(here, labelled)
    assert not ray_nodes.seen(again, "done")
    with pytest.raises(StorageError, match="cannot be kept in s3://nosuch/scores/"):
        ray_nodes.run(again, 0.0, "s3://nosuch", 24)
    assert not ray_nodes.seen(again, "done")


def test_actors_without_a_gpu_ask_models_on_servers(
    cluster: Any, strong: str, weak: str, tmp_path: Path
) -> None:
    from helpers.model_server import ModelServer
    from helpers.served import saved

    from drsow_plugin import Annotator

    with (
        ModelServer(model=saved(strong, "one")) as one,
        ModelServer(model=saved(weak, "two")) as two,
    ):
        where = {"strong_server": one.url, "strong_server_model": "one"}
        where |= {"weak_server": two.url, "weak_server_model": "two"}
        annotator = Annotator(strong, weak, **where)
        data = datasets.Dataset.from_list(ray_nodes.rows(12))
        mapped = data.map(annotator, batched=True, batch_size=12, new_fingerprint="mapped")
        one.forget()
        labelled = annotator.run(
            data,
            cache_dir=str(tmp_path),
            shard_rows=4,
            driver="ray",
            num_actors=2,
            keep_unusable=True,
        )
        check_same(labelled, mapped)
        assert one.scored
    here = Annotator(strong, weak, dtype="float64")
    rewards = data.map(here, batched=True, batch_size=12, new_fingerprint="here")["drsow_margin"]
    assert labelled["drsow_margin"][:] == pytest.approx(rewards[:], abs=1e-9)
