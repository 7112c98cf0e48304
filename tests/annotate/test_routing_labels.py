"""Routing in labelled data: the columns and the report, caches, other processes, bad rows."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.fakes import fake_annotator
from helpers.routing_plugin import PLUGIN, pairs

from drsow_plugin import Annotator, DataError, DrSoW, PluginError


def test_labelled_rows_name_their_domain_and_the_report_counts_them(
    plugin: str, tmp_path: Path
) -> None:
    annotate = fake_annotator(router="mine", plugin=plugin, domain_column="kind")
    mapped = pairs().map(annotate, batched=True, batch_size=5)
    labelled = annotate.run(pairs(), cache_dir=str(tmp_path / "cache"))
    expected = ["law", "strong-only", None, "law", None]
    assert labelled["drsow_domain"] == [expected[n % 5] for n in range(12)]
    assert list(mapped["drsow_domain"]) == list(labelled["drsow_domain"])
    assert annotate.report is not None
    report = annotate.report.values
    statistics = report["splits"]["train"]
    assert {k: v["rows"] for k, v in statistics["domains"].items()} == {
        "law": 5,
        "strong-only": 3,
        "(none)": 4,
    }
    won = [row["drsow_margin"] > 0 for row in labelled if row["drsow_domain"] == "law"]
    assert statistics["domains"]["law"]["accuracy"]["value"] == pytest.approx(sum(won) / 5)
    # law and strong-only are named for 8 rows, reasoning for 2, where the router says nothing
    assert statistics["agreement"]["n"] == 10 and statistics["agreement"]["value"] == pytest.approx(
        0.8
    )
    assert report["routing"]["router"] == "mine"
    assert report["routing"]["plugin"]["sha256"]
    assert {d["name"] for d in report["domains"]} >= {"law", "safety"}
    assert "domain law:" in str(annotate.report) and "router agrees" in str(annotate.report)
    assert (
        annotate.report_on(mapped).values["splits"]["train"]["domains"].keys()
        == statistics["domains"].keys()
    )


def test_other_routing_scores_anew_and_the_same_does_not(
    plugin: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = str(tmp_path / "cache")
    with_router = fake_annotator(router="mine", plugin=plugin).run(pairs(), cache_dir=cache)
    without = fake_annotator().run(pairs(), cache_dir=cache)
    assert with_router["drsow_margin"] != without["drsow_margin"]
    by_column = fake_annotator(router="column", plugin=plugin, domain_column="kind")
    first = by_column.run(pairs(), cache_dir=cache)
    moved = pairs().map(lambda row: {"kind": "law"})
    assert by_column.run(moved, cache_dir=cache)["drsow_margin"] != first["drsow_margin"]
    monkeypatch.setattr(DrSoW, "score_rows", None)  # no more of that
    again = fake_annotator(router="mine", plugin=plugin).run(pairs(), cache_dir=cache)
    assert list(again) == list(with_router)


def test_a_pickled_annotator_routes_alike(strong: str, weak: str, plugin: str) -> None:
    annotate = Annotator(strong, weak, router="mine", plugin=plugin)
    restored = pickle.loads(pickle.dumps(annotate))
    batch = pairs()[:5]
    assert restored(batch)["drsow_domain"] == annotate(batch)["drsow_domain"]
    assert restored.fingerprint == annotate.fingerprint


SCRIPT = """
import json, sys
import multiprocess
from drsow_plugin import Annotator
from helpers.routing_plugin import pairs

if __name__ == "__main__":
    # Fresh processes as with "spawn", but torch and the like are imported once for all of them.
    multiprocess.set_start_method("forkserver")
    multiprocess.set_forkserver_preload(["helpers.imported_once"])
    annotate = Annotator(sys.argv[1], sys.argv[2], router="mine", plugin=sys.argv[3])
    mapped = pairs().map(annotate, batched=True, batch_size=4, num_proc=2, with_rank=True)
    run = annotate.run(pairs(), num_proc=2, shard_rows=4)
    alone = pairs().map(annotate, batched=True, batch_size=4)
    columns = ("drsow_domain", "drsow_margin")
    print(json.dumps([[list(d[c]) for c in columns] for d in (mapped, run, alone)]))
"""


@pytest.mark.slow
def test_processes_route_alike(strong: str, weak: str, plugin: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "DRSOW_CACHE": str(tmp_path / "c"),
    }
    result = subprocess.run(
        [sys.executable, script, strong, weak, plugin],
        env=environment,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    mapped, run, alone = json.loads(result.stdout.splitlines()[-1])
    for domains, margins in (mapped, run):
        assert domains == alone[0] and margins == pytest.approx(alone[1], abs=1e-5)


def test_a_router_that_fails_stops_the_run_and_keeps_finished_work(
    plugin: str, tmp_path: Path
) -> None:
    Path(plugin).write_text(
        PLUGIN.replace("return [next", "assert '(9)' not in str(prompts)\n    return [next")
    )
    cache = tmp_path / "cache"
    with pytest.raises(PluginError, match=r"router 'mine' of the plugin .*mine.py"):
        fake_annotator(router="mine", plugin=plugin).run(
            pairs(), cache_dir=str(cache), shard_rows=4
        )
    assert len(list(cache.glob("scores/*/*.parquet"))) == 2


def test_a_missing_domain_column_is_an_error() -> None:
    data = pairs().remove_columns("kind")
    with pytest.raises(DataError, match=r"domain_column: Unknown column 'domain'"):
        fake_annotator(router="column")(data[:2])
    with pytest.raises(DataError, match=r"domain_column: Unknown column 'kind'"):
        fake_annotator(router="keyword", domain_column="kind")(data[:2])


def test_a_domain_that_is_no_text_is_a_bad_row() -> None:
    batch = {**pairs()[:2], "kind": [1, "chat"]}
    out = fake_annotator(router="column", domain_column="kind")(batch)
    assert out["drsow_status"] == ["bad row: the domain is the name of one, got 1.", "ok"]
