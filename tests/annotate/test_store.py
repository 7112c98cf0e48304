"""Files of finished work: damage, live and killed runs, disks that are full, signals."""

from __future__ import annotations

import dataclasses
import errno
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from helpers.fakes import fake_annotator
from helpers.labelling import run, scores
from helpers.preferences import pairs

from drsow_plugin import Annotator, ConfigError, DrSoW, Reward, Scoring
from drsow_plugin import table_store as stores
from drsow_plugin.annotate import drivers, runner, writing
from drsow_plugin.annotate.items import Item
from drsow_plugin.annotate.store import open_store
from drsow_plugin.cache import unfinished
from drsow_plugin.cli import main
from drsow_plugin.errors import Interrupted, StorageError
from drsow_plugin.records import Problem, Reduction

ITEMS = [Item(({"role": "user", "content": f"q{n}"},), ("a", "b")) for n in range(32)]
FLIPS = 300


def some_rewards(reduction: Reduction = "sum") -> list[list[Reward | None]]:
    chance, scoring = random.Random(3), Scoring(reduction=reduction)

    def reward() -> Reward:
        strong, weak = -chance.uniform(1, 50), -chance.uniform(1, 50)
        value = strong - weak if reduction == "sum" else strong / 3 - weak / 4
        notes = ("a note",) * chance.randrange(2)
        return Reward(value, strong, weak, 3, 4, notes=notes, scoring=scoring)

    return [[reward(), reward()] for _ in ITEMS]


