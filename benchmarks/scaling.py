"""What a data set costs on so many GPUs, and what of it stops scaling first: docs/scaling.md.

Usage: python benchmarks/scaling.py                # the tables of costs, from the assumptions below
       python benchmarks/scaling.py --measure      # store, summary and arithmetic, on this machine
       ... --write                                 # either of them into docs/scaling.md

Costs follow from arithmetic: a forward pass takes 2 operations a parameter and token. Everything
that was not measured is an assumption with a name, in ``Assumed``, and may be given as an option.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from report import table, write_section

PAGE = Path(__file__).parents[1] / "docs/scaling.md"
GPUS = (1, 8, 64, 256, 1000)
MILLION = 1_000_000


@dataclass(frozen=True)
class Assumed:
    """What the table of costs assumes; none of it was measured here.

    Attributes:
        prompt: Tokens of a prompt, which is computed once for both responses.
        response: Tokens of a response.
        peak: Dense bfloat16 operations a second of a GPU: an H100 SXM's, of NVIDIA's data sheet.
        mfu: Share of these that a forward pass reaches. 0.46 is reported for training 7B on H100.
        price: Dollars for an hour of a GPU. H100s are on demand for 2 to 5 (May 2026).
        memory: Bytes of a GPU that weights may take.
        loading: Bytes of weights a second that an actor loads.
        starting: Seconds until an actor's process is there, without weights.
        shard: Rows that are scored together.
    """

    prompt: int = 160
    response: int = 320
    peak: float = 989e12
    mfu: float = 0.4
    price: float = 3.0
    memory: float = 72e9
    loading: float = 1e9
    starting: float = 20.0
    shard: int = 128

    @property
    def tokens(self) -> int:
        """Tokens that each model computes for a row of two responses."""
        return self.prompt + 2 * self.response


class Pair(NamedTuple):
    """Two models of one size.

    Attributes:
        name: What the table calls it.
        parameters: Of each model.
        in_turn: Whether its GPUs compute one after the other, as ``device_map=auto`` places layers.
    """

    name: str
    parameters: float
    in_turn: bool

    def gpus(self, given: Assumed) -> int:
        """Return how many GPUs hold both models in bfloat16: a power of two."""
        return 2 ** max(0, math.ceil(math.log2(2 * 2 * self.parameters / given.memory)))

    def rows_a_second(self, given: Assumed) -> float:
        """Return how many rows the GPUs of one actor score in a second."""
        work = 2 * 2 * self.parameters * given.tokens
        at_work = 1 if self.in_turn else self.gpus(given)
        return at_work * given.peak * given.mfu / work


PAIRS = (
    Pair("7B (Mistral-7B)", 7.24e9, in_turn=False),
    Pair("70B, layers over GPUs", 70.6e9, in_turn=True),
    Pair("70B, on servers with tensor parallelism", 70.6e9, in_turn=False),
)


class Cost(NamedTuple):
    """What a million rows take.

    Attributes:
        actors: How many there are.
        rate: Rows an hour, once all actors are at work.
        hours: Until a million rows are done, with loading, and the last shards.
        dollars: For that.
    """

    actors: int
    rate: float
    hours: float
    dollars: float


def cost(pair: Pair, gpus: int, given: Assumed, rows: int = MILLION) -> Cost | None:
    """Return what some rows cost on so many GPUs; ``None`` where they do not hold the pair."""
    each = pair.gpus(given)
    actors = gpus // each
    if not actors:
        return None
    speed = pair.rows_a_second(given)
    loading = given.starting + 2 * 2 * pair.parameters / given.loading
    rounds = math.ceil(math.ceil(rows / given.shard) / actors)
    seconds = loading + rounds * given.shard / speed
    hours = seconds / 3600
    return Cost(actors, actors * speed * 3600, hours, hours * actors * each * given.price)


def costs(given: Assumed) -> str:
    """Return the table of costs."""
    head = ("pair", "GPUs", "actors", "rows an hour", "a million rows", "dollars for it")
    lines = []
    for pair in PAIRS:
        for gpus in GPUS:
            found = cost(pair, gpus, given)
            if found is None:
                lines.append((pair.name, f"{gpus:,}", f"needs {pair.gpus(given)}", "", "", ""))
                continue
            rate = f"{found.rate:,.0f}"
            lines.append(
                (pair.name, f"{gpus:,}", f"{found.actors:,}", rate, _time(found.hours),
                 f"{found.dollars:,.0f}")
            )  # fmt: skip
    said = ", ".join(f"{f.name} {getattr(given, f.name):g}" for f in fields(given))
    return f"{table(head, lines)}\n\nAssumed: {said}."


def _time(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.1f} min"


# What is measured here


def timed(act: Callable[[], Any]) -> tuple[float, float]:
    """Return seconds, and processor seconds, that something takes."""
    begun, used = time.perf_counter(), time.process_time()
    act()
    return time.perf_counter() - begun, time.process_time() - used


def store_of(folder: Path, shards: int, rows: int) -> tuple[Any, list[Any]]:
    """Return a store and shards of rows of two responses, with their rewards."""
    from drsow_plugin.annotate.items import Item
    from drsow_plugin.records import Reward

    chance = random.Random(0)

    def reward() -> Reward:
        strong, weak = -chance.expovariate(0.01), -chance.expovariate(0.01)
        return Reward(strong - weak, strong, weak, 320, 320)

    text = "what the strong model says of it less what the weak one does " * 20

    def shard(number: int) -> tuple[list[Item], list[list[Reward]]]:
        prompts = [[{"role": "user", "content": f"{number} {row} {text}"}] for row in range(rows)]
        items = [Item(tuple(p), (f"{text}{number}", text)) for p in prompts]  # type: ignore[arg-type]
        return items, [[reward(), reward()] for _ in items]

    return folder, [shard(number) for number in range(shards)]


def measured_store(names: int) -> list[tuple[str, str]]:
    """Return what the store takes for each shard, alone and among many."""
    from drsow_plugin.annotate.store import open_store
    from drsow_plugin.records import Scoring

    lines = []
    with tempfile.TemporaryDirectory() as name:
        folder, shards = store_of(Path(name) / "scores", 40, 128)
        with open_store(folder, Scoring()) as store:
            keep = timed(lambda: [store.save(items, rewards) for items, rewards in shards])
            load = timed(lambda: [store.load(items) for items, _ in shards])
            sizes = [path.stat().st_size for path in folder.glob("*.parquet")]
            lines += [
                ("a file of 128 rows, two responses each", f"{sum(sizes) / 40 / 1024:.0f} kB"),
                (
                    "to hash the rows of one and to write it (processor)",
                    f"{1000 * keep[1] / 40:.1f} ms",
                ),
                (
                    "to hash the rows of one, to read and to check it (processor)",
                    f"{1000 * load[1] / 40:.1f} ms",
                ),
            ]
            made = timed(lambda: [_touch(folder, number) for number in range(names)])
            found = timed(lambda: [store.path(items).is_file() for items, _ in shards])
            again = timed(lambda: [store.load(items) for items, _ in shards])
            listed = timed(lambda: sum(1 for _ in folder.glob("*.parquet")))
            lines += [
                (f"one more name in a folder of {names:,}", f"{1e6 * made[0] / names:.0f} us"),
                (
                    f"to hash the rows of one, and look for its name among {names:,}",
                    f"{1000 * found[1] / 40:.1f} ms",
                ),
                (f"the whole of it among {names:,}", f"{1000 * again[1] / 40:.1f} ms"),
                (f"to list {names:,} (`drsow cache`, never a run)", f"{listed[0]:.2f} s"),
            ]
    return lines


def _touch(folder: Path, number: int) -> None:
    from drsow_plugin.hashing import text_sha256

    os.close(os.open(folder / f"{text_sha256(str(number))}.parquet", os.O_CREAT | os.O_WRONLY))


def measured_summary(rows: int) -> list[tuple[str, str]]:
    """Return what labels and the summary of them take for each row, in the driver's process."""
    import tracemalloc

    import datasets
    from helpers.fakes import fake_annotator
    from helpers.preferences import pairs

    from drsow_plugin.annotate.kinds import make_labeller
    from drsow_plugin.annotate.layout import find_layout
    from drsow_plugin.annotate.summary import Summary
    from drsow_plugin.annotate.tables import labelled_table, read_shard
    from drsow_plugin.records import Reward

    annotator = fake_annotator()
    data = datasets.Dataset.from_list(
        [row | {"prompt": f"{n}"} for n, row in enumerate(pairs(rows))]
    )
    layout = find_layout(data.column_names, annotator.config, annotator.scorer.pair.routing)
    shard = read_shard(data, layout)
    labeller = make_labeller(layout, annotator.config, shard.values, shard.table.schema)
    rewards = [
        [Reward(float(n), float(n), 0.0, 9, 9), Reward(0.5, 1.0, 0.5, 8, 8)] for n in range(rows)
    ]
    labels: Any = None

    def label() -> None:
        nonlocal labels
        labels = labeller.label(shard.values, shard.items, rewards)
        labelled_table(shard.table, labels, labeller, rename=True)

    labelling = timed(label)
    summary = Summary(layout, annotator.config)
    counting = timed(lambda: summary.add(shard.values, labels.columns, shard.prompt_keys()))
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(5):
        summary.add(shard.values, labels.columns, shard.prompt_keys())
    grown = (tracemalloc.get_traced_memory()[0] - before) / (5 * rows)
    tracemalloc.stop()
    return [
        ("to label a row (processor)", f"{1e6 * labelling[1] / rows:.0f} us"),
        ("to count a row for the report (processor)", f"{1e6 * counting[1] / rows:.0f} us"),
        ("memory of the report for a row, until the end", f"{grown:.0f} bytes"),
    ]


