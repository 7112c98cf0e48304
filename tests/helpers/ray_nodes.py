"""A Ray cluster of two nodes on this machine, and a scorer whose work can be followed.

What decides where Ray listens is read when it is imported: this module comes first.
"""

from __future__ import annotations

import hashlib
import os
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]
os.environ.update(
    RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0",  # nodes listen on loopback
    RAY_USAGE_STATS_ENABLED="0",
    RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0",
    RAY_health_check_period_ms="500",  # a node that is lost is missed soon
    RAY_health_check_timeout_ms="2000",
    RAY_health_check_failure_threshold="3",
    RAY_health_check_initial_delay_ms="500",
    PYTHONPATH=os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]),
)

from drsow_plugin import Annotator, FakeEngine, TokenPair  # noqa: E402
from drsow_plugin.annotate.items import Item, Rewards  # noqa: E402
from drsow_plugin.annotate.scorer import Scorer  # noqa: E402
from drsow_plugin.annotate.store import file_of  # noqa: E402
from drsow_plugin.config.pair import PairConfig, parse_pair  # noqa: E402
from drsow_plugin.records import LogProb, Problem, Reward  # noqa: E402
from drsow_plugin.scoring.reward import reward as difference  # noqa: E402

NODE = {"num_cpus": 2, "object_store_memory": 80 << 20, "node_ip_address": "127.0.0.1"}


def _engine(name: str, latency: float = 0.0) -> FakeEngine:
    def answer(pair: TokenPair) -> list[float] | Problem:
        if pair.response_ids == (*b"poison",):
            return Problem("bad row", "it is said to be one")
        digest = hashlib.sha256(repr((name, pair.prompt_ids, pair.response_ids)).encode()).digest()
        return [-byte / 64 for byte in digest[: len(pair.response_ids)]]

    return FakeEngine(logprobs=answer, latency=latency, identity=name)


class FollowedScorer(Scorer):
    """Gives the rewards of engines without weights, and writes what it did.

    Tokens are the bytes of a text, so that an actor imports neither torch nor transformers.

    Attributes:
        folder: Where it writes, a file for each shard that was begun.
        latency: Seconds for each response and model.
        deadly: A prompt whose rows end the process that scores them, or ``None``.
    """

    def __init__(
        self, pair: PairConfig, folder: Path, latency: float, deadly: str | None = None
    ) -> None:
        super().__init__(pair)
        self.folder, self.latency, self.deadly = folder, latency, deadly
        self._engines = {side: _engine(side, latency) for side in ("strong", "weak")}

    def read(self, items: Any, **_: Any) -> Any:
        return [
            TokenPair((*repr(item.prompt).encode(),), (*text.encode(),))
            for item in items
            for text in item.responses
            if text is not None
        ]

    def rewards(self, items: Any, *, read: Any = None, **_: Any) -> Rewards:
        key = file_of(self.folder, items).stem
        begun = self.folder / f"{key}-{uuid.uuid4().hex}.begun"
        begun.write_text(f"{os.getpid()} {_node()} {first_of(items)}")
        if self.deadly is not None and self.deadly in repr(items):
            os._exit(1)
        pairs = self.read(items) if read is None else read
        found = {s: dict(engine.logprobs(pairs)) for s, engine in self._engines.items()}
        rewards = (self._reward(found["strong"][n], found["weak"][n]) for n in range(len(pairs)))
        done = [[None if text is None else next(rewards) for text in i.responses] for i in items]
        begun.rename(begun.with_suffix(".done"))
        return done

    @staticmethod
    def _reward(strong: Any, weak: Any) -> Reward:
        if isinstance(strong, Problem):
            return Reward(None, None, None, 0, 0, problems=(strong,))
        sums = [LogProb(sum(values), len(values)) for values in (strong, weak)]
        totals, counts = [s.total for s in sums], [s.num_tokens for s in sums]
        return Reward(difference(*sums), *totals, *counts)

    def check_reopens(self) -> None:
        pass

    def __reduce__(self) -> Any:
        return _in_actor, (self.folder, self.latency, self.deadly)


def _node() -> str:
    ray = sys.modules.get("ray")
    return ray.get_runtime_context().get_node_id() if ray and ray.is_initialized() else "here"


def _in_actor(*arguments: Any) -> FollowedScorer:
    return FollowedScorer(pair_of_servers(), *arguments)


def pair_of_servers() -> PairConfig:
    """Return a pair that computes nothing here, and is not opened."""
    where = {"strong_server": "http://127.0.0.1:9", "weak_server": "http://127.0.0.1:9"}
    return parse_pair({"strong": "s", "weak": "w", **where})


