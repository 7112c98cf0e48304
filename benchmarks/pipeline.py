"""What a recipe costs on a GPU, and what its runs have given: docs/pipeline.md.

Usage: python benchmarks/pipeline.py               # hours of recipes/paper.yaml, from assumptions
       python benchmarks/pipeline.py out/mini ...  # the figures of runs
       ... --write                                 # either of them into docs/pipeline.md

Costs follow from arithmetic: a forward pass takes 2 operations a parameter and token, training
three times as much, or twice with LoRA, whose frozen weights get no gradients. What was not
measured is an assumption with a name, in ``Assumed``, and may be given as an option.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple

from report import table, write_section

from drsow_plugin.pipeline.recipe import read_recipe
from drsow_plugin.pipeline.values import Recipe

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/pipeline.md"


@dataclass(frozen=True)
class Assumed:
    """What the hours assume; none of it was measured here.

    Attributes:
        prompts: Prompts of the data that are trained on.
        prompt: Tokens of a prompt.
        response: Tokens of a response.
        policy: Parameters of the policy.
        pair: Parameters of each model of the pair.
        judge: Parameters of the judge.
        labelled: Pairs with labels of people, for the implicit reward.
        peak: Dense bfloat16 operations a second of a GPU: an H100 SXM's, of NVIDIA's data sheet.
        mfu: Share of these that passes over whole rows reach.
        decoding: Tokens a second that a policy samples with vLLM on one GPU.
        price: Dollars for an hour of a GPU.
    """

    prompts: int = 60_000
    prompt: int = 160
    response: int = 400
    policy: float = 8.0e9
    pair: float = 7.24e9
    judge: float = 8.0e9
    labelled: int = 2_000
    peak: float = 989e12
    mfu: float = 0.4
    decoding: float = 10_000.0
    price: float = 3.0


class Hours(NamedTuple):
    """What a kind of step takes on one GPU.

    Attributes:
        step: Which.
        times: How often it is run.
        hours: All of these together.
    """

    step: str
    times: int
    hours: float


def hours_of(recipe: Recipe, given: Assumed) -> list[Hours]:
    """Return the hours of each kind of step, without loading."""
    candidates = int(recipe.generate.get("candidates", 8))
    trained = recipe.tune or {}
    runs = len(recipe.arms) * len(recipe.seeds)
    held_out = int(recipe.prompts.get("held_out", 0))
    speed = given.peak * given.mfu

    def passes(operations: float, parameters: float, tokens: float) -> float:
        return operations * parameters * tokens / speed / 3600

    answered = given.prompts * candidates * given.response
    rows = given.prompts * (given.prompt + candidates * given.response)
    pairs = given.prompts * 2 * (given.prompt + given.response)
    # Forward and backward, the weights' gradients without LoRA, and a reference's forward.
    training = (4 if trained.get("lora_rank") else 6) + 2 * (trained.get("method") != "simpo")
    measured = held_out * (given.prompt + given.response)
    people = given.labelled * 2 * (given.prompt + given.response)
    per_policy = (
        held_out * given.response / given.decoding / 3600
        + passes(2, 2 * given.pair + given.judge + 2 * given.policy, measured)
        + passes(2, given.policy, people)
    )
    return [
        Hours("candidates", 1, answered / given.decoding / 3600),
        Hours("labelled", 1, passes(2, 2 * given.pair, rows)),
        Hours("tuned", runs, runs * passes(training, given.policy, pairs)),
        Hours("answers and measured", runs + 1, (runs + 1) * per_policy),
    ]


def costs(given: Assumed) -> str:
    """Return the table of the paper's recipe."""
    found = hours_of(read_recipe(str(ROOT / "recipes/paper.yaml")), given)
    lines = [(one.step, one.times, f"{one.hours:.1f}") for one in found]
    total = sum(one.hours for one in found)
    once = sum(one.hours / one.times for one in found[:3])
    lines.append(("all", "", f"{total:.1f}"))
    said = ", ".join(f"{f.name} {getattr(given, f.name):g}" for f in fields(given))
    return (
        f"{table(('step', 'times', 'hours'), lines)}\n\n"
        f"One arm with one seed, unmeasured, is {once:.0f} hours, and all of it "
        f"{total * given.price:,.0f} dollars.\n\nAssumed: {said}."
    )


def figures(folders: Sequence[Path]) -> str:
    """Return the figures of runs: the tables, and how long the steps took."""
    return "\n\n".join(_figures(folder) for folder in folders)


def _figures(folder: Path) -> str:
    found = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    seeds = ", ".join(map(str, found["seeds"]))
    rounds = f", rounds {found['rounds']}" if found["rounds"] > 1 else ""
    parts = [
        f"**Recipe `{found['recipe']}`, seeds {seeds}{rounds}**",
        (folder / "results.md").read_text(encoding="utf-8").strip(),
    ]
    seconds = found["seconds"]
    if None in seconds.values():  # a command was run by hand, and nobody looked at the clock
        return "\n\n".join(parts)
    kinds: dict[str, list[float]] = {}
    for name, took in seconds.items():
        kinds.setdefault(name.split(" ")[0], []).append(took)
    lines = [(kind, len(of), f"{sum(of) / 60:.1f}") for kind, of in kinds.items()]
    parts.append(table(("step", "times", "minutes, all together"), lines))
    parts.append(f"{sum(seconds.values()) / 60:.0f} minutes in all.")
    return "\n\n".join(parts)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print, or write, the costs of a recipe or the figures of runs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="*", help="folders that drsow pipeline wrote")
    parser.add_argument("--write", action="store_true", help="into docs/pipeline.md")
    for name in fields(Assumed):
        parser.add_argument(f"--{name.name}", type=float, default=name.default)
    options = parser.parse_args(arguments)
    given = Assumed(**{f.name: getattr(options, f.name) for f in fields(Assumed)})
    section, text = ("figures", figures(options.runs)) if options.runs else ("costs", costs(given))
    if options.write:
        write_section(PAGE, section, text)
    sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    main()
