"""The examples for schedulers: what they run is run here, with stand-ins for what starts it."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest
from helpers.commands import drsow, write
from helpers.hub_server import HubServer
from helpers.preferences import candidates

from drsow_plugin import Annotator

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
SLURM, SCRIPT = ROOT / "examples/slurm", ROOT / "examples/hf_jobs/annotate.py"

pytestmark = pytest.mark.usefixtures("cache")

# Runs each job of an array at once, and says so as Slurm does.
SBATCH = """#!/bin/bash
echo "$@" >> "$CALLS.sbatch"
tasks=none
while [[ $1 == --* ]]; do
  [[ $1 == --array=* ]] && tasks=$(seq -s' ' $(tr - ' ' <<< "${1#--array=}"))
  shift
done
for task in $tasks; do SLURM_ARRAY_TASK_ID=$task bash "$@" || exit; done
echo "7;cluster"
"""
COMMAND = '#!/bin/sh\nprintf \'%s\\037\' "$@" >> "$CALLS"; echo >> "$CALLS"\n'


@pytest.mark.slow
def test_the_jobs_of_slurm_label_shards_and_merge_them(tmp_path: Path, models: list[str]) -> None:
    for name, text in (("sbatch", SBATCH), ("drsow", COMMAND)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    calls = tmp_path / "calls"
    file, out = write(tmp_path / "rows.jsonl", candidates(9)), tmp_path / "out"
    environment = {
        **{"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "CALLS": str(calls)},
        "SBATCH_GPUS": "1",
    }
    arguments = [file, out, *models, "--shard-rows", "2"]
    done = subprocess.run(
        ["bash", SLURM / "submit.sh", "3", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "shards: job 7, then merge: job 7\n"
    array, merge = Path(f"{calls}.sbatch").read_text().splitlines()
    assert "--array=1-3" in array and "--dependency=afterok:7 --kill-on-invalid-dep=yes" in merge
    commands = [line.split("\x1f")[:-1] for line in calls.read_text().splitlines()]
    assert [c[-1] for c in commands] == ["1/3", "2/3", "3/3", str(out)]
    for command in commands:
        result = drsow(*command)
        assert result.exit_code == 0, result.output
    data = datasets.Dataset.from_list(candidates(9))
    cache = str(tmp_path / "python")
    expected = Annotator(models[1], models[3]).run(data, shard_rows=2, cache_dir=cache)
    (rows,) = (out / "data").iterdir()
    assert list(datasets.Dataset.from_parquet(str(rows))) == list(expected)
    few = subprocess.run(["bash", SLURM / "submit.sh", "3"], capture_output=True, text=True)
    assert few.returncode == 2 and "SHARDS INPUT OUTPUT" in few.stderr


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    spec = importlib.util.spec_from_file_location("hf_jobs_annotate", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(name: str, *arguments: str) -> None:
        """Run the script on a machine of its own."""
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        monkeypatch.setenv("DRSOW_CACHE", str(tmp_path / name / "cache"))
        module.main(list(arguments))

    return run


@pytest.mark.slow
def test_the_script_for_jobs_on_the_hub_labels_shards_and_merges_them(
    tmp_path: Path, models: list[str], server: HubServer, job: Any
) -> None:
    file = str(write(tmp_path / "rows.jsonl", candidates(9)))
    to = (file, "tester/labelled")
    for number in (2, 1):
        job(f"job-{number}", *to, "--shard", f"{number}/2", *models, "--shard-rows", "2")
    assert server.repositories["tester/labelled-shards"].private
    assert "tester/labelled" not in server.repositories
    job("merging", *to, "--merge", "--license", "cc0-1.0")
    expected = datasets.Dataset.from_parquet(str(tmp_path / "merging/labelled/data/*.parquet"))
    loaded = datasets.load_dataset("tester/labelled", split="train")
    assert len(loaded) == 9 and list(loaded) == list(expected)
    assert b"license: cc0-1.0" in server.repositories["tester/labelled"].files()["README.md"]
    with pytest.raises(SystemExit, match=r"^Error: No strong model was given"):
        job("wrong", *to, "--shard", "1/2")


def test_the_script_names_what_it_needs() -> None:
    text = SCRIPT.read_text(encoding="utf-8")
    found = re.search(r"^# /// script\n((?:#.*\n)+?)# ///$", text, re.MULTILINE)
    assert found is not None
    needed = tomllib.loads(re.sub(r"^# ?", "", found[1], flags=re.MULTILINE))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert needed == {
        "requires-python": project["requires-python"],
        "dependencies": [project["name"]],
    }
