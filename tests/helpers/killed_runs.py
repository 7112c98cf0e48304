"""Starts runs of an annotator and kills them; prints how the rows compare. Run by test_resume."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

os.environ["TQDM_DISABLE"] = "1"

import datasets
import torch

from drsow_plugin import Annotator
from helpers import forks

SHARD = 4


def rows() -> datasets.Dataset:
    chance = random.Random(1)
    words = ["quick", "brown", "fox", "lazy", "dog", "return", "Paris", "{}"]
    texts = [" ".join(chance.choices(words, k=20)) for _ in range(300)]
    return datasets.Dataset.from_list(
        [{"prompt": f"Say {n}.", "responses": texts[5 * n : 5 * n + 5]} for n in range(60)]
    )


def finished(folder: Path) -> int:
    return len(list(folder.glob("scores/*/[0-9a-f]*.parquet")))


def main(strong: str, weak: str, root: Path, points: int) -> None:
    torch.set_num_threads(1)
    data = rows()

    annotator = Annotator(strong, weak)  # opened once: killed is what is done with it

    def run(folder: Path) -> datasets.Dataset:
        return annotator.run(data, cache_dir=str(folder), shard_rows=SHARD)

    run(root / "warm")
    started = time.monotonic()
    whole = run(root / "whole")
    duration = time.monotonic() - started
    chance = random.Random(2)
    for point in range(points):
        folder = root / f"killed-{point}"
        child = forks.fork()
        if child == 0:
            run(folder)
            os._exit(0)
        # A random point of the run, however fast the machine is at the moment.
        target = chance.randrange(len(data) // SHARD)
        while finished(folder) < target and forks.is_running(child):
            time.sleep(0.001)
        time.sleep(chance.uniform(0, duration * SHARD / len(data)))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        kept = {file: file.stat().st_mtime_ns for file in folder.glob("scores/*/[0-9a-f]*.parquet")}
        resumed = run(folder)
        again = [file for file, time_ns in kept.items() if file.stat().st_mtime_ns != time_ns]
        outcome = {
            "killed": os.WIFSIGNALED(status),
            "kept": len(kept),
            "scored_again": len(again),
            "finished": finished(folder),
            "same": list(resumed) == list(whole) and resumed.features == whole.features,
        }
        sys.stdout.write(json.dumps(outcome) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
