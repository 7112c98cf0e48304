"""The command cache: what is kept, and what clean leaves alone."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import datasets
import pytest
from click.testing import CliRunner, Result
from helpers.preferences import pairs

from drsow_plugin import Annotator
from drsow_plugin.cache import unfinished
from drsow_plugin.cli import main

DAY = 24 * 3600


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, strong: str, weak: str) -> Path:
    """Return a cache with the scores of two pairs, one of them ten days old, and a model."""
    root = tmp_path_factory.mktemp("cache")
    data = datasets.Dataset.from_list(pairs(8))
    for template in ("tokenizer", "none"):
        annotator = Annotator(strong, weak, weak_template=template)
        annotator.run(data, cache_dir=str(root), rows_dir=str(root / "rows"), shard_rows=4)
        if template == "tokenizer":
            for file in (root / "scores").rglob("*.parquet"):
                os.utime(file, (time.time() - 10 * DAY,) * 2)
    (root / "converted" / "model").mkdir(parents=True)
    for name in ("converted.json", "model.safetensors"):
        (root / "converted" / "model" / name).write_bytes(b"0" * 1500)
    return root


@pytest.fixture
def root(kept: Path, tmp_path: Path) -> Path:
    shutil.rmtree(kept / "rows", ignore_errors=True)
    return Path(shutil.copytree(kept, tmp_path / "cache"))


def drsow(root: Path, *arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(main, ["cache", "--cache-dir", str(root), *arguments], input=stdin)


def scores(root: Path) -> int:
    return len(list((root / "scores").rglob("*.parquet")))


def test_what_is_kept_is_shown_by_pair(root: Path, strong: str, weak: str) -> None:
    lines = drsow(root).stdout.splitlines()
    assert lines[0].startswith(f"{root}: ") and len(lines) == 4
    plain = [line for line in lines if line.endswith(f"scores of {strong} over {weak}")]
    assert len(plain) == 1 and "2 files" in plain[0] and "10 days old" in plain[0]
    other = [line for line in lines if line.endswith(f"over {weak}, weak_template=none")]
    assert len(other) == 1 and "today" in other[0]
    assert "2 files     3.0 kB" in lines[-1] and lines[-1].endswith("converted model model")


def test_clean_asks_and_removes_what_is_old_enough(root: Path) -> None:
    assert scores(root) == 4
    refused = drsow(root, "clean", stdin="n\n")
    assert refused.exit_code == 1 and "Nothing was removed" in refused.stderr
    unanswered = drsow(root, "clean", stdin="")
    assert unanswered.exit_code == 1 and "--yes" in unanswered.stderr
    assert "Aborted" not in unanswered.stderr and scores(root) == 4
    assert drsow(root, "clean", "--older-than", "11", "--yes").stdout.startswith("Removed 0 files")
    assert drsow(root, "clean", "--older-than", "9", stdin="y\n").exit_code == 0
    assert scores(root) == 2 and len(list((root / "scores").iterdir())) == 1
    (root / "demo.gguf").write_text("demo")
    assert drsow(root, "clean", "--yes").exit_code == 0
    assert [path.name for path in root.rglob("*") if path.is_file()] == ["demo.gguf"]


@pytest.mark.fault(
    "clock",
    "the clock goes back, so that what is in the cache was written in the future",
    "`drsow cache clean` removes it, and with `--older-than` takes it for new",
)
def test_clean_removes_what_the_clock_says_is_of_the_future(root: Path) -> None:
    for file in (root / "scores").rglob("*.parquet"):
        os.utime(file, (time.time() + 10 * DAY,) * 2)
    assert "in use" not in drsow(root).stdout and drsow(root).stdout.count("today") == 3
    assert drsow(root, "clean", "--older-than", "1", "--yes").exit_code == 0
    assert scores(root) == 4
    assert drsow(root, "clean", "--yes").exit_code == 0
    assert scores(root) == 0


@pytest.mark.fault(
    "two runs",
    "`drsow cache clean` while a run is at work",
    "what the run uses stays, and is said to",
)
def test_clean_leaves_what_a_live_run_uses_and_what_a_link_leads_to(
    root: Path, tmp_path: Path, strong: str, weak: str
) -> None:
    folder, _ = (root / "scores").iterdir()
    before = {path.name for path in folder.iterdir()}
    (tmp_path / "elsewhere").mkdir()
    mine = tmp_path / "elsewhere" / "mine.parquet"
    mine.write_text("mine")
    (root / "scores" / "link").symlink_to(mine.parent)
    with unfinished(folder) as ours:
        assert "in use" in drsow(root).stdout
        assert "In use, and left: 1." in drsow(root, "clean", "--yes").stdout
        assert {path.name for path in folder.iterdir()} == {*before, ours.name}
    assert scores(root) == 2 and mine.read_text() == "mine"
    labelled = Annotator(strong, weak).run(
        datasets.Dataset.from_list(pairs(4)), cache_dir=str(root)
    )
    assert drsow(root, "clean", "--yes").exit_code == 0
    [file] = labelled.cache_files
    assert Path(file["filename"]).is_file() and scores(root) == 0
