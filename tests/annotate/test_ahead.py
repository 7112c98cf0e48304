"""The next shard is read and tokenized while one is scored; what goes wrong comes in its turn."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
from helpers.fakes import fake_annotator
from helpers.labelling import run, scores
from helpers.preferences import pairs

from drsow_plugin import Annotator, DataError, FakeEngine, TokenPair
from drsow_plugin.annotate.drivers import ahead
from drsow_plugin.annotate.drivers.ahead import made_ahead
from drsow_plugin.annotate.scorer import Scorer
from drsow_plugin.errors import Interrupted

LONG = 60.0  # seconds, after which a test has failed that waits for another thread


def in_thread() -> bool:
    return threading.current_thread() is not threading.main_thread()


def running() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "ahead"]


def test_one_is_made_ahead_and_no_more() -> None:
    begun = []
    done = [threading.Event() for _ in range(5)]

    def made(number: int) -> int:
        assert in_thread()
        begun.append(number)
        done[number].set()
        return number

    found = []
    for number in made_ahead(range(5), made):
        found.append(number)
        assert number == 4 or done[number + 1].wait(LONG)  # while this one is in hand
        assert len(begun) == min(number + 2, 5)
    assert found == [*range(5)]
    assert not running()


def three() -> Iterator[int]:
    assert not in_thread()
    yield from range(3)
    raise DataError("the fourth")


def all_but_three(number: int) -> int:
    if number == 3:
        raise DataError("the fourth")
    return number


@pytest.mark.parametrize(
    ("given", "make"), [(three(), int), (range(9), all_but_three)], ids=["taken", "made"]
)
def test_an_exception_comes_after_what_was_made_before_it(
    given: Iterable[int], make: Callable[[int], int]
) -> None:
    found = []
    with pytest.raises(DataError, match="the fourth"):
        for number in made_ahead(given, make):
            found.append(number)
    assert found == [0, 1, 2]
    assert not running()


def test_nothing_is_made_once_nobody_wants_it() -> None:
    begun: list[int] = []
    values = made_ahead(range(9), lambda n: begun.append(n) or n)  # type: ignore[func-returns-value]
    assert next(values) == 0
    values.close()
    assert len(begun) <= 2
    assert not running()


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Return a list that is told of each shard that is tokenized, whether it is in a thread."""
    told: list[bool] = []
    own = Scorer.read

    def read(self: Scorer, items: Any, **options: Any) -> Any:
        rows = own(self, items, **options)
        told.append(in_thread())
        return rows

    monkeypatch.setattr(Scorer, "read", read)
    return told


def annotator(answer: Any = None, **options: Any) -> Annotator:
    """Return an annotator whose weak model answers so for each pair of tokens."""
    weak = FakeEngine(logprobs=answer or uniform, identity="weak")
    return fake_annotator(weak=weak, **options)


def uniform(pair: TokenPair) -> list[float]:
    return [-2.0] * len(pair.response_ids)


def test_the_next_shard_is_tokenized_while_one_is_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenized = [threading.Event() for _ in range(4)]
    shards = iter(range(3))
    own = Scorer.read

    def read(self: Scorer, items: Any, **options: Any) -> Any:
        rows = own(self, items, **options)
        tokenized[next(shards)].set()
        return rows

    answered = 0

    def answer(pair: TokenPair) -> list[float]:
        nonlocal answered
        shard = answered // 8  # of 4 pairs of responses
        answered += 1
        assert not in_thread()
        assert shard == 2 or tokenized[shard + 1].wait(LONG)
        return uniform(pair)

    monkeypatch.setattr(Scorer, "read", read)
    ran = run(annotator(answer), pairs(12), tmp_path)
    assert len(ran) == 12 and answered == 24
    monkeypatch.undo()
    assert list(ran) == list(run(annotator(), pairs(12), tmp_path / "again"))


def poisoned(count: int) -> datasets.IterableDataset:
    def rows() -> Iterator[dict[str, Any]]:
        yield from pairs(count)
        raise DataError("no more rows")

    features = datasets.Dataset.from_list(pairs(1)).features
    return datasets.IterableDataset.from_generator(rows, features=features)


