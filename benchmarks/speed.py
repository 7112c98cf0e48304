"""How much work scoring takes, side by side with what others offer for it, on a CPU.

Every method has a process of its own, with its model loaded; they take turns, A B A B, and
only one works at a time, with one thread, so that its CPU time and its memory are its own.

Usage: python benchmarks/speed.py [--pairs 80] [--dtype float32 bfloat16] [--rounds 2]
       [--workloads w1 w2 w3 bestofn] [--methods drsow hf trl rewardbench hf-auto] [--json FILE]

Writes its tables between the markers of each dtype in benchmarks/README.md. Linux only.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measure import cpu_name, floor_flops
from pair import open_pair, shape
from peers import METHODS
from report import README, best_of_table, versions, workload_table, write_section
from rewardbench_peer import REQUIREMENTS as REWARDBENCH
from worker import Worker, once
from workloads import BEST_OF, Row, Unique, auto_batch_positions, tokenised, unique, workload

from drsow_plugin.records import TokenPair

PACKAGES = ("drsow-plugin", "torch", "transformers", "lm-eval", "trl")
WORKLOADS = ("w1", "w2", "w3", "bestofn")
DEFAULT_METHODS = ("drsow", "hf", "trl", "rewardbench")
BEST_OF_METHODS = ("drsow", "hf")
SQUARE = 3072


@dataclass
class Job:
    """Rows that a list of methods score, and what is known of them beforehand."""

    name: str
    rows: list[Row]
    methods: list[str]
    rounds: int
    pairs: list[list[TokenPair]]

    @property
    def unique(self) -> Unique:
        """What is unique, for both models together: they are two, so they share nothing."""
        strong, weak = (unique(side) for side in self.pairs)
        return strong + weak

    def check(self, number: int) -> list[int]:
        """Return the rows that are held against float64, from all over."""
        step = max(1, len(self.rows) // max(1, number))
        return list(range(0, len(self.rows), step))[:number]


def jobs_of(given: argparse.Namespace, methods: Sequence[str]) -> list[Job]:
    """Return what is to be done; slow methods get jobs of their own where their rows are fewer."""
    sides = list(open_pair("float32").models.values())
    found = []

    def add(name: str, rows: list[Row], who: list[str], rounds: int) -> None:
        pairs = [tokenised(rows, side.tokenize) for side in sides]
        found.append(Job(name, rows, who, rounds, pairs))

    few = {"hf-auto": given.auto_pairs, "trl": given.peer_pairs, "rewardbench": given.peer_pairs}
    groups: dict[int, list[str]] = {}
    for method in methods:
        groups.setdefault(few.get(method) or given.pairs, []).append(method)
    for name in given.workloads:
        if name == "bestofn":
            who = [method for method in methods if method in BEST_OF_METHODS]
            for number in BEST_OF:
                add(f"bestof{number}", workload(f"bestof{number}", given.pairs), who, given.rounds)
            continue
        for pairs, who in groups.items():
            label = name if pairs == given.pairs else f"{name}, first {pairs} pairs"
            rounds = 1 if "hf-auto" in who else given.rounds
            add(label, workload(name, pairs), list(dict.fromkeys(["drsow", *who])), rounds)
    return found


Turns = dict[str, dict[str, list[dict[str, Any]]]]
"""What each method found, by job and method, round by round."""


def take_turns(
    turns: Turns, jobs: Sequence[Job], workers: Mapping[str, Worker | str], checks: int, number: int
) -> None:
    """Let the methods score every job in turn, once; the first round counts.

    A worker that is a text could not be opened; the text says why.
    """
    for job in (job for job in jobs if number < job.rounds):
        for name in job.methods:
            found = turns[job.name][name]
            turn = _turn(workers[name], job, checks, count=number == 0)
            if "skipped" not in turn or not found:
                found.append(turn)
            seen = turn.get("skipped") or f"{turn['cpu']:.2f} CPU s, {turn['wall']:.2f} s"
            print(f"round {number + 1}, {job.name}, {name}: {seen}", flush=True)


def _turn(worker: Worker | str, job: Job, checks: int, *, count: bool) -> dict[str, Any]:
    if isinstance(worker, str):
        return {"skipped": worker}
    try:
        return worker.ask(rows=job.rows, check=job.check(checks), count=count)
    except (RuntimeError, OSError) as error:  # the other methods' work is not lost
        return {"skipped": str(error).strip().splitlines()[-1]}


def differences(
    jobs: Sequence[Job], turns: Mapping[str, Any], checks: int
) -> dict[str, dict[str, dict[str, float]]]:
    """Return, for each job and method, how far log-probs are from float64, in nats at most.

    ``error`` is on the tokens that the method scored itself, ``shift`` on ours: it differs
    where a method puts other tokens into the response.
    """
    wanted: dict[tuple[tuple[int, ...], tuple[int, ...]], TokenPair] = {}
    found: list[tuple[str, str, float, TokenPair, TokenPair]] = []
    for job in jobs:
        for name in job.methods:
            first = turns[job.name][name][0]
            for side, values in enumerate(first.get("logprobs", ())):
                ours = [job.pairs[side][index] for index in job.check(checks)]
                own = first["pairs"][side] or ours
                found += [(job.name, name, *both) for both in zip(values, own, ours, strict=True)]
    for *_, own, ours in found:
        wanted.update({(pair.prompt_ids, pair.response_ids): pair for pair in (own, ours)})
    threads = os.cpu_count() or 1
    values = once("float64", "float64", threads, pairs=list(wanted.values())) if wanted else []
    exact = dict(zip(wanted, values, strict=True))
    largest: dict[str, dict[str, dict[str, float]]] = {
        job.name: {"error": {}, "shift": {}} for job in jobs
    }
    for job_name, name, value, *both in found:
        for kind, pair in zip(("error", "shift"), both, strict=True):
            off = abs(value - exact[pair.prompt_ids, pair.response_ids])
            most = largest[job_name][kind]
            most[name] = max(off, most.get(name, 0.0))
    return largest


def opened(name: str, dtype: str, threads: int) -> Worker | str:
    """Return a method's process, or why it cannot be had."""
    try:
        return Worker(name, dtype, threads)
    except RuntimeError as error:
        return str(error).strip().splitlines()[-1]