@pytest.mark.fault(
    "shard",
    "any bit of a file of scores is flipped",
    "the file is dropped with a warning and its rows are scored again; never a wrong number",
)
def test_a_score_file_with_any_bit_flipped_is_never_believed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rewards, chance, dropped = some_rewards(), random.Random(4), 0
    with open_store(tmp_path, Scoring()) as store:
        store.save(ITEMS, rewards)
        path = store.path(ITEMS)
        whole = path.read_bytes()
        for _ in range(FLIPS):
            damaged, bit = bytearray(whole), chance.randrange(8 * len(whole))
            damaged[bit // 8] ^= 1 << bit % 8
            path.write_bytes(damaged)
            found = store.load(ITEMS)
            assert found in (None, rewards)
            assert path.exists() == (found is not None)
            dropped += found is None
    assert dropped > FLIPS / 2
    told = [record for record in caplog.records if "damaged and scored again" in record.message]
    assert len(told) == dropped


@pytest.mark.fault(
    "shard",
    "a reward in a file of scores is not strong - weak",
    "the file is dropped and its rows are scored again",
)
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_a_reward_that_is_not_the_difference_is_not_believed(
    tmp_path: Path, reduction: Any
) -> None:
    rewards = some_rewards(reduction)
    with open_store(tmp_path, Scoring(reduction=reduction)) as store:
        store.save(ITEMS, rewards)
        assert store.load(ITEMS) == rewards
        right = rewards[7][1]
        assert right is not None
        for wrong in (right.reward + 1e-9, float("nan"), None):  # type: ignore[operator]
            rewards[7][1] = dataclasses.replace(right, reward=wrong)
            store.save(ITEMS, rewards)
            assert store.load(ITEMS) is None
        problems = (Problem("too long", "…"),)
        rewards[7][1] = dataclasses.replace(right, reward=None, problems=problems)
        store.save(ITEMS, rewards)
        assert store.load(ITEMS) == rewards


@pytest.mark.fault(
    "shard",
    "a file of scores is of other rows, or has other columns",
    "the file is dropped and its rows are scored again",
)
def test_a_score_file_of_other_rows_or_columns_is_not_believed(tmp_path: Path) -> None:
    others = [dataclasses.replace(item, responses=("c", "d")) for item in ITEMS]
    with open_store(tmp_path, Scoring()) as store:
        store.save(ITEMS, some_rewards())
        path = store.path(ITEMS)
        path.rename(store.path(others))
        assert store.load(others) is None
        store.save(ITEMS, some_rewards())
        table = pq.read_table(path)
        pq.write_table(table.drop_columns(["notes"]), path)
        assert store.load(ITEMS) is None
        pq.write_table(table.replace_schema_metadata(None), path)
        assert store.load(ITEMS) is None


HOLD = """
import sys, time
from pathlib import Path
from drsow_plugin.cache import unfinished
with unfinished(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(60)
"""


@pytest.mark.fault(
    "kill",
    "SIGKILL of a run while it writes into the cache",
    "the next run removes what was half written, and leaves what live runs write",
)
def test_what_a_killed_run_left_goes_and_what_a_live_run_writes_stays(tmp_path: Path) -> None:
    for name, hours in (("writing-old", 25), ("writing-new", 1), ("whole", 50)):
        (tmp_path / name).mkdir()
        then = time.time() - 3600 * hours
        os.utime(tmp_path / name, (then, then))
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as live:
        assert live.stdout is not None and live.stdout.readline() == b"locked\n"
        [theirs] = set(tmp_path.iterdir()) - {tmp_path / name for name in ("writing-new", "whole")}
        then = time.time() - 3600 * 50
        for path in (theirs, theirs / "lock"):
            os.utime(path, (then, then))
        with unfinished(tmp_path):
            assert theirs.is_dir()
        live.kill()
    with unfinished(tmp_path) as ours:
        assert {p.name for p in tmp_path.iterdir()} == {"writing-new", "whole", ours.name}
    assert not ours.exists()


def test_what_is_left_over_is_not_followed_through_a_link(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("lock", "mine.txt"):
        (elsewhere / name).write_text("mine")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "writing-link").symlink_to(elsewhere)
    with unfinished(tmp_path / "cache"):
        pass
    assert (elsewhere / "mine.txt").read_text() == "mine"


@pytest.mark.fault(
    "folder",
    "the cache can be read and not written",
    "rows whose scores are in it are labelled; for others one line, before a model is used",
)
def test_a_cache_that_is_only_read_is_enough_where_all_scores_are_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(fake_annotator(), pairs(8), tmp_path / "cache")
    make = stores.unfinished

    def refuse(folder: Path) -> Any:
        if "scores" in folder.parts:
            raise OSError(errno.EROFS, "Read-only file system")
        return make(folder)

    monkeypatch.setattr(stores, "unfinished", refuse)
    monkeypatch.setattr(DrSoW, "score_rows", lambda *_a, **_k: pytest.fail("models were used"))
    cache, rows = tmp_path / "cache", str(tmp_path / "rows")
    again = run(fake_annotator(), pairs(8), cache, rows_dir=rows)
    assert list(again) == list(first)
    with pytest.raises(StorageError, match=r"Read-only file system\. Make room"):
        run(fake_annotator(), pairs(9), cache, rows_dir=rows)


@pytest.mark.fault(
    "disk",
    "no room in the cache, for scores or for labelled rows",
    "one line; finished shards are kept, half-written files are gone, and the same run goes on",
)
@pytest.mark.parametrize("where", ["scores", "rows"])
def test_a_full_disk_is_told_in_one_line_and_leaves_what_is_finished(
    tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes = {"scores": (stores.pq, "write_table"), "rows": (writing.ArrowWriter, "write_table")}
    home, name = writes[where]
    write, calls = getattr(home, name), []

    def full(*arguments: Any, **options: Any) -> Any:
        calls.append(0)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(*arguments, **options)

    def close(self: Any) -> None:  # writes what is buffered, once more
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(home, name, full)
        if where == "rows":
            patched.setattr(home, "close", close)
        with pytest.raises(StorageError, match=r"^[^\n]*cannot be .*: No space left on device\. "):
            run(fake_annotator(), pairs(12), tmp_path)
    assert len(scores(tmp_path)) == (2 if where == "scores" else 3)
    assert not list(tmp_path.rglob("writing-*"))
    whole = run(fake_annotator(), pairs(12), tmp_path / "other")
    assert list(run(fake_annotator(), pairs(12), tmp_path)) == list(whole)


@pytest.mark.fault(
    "folder",
    "the cache is a file, lies below one, or is in the home of nobody",
    "one line, before a model is used",
)
@pytest.mark.parametrize("kind", ["a file", "below a file", "of nobody"])
def test_a_cache_that_cannot_be_used_is_told_before_models_are(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    names = {"a file": str(file), "below a file": f"{file}/cache", "of nobody": "~no-such-user/x"}
    monkeypatch.setattr(DrSoW, "score_rows", lambda *_a, **_k: pytest.fail("models were used"))
    with pytest.raises(ConfigError, match=r"^The cache folder '[^\n]+ cannot be used: [^\n]+$"):
        run(fake_annotator(), pairs(), Path(names[kind]))
    monkeypatch.setenv("DRSOW_CACHE", names[kind])
    with pytest.raises(ConfigError, match="DRSOW_CACHE"):
        fake_annotator().run(datasets.Dataset.from_list(pairs()))


@pytest.mark.parametrize("asked", [0, -1, 2.5, "many", 100_000])
def test_a_number_of_processes_out_of_bounds_is_refused(
    tmp_path: Path, asked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drivers.os, "cpu_count", lambda: 4)
    with pytest.raises(ConfigError, match=r"num_proc"):
        run(fake_annotator(), pairs(), tmp_path, num_proc=asked)
    assert [drivers.parse_processes(value) for value in (None, "1", 4)] == [1, 1, 4]


def test_no_more_processes_are_started_than_there_are_shards(
    tmp_path: Path, strong: str, weak: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drivers.os, "cpu_count", lambda: 4)
    monkeypatch.setattr(runner, "score_in_processes", lambda *_a, **_k: pytest.fail("processes"))
    assert len(run(Annotator(strong, weak), pairs(4), tmp_path, num_proc=4)) == 4


@pytest.mark.fault(
    "kill",
    "SIGINT or SIGTERM of `drsow annotate`",
    "one line that says how many shards are kept; status 130 or 143; the same command goes on",
)
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.slow
def test_a_signal_ends_a_command_with_one_line_and_its_status(
    *, tmp_path: Path, strong: str, weak: str, number: int, status: int, monkeypatch: Any
) -> None:
    file = tmp_path / "rows.jsonl"
    datasets.Dataset.from_list(pairs(12)).to_json(file)
    monkeypatch.setenv("DRSOW_CACHE", str(tmp_path / "cache"))
    score, calls = DrSoW.score_rows, []

    def interrupted(*arguments: Any, **options: Any) -> Any:
        calls.append(0)
        if len(calls) == 3:
            os.kill(os.getpid(), number)
        return score(*arguments, **options)

    command = ["annotate", str(file), str(tmp_path / "out"), "--strong", strong, "--weak", weak]
    command += ["--shard-rows", "4"]
    with monkeypatch.context() as patched:
        patched.setattr(DrSoW, "score_rows", interrupted)
        result = CliRunner().invoke(main, command)
    assert result.exit_code == status
    assert result.stderr.splitlines()[-1] == (
        "Interrupted: 2 of 3 shards are kept; the same run goes on from there."
    )
    assert "Aborted" not in result.stderr and "Traceback" not in result.stderr
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert not list((tmp_path / "cache").rglob("writing-*"))
    assert CliRunner().invoke(main, command).exit_code == 0 and len(calls) == 3


@pytest.mark.fault(
    "kill",
    "Ctrl-C in a run with `num_proc`",
    "all processes end, no traceback; one line says how many shards are kept",
)
@pytest.mark.slow
def test_an_interrupt_ends_all_processes_without_a_traceback(
    tmp_path: Path, strong: str, weak: str, capfd: pytest.CaptureFixture[str]
) -> None:
    def interrupt() -> None:  # as a terminal does: every process gets it
        while not scores(tmp_path):
            time.sleep(0.01)
        for process in [*multiprocessing.active_children(), multiprocessing.current_process()]:
            assert process.pid is not None
            os.kill(process.pid, signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(Interrupted, match=r"^[1-9]\d* of 60 shards are kept"):
        run(Annotator(strong, weak), pairs(240), tmp_path, num_proc=2)
    assert not multiprocessing.active_children()
    assert "Traceback" not in capfd.readouterr().err
