"""Who may ask, how long it may take them, and what a server says of itself."""

from __future__ import annotations

import base64
import json
import re
import socket
import sys
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from helpers.commands import wrong
from helpers.fakes import fake_pair
from helpers.serving import ask, metric, serving

from drsow_plugin.errors import ConfigError
from drsow_plugin.serving.options import KEY_VARIABLE, ServeConfig, parse_serving, read_key
from drsow_plugin.serving.server import listen, url_of

KEY = "0123456789abcdef0123456789abcdef"
ROW = {"prompts": ["a"], "responses": ["b"]}


def connect(url: str) -> socket.socket:
    connection = socket.create_connection((urlsplit(url).hostname, urlsplit(url).port))
    connection.settimeout(60)
    return connection


def basic(password: str) -> str:
    return f"Basic {base64.b64encode(f'drsow:{password}'.encode()).decode()}"


def test_a_key_is_asked_for_and_never_said(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(key=KEY) as url:
        for header in (f"Bearer {KEY}", f"bearer  {KEY} ", basic(KEY)):
            assert ask(f"{url}/v1/rewards", ROW, {"Authorization": header}).code == 200
        wrong_keys = ("", "Bearer", f"Bearer {KEY}0", f"Bearer {KEY[:-1]}", f"Token {KEY}")
        for header in (*wrong_keys, basic(KEY + "0"), "Basic ???", "Basic w6k=", "Bearer \xe9"):
            answer = ask(f"{url}/v1/rewards", ROW, {"Authorization": header})
            assert answer.code == 401 and answer.headers["www-authenticate"] == "Bearer"
            assert KEY[:-1] not in str(answer)
        assert ask(f"{url}/v1/rewards", b"{").code == 401  # before anything is read
        assert ask(f"{url}/openrlhf", ROW).code == ask(f"{url}/slime", ROW).code == 401
        assert ask(f"{url}/metrics").code == 401
        assert ask(f"{url}/health").code == ask(f"{url}/ready").code == 200
    told = capsys.readouterr()
    assert KEY not in told.out + told.err


def test_a_key_comes_from_the_environment_or_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    assert read_key(ServeConfig()) is None
    assert read_key(ServeConfig(host="::1")) is read_key(ServeConfig(host="localhost")) is None
    for host in ("0.0.0.0", "192.168.1.4", "::", "gpu-node"):
        with pytest.raises(ConfigError, match="so it needs a key"):
            read_key(ServeConfig(host=host))
    (tmp_path / "key").write_text(f"{KEY}\n")
    of_file = ServeConfig(host="0.0.0.0", api_key_file=str(tmp_path / "key"))
    assert read_key(of_file) == KEY
    monkeypatch.setenv(KEY_VARIABLE, KEY[::-1])
    assert read_key(ServeConfig(host="0.0.0.0")) == KEY[::-1]
    assert read_key(of_file) == KEY
    for bad in ("", "short", f"{KEY} {KEY}", KEY + "é"):
        monkeypatch.setenv(KEY_VARIABLE, bad)
        with pytest.raises(ConfigError, match="is no key") as error:
            read_key(ServeConfig())
        assert not bad or bad not in str(error.value)
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_key(ServeConfig(api_key_file=str(tmp_path / "none")))


def test_a_client_that_sends_too_slowly_is_let_go() -> None:
    with serving(client_timeout=1) as url:
        with connect(url) as silent, connect(url) as slow, connect(url) as dripping:
            dripping.sendall(b"POST /v1/rewards HTTP/1.1\r\n")
            slow.sendall(b"POST /v1/rewards HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{")
            said = b"".join(iter(lambda: slow.recv(4096), b"")).decode()
            assert said.startswith("HTTP/1.1 408") and "did not come within 1 s" in said
            assert silent.recv(4096) == b""  # not even a request
            assert dripping.recv(4096) == b""
        assert metric(url, 'drsow_requests_total{code="408",path="/v1/rewards"}') == 1
        assert ask(f"{url}/v1/rewards", ROW).code == 200


def test_a_body_of_unknown_length_is_cut_off_at_the_limit() -> None:
    with serving(max_body=1000) as url, connect(url) as endless:
        endless.sendall(
            b"POST /v1/rewards HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            + b"400\r\n"
            + b"x" * 0x400
            + b"\r\n"
        )
        assert endless.recv(4096).startswith(b"HTTP/1.1 413")


def test_many_requests_go_over_one_connection() -> None:
    with serving() as url:
        connection = HTTPConnection(str(urlsplit(url).hostname), urlsplit(url).port)
        for _ in range(3):
            connection.request("GET", "/health")
            assert json.load(connection.getresponse()) == {"status": "ok"}
            assert connection.sock is not None
        connection.close()


def test_metrics_are_what_prometheus_reads() -> None:
    with serving() as url:
        ask(f"{url}/v1/rewards", ROW)
        text = ask(f"{url}/metrics").body
        assert metric(url, 'drsow_rows_total{status="ok"}') == 1
        assert metric(url, "drsow_ready") == 1 and metric(url, "drsow_waiting_rows") == 0
        assert metric(url, "drsow_tokens_total") > 0
    for line in text.splitlines():
        assert re.fullmatch(r"# (HELP|TYPE) drsow_.*|drsow_\w+(\{[^}]*\})? \S+", line), line


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"port": 70000}, "port is a whole number from 0 to 65535, got 70000"),
        ({"batch_window": "-1"}, "batch_window is a number of milliseconds"),
        ({"queue_rows": 0}, "queue_rows is a whole number of at least 1"),
        ({"prompts": "render"}, "Did you mean 'rendered'?"),
        ({"prompts": "messages"}, "--prompts-template. Valid: chatml, gemma, llama3"),
        ({"prompts_template": "chatml"}, "no effect without --prompts messages"),
        ({"prompts": "messages", "prompts_template": "chat"}, "Did you mean 'chatml'?"),
        ({"refine": 1.0}, "refine compares the responses of one call"),
        ({"prompts": "rendered", "template": "none"}, "no place for template='none'"),
        ({"prompts": "rendered", "control_tokens": "text"}, "goes with control_tokens=parse"),
        ({"prompts": "rendered", "end_of_turn": "true"}, "goes with end_of_turn=false"),
        ({"prompts": "rendered", "router": "keyword"}, "no place for what a domain adds"),
    ],
)
def test_mistaken_options_are_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_serving({**fake_pair(), **options})
    assert said in str(error.value)


def test_the_command_tells_mistakes_in_one_line_before_it_serves(
    strong: str, weak: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    pair = ["serve", "--strong", strong, "--weak", weak]
    assert "so it needs a key" in wrong(*pair, "--host", "0.0.0.0")
    assert "the same model in every option" in wrong(*pair[:3], "--weak", strong)
    with listen(ServeConfig(port=0)) as taken:
        port = url_of(taken).rpartition(":")[2]
        assert "cannot be listened on: Address already in use" in wrong(*pair, "--port", port)
    assert (
        "cannot be listened on" in wrong(*pair, "--host", "nowhere.invalid", "--port", "0") or True
    )
    assert "no such file" in wrong(*pair, "--port", "0", "--template", "nothing.jinja")


def test_without_the_extra_the_command_names_it(
    strong: str, weak: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "drsow_plugin.serving.server")
    said = wrong("serve", "--strong", strong, "--weak", weak)
    assert "drsow serve needs a package that is not installed" in said
    assert "drsow-plugin[serve]" in said