def first_of(items: list[Item]) -> str:
    return next(str(item.prompt[0]["content"]) for item in items if item.prompt)


def followed(folder: Path, latency: float, deadly: str | None = None) -> Annotator:
    """Return an annotator that uses a :class:`FollowedScorer`."""
    from helpers import fakes

    folder.mkdir(exist_ok=True)
    annotator = Annotator(**fakes.fake_pair())
    annotator.scorer = FollowedScorer(parse_pair(fakes.fake_pair()), folder, latency, deadly)
    return annotator


def seen(folder: Path, suffix: str, node: str = "") -> list[tuple[int, str]]:
    """Return the processes that began, or have done, a shard, with the first prompt of each.

    Args:
        folder: Where a :class:`FollowedScorer` writes.
        suffix: ``begun`` for those that are not done yet, or never, and ``done``.
        node: The node of the cluster; any of them if not given.
    """
    found = []
    for path in folder.glob(f"*.{suffix}"):
        with suppress(FileNotFoundError):  # it is done
            pid, where, first = [*path.read_text().split(" ", 2), "", ""][:3]
            if first and where.startswith(node):  # it is written whole
                found.append((int(pid), first))
    return found


def times_done(folder: Path) -> Counter[str]:
    """Return how often each shard was scored to its end, by the name that the store has for it."""
    return Counter(path.name.partition("-")[0] for path in folder.glob("*.done"))


def check_done(folder: Path, shards: int, kept: set[str], most: int) -> None:
    """Check that what was kept when something was killed was not scored again.

    Args:
        folder: Where a :class:`FollowedScorer` writes.
        shards: How many there are; each was scored.
        kept: The names of those that were in the store just after the kill.
        most: How many that were scored, and not in the store yet, may have been lost.
    """
    done = times_done(folder)
    again = {key for key, times in done.items() if times > 1}
    assert len(done) == shards and kept and not again & kept
    assert len(again) <= most and max(done.values()) <= 2


def wait_for(condition: Any, what: str, seconds: float = 90.0) -> None:
    """Wait until something is so."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError(f"not in {seconds} s: {what}")
        time.sleep(0.02)


def meanwhile(act: Callable[[], None]) -> tuple[threading.Thread, list[BaseException]]:
    """Do something in a thread; returns that, and what it fails of."""
    failures: list[BaseException] = []

    def guarded() -> None:
        try:
            act()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    return thread, failures


@contextmanager
def object_store(bucket: str) -> Iterator[None]:
    """Serve an object store on loopback that speaks S3, and tell this process and its children."""
    import boto3
    from moto.server import ThreadedMotoServer
    from s3fs import S3FileSystem

    S3FileSystem.clear_instance_cache()  # they know where a former server was
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    told = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    os.environ.update(told)
    try:
        boto3.client("s3").create_bucket(Bucket=bucket)
        yield
    finally:
        server.stop()
        for name in told:
            del os.environ[name]


@contextmanager
def nodes(count: int = 2, **options: Any) -> Iterator[Any]:
    """Start a cluster, and stop it: yields that of ``ray.cluster_utils``."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True, head_node_args={**NODE, "include_dashboard": False, **options}
    )
    os.environ["RAY_ADDRESS"] = cluster.address
    try:
        for _ in range(count - 1):
            cluster.add_node(**NODE)
        yield cluster
    finally:
        del os.environ["RAY_ADDRESS"]
        cluster.shutdown()


def rows(count: int) -> list[dict[str, Any]]:
    """Return pairs, of which some are broken, and one response cannot be scored."""
    made: list[dict[str, Any]] = [
        {"prompt": f"Question {n}", "chosen": f"Yes, {n}.", "rejected": "No." * (n % 5 + 1)}
        for n in range(count)
    ]
    for n in range(5, count, 11):
        made[n]["chosen"] = None
    made[count // 2]["chosen"] = "poison"
    return made


def run(folder: Path, latency: float, cache: str, count: int, **options: Any) -> Any:
    """Label rows on the cluster, with two actors; the work is written to a folder."""
    import datasets

    return followed(folder, latency).run(
        datasets.Dataset.from_list(rows(count)),
        cache_dir=cache,
        rows_dir=str(folder / "rows"),
        shard_rows=4,
        keep_unusable=True,
        **{"driver": "ray", "num_actors": 2, **options},
    )


def main() -> None:
    """Be a driver that is killed."""
    run(Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
