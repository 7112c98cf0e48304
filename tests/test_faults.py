"""Every kind of process is ended at random moments, and what it did is not lost."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parent
POINTS = 9

pytestmark = [pytest.mark.faults, pytest.mark.slow]


def outcomes(kind: str, strong: str, weak: str, folder: Path) -> list[dict[str, Any]]:
    """Return what came of each end; the seed is printed, and may be given as DRSOW_TEST_SEED."""
    seed = os.environ.get("DRSOW_TEST_SEED") or str(random.SystemRandom().randrange(1 << 30))
    command = [sys.executable, "-m", "helpers.ended_runs", kind, strong, weak, str(folder), seed]
    environment = {
        **os.environ,
        **{"PYTHONPATH": str(TESTS), "DRSOW_CACHE": str(folder / "cache")},
        "HF_DATASETS_CACHE": str(folder / "datasets"),
    }
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=TESTS, check=False
    )
    sys.stdout.write(f"DRSOW_TEST_SEED={seed}\n{done.stdout}\n{done.stderr}")
    assert done.returncode == 0
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def hold(found: list[dict[str, Any]], ends: dict[str, set[int]]) -> None:
    """Hold what is true of all: the same result, nothing left behind, one line."""
    assert found and all(outcome["same"] and outcome["resumed"] == 0 for outcome in found)
    assert not any(outcome["left"] for outcome in found)
    assert not any("Traceback" in outcome["said"] for outcome in found)
    for outcome in found:
        assert outcome["status"] in ends[outcome["signal"]], outcome


ENDS = {"SIGKILL": {-9, 0}, "SIGTERM": {143, 0}, "SIGINT": {130, 0}}


@pytest.mark.fault(
    "kill",
    "SIGKILL, SIGTERM and SIGINT of `drsow annotate`, each at three random moments",
    "status 143 or 130 and one line; the same command gives the same rows and leaves nothing else",
)
def test_labelling_that_is_ended_at_a_random_moment_goes_on(
    tmp_path: Path, strong: str, weak: str
) -> None:
    found = outcomes("annotate", strong, weak, tmp_path)
    assert len(found) == POINTS
    hold(found, ENDS)


@pytest.mark.fault(
    "kill",
    "SIGKILL, SIGTERM and SIGINT of `drsow study`, each at three random moments",
    "status 143 or 130 and one line; the same command finds the same figures",
)
def test_a_study_that_is_ended_at_a_random_moment_goes_on(
    tmp_path: Path, strong: str, weak: str
) -> None:
    found = outcomes("study", strong, weak, tmp_path)
    assert len(found) == POINTS
    hold(found, ENDS)


@pytest.mark.fault(
    "kill",
    "SIGKILL, SIGTERM and SIGINT of `drsow merge`, each at three random moments",
    "status 143 or 130 and one line; the same command writes the same rows",
)
def test_a_merge_that_is_ended_at_a_random_moment_is_made_whole(
    tmp_path: Path, strong: str, weak: str
) -> None:
    found = outcomes("merge", strong, weak, tmp_path)
    assert len(found) == POINTS
    hold(found, ENDS)


@pytest.mark.fault(
    "kill",
    "SIGKILL, SIGTERM and SIGINT of `drsow serve`, each at three random moments, starting or asked",
    "clients that ask again get the rewards of the pair from the one that is started next",
)
def test_a_server_that_is_ended_at_a_random_moment_is_started_again(
    tmp_path: Path, strong: str, weak: str
) -> None:
    found = outcomes("serve", strong, weak, tmp_path)
    assert len(found) == POINTS
    hold(found, ENDS)


@pytest.mark.fault(
    "worker",
    "SIGKILL or SIGTERM of a process of `num_proc`, or of the one that started them, at work",
    "no hang: one line where a worker died, and no process is left; the same command goes on",
)
def test_a_worker_that_is_ended_ends_the_run_and_nothing_hangs(
    tmp_path: Path, strong: str, weak: str
) -> None:
    found = outcomes("worker", strong, weak, tmp_path)
    assert len(found) == 4 and not any(outcome["alive"] for outcome in found)
    of_workers = [outcome for outcome in found if outcome["worker"]]
    assert all("Error: A process that scored rows died" in one["said"] for one in of_workers)
    hold(of_workers, {"SIGKILL": {1}, "SIGTERM": {1}})
    hold([outcome for outcome in found if not outcome["worker"]], ENDS)
