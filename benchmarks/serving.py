"""What a served reward costs: positions computed and latency, by how many clients ask at once.

The same 64 queries, 8 prompts with 8 candidates each, are sent in one request, and one query a
request by 1, 8 and 64 clients, each of which waits for its answer before it asks again. Two tiny
random models; server and clients share a process and its processor.

Usage: python benchmarks/serving.py [--rounds 3] [--out FILE]
Writes the section ``served`` of benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from statistics import median, quantiles
from typing import Any, NamedTuple

import torch
import transformers as tf
from measure import Positions, causal_lms, cpu_name
from report import README, table, versions, write_section
from workloads import Row, workload

from drsow_plugin import DrSoW
from drsow_plugin.models.demo import demo_model
from drsow_plugin.serving.options import parse_serving
from drsow_plugin.serving.server import RewardServer, listen

CLIENTS = (1, 8, 64)
QUERIES = 64
HEAD = ("clients", "queries a request", "positions", "/ one call", "passes", "seconds", "p50 ms")


class Run(NamedTuple):
    """What one way of asking took: positions, passes, seconds, latencies, rewards by query."""

    positions: int
    passes: int
    seconds: float
    latencies: list[float]
    rewards: list[float]


def tiny_pair() -> dict[str, Any]:
    """Return options of two random models with the demo model's tokenizer."""
    path = demo_model()
    tokenizer = tf.AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
    config = tf.LlamaConfig(
        **{"vocab_size": len(tokenizer), "hidden_size": 64, "intermediate_size": 128},
        **{"num_hidden_layers": 4, "num_attention_heads": 4, "max_position_embeddings": 4096},
    )
    models = {}
    for seed, side in enumerate(("strong", "weak")):
        torch.manual_seed(seed)
        models[side] = tf.LlamaForCausalLM(config).eval()
    return {**models, "tokenizer": tokenizer}


@contextmanager
def serving(options: dict[str, Any]) -> Iterator[tuple[int, DrSoW]]:
    """Serve the pair on a free port; yield the port and the pair."""
    config, serve = parse_serving({**options, "port": 0})
    drsow = DrSoW.from_config(config)
    with listen(serve) as listener:
        server = RewardServer(drsow, serve)
        thread = threading.Thread(target=server.run, args=[listener])
        thread.start()
        try:
            yield listener.getsockname()[1], drsow
        finally:
            server.stop()
            thread.join()


def ask(connection: http.client.HTTPConnection, rows: Sequence[Row]) -> list[float]:
    body = {"prompts": [prompt for prompt, _ in rows], "responses": [text for _, text in rows]}
    connection.request("POST", "/v1/rewards", json.dumps(body))
    return [row["reward"] for row in json.load(connection.getresponse())["rewards"]]


def passes(port: int) -> int:
    """Return how often rows were scored together so far."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    (count,) = [line for line in lines if line.startswith("drsow_rows_scored_together_count")]
    return int(float(count.split()[-1]))


def run(port: int, rows: Sequence[Row], clients: int, together: int) -> Run:
    """Ask for all rewards with so many clients, and so many queries in a request."""
    requests = [rows[begun : begun + together] for begun in range(0, len(rows), together)]
    latencies, rewards = [0.0] * len(requests), [[0.0]] * len(requests)

    def work(client: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        for number in range(client, len(requests), clients):
            started = time.perf_counter()
            rewards[number] = ask(connection, requests[number])
            latencies[number] = time.perf_counter() - started
        connection.close()

    counted, before, begun = Positions(), passes(port), time.perf_counter()
    with counted.counting(causal_lms()), ThreadPoolExecutor(clients) as pool:
        list(pool.map(work, range(clients)))
    seconds = time.perf_counter() - begun
    found = [reward for some in rewards for reward in some]
    return Run(counted.backbone, passes(port) - before, seconds, latencies, found)


def lines(runs: dict[tuple[int, int], list[Run]]) -> Iterator[list[str]]:
    one_call = median(run.positions for run in runs[1, QUERIES])
    for (clients, together), found in runs.items():
        latencies = [latency for run in found for latency in run.latencies]
        positions = median(run.positions for run in found)
        slow = quantiles(latencies, n=20)[-1] if len(latencies) > 1 else latencies[0]
        yield [
            f"{clients}",
            f"{together}",
            f"{positions:,.0f}",
            f"{positions / one_call:.2f}",
            f"{median(run.passes for run in found):.0f}",
            f"{median(run.seconds for run in found):.2f}",
            f"{1000 * median(latencies):.0f}",
            f"{1000 * slow:.0f}",
        ]


def main() -> None:
    """Measure, and write the section."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=README)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = workload("w3", QUERIES // 2)
    runs: dict[tuple[int, int], list[Run]] = {}
    with serving(tiny_pair()) as (port, drsow):
        expected = [reward.reward for reward in drsow.score(*map(list, zip(*rows, strict=True)))]
        run(port, rows, 1, QUERIES)  # the first requests of a process are slower
        for _ in range(given.rounds):
            for clients, together in ((1, QUERIES), *((clients, 1) for clients in CLIENTS)):
                found = run(port, rows, clients, together)
                off = max(abs(a - (b or 0)) for a, b in zip(found.rewards, expected, strict=True))
                assert off < 1e-3, f"rewards differ by {off} nats"
                runs.setdefault((clients, together), []).append(found)
                print(f"{clients} x {together}: {found[:3]}", file=sys.stderr)
    text = table((*HEAD, "p95 ms"), lines(runs))
    about = (
        f"Measured on {date.today()}, {cpu_name()}, 1 thread, float32, {given.rounds} round(s); "
        f"{versions('drsow-plugin', 'torch', 'transformers', 'starlette', 'uvicorn')}."
    )
    write_section(given.out, "served", f"{about}\n\n{text}")


if __name__ == "__main__":
    main()
