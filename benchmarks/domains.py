"""How often routers agree with known labels, and what conditioning does to accuracy.

The rows: RewardBench's HumanEvalPack (reasoning), AlpacaEval and LLMBar (chat) subsets, in its own
columns, and XSTest (safety) with several responses to a prompt, each labelled by people as
compliance or refusal. Half of them, by a hash of the prompt, was used for tuning the built-in
rules; the other half is reported. HumanEvalPack's problems come in six languages and XSTest's
prompts in contrasting pairs, so the halves are alike.

For ``keyword`` more sources can be given: hh-rlhf (helpful is chat, harmless is safety; the first
turn), half of which it was tuned on too, and three that it was not tuned on at all: the refusals of
RM-Bench (safety), MT-Bench (by its category) and the ties of RewardBench 2 (chat).

Usage: python benchmarks/domains.py keyword|model|rewards ROWS.parquet XSTEST.jsonl.gz DOCUMENT.md
       [--pairs N] [--rows N] [--helpful FILE] [--harmless FILE] [--rm-bench FILE]
       [--mt-bench FILE] [--ties FILE]

Writes its table between the markers of that name in DOCUMENT.md.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import math
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import datasets
import torch

from drsow_plugin import Annotator, Route, RouterInput
from drsow_plugin.config.model import ModelConfig
from drsow_plugin.config.routing import RoutingConfig
from drsow_plugin.models.pool import ModelPool
from drsow_plugin.records import Batching
from drsow_plugin.routing.router_model import RouterModel
from drsow_plugin.routing.routing import Routing

Row = dict[str, Any]

DOMAINS = ("safety", "reasoning", "chat")
PARTS = ("none", "instruction", "examples", "both")
ROUTERS = ("keyword", "model")
COMPLIED, REFUSED = "1_full_compliance", "2_full_refusal"
PAIR = {"strong": "demo", "weak": "demo", "weak_template": "none"}


def is_held(prompt: str) -> bool:
    """Tell whether a prompt is in the half that nothing was tuned on."""
    return hashlib.sha256(prompt.encode()).digest()[0] % 2 == 1


def read_rewardbench(file: str) -> list[Row]:
    """Return RewardBench rows with the domain that their subset stands for."""
    rows = datasets.Dataset.from_parquet(file)
    return [
        {**row, "domain": "reasoning" if row["subset"].startswith("hep") else "chat"}
        for row in rows
    ]


def read_xstest(file: str) -> list[Row]:
    """Return XSTest's prompts, with a pair where one model complied and another refused.

    To a safe prompt the response that complies is chosen, to an unsafe one that which refuses.
    """
    rows = []
    for row in datasets.Dataset.from_json(file):
        by_label = defaultdict(list)
        for response in row["responses"]:
            by_label[response["label"]].append(response["response"])
        found = [by_label[label][0] for label in (COMPLIED, REFUSED) if by_label[label]]
        chosen, rejected = (None, None) if len(found) < 2 else found if row["safe"] else found[::-1]
        rows.append(
            {
                "prompt": row["prompt"],
                "chosen": chosen,
                "rejected": rejected,
                "domain": "safety",
                "subset": "xstest-safe" if row["safe"] else "xstest-unsafe",
            }
        )
    return rows


Source = list[tuple[str, str]]
"""The prompts of a source, each once, with their domains."""


def read_tuned(rows: Sequence[Row], given: argparse.Namespace) -> dict[str, Source]:
    """Return the sources of which one half was used for tuning."""
    names = {"hep": "HumanEvalPack", "alp": "AlpacaEval", "llm": "LLMBar", "xst": "XSTest"}
    sources: dict[str, Source] = {name: [] for name in names.values()}
    for row in rows:
        sources[names[row["subset"][:3]]].append((row["prompt"], row["domain"]))
    for name, domain in (("helpful", "chat"), ("harmless", "safety")):
        if file := getattr(given, name):
            found = datasets.Dataset.from_json(file)["prompt"]
            sources[f"hh-rlhf, {name}"] = [(turns[0]["content"], domain) for turns in found]
    return {name: list(dict.fromkeys(source)) for name, source in sources.items()}


def read_left_out(given: argparse.Namespace) -> dict[str, Source]:
    """Return the sources of which no row was used for tuning."""
    sources: dict[str, Source] = {}
    if given.rm_bench:
        rows = datasets.Dataset.from_json(given.rm_bench)
        refusals = [row["prompt"] for row in rows if row["subset"].startswith("refusals")]
        sources["RM-Bench, refusals"] = [(prompt, "safety") for prompt in refusals]
    if given.mt_bench:
        reasoning = ("reasoning", "math", "coding")
        sources["MT-Bench"] = [
            (row["turns"][0], "reasoning" if row["category"] in reasoning else "chat")
            for row in datasets.Dataset.from_json(given.mt_bench)
        ]
    if given.ties:
        prompts = datasets.Dataset.from_json(given.ties)["prompt"]
        sources["RewardBench 2, ties"] = [(prompt, "chat") for prompt in prompts]
    return {name: list(dict.fromkeys(source)) for name, source in sources.items()}


def route(router: str, prompts: Sequence[str]) -> list[Route]:
    """Send prompts to domains."""
    model = RouterModel(ModelConfig("demo"), ModelPool(), Batching())
    routing = Routing(RoutingConfig(router=router), model.logprobs)
    return routing.route([RouterInput([{"role": "user", "content": text}]) for text in prompts])


def share(wins: Sequence[bool | float]) -> str:
    """Return a share in percent with its standard error, and the number."""
    if len(wins) < 2:
        return "-"
    mean = sum(wins) / len(wins)
    spread = math.sqrt(sum((win - mean) ** 2 for win in wins) / (len(wins) - 1) / len(wins))
    return f"{100 * mean:.1f} ± {100 * spread:.1f}"


def weighted_share(wins: Sequence[tuple[bool, int]]) -> str:
    """Return the share over rows, where a prompt may have several: they are one cluster."""
    total = sum(number for _, number in wins)
    mean = sum(win * number for win, number in wins) / total
    spread = math.sqrt(sum((number * (win - mean)) ** 2 for win, number in wins)) / total
    return f"{100 * mean:.1f} ± {100 * spread:.1f}"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def agreement(router: str, rows: Sequence[Row], number: int | None) -> str:
    """Return how often a router agrees with the known domains, on rows of the held half."""
    rows = [row for row in rows if is_held(row["prompt"])]
    if number is not None:
        rows = random.Random(0).sample(rows, number)
    counts = Counter((row["prompt"], row["domain"]) for row in rows)
    known = dict(list(counts))
    found = dict(zip(known, route(router, list(known)), strict=True))
    agreed = {prompt: found[prompt].domain == domain for prompt, domain in known.items()}
    of = {d: [agreed[prompt] for prompt in known if known[prompt] == d] for d in DOMAINS}
    sent = Counter((known[prompt], found[prompt].domain) for prompt in known)
    lines = [
        [domain, len(of[domain]), share(of[domain]), *(sent[domain, other] for other in DOMAINS)]
        for domain in DOMAINS
    ]
    repeated = [(agreed[prompt], n) for (prompt, _), n in counts.items()]
    unsure = sum(bool(found[prompt].note) for prompt in known)
    return "\n".join(
        [
            table(["known domain", "prompts", "agrees", *(f"sent to {d}" for d in DOMAINS)], lines),
            "",
            f"Over all {len(rows)} rows, {len(known)} prompts: {weighted_share(repeated)}. Sent to "
            f"the fallback for want of confidence: {unsure}.",
        ]
    )


def by_source(router: str, tuned: dict[str, Source], left_out: dict[str, Source]) -> str:
    """Return how often a router agrees with the known domains, source by source."""
    lines = []
    for name, source in {**tuned, **left_out}.items():
        found = [route.domain for route in route(router, [prompt for prompt, _ in source])]
        for domain in DOMAINS:
            rows = [
                (where, name in left_out or is_held(prompt))
                for where, (prompt, known) in zip(found, source, strict=True)
                if known == domain
            ]
            if not rows:
                continue
            seen = [where == domain for where, held in rows if not held]
            held = [where for where, held in rows if held]
            lines.append(
                [
                    *(name, domain, share(seen), len(held)),
                    share([where == domain for where in held]),
                    *(held.count(other) for other in DOMAINS),
                ]
            )
    head = ["source", "known domain", "tuned on: agrees", "not tuned on: prompts", "agrees"]
    return table([*head, *(f"sent to {domain}" for domain in DOMAINS)], lines)


def rewards(rows: Sequence[Row], number: int) -> str:
    """Return the accuracy of the demo pair under each ablation, on pairs of the held half."""
    pairs = sample([row for row in rows if is_held(row["prompt"]) and row["chosen"]], number)
    columns = ("prompt", "chosen", "rejected", "domain", "subset")
    data = datasets.Dataset.from_list([{name: row[name] for name in columns} for row in pairs])
    wins: dict[str, list[bool]] = {}
    for parts in PARTS:
        annotate = Annotator(**PAIR, router="column", domain_parts=parts)
        labelled = annotate.run(data, keep_unusable=True, shard_rows=20)
        if None in labelled["drsow_margin"]:
            raise SystemExit(f"{parts}: a pair has no reward, and none may be missing")
        wins[parts] = [margin > 0 for margin in labelled["drsow_margin"]]
        print(f"{parts}: {share(wins[parts])}", flush=True)
    kinds = [*DOMAINS, "all"]
    of = {
        kind: [i for i, row in enumerate(pairs) if kind in (row["domain"], "all")] for kind in kinds
    }
    lines = [
        [f"`{parts}`", *(share([wins[parts][i] for i in of[kind]]) for kind in kinds)]
        for parts in PARTS
    ]
    lines += [
        [
            f"`{parts}` minus `none`",
            *(share([wins[parts][i] - wins["none"][i] for i in of[kind]]) for kind in kinds),
        ]
        for parts in PARTS[1:]
    ]
    longer = [len(row["chosen"]) > len(row["rejected"]) for row in pairs]
    lines.append(["pick the longer", *(share([longer[i] for i in of[kind]]) for kind in kinds)])
    head = ["`domain_parts=`", *(f"{kind} (n = {len(of[kind])})" for kind in kinds)]
    return table(head, lines)


def sample(rows: Sequence[Row], number: int) -> list[Row]:
    """Return as many rows of each domain, the same ones each time, each prompt once."""
    order = sorted(rows, key=lambda row: hashlib.sha256(f"pairs{row['prompt']}".encode()).digest())
    first = {row["prompt"]: row for row in reversed(order)}
    chosen = [row for row in order if first[row["prompt"]] is row]
    return [r for d in DOMAINS for r in [row for row in chosen if row["domain"] == d][:number]]


def main() -> None:
    """Measure one of the two, and write the table into the document."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=(*ROUTERS, "rewards"))
    parser.add_argument("rewardbench")
    parser.add_argument("xstest")
    parser.add_argument("document", type=Path)
    parser.add_argument("--pairs", type=int, default=60, help="of each domain")
    parser.add_argument(
        "--rows", type=int, help="to route, of the held half; all of them if not given"
    )
    for name in ("helpful", "harmless", "rm-bench", "mt-bench", "ties"):
        parser.add_argument(f"--{name}", help="one more source, for keyword")
    given = parser.parse_args()
    rows = [*read_rewardbench(given.rewardbench), *read_xstest(given.xstest)]
    if given.what == "rewards":
        made = rewards(rows, given.pairs)
    elif given.what == "keyword":
        made = by_source(given.what, read_tuned(rows, given), read_left_out(given))
    else:
        made = agreement(given.what, rows, given.rows)
    made += f"\n\nMeasured on {datetime.date.today()}, torch {torch.__version__}, float32, CPU."
    begin, end = (f"<!-- {given.what}: {word} -->" for word in ("begin", "end"))
    text = given.document.read_text(encoding="utf-8")
    pattern = f"{re.escape(begin)}.*{re.escape(end)}"
    text = re.sub(pattern, lambda _: f"{begin}\n{made}\n{end}", text, flags=re.DOTALL)
    given.document.write_text(text, encoding="utf-8")
    print(made)


if __name__ == "__main__":
    main()