def test_a_stream_is_read_in_the_thread_that_it_was_begun_in(tmp_path: Path) -> None:
    table = datasets.Dataset.from_list(pairs(12)).select_columns(["prompt", "chosen", "rejected"])

    def rows() -> Iterator[dict[str, Any]]:
        database = sqlite3.connect(":memory:")  # of use in this thread alone
        database.execute("create table texts (prompt text, chosen text, rejected text)")
        database.executemany("insert into texts values (:prompt, :chosen, :rejected)", table)
        for texts in database.execute("select * from texts"):
            yield dict(zip(table.column_names, texts, strict=True))
        database.close()

    stream = datasets.IterableDataset.from_generator(rows, features=table.features)
    labelled = annotator().run(stream, cache_dir=str(tmp_path), shard_rows=4)
    assert list(labelled) == list(run(annotator(), [*table], tmp_path / "again"))


@pytest.mark.fault(
    "rows",
    "a stream fails in the middle",
    "the error of the stream; what was read before it is scored and kept",
)
def test_a_next_shard_that_cannot_be_read_leaves_what_is_at_work_finished(tmp_path: Path) -> None:
    made = annotator()
    with pytest.raises(DataError, match="no more rows"):
        made.run(poisoned(8), cache_dir=str(tmp_path), shard_rows=4)
    assert len(scores(tmp_path)) == 2
    assert not running()


def test_a_next_shard_that_cannot_be_tokenized_leaves_what_is_at_work_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, shards = Scorer.read, iter(range(3))

    def read(self: Scorer, items: Any, **options: Any) -> Any:
        if next(shards) == 1:
            raise MemoryError("no room")
        return own(self, items, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Scorer, "read", read)
        with pytest.raises(MemoryError, match="no room"):
            run(annotator(), pairs(12), tmp_path)
    assert len(scores(tmp_path)) == 1
    calls: list[TokenPair] = []
    resumed = run(annotator(lambda pair: calls.append(pair) or uniform(pair)), pairs(12), tmp_path)
    assert len(resumed) == 12 and len(calls) == 16  # of the two shards that were left


@pytest.mark.fault(
    "kill",
    "Ctrl-C while the next rows hang, as on a disk that does not answer",
    "the run ends at once; what is finished is kept",
)
def test_an_interrupt_does_not_wait_for_a_next_shard_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead, "_PATIENCE_S", 0.0)
    hangs, wanted = threading.Event(), threading.Event()
    own, shards = Scorer.read, iter(range(3))

    def read(self: Scorer, items: Any, **options: Any) -> Any:
        if next(shards) == 2:
            hangs.set()
            wanted.wait(LONG)
        return own(self, items, **options)

    def answer(pair: TokenPair) -> Any:
        if len(scores(tmp_path)) == 1:  # in the second shard
            assert hangs.wait(LONG)
            raise KeyboardInterrupt
        return uniform(pair)

    monkeypatch.setattr(Scorer, "read", read)
    with pytest.raises(Interrupted, match="1 of 3 shards are kept"):
        run(annotator(answer), pairs(12), tmp_path)
    (thread,) = running()
    wanted.set()
    thread.join(LONG)
    assert not running()


def test_what_is_kept_is_not_tokenized(tmp_path: Path, reads: list[bool]) -> None:
    first = run(annotator(), pairs(12), tmp_path)
    assert reads == [True] * 3
    scores(tmp_path)[1].unlink()
    assert list(run(annotator(), pairs(12), tmp_path)) == list(first)
    assert reads == [True] * 4
    damaged = scores(tmp_path)[0]
    damaged.write_bytes(b"PAR1")
    assert list(run(annotator(), pairs(12), tmp_path)) == list(first)
    assert reads == [*[True] * 4, False]


def test_routers_which_may_use_a_model_are_asked_where_models_score(
    tmp_path: Path, reads: list[bool], plugin: str
) -> None:
    run(fake_annotator(router="mine", plugin=plugin), pairs(12), tmp_path)
    assert reads == [False] * 3


def test_a_batch_of_map_is_read_where_it_is_scored(reads: list[bool]) -> None:
    data = datasets.Dataset.from_list(pairs(8))
    data.map(annotator(), batched=True, batch_size=4)
    assert reads == [False] * 2
