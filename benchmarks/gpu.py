"""The same comparison on a GPU: a random 7B pair of Mistral-7B's shape, in bfloat16.

Nothing is downloaded: the weights are drawn on the device, and the rows are random token ids,
each prompt behind one shared instruction. Random weights cost what trained ones do.

Usage: python benchmarks/gpu.py [--prompts 64] [--rounds 2] [--methods drsow hf trl vllm] [--tiny]

Writes the section ``gpu`` of benchmarks/README.md. ``--tiny`` runs all of it on a CPU with two
small layers, to see that it works.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import importlib.util
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from gpu_methods import METHODS, SHAPE, TINY, Place, random_model, random_rows
from measure import Positions, backbone_parameters, floor_flops, product_shapes, product_speed
from report import README, table, versions, write_section
from workloads import Unique, unique

from drsow_plugin.records import TokenPair


@dataclass
class Turn:
    """What one method took for one model."""

    seconds: list[float]
    memory: float
    positions: Positions
    values: list[float]


def take(method: str, model: Any, rows: Sequence[TokenPair], rounds: int) -> Turn:
    """Score all rows ``rounds`` times, after a warm-up, and once to count."""
    score = METHODS[method](model)
    score(rows[:4])
    _collect(model)
    before, positions = _memory(model), Positions()
    if model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with positions.counting([model]):
        values = score(rows)
    peak = torch.cuda.max_memory_allocated() - before if model.device.type == "cuda" else 0
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        score(rows)
        if model.device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return Turn(seconds, peak / 1024**3, positions, values)


def _collect(model: Any) -> None:
    gc.collect()
    if model.device.type == "cuda":
        torch.cuda.empty_cache()


def _memory(model: Any) -> int:
    return torch.cuda.memory_allocated() if model.device.type == "cuda" else 0


def measured(given: argparse.Namespace, place: Place) -> dict[str, list[Turn] | str]:
    """Return each method's turns, one for each model of the pair, or why it was not run."""
    found: dict[str, Any] = {name: [] for name in given.methods}
    if "vllm" in found and importlib.util.find_spec("vllm") is None:
        found["vllm"] = "not installed"
    rows = random_rows(given.prompts, place.shape["vocab_size"])
    for seed in (1, 2):
        for name in found:
            if isinstance(found[name], str):
                continue
            model = random_model(place, seed)  # anew: some methods change the model they get
            try:
                found[name].append(take(name, model, rows, given.rounds))
                print(f"model {seed}, {name}: {found[name][-1].seconds}", flush=True)
            except (RuntimeError, ValueError, ImportError) as error:
                found[name] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
                print(f"model {seed}, {name}: {found[name]}", flush=True)
            del model
            gc.collect()
            torch.cuda.empty_cache()
    return found


def section(found: dict[str, Any], given: argparse.Namespace, place: Place) -> str:
    """Return the Markdown."""
    rows = random_rows(given.prompts, place.shape["vocab_size"])
    one = unique(rows)
    model = random_model(replace(place, device="meta"), 1)
    flops = 2 * floor_flops(model.config, backbone_parameters(model), one)
    shapes = product_shapes(model.config, place.square)
    peaks = {
        name: product_speed(shape, torch.bfloat16, place.device, seconds=1.0)
        for name, shape in shapes.items()
    }
    tokens = 2 * sum(len(pair.response_ids) for pair in rows)
    exact = found["drsow"][0].values if isinstance(found.get("drsow"), list) else None
    lines = [
        _line(name, turns, (tokens, one + one, flops, max(peaks.values()), exact))
        for name, turns in found.items()
    ]
    head = (
        *("method", "s", "rounds", "response tokens/s", "unique tokens/s", "share of peak"),
        *("peak GB above weights", "backbone / unique", "head / unique", "differs by"),
    )
    where = torch.cuda.get_device_name() if place.device == "cuda" else "CPU, tiny model"
    speeds = ", ".join(f"{name} {speed / 1e12:,.1f}" for name, speed in peaks.items())
    return (
        f"Measured on {datetime.date.today()}, {where}, bfloat16, {given.prompts} prompts with two "
        f"responses each, {given.rounds} round(s); "
        f"{versions('drsow-plugin', 'torch', 'transformers', 'lm-eval', 'trl', 'vllm')}. Matrix "
        f"products in the same run, TFLOP/s: {speeds}.\n\n{table(head, lines)}\n\n"
        f"Both models, {tokens:,} response tokens. Unique: {2 * one.backbone:,} tokens through the "
        f"backbone, {2 * one.head:,} predictions, {flops / 1e12:,.1f} TFLOP."
    )


def _line(
    name: str, turns: list[Turn] | str, known: tuple[int, Unique, float, float, Any]
) -> list[str]:
    """Return a row of the table: the two models' turns are added up."""
    if isinstance(turns, str):
        return [name, f"not run: {turns}", *[""] * 8]
    tokens, count, flops, peak, exact = known
    rounds = [sum(both) for both in zip(*(turn.seconds for turn in turns), strict=True)]
    seconds = median(rounds)
    off = max(abs(a - b) for a, b in zip(turns[0].values, exact, strict=True)) if exact else None
    return [
        name,
        f"{seconds:.2f}",
        " ".join(f"{value:.2f}" for value in rounds),
        f"{tokens / seconds:,.0f}",
        f"{count.backbone / seconds:,.0f}",
        f"{flops / seconds / peak:.1%}",
        f"{max(turn.memory for turn in turns):.2f}" if name != "vllm" else "",
        _ratio([turn.positions.backbone for turn in turns], count.backbone),
        _ratio([turn.positions.head for turn in turns], count.head),
        "" if off is None else f"{off:.1e}",
    ]


def _ratio(positions: Sequence[int], count: int) -> str:
    """Return positions over the unique ones; empty where another process did the work."""
    return f"{sum(positions) / count:.2f}" if any(positions) else ""


def main() -> int:
    """Measure, and write the section; 2 without a GPU."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument(
        "--methods", nargs="+", choices=METHODS, default=["drsow", "hf", "trl", "vllm"]
    )
    parser.add_argument("--tiny", action="store_true", help="on a CPU, to try the script")
    parser.add_argument("--out", type=Path, help="document with the markers")
    given = parser.parse_args()
    if not given.tiny and not torch.cuda.is_available():
        print("No GPU is here. --tiny tries the script on a CPU.", file=sys.stderr)
        return 2
    place = Place("cpu", TINY, 512) if given.tiny else Place("cuda", SHAPE, 8192)
    text = section(measured(given, place), given, place)
    print(text)
    document = given.out or (None if given.tiny else README)
    if document:
        write_section(document, "gpu", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
