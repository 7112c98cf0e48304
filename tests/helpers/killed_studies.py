"""Starts studies and kills them; prints how they went on. Run by tests/study/test_killed.py."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

os.environ["TQDM_DISABLE"] = "1"

from drsow_plugin import Study
from drsow_plugin.study import passes
from helpers import forks
from helpers.studies import answered, known_model, random_margins, study_rows

ROWS, MODELS, SHARD = 40, 3, 8
SHARDS = MODELS * ROWS // SHARD


def models(latency: float = 0.0) -> dict[str, Any]:
    margins = random_margins(MODELS, ROWS)
    made = {f"m{n}": known_model(margins[n], f"m{n}") for n in range(MODELS)}
    for model in made.values():
        model["source"]._latency = latency
    return made


def run(made: dict[str, Any], folder: Path) -> dict[str, Any]:
    report = Study(made, resamples=100).run(study_rows(ROWS), cache_dir=str(folder)).values()
    for model in report["models"]:
        del model["scored"]
    return report


def finished(folder: Path) -> int:
    return len(list(folder.glob("logprobs/*/[0-9a-f]*.parquet")))


def main(root: Path, points: int) -> None:
    passes.SHARD_ROWS = SHARD
    whole = run(models(), root / "whole")
    chance = random.Random(2)
    for point in range(points):
        folder = root / f"killed-{point}"
        child = forks.fork()
        if child == 0:
            run(models(latency=0.002), folder)
            os._exit(0)
        target = chance.randrange(1, SHARDS)
        while finished(folder) < target and forks.is_running(child):
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.03))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        kept = finished(folder)
        made = models()
        same = run(made, folder) == whole
        outcome = {
            "killed": os.WIFSIGNALED(status),
            "kept": kept,
            "asked": sum(map(answered, made.values())),
            "left": 2 * SHARD * (SHARDS - kept),
            "finished": finished(folder),
            "same": same,
        }
        sys.stdout.write(json.dumps(outcome) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
