"""A policy on a server: what is sent, what comes back, and servers that fail."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import datasets
import pytest

from drsow_plugin import ConfigError, EngineError, generate

PROMPTS = [f"Tell me about {n}." for n in range(40)]


class ChatServer(ThreadingHTTPServer):
    """Answers chats by a formula; as vLLM 0.32 and llama.cpp do on the wire.

    Attributes:
        names: What it serves.
        bodies: What was asked, in the order of arrival.
        faults: Statuses of the next answers, one after the other.
        refused: What stands in a prompt that it refuses.
        knows_top_k: Whether it takes the parameter, which is not OpenAI's.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.names = ["org/policy"]
        self.bodies: list[dict[str, Any]] = []
        self.faults: list[int] = []
        self.refused = "forbidden"
        self.knows_top_k = True
        self.lock = threading.Lock()
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def answer(self, body: dict[str, Any]) -> tuple[int, Any]:
        with self.lock:
            self.bodies.append(body)
            status = self.faults.pop(0) if self.faults else 200
        text = body["messages"][-1]["content"]
        if status != 200:
            return status, {"error": {"message": "injected"}}
        if "top_k" in body and not self.knows_top_k:
            return 400, {"error": {"message": "Unrecognized request argument supplied: top_k"}}
        if self.refused in text:
            return 400, {"error": {"message": "the prompt is too long"}}
        said = hashlib.sha256(f"{text}{body['seed']}".encode()).hexdigest()
        finish = "length" if said[0] in "01" else "stop"
        message = {"role": "assistant", "content": said[: 4 + int(said[1], 16)]}
        choice = {"index": 0, "message": message, "finish_reason": finish}
        return 200, {"choices": [choice], "usage": {"completion_tokens": 7}}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: ChatServer

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._send(200, {"data": [{"id": name} for name in self.server.names]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with suppress(OSError):  # whoever asked may be gone
            self._send(*self.server.answer(body))

    def _send(self, status: int, answer: Any) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def server() -> Iterator[ChatServer]:
    server = ChatServer()
    yield server
    server.shutdown()
    server.server_close()


def rows(prompts: list[str]) -> datasets.Dataset:
    return datasets.Dataset.from_dict({"prompt": prompts})


def test_each_response_is_asked_for_with_its_own_seed(server: ChatServer, tmp_path: Path) -> None:
    options: dict[str, Any] = {"server": server.url, "cache_dir": str(tmp_path), "candidates": 3}
    made, report = generate(rows(PROMPTS), "org/policy", **options, top_p=0.9, seed=5)
    assert all(len(responses) == 3 for responses in made["responses"])
    asked = server.bodies[1:]  # the first looks whether it answers
    assert len(asked) == 120 and len({body["seed"] for body in asked}) == 120
    assert {(b["model"], b["temperature"], b["top_p"], b["top_k"]) for b in asked} == {
        ("org/policy", 0.7, 0.9, 50)
    }
    by_text = {(b["messages"][0]["content"], b["seed"]) for b in asked}
    assert {text for text, _ in by_text} == {*PROMPTS}
    cut = sum(status == "cut" for row in made["response_status"] for status in row)
    assert 0 < cut == report.splits["train"].cut < 60
    again, _ = generate(rows(PROMPTS), "org/policy", **options, top_p=0.9, seed=5)
    assert [*again["responses"]] == [*made["responses"]] and len(server.bodies) == 122


def test_a_refused_prompt_costs_one_row_and_is_asked_again(
    server: ChatServer, tmp_path: Path
) -> None:
    data = rows([*PROMPTS[:20], "forbidden", *PROMPTS[20:]])
    options: dict[str, Any] = {"server": server.url, "cache_dir": str(tmp_path), "candidates": 2}
    made, report = generate(data, "org/policy", **options)
    assert made["responses"][20] == [] and "the prompt is too long" in made["problem"][20]
    assert report.splits["train"].without == {"refused": 1}
    before = len(server.bodies)
    server.refused = "nothing"
    mended, _ = generate(data, "org/policy", **options)
    assert len(mended["responses"][20]) == 2
    assert len(server.bodies) - before == 1 + 2 * 16  # those that are kept together with it


def test_a_server_that_fails_for_a_while(
    server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drsow_plugin.engines.server.client.FIRST_PAUSE_S", 0.01)
    server.faults = [200, 503, 429, 500, 503]
    options: dict[str, Any] = {"server": server.url, "candidates": 1}
    made, _ = generate(rows(PROMPTS), "org/policy", cache_dir=str(tmp_path / "a"), **options)
    server.faults = []
    usual, _ = generate(rows(PROMPTS), "org/policy", cache_dir=str(tmp_path / "b"), **options)
    assert [*made["responses"]] == [*usual["responses"]]


def test_a_server_that_is_gone(server: ChatServer, tmp_path: Path) -> None:
    options: dict[str, Any] = {"server": server.url, "cache_dir": str(tmp_path)}
    server.faults = [200, *[404] * 400]
    with pytest.raises(EngineError, match="answered HTTP 404"):
        generate(rows(PROMPTS), "org/policy", **options)


@pytest.mark.parametrize(
    ("change", "policy", "message"),
    [
        ({"names": ["a", "b"]}, "c", "serves a, b, not 'c'. Name one of them"),
        ({"knows_top_k": False}, "org/policy", "top_k.*give top_k=0"),
    ],
)
def test_what_a_server_does_not_have(
    server: ChatServer, tmp_path: Path, change: dict[str, Any], policy: str, message: str
) -> None:
    for name, value in change.items():
        setattr(server, name, value)
    with pytest.raises(ConfigError, match=message):
        generate(rows(PROMPTS), policy, server=server.url, cache_dir=str(tmp_path))
