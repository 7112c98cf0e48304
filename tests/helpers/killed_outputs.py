"""Writes outputs, is killed at each step, and writes them again. Run by test_outputs."""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import datasets

from drsow_plugin import DataError, Report
from drsow_plugin.annotate.outputs import open_output
from drsow_plugin.annotate.place import Place
from drsow_plugin.annotate.statistics import Statistics

STEPS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir")
CASES = (("out", True), ("out.jsonl", True), ("out.parquet", False))


def write(target: Path, rows: int, splits: tuple[str, ...]) -> None:
    parts = {name: datasets.Dataset.from_dict({name: list(range(rows))}) for name in splits}
    pictures = {name: name.encode() for name in ("margins.png", "lengths.png")[: len(splits)]}
    report = Report(
        kind="pairs",
        pair={"strong": {"source": "a"}, "weak": {"source": "b"}},
        splits={name: Statistics(rows) for name in splits},
        options={"rows": rows},
        input="in",
        draw=lambda title: pictures,
    )
    data: Any = datasets.DatasetDict(parts) if len(splits) > 1 else parts[splits[0]]
    output = open_output(target)
    output.check(data)
    with output.reserved("in") as folder:
        output.write(data, report, folder)


def former(target: Path) -> None:
    write(target, 2, ("train",) if target.suffix else ("train", "test"))


def latter(target: Path) -> None:
    write(target, 3, ("train",))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def is_whole(target: Path) -> bool:
    place = Place.of(target)
    try:
        place.check_whole()
    except DataError:
        return False
    return place.at("report.json").is_file()


def killed_at(step: int, target: Path) -> bool:
    """Tell whether a process that writes an output was killed before it takes a step."""
    child = os.fork()
    if child == 0:
        left = itertools.count(step, -1)

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            if event in STEPS and str(target.parent) in str(arguments[0]) and next(left) == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        latter(target)
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def main(root: Path) -> None:
    datasets.disable_progress_bars()
    for case, (name, is_over_another) in enumerate(CASES):
        wanted, before = root / f"{case}-latter", root / f"{case}-former"
        for folder, make in ((wanted, latter), (before, former)):
            make(folder / name)
        allowed = [contents(wanted), *([contents(before)] if is_over_another else [])]
        for step in itertools.count():
            folder = root / f"{case}-{step}"
            folder.mkdir()
            if is_over_another:
                former(folder / name)
            killed = killed_at(step, folder / name)
            whole = is_whole(folder / name)
            there = {n: c for n, c in contents(folder).items() if "/.drsow-" not in f"/{n}"}
            there = {n: c for n, c in there.items() if not n.startswith(".")}
            latter(folder / name)
            outcome = {
                "case": case,
                "killed": killed,
                "whole": whole,
                "mixed": whole and there not in allowed,
                "same": contents(folder) == allowed[0],
            }
            sys.stdout.write(json.dumps(outcome) + "\n")
            if not killed:
                break


if __name__ == "__main__":
    main(Path(sys.argv[1]))
