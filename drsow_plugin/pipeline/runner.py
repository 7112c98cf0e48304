"""Runs the steps of a plan: those that are finished are kept, one that was killed goes on."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from drsow_plugin.cache import storage_errors
from drsow_plugin.errors import ConfigError, DrSoWError, Interrupted, unknown_name
from drsow_plugin.pipeline.finished import DONE, check_unchanged, ended_unseen, is_done, note
from drsow_plugin.pipeline.steps import Plan, Step

_BY_ITSELF_S = 2.0
_ADVICE = "Make room, and run again: finished steps are kept."

Call = Callable[[Sequence[str]], int]
"""Runs ``drsow`` with arguments, and returns its exit status."""


@dataclass(frozen=True)
class Ran:
    """What a run did.

    Attributes:
        finished: Steps that were run now.
        kept: Steps that were finished before.
    """

    finished: int
    kept: int


def run_plan(
    plan: Plan, tell: Callable[[str], object], call: Call | None = None, until: str | None = None
) -> Ran:
    """Run the steps of a plan that are not finished, in order.

    Args:
        plan: The steps.
        tell: Is given each command, before it runs.
        call: Runs one; by default in a process of its own.
        until: The name of the last step to run; ``None`` for all.

    Raises:
        ConfigError: There is no such step, another run is at work in the folder, or the output of
            a step was replaced after others were made of it.
        DrSoWError: A step failed; those before it are kept.
        Interrupted: Ctrl-C or SIGTERM; the same run goes on from there.
        StorageError: There is no room.
    """
    steps = steps_until(plan, until)
    finished = 0
    with storage_errors(f"{plan.folder} cannot be written", _ADVICE), _alone(plan.folder):
        check_unchanged(plan)
        for number, step in enumerate(steps, start=1):
            place = f"[{number}/{len(steps)}] {step.name}"
            if is_done(plan, step) or ended_unseen(plan, step):
                tell(f"{place}: finished before")
                continue
            tell(f"{place}:\n  {as_command(step)}")
            begun = time.time()
            _run(step, call or call_drsow, f"step {number} of {len(steps)}, {step.name},")
            note(plan, step, round(time.time() - begun, 1))
            finished += 1
    return Ran(finished, len(steps) - finished)


def steps_until(plan: Plan, until: str | None) -> list[Step]:
    """Return the steps up to one of a name, all of them for ``None``.

    Raises:
        ConfigError: There is no such step.
    """
    names = [step.name for step in plan.steps]
    if until is not None and until not in names:
        raise ConfigError(unknown_name("step", until, names))
    return plan.steps if until is None else plan.steps[: names.index(until) + 1]


def as_command(step: Step) -> str:
    """Return the command of a step, as one types it."""
    return shlex.join(["drsow", *step.command])


def call_drsow(arguments: Sequence[str]) -> int:
    """Run ``drsow`` in a process of its own, and return its exit status.

    Ctrl-C of a terminal reaches the command as well; a signal that ends this process alone is
    passed on. What the command has to say is waited for.
    """
    command = [sys.executable, "-m", "drsow_plugin.cli", *arguments]
    process = subprocess.Popen(command)  # noqa: S603 (our own command, as a list)
    try:
        return process.wait()
    except KeyboardInterrupt:
        with suppress(subprocess.TimeoutExpired):
            process.wait(_BY_ITSELF_S)
        if process.poll() is None:
            process.terminate()
            process.wait()
        raise


def _run(step: Step, call: Call, told: str) -> None:
    try:
        status = call(step.command)
    except KeyboardInterrupt:
        raise Interrupted(
            f"in {told} finished steps are kept, and the same run goes on from there"
        ) from None
    if status == 0:
        return
    how = f"signal {-status}" if status < 0 else f"status {status}"
    raise DrSoWError(
        f"{told[0].upper()}{told[1:]} ended with {how}; what it said is above. {step.stops}"
        f"Finished steps are kept: mend it, and run again. The command was: {as_command(step)}"
    )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder.

    Raises:
        ConfigError: One is in it.
    """
    for place in (folder, *folder.parents):
        if place.exists() and not place.is_dir():
            raise ConfigError(f"{place} is a file. Give a folder to write to, with --out.")
    (folder / DONE).mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / DONE / "lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise ConfigError(
            f"Another run is at work in {folder}. Wait for it, or give another folder with --out."
        ) from None
    try:
        yield
    finally:
        lock.release()
