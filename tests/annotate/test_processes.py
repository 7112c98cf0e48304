"""Labelling in other processes gives what it gives in one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import datasets
import pytest
from helpers import tiny
from helpers.preferences import candidates, pairs

from drsow_plugin import Annotator

pytestmark = pytest.mark.slow

HASHES = """
import shutil, sys
sys.path.insert(0, {tests!r})
import datasets, torch
torch.set_num_threads(1)
from datasets.fingerprint import Hasher
from drsow_plugin import Annotator, DrSoW
annotator = Annotator({strong!r}, {weak!r}, template={template!r}, relabel="swap")
before = Hasher.hash(annotator)
data = datasets.load_dataset("json", data_files={file!r}, cache_dir={cache!r}, split="train")
if sys.argv[1] == "again":
    def refuse(*_args, **_options):
        raise AssertionError("scored again")
    DrSoW.score_rows = refuse
labelled = data.map(annotator, batched=True, batch_size=4)
assert Hasher.hash(annotator) == before
print(before, labelled._fingerprint, labelled["drsow_margin"][0])
if sys.argv[1] == "again":
    shutil.copyfile({other!r}, {template!r})
    changed = Annotator({strong!r}, {weak!r}, template={template!r}, relabel="swap")
    data.map(changed, batched=True, batch_size=4)
"""


def test_a_rerun_in_another_process_is_read_from_the_cache(
    tmp_path: Path, strong: str, weak: str
) -> None:
    file = tmp_path / "rows.jsonl"
    datasets.Dataset.from_list(pairs()).to_json(file)
    template = tmp_path / "template.jinja"
    template.write_text(tiny.CHATML)
    other = tmp_path / "other.jinja"
    other.write_text(tiny.CHATML.replace("assistant\n", "assistant\n\n"))
    code = HASHES.format(
        tests=str(Path(__file__).parents[1]),
        strong=strong,
        weak=weak,
        template=str(template),
        other=str(other),
        file=str(file),
        cache=str(tmp_path / "cache"),
    )

    def run(argument: str) -> tuple[list[str], str]:
        command = [sys.executable, "-c", code, argument]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.stdout.split(), done.stderr

    first, errors = run("first")
    assert len(first) == 3, errors
    again, errors = run("again")
    assert again == first
    assert "scored again" in errors  # once the template was another


SPAWN = """
import sys
import datasets, multiprocess
from drsow_plugin import Annotator

if __name__ == "__main__":
    # Fresh processes as with "spawn", but torch and the like are imported once for all of them.
    multiprocess.set_start_method("forkserver")
    multiprocess.set_forkserver_preload(["helpers.imported_once"])
    data = datasets.load_dataset("json", data_files=sys.argv[1], split="train")
    annotator = Annotator(sys.argv[3], sys.argv[4], batch_size=1)
    labelled = data.map(
        annotator, batched=True, batch_size=4, num_proc=2, with_rank=True
    )
    labelled.to_parquet(sys.argv[2])
"""


def test_two_processes_give_the_rows_of_one(tmp_path: Path, strong: str, weak: str) -> None:
    file, out, script = (tmp_path / name for name in ("rows.jsonl", "out.parquet", "script.py"))
    data = datasets.Dataset.from_list(candidates(11))
    data.to_json(file)
    script.write_text(SPAWN)
    command = [sys.executable, str(script), str(file), str(out), strong, weak]
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    subprocess.run(command, check=True, capture_output=True, env=environment)
    alone = data.map(Annotator(strong, weak, batch_size=1), batched=True, batch_size=4)
    assert list(datasets.Dataset.from_parquet(str(out))) == list(alone)
