"""Labels shards at once on one cache, of which some are killed. Run by test_parts."""

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

import datasets

sys.path.insert(0, str(Path(__file__).parents[1]))
from helpers import forks
from helpers.fakes import fake_annotator
from helpers.labelling import scores
from helpers.preferences import candidates

SHARD_ROWS, OF = 2, 3


def label(data: datasets.Dataset, root: Path, shard: int | None, out: Path) -> None:
    annotator = fake_annotator()
    options: dict[str, Any] = {"shard_rows": SHARD_ROWS, "cache_dir": str(root / "cache")}
    labelled = annotator.run(data, shard=None if shard is None else (shard, OF), **options)
    assert annotator.report is not None
    annotator.report.save(labelled, out)


def started(data: datasets.Dataset, root: Path, shard: int) -> int:
    """Start to label a shard in a process of its own."""
    child = forks.fork()
    if child == 0:
        label(data, root, shard, root / "shards" / str(shard))
        os._exit(0)
    return child


def main(root: Path) -> None:
    datasets.disable_progress_bars()
    data = datasets.Dataset.from_list(candidates(60))
    label(data, root / "one", None, root / "whole")
    units = len(scores(root / "one/cache"))
    chance = random.Random(1)
    for point in range(4):
        folder = root / str(point)
        children = [started(data, folder, shard) for shard in range(1, OF + 1)]
        target = chance.randrange(1, units // 2)
        while len(scores(folder / "cache")) < target:
            time.sleep(0.001)
        doomed = children[point % OF]
        os.kill(doomed, signal.SIGKILL)
        ends = [os.waitpid(child, 0)[1] for child in children]
        kept = {file: file.stat().st_mtime_ns for file in scores(folder / "cache")}
        again = started(data, folder, point % OF + 1)
        ends.append(os.waitpid(again, 0)[1])
        merged = fake_annotator().merge(folder / "shards", rows_dir=str(folder / "rows"))
        whole = datasets.Dataset.from_parquet(str(next((root / "whole/data").iterdir())))
        outcome = {
            "killed": os.WIFSIGNALED(ends[point % OF]),
            "failed": sum(not os.WIFSIGNALED(end) and end != 0 for end in ends),
            "kept": len(kept),
            "scored_again": sum(f.stat().st_mtime_ns != time_ns for f, time_ns in kept.items()),
            "finished": len(scores(folder / "cache")) == units,
            "left": len(list((folder / "cache").glob("*/*/writing-*"))),
            "same": list(merged) == list(whole) and merged.features == whole.features,
        }
        sys.stdout.write(json.dumps(outcome) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
