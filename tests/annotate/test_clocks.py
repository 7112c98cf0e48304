"""A clock that jumps, models that change between runs, and runs that share a cache."""

from __future__ import annotations

import random
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import datasets
import pytest
from helpers.fakes import fake_annotator
from helpers.labelling import run, scores
from helpers.preferences import pairs

from drsow_plugin import Annotator, DrSoW
from drsow_plugin.cache import unfinished

DAY_S = 86_400


@pytest.fixture
def jumping(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the clock jump by up to ten days, either way, each time that it is looked at."""
    chance, now, now_ns = random.Random(6), time.time, time.time_ns
    jump = lambda: chance.randint(-10 * DAY_S, 10 * DAY_S)  # noqa: E731
    monkeypatch.setattr(time, "time", lambda: now() + jump())
    monkeypatch.setattr(time, "time_ns", lambda: now_ns() + jump() * 10**9)


@pytest.mark.fault(
    "clock",
    "the clock jumps by days at every look, while rows are labelled and labelled again",
    "the same rows; nothing is scored twice, and what live runs write stays",
)
def test_labelling_does_not_depend_on_the_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    whole = list(run(fake_annotator(), pairs(12), tmp_path / "whole"))
    request.getfixturevalue("jumping")
    assert list(run(fake_annotator(), pairs(12), tmp_path / "cache")) == whole
    monkeypatch.setattr(DrSoW, "score_rows", lambda *_a, **_k: pytest.fail("models were used"))
    assert list(run(fake_annotator(), pairs(12), tmp_path / "cache")) == whole
    with unfinished(tmp_path / "cache") as theirs:
        for _ in range(5):
            with unfinished(tmp_path / "cache") as ours:
                assert theirs.is_dir() and ours.is_dir()


@pytest.mark.fault(
    "clock",
    "the clock jumps by days at every look, while files of a model are hashed and watched",
    "the same fingerprint and rewards; no file is taken for changed",
)
def test_a_model_is_the_same_whatever_the_clock_says(
    strong: str, weak: str, request: pytest.FixtureRequest
) -> None:
    drsow = DrSoW(strong, weak)
    before = drsow.fingerprint, drsow.score(["q"], ["a"])
    request.getfixturevalue("jumping")
    for _ in range(3):
        again = DrSoW(strong, weak)
        assert (again.fingerprint, again.score(["q"], ["a"])) == before
        assert again.score(["q"], ["a"]) == before[1]


@pytest.mark.fault(
    "model",
    "another model stands in a folder when a run is started again",
    "its rows are scored anew, beside those of the former model, which are used when it is back",
)
def test_a_model_that_changes_between_runs_is_another(
    tmp_path: Path, strong: str, weak: str
) -> None:
    folder, data = tmp_path / "model", datasets.Dataset.from_list(pairs(4))
    labelled: list[Any] = []
    for source in (strong, weak, strong):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(source, folder)
        annotator = Annotator(str(folder), weak, weak_template="none")
        labelled.append(list(annotator.run(data, cache_dir=str(tmp_path / "cache"))))
    alone = Annotator(weak, weak, weak_template="none").run(data, cache_dir=str(tmp_path / "alone"))
    assert labelled[0] == labelled[2] != labelled[1] == list(alone)
    assert len(scores(tmp_path / "cache")) == 2


@pytest.mark.fault(
    "two runs",
    "two runs of the same rows on one cache at the same moment",
    "both have the rows of one alone; the cache is whole, and nothing else is left there",
)
def test_two_runs_on_one_cache_have_the_rows_of_one(tmp_path: Path) -> None:
    whole = list(run(fake_annotator(), pairs(24), tmp_path / "whole"))
    found: list[list[Any]] = []
    together = threading.Barrier(2)

    def label() -> None:
        annotator = fake_annotator()
        together.wait()
        found.append(list(run(annotator, pairs(24), tmp_path / "cache")))

    threads = [threading.Thread(target=label) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [whole, whole]
    names = [[file.name for file in scores(tmp_path / name)] for name in ("whole", "cache")]
    assert names[0] == names[1]
    assert not list((tmp_path / "cache").rglob("writing-*"))
