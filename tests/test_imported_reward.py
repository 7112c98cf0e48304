"""drsow_plugin.rewards: of a file or of a server, checked when it is imported."""

from __future__ import annotations

import importlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from helpers.fakes import fake_pair
from helpers.serving import metric, serving

from drsow_plugin import ConfigError, DataError, DrSoW, EngineError, rewards

KEY = "0123456789abcdef0123456789abcdef"


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    rewards.open_reward.cache_clear()
    monkeypatch.delenv("DRSOW_API_KEY", raising=False)
    monkeypatch.setattr(rewards, "_PAUSE_S", 0.01)


def imported(monkeypatch: pytest.MonkeyPatch, source: str) -> Any:
    """Return the function as `trl grpo --reward_funcs drsow_plugin.rewards.drsow_reward` does."""
    monkeypatch.setenv(rewards.VARIABLE, source)
    return getattr(importlib.import_module("drsow_plugin.rewards"), "drsow_reward")  # noqa: B009


def test_a_file_names_the_pair(
    tmp_path: Path, strong: str, weak: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "pair.yaml"
    file.write_text(f"strong: {strong}\nweak: {weak}\nweak-template: none\n")
    reward = imported(monkeypatch, str(file))
    assert imported(monkeypatch, str(file)) is reward
    (expected,) = DrSoW(strong, weak, weak_template="none").score(["a"], ["b"])
    assert reward(["a"], ["b"]) == [expected.reward]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "No such file"),
        ("strong: [", "cannot be read"),
        ("- a", "holds a list"),
        ("strong: a\nweak: b\nrooter: x", "Did you mean 'router'?"),
        ("strong: a", "No weak model was given"),
        ("strong: a\nweak: b\ntrust_remote_code: true", "would run code: code from"),
        ("strong: a\nweak: b\nplugin: evil.py", "would run code: the plugin evil.py"),
    ],
)
def test_a_mistaken_file_is_told_when_the_function_is_imported(
    tmp_path: Path, text: str | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "pair.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError) as error:
        imported(monkeypatch, str(file))
    assert said in str(error.value) and "DRSOW_REWARD" in str(error.value)


def test_without_the_variable_it_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="Set the environment variable DRSOW_REWARD"):
        imported(monkeypatch, "")
    with pytest.raises(AttributeError):
        rewards.nothing  # noqa: B018


def test_a_server_gives_what_the_pair_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewards, "_ROWS", 2)
    prompts: list[Any] = ["a", [{"role": "user", "content": "b"}], "c"]
    responses = ["x", "y " * 600, "z"]
    monkeypatch.setenv("DRSOW_API_KEY", KEY)
    with serving(key=KEY) as url:
        got: list[dict[str, float]] = [{}, {}]
        reward = imported(monkeypatch, f"{url}/")
        local = DrSoW(**fake_pair()).as_reward_function()
        both = [
            f(prompts, responses, log_metric=m.__setitem__)
            for f, m in zip((reward, local), got, strict=True)
        ]
        headers = {"Authorization": f"Bearer {KEY}"}
        assert metric(url, 'drsow_requests_total{code="200",path="/v1/rewards"}', headers) == 3
    assert both[0] == both[1] and got[0] == got[1]
    assert both[0][1] is None


def test_a_server_that_refuses_the_key_is_told_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(key=KEY) as url:
        for key in ("", KEY[::-1]):
            monkeypatch.setenv("DRSOW_API_KEY", key)
            rewards.open_reward.cache_clear()
            with pytest.raises(ConfigError, match="HTTP 401: A key is needed") as error:
                imported(monkeypatch, url)
            assert not key or key not in str(error.value)