def measured_arithmetic() -> list[tuple[str, str]]:
    """Return how the time of our engine grows with parameters and tokens, on one thread here."""
    import torch
    import transformers as tf
    from helpers import tiny

    from drsow_plugin import DrSoW

    torch.set_num_threads(1)
    square = torch.randn(1024, 1024)
    product = min(timed(lambda: [square @ square for _ in range(8)])[1] for _ in range(5))
    peak = 8 * 2 * 1024**3 / product
    tokenizer = tiny.tokenizer("gpt2_bos")
    lines = [("a product of 1024 x 1024, float32", f"{peak / 1e9:.0f} GFLOP/s")]
    chance = random.Random(0)
    for width, layers in ((256, 4), (512, 8), (1024, 8)):
        config = tf.LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=width, intermediate_size=4 * width,
            num_hidden_layers=layers, num_attention_heads=width // 64,
            num_key_value_heads=width // 64, max_position_embeddings=4096,
        )  # fmt: skip
        model = tf.LlamaForCausalLM(config).eval()
        pair = DrSoW(model, model, tokenizer=tokenizer, weak_template="none")
        words = ["quick", "brown", "fox", "return", "Paris"]
        texts = [" ".join(chance.choices(words, k=60)) for _ in range(16)]
        prompts = [f"{n} {text}" for n, text in enumerate(texts)]  # nothing is shared
        pair.score(prompts[:2], texts[:2])
        spent, tokens = scored(pair, prompts, texts)
        # Of the embedding a row is looked up; the head is a product like any other.
        parameters = (
            sum(p.numel() for p in model.parameters()) - model.model.embed_tokens.weight.numel()
        )
        work = 2 * parameters * tokens
        share = work / spent / peak
        lines.append(
            (f"{parameters / 1e6:.0f} M parameters, {tokens:,.0f} tokens",
             f"{spent:.2f} s, {share:.0%} of that")
        )  # fmt: skip
    return lines


def scored(pair: Any, prompts: list[str], texts: list[str]) -> tuple[float, int]:
    """Return the least processor seconds of three, and how many tokens both models computed."""
    found = []
    for _ in range(3):
        done: list[int] = []
        count = partial(_count, done)
        used = timed(partial(pair.score, prompts, texts, progress=count))[1]
        found.append((used, sum(done)))
    return min(found)


def _count(done: list[int], tokens: int, _total: int) -> None:
    done.append(tokens)


def main() -> None:
    """Print tables, or write them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--names", type=int, default=200_000, help="files in the store's folder")
    parser.add_argument("--write", action="store_true")
    for field in fields(Assumed):
        parser.add_argument(f"--{field.name}", type=type(field.default), default=field.default)
    asked = parser.parse_args()
    if asked.measure:
        lines = measured_store(asked.names) + measured_summary(5000) + measured_arithmetic()
        name, text = "measured", table(("what", "here"), lines)
    else:
        name, text = (
            "costs",
            costs(Assumed(**{f.name: getattr(asked, f.name) for f in fields(Assumed)})),
        )
    print(text)
    if asked.write:
        write_section(PAGE, name, text)


if __name__ == "__main__":
    main()
