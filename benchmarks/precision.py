"""What a dtype costs: the error of a reward and the pairs whose order it flips.

The pair is the demo model over itself without its chat template, on pairs of LLMBar; on a GPU
also a random 7B pair of Mistral-7B's shape (`--seven-b`), whose rewards mean nothing but whose
arithmetic is that of a real one. The weights are rounded to bfloat16 first, as most checkpoints
are published, so that what is measured is the arithmetic alone, not the rounding of the weights.

Usage: python benchmarks/precision.py [--pairs 100] [--device cuda] [--seven-b] [--out FILE]

Writes the section ``precision DEVICE`` of benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import datetime
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from gpu_methods import SHAPE, Place, random_model, random_rows
from measure import cpu_name
from pair import load_model, open_pair
from report import README, table, versions, write_section
from workloads import tokenised, workload

from drsow_plugin.engines.local.engine import LocalEngine
from drsow_plugin.engines.local.network import Network
from drsow_plugin.engines.local.probe import find_sharing
from drsow_plugin.records import TokenPair

NOISES = (1, 2, 3)
Sides = list[list[TokenPair]]
"""For each side the responses: chosen and rejected of the first pair, of the second, …"""


@dataclass(frozen=True)
class Way:
    """One way to compute.

    Attributes:
        name: For the table.
        dtype: Of the weights.
        around: Returns the context it runs in.
    """

    name: str
    dtype: torch.dtype
    around: Callable[[], AbstractContextManager[Any]] = nullcontext


@contextmanager
def tf32() -> Iterator[None]:
    """Let float32 products round their factors to 10 bits."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def ways(device: str) -> list[Way]:
    """Return the ways to compute on a device; the first is the yardstick on a CPU."""

    def mixed(dtype: torch.dtype) -> Callable[[], AbstractContextManager[Any]]:
        return lambda: torch.autocast(device, dtype)

    found = [
        Way("float32", torch.float32),
        Way("bfloat16", torch.bfloat16),
        Way("float16", torch.float16),
        Way("bfloat16 products, float32 residual", torch.float32, mixed(torch.bfloat16)),
        Way("float16 products, float32 residual", torch.float32, mixed(torch.float16)),
    ]
    return found if device == "cpu" else [*found, Way("TF32", torch.float32, tf32)]


def rewards(models: Sequence[Any], sides: Sides, way: Way) -> tuple[list[float], float]:
    """Return the reward of each response, and the processor seconds (on a GPU the seconds)."""
    totals, seconds = [], 0.0
    for model, pairs in zip(models, sides, strict=True):
        model.to(way.dtype)
        network = Network(model)
        engine = LocalEngine(network, find_sharing(network))
        clock = time.process_time if network.device.type == "cpu" else time.perf_counter
        with way.around():
            started = clock()
            totals.append(totals(engine, pairs))
            seconds += clock() - started
    return [strong - weak for strong, weak in zip(*totals, strict=True)], seconds


def margins(values: Sequence[float]) -> list[float]:
    """Return chosen minus rejected of each pair."""
    return [a - b for a, b in zip(values[::2], values[1::2], strict=True)]


def line(name: str, values: list[float], seconds: float, exact: list[float]) -> list[str]:
    """Return a row of the table."""
    errors = [abs(a - b) for a, b in zip(values, exact, strict=True)]
    pairs = list(zip(margins(values), margins(exact), strict=True))
    flipped = [(own, true) for own, true in pairs if own * true < 0]
    noise = (fmean((own - true) ** 2 for own, true in pairs)) ** 0.5
    cells = [name, f"{fmean(errors):.1e}", f"{max(errors):.1e}", f"{noise:.1e}"]
    cells += [f"{len(flipped)} of {len(pairs)} ({100 * len(flipped) / len(pairs):.1f} %)"]
    for factor in NOISES:
        again = sum(abs(own) <= factor * noise for own, _ in pairs)
        left = sum(abs(own) > factor * noise for own, _ in flipped)
        cells.append(f"{100 * again / len(pairs):.0f} % → {left}")
    return [*cells, f"{seconds:.1f}"]


def section(models: Sequence[Any], sides: Sides, yardstick: torch.dtype, device: str) -> str:
    """Return the table of one pair of models."""
    exact, seconds = rewards(models, sides, Way("", yardstick))
    lines = [line(str(yardstick).removeprefix("torch."), exact, seconds, exact)]
    masters = [{k: v.clone() for k, v in model.state_dict().items()} for model in models]
    for way in ways(device):
        if way.dtype == yardstick and way.around is nullcontext:
            continue
        for model, master in zip(models, masters, strict=True):
            model.to(way.dtype).load_state_dict(master)
        values, seconds = rewards(models, sides, way)
        print(way.name, f"{seconds:.1f} s", flush=True)
        lines.append(line(way.name, values, seconds, exact))
    head = ["dtype", "error of a reward: mean", "most", "of a margin: r.m.s.", "order flips"]
    head += [f"scored again within {factor} r.m.s. → flips left" for factor in NOISES]
    return table([*head, "seconds"], lines)


def rounded(model: Any) -> Any:
    """Return a model with weights that bfloat16 holds exactly."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.bfloat16())
    return model


def main() -> None:
    """Measure and write the section of a device."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--seven-b", action="store_true", help="needs a GPU of 80 GB")
    parser.add_argument("--out", type=Path, default=README, help="document with the markers")
    given = parser.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("--device cuda needs a GPU that torch sees.")
    rows = workload("w1", given.pairs)
    sides = [tokenised(rows, side.tokenize) for side in open_pair("float32").models.values()]
    model = rounded(load_model("float32")).to(given.device)
    name = torch.cuda.get_device_name() if given.device == "cuda" else cpu_name()
    parts = [
        f"Measured on {datetime.date.today()}, {name}; {versions('torch', 'transformers')}.",
        f"The demo pair, {given.pairs} pairs of LLMBar, against float64:",
        section([model, model], sides, torch.float64, given.device),
    ]
    if given.seven_b:
        del model
        place = Place("cuda", SHAPE, 8192)
        pairs = random_rows(32, SHAPE["vocab_size"])
        both = [random_model(place, seed).float() for seed in (1, 2)]
        parts += ["A random 7B pair, 32 pairs, against float32:"]
        parts += [section(both, [pairs, pairs], torch.float32, "cuda")]
    text = "\n\n".join(parts)
    print(text)
    write_section(given.out, f"precision {given.device}", text)


if __name__ == "__main__":
    main()
