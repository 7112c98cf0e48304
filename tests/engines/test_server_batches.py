"""Requests to servers: what stands in one, how many are under way, and that they can be ended."""

from __future__ import annotations

import gc
import threading
import time
from typing import Any

import pytest
from helpers.model_server import ModelServer, Reply
from helpers.served import answers, engine

from drsow_plugin.engines.server.background import emitted
from drsow_plugin.engines.server.batches import Limits, Queue
from drsow_plugin.records import TokenPair


def candidates(prompts: int, each: int, length: int = 4) -> list[TokenPair]:
    """Return responses to prompts, those to one prompt far from each other."""
    return [
        TokenPair((prompt,) * length, (50 + response,) * (response + 1))
        for response in range(each)
        for prompt in range(1, prompts + 1)
    ]


def prompts_of(server: ModelServer) -> list[list[int]]:
    return [ids for _, body in server.scored for ids in body["prompt"]]


def drained(queue: Queue, servers: int) -> list[list[list[int]]]:
    found: list[list[list[int]]] = [[] for _ in range(servers)]
    while len(queue):
        for server in range(servers):
            if (batch := queue.next_for(server)) is not None:
                found[server].append(batch)
    return found


def test_candidates_of_a_prompt_stand_next_to_each_other() -> None:
    pairs = candidates(prompts=3, each=4)
    (batches,) = drained(Queue(pairs, 1, Limits(rows=4, tokens=1000)), 1)
    assert [[pairs[index].prompt_ids[0] for index in batch] for batch in batches] == [
        [1] * 4,
        [2] * 4,
        [3] * 4,
    ]


def test_a_prompts_candidates_go_to_one_of_several_servers_and_the_work_is_shared() -> None:
    pairs = candidates(prompts=8, each=4)
    with ModelServer() as one, ModelServer() as other:
        answers(engine(one, other, rows=4), pairs)
        sent = [{ids[0] for ids in prompts_of(server)} for server in (one, other)]
        assert not sent[0] & sent[1] and len(sent[0] | sent[1]) == 8
        assert [len(server.scored) for server in (one, other)] == [4, 4]


def test_a_server_that_is_done_takes_work_from_the_other() -> None:
    queue = Queue(candidates(prompts=8, each=1), 2, Limits(rows=1, tokens=1000))
    taken = [queue.next_for(0) for _ in range(8)]
    assert sorted(index for batch in taken if batch for index in batch) == [*range(8)]
    assert queue.next_for(1) is None


def test_a_request_is_bounded_in_rows_and_in_tokens() -> None:
    pairs = [TokenPair((1, 2), (3,) * length) for length in (5, 5, 5, 30, 2, 2, 2, 2)]
    with ModelServer() as server:
        answers(engine(server, tokens=14), pairs)
        sizes = [[len(ids) for ids in body["prompt"]] for _, body in server.scored]
    assert sorted(sizes) == [[4], [4, 4, 4], [7], [7, 7], [32]]
    with ModelServer() as server:
        answers(engine(server, rows=3), pairs)
        assert max(len(body["prompt"]) for _, body in server.scored) == 3
    with ModelServer() as server:
        many = [TokenPair((1,), (2 + number,)) for number in range(1100)]
        answers(engine(server, rows=5000), many)
        assert max(len(body["prompt"]) for _, body in server.scored) == 1024


def test_few_requests_are_under_way_at_once_on_connections_that_are_kept() -> None:
    lock, at_once, most = threading.Lock(), 0, 0

    def counted(reply: Reply) -> Reply:
        nonlocal at_once
        with lock:
            at_once -= 1
        return reply

    with ModelServer() as server:
        asked = engine(server, rows=1)
        before, real = server.connections, server._reply

        def counting(path: str, body: Any) -> Reply:
            nonlocal at_once, most
            with lock:
                at_once += 1
                most = max(most, at_once)
            time.sleep(0.005)
            return real(path, body)

        server._reply = counting  # type: ignore[method-assign]
        server.faults = [counted] * 40
        answers(asked, candidates(prompts=40, each=1))
        assert most <= 4
        assert server.connections - before <= 4


def askers() -> int:
    return sum(thread.name == "drsow-server" for thread in threading.enumerate())


def test_log_probs_come_as_they_are_known_and_closing_ends_the_rest() -> None:
    with ModelServer() as server:
        asked = engine(server, rows=1)
        forever = threading.Event()
        server.faults = [None, *[lambda reply: forever.wait(20) and reply] * 100]  # type: ignore[list-item]
        scored = asked.logprobs(candidates(prompts=50, each=1))
        assert next(scored)
        assert askers() == 1
        scored.close()
        forever.set()
        assert len(server.scored) <= 6
        assert askers() == 0
    gc.collect()  # what was left open would be a warning, which is an error


def test_nothing_is_asked_where_there_is_nothing_to_score() -> None:
    with ModelServer() as server:
        assert answers(engine(server), []) == []
        assert server.scored == []


def test_what_a_coroutine_emits_comes_before_what_it_raises() -> None:
    async def work(emit: Any) -> None:
        emit(1)
        emit(2)
        raise KeyError("three")

    found = []
    with pytest.raises(KeyError, match="three"):
        found.extend(emitted(work))
    items = emitted(work)
    assert [next(items), next(items)] == [1, 2]
    items.close()
