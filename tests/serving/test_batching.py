"""Requests that arrive together are scored together; when there are too many, that is told."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import pytest
from helpers.fakes import fake_pair
from helpers.serving import Answer, ask, metric, serving

from drsow_plugin import DrSoW, FakeEngine, TokenPair
from drsow_plugin.serving.batcher import Batcher, Job, parts
from drsow_plugin.serving.metrics import Metrics
from drsow_plugin.serving.options import parse_serving

PROMPT = "What is the capital of France? Answer with one word."


class Gate:
    """An engine's answers, held back until they are let through; what was asked is counted."""

    def __init__(self, fails: int = 0) -> None:
        """Hold back; raise over responses of so many tokens."""
        self._fails = fails
        self.open = threading.Event()
        self.asked = threading.Event()
        self.engine = FakeEngine(logprobs=self._answer, identity="gate")

    def _answer(self, pair: TokenPair) -> list[float]:
        self.asked.set()
        assert self.open.wait(60)
        if len(pair.response_ids) == self._fails:
            raise RuntimeError("broken")
        return [-float(token % 7) for token in pair.response_ids]


def one(number: int) -> dict[str, Any]:
    return {"prompts": [PROMPT], "responses": [f"Answer {number}."]}


def wait_for(what: Callable[[], bool]) -> None:
    for _ in range(2000):
        if what():
            return
        time.sleep(0.01)
    raise AssertionError("it never came")


def answered(gate: Gate, bodies: Sequence[Any], **options: Any) -> list[Answer]:
    """Send the first request and, while it is held back, all others at once."""
    pair = fake_pair(strong=gate.engine, **options)
    with serving(**pair) as url, ThreadPoolExecutor(len(bodies)) as clients:
        first = clients.submit(ask, f"{url}/v1/rewards", bodies[0])
        assert gate.asked.wait(60)
        others = [clients.submit(ask, f"{url}/v1/rewards", body) for body in bodies[1:]]
        wait_for(lambda: metric(url, "drsow_waiting_rows") == len(bodies))
        gate.open.set()
        return [future.result() for future in (first, *others)]


def test_clients_with_one_query_each_are_scored_in_one_pass_with_their_own_rewards() -> None:
    gate = Gate()
    answers = answered(gate, [one(n) for n in range(33)])
    assert [len(call) for call in gate.engine.calls] == [1, 32]
    expected = DrSoW(**fake_pair(strong=gate.engine)).score(
        [PROMPT] * 33, [f"Answer {n}." for n in range(33)]
    )
    got = [answer.body["rewards"][0]["reward"] for answer in answers]
    assert got == [reward.reward for reward in expected]


@pytest.mark.parametrize(("window", "calls"), [(0, [1, 1]), (500, [2])])
def test_a_request_waits_for_others_for_the_window(window: int, calls: list[int]) -> None:
    engine = FakeEngine(10)
    config, serve = parse_serving(fake_pair(strong=engine, batch_window=window))
    batcher = Batcher(DrSoW.from_config(config), serve, Metrics())

    async def ask_twice() -> None:
        running = asyncio.create_task(batcher.run())
        while not batcher.is_ready:
            await asyncio.sleep(0)
        first = batcher.submit([PROMPT], ["One."])
        for _ in range(5):
            await asyncio.sleep(0)
        await asyncio.gather(first, batcher.submit([PROMPT], ["Two."]))
        running.cancel()

    asyncio.run(ask_twice())
    assert [len(call) for call in engine.calls] == calls


def test_rows_above_the_token_budget_wait_for_the_next_pass() -> None:
    gate = Gate()
    row = len(DrSoW(**fake_pair()).read([PROMPT], ["Answer 1."])[0])
    answers = answered(gate, [one(n) for n in range(6)], score_tokens=2 * row)
    assert [answer.code for answer in answers] == [200] * 6
    assert [len(call) for call in gate.engine.calls] == [1, 2, 2, 1]


