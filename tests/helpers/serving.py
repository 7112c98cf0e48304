"""A reward server on loopback, in a thread or in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest

from drsow_plugin import DrSoW
from drsow_plugin.cli import main
from drsow_plugin.serving.options import parse_serving
from drsow_plugin.serving.server import RewardServer, listen, url_of
from helpers.fakes import fake_pair


class Answer(NamedTuple):
    """An HTTP answer; its body is JSON, or a text where it is not."""

    code: int
    body: Any
    headers: Mapping[str, str]

    @property
    def error(self) -> str:
        message: str = self.body["error"]["message"]
        assert self.body["error"]["code"] == self.code
        return message


def ask(url: str, body: object = None, headers: Mapping[str, str] | None = None) -> Answer:
    """Send a request: POST with a body, which is JSON unless it is bytes, GET without."""
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    request = urllib.request.Request(url, data, dict(headers or {}))
    try:
        with urllib.request.urlopen(request, timeout=300) as response:
            return _answer(response.status, response.read(), response.headers)
    except urllib.error.HTTPError as error:
        with error:
            return _answer(error.code, error.read(), error.headers)


def _answer(code: int, body: bytes, headers: Any) -> Answer:
    is_json = headers.get("content-type") == "application/json"
    return Answer(code, json.loads(body) if is_json else body.decode(), dict(headers))


def metric(url: str, name: str, headers: Mapping[str, str] | None = None) -> float:
    """Return the value of a metric, named with its labels; 0 where it was never counted."""
    lines = ask(f"{url}/metrics", headers=headers).body.splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return float(values.get(name, 0))


@contextmanager
def serving(key: str | None = None, **options: Any) -> Iterator[str]:
    """Serve a pair, of engines without weights unless one is given; yield the URL.

    Args:
        key: What requests have to bring.
        **options: Of the pair and of the server.
    """
    pair = {} if "strong" in options else fake_pair()
    config, serve = parse_serving({**pair, "port": 0, **options})
    with listen(serve) as listener:
        server = RewardServer(DrSoW.from_config(config), serve, key)
        thread = threading.Thread(target=server.run, args=[listener])
        thread.start()
        try:
            yield url_of(listener)
        finally:
            server.stop()
            thread.join()


@contextmanager
def served(arguments: Sequence[str]) -> Iterator[None]:
    """Run ``drsow serve`` with arguments, in a thread; begin once it is ready."""
    ready = threading.Event()
    servers: list[RewardServer] = []

    def run(server: RewardServer, listener: socket.socket) -> None:
        servers.append(server)
        threading.Thread(target=_until_ready, args=[url_of(listener), ready]).start()
        original(server, listener)

    original = RewardServer.run
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RewardServer, "run", run)
        command = threading.Thread(
            target=main.main, args=[["serve", *arguments]], kwargs={"standalone_mode": False}
        )
        command.start()
        assert ready.wait(120)
    try:
        yield
    finally:
        servers[0].stop()
        command.join()


def _until_ready(url: str, ready: threading.Event) -> None:
    while ask(f"{url}/ready").code != 200:
        time.sleep(0.05)
    ready.set()


class Process:
    """``drsow serve`` in a process, which the block that it is made for ends at the latest.

    Attributes:
        url: Where it listens.
    """

    def __init__(self, *arguments: str, port: int = 0, **variables: str) -> None:
        command = [sys.executable, "-m", "drsow_plugin.cli", "serve", *arguments]
        self._process = subprocess.Popen(
            [*command, "--port", str(port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **variables},
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip().rpartition(" on ")[2]

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()

    def wait_until_ready(self) -> None:
        while ask(f"{self.url}/ready").code != 200:
            time.sleep(0.05)

    def end(self, number: signal.Signals | None = None) -> tuple[int, str, str]:
        """Send a signal, and return the exit status and what was printed since."""
        if number is not None:
            self._process.send_signal(number)
        stdout, stderr = self._process.communicate(timeout=60)
        return self._process.returncode, stdout, stderr
