"""A study that is killed at any point goes on, and reads nothing again that was kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

POINTS = 8


@pytest.mark.fault(
    "kill",
    "SIGKILL of a study at a random moment",
    "the same study goes on: the same figures, and no log-prob that was kept is computed again",
)
@pytest.mark.slow
def test_a_study_killed_at_any_point_goes_on_and_says_the_same(tmp_path: Path) -> None:
    tests = Path(__file__).parents[1]
    command = [sys.executable, "-m", "helpers.killed_studies", str(tmp_path), str(POINTS)]
    environment = {**os.environ, "PYTHONPATH": str(tests)}
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, env=environment, cwd=tests
    )
    runs = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(runs) == POINTS
    assert all(run["same"] for run in runs)
    assert [run["asked"] for run in runs] == [run["left"] for run in runs]
    assert {run["finished"] for run in runs} == {15}
    assert sum(run["killed"] for run in runs) >= POINTS - 2
    assert len({run["kept"] for run in runs}) > 3  # they were killed at different points
