"""What the Ray driver costs: the share of the actors' time in which no engine is at work.

Engines without weights wait as long as models would compute. The driver's process and the cluster's
head see shards at the rate actors / seconds, so that few actors with short shards keep them as busy
as many with long ones: 16 with 1.25 s as 256 with 20 s, which is what a pair of 7B takes for a
shard of 128 pairs on one GPU. A cluster is started on loopback, and stopped.

Within each actor the time of its engines is counted, from its second shard to the last one that
begins while all actors still have work; the rest of that time is what the driver, Ray and the store
take. How long it takes until all actors are at work is given apart. Processor time of the driver's
process is given for each shard: its inverse is the rate that the driver cannot pass.

Usage: python benchmarks/ray_overhead.py [--actors 16] [--shards 24] [--seconds 1.25] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import datasets
from helpers import ray_nodes

from drsow_plugin import FakeEngine
from drsow_plugin.annotate.items import Rewards

ROWS = 128  # of a shard, as usual
RESPONSES = 2 * ROWS


class WaitingScorer(ray_nodes.FollowedScorer):
    """Writes when its engines began and ended, a file for each process."""

    def rewards(self, items: Any, *, read: Any = None, **_: Any) -> Rewards:
        read = self.read(items) if read is None else read
        begun = time.time()
        engine = FakeEngine(1000, latency=self.latency)  # waits for each response
        strong, weak = (dict(engine.logprobs(read)) for _ in range(2))
        with (self.folder / f"{os.getpid()}.times").open("a") as file:
            file.write(f"{begun} {time.time()}\n")
        flat = (self._reward(strong[n], weak[n]) for n in range(len(read)))
        return [[None if text is None else next(flat) for text in i.responses] for i in items]

    def __reduce__(self) -> Any:
        return in_actor, (self.folder, self.latency)


def in_actor(folder: Path, latency: float) -> WaitingScorer:
    return WaitingScorer(ray_nodes.pair_of_servers(), folder, latency)


class Result(NamedTuple):
    """What was seen.

    Attributes:
        actors: How many there were.
        shards: How many shards were scored.
        shard_s: Median seconds that the engines took for one.
        rate: Shards a second, while all actors were at work.
        overhead: Share of the actors' time without their engines, then.
        started_s: Seconds from the call until all actors were at work.
        driver_ms: Processor milliseconds of the driver's process for each shard.
        load: Processes that waited for a processor, on the average of the last minute.
    """

    actors: int
    shards: int
    shard_s: float
    rate: float
    overhead: float
    started_s: float
    driver_ms: float
    load: float


def measure(actors: int, shards: int, seconds: float) -> Result:
    """Label rows of which each actor gets so many shards."""
    count = actors * shards
    text = "what the strong model says of it less what the weak one does " * 16
    data = datasets.Dataset.from_list(
        [{"prompt": f"{n} {text}", "chosen": f"{text}{n}", "rejected": text} for n in range(count)]
        * ROWS
    ).sort("prompt")  # rows of a shard are alike, and shards are not
    with tempfile.TemporaryDirectory() as name, ray_nodes.nodes(1, num_cpus=actors + 1):
        folder = Path(name)
        annotator = ray_nodes.followed(folder / "log", 0.0)
        annotator.scorer = WaitingScorer(
            annotator.scorer.pair, folder / "log", seconds / (2 * RESPONSES)
        )
        used: list[tuple[float, float]] = []
        ended = threading.Event()
        watch = threading.Thread(target=watched, args=(used, ended))
        watch.start()
        annotator.run(
            data, driver="ray", num_actors=actors, shard_rows=ROWS, cache_dir=str(folder / "cache")
        )
        ended.set()
        watch.join()
        return read(folder / "log", used, count)


def watched(used: list[tuple[float, float]], ended: threading.Event) -> None:
    """Write down how much processor time this process has used, now and then."""
    while not ended.wait(0.25):
        used.append((time.time(), time.process_time()))


def read(log: Path, used: list[tuple[float, float]], count: int) -> Result:
    """Return what the actors wrote, as a result."""
    spans: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for path in log.glob("*.times"):
        for line in path.read_text().splitlines():
            first, last = map(float, line.split())
            spans[path.stem].append((first, last))
    assert sum(map(len, spans.values())) == count, "a shard was scored twice, or never"
    # All are at work between the last actor's first shard and the first actor's last one.
    start = max(min(s)[1] for s in spans.values())
    end = min(max(s)[0] for s in spans.values())
    busy = total = 0.0
    done = 0
    for of_actor in spans.values():
        inside = [span for span in sorted(of_actor) if span[0] >= start and span[1] <= end]
        if inside:
            busy += sum(last - first for first, last in inside)
            before = max((last for _, last in of_actor if last <= inside[0][0]), default=start)
            total += inside[-1][1] - before
            done += len(inside)
    while_busy = [seconds for now, seconds in used if start <= now <= end]
    lengths = sorted(last - first for s in spans.values() for first, last in s)
    return Result(
        len(spans),
        count,
        lengths[len(lengths) // 2],
        done / (end - start),
        1 - busy / total,
        start - used[0][0],
        1000 * (while_busy[-1] - while_busy[0]) / done,
        os.getloadavg()[0],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--actors", type=int, default=16)
    parser.add_argument("--shards", type=int, default=24, help="of each actor")
    parser.add_argument("--seconds", type=float, default=1.25, help="of a shard")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    result = measure(given.actors, given.shards, given.seconds)
    if given.json:
        print(json.dumps(result._asdict()))
        return
    print(
        f"{result.actors} actors, {result.shard_s:.2f} s for a shard, {result.rate:.1f} shards a "
        f"second: {result.overhead:.1%} of the actors' time without an engine at work"
    )
    print(f"{result.started_s:.0f} s until all actors were at work; load {result.load:.1f}")
    print(f"{result.driver_ms:.1f} ms of a processor for a shard in the driver's process")


if __name__ == "__main__":
    main()
