"""What a dtype costs: the error of a reward and the pairs whose order it flips.

The pair is the demo model over itself without its chat template, on pairs of LLMBar; on a GPU
also random pairs in the shapes of larger ones (`--models 7b 0.5b`), whose rewards mean nothing but
whose arithmetic is that of a real one; these need torch and transformers alone. The weights are
rounded to bfloat16 first, as most checkpoints are published, so that what is measured is the
arithmetic alone, not the rounding of the weights.

Usage: python benchmarks/precision.py [--pairs 100] [--device cuda] [--models demo 7b] [--out FILE]

Writes the section ``precision DEVICE`` of benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import datetime
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from gpu_methods import SHAPES, random_model, random_rows, vocabulary
from measure import cpu_name
from report import README, table, versions, write_section
from workloads import tokenised, totals, workload

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


def ways(device: str) -> list[Way]:
    """Return the ways to compute on a device; TF32 is none, since engines switch it off."""

    def mixed(dtype: torch.dtype) -> Callable[[], AbstractContextManager[Any]]:
        return lambda: torch.autocast(device, dtype)

    return [
        Way("float32", torch.float32),
        Way("bfloat16", torch.bfloat16),
        Way("float16", torch.float16),
        Way("bfloat16 products, float32 residual", torch.float32, mixed(torch.bfloat16)),
        Way("float16 products, float32 residual", torch.float32, mixed(torch.float16)),
    ]


def rewards(models: Sequence[Any], sides: Sides, way: Way) -> tuple[list[float], float]:
    """Return the reward of each response, and the processor seconds (on a GPU the seconds)."""
    sums, seconds = [], 0.0
    for model, pairs in zip(models, sides, strict=True):
        network = Network(model)
        engine = LocalEngine(network, find_sharing(network))
        clock = time.process_time if network.device.type == "cpu" else time.perf_counter
        with way.around():
            started = clock()
            sums.append(totals(engine, pairs))
            seconds += clock() - started
    return [strong - weak for strong, weak in zip(*sums, strict=True)], seconds


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
    masters = [{name: p.bfloat16().cpu() for name, p in m.named_parameters()} for m in models]
    set_parameters(models, masters, yardstick)
    exact, seconds = rewards(models, sides, Way("", yardstick))
    lines = [line(str(yardstick).removeprefix("torch."), exact, seconds, exact)]
    for way in ways(device):
        if way.dtype == yardstick and way.around is nullcontext:
            continue
        set_parameters(models, masters, way.dtype)
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


def set_parameters(
    models: Sequence[Any], masters: Sequence[dict[str, torch.Tensor]], dtype: torch.dtype
) -> None:
    """Give models their parameters in a dtype, but leave their buffers as they are.

    Rotary frequencies stay in float32 in a checkpoint that is loaded in another dtype.
    """
    for model, master in zip(models, masters, strict=True):
        for name, parameter in model.named_parameters():
            parameter.data = master[name].to(parameter.device, dtype)


def demo_pair(given: argparse.Namespace) -> str:
    """Return the table of the demo pair."""
    from pair import load_model, open_pair

    rows = workload("w1", given.pairs)
    sides = [tokenised(rows, side.tokenize) for side in open_pair("float32").models.values()]
    model = rounded(load_model("float32")).to(given.device)
    title = f"The demo pair, {given.pairs} pairs of LLMBar, against float64:"
    return f"{title}\n\n{section([model, model], sides, torch.float64, given.device)}"


def random_pair(shape: str, given: argparse.Namespace) -> str:
    """Return the table of a random pair in the shape of a larger one."""
    rows = random_rows("w-a", vocabulary(shape), given.pairs / 180)
    both = [random_model(shape, seed, given.device) for seed in (1, 2)]
    title = f"A random {shape} pair, {len(rows) // 2} pairs, against float32:"
    return f"{title}\n\n{section(both, [rows, rows], torch.float32, given.device)}"


def main() -> None:
    """Measure and write the section of a device."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument(
        "--models", nargs="+", choices=("demo", *SHAPES), default=["demo"], help="7b needs 80 GB"
    )
    parser.add_argument("--out", type=Path, default=README, help="document with the markers")
    given = parser.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("--device cuda needs a GPU that torch sees.")
    name = torch.cuda.get_device_name() if given.device == "cuda" else cpu_name()
    parts = [f"Measured on {datetime.date.today()}, {name}; {versions('torch', 'transformers')}."]
    for shape in given.models:
        parts.append(demo_pair(given) if shape == "demo" else random_pair(shape, given))
    text = "\n\n".join(parts)
    print(text)
    write_section(given.out, f"precision {given.device}", text)


if __name__ == "__main__":
    main()