def test_parts_keep_order_and_requests_whole() -> None:
    jobs = [Job([], "x" * n, [], 0.0, None, ["." * n]) for n in (3, 4, 9, 1, 1)]  # type: ignore
    assert [[len(job) for job in part] for part in parts(jobs, 7)] == [[3, 4], [9], [1, 1]]
    assert list(parts([], 7)) == []


@pytest.mark.fault(
    "memory",
    "more requests come than `queue_rows` has room for",
    "status 429 with when to come again; what was accepted is answered",
)
def test_a_full_queue_is_told_with_when_to_come_again_and_loses_nothing() -> None:
    gate = Gate()
    pair = fake_pair(strong=gate.engine, queue_rows=4)
    with serving(**pair) as url, ThreadPoolExecutor(4) as clients:
        accepted = [clients.submit(ask, f"{url}/v1/rewards", one(n)) for n in range(4)]
        wait_for(lambda: metric(url, "drsow_waiting_rows") == 4)
        refused = ask(f"{url}/v1/rewards", one(5))
        assert refused.code == 429 and "queue is full" in refused.error
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        gate.open.set()
        assert [future.result().code for future in accepted] == [200] * 4
        assert ask(f"{url}/v1/rewards", one(5)).code == 200


@pytest.mark.slow
def test_under_load_those_who_come_again_get_their_own_rewards() -> None:
    def insist(number: int) -> Answer:
        while (answer := ask(f"{url}/v1/rewards", one(number))).code == 429:
            time.sleep(0.01)
        return answer

    engines = {"strong": FakeEngine(50, latency=0.002), "weak": FakeEngine(7)}
    with serving(**fake_pair(**engines, queue_rows=8)) as url, ThreadPoolExecutor(48) as clients:
        answers = list(clients.map(insist, range(100)))
        refused = metric(url, 'drsow_requests_total{code="429",path="/v1/rewards"}')
    assert refused > 0
    expected = DrSoW(**fake_pair(**engines)).score(
        [PROMPT] * 100, [f"Answer {n}." for n in range(100)]
    )
    got = [answer.body["rewards"][0]["reward"] for answer in answers]
    assert got == [reward.reward for reward in expected]


@pytest.mark.fault(
    "rows",
    "a row on which the engine raises, in a batch with other requests",
    "its request alone gets status 500",
)
def test_a_row_that_fails_takes_no_other_request_with_it() -> None:
    gate = Gate(fails=2)
    options = {"end_of_turn": False, "control_tokens": "parse"}
    bodies = [{"prompts": ["a"], "responses": ["</s>" * count]} for count in (4, 1, 2, 3)]
    answers = answered(gate, bodies, **options)
    assert [answer.code for answer in answers] == [200, 200, 500, 200]
    assert [len(call) for call in gate.engine.calls] == [1, 3, 1, 1, 1]


def test_what_a_client_asked_that_went_away_is_not_scored() -> None:
    gate = Gate()
    with serving(**fake_pair(strong=gate.engine)) as url, ThreadPoolExecutor(2) as clients:
        first = clients.submit(ask, f"{url}/v1/rewards", one(0))
        assert gate.asked.wait(60)
        body = json.dumps({"prompts": [PROMPT] * 5, "responses": ["gone"] * 5}).encode()
        head = f"POST /v1/rewards HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        with socket.create_connection((urlsplit(url).hostname, urlsplit(url).port)) as leaving:
            leaving.sendall(head.encode() + body)
            wait_for(lambda: metric(url, "drsow_waiting_rows") == 6)
        gone = 'drsow_requests_total{code="499",path="/v1/rewards"}'
        wait_for(lambda: metric(url, gone) == 1)
        gate.open.set()
        assert first.result().code == 200
        assert ask(f"{url}/v1/rewards", one(7)).code == 200
    assert [len(call) for call in gate.engine.calls] == [1, 1]