def test_rows_that_the_server_refuses_stop_the_trainer(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(max_row=100) as url:
        reward = imported(monkeypatch, url)
        with pytest.raises(DataError, match="HTTP 413: Row 0 has 1001 characters"):
            reward(["a"], ["b" * 1000])


@contextmanager
def answering(*answers: tuple[int, bytes], **headers: str) -> Iterator[str]:
    """Serve answers, one after the other; the last one for ever."""
    left = list(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            code, body = left.pop(0) if len(left) > 1 else left[0]
            self.send_response(code)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


ROW = {
    **{"reward": 2.0, "strong_logprob": -1.0, "weak_logprob": -3.0, "strong_tokens": 1},
    **{"weak_tokens": 1, "status": "ok", "notes": [], "domain": None, "domain_confidence": None},
}
ONE = json.dumps({"rewards": [ROW]}).encode()
NONE = b'{"rewards": []}'


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((200, b"<html>hello</html>"), "something else than 0 rewards. Is it drsow serve?"),
        ((200, b'{"rewards": [1'), "something else than 0 rewards"),
        ((200, b'{"rewards": 5}'), "something else than 0 rewards"),
        ((200, ONE), "something else than 0 rewards"),
        ((302, b""), "HTTP 302"),
        ((404, b"<html>"), "HTTP 404: its answer is none of drsow serve's"),
        ((307, b""), "HTTP 307"),
    ],
)
def test_what_is_no_reward_server_is_told_when_the_function_is_imported(
    answer: tuple[int, bytes], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering(answer, Location="http://127.0.0.1:9/") as url:
        with pytest.raises(ConfigError) as error:
            imported(monkeypatch, url)
        assert said in str(error.value)


@pytest.mark.parametrize(
    "change",
    [{"reward": float("nan")}, {"reward": None}, {"reward": "2"}, {"status": "bad row: x"}, {}],
)
def test_a_reward_that_is_none_is_never_taken_for_one(
    change: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {**ROW, **change}
    if not change:
        del row["status"]
    with answering((200, NONE), (200, json.dumps({"rewards": [row]}).encode())) as url:
        reward = imported(monkeypatch, url)
        with pytest.raises(ConfigError, match="something else than 1 rewards"):
            reward(["a"], ["b"])


@pytest.mark.parametrize(
    "url",
    [
        *("http://", "http://[", "http://:80", "http://a:99999", "http://a:key", "ftp://u:key@a"),
        *("http:://u:key@a", "u:key@a:8080", "127.0.0.1:8080", "http://u:1/key@a"),
    ],
)
def test_a_url_that_is_none_is_told(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="is a URL such as") as error:
        imported(monkeypatch, url)
    assert "key" not in str(error.value)


def test_a_key_in_the_url_is_sent_and_never_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(key=KEY) as url:
        assert len(imported(monkeypatch, url.replace("//", f"//drsow:{KEY}@"))(["a"], ["b"])) == 1
        with pytest.raises(ConfigError, match="HTTP 401") as error:
            imported(monkeypatch, url.replace("//", f"//drsow:{KEY[::-1]}@"))
    assert KEY[::-1] not in str(error.value)


def test_a_key_with_characters_that_a_url_does_not_take_is_quoted_in_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with serving(key="0123456789/+=%@:") as url:
        source = url.replace("http://", "HTTP://drsow:0123456789%2F%2B%3D%25%40%3A@")
        assert len(imported(monkeypatch, source)(["a"], ["b"])) == 1


@pytest.mark.parametrize("ends", ["\n", " \r\n"])
def test_a_key_is_taken_without_the_end_of_its_line(
    ends: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRSOW_API_KEY", KEY + ends)
    with serving(key=KEY) as url:
        assert len(imported(monkeypatch, url)(["a"], ["b"])) == 1


@pytest.mark.parametrize("key", [f"{KEY}\nX-Other: 1", f"{KEY} {KEY}", f"{KEY}\u0142"])
def test_a_key_that_cannot_be_sent_is_refused_and_not_said(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRSOW_API_KEY", key)
    with pytest.raises(ConfigError, match="DRSOW_API_KEY is none") as error:
        imported(monkeypatch, "http://127.0.0.1:8080")
    assert KEY not in str(error.value)


def test_a_server_that_is_down_is_told_when_the_function_is_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with answering((200, NONE)) as url:
        pass
    with pytest.raises(ConfigError, match=r"cannot be reached: .*refused.* Start it with"):
        imported(monkeypatch, url)


def test_a_server_that_is_busy_or_starts_again_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = ((200, NONE), (429, b""), (503, b"<html>"), (429, b""), (200, ONE))
    with answering(*answers, Retry_After="0") as url:
        assert imported(monkeypatch, url)(["a"], ["b"]) == [2.0]
    assert capsys.readouterr().err == f"drsow: waiting for {url}: HTTP 429\n"


def test_a_server_that_stays_away_stops_the_trainer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewards, "_PATIENCE_S", 0.05)
    with answering((200, NONE)) as url:
        reward = imported(monkeypatch, url)
    with pytest.raises(EngineError, match=r"gave no rewards for 0 s: .*refused"):
        reward(["a"], ["b"])


def test_a_server_that_fails_stops_the_trainer_with_what_it_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fault = json.dumps({"error": {"code": 500, "message": "Scoring failed: it broke"}}).encode()
    with answering((200, NONE), (500, fault)) as url:
        reward = imported(monkeypatch, url)
        with pytest.raises(EngineError, match="HTTP 500: Scoring failed: it broke"):
            reward(["a"], ["b"])
