"""A server's life: it loads, answers, is stopped or killed, and nothing accepted is lost."""

from __future__ import annotations

import signal
import threading
import time
import urllib.error
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from helpers.fakes import fake_pair
from helpers.serving import Answer, Process, ask, metric, serving

from drsow_plugin import ConfigError, DrSoW, FakeEngine, TokenPair
from drsow_plugin.serving.options import parse_serving
from drsow_plugin.serving.server import RewardServer, listen, url_of

ROWS = {"prompts": ["Name a prime."] * 400, "responses": [f"{n} is one." for n in range(400)]}


def test_a_server_that_is_stopped_answers_what_it_accepted_and_nothing_more() -> None:
    held, asked = threading.Event(), threading.Event()

    def answer(pair: TokenPair) -> list[float]:
        asked.set()
        assert held.wait(60)
        return [-1.0] * len(pair.response_ids)

    strong = FakeEngine(logprobs=answer, identity="held")
    with ThreadPoolExecutor(1) as clients:
        with serving(**fake_pair(strong=strong)) as url:
            accepted = clients.submit(ask, f"{url}/v1/rewards", ROWS)
            assert asked.wait(60)
            threading.Timer(0.5, held.set).start()
        assert accepted.result().code == 200
        assert len(accepted.result().body["rewards"]) == 400
    with pytest.raises(urllib.error.URLError, match="refused"):
        ask(f"{url}/health")


@pytest.mark.fault(
    "kill",
    "SIGTERM or SIGINT of `drsow serve` with requests under way",
    "all that was accepted is answered; status 0",
)
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_command_when_all_is_answered(
    strong: str, weak: str, number: signal.Signals
) -> None:
    pair = ("--strong", strong, "--weak", weak)
    with Process(*pair) as process, ThreadPoolExecutor(1) as clients:
        process.wait_until_ready()
        answer = clients.submit(ask, f"{process.url}/v1/rewards", ROWS)
        while not answer.done() and metric(process.url, "drsow_waiting_rows") == 0:
            time.sleep(0.01)
        status, stdout, stderr = process.end(number)
        assert (status, answer.result().code) == (0, 200), stderr
    assert "stopped; all that was accepted is answered" in stdout
    assert stderr.endswith(
        f"drsow: {number.name}: finishing what was accepted; again stops at once\n"
    )
    assert "Traceback" not in stderr
    expected = DrSoW(strong, weak).score(ROWS["prompts"], ROWS["responses"])
    rewards = [row["reward"] for row in answer.result().body["rewards"]]
    assert rewards == pytest.approx([reward.reward for reward in expected], abs=1e-4)


class Unloadable(FakeEngine):
    """An engine whose weights turn out to be broken, once somebody waits for them."""

    device = "nowhere"
    is_loaded = False

    def __init__(self, is_awaited: threading.Event) -> None:
        super().__init__(identity="unloadable")
        self._is_awaited = is_awaited

    def load(self) -> None:
        assert self._is_awaited.wait(60)
        raise ConfigError("the weights are broken")


@pytest.mark.fault(
    "model",
    "weights turn out to be broken while requests wait for them",
    "those who wait are answered with status 500; nobody hangs",
)
def test_who_waits_for_weights_that_cannot_be_loaded_is_told() -> None:
    is_awaited = threading.Event()
    config, serve = parse_serving(fake_pair(port=0, strong=Unloadable(is_awaited)))
    with listen(serve) as listener, ThreadPoolExecutor(1) as clients:
        url = url_of(listener)
        answer = clients.submit(ask, f"{url}/v1/rewards", ROWS)

        def let_go() -> None:
            while metric(url, "drsow_waiting_rows") < 400:
                time.sleep(0.01)
            assert ask(f"{url}/ready").code == 503 and ask(f"{url}/health").code == 200
            is_awaited.set()

        watching = threading.Thread(target=let_go)
        watching.start()
        with pytest.raises(ConfigError, match="the weights are broken"):
            RewardServer(DrSoW.from_config(config), serve).run(listener)
        watching.join()
        assert answer.result().code == 500 and "stopped scoring" in answer.result().error


@pytest.mark.fault("kill", "a second signal to `drsow serve`", "it ends at once; status 130")
def test_a_second_signal_ends_the_command_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    monkeypatch.setattr("os._exit", ended.append)
    config, serve = parse_serving(fake_pair(port=0))
    uvicorn = RewardServer(DrSoW.from_config(config), serve)._server
    uvicorn.handle_exit(signal.SIGTERM, None)
    assert uvicorn.should_exit and not ended
    uvicorn.handle_exit(signal.SIGINT, None)
    assert ended == [130]


def persistent(url: str) -> Answer:
    """Ask as trainers do: again and again where nobody answers."""
    for _ in range(600):
        try:
            return ask(url, ROWS)
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    raise AssertionError("nobody answers")


@pytest.mark.fault(
    "kill",
    "SIGKILL of `drsow serve` with requests under way",
    "clients that ask again get their rewards from the one that is started next",
)
@pytest.mark.slow
def test_a_server_that_is_killed_and_started_again_goes_on_where_clients_ask_again(
    strong: str, weak: str
) -> None:
    models = ("--strong", strong, "--weak", weak)
    with ThreadPoolExecutor(4) as clients, Process(*models) as process:
        process.wait_until_ready()
        port = int(process.url.rpartition(":")[2])
        url = f"{process.url}/v1/rewards"
        answers = [clients.submit(persistent, url) for _ in range(4)]
        while not answers[0].done() and metric(process.url, "drsow_waiting_rows") == 0:
            time.sleep(0.01)
        assert process.end(signal.SIGKILL)[0] == -signal.SIGKILL
        with Process(*models, port=port) as again:
            got = [future.result() for future in answers]
            assert [len(answer.body["rewards"]) for answer in got] == [400] * 4
            assert again.end(signal.SIGTERM)[0] == 0


@pytest.mark.fault(
    "model", "a file of weights is cut in half", "`drsow serve` ends with one line; status 1"
)
@pytest.mark.slow
def test_weights_that_cannot_be_loaded_end_the_command_with_one_line(
    strong: str, tmp_path: Path
) -> None:
    for file in Path(strong).iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (weights,) = tmp_path.glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    with Process("--strong", strong, "--weak", str(tmp_path)) as process:
        status, _, stderr = process.end()
    assert status == 1 and "Traceback" not in stderr
    assert [line for line in stderr.splitlines() if line.startswith("Error: ")], stderr
