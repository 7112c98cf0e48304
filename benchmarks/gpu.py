"""Scoring on a GPU: tokens a second, share of the peak, where the time goes, and memory.

Nothing is downloaded: the weights are drawn on the device, in the shapes of a 7B and of a 0.5B
model, and the rows are random token ids. Random weights cost what trained ones do.

Usage: python benchmarks/gpu.py [--shapes 7b 0.5b] [--workloads w-a w-b w-c] [--scale 1]
    [--rounds 3] [--methods drsow rows] [--time-limit 540] [--json FILE] [--tiny]

Needs torch and transformers; the other methods need their libraries. What was measured until the
time is up is printed last, as JSON and as tables, which also become the section ``gpu`` of
benchmarks/README.md. ``--tiny`` runs all of it on a CPU with two small models and short rows, to
see that it works.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from gpu_methods import METHODS, SHAPES, WORKLOADS, Opened, random_model, random_rows, vocabulary
from gpu_profile import profiled
from gpu_report import Peaks, Result, Work, as_json, section
from measure import (
    Positions,
    backbone_parameters,
    floor_flops,
    product_shapes,
    product_speed,
    sustained_speed,
)
from report import README, write_section
from workloads import unique

from drsow_plugin.records import TokenPair


class TimeIsUp(BaseException):
    """The time is up; no ``except Exception`` on the way keeps it from being told."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """End what is inside after so many seconds, wherever it is, and go on behind it."""

    def stop(*_: Any) -> None:
        raise TimeIsUp

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except TimeIsUp:
        print(f"The time is up, after {seconds:.0f} s.", flush=True)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Bench:
    """What is measured, and what was found so far.

    Attributes:
        peaks: Speeds of products.
        works: For each shape and workload how much there is to do.
        results: Of each method, in the order of measuring.
    """

    def __init__(self, given: argparse.Namespace) -> None:
        self._given = given
        self.device = "cpu" if given.tiny else "cuda"
        self.shapes = ["tiny", "tiny-tied"] if given.tiny else given.shapes
        self.peaks = Peaks()
        self.works: dict[tuple[str, str], Work] = {}
        self.results: list[Result] = []

    def run(self) -> None:
        """Measure all, the most important first."""
        self._measure_peaks()
        for shape in self.shapes:
            for workload in self._given.workloads:
                scale, length = (0.01, 0.1) if self._given.tiny else (self._given.scale, 1.0)
                pairs = random_rows(workload, vocabulary(shape), scale, length)
                self.works[shape, workload] = work(shape, pairs)
            for method in self._given.methods:
                self._measure(shape, method)

    def _measure_peaks(self) -> None:
        square, seconds = (256, 0.2) if self.device == "cpu" else (8192, self._given.peak_seconds)
        config = random_model(self.shapes[0], 0, "meta").config
        for name, shape in product_shapes(config, square).items():
            self.peaks.best[name] = product_speed(shape, torch.bfloat16, self.device, seconds / 15)
        self.peaks.sustained = sustained_speed((square,) * 3, torch.bfloat16, self.device, seconds)
        print(f"products: {self.peaks.text()}", flush=True)

    def _measure(self, shape: str, method: str) -> None:
        """Measure a method on all workloads, with a model of its own: some change what they get."""
        model = opened = None
        try:
            for workload in self._given.workloads:
                result = Result(shape, workload, method)
                self.results.append(result)
                try:
                    if model is None:
                        model = random_model(shape, 1, self.device)
                        opened = METHODS[method](model)
                    pairs = self.works[shape, workload].pairs
                    self._take(result, model, opened, pairs)
                except (RuntimeError, ValueError, ImportError) as error:
                    lines = str(error).splitlines() or [""]
                    result.problem = f"{type(error).__name__}: {lines[0][:200]}"
                print(result.line(), flush=True)
        finally:
            del model, opened
            self._tidy()

    def _take(self, result: Result, model: Any, opened: Any, pairs: list[TokenPair]) -> None:
        """Score rows: once to warm up, some rounds, once under the profiler, once to count."""
        assert isinstance(opened, Opened)
        result.notes, result.opening_s = opened.notes, opened.seconds
        result.first_s, result.values = self._timed(opened, pairs)
        self._tidy()
        before = self._memory()
        for _ in range(self._given.rounds if result.method == "drsow" else 1):
            result.seconds.append(self._timed(opened, pairs)[0])
        if self.device != "cpu":
            result.memory = torch.cuda.max_memory_allocated() - before
        if result.method == "drsow":
            result.profile = profiled(lambda: opened.score(pairs), self.device)
        positions = Positions()
        with positions.counting([model]):
            opened.score(pairs)
        result.backbone, result.head = positions.backbone, positions.head

    def _timed(self, opened: Opened, pairs: list[TokenPair]) -> tuple[float, list[float]]:
        started = time.perf_counter()
        values = opened.score(pairs)
        if self.device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter() - started, values

    def _memory(self) -> int:
        return 0 if self.device == "cpu" else torch.cuda.memory_allocated()

    def _tidy(self) -> None:
        gc.collect()
        if self.device != "cpu":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()


def work(shape: str, pairs: list[TokenPair]) -> Work:
    """Return how much there is to do for rows with one model of a shape."""
    model, count = random_model(shape, 0, "meta"), unique(pairs)
    return Work(
        pairs=pairs,
        backbone=count.backbone,
        head=count.head,
        flops=floor_flops(model.config, backbone_parameters(model), count),
    )


def caption(device: str) -> str:
    """Return when and where this was measured."""
    where = torch.cuda.get_device_name() if device == "cuda" else "CPU, tiny models"
    return f"Measured on {datetime.date.today()}, {where}"


def parsed() -> argparse.Namespace:
    """Return what the command was given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    shapes = [shape for shape in SHAPES if "tiny" not in shape]
    parser.add_argument("--shapes", nargs="+", choices=shapes, default=shapes)
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=[*WORKLOADS])
    parser.add_argument("--scale", type=float, default=1.0, help="of each workload")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=["drsow", "rows"])
    parser.add_argument("--peak-seconds", type=float, default=15.0, help="of sustained products")
    parser.add_argument("--time-limit", type=float, default=540.0, help="seconds until printing")
    parser.add_argument("--json", type=Path, help="file for the results")
    parser.add_argument("--tiny", action="store_true", help="on a CPU, to try the script")
    parser.add_argument("--out", type=Path, help="document with the markers")
    return parser.parse_args()


def main() -> int:
    """Measure, print, and write the section; 2 without a GPU."""
    given = parsed()
    if not given.tiny and not torch.cuda.is_available():
        print("No GPU is here. --tiny tries the script on a CPU.", file=sys.stderr)
        return 2
    if given.tiny:
        torch.set_num_threads(1)
    bench = Bench(given)
    try:
        with time_limit(given.time_limit):
            bench.run()
    finally:
        found = as_json(bench.peaks, bench.works, bench.results)
        if given.json:
            given.json.write_text(found + "\n", encoding="utf-8")
        text = section(caption(bench.device), bench.peaks, bench.works, bench.results)
        print(f"\n{found}\n\n{text}", flush=True)
    document = given.out or (None if given.tiny else README)
    if document:
        write_section(document, "gpu", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
