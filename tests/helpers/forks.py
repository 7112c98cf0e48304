"""Forks that may be killed at any moment."""

from __future__ import annotations

import os
import threading

import tqdm

FLAGS = os.WEXITED | os.WNOHANG | os.WNOWAIT


def fork() -> int:
    """Fork, with no lock that a fork that is killed could hold for ever, and no thread but this.

    tqdm has a lock that all forks share, whether its bars are shown or not, and a thread.
    """
    bars = tqdm.tqdm
    bars.monitor_interval = 0
    if bars.monitor is not None:
        bars.monitor.exit()
        bars.monitor = None
    bars.set_lock(threading.RLock())
    return os.fork()


def is_running(child: int) -> bool:
    """Tell whether a fork is at work; it is still to be waited for."""
    return os.waitid(os.P_PID, child, FLAGS) is None
