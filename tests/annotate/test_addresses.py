"""Finished work at an address of fsspec, and where rows are said to be scored."""

from __future__ import annotations

import importlib.util
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from helpers.commands import wrong
from helpers.fakes import fake_annotator
from helpers.labelling import run
from helpers.preferences import pairs

from drsow_plugin.addresses import Address, parse_place
from drsow_plugin.annotate.drivers import Where
from drsow_plugin.cache import cache_folder
from drsow_plugin.errors import ConfigError, StorageError

SCORES = "memory://scores"


@pytest.fixture
def memory() -> Iterator[Any]:
    files = fsspec.filesystem("memory")
    files.store.clear()
    yield files
    files.store.clear()
    files.pseudo_dirs[:] = [""]


def calls(annotator: Any) -> int:
    engine = annotator.scorer.open().config.strong.given.engine
    return len(engine.calls)


def test_a_run_goes_on_from_an_address_and_files_there_are_those_of_a_folder(
    memory: Any, tmp_path: Path, cache: None
) -> None:
    here = run(fake_annotator(), pairs(12), tmp_path)
    first = fake_annotator()
    there = first.run(here_data(12), cache_dir=SCORES, shard_rows=4)
    assert list(there) == list(here) and calls(first) > 0
    kept = {f"{path.parent.name}/{path.name}": path.read_bytes() for path in tmp_path.rglob("*/*")
            if path.parent.parent.name == "scores" and path.is_file()}  # fmt: skip
    assert {name.removeprefix("/scores/scores/"): memory.cat_file(name)
            for name in memory.find("/scores")} == kept  # fmt: skip
    again = fake_annotator()
    assert list(again.run(here_data(12), cache_dir=SCORES, shard_rows=4)) == list(here)
    assert calls(again) == 0


def here_data(count: int) -> Any:
    import datasets

    return datasets.Dataset.from_list(pairs(count))


@pytest.mark.fault(
    "shard",
    "a file of scores in an object store is cut short, or cannot be read just then",
    "a damaged file is scored again, one that could not be read stays",
)
def test_a_damaged_file_is_scored_again_and_one_that_cannot_be_read_is_not_removed(
    memory: Any, cache: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole = list(fake_annotator().run(here_data(8), cache_dir=SCORES, shard_rows=4))
    files = sorted(name for name in memory.find("/scores") if name.endswith(".parquet"))
    content = memory.cat_file(files[0])
    memory.pipe_file(files[0], content[: len(content) // 2])
    assert list(fake_annotator().run(here_data(8), cache_dir=SCORES, shard_rows=4)) == whole
    assert "is damaged and scored again" in caplog.text
    assert memory.cat_file(files[0]) == content

    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("the server is busy")

    monkeypatch.setattr(type(memory), "cat_file", refuse)
    with pytest.raises(StorageError, match="cannot be read: RuntimeError: the server is busy"):
        fake_annotator().run(here_data(8), cache_dir=SCORES, shard_rows=4)
    monkeypatch.undo()
    assert memory.cat_file(files[0]) == content


@pytest.mark.fault(
    "folder",
    "an object store refuses what is to be kept",
    "one line, before a row is scored",
)
def test_an_address_that_takes_nothing_is_told_before_rows_are_scored(
    memory: Any, cache: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Access Denied")

    monkeypatch.setattr(type(memory), "pipe_file", refuse)
    annotator = fake_annotator()
    with pytest.raises(StorageError, match=r"kept in memory://scores/scores/\w+: Access Denied\."):
        annotator.run(here_data(8), cache_dir=SCORES, shard_rows=4)
    assert calls(annotator) == 0


def test_an_address_pickles_as_its_text_and_file_addresses_are_folders(tmp_path: Path) -> None:
    address = parse_place("cache_dir", "memory://a/b/")
    assert isinstance(address, Address) and not (address / "c.x").is_file()
    assert pickle.loads(pickle.dumps(address / "c.x")) == Address("memory://a/b/c.x")
    assert ((address / "c.x").name, (address / "c.x").stem) == ("c.x", "c")
    assert parse_place("cache_dir", f"file://{tmp_path}") == tmp_path
    assert parse_place("cache_dir", str(tmp_path)) == tmp_path


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("nosuch://bucket/scores", "cache_dir='nosuch://bucket/scores' cannot be used: Protocol"),
        ("ftp://me:secret@host/scores", "an address with a password, a key or other options"),
        ("https://host/scores?key=secret", "an address with a password, a key or other options"),
    ],
)
def test_addresses_that_are_no_use_are_told_without_what_is_secret(
    address: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as told:
        fake_annotator().run(here_data(4), cache_dir=address)
    assert "secret" not in str(told.value)


def test_the_cache_folder_itself_is_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRSOW_CACHE", "s3://bucket")
    with pytest.raises(ConfigError, match="a folder of this machine, got 's3://bucket'"):
        cache_folder()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"driver": "spark"}, "Unknown value of driver 'spark'.*processes, ray"),
        ({"num_actors": 2}, "num_actors says nothing with driver=processes: driver=ray does"),
        ({"gpus_per_actor": 1}, "gpus_per_actor says nothing with driver=processes"),
        ({"driver": "ray", "num_proc": 2}, "num_proc says nothing with driver=ray: .* num_actors"),
        ({"driver": "ray"}, r"driver=ray needs .* pip install 'drsow-plugin\[ray\]'"),
        ({"num_proc": 0}, "num_proc is a whole number of at least 1, got 0"),
    ],
)
def test_what_is_wrong_with_where_rows_are_scored_is_told(
    options: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=message):
        fake_annotator().run(here_data(4), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_actors": 0}, "num_actors is a whole number of at least 1, got 0"),
        *[
            ({"gpus_per_actor": value}, "gpus_per_actor is a whole number of GPUs, 0 or a part")
            for value in (-1, 1.5, "many", float("nan"), float("inf"), True)
        ],
    ],
)
def test_what_is_wrong_with_actors_is_told(
    options: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    with pytest.raises(ConfigError, match=message):
        Where.of({"driver": "ray", **options})


def test_the_command_takes_the_same_options(models: list[str], preference_file: Path) -> None:
    command = ["annotate", str(preference_file), str(preference_file.with_name("out")), *models]
    assert "num_actors says nothing with driver=processes" in wrong(*command, "--num-actors", "2")
    assert "cannot be used: Protocol not known" in wrong(*command, "--cache-dir", "nosuch://a")
