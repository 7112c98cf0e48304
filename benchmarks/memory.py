"""Memory of ``Annotator.run`` over many rows: a curve that should stay flat.

Rows are synthetic and written to disk first, the models tiny and random, so that what grows is
the annotator's own. Linux only. Usage: python benchmarks/memory.py [ROWS]
"""

from __future__ import annotations

import random
import re
import sys
import tempfile
import threading
import time
from pathlib import Path

import datasets

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from helpers import tiny

from drsow_plugin import Annotator
from drsow_plugin.progress import RowProgress

WORDS = "quick brown fox jumps over lazy dog and then returns to Paris again".split()  # noqa: SIM905


def text(chance: random.Random, most: int) -> str:
    return " ".join(chance.choices(WORDS, k=chance.randint(1, most)))


def rows(count: int):  # type: ignore[no-untyped-def]
    chance = random.Random(0)
    for number in range(count):
        yield {
            "prompt": f"{number}: {text(chance, 20)}",
            "chosen": text(chance, 30),
            "rejected": text(chance, 30),
        }


def megabytes() -> dict[str, float]:
    """Return what /proc tells of this process: all memory, and what is not a file."""
    status = Path("/proc/self/status").read_text()
    found = {name: int(kb) / 1024 for name, kb in re.findall(r"(\w+):\s+(\d+) kB", status)}
    return {"all": found["VmRSS"], "anonymous": found["RssAnon"], "peak": found["VmHWM"]}


def main(count: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        strong, weak = tiny.save(root / "s", seed=1), tiny.save(root / "w", seed=2)
        data = datasets.Dataset.from_generator(
            rows, gen_kwargs={"count": count}, cache_dir=str(root / "rows")
        )
        done = 0
        finish = RowProgress.finish

        def counting(self: RowProgress, number: int, tokens: int = 0) -> None:
            nonlocal done
            done += number
            finish(self, number, tokens)

        RowProgress.finish = counting  # type: ignore[method-assign]
        annotator = Annotator(strong, weak)
        print("| rows | memory, MB | of it anonymous | seconds |\n| --- | --- | --- | --- |")
        started = time.monotonic()
        worker = threading.Thread(target=lambda: annotator.run(data, cache_dir=str(root / "cache")))
        worker.start()
        step = shown = max(1, count // 20)
        while worker.is_alive():
            worker.join(0.2)
            if done >= shown:
                now = megabytes()
                seconds = time.monotonic() - started
                print(f"| {done:,} | {now['all']:.0f} | {now['anonymous']:.0f} | {seconds:.0f} |")
                sys.stdout.flush()
                shown = done // step * step + step
        end = megabytes()
        print(f"End, report and pictures done: {end['all']:.0f} MB; peak {end['peak']:.0f} MB.")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
