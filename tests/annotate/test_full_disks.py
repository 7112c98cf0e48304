"""Disks that are really full or only read, folders that go, and memory that runs out."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from typing import Any

import datasets
import pytest
from helpers.commands import drsow, write, wrong
from helpers.fakes import fake_annotator
from helpers.killed_outputs import contents, former, is_whole, latter
from helpers.labelling import run, scores
from helpers.preferences import pairs
from helpers.small_disk import small_disk

from drsow_plugin.data.loading import load_data
from drsow_plugin.engines.local.failures import is_out_of_memory
from drsow_plugin.errors import StorageError
from drsow_plugin.scoring.drsow import DrSoW

ROWS = 24
ONE_LINE = r"^[^\n]* cannot be [^\n]*: No space left on device\. [^\n]*$"


def unfinished(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if "writing" in path.name or path.name[0] == "."]


@pytest.mark.fault(
    "disk",
    "the disk of the cache is full at any point of a run (a disk of 4 to 60 kB, mounted)",
    "one line; what is finished stays, nothing half written does; with room the same run goes on",
)
@pytest.mark.slow
def test_a_cache_that_is_full_at_any_point_loses_nothing_that_is_finished(tmp_path: Path) -> None:
    whole = list(run(fake_annotator(), pairs(ROWS), tmp_path / "whole"))
    kept = set()
    for kilobytes in (4, 20, 36, 52, 60):
        with small_disk(tmp_path / f"{kilobytes}", kilobytes) as disk:
            with pytest.raises(StorageError, match=ONE_LINE):
                run(fake_annotator(), pairs(ROWS), disk.path)
            finished = {path: path.stat().st_mtime_ns for path in scores(disk.path)}
            kept.add(len(finished))
            assert not unfinished(disk.path)
            disk.resize(4000)
            assert list(run(fake_annotator(), pairs(ROWS), disk.path)) == whole
            assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert len(kept) > 2


@pytest.mark.fault(
    "disk",
    "the disk of the output is full at any point of writing it (a disk of 8 to 24 kB, mounted)",
    "one line; the former output stays as it was; with room the same command writes it",
)
@pytest.mark.usefixtures("cache")
def test_an_output_that_is_full_at_any_point_stays_as_it_was(tmp_path: Path) -> None:
    for kilobytes in (0, 4, 8):  # beside the former output
        with small_disk(tmp_path / f"{kilobytes}", 4000) as disk:
            former(disk.path / "out")
            before = contents(disk.path)
            used = sum(-(-len(content) // 4096) for content in before.values())
            disk.resize(4 * used + kilobytes)
            with pytest.raises(StorageError, match=ONE_LINE):
                latter(disk.path / "out")
            assert contents(disk.path) == before and is_whole(disk.path / "out")
            disk.resize(4000)
            latter(disk.path / "out")
            assert contents(disk.path) != before and is_whole(disk.path / "out")
            assert not unfinished(disk.path)


@pytest.mark.fault(
    "disk",
    "the cache of datasets, or the folder for temporary files, is full as rows are read",
    "one line that names both; with room the same rows are read",
)
@pytest.mark.parametrize("name", ["rows.jsonl", "a folder [1]"])
def test_rows_that_there_is_no_room_to_read_are_told(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / name if name.endswith("jsonl") else tmp_path / name / "rows.jsonl"
    file.parent.mkdir(exist_ok=True)
    datasets.Dataset.from_list([{"prompt": "p" * 99, "response": "r" * 99}] * 500).to_json(file)
    with small_disk(tmp_path / "disk", 24) as disk:
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", disk.path)
        monkeypatch.setattr("tempfile.tempdir", str(disk.path))
        with pytest.raises(
            StorageError, match=ONE_LINE.replace("$", "HF_DATASETS_CACHE and TMPDIR[.]$")
        ):
            load_data([str(tmp_path / name)])
        disk.resize(4000)
        assert len(load_data([str(tmp_path / name)])) == 500


@pytest.mark.fault(
    "disk",
    "the folder for temporary files is full while rows are labelled",
    "the run is as ever: nothing is written there",
)
def test_labelling_writes_nothing_into_the_folder_for_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = list(run(fake_annotator(), pairs(ROWS), tmp_path / "whole"))
    with small_disk(tmp_path / "disk", 4) as disk:
        (disk.path / "full").write_bytes(b"0" * 4096)
        monkeypatch.setattr("tempfile.tempdir", str(disk.path))
        with pytest.raises(OSError) as full:
            (disk.path / "more").write_bytes(b"0")
        assert full.value.errno == errno.ENOSPC
        assert list(run(fake_annotator(), pairs(ROWS), tmp_path / "again")) == whole


@pytest.mark.fault(
    "folder",
    "the disk of the cache is mounted read-only",
    "rows whose scores are in it are labelled; for others one line, before a model is used",
)
def test_a_disk_that_is_only_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows_dir = str(tmp_path / "rows")
    with small_disk(tmp_path / "disk", 4000) as disk:
        first = list(run(fake_annotator(), pairs(8), disk.path))
        before = contents(disk.path)
        disk.make_read_only()
        with monkeypatch.context() as patched:
            patched.setattr(DrSoW, "score_rows", lambda *_a, **_k: pytest.fail("models were used"))
            again = run(fake_annotator(), pairs(8), disk.path, rows_dir=rows_dir)
            assert list(again) == first
            with pytest.raises(StorageError, match=r"^Scores cannot be .*: Read-only file system"):
                run(fake_annotator(), pairs(9), disk.path, rows_dir=rows_dir)
            with pytest.raises(StorageError, match=r"^OUTPUT .*: Read-only file system\."):
                former(disk.path / "out")
        assert contents(disk.path) == before
        disk.make_writable()
        assert len(run(fake_annotator(), pairs(9), disk.path)) == 9


@pytest.mark.fault(
    "folder",
    "there is no cache folder yet, or it is removed in the middle of a run",
    "it is made; where it was removed, one line, and the same run begins anew",
)
def test_a_cache_that_is_not_there_is_made_and_one_that_goes_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, rows = tmp_path / "new" / "cache", str(tmp_path / "rows")
    whole = list(run(fake_annotator(), pairs(ROWS), cache, rows_dir=rows))
    score, calls = DrSoW.score_rows, []

    def removing(*arguments: Any, **options: Any) -> Any:
        calls.append(0)
        if len(calls) == 3:
            shutil.rmtree(cache)
        return score(*arguments, **options)

    shutil.rmtree(cache)
    with monkeypatch.context() as patched:
        patched.setattr(DrSoW, "score_rows", removing)
        with pytest.raises(StorageError, match=r"^Scores cannot be .*: No such file or directory"):
            run(fake_annotator(), pairs(ROWS), cache, rows_dir=rows)
    assert list(run(fake_annotator(), pairs(ROWS), cache, rows_dir=rows)) == whole


@pytest.mark.slow
@pytest.mark.fault(
    "memory",
    "the memory of the machine runs out in the middle of `drsow annotate`",
    "one line; finished shards are kept, and the same command goes on",
)
def test_memory_of_the_machine_that_runs_out_is_one_line(
    tmp_path: Path, models: list[str], cache: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, score, calls = write(tmp_path / "rows.jsonl", pairs(12)), DrSoW.score_rows, []
    command = ["annotate", file, tmp_path / "out", *models, "--shard-rows", "4"]

    def starving(*arguments: Any, **options: Any) -> Any:
        calls.append(0)
        if len(calls) == 3:
            raise MemoryError
        return score(*arguments, **options)

    monkeypatch.setattr(DrSoW, "score_rows", starving)
    said = wrong(*command)
    assert "Error: The memory of this machine ran out. Finished work is kept: run again" in said
    assert len(scores(tmp_path / "cache")) == 2 and not unfinished(tmp_path / "cache")
    assert drsow(*command).exit_code == 0 and len(calls) == 4


def test_an_error_of_memory_is_told_from_others_whoever_raises_it() -> None:
    caused = RuntimeError("compiling failed")
    caused.__cause__ = MemoryError()
    no_room = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 GB")
    assert all(map(is_out_of_memory, (MemoryError(), caused, no_room)))
    assert not is_out_of_memory(RuntimeError("shapes differ"))
