"""A signal ends a command, at whatever moment of Python it comes."""

from __future__ import annotations

import os
import signal
import sys
import time

import pytest

from drsow_plugin.cli.signals import signals_told


class Dropped:
    """An object that gets a signal while it is removed, where Python drops what is raised."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __del__(self) -> None:
        os.kill(os.getpid(), self._number)
        for _ in range(1000):  # the handler runs in here
            pass


@pytest.mark.fault(
    "kill",
    "SIGINT or SIGTERM in the middle of a destructor, where Python drops it",
    "it is sent again: the command ends, with one line and status 130 or 143",
)
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_that_python_drops_ends_the_command(
    number: int, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    hook = sys.unraisablehook
    with pytest.raises(SystemExit) as ended, signals_told():
        Dropped(number)
        for _ in range(3000):
            time.sleep(0.01)
    assert ended.value.code == status
    assert capsys.readouterr().err == "Interrupted.\n"
    assert sys.unraisablehook is hook and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
