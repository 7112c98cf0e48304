"""Runs the steps of a plan: those that are finished are kept, one that was killed goes on."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from drsow_plugin.annotate.place import REPORT
from drsow_plugin.cache import storage_errors
from drsow_plugin.errors import ConfigError, DrSoWError, Interrupted
from drsow_plugin.pipeline.plan import Plan, Step
from drsow_plugin.tuning.folder import RECORD as TRAINING

_DONE = "steps"
_BY_ITSELF_S = 2.0
_TRAINING = ("tune", "grpo")
_LAST = {"generate": REPORT, "annotate": REPORT, "evaluate": ""}
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
        ConfigError: There is no such step, or another run is at work in the folder.
        DrSoWError: A step failed; those before it are kept.
        Interrupted: Ctrl-C or SIGTERM; the same run goes on from there.
        StorageError: There is no room.
    """
    steps = plan.steps[: _last(plan, until)]
    finished = 0
    with storage_errors(f"{plan.folder} cannot be written", _ADVICE), _alone(plan.folder):
        for number, step in enumerate(steps, start=1):
            place = f"[{number}/{len(steps)}] {step.name}"
            if is_done(plan, step) or _ended_unseen(plan, step):
                tell(f"{place}: finished before")
                continue
            tell(f"{place}:\n  {as_command(step)}")
            begun = time.time()
            _run(step, call or call_drsow, f"step {number} of {len(steps)}, {step.name},")
            _write_record(plan, step, round(time.time() - begun, 1))
            finished += 1
    return Ran(finished, len(steps) - finished)


def is_done(plan: Plan, step: Step) -> bool:
    """Return whether a step is finished, and what it wrote is still there."""
    wrote = step.output.exists() or str(step.output) not in step.command
    return _record(plan, step).is_file() and wrote


def seconds_of(plan: Plan, step: Step) -> float | None:
    """Return how long a step took when it ran last, in seconds; ``None`` if it is not known."""
    try:
        return float(json.loads(_record(plan, step).read_text(encoding="utf-8"))["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


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


def _write_record(plan: Plan, step: Step, seconds: float | None) -> None:
    record = {"name": step.name, "command": ["drsow", *step.command], "seconds": seconds}
    _record(plan, step).write_text(json.dumps(record, indent=1), encoding="utf-8")


def _ended_unseen(plan: Plan, step: Step) -> bool:
    """Note a step whose command came to its end outside of this run: by hand, or as it was killed.

    What is written last says so: a training's record, an output's report, an evaluation's file.
    """
    if step.command[0] in _TRAINING:
        try:
            record = json.loads((step.output / TRAINING).read_text(encoding="utf-8"))
            ended = "done" in record
        except (OSError, ValueError):
            ended = False
    else:
        last = _LAST.get(step.command[0])
        ended = last is not None and (step.output / last).is_file()
    if ended:
        _write_record(plan, step, None)
    return ended


def _last(plan: Plan, until: str | None) -> int:
    names = [step.name for step in plan.steps]
    if until is None:
        return len(names)
    if until not in names:
        raise ConfigError(f"There is no step {until!r}, only {', '.join(names)}.")
    return names.index(until) + 1


def _record(plan: Plan, step: Step) -> Path:
    return plan.folder / _DONE / f"{step.output.name}.json"


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder.

    Raises:
        ConfigError: One is in it.
    """
    (folder / _DONE).mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / _DONE / "lock")
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
