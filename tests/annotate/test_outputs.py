"""An output is of one run, whole, and never takes or gives away what is not its own."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import datasets
import pytest
from helpers.commands import drsow, write, wrong
from helpers.hub_server import HubServer
from helpers.killed_outputs import CASES, contents, former, is_whole, latter
from helpers.preferences import pairs

from drsow_plugin import Annotator, ConfigError, DataError, DrSoW, Report, publish
from drsow_plugin.annotate import place
from drsow_plugin.annotate.place import Place
from drsow_plugin.errors import StorageError

pytestmark = pytest.mark.usefixtures("cache")


@pytest.mark.fault(
    "kill",
    "SIGKILL of a run at any step of the exchange of its output",
    "the former output, or one that says that it is not whole; the same command makes it whole",
)
@pytest.mark.slow
def test_an_output_that_was_killed_at_any_step_is_made_whole_by_the_same_command(
    tmp_path: Path,
) -> None:
    script = str(Path(__file__).parents[1].joinpath("helpers", "killed_outputs.py"))
    done = subprocess.run(
        [sys.executable, script, str(tmp_path)], check=True, capture_output=True, text=True
    )
    runs = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    steps = Counter(run["case"] for run in runs if run["killed"])
    assert set(steps) == set(range(len(CASES))) and min(steps.values()) > 20
    assert all(run["same"] for run in runs)
    assert not any(run["mixed"] for run in runs)
    assert any(not run["whole"] for run in runs)  # killed in the middle of the exchange too


@pytest.mark.fault(
    "two runs",
    "two runs into one output",
    "the second one is refused in one line; what the first one writes stays",
)
@pytest.mark.parametrize("name", ["out", "out.parquet"])
def test_two_runs_into_one_output_do_not_mix(tmp_path: Path, name: str) -> None:
    with Place.of(tmp_path / name).reserved("in") as folder:
        (folder / "rows").write_text("theirs")
        with pytest.raises(ConfigError, match="Another run is writing"):
            latter(tmp_path / name)
        assert (folder / "rows").read_text() == "theirs"
    latter(tmp_path / name)
    assert is_whole(tmp_path / name)
    assert not list(tmp_path.rglob(".*"))


def test_only_files_that_the_report_names_are_removed_and_none_through_a_link(
    tmp_path: Path,
) -> None:
    out, mine = tmp_path / "out", tmp_path / "mine"
    former(out)
    report = json.loads((out / "report.json").read_text())
    mine.write_text("mine")
    for name in ("../mine", str(mine), "data/../../mine", "data/mine.txt", "mine.txt"):
        report["output"]["files"][name] = "0"
    for path in (out / "data" / "mine.txt", out / "mine.txt"):
        path.write_text("mine")
    (out / "report.json").write_text(json.dumps(report))
    (out / "margins.png").unlink()
    (out / "margins.png").symlink_to(mine)
    latter(out)
    assert {path.read_text() for path in (mine, out / "mine.txt", out / "data" / "mine.txt")} == {
        "mine"
    }
    assert not (out / "margins.png").is_symlink() and not list(out.glob("data/test-*"))
    (out / "data").rename(tmp_path / "data")
    (out / "data").symlink_to(tmp_path / "data")
    before = contents(tmp_path / "data")
    with pytest.raises(ConfigError, match="is a link"):
        former(out)
    assert contents(tmp_path / "data") == before


def test_a_file_that_would_be_read_as_rows_is_not_taken_along(tmp_path: Path) -> None:
    former(tmp_path / "out")
    strange = tmp_path / "out" / "data" / "old-00000-of-00001.parquet"
    strange.write_bytes(b"mine")
    with pytest.raises(ConfigError, match=r"old-00000-of-00001\.parquet, which report\.json does"):
        latter(tmp_path / "out")
    assert strange.read_bytes() == b"mine"


@pytest.mark.fault("disk", "no room for an output", "one line; the former output stays as it was")
def test_a_full_disk_leaves_the_former_output_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    former(tmp_path / "out")
    before = contents(tmp_path)

    def full(path: Path) -> str:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(place, "sha256_of", full)
    with pytest.raises(StorageError, match=r"^OUTPUT [^\n]*: No space left on device\. [^\n]*$"):
        latter(tmp_path / "out")
    assert contents(tmp_path) == before


@pytest.mark.slow
def test_another_input_or_split_into_the_same_output_is_refused(
    tmp_path: Path,
    models: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = datasets.Dataset.from_list(pairs(4))
    datasets.DatasetDict(train=data, test=data.select([0])).save_to_disk(tmp_path / "in")
    other, out = write(tmp_path / "other.jsonl", pairs(4)), tmp_path / "out"
    monkeypatch.chdir(tmp_path)
    assert drsow("annotate", "in", out, "--data-split", "test", *models).exit_code == 0
    before = contents(out)
    with monkeypatch.context() as patched:
        patched.setattr(DrSoW, "score_rows", lambda *_a, **_k: pytest.fail("models were used"))
        for given in ((other,), ("in", "--data-split", "train"), ("in",)):
            message = wrong("annotate", given[0], out, *given[1:], *models)
            assert "holds the labels of another input, in. Give another OUTPUT" in message
    assert contents(out) == before
    options = ("--data-split", "test", "--relabel", "swap")
    assert drsow("annotate", tmp_path / "in", out, *options, *models).exit_code == 0


@pytest.mark.slow
def test_a_split_keeps_its_name_in_the_output_the_report_and_on_the_hub(
    tmp_path: Path,
    models: list[str],
    server: HubServer,
) -> None:
    data = datasets.Dataset.from_list(pairs(4))
    datasets.DatasetDict(train=data, test=data.select([0, 1])).save_to_disk(tmp_path / "in")
    for name in ("out", "out.jsonl"):
        command = ("annotate", tmp_path / "in", tmp_path / name, "--data-split", "test", *models)
        result = drsow(*command)
        assert result.exit_code == 0 and result.stdout.startswith("test:")
        result = drsow("publish", tmp_path / name, f"tester/{name}")
        assert result.exit_code == 0, result.output
        published = datasets.load_dataset(f"tester/{name}")
        assert {key: len(split) for key, split in published.items()} == {"test": 2}
    loaded = datasets.load_dataset(str(tmp_path / "out"))
    assert {key: len(split) for key, split in loaded.items()} == {"test": 2}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
def test_a_single_file_is_published_with_the_report_beside_it(
    tmp_path: Path,
    models: list[str],
    server: HubServer,
    name: str,
) -> None:
    file, out = write(tmp_path / "rows.jsonl", pairs(4)), tmp_path / name
    assert drsow("annotate", file, out, *models).exit_code == 0
    result = drsow("publish", out, "tester/one")
    assert result.exit_code == 0, result.output
    files = server.repositories["tester/one"].files()
    assert {"README.md", "drsow/report.json", "drsow/margins.png"} <= set(files)
    assert "output" not in json.loads(files["drsow/report.json"])
    loaded = datasets.load_dataset("tester/one", split="train")
    reader = {".jsonl": datasets.Dataset.from_json, ".parquet": datasets.Dataset.from_parquet}
    assert list(loaded) == list(reader[out.suffix](str(out)))
    with out.open("ab") as changed:
        changed.write(b"\n")
    assert "was changed since its report" in wrong("publish", out, "tester/one")


@pytest.mark.parametrize("name", ["out", "out.jsonl", "out.parquet"])
def test_rows_and_report_are_saved_from_python_and_published(
    tmp_path: Path, strong: str, weak: str, server: HubServer, name: str
) -> None:
    annotate = Annotator(strong, weak)
    labelled = annotate.run(datasets.Dataset.from_list(pairs(4)).select([0, 2, 3]))
    report = annotate.report
    assert report is not None
    for _ in range(2):  # what it wrote itself may be written over
        assert report.save(labelled, tmp_path / name) == tmp_path / name
    assert Report.load(tmp_path / name).values == json.loads(report.json())
    publish(tmp_path / name, "tester/one")
    loaded = datasets.load_dataset("tester/one", split="train")
    assert list(loaded) == list(labelled)
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    for folder in (mine, theirs):
        folder.mkdir()
    (mine / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds other things"):
        report.save(labelled, mine)
    former(theirs)
    with pytest.raises(ConfigError, match=r"holds the labels of another input, in\. Give another"):
        report.save(labelled, theirs)
    with pytest.raises(DataError, match="split 'train' is a list"):
        report.save(list(labelled), tmp_path / name)  # type: ignore[arg-type]


def test_an_output_that_is_not_whole_is_not_published(tmp_path: Path) -> None:
    former(tmp_path / "out")
    (tmp_path / "out" / ".drsow-unfinished").write_text('{"files": []}')
    assert "is not whole" in wrong("publish", tmp_path / "out", "tester/one")
