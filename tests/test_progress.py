from __future__ import annotations

import threading

import pytest

from drsow_plugin import progress


def test_slow_work_is_told_of_while_it_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = threading.Event()
    monkeypatch.setattr(progress, "_SAID_AFTER_S", 0.0)
    tell = progress.tell

    def noticed(text: str) -> None:
        tell(text)
        said.set()

    monkeypatch.setattr(progress, "tell", noticed)
    with progress.told("loading the strong model"):
        assert said.wait(10)
    assert capsys.readouterr().err == "drsow: loading the strong model\n"


def test_quick_work_is_not_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.told("loading the strong model"):
        pass
    assert capsys.readouterr().err == ""
    timers = [t for t in threading.enumerate() if isinstance(t, threading.Timer)]
    assert all(timer.finished.is_set() for timer in timers)  # called off
