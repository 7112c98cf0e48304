"""A data set labelled in shards, and merged, is what a single run makes of it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest
from helpers.fakes import fake_annotator
from helpers.preferences import candidates, pairs

from drsow_plugin import Annotator, ConfigError, DataError, Report
from drsow_plugin.annotate import report
from drsow_plugin.annotate.parts import merging
from drsow_plugin.annotate.parts.together import find_parts


def in_shards(folder: Path, of: int, data: Any, annotator: Annotator, **options: Any) -> Path:
    """Label all shards, the last one first, each with a cache of its own."""
    for number in range(of, 0, -1):
        run = {"shard": (number, of), "cache_dir": str(folder / f"cache-{number}"), **options}
        labelled = annotator.run(data, **run)
        assert annotator.report is not None
        annotator.report.save(labelled, folder / "shards" / str(number))
    return folder / "shards"


def files(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def saved(annotator: Annotator, labelled: Any, folder: Path) -> dict[str, bytes]:
    """Return the files of an output, without what depends on the day alone."""
    assert annotator.report is not None
    annotator.report.save(labelled, folder)
    found = files(folder)
    written = json.loads(found.pop("report.json"))
    assert written.pop("created")
    return {**found, "report": json.dumps(written).encode()}


def mixed(count: int = 23) -> list[dict[str, Any]]:
    """Return pairs of which some cannot be scored, with a column of groups."""
    rows = [{**row, "kind": "even" if row["id"] % 2 == 0 else "odd"} for row in pairs(count)]
    rows[2]["chosen"] = rows[8]["chosen"] = None
    rows[7]["prompt"] = rows[21]["prompt"]
    rows[5]["rejected"] = "lazy " * 600
    return rows


def rated(count: int = 23) -> list[dict[str, Any]]:
    rows = candidates(count)
    rows[4]["responses"] = None
    return [{**row, "ratings": [n % 3 for n in range(len(row["responses"] or ()))]} for row in rows]


def named(rows: list[dict[str, Any]]) -> datasets.Dataset:
    """Return rows with a column of classes, which are numbers on disk."""
    data = datasets.Dataset.from_list(rows)
    return data.add_column("kind", [n % 2 for n in range(len(rows))]).cast_column(
        "kind", datasets.ClassLabel(names=["x", "y"])
    )


def splits() -> datasets.DatasetDict:
    data = datasets.Dataset.from_list(pairs(14))
    return datasets.DatasetDict(a=data, b=data.select([3, 1, 2]))


CASES: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    "pairs": (mixed(), {"group_column": "kind", "relabel": "swap"}, {}),
    "all pairs": (mixed(), {"token_logprobs": True, "min_margin": 1}, {"keep_unusable": True}),
    "candidates": (rated(), {"select": "best_vs_median"}, {}),
    "classes": (named(candidates(9)), {"group_column": "kind"}, {}),
    "single": (
        [{"question": "q", "output": f"{n} a"} for n in range(9)],
        {"prompt_column": "question", "response_column": "output"},
        {},
    ),
    "renamed": (
        [{"q": "x", "a": r["chosen"], "b": r["rejected"]} for r in pairs(9)],
        {"prompt_column": "q", "chosen_column": "a", "rejected_column": "b"},
        {},
    ),
    "splits": (splits(), {}, {}),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.slow
def test_merged_shards_are_what_one_run_gives(
    tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if case != "pairs":  # of one case the pictures are compared too
        for module in (report, merging):
            monkeypatch.setattr(module, "draw", lambda _summaries, _title: {})
    data, labels, options = CASES[case]
    data = datasets.Dataset.from_list(data) if isinstance(data, list) else data
    annotator = fake_annotator(**labels)
    options = {"shard_rows": 4, **options}
    whole = annotator.run(data, cache_dir=str(tmp_path / "one"), **options)
    expected = saved(annotator, whole, tmp_path / "whole")
    assert ("margins.png" in expected) == (case == "pairs")
    for of in (3, 8):
        folder = tmp_path / str(of)
        shards = in_shards(folder, of, data, fake_annotator(**labels), **options)
        merged = annotator.merge(shards, rows_dir=str(tmp_path / "rows"))
        assert saved(annotator, merged, folder / "merged") == expected
        both = {"": (merged, whole)}
        if isinstance(merged, dict):
            both = {name: (merged[name], whole[name]) for name in whole}
        for rows, one in both.values():
            assert rows.features == one.features and list(rows) == list(one)


def test_shards_are_contiguous_whole_and_may_have_no_rows(tmp_path: Path) -> None:
    annotator = fake_annotator()
    data = datasets.Dataset.from_list(pairs(10))
    shards = in_shards(tmp_path, 5, data, annotator, shard_rows=4)
    found = [Report.load(shards / str(number)) for number in range(1, 6)]
    rows = [report.shard and report.shard["rows"]["train"] for report in found]
    assert sum(stop - start for start, stop in rows) == 10
    assert rows[0][0] == 0 and all(start % 4 == 0 for start, _ in rows)
    empty = [report for report, (start, stop) in zip(found, rows, strict=True) if start == stop]
    assert len(empty) == 2  # ten rows are three times four, or fewer
    assert empty[0].splits["train"].rows == 0
    assert len(annotator.merge(shards, rows_dir=str(tmp_path / "rows"))) == 10


def test_a_shard_that_was_labelled_before_scores_nothing(tmp_path: Path) -> None:
    data = datasets.Dataset.from_list(pairs(12))
    fake_annotator().run(data, shard_rows=4, cache_dir=str(tmp_path))
    kept = {file: file.stat().st_mtime_ns for file in tmp_path.glob("scores/*/*.parquet")}
    for number in (1, 2):
        run = {"shard": f"{number}/2", "shard_rows": 4, "cache_dir": str(tmp_path)}
        fake_annotator().run(data, **run)
    after = {file: file.stat().st_mtime_ns for file in tmp_path.glob("scores/*/*.parquet")}
    assert after == kept and len(kept) == 3


@pytest.fixture
def two(tmp_path: Path) -> Path:
    data = datasets.Dataset.from_list(pairs(12))
    return in_shards(tmp_path, 2, data, fake_annotator(), shard_rows=4)


def refused(shards: Any, tmp_path: Path) -> str:
    with pytest.raises((ConfigError, DataError)) as caught:
        fake_annotator().merge(shards, rows_dir=str(tmp_path / "rows"))
    assert not list((tmp_path / "rows").glob("*.arrow"))
    return str(caught.value)


@pytest.mark.fault(
    "shard",
    "shards (`--shard`) are missing or there twice, or of another number of them",
    "one line that names them; nothing is merged",
)
def test_missing_and_doubled_shards_are_named(tmp_path: Path, two: Path) -> None:
    assert "There are no shards in" in refused(tmp_path / "none", tmp_path)
    shutil.copytree(two / "2", two / "copy")
    said = refused(two, tmp_path)
    assert said.startswith("Shard 2/2 is there twice: ") and str(two / "copy") in said
    shutil.rmtree(two / "copy")
    shutil.rmtree(two / "2")
    said = refused(two, tmp_path)
    assert said.startswith("Shard 2 of 2 is missing, or not finished. ") and "--shard 2/2" in said
    data = datasets.Dataset.from_list(pairs(12))
    in_shards(tmp_path / "more", 3, data, fake_annotator(), shard_rows=4)
    shutil.copytree(tmp_path / "more/shards/3", two / "3")
    assert "shards of 2 (1) and of 3 (3), which do not belong" in refused(two, tmp_path)
    assert "whole data set" not in said


@pytest.mark.fault(
    "shard",
    "a file of a shard (`--shard`) was changed, or its report is missing or damaged",
    "one line that names the shard; nothing is merged",
)
def test_what_is_no_shard_or_was_changed_is_refused(tmp_path: Path, two: Path) -> None:
    annotator = fake_annotator()
    whole = annotator.run(datasets.Dataset.from_list(pairs(4)), cache_dir=str(tmp_path / "cache"))
    assert annotator.report is not None
    annotator.report.save(whole, two / "whole")
    assert "whole data set and no shard" in refused(two, tmp_path)
    shutil.rmtree(two / "whole")
    written = json.loads((two / "1/report.json").read_text())
    for damage in ({"shard": "1/x"}, {"shard": {"shard": "1/2"}}, {"shard": {"shard": "7/2"}}):
        (two / "1/report.json").write_text(json.dumps({**written, **damage}))
        assert refused(two, tmp_path)
    (two / "1/report.json").unlink()
    assert "Shard 1 of 2 is missing, or not finished" in refused(two, tmp_path)
    (two / "1/report.json").write_text(json.dumps(written))
    (rows,) = (two / "2/data").iterdir()
    rows.write_bytes(rows.read_bytes() + b"x")
    assert "was changed since its report was written" in refused(two, tmp_path)


@pytest.mark.fault(
    "shard",
    "shards (`--shard`) are of other rows, another pair or other options than the rest",
    "one line that says which and how they differ; nothing is merged",
)
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"min_margin": 2.0}, "annotation is {'min_margin': 0.0} and {'min_margin': 2.0}"),
        ({"reduction": "mean"}, "fingerprint is"),
        ({"shard_rows": 3}, "shard_rows is 4 and 3. Run the ones with the wrong options again. Gi"),
        ({"keep_unusable": True}, "{'keep_unusable': False} and {'keep_unusable': True}"),
        ({"rows": pairs(13)}, "are of different data"),
        ({"rows": [{**row, "id": 0} for row in pairs(12)]}, "are of different data"),
        ({"rows": [{**row, "more": 0} for row in pairs(12)]}, "are of different data"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_shards_of_other_data_or_options_are_refused(
    tmp_path: Path, two: Path, change: dict[str, Any], said: str
) -> None:
    run = {n: v for n, v in change.items() if n in ("shard_rows", "keep_unusable")}
    labels = {n: v for n, v in change.items() if n not in run and n != "rows"}
    data = datasets.Dataset.from_list(change.get("rows", pairs(12)))
    other = in_shards(
        tmp_path / "other", 2, data, fake_annotator(**labels), **{"shard_rows": 4, **run}
    )
    message = refused([two / "1", other / "2"], tmp_path)
    assert message.startswith("Shards 1/2 and 2/2 ") and said in message
    if labels == {"reduction": "mean"}:
        assert "by another pair" in refused(other, tmp_path)


def test_rows_that_do_not_follow_each_other_are_refused(tmp_path: Path, two: Path) -> None:
    for number in (1, 2):
        place = two / str(number) / "report.json"
        written = json.loads(place.read_text())
        written["shard"]["rows"]["train"] = [0, 8] if number == 1 else [4, 12]
        place.write_text(json.dumps(written))
    assert "and not those from" in refused(two, tmp_path)


def test_not_one_row_with_a_reward_is_an_error_when_shards_are_merged(tmp_path: Path) -> None:
    data = datasets.Dataset.from_list([{**row, "chosen": None} for row in pairs(8)])
    shards = in_shards(tmp_path, 2, data, fake_annotator(), shard_rows=4)
    with pytest.raises(DataError, match=r"^Not one of the 8 rows could be labelled: row 0"):
        fake_annotator().merge(shards, rows_dir=str(tmp_path / "rows"))


def test_versions_that_differ_between_machines_are_all_told(tmp_path: Path, two: Path) -> None:
    place = two / "2" / "report.json"
    written = json.loads(place.read_text())
    before = written["pair"]["versions"]["python"]
    written["pair"]["versions"]["python"] = "3.99.0"
    place.write_text(json.dumps(written))
    merged = merging.merge_parts(find_parts(two), tmp_path / "rows")
    assert merged.report.pair["versions"]["python"] == f"{before}, 3.99.0"


@pytest.mark.parametrize("value", ["0/3", "4/3", "3", "1/0", "a/b", "1/2/3", (1, 2, 3), 3, "-1/2"])
def test_what_is_no_shard_is_an_error(value: Any) -> None:
    data = datasets.Dataset.from_list(pairs(2))
    with pytest.raises(ConfigError, match=r"^shard is the number of one and how many"):
        fake_annotator().run(data, shard=value)


def test_streams_and_columns_that_are_rewritten_are_refused(tmp_path: Path) -> None:
    data = datasets.Dataset.from_list(pairs(4))
    options: dict[str, Any] = {"shard": "1/2", "cache_dir": str(tmp_path)}
    with pytest.raises(DataError, match="is a stream, whose rows cannot be counted"):
        fake_annotator().run(data.to_iterable_dataset(), **options)
    with pytest.raises(DataError, match="group_column=chosen is the prompt or a response"):
        fake_annotator(group_column="chosen").run(data, **options)
    with pytest.raises(DataError, match="has a column 'drsow_prompt_key', which shards are"):
        fake_annotator().run(data.add_column("drsow_prompt_key", [1] * 4), **options)


@pytest.mark.fault(
    "two runs",
    "shards of one data set are labelled at once on one cache, and one gets SIGKILL",
    "that shard, run again, goes on; nothing is scored twice, and merged it is what one run gives",
)
@pytest.mark.slow
def test_shards_at_once_on_one_cache_of_which_one_is_killed_lose_and_repeat_nothing(
    tmp_path: Path,
) -> None:
    script = str(Path(__file__).parents[1].joinpath("helpers", "killed_shards.py"))
    done = subprocess.run(
        [sys.executable, script, str(tmp_path)], check=True, capture_output=True, text=True
    )
    runs = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(runs) == 4
    assert all(run["same"] and run["finished"] for run in runs)
    assert not any(run["failed"] or run["scored_again"] or run["left"] for run in runs)
    assert sum(run["killed"] for run in runs) >= 2
