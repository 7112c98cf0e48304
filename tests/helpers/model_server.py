"""Servers of models on the loopback: real HTTP, wire formats as real servers have them, and faults.

What they answer are log-probs by a formula, or of a model that a test gives.
"""

from __future__ import annotations

import hashlib
import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from helpers.dialects import DIALECTS, Refusal, ServedModel

LogProbs = Callable[[Sequence[int]], list[float]]


def formula(name: str = "strong") -> LogProbs:
    """Return log-probs that depend on all tokens so far and on nothing else: of a causal model."""

    def logprobs(ids: Sequence[int]) -> list[float]:
        digest, found = hashlib.sha256(name.encode()), []
        for token in ids:
            digest.update(token.to_bytes(4, "big"))
            found.append(-int.from_bytes(digest.digest()[:2], "big") / 5000)
        return found[1:]

    return logprobs


@dataclass(frozen=True)
class Reply:
    """What goes back; ``cut`` sends half of it and hangs up."""

    content: bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False


Fault = Callable[[Reply], Reply | None]
"""What becomes of a reply; ``None`` hangs up."""


def status(code: int, said: str = "injected", **headers: str) -> Fault:
    content = json.dumps({"error": {"message": said}}).encode()
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _reply: Reply(content, code, sent)


def html(_reply: Reply) -> Reply:
    return Reply(b"<!DOCTYPE html><title>Welcome</title>", headers={"Content-Type": "text/html"})


def hangs_up(_reply: Reply) -> None:
    return None


def cut(reply: Reply) -> Reply:
    return replace(reply, cut=True)


def rewritten(change: Callable[[str], str]) -> Fault:
    return lambda reply: replace(reply, content=change(reply.content.decode()).encode())


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # of more than five connections at once some would wait for a second


@dataclass
class ModelServer:
    """A server; a context manager.

    Attributes:
        dialect: What it speaks; see ``helpers.dialects``.
        model: What it serves.
        key: What it wants as a key.
        faults: What becomes of the next replies to requests for log-probs, one after the other.
        requests: The path and the body of each such request so far.
        connections: How many were opened.
    """

    dialect: str = "vllm"
    model: ServedModel = field(default_factory=lambda: ServedModel("strong", formula()))
    key: str | None = None
    faults: list[Fault | None] = field(default_factory=list)
    requests: list[tuple[str, Any]] = field(default_factory=list)
    connections: int = 0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    def __enter__(self) -> ModelServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        self._http = _Http(("127.0.0.1", self._port), _handler(self))
        self._port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """End it as a process ends: with all connections."""
        self._http.shutdown()
        self._http.server_close()
        with self._lock:
            sockets, self._sockets = self._sockets, set()
        for connection in sockets:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def connected(self, connection: socket.socket) -> None:
        with self._lock:
            self._sockets.add(connection)
            self.connections += 1

    def serve(self, method: str, path: str, body: Any, given: str | None) -> Reply | None:
        if self.key is not None and given != f"Bearer {self.key}":
            return status(401, f"Incorrect API key provided: {given}")(Reply(b""))
        if method == "GET":
            return self._reply(path, None)
        with self._lock:
            self.requests.append((path, body))
            fault = self.faults.pop(0) if self.faults else None
        reply = self._reply(path, body)
        return reply if fault is None else fault(reply)

    def _reply(self, path: str, body: Any) -> Reply:
        try:
            return Reply(json.dumps(DIALECTS[self.dialect](self.model, path, body)).encode())
        except Refusal as refusal:
            content = {"error": {"message": str(refusal), "code": refusal.status}}
            return Reply(json.dumps(content).encode(), refusal.status)

    @property
    def scored(self) -> list[tuple[str, Any]]:
        """The requests since it was opened, without those of the probe."""
        return self.requests[self._seen :]

    _seen = 0

    def forget(self) -> None:
        """Let ``scored`` begin now."""
        self._seen = len(self.requests)


@contextmanager
def two_servers(**options: Any) -> Iterator[tuple[ModelServer, ModelServer]]:
    """Yield servers of a strong and of a weak model."""
    with (
        ModelServer(model=ServedModel("strong", formula("strong")), **options) as strong,
        ModelServer(model=ServedModel("weak", formula("weak")), **options) as weak,
    ):
        yield strong, weak


def _handler(server: ModelServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # connections are kept
        disable_nagle_algorithm = True  # else a body waits 40 ms for word that the head has come

        def setup(self) -> None:
            super().setup()
            server.connected(self.connection)

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            self._answer(None)

        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            self._answer(json.loads(self.rfile.read(length)))

        def _answer(self, body: Any) -> None:
            with suppress(OSError):  # whoever asked may be gone
                given = self.headers.get("Authorization")
                self._send(server.serve(self.command, self.path, body, given))

        def _send(self, reply: Reply | None) -> None:
            if reply is None:
                self.close_connection = True
                return
            self.send_response(reply.status)
            self.send_header("Content-Length", str(len(reply.content)))
            for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            end = len(reply.content) // 2 if reply.cut else len(reply.content)
            self.close_connection |= reply.cut
            self.wfile.write(reply.content[:end])

    return Handler
