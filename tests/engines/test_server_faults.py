"""Servers that fail: what is asked again, what fails a row, and what ends the work."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable
from email.utils import formatdate
from types import SimpleNamespace

import pytest
from helpers.dialects import ServedModel
from helpers.engines import rows
from helpers.model_server import (
    Fault,
    ModelServer,
    cut,
    formula,
    hangs_up,
    html,
    rewritten,
    status,
)
from helpers.served import answers, engine, servers

from drsow_plugin.engines.server import client
from drsow_plugin.errors import ConfigError, EngineError
from drsow_plugin.records import Problem, TokenPair

PAIRS = rows(2)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "FIRST_PAUSE_S", 0.001)


@pytest.mark.fault(
    "server",
    "a server is busy, closes the connection or sends half an answer",
    "it is asked again; the log-probs are the same",
)
@pytest.mark.parametrize(
    "fault",
    [
        *(status(429), status(429, Retry_After="0"), status(502), status(503), status(504)),
        *(status(500), hangs_up, cut),
    ],
)
def test_what_may_pass_is_asked_again(fault: Fault) -> None:
    with ModelServer() as server:
        asked = engine(server)
        whole = answers(asked, PAIRS)
        server.faults = [fault, fault]
        assert answers(asked, PAIRS) == whole
        assert server.faults == []


@pytest.mark.fault(
    "server", "a server asks for patience (`Retry-After`)", "it gets it, within `server_wait`"
)
@pytest.mark.parametrize("is_date", [False, True])
def test_a_server_is_given_the_time_that_it_asks_for(
    is_date: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_for = formatdate(time.time() + 90, usegmt=True) if is_date else "60"
    pauses: list[float] = []
    pause = client._pause

    def noticed(state: object) -> float:
        pauses.append(pause(state))  # type: ignore[arg-type]
        return 0.0

    monkeypatch.setattr(client, "_pause", noticed)
    with ModelServer() as server:
        asked = engine(server)
        server.faults = [status(429, Retry_After=asked_for), status(429, Retry_After="soon")]
        answers(asked, PAIRS)
    assert 30 < pauses[0] < 91 and pauses[1] < 1


@pytest.mark.fault(
    "clock",
    "the clock jumps by a day either way while a server asks for patience until a date",
    "it gets the time that it asks for by its own clock",
)
@pytest.mark.parametrize("jump", [-86_400, 86_400])
def test_a_date_to_come_back_at_is_told_by_the_servers_own_clock(
    jump: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    pause, now = client._pause, time.time
    until = formatdate(now() + 90, usegmt=True)
    monkeypatch.setattr(client, "_pause", lambda state: pauses.append(pause(state)) or 0.0)
    with ModelServer() as server:
        asked = engine(server)
        server.faults = [status(503, Retry_After=until)]
        clocks = SimpleNamespace(time=lambda: now() + jump, monotonic=time.monotonic)
        monkeypatch.setattr(client, "time", clocks)
        answers(asked, PAIRS)
    assert 30 < pauses[0] < 91


def test_a_server_that_asks_for_more_time_than_there_is_ends_the_work() -> None:
    with ModelServer() as server:
        asked = engine(server, wait=5.0)
        server.faults = [status(503, "loading", Retry_After="3600")]
        with pytest.raises(EngineError, match=r"HTTP 503: loading\. .*strong_server_wait=5"):
            answers(asked, PAIRS)


@pytest.mark.fault(
    "server",
    "a server answers with a page, half JSON, other tokens, or no log-probs",
    "one line that says what came; nothing of it is a reward",
)
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (html, r"completions answered text/html that is no JSON \('<!DOCTYPE html>"),
        (rewritten(lambda text: text[:-40]), "answered application/json that is no JSON"),
        (rewritten(lambda text: "[]"), "the answer has no choices"),
        (rewritten(lambda text: text.replace('"logprob"', '"lp"')), "None came in place of a log"),
        (rewritten(lambda text: re.sub(r'"logprob": [-\d.]+', '"logprob": null', text)), "None ca"),
        (rewritten(lambda text: text.replace("null, ", "", 1)), r"prompt_logprobs is a list of \d"),
        (rewritten(lambda text: re.sub(r'"(\d+)": {"log', r'"1\1": {"log', text)), "was asked for"),
        (rewritten(lambda text: text.replace('"index": 0', '"index": 1')), "choices came for"),
        (
            status(401),
            r"wants a key \(HTTP 401: injected\). Name the environment variable or the file",
        ),
        (status(403), "wants a key"),
        (status(404, "The model `strong` does not exist."), "HTTP 404: The model `strong` does no"),
        (status(405, "No."), r"HTTP 405: No\. Is this"),
        (status(302), "HTTP 302: injected. Is this the server's address"),
    ],
)
def test_an_answer_that_is_none_ends_the_work_at_once(fault: Fault, said: str) -> None:
    with ModelServer() as server:
        asked = engine(server)
        server.faults = [fault]
        with pytest.raises(EngineError, match=said):
            answers(asked, PAIRS)
        assert len(server.scored) == 1


def test_nan_is_no_log_prob() -> None:
    nan = rewritten(lambda text: re.sub(r'"logprob": [-\d.]+', '"logprob": NaN', text))
    with ModelServer() as server:
        asked = engine(server)
        server.faults = [nan]
        values = answers(asked, [TokenPair((1,), (2,))])[0]
    assert repr(values) == "[nan]"


@pytest.mark.fault(
    "server",
    "a server refuses one row of many",
    "that row is null with its reason; the others have their rewards",
)
@pytest.mark.fault(
    "rows", "a row that a server refuses", "null with its reason; the others have their rewards"
)
@pytest.mark.parametrize("code", [400, 413, 422])
def test_a_row_that_a_server_refuses_is_a_problem_of_that_row_alone(code: int) -> None:
    poison = 77
    with ModelServer() as server:
        asked = engine(server)
        pairs = [*PAIRS, TokenPair((1, 2), (poison, 3)), TokenPair((1, 2), (4, 5))]
        real = server._reply

        def refuses(path: str, body: dict[str, list[list[int]]] | None) -> object:
            if body and [1, 2, poison, 3] in body["prompt"]:
                return status(code, "no")(real(path, body))
            return real(path, body)

        server._reply = refuses  # type: ignore[method-assign, assignment]
        found = answers(asked, pairs)
    problems = [index for index, answer in enumerate(found) if isinstance(answer, Problem)]
    assert problems == [len(PAIRS)]
    said = f"refused: the server does not score it: {server.url}/completions answered HTTP {code}"
    assert str(found[len(PAIRS)]).startswith(said)


def test_a_row_that_a_server_fails_on_is_a_problem_while_it_scores_others() -> None:
    with ModelServer() as server:
        asked = engine(server, rows=1)
        server.faults = [status(500, "cannot")] * 4
        (found,) = answers(asked, PAIRS[:1])
        assert isinstance(found, Problem) and "HTTP 500: cannot" in found.detail
        server.faults = [status(500, "dead")] * 100
        with pytest.raises(EngineError, match=r"HTTP 500: dead\. It fails on everything"):
            answers(asked, PAIRS[:1])


def restarted(server: ModelServer, change: Callable[[], object], after_s: float) -> Fault:
    """Stop a server at its next request; start it again, changed, a little later."""

    def again() -> None:
        change()
        server.start()

    def fault(_reply: object) -> None:
        server.stop()
        threading.Timer(after_s, again).start()

    return fault


@pytest.mark.fault(
    "server", "a server restarts in the middle of the work", "it is waited for; nothing is lost"
)
def test_a_server_that_restarts_is_waited_for_and_nothing_is_lost(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with ModelServer() as server:
        asked = engine(server, rows=2)
        whole = answers(asked, PAIRS)
        server.faults = [None, restarted(server, lambda: None, 0.2)]
        with caplog.at_level(logging.WARNING):
            assert answers(asked, PAIRS) == whole
    lines = [record.getMessage() for record in caplog.records]
    assert "It is asked again for up to 600 s." in lines[0] and lines[0].startswith("strong_server")
    assert f"strong_server: {server.url} answers again." in lines


def other_weights(server: ModelServer) -> None:
    server.model.logprobs = formula("other")


def other_version(server: ModelServer) -> None:
    server.model.version = "0.33.0"


def other_model(server: ModelServer) -> None:
    server.model.name = "another"


@pytest.mark.fault(
    "server",
    "a server comes back with other weights, another version or model",
    "one line that says what is other; nothing of both is mixed",
)
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (other_weights, "its log-probs are others than before, by .* nats a token"),
        (other_version, "its version is '0.33.0', and was '0.32.0'"),
        (other_model, "does not serve what it did: strong: the server at .* serves 'another'"),
    ],
)
def test_a_server_that_comes_back_as_another_ends_the_work(
    change: Callable[[ModelServer], None], said: str
) -> None:
    with ModelServer() as server:
        asked = engine(server, rows=2)
        server.faults = [None, restarted(server, lambda: change(server), 0.1)]
        with pytest.raises(EngineError, match=said):
            answers(asked, PAIRS)


@pytest.mark.fault(
    "server",
    "a server changes its weights without a failure",
    "one line; nothing of that call is kept",
)
def test_a_change_without_a_failure_is_found_when_the_servers_are_checked() -> None:
    with ModelServer() as server:
        opened = servers(server)
        opened.check()
        other_weights(server)
        with pytest.raises(EngineError, match=r"log-probs are others .* Nothing of this call is"):
            opened.check()


@pytest.mark.fault(
    "server",
    "a server stays away",
    "one line when the time is up (`server_wait`); finished work is kept",
)
def test_a_server_that_stays_away_ends_the_work_when_the_time_is_up() -> None:
    with ModelServer() as server:
        asked = engine(server, wait=0.3)
        server.stop()
        with pytest.raises(EngineError, match=r"was waited for .* \(strong_server_wait=0.3\)"):
            answers(asked, PAIRS)


@pytest.mark.fault("server", "a server is slower than `server_timeout`", "one line; nothing hangs")
def test_an_answer_that_takes_too_long_is_not_waited_for() -> None:
    with ModelServer() as server:
        asked = engine(server, timeout=0.3, wait=0.5)
        forever = threading.Event()
        server.faults = [lambda _reply: (forever.wait(20), None)[1]] * 50
        with pytest.raises(EngineError, match=r"completions gave no answer within 0\.3 s"):
            answers(asked, PAIRS[:1])
        forever.set()


@pytest.mark.fault("server", "one of two servers goes", "the other one does the work of both")
def test_of_two_servers_one_does_the_work_of_both_where_the_other_is_away() -> None:
    with ModelServer() as one, ModelServer() as other:
        asked = engine(one, other, rows=2)
        whole = answers(asked, PAIRS)
        assert one.scored and other.scored
        other.stop()
        assert answers(asked, PAIRS) == whole


@pytest.mark.fault(
    "server", "no server is there, or another kind of one", "one line before any work"
)
def test_what_is_wrong_at_the_start_is_said_before_any_work() -> None:
    with ModelServer() as server:
        server.stop()
        with pytest.raises(EngineError, match=r"Start the server, or give another address with st"):
            servers(server)
    with ModelServer() as server:
        server.faults = [html]
        with pytest.raises(EngineError, match="is no JSON"):
            servers(server)
        server.faults = [status(503), status(429)]
        assert servers(server)  # it is only busy


def test_two_servers_of_other_models_are_not_one() -> None:
    with (
        ModelServer() as one,
        ModelServer(model=ServedModel("strong", formula("other"))) as other,
        pytest.raises(ConfigError, match=f"{other.url} does not serve the same as {one.url}: its"),
    ):
        servers(one, other)
