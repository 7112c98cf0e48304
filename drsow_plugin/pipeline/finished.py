"""Which steps of a plan are finished, and whether what they wrote is still that."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from drsow_plugin.annotate.place import REPORT
from drsow_plugin.errors import ConfigError
from drsow_plugin.hashing import file_sha256, text_sha256
from drsow_plugin.pipeline.splitting import LAST
from drsow_plugin.pipeline.steps import Plan, Step
from drsow_plugin.tuning.folder import RECORD as TRAINING

DONE = "steps"
"""The folder of the records, below the plan's."""
_TRAINING = ("tune", "grpo")
_LAST = {"split": LAST, "generate": REPORT, "annotate": REPORT, "evaluate": ""}
_CONTENTS = (".parquet", ".jsonl", ".safetensors")
"""What steps that follow read; a report may come to it later."""
_HASHED = 1 << 30  # of larger files the size is looked at


def is_done(plan: Plan, step: Step) -> bool:
    """Return whether a step is finished, and what it wrote is still there."""
    return _record(plan, step).is_file() and (step.output.exists() or not _writes(step))


def seconds_of(plan: Plan, step: Step) -> float | None:
    """Return how long a step took when it ran last, in seconds; ``None`` if it is not known."""
    seconds = _read(plan, step).get("seconds")
    return float(seconds) if isinstance(seconds, (int, float)) else None


def note(plan: Plan, step: Step, seconds: float | None) -> None:
    """Note that a step came to its end, and what it wrote."""
    record = {
        **{"name": step.name, "command": ["drsow", *step.command], "seconds": seconds},
        "wrote": _stamp(step.output) if _writes(step) else None,
    }
    _record(plan, step).write_text(json.dumps(record, indent=1), encoding="utf-8")


def ended_unseen(plan: Plan, step: Step) -> bool:
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
        note(plan, step, None)
    return ended


def check_unchanged(plan: Plan) -> None:
    """Check that no output was replaced after others were made of it.

    One that was replaced before is taken as it is.

    Raises:
        ConfigError: One was: what was made of it would not follow.
    """
    for step in plan.steps:
        wrote = _read(plan, step).get("wrote")
        if wrote is None or not is_done(plan, step) or wrote == _stamp(step.output):
            continue
        made = [other for other in _after(plan.steps, step) if is_done(plan, other)]
        if made:
            gone = [str(path) for other in made for path in _places(plan, other)]
            raise ConfigError(
                f"{step.output} is not what the step {step.name} wrote, and "
                f"{', '.join(other.name for other in made)} was made of that. Remove what was, and "
                f"it is made anew: rm -r {shlex.join(gone)}"
            )
        note(plan, step, seconds_of(plan, step))


def _after(steps: Sequence[Step], first: Step) -> Iterable[Step]:
    """Yield the steps that read what a step wrote, or what was made of it."""
    outputs = [first.output]
    for step in steps:
        paths = [Path(argument) for argument in step.command]
        if step is not first and any(p.is_relative_to(o) for p in paths for o in outputs):
            outputs.append(step.output)
            yield step


def _places(plan: Plan, step: Step) -> list[Path]:
    return [step.output] if _writes(step) else [_record(plan, step)]


def _writes(step: Step) -> bool:
    return str(step.output) in step.command


def _stamp(output: Path) -> str:
    """Return a hash of what a step wrote, as far as other steps read it."""
    found = [output]
    if output.is_dir():
        found = sorted(f for f in output.rglob("*") if f.is_file() and f.suffix in _CONTENTS)
    sizes = [(str(file.relative_to(output)), file.stat().st_size) for file in found]
    hashes = [
        file_sha256(file) for file, (_, size) in zip(found, sizes, strict=True) if size <= _HASHED
    ]
    return text_sha256(json.dumps([sizes, hashes]))


def _read(plan: Plan, step: Step) -> dict[str, Any]:
    try:
        record = json.loads(_record(plan, step).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _record(plan: Plan, step: Step) -> Path:
    return plan.folder / DONE / f"{step.output.name}.json"