def measure(dtype: str, given: argparse.Namespace) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield after each round the sections of a dtype, speed and best-of-N, and the raw rounds."""
    config, parameters = shape()
    jobs = jobs_of(given, given.methods)
    product = {"config": config, "square": SQUARE, "seconds": 1.0}
    peaks = once("products", dtype, given.threads, **product)
    names = dict.fromkeys(name for job in jobs for name in job.methods)
    turns: Turns = {job.name: {name: [] for name in job.methods} for job in jobs}
    workers: dict[str, Worker | str] = {}
    off: dict[str, Any] = {}
    try:
        for name in names:
            workers[name] = opened(name, dtype, given.threads)
        loaded = {name: getattr(worker, "after_load_mb", 0.0) for name, worker in workers.items()}
        for number in range(given.rounds):
            take_turns(turns, jobs, workers, given.check_rows, number)
            off = off or differences(jobs, turns, given.check_rows)
            again = once("products", dtype, given.threads, **product)
            peaks = {shape: max(speed, peaks[shape]) for shape, speed in again.items()}
            known = {
                job.name: {
                    "unique": job.unique,
                    "floor_s": floor_flops(config, parameters, job.unique) / max(peaks.values()),
                    "after_load_mb": loaded,
                    **off[job.name],
                }
                for job in jobs
            }
            raw = {"peaks": peaks, "turns": turns, "after_load_mb": loaded}
            raw["floor_s"] = {name: entry["floor_s"] for name, entry in known.items()}
            text = caption(dtype, peaks, given.threads, number + 1)
            yield (*sections(jobs, turns, known, text), raw)
    finally:
        for worker in workers.values():
            if isinstance(worker, Worker):
                worker.close()


def sections(
    jobs: Sequence[Job], turns: Mapping[str, Any], known: Mapping[str, Any], text: str
) -> tuple[str, str]:
    """Return the Markdown of the workloads and of best-of-N; empty for what was not run."""
    parts, best = [], {}
    for job in jobs:
        if job.name.startswith("bestof"):
            best[job.name] = turns[job.name]
            continue
        entry = known[job.name]
        auto = sum(auto_batch_positions(side) for side in job.pairs)
        parts.append(
            f"### {job.name}: {len(job.rows)} responses, {len(job.rows) // 2} pairs\n\n"
            + workload_table(turns[job.name], entry)
            + f"\n\nUnique: {entry['unique'].backbone:,} tokens through the backbone, "
            f"{entry['unique'].head:,} predictions. Floor: {entry['floor_s']:.2f} s. lm-eval's "
            f"batch size `auto` would compute {auto:,} positions if 64 rows fit (computed, by its "
            "source)."
        )
    speed = "\n\n".join([text, *parts]) if parts else ""
    return speed, f"{text}\n\n{best_of_table(best, known)}" if best else ""


def caption(dtype: str, peaks: Mapping[str, float], threads: int, rounds: int) -> str:
    """Return when, where and with what it was measured; RewardBench has its own folder."""
    speeds = ", ".join(f"{name} {speed / 1e9:,.0f}" for name, speed in peaks.items())
    return (
        f"Measured on {datetime.date.today()}, {cpu_name()}, {threads} thread(s), {dtype}, "
        f"{rounds} round(s); {versions(*PACKAGES)}, {REWARDBENCH[0]}. "
        f"Matrix products in the same run, GFLOP/s: {speeds}; the best one is the peak."
    )


def arguments() -> argparse.Namespace:
    """Return what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=80)
    parser.add_argument("--auto-pairs", type=int, help="for hf-auto; it is very slow [--pairs]")
    parser.add_argument("--peer-pairs", type=int, help="for TRL and RewardBench [--pairs]")
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--check-rows", type=int, default=8, help="held against float64")
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS[:3]))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(DEFAULT_METHODS))
    parser.add_argument("--out", type=Path, default=README, help="document with the markers")
    parser.add_argument("--json", type=Path, help="where to write the raw rounds")
    return parser.parse_args()


def main() -> None:
    """Measure each dtype and write its sections."""
    given = arguments()
    raws = {}
    for dtype in given.dtype:
        for speed, best, raw in measure(dtype, given):
            raws[dtype] = raw
            for kind, text in (("speed", speed), ("bestofn", best)):
                if text:
                    print(text, flush=True)
                    write_section(given.out, f"{kind} {dtype}", text)
            if given.json:
                given.json.write_text(json.dumps(raws, default=vars, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
