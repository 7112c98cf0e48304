"""Real servers of the demo model: vLLM as docs/serving.md starts it, and llama.cpp's."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from helpers.pages import blocks, commands

ROOT = Path(__file__).parents[2]
VENV = ROOT / ".venv-servers"
FOLDER = VENV / "demo-model"
PAGE = ROOT / "docs" / "serving.md"
_READY_S = 900
_LLAMA_CPP = """
import sys, time, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.port, params.n_ctx = sys.argv[1], int(sys.argv[2]), 2048
params.hostnames = ["127.0.0.1"]
params.model_alias = {"demo"}
server = xllamacpp.Server(params)
time.sleep(3600)
"""


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


class Server:
    """A server in processes of its own; a context manager."""

    def __init__(self, command: list[str], environment: dict[str, str], port: int) -> None:
        self._command, self._environment = command, environment
        self.url = f"http://127.0.0.1:{port}"

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with (VENV / "server.log").open("w") as log:
            self._process = subprocess.Popen(
                self._command,
                env={**os.environ, **self._environment},
                cwd=VENV,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that all its processes can be ended
            )
        until = time.monotonic() + _READY_S
        while not self._is_ready():
            said = (VENV / "server.log").read_text(errors="replace")[-2000:]
            assert self._process.poll() is None and time.monotonic() < until, said
            time.sleep(0.5)

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5) as response:
                return bool(response.status == 200)
        except OSError:
            return False

    def kill(self) -> None:
        """End it with all its processes, at once."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def vllm_command() -> str:
    """Return the command by which the page starts vLLM."""
    shown = [line for block in blocks(PAGE) for line in commands(block.text)]
    (command,) = [line for line in shown if "vllm.entrypoints" in line]
    return command


def vllm() -> Server:
    """Return vLLM with the demo model, as the page starts it; not started yet."""
    port = _free_port()
    words = shlex.split(vllm_command().replace("8000", str(port)))
    settings = dict(word.split("=", 1) for word in words if re.match(r"[A-Z_]+=", word))
    command = words[len(settings) :]
    assert command[0] == ".venv-servers/bin/python"
    command[0] = str(VENV / "bin" / "python")
    command[command.index("demo-model")] = str(FOLDER)
    return Server(command, settings, port)


@contextmanager
def llama_cpp(gguf: Path) -> Iterator[Server]:
    """Yield llama.cpp's server with a GGUF file."""
    port = _free_port()
    command = [str(VENV / "bin" / "python"), "-c", _LLAMA_CPP, str(gguf), str(port)]
    with Server(command, {}, port) as server:
        yield server
