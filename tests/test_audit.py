"""What is installed is looked up; a service that does not answer is no clean bill of health."""

from __future__ import annotations

import importlib.util
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("pip_audit")

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", ROOT / "scripts/audit.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def advisory(fixed: str | None) -> dict[str, Any]:
    """Return an advisory on markupsafe as OSV has it."""
    events = [{"introduced": "0"}, *([{"fixed": fixed}] if fixed else [])]
    package = {"name": "markupsafe", "ecosystem": "PyPI"}
    affected = {"package": package, "ranges": [{"type": "ECOSYSTEM", "events": events}]}
    return {"id": "PYSEC-1", "summary": "Bad.", "affected": [affected]}


@pytest.fixture
def service() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Answer as OSV does; yield the address, and what is said of markupsafe."""
    said: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            answer = {"vulns": said} if asked["package"]["name"] == "markupsafe" else {}
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1/query", said
        server.shutdown()


@pytest.mark.slow
def test_a_vulnerability_that_a_newer_version_mends_fails(
    audit: ModuleType,
    service: tuple[str, list[dict[str, Any]]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    url, said = service
    said.append(advisory("99.1"))
    pins = ["markupsafe==2.1.0", "click==8.1.0"]
    assert audit.report(audit.ask(pins, ["-s", "osv", "--osv-url", url])) == 1
    assert "markupsafe 2.1.0: PYSEC-1, mended in 99.1" in capsys.readouterr().out
    said[:] = [advisory(None)]
    assert audit.report(audit.ask(pins, ["-s", "osv", "--osv-url", url])) == 0
    assert capsys.readouterr().out == (
        "markupsafe 2.1.0: PYSEC-1, no version mends it\n"
        "2 packages have no known vulnerability that a newer version mends.\n"
    )


@pytest.mark.slow
def test_a_service_that_does_not_answer_is_no_clean_bill_of_health(
    audit: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    nobody = ["-s", "osv", "--osv-url", "http://127.0.0.1:9/v1/query"]
    assert audit.report(audit.ask(["markupsafe==2.1.0"], nobody)) == 2
    assert capsys.readouterr().out.startswith("NOT CHECKED: 1 of 1 packages could not be looked up")


def test_a_package_that_the_service_does_not_know_is_not_checked(
    audit: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit.report(audit.Audit([], 9, ["torch: not found"])) == 2
    assert "1 of 10 packages could not be looked up, such as torch: not found" in (
        capsys.readouterr().out
    )


def test_all_that_is_installed_is_asked_about_but_this_project(audit: ModuleType) -> None:
    pins = dict(pin.split("==") for pin in audit.installed())
    assert {"torch", "transformers", "pip-audit"} <= set(pins) and "drsow-plugin" not in pins
    assert not any("+" in version for version in pins.values())
