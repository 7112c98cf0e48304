"""Measure pairs of the demo model's sides: how often the reward prefers what people preferred.

Usage: python examples/measure_pair.py helpful.jsonl.gz harmless.jsonl.gz [--adapter FOLDER ...]

Sides are the demo model with its chat template (``chat``), without one (``plain``), and with each
adapter that ``train_pair.py`` made. Each side's log-probs of the rows in the part ``tune``, and
of LLMBar-Natural, are computed once; every two sides, and each alone, are then a reward. Matrices
are multiplied in bfloat16 for the pairs, in float32 for LLMBar-Natural.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from pair_network import Network, grouped, rounding
from pair_rows import Limits, Row, read_rows, tokenize
from peft import PeftModel
from tqdm import tqdm

import tasks
from drsow_plugin import LanguageModel
from drsow_plugin.prompts import as_preference

LLMBAR = "llmbar-natural"
LIMITS = Limits(row_tokens=300)


def llmbar_rows() -> list[Row]:
    """Return the 100 rows of LLMBar-Natural."""
    strong, weak = LanguageModel("demo"), LanguageModel("demo", template="none")
    rows = []
    for line in (Path(tasks.__file__).parent / "llmbar.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        if row["subset"] == LLMBAR:
            pair = as_preference({k: row[k] for k in ("prompt", "chosen", "rejected")}, LLMBAR)
            rows.append(Row(LLMBAR, "test", tokenize(strong, pair), tokenize(weak, pair)))
    return rows


@torch.inference_mode()
def margins(rows: Sequence[Row], name: str) -> torch.Tensor:
    """Return a side's log p(chosen) - log p(rejected) in nats, (rows,)."""
    network = Network()
    if name not in ("chat", "plain"):
        PeftModel.from_pretrained(network.model, name).eval()
    found: dict[Row, float] = {}
    for group in tqdm(grouped(rows), name):
        tokens = [row.weak if name == "plain" else row.strong for row in group]
        with rounding(all(row.source != LLMBAR for row in group)):
            logprobs = network.above(network.below(tokens, 0), tokens, 0)
        found.update(zip(group, (logprobs[:, 0] - logprobs[:, 1]).tolist(), strict=True))
    return torch.tensor([found[row] for row in rows], dtype=torch.float64)


def accuracy(margins: torch.Tensor) -> str:
    """Return the share of positive margins and its standard error, in per cent; 0 is a half."""
    right = float((margins.sign() + 1).mean()) / 2
    return f"{100 * right:.1f} ± {100 * math.sqrt(right * (1 - right) / len(margins)):.1f}"


def main(arguments: Sequence[str] | None = None, limits: Limits = LIMITS) -> None:
    """Print a table of every reward."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pairs", type=Path, nargs="+", help=".jsonl.gz: prompt, chosen, rejected")
    parser.add_argument("--adapter", action="append", default=[], help="of train_pair.py")
    options = parser.parse_args(arguments)
    tune = [row for row in read_rows(options.pairs, limits) if row.part == "tune"]
    parts = {path.name: [r for r in tune if r.source == path.name] for path in options.pairs}
    parts[LLMBAR] = llmbar_rows()
    sides = {
        name: [margins(rows, name) for rows in parts.values()]
        for name in ("chat", "plain", *options.adapter)
    }
    rewards = dict(sides)
    for strong, weak in itertools.permutations(sides, 2):
        both = zip(sides[strong], sides[weak], strict=True)
        rewards[f"{strong} over {weak}"] = [s - w for s, w in both]
    print("| reward |", " | ".join(f"{name} ({len(rows)})" for name, rows in parts.items()), "|")
    print("| --- " * (1 + len(parts)) + "|")
    for name, found in rewards.items():
        print(f"| {name} |", " | ".join(map(accuracy, found)), "|")


if __name__ == "__main__":
    main()
